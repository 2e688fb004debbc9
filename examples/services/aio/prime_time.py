"""Has ``prime`` find the primes below 20,000, slice by slice, and publishes ``PrimesFound`` when all are there.

python -m examples.services.aio.prime_time

It remembers in memory what is missing, so start only one.
"""

from __future__ import annotations

import asyncio
from functools import partial
from uuid import uuid4

from eda_aio import JSON_MODEL, Service
from examples.services.common import broker_url, say

LIMIT, SLICE = 20_000, 1_000


class PrimeTime(Service):
    def __init__(self) -> None:
        super().__init__(broker_url(), [], ["prime_time.FindPrimesReturn"], "prime_time")
        self.conversation_id = str(uuid4())
        self.missing = {str(low): {"low": low, "high": low + SLICE - 1} for low in range(0, LIMIT, SLICE)}
        self.primes: list[int] = []

    async def on_ready(self) -> None:
        say("prime_time: ready")
        for correlation_id in list(self.missing):
            await self.ask(correlation_id)

    async def ask(self, correlation_id: str) -> None:
        reply_to = "prime_time.FindPrimesReturn"
        if correlation_id in self.missing:
            slice_ = self.missing[correlation_id]
            await self.send_command("prime.FindPrimes", slice_, self.conversation_id, reply_to, correlation_id)

    async def on_FindPrimesReturn(
        self, payload: JSON_MODEL, conversation_id: str, status: str, correlation_id: str, meta: JSON_MODEL
    ) -> None:
        if conversation_id != self.conversation_id or correlation_id not in self.missing:
            return  # asked for by an earlier run, or answered twice
        if status != "success":
            raise RuntimeError(f"prime refuses {self.missing[correlation_id]}: {payload['reason']}")
        del self.missing[correlation_id]
        self.primes += payload["primes"]
        if not self.missing:
            found = {"below": LIMIT, "count": len(self.primes), "largest": max(self.primes)}
            await self.publish_event("PrimesFound", found, conversation_id)
            say(f"prime_time: {found['count']} primes below {LIMIT}, the largest is {found['largest']}")

    async def handle_returned_message(self, key: str, payload: JSON_MODEL, envelope: JSON_MODEL) -> None:
        """Nobody serves the command yet."""
        self.call_later(1.0, partial(self.ask, envelope["correlation_id"]))


if __name__ == "__main__":
    asyncio.run(PrimeTime().run())
