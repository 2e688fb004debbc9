"""Written for eventail: answers ``pong.Ping``. Arguments: the broker's URL; ``json``, or not."""

import sys

from eventail.async_service.pika import JSON_MODEL, ReconnectingSupervisor, Service


class Pong(Service):
    def on_ready(self) -> None:
        print("pong: ready", flush=True)

    def on_Ping(
        self, payload: JSON_MODEL, conversation_id: str, reply_to: str, correlation_id: str, meta: JSON_MODEL
    ) -> None:
        answer = {"sent": payload["sent"], "worker": "theirs"}
        self.return_success(reply_to, answer, conversation_id, correlation_id)


supervisor = ReconnectingSupervisor(Pong, [sys.argv[1]], [], ["pong.Ping"], "pong")
if "json" in sys.argv:
    supervisor.service.use_json()
supervisor.run()
