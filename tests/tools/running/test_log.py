"""The one log of all workers."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from typing import Any

import pytest

from eda_tools.cli.output import Output
from eda_tools.running import log
from eda_tools.running.log import COLOURS, Log, as_json
from tests.support.services import TIMEOUT, asynchronous, within

NOON = datetime(2026, 1, 2, 12, 0, 0).timestamp()


def entry(name: str = "shop:Shop", **more: Any) -> dict[str, Any]:
    return {"time": NOON, "name": name, "label": name.rpartition(":")[2], "message": "text", **more}


async def written(output: Output, *entries: dict[str, Any]) -> None:
    with Log(output, ["shop:Shop", "shop:Mail"], lambda: None) as made:
        for each in entries:
            made.widen(each["label"])
        for each in entries:
            await made.add(each)
        assert made.end(TIMEOUT)


@asynchronous
async def test_text_has_the_time_the_worker_and_each_line(capsys: pytest.CaptureFixture[str]) -> None:
    await written(
        Output("eda run"),
        entry(),
        entry(level="ERROR", logger="eda_aio", message="failed", traceback="Traceback:\n\tat"),
        entry("eda run", message="ends\x1b[2J"),
    )
    assert capsys.readouterr().out.splitlines() == [
        "12:00:00 Shop    | text",
        "12:00:00 Shop    | ERROR eda_aio: failed",
        "12:00:00 Shop    | Traceback:",
        "12:00:00 Shop    |         at",
        r"12:00:00 eda run | ends\x1b[2J",
    ]


@asynchronous
async def test_each_service_has_a_colour(capsys: pytest.CaptureFixture[str]) -> None:
    output = Output("eda run")
    output.configure(color="always")
    await written(output, entry(), entry("shop:Mail"), entry(level="WARNING"))
    first, second, third = capsys.readouterr().out.splitlines()
    assert COLOURS[:2] == ("cyan", "green")
    assert ("\x1b[36mShop | " in first, "\x1b[32mMail | " in second, "\x1b[33mtext" in third) == (True, True, True)


@asynchronous
async def test_json_has_one_object_per_line(capsys: pytest.CaptureFixture[str]) -> None:
    output = Output("eda run")
    output.configure(json=True)
    await written(output, entry(program="shop:Shop", worker=1, traceback="a\nb"))
    (line,) = capsys.readouterr().out.splitlines()
    assert json.loads(line) == as_json(entry(program="shop:Shop", worker=1, traceback="a\nb"))
    assert json.loads(line).keys() == {"time", "message", "program", "worker", "traceback"}
    assert datetime.fromisoformat(json.loads(line)["time"]).timestamp() == NOON


@contextmanager
def held(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """Standard output is a pipe that is full. Yields the end that somebody may read."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with suppress(BlockingIOError):
        while True:
            os.write(writing, b"\0" * 4096)
    os.set_blocking(writing, True)
    with monkeypatch.context() as patch, os.fdopen(writing, "w") as stream:
        patch.setattr(sys, "stdout", stream)
        yield reading
    with suppress(OSError):
        os.close(reading)


@contextmanager
def drained(reading: int) -> Iterator[list[str]]:
    """Read the pipe until the end of the block, which closes its other end. Then there are the lines."""
    parts: list[bytes] = []
    lines: list[str] = []
    thread = threading.Thread(target=lambda: parts.extend(iter(lambda: os.read(reading, 1 << 16), b"")))
    thread.start()
    yield lines
    sys.stdout.close()
    thread.join()
    lines += b"".join(parts).replace(b"\0", b"").decode().splitlines()


@asynchronous
async def test_who_writes_waits_for_room_and_nothing_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    many = 4 * log.ROOM
    with held(monkeypatch) as reading, Log(Output("eda run"), [], lambda: None) as made:
        writing = asyncio.create_task(_add(made, many))
        while made._room.is_set():
            await asyncio.sleep(0)
        assert not writing.done()
        with drained(reading) as lines:
            await within(writing, "room")
            assert made.end(TIMEOUT)
    assert [line.rpartition(" ")[2] for line in lines] == [str(number) for number in range(many)]


async def _add(made: Log, many: int) -> None:
    for number in range(many):
        await made.add(entry(message=str(number)))


@asynchronous
async def test_who_stops_does_not_wait_and_what_is_dropped_is_counted(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with held(monkeypatch) as reading, Log(Output("eda run"), [], lambda: None) as made:
        made.drop()
        await within(_add(made, 5 * log.ROOM), "no wait for room")
        assert not made.end(0.1)
        with drained(reading) as lines:
            made._thread.join(TIMEOUT)
    numbers = [int(line.rpartition(" ")[2]) for line in lines]
    dropped = sum(int(line.split()[2]) for line in capsys.readouterr().err.splitlines())
    assert len(numbers) + dropped == 5 * log.ROOM
    assert dropped > 0
    assert numbers[-1] == 5 * log.ROOM - 1
    assert numbers == sorted(numbers)


@asynchronous
async def test_it_tells_when_nobody_reads_any_more(monkeypatch: pytest.MonkeyPatch) -> None:
    closed = asyncio.Event()
    with held(monkeypatch) as reading, Log(Output("eda run"), [], closed.set) as made:
        await made.add(entry())
        os.close(reading)
        await within(closed.wait(), "the end of the reader")
        await within(_add(made, 2 * log.ROOM), "whatever comes is thrown away")
        assert made.end(TIMEOUT)
        with suppress(BrokenPipeError):  # if something is left in its buffer
            sys.stdout.close()
