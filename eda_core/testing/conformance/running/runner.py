"""Runs a check of the conformance kit: does what its script asks for, on asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from eda_core.testing.conformance.running.brokers import BrokerUnderTest
from eda_core.testing.conformance.script import (
    Alarm,
    Begin,
    Check,
    Count,
    Cut,
    Declare,
    Delete,
    Do,
    Ended,
    Freeze,
    Join,
    Limit,
    Links,
    MakeSubject,
    NotConforming,
    Notes,
    Open,
    Put,
    Restart,
    Seen,
    Start,
    Stop,
    Subject,
    Take,
    Worker,
)

T = TypeVar("T")

#: Seconds until something that takes milliseconds is given up, on a machine that is busy with other things.
TIMEOUT = 60.0
#: Seconds that a broker may take to start, or its command-line tool to answer.
BROKER_TIMEOUT = 90.0


class Cast:
    """One worker of a check: its subject, and what it has noted.

    Attributes:
        notes: names and arguments.
        end: its end.
    """

    def __init__(self, worker: Worker, make: MakeSubject, urls: list[str]) -> None:
        loop = asyncio.get_running_loop()
        self.worker = worker
        self.notes: list[tuple[str, tuple[Any, ...]]] = []
        self.news: asyncio.Event = asyncio.Event()
        self.begun: list[asyncio.Task[None]] = []
        self.end: asyncio.Task[str | None] | None = None

        def note(what: str, arguments: tuple[Any, ...]) -> None:
            loop.call_soon_threadsafe(self._noted, what, arguments)

        self.subject: Subject = make(worker, urls, note)

    def _noted(self, what: str, arguments: tuple[Any, ...]) -> None:
        self.notes.append((what, arguments))
        self.news.set()

    async def start(self) -> None:
        await self.subject.start()
        self.end = asyncio.create_task(self.subject.ended())
        self.end.add_done_callback(lambda _: self.news.set())

    async def seen(self, what: str, count: int) -> list[tuple[Any, ...]]:
        """Wait until ``what`` was noted ``count`` times."""
        while len(found := [arguments for name, arguments in self.notes if name == what]) < count:
            if self.end is not None and self.end.done():
                raise NotConforming(f"{self} ended ({self.end.result()}) and has not noted {what} {count} times")
            self.news.clear()
            await self.news.wait()
        return found

    def __str__(self) -> str:
        return f"{self.worker.name} {[name for name, _ in self.notes][-12:]}"


class Runner:
    """Performs the requests of one script.

    Args:
        make: makes subjects of the adapter under test.
        timeout: seconds that a request may take by default; ``None`` for ``TIMEOUT``.
    """

    def __init__(self, broker: BrokerUnderTest, make: MakeSubject, timeout: float | None = None) -> None:
        self._broker = broker
        self._make = make
        self._timeout = TIMEOUT if timeout is None else timeout
        self._cast: dict[Worker, Cast] = {}
        self._actions: dict[type, Callable[[Any], Awaitable[Any]]] = {
            Start: self._start,
            Stop: lambda asked: self._of(asked).subject.stop(asked.timeout),
            Ended: self._ended,
            Do: self._do,
            Begin: self._begin,
            Join: lambda asked: asyncio.gather(*self._of(asked).begun),
            Seen: lambda asked: self._of(asked).seen(asked.what, asked.count),
            Notes: self._notes,
            Open: self._open,
            Declare: broker.operator.declare,
            Delete: lambda asked: broker.operator.delete(asked.queue),
            Put: broker.operator.put,
            Take: lambda asked: broker.operator.take(asked.queue),
            Count: lambda asked: broker.operator.count(asked.queue, asked.until),
            Links: lambda asked: broker.proxy.linked(asked.count),
            Cut: self._cut,
            Freeze: self._freeze,
            Alarm: lambda asked: broker.alarm(asked.on),
            Limit: lambda asked: broker.limit(asked.size),
            Restart: lambda asked: broker.restart(),
        }

    async def run(self, check: Check) -> None:
        """Run the check, end its services, and see that they leave nothing behind.

        Raises:
            NotConforming: the adapter under test does not do what is promised.
        """
        try:
            await self._play(check)
        except BaseException:
            self._broker.proxy.cut()  # nobody should wait for what is frozen
            await self._end_all(0.0)
            raise
        await self._end_all(None)
        await _within(self._broker.proxy.quiet(), "the services close their connections")

    async def _play(self, check: Check) -> None:
        script = check.script()
        request = next(script)
        try:
            while True:
                try:
                    answer = await self._perform(request)
                except NotConforming as error:
                    request = script.throw(error)  # so that the traceback shows the line of the check
                else:
                    request = script.send(answer)
        except StopIteration:
            return

    async def _perform(self, request: Any) -> Any:
        what = f"{type(request).__name__} {getattr(request, 'what', '')} ({', '.join(map(str, self._cast.values()))})"
        slow = isinstance(request, (Restart, Alarm, Limit))
        timeout = BROKER_TIMEOUT if slow else getattr(request, "seconds", None)
        return await _within(self._actions[type(request)](request), what, timeout or self._timeout)

    async def _end_all(self, timeout: float | None) -> None:
        for cast in self._cast.values():
            for task in cast.begun:
                task.cancel()
            if cast.end is not None:
                if not cast.end.done():
                    await cast.subject.stop(timeout)
                await _within(cast.end, f"{cast} ends")
            await asyncio.gather(*cast.begun, return_exceptions=True)

    def _of(self, asked: Any) -> Cast:
        return self._cast[asked.worker]

    async def _start(self, asked: Start) -> None:
        worker = asked.worker
        cast = self._cast[worker] = Cast(worker, self._make, self._broker.urls(worker.urls))
        await cast.start()
        if asked.until is not None:
            await cast.seen(asked.until, 1)

    async def _ended(self, asked: Ended) -> str | None:
        end = self._of(asked).end
        assert end is not None
        return await asyncio.shield(end)

    def _called(self, asked: Do) -> Coroutine[Any, Any, None]:
        return self._of(asked).subject.call(asked.method, asked.arguments, asked.named)

    async def _do(self, asked: Do) -> None:
        await self._called(asked)

    async def _begin(self, asked: Do) -> None:
        self._of(asked).begun.append(asyncio.create_task(self._called(asked)))
        await asyncio.sleep(0)  # so that calls are made in the order in which they are begun

    async def _notes(self, asked: Notes) -> list[str]:
        return [name for name, _ in self._of(asked).notes]

    async def _open(self, asked: Open) -> None:
        self._of(asked).subject.open(asked.gate)

    async def _cut(self, _asked: Cut) -> None:
        self._broker.proxy.cut()

    async def _freeze(self, _asked: Freeze) -> None:
        self._broker.proxy.freeze()


async def _within(awaitable: Awaitable[T], what: str, timeout: float | None = None) -> T:
    timeout = TIMEOUT if timeout is None else timeout
    limit = asyncio.timeout(timeout)
    try:
        async with limit:
            return await awaitable
    except TimeoutError:
        if not limit.expired():
            raise
        raise NotConforming(f"{what}: not within {timeout:g} s") from None


async def no_task_is_left() -> None:
    """Raise NotConforming if a task is left. A task that is being cancelled gets a few turns of the loop to end."""
    turns = 100
    while left := asyncio.all_tasks() - {asyncio.current_task()}:
        turns -= 1
        if not turns:
            raise NotConforming(f"tasks are left behind: {left}")
        await asyncio.sleep(0.01)
