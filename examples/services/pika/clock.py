"""Publishes the event ``SecondPassed`` each second.

python -m examples.services.pika.clock
"""

from __future__ import annotations

import time
from uuid import uuid4

from eda_pika import ReconnectingSupervisor, Service
from examples.services.common import broker_url, say


class Clock(Service):
    timer: int | None = None

    def on_ready(self) -> None:
        say("clock: ready")
        if self.timer is not None:  # ready again, on a new connection: the clock must not tick twice
            self.cancel_timer(self.timer)
        self.tick()

    def tick(self) -> None:
        now = time.time()
        self.publish_event("SecondPassed", {"time": int(now)}, str(uuid4()))
        self.timer = self.call_later(1.0 - now % 1.0, self.tick)


if __name__ == "__main__":
    ReconnectingSupervisor(Clock, broker_url(), [], [], "clock").run()
