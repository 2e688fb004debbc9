"""Sends a command each second and prints how long its answer took; ``pong`` answers.

python -m examples.services.pika.ping
"""

from __future__ import annotations

import time
from uuid import uuid4

from eda_pika import JSON_MODEL, ReconnectingSupervisor, Service
from examples.services.common import broker_url, say


class Ping(Service):
    timer: int | None = None

    def on_ready(self) -> None:
        say("ping: ready")
        if self.timer is not None:  # ready again, on a new connection
            self.cancel_timer(self.timer)
        self.ping()

    def ping(self) -> None:
        self.send_command("pong.Ping", {"sent": time.time()}, str(uuid4()), "ping.PingReturn", str(uuid4()))
        self.timer = self.call_later(1.0, self.ping)

    def on_PingReturn(
        self, payload: JSON_MODEL, conversation_id: str, status: str, correlation_id: str, meta: JSON_MODEL
    ) -> None:
        if status == "success":
            say(f"ping: answered in {1000 * (time.time() - payload['sent']):.1f} ms by worker {payload['worker']}")
        else:
            say(f"ping: refused: {payload['reason']}")

    def handle_returned_message(self, key: str, payload: JSON_MODEL, envelope: JSON_MODEL) -> None:
        say(f"ping: nobody takes {key}; start examples.services.pika.pong")


if __name__ == "__main__":
    ReconnectingSupervisor(Ping, broker_url(), [], ["ping.PingReturn"], "ping").run()
