"""Written for eventail: sends ``pong.Ping`` until it is answered. Arguments: the broker's URL; ``json``, or not."""

import sys

from eventail.async_service.pika import JSON_MODEL, ReconnectingSupervisor, Service


class Ping(Service):
    def on_ready(self) -> None:
        self.send_command("pong.Ping", {"sent": 1.5}, "conversation", "ping.PingReturn", "correlation")
        self.call_later(1.0, self.on_ready)

    def on_PingReturn(
        self, payload: JSON_MODEL, conversation_id: str, status: str, correlation_id: str, meta: JSON_MODEL
    ) -> None:
        print(status, conversation_id, correlation_id, payload["sent"], flush=True)


supervisor = ReconnectingSupervisor(Ping, [sys.argv[1]], [], ["ping.PingReturn"], "ping")
if "json" in sys.argv:
    supervisor.service.use_json()
supervisor.run()
