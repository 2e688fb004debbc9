"""What the programs have in common: their task, the payload, and how they begin together with the measurement.

It needs nothing but cbor2, because the environments of the other clients have nothing else of ours.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import cbor2

#: How many messages may be unacknowledged.
PREFETCH = 100
#: How many publishes may be unconfirmed.
WINDOW = 500
#: The event that is published.
ANSWERED = "Answered"


@dataclass
class Task:
    """What a program is to do.

    Attributes:
        work: ``relay``, ``consume``, ``publish``, ``serve`` (answer commands) or ``ask`` (send commands).
        url: the broker.
        count: how many messages to publish, or commands to send.
        size: that of the payload to publish, bytes.
        subscriptions: how many keys are bound.
        flight: how many commands may wait for their results.
        variant: which of several ways the program takes.
    """

    work: str
    url: str
    count: int = 0
    size: int = 200
    subscriptions: int = 1
    flight: int = 1
    variant: str = ""

    @property
    def service(self) -> str:
        """The name of the service. Its queue is ``<service>.events``."""
        return f"bench{self.subscriptions}"

    @property
    def keys(self) -> list[str]:
        """The events that it subscribes to."""
        return [f"Asked{number}" for number in range(self.subscriptions)]


def task() -> Task:
    """The task that the first argument of this program describes, in JSON."""
    return Task(**json.loads(sys.argv[1]))


def payload(size: int) -> dict[str, Any]:
    """One that has so many bytes in CBOR.

    Raises ValueError if there is none: it needs more than 100 bytes, and CBOR leaves out some sizes.
    """
    made = {"conversation": "0123456789abcdef" * 2, "turns": [1, 2, 3, 4.5], "language": "fr", "text": ""}
    made["text"] = "b" * (size - len(cbor2.dumps(made)))
    made["text"] = "b" * (size - len(cbor2.dumps(made | {"text": made["text"]})) + len(made["text"]))
    if len(cbor2.dumps(made)) != size:
        raise ValueError(f"no payload has exactly {size} bytes")
    return made


def begin() -> None:
    """Say that everything is prepared, and wait until the measurement has begun."""
    print("ready", flush=True)
    sys.stdin.readline()


async def spread(count: int, flight: int, one: Callable[[], Awaitable[Any]]) -> None:
    """Await ``one()`` so many times, so many of them at the same time."""
    numbers = iter(range(count))

    async def work() -> None:
        for _ in numbers:
            await one()

    await asyncio.gather(*(work() for _ in range(flight)))


async def ask(task: Task, one: Callable[[], Awaitable[Any]]) -> None:
    """Call, and print how long the calls took: for half of them, and for all but one in a hundred, seconds."""
    took: list[float] = []

    async def timed() -> None:
        start = time.perf_counter()
        await one()
        took.append(time.perf_counter() - start)

    await spread(max(task.flight, task.count // 10), task.flight, timed)  # caches are filled, imports are done
    took.clear()
    begin()
    await spread(task.count, task.flight, timed)
    took.sort()
    print(json.dumps({"p50": took[len(took) // 2], "p99": took[len(took) * 99 // 100]}), flush=True)
