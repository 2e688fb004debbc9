"""The harness's own client: publishes jobs, and reads what has arrived. It goes around the proxies.

It shares no code with what is tested. What the broker has not confirmed it publishes again, and says so.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeVar

import aiormq
import cbor2
from aiormq.abc import AbstractChannel, DeliveredMessage
from pamqp.commands import Basic

T = TypeVar("T")

#: Seconds for one round of publishes to be confirmed, and for a connection to be made.
TIMEOUT = 5.0
WINDOW = 500  # publishes at once

logging.getLogger("aiormq").setLevel(logging.CRITICAL)  # its connections are killed on purpose


@asynccontextmanager
async def channel(url: str) -> AsyncIterator[AbstractChannel]:
    """A channel with confirms on a connection of its own, which the end of the block gives no more than a second."""
    async with asyncio.timeout(TIMEOUT):
        connection = await aiormq.connect(f"{url}?heartbeat=5")
    try:
        async with asyncio.timeout(TIMEOUT):
            opened = await connection.channel(publisher_confirms=True)
        yield opened
    finally:
        with suppress(Exception):
            async with asyncio.timeout(1):
                await connection.close()


class Source:
    """Publishes jobs at a steady rate, from ``start`` to ``stop``.

    Attributes:
        confirmed: when the broker has confirmed each job.
        resent: jobs that were published more than once.
        pending: jobs that are still to be published.
        sending: jobs that are on their way.
    """

    def __init__(self, urls: Sequence[str], event: str, rate: float) -> None:
        self.confirmed: dict[int, float] = {}
        self.resent: set[int] = set()
        self.pending: list[int] = []
        self.sending: list[int] = []
        self.rate = rate
        self._urls = list(urls)
        self._event = event
        self._extras: dict[int, Mapping[str, Any]] = {}
        self._number = 0
        self._started = 0.0
        self._flowing = False
        self._over = False
        self._task: asyncio.Task[None] | None = None

    def add(self, count: int, **extra: Any) -> range:
        """Have so many more jobs published as soon as possible, with these entries in their payload; their numbers."""
        numbers = range(self._number + 1, self._number + count + 1)
        self._number += count
        self._extras.update(dict.fromkeys(numbers, extra) if extra else {})
        self.pending += numbers
        return numbers

    def start(self) -> None:
        """Begin to publish what is added."""
        self._task = asyncio.create_task(self._run())

    def flow(self, on: bool = True) -> None:
        """Begin or cease to add jobs at the rate."""
        self._flowing = on
        self._started = time.monotonic()

    async def flushed(self, seconds: float) -> bool:
        """Wait until all is confirmed; whether that is so."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self._flowing or self.pending or self.sending:
                    await asyncio.sleep(0.02)
                return True
        return False

    async def caught_up(self, seconds: float) -> None:
        """Wait until little is left to publish, though jobs may flow on."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while len(self.pending) > 10:
                    await asyncio.sleep(0.02)

    async def stop(self) -> None:
        """Publish no more."""
        self._over = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while not self._over:
            try:
                async with channel(self._urls[0]) as opened:
                    await self._publish_all(opened)
            except (Exception, asyncio.CancelledError):
                task = asyncio.current_task()
                if task is None or task.cancelling():  # else it is aiormq's way to say that the link is gone
                    raise
            self._urls.append(self._urls.pop(0))
            await asyncio.sleep(0.1)

    async def _publish_all(self, opened: AbstractChannel) -> None:
        """Publish until that fails."""
        failures: list[int] = []
        while not failures:
            self._add_what_is_due()
            large = bool(self.pending) and "size" in self._extras.get(self.pending[0], ())
            window = 1 if large else WINDOW
            self.sending, self.pending = self.pending[:window], self.pending[window:]
            try:
                if self.sending:
                    publishes = (self._publish(opened, number) for number in self.sending)
                    async with asyncio.timeout(TIMEOUT):
                        await asyncio.gather(*publishes, return_exceptions=True)
                else:
                    await asyncio.sleep(0.01)
            finally:
                failures = [number for number in self.sending if number not in self.confirmed]
                self.resent.update(failures)
                self.pending[:0] = failures
                self.sending = []

    def _add_what_is_due(self) -> None:
        if self._flowing:
            due = int((time.monotonic() - self._started) * self.rate)
            if due:
                self._started += due / self.rate
                self.add(due)

    async def _publish(self, opened: AbstractChannel, number: int) -> None:
        extra = dict(self._extras.get(number, {}))
        if size := extra.get("size"):
            extra["pad"] = bytes(size)
        properties = Basic.Properties(
            content_type="application/cbor", delivery_mode=2, headers={"conversation_id": f"job {number}"}
        )
        answer = await opened.basic_publish(
            cbor2.dumps({"number": number, **extra}), exchange="events", routing_key=self._event, properties=properties
        )
        if isinstance(answer, Basic.Ack):
            self.confirmed[number] = time.monotonic()


async def drain(url: str, queue: str, key: Callable[[DeliveredMessage], T]) -> Counter[T]:
    """Take all messages out of a queue; how often each ``key`` of a message was there.

    Raises TimeoutError when nothing comes though there is something, and what ``key`` raises.
    """
    numbers: Counter[T] = Counter()
    errors: list[Exception] = []
    async with channel(url) as opened:

        async def take(message: DeliveredMessage) -> None:
            try:
                numbers[key(message)] += 1
            except Exception as error:  # aiormq would only log it
                errors.append(error)

        await opened.basic_consume(queue, take, no_ack=True)
        seen, give_up = -1, 0.0
        while (taken := numbers.total() + len(errors)) != seen or await ready(opened, queue):
            if taken != seen:
                seen, give_up = taken, time.monotonic() + 30
            elif time.monotonic() > give_up:
                raise TimeoutError(f"{queue} gives no message in 30 s, though it has some")
            await asyncio.sleep(0.3)
    if errors:
        raise errors[0]
    return numbers


async def ready(opened: AbstractChannel, queue: str) -> int:
    """How many messages of a queue no consumer has."""
    answer = await opened.queue_declare(queue, passive=True)
    return answer.message_count or 0


async def consumers(opened: AbstractChannel, queue: str) -> int:
    """How many consumers a queue has. Raises aiormq's error if there is no such queue."""
    answer = await opened.queue_declare(queue, passive=True)
    return answer.consumer_count or 0


def death_of(message: DeliveredMessage) -> tuple[str, int]:
    """The queue in which a dead letter died, and the job that it is about."""
    headers: Any = message.header.properties.headers or {}
    return str(headers["x-death"][0]["queue"]), number_of(message)


def number_of(message: DeliveredMessage) -> int:
    """The job that a message is about."""
    number: int = cbor2.loads(message.body)["number"]
    return number
