"""Publishes the event ``SecondPassed`` each second.

python -m examples.services.aio.clock
"""

from __future__ import annotations

import asyncio
import time
from uuid import uuid4

from eda_aio import Service
from examples.services.common import broker_url, say


class Clock(Service):
    timer: int | None = None

    async def on_ready(self) -> None:
        say("clock: ready")
        if self.timer is not None:  # ready again, on a new connection: the clock must not tick twice
            self.cancel_timer(self.timer)
        await self.tick()

    async def tick(self) -> None:
        now = time.time()
        await self.publish_event("SecondPassed", {"time": int(now)}, str(uuid4()))
        self.timer = self.call_later(1.0 - now % 1.0, self.tick)


if __name__ == "__main__":
    asyncio.run(Clock(broker_url(), [], [], "clock").run())
