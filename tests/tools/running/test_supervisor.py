"""Starting workers, starting again what dies, and ending all. ``test_run.py`` has the command, on a broker."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from eda_tools.cli.status import DONE, FAILED, INTERRUPTED, USAGE, ToolError
from eda_tools.running import process
from eda_tools.running.backoff import Backoff
from eda_tools.running.supervisor import NAME, Supervisor, Worker, workers_of
from tests.support.services import Record, asynchronous, environment, within

#: A service that connects nowhere: it does what the environment says.
PROGRAM = """
import asyncio, os, signal, sys, time
from eda_aio import Service

class Odd(Service):
    STOP_TIMEOUT = CLOSE_TIMEOUT = 0.01
    def __init__(self, urls):
        super().__init__(urls, [], [], "odd")
    async def run(self):
        print("runs", flush=True)
        case = os.environ["CASE"]
        if case == "stuck":
            signal.signal(signal.SIGTERM, lambda *_: print("deaf", flush=True))
            print("is stuck", flush=True)
            while True:
                time.sleep(1000)
        if case == "failing":
            raise ValueError("no")
        if case == "crashing":
            os._exit(7)
        if case == "leaving":
            sys.exit(3)
        if case == "late":
            signal.signal(signal.SIGTERM, lambda *_: sys.exit(5))
            print("is late", flush=True)
            while True:
                time.sleep(1000)
