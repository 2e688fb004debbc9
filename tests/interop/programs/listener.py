"""Written for eventail: prints the events ``Happened``. Arguments: the broker's URL; configurations it waits for."""

import sys

from eventail.async_service.pika import HEADER, JSON_MODEL, ReconnectingSupervisor, Service


class Listener(Service):
    def on_unconfigured(self) -> None:
        print("listener: unconfigured", flush=True)

    def on_Chosen(self, payload: JSON_MODEL, meta: HEADER) -> bool:
        print("listener:", payload["text"], flush=True)
        return True

    def on_ready(self) -> None:
        print("listener: ready", flush=True)

    def on_Happened(self, payload: JSON_MODEL, conversation_id: str, meta: JSON_MODEL) -> None:
        print(payload["text"], conversation_id, flush=True)


ReconnectingSupervisor(Listener, [sys.argv[1]], ["Happened"], [], "listener", sys.argv[2:]).run()
