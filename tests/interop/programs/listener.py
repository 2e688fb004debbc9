"""Written for eventail: prints the events ``Happened``. Arguments: the broker's URL."""

import sys

from eventail.async_service.pika import JSON_MODEL, ReconnectingSupervisor, Service


class Listener(Service):
    def on_ready(self) -> None:
        print("listener: ready", flush=True)

    def on_Happened(self, payload: JSON_MODEL, conversation_id: str, meta: JSON_MODEL) -> None:
        print(payload["text"], conversation_id, flush=True)


ReconnectingSupervisor(Listener, [sys.argv[1]], ["Happened"], [], "listener").run()