"""

ENVIRONMENT = {"EDA_AMQP_URL": "amqp://127.0.0.1:1/"}


class Heard:
    """A log that keeps its entries."""

    def __init__(self) -> None:
        self.entries: Record[dict[str, Any]] = Record("entries of the log")

    def widen(self, label: str) -> None: ...

    def drop(self) -> None: ...

    def put(self, entry: dict[str, Any]) -> None:
        self.entries.add(entry)

    async def add(self, entry: dict[str, Any]) -> None:
        self.put(entry)

    async def says(self, text: str, times: int = 1) -> None:
        await self.entries.until(
            lambda entries: sum(text in each["message"] for each in entries) >= times, f"{text!r}, {times} times"
        )

    @property
    def notes(self) -> list[str]:
        """What the supervisor says."""
        return [each["message"] for each in self.entries.all if each["name"] == NAME]


@pytest.fixture
def heard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Heard:
    (tmp_path / "odd.py").write_text(PROGRAM)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", environment()["PYTHONPATH"])
    return Heard()


def supervisor(heard: Heard, case: str, path: str = "odd:Odd", count: int = 1, delay: float = 0.01) -> Supervisor:
    log: Any = heard
    return Supervisor(
        workers_of({path: count}),
        log,
        environment=ENVIRONMENT | {"CASE": case},
        backoff=lambda: Backoff(delay, 1000.0, 1000.0),
    )


def test_workers_are_numbered_and_named_as_short_as_possible() -> None:
    assert workers_of({"a.b:Shop": 2, "c:Mail": 1}) == [
        Worker("a.b:Shop", 1, "Shop.1"),
        Worker("a.b:Shop", 2, "Shop.2"),
        Worker("c:Mail", 1, "Mail"),
    ]
    assert [each.label for each in workers_of({"a:Service": 1, "b:Service": 1})] == ["a:Service", "b:Service"]


@asynchronous
async def test_who_ends_by_itself_is_not_started_again(heard: Heard) -> None:
    assert await supervisor(heard, "nothing", count=2).run() == DONE
    assert sorted(heard.notes) == ["Odd.1 has ended", "Odd.2 has ended"]
    runs = [each for each in heard.entries.all if each["message"] == "runs"]
    assert {each["worker"] for each in runs} == {1, 2}
    assert all((each["program"], each["service"], each["stream"]) == ("odd:Odd", "odd", "stdout") for each in runs)
    assert len({each["pid"] for each in runs}) == 2


@pytest.mark.parametrize(("case", "told"), [("crashing", 7), ("failing", 1), ("leaving", 3)])
@asynchronous
async def test_who_dies_is_started_again_each_time_later(heard: Heard, case: str, told: int) -> None:
    runs = supervisor(heard, case)
    running = asyncio.create_task(runs.run())
    await heard.says("starts again", 3)
    runs.stop()
    assert await within(running, "the end") in (DONE, FAILED)
    assert heard.notes[:3] == [f"Odd ended with status {told}; starts again in {wait} s" for wait in (0.01, 0.02, 0.04)]


@asynchronous
async def test_a_death_by_a_signal_and_a_traceback_are_told(heard: Heard) -> None:
    runs = supervisor(heard, "stuck", delay=1000.0)
    running = asyncio.create_task(runs.run())
    await heard.says("is stuck")
    os.kill(heard.entries.all[-1]["pid"], signal.SIGKILL)
    await heard.says("Odd was ended by SIGKILL; starts again in 1000 s")
    runs.stop()
    assert await within(running, "the end: it does not wait for the delay") == DONE

    runs = supervisor(heard, "failing", delay=1000.0)
    running = asyncio.create_task(runs.run())
    await heard.says("Odd ended with status 1; starts again in 1000 s")
    runs.stop()
    await within(running, "the end")
    (failure,) = [each for each in heard.entries.all if each.get("traceback")]
    assert (failure["level"], failure["message"]) == ("CRITICAL", "the service has failed")
    assert failure["traceback"].endswith("ValueError: no")


@asynchronous
async def test_who_does_not_end_in_time_is_killed(heard: Heard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "GRACE", 0.1)
    runs = supervisor(heard, "stuck")
    running = asyncio.create_task(runs.run())
    await heard.says("is stuck")
    runs.stop()
    assert await within(running, "the end") == FAILED
    assert heard.notes == [
        "stops; once more, and it stops at once",
        "Odd has not ended within 0.12 s, and is killed; unfinished messages are delivered again",
        "Odd was ended by SIGKILL",
    ]


@asynchronous
async def test_who_is_asked_three_times_is_killed(heard: Heard) -> None:
    runs = supervisor(heard, "stuck")
    running = asyncio.create_task(runs.run())
    await heard.says("is stuck")
    runs.stop()
    await heard.says("deaf")
    runs.stop()
    await heard.says("deaf", 2)
    runs.stop()
    assert await within(running, "the end") == INTERRUPTED


@asynchronous
async def test_a_bad_status_at_the_end_is_a_failure(heard: Heard) -> None:
    runs = supervisor(heard, "late")
    running = asyncio.create_task(runs.run())
    await heard.says("is late")
    runs.stop()
    assert await within(running, "the end") == FAILED
    assert heard.notes[1:] == ["Odd ended with status 5"]


@asynchronous
async def test_a_stop_before_anything_has_begun(heard: Heard) -> None:
    runs = supervisor(heard, "stuck", count=2)
    running = asyncio.create_task(runs.run())
    await asyncio.sleep(0)
    runs.stop()
    assert await within(running, "the end") == DONE


@asynchronous
async def test_what_cannot_be_loaded_ends_all(heard: Heard) -> None:
    log: Any = heard
    workers = workers_of({"odd:Odd": 1, "odd:Even": 2})
    runs = Supervisor(workers, log, environment=ENVIRONMENT | {"CASE": "late"})
    with pytest.raises(ToolError, match="odd has no Even; it defines Odd") as caught:
        await runs.run()
    assert caught.value.status == USAGE


@asynchronous
async def test_what_can_be_loaded_no_more_is_tried_again(heard: Heard, tmp_path: Path) -> None:
    runs = supervisor(heard, "stuck")
    running = asyncio.create_task(runs.run())
    await heard.says("is stuck")
    (tmp_path / "odd.py").write_text("1 / 0")
    os.kill(heard.entries.all[-1]["pid"], signal.SIGKILL)
    await heard.says("Odd cannot be loaded any more: odd cannot be imported: ZeroDivisionError: division by zero; ")
    await heard.says('odd.py", line 1, in <module>')
    (tmp_path / "odd.py").write_text(PROGRAM)
    await heard.says("is stuck", 2)
    runs.stop()
    await heard.says("deaf")
    runs.stop()
    runs.stop()
    await within(running, "the end")


@asynchronous
async def test_what_the_system_cannot_start_is_tried_again(heard: Heard, monkeypatch: pytest.MonkeyPatch) -> None:
    usual, failures = asyncio.create_subprocess_exec, [OSError(11, "Resource temporarily unavailable")]

    async def start(*arguments: Any, **named: Any) -> Any:
        if failures:
            raise failures.pop()
        return await usual(*arguments, **named)

    monkeypatch.setattr(asyncio, "create_subprocess_exec", start)
    assert await supervisor(heard, "nothing").run() == DONE
    assert heard.notes == [
        "Odd cannot be started: Resource temporarily unavailable; starts again in 0.01 s",
        "Odd has ended",
    ]
