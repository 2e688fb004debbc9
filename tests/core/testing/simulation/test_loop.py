"""The event loop with virtual time: what asyncio promises holds, nothing waits, and nothing reaches out."""

from __future__ import annotations

import asyncio
import contextvars
import time
from collections.abc import Coroutine
from typing import Any, TypeVar

import pytest

from eda_core import LocalError
from eda_core.testing.simulation import OutsideError
from eda_core.testing.simulation.loop import VirtualLoop, drive, new_loop
from eda_core.testing.simulation.schedule import Schedule

T = TypeVar("T")


class Bench:
    """A loop, its schedule and the errors that nobody has handled."""

    def __init__(self) -> None:
        self.schedule = Schedule()
        self.errors: list[BaseException] = []
        self.loop: VirtualLoop = new_loop(self.schedule, self.errors.append)

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return drive(coroutine, self.loop, self.schedule.step)


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_a_day_of_sleep_takes_no_time(bench: Bench) -> None:
    began = time.monotonic()
    bench.run(asyncio.sleep(86_400))
    assert bench.schedule.now == 86_400
    assert time.monotonic() - began < 60


def test_timeouts_end_what_takes_longer(bench: Bench) -> None:
    async def slow() -> str:
        try:
            async with asyncio.timeout(5):
                await asyncio.sleep(6)
        except TimeoutError:
            return f"at {asyncio.get_running_loop().time()}"
        return "never"

    assert bench.run(slow()) == "at 5.0"
    with pytest.raises(TimeoutError):
        bench.run(asyncio.wait_for(asyncio.sleep(2), 1))


def test_a_task_group_a_queue_and_context_variables_work(bench: Bench) -> None:
    name: contextvars.ContextVar[str] = contextvars.ContextVar("name")
    queue: asyncio.Queue[str] = asyncio.Queue(1)

    async def put(text: str) -> None:
        name.set(text)
        for _ in range(2):
            await asyncio.sleep(1)
            await queue.put(name.get())

    async def main() -> list[str]:
        async with asyncio.TaskGroup() as group:
            for text in ("a", "b"):
                group.create_task(put(text))
            return [await queue.get() for _ in range(4)]

    assert bench.run(main()) == ["a", "b", "a", "b"]


def test_what_is_to_run_in_a_thread_runs_at_once(bench: Bench) -> None:
    assert bench.run(asyncio.to_thread(lambda: 7)) == 7

    def fails() -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        bench.run(asyncio.to_thread(fails))


@pytest.mark.parametrize("name", ["socket", "server", "process", "resolver"])
def test_what_reaches_out_raises_an_error_that_says_what_to_do(bench: Bench, name: str) -> None:
    async def main() -> None:
        if name == "socket":
            await asyncio.open_connection("localhost", 1)
        elif name == "server":
            await asyncio.start_server(lambda _reader, _writer: None, "localhost", 1)
        elif name == "process":
            await asyncio.create_subprocess_exec("true")
        else:
            await asyncio.get_running_loop().getaddrinfo("localhost", 1)

    with pytest.raises(OutsideError, match="give the service an object that does this"):
        bench.run(main())


def test_loops_take_turns(bench: Bench) -> None:
    other = new_loop(bench.schedule, bench.errors.append)
    seen: list[tuple[str, bool]] = []

    async def work(name: str, loop: VirtualLoop) -> None:
        for _ in range(2):
            seen.append((name, asyncio.get_running_loop() is loop))
            await asyncio.sleep(0)

    other.create_task(work("other", other))
    bench.run(work("first", bench.loop))
    assert seen == [("other", True), ("first", True), ("other", True), ("first", True)]


def test_a_callback_may_let_other_loops_run_meanwhile(bench: Bench) -> None:
    other = new_loop(bench.schedule, bench.errors.append)

    async def inner() -> str:
        await asyncio.sleep(1)
        return "inner"

    async def outer() -> str:
        task = asyncio.get_running_loop().create_task(asyncio.sleep(0.5, "own"))
        text = drive(inner(), other, bench.schedule.step)
        assert asyncio.get_running_loop() is bench.loop
        return f"{text}, {await task}"

    assert bench.run(outer()) == "inner, own"


def test_closing_throws_away_what_runs_and_runs_its_clean_up(bench: Bench) -> None:
    seen: list[str] = []

    async def work() -> None:
        try:
            await asyncio.sleep(10)
            seen.append("ended")
        finally:
            seen.append("cleaned up")

    bench.loop.create_task(work())
    bench.loop.call_later(1.0, bench.loop.close)
    while bench.schedule.step():
        pass
    assert seen == ["cleaned up"]
    assert bench.loop.is_closed()


def test_an_error_that_nobody_handles_is_told(bench: Bench) -> None:
    async def main() -> None:
        asyncio.get_running_loop().call_soon(lambda: 1 // 0)
        await asyncio.sleep(1)

    bench.run(main())
    assert [type(error) for error in bench.errors] == [ZeroDivisionError]
    contexts: list[Any] = []
    bench.loop.set_exception_handler(lambda _loop, context: contexts.append(context))
    bench.run(main())
    assert len(contexts) == len(bench.errors) == 1


def test_a_wait_without_an_end_is_told(bench: Bench) -> None:
    with pytest.raises(LocalError, match="something that never happens"):
        bench.run(asyncio.Event().wait())
