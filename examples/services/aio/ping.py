"""Sends a command each second and prints how long its answer took; ``pong`` answers.

python -m examples.services.aio.ping

It waits for each answer with ``call``, which has no counterpart in callbacks: the answer comes to this very worker,
and only while that lives. The ping in callbacks gets its answers as messages, as any of its workers may.
"""

from __future__ import annotations

import asyncio
import time

from eda_aio import Service
from eda_core import CommandError, CommandTimeout, PublishError
from examples.services.common import broker_url, say


class Ping(Service):
    timer: int | None = None

    async def on_ready(self) -> None:
        say("ping: ready")
        if self.timer is not None:  # ready again, on a new connection
            self.cancel_timer(self.timer)
        await self.ping()

    async def ping(self) -> None:
        self.timer = self.call_later(1.0, self.ping)
        sent = time.time()
        try:
            answer = await self.call("pong.Ping", {"sent": sent}, timeout=5.0)
            say(f"ping: answered in {1000 * (time.time() - sent):.1f} ms by worker {answer['worker']}")
        except CommandError as error:
            say(f"ping: refused: {error.payload}")
        except (CommandTimeout, PublishError) as error:
            say(f"ping: {error}")


if __name__ == "__main__":
    asyncio.run(Ping(broker_url(), [], [], "ping").run())
