"""How long user code keeps the event loop, and the warning about it."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from typing import Any

import pytest

from eda_core.drivers.steps import Steps
from eda_core.machine.effects import Dispatch
from eda_core.machine.identifiers import DeliveryId
from eda_core.messages.values import Event
from tests.core.drivers.turning import Promise, Runs, Service, running
from tests.core.kit import URLS


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class Pause:
    """Is awaited once, and says what came."""

    def __await__(self) -> Generator[str, Any, Any]:
        return (yield "paused")


def begun(work: Any) -> tuple[Clock, Steps, Any]:
    clock = Clock()
    steps = Steps(clock)
    return clock, steps, steps.of(work(clock)).__await__()


async def works(clock: Clock) -> str:
    clock.now += 3
    first = await Pause()
    clock.now += 5
    return f"got {first}"


def test_the_longest_step_counts_and_the_waits_do_not() -> None:
    clock, steps, run = begun(works)
    assert next(run) == "paused"
    assert steps.longest == 3
    clock.now += 100  # it waits
    with pytest.raises(StopIteration) as end:
        run.send("it")
    assert end.value.value == "got it"
    assert steps.longest == 5


def test_an_error_that_is_thrown_in_gets_there_and_its_handling_counts() -> None:
    async def catches(clock: Clock) -> str:
        try:
            await Pause()
        except LookupError as error:
            clock.now += 7
            return str(error)
        return ""

    _, steps, run = begun(catches)
    next(run)
    with pytest.raises(StopIteration) as end:
        run.throw(LookupError("lost"))
    assert (end.value.value, steps.longest) == ("lost", 7)


def test_an_error_gets_out_and_its_step_counts() -> None:
    async def fails(clock: Clock) -> None:
        clock.now += 2
        raise LookupError("lost")

    _, steps, run = begun(fails)
    with pytest.raises(LookupError, match="lost"):
        next(run)
    assert steps.longest == 2


def test_a_coroutine_that_is_thrown_away_is_closed() -> None:
    closed: list[bool] = []

    async def waits(clock: Clock) -> None:
        try:
            await Pause()
        finally:
            closed.append(True)

    _, _, run = begun(waits)
    next(run)
    run.close()
    assert closed == [True]


def test_tasks_futures_and_cancellation_work_through_it() -> None:
    async def main() -> None:
        steps = Steps(asyncio.get_running_loop().time)
        future = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_soon(future.set_result, 5)
        assert await steps.of(future) == 5
        assert await steps.of(asyncio.create_task(asyncio.sleep(0, 6))) == 6

        async def forever() -> None:
            await steps.of(asyncio.sleep(3600))

        task = asyncio.create_task(forever())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())


# The warning of coroutines


class Works(Service):
    HEARTBEAT = 10

    def __init__(self, seconds: float) -> None:
        super().__init__(URLS[0], ["Happened"], [], "svc")
        self.seconds, self.gate = seconds, Promise()

    async def on_Happened(self, *_: Any) -> None:
        driver = self.running_driver()
        assert isinstance(driver, Runs)
        driver.clock += self.seconds
        await self.gate


def reports_of(service: Works) -> list[tuple[int, str, str]]:
    driver, _ = running(service)
    reports: list[tuple[int, str, str]] = []
    driver.report = lambda *report: reports.append(report)  # type: ignore[method-assign]
    driver.feed([Dispatch(DeliveryId(1), Event("Happened", 1, "c", {}))])
    driver.turn()
    driver.clock += 60.0  # it waits, which blocks nobody
    service.gate.set_result(None)
    driver.turn()
    driver.turn()
    return [report for report in reports if report[2] == "blocked-loop"]


def test_a_coroutine_that_keeps_the_loop_is_named_with_what_to_do() -> None:
    assert reports_of(Works(5.5)) == [
        (
            4,
            "the handler of Happened kept the event loop for 5.5 s, longer than half the heartbeat (10 s), and no "
            "heartbeat was sent meanwhile; run what takes long by asyncio.to_thread()",
            "blocked-loop",
        )
    ]


def test_one_that_only_waits_is_not() -> None:
    assert reports_of(Works(5.0)) == []


def test_without_heartbeats_nobody_is_taken_for_dead() -> None:
    class Silent(Works):
        HEARTBEAT = 0

    assert reports_of(Silent(600.0)) == []
