"""Journals for the tests: what records them, a whole life of a machine, and damages."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from pamqp.commands import Exchange, Queue

from eda_core import (
    CBOR,
    DONE,
    Command,
    Config,
    Declare,
    Dispatch,
    Epoch,
    Event,
    Failed,
    Limits,
    LocalError,
    Machine,
    Ready,
    RetryPolicy,
)
from eda_core.journal.recording import RecordingMachine
from eda_core.machine.logs import WallOffset
from eda_core.messages.options import options
from tests.core.kit import seal

URL = "amqp://user:s3cret@host/"


def a_recording(lines: list[str], wall_offset: WallOffset = 1000.0, **settings: Any) -> RecordingMachine:
    draws = iter(number / 10 for number in range(10))
    config = Config.make(URL, "svc", ["Asked"], **settings)
    return RecordingMachine(config, random=lambda: next(draws), token="t", wall_offset=wall_offset, write=lines.append)


def open_link(machine: Machine, epoch: Epoch) -> None:
    (declare,) = machine.link_up(epoch, now=1.0)
    assert isinstance(declare, Declare)
    replies = [
        Queue.DeclareOk(command.queue, 0, 0) if isinstance(command, Queue.Declare) else Exchange.DeclareOk()
        for command in declare.commands
    ]
    machine.declared(epoch, replies, now=1.0)
    machine.declared(epoch, [], 1.0)


def a_life(lines: list[str]) -> None:
    """A bit of everything, with a failure, a lost link, wrong calls and odd payloads."""
    machine = a_recording(lines, retry=RetryPolicy.backoff(2))
    machine.start(now=0.5)
    open_link(machine, Epoch(1))
    message = seal(Event("Asked", {"n": 1, "when": datetime(2026, 1, 1, tzinfo=UTC)}, "c"), CBOR, Limits())
    for tag, outcome in ((1, DONE), (2, Failed("boom", "traceback"))):
        (dispatch,) = machine.delivered(
            Epoch(1), tag, False, "events", "Asked", message.properties, message.body, now=2.0
        )
        assert isinstance(dispatch, Dispatch)
        answer = Command(
            "other.Do",
            {"d": Decimal("1.5"), 3: b"x", "set": {1}, "nan": float("nan")},
            "c",
            "svc.R",
            "i",
            options({"tenant": "a"}, 1.5, 7),
        )
        machine.publish(answer, 2.0, within=dispatch.delivery)
        machine.handled(dispatch.delivery, outcome, now=2.5)
    with pytest.raises(LocalError):
        machine.publish(Event("Odd", object(), "c"), 3.0)
    with pytest.raises(LocalError):
        machine.start(3.0)
    machine.effect_failed(Ready(), "hook", 3.0)
    machine.link_down(Epoch(1), "cut", now=4.0)
    machine.tick(now=9.0)
    machine.stop(10.0, timeout=0.0)
    machine.tick(10.0)


def changed(line: str, **changes: Any) -> str:
    return json.dumps(json.loads(line) | changes)


def write(path: Path, lines: list[str]) -> str:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(path)


def broken(number: int, change: Callable[[str], str]) -> Callable[[list[str]], list[str]]:
    return lambda lines: [change(line) if at == number else line for at, line in enumerate(lines)]


#: What may happen to the lines of a journal, and what is said of it then.
DAMAGES: list[tuple[Callable[[list[str]], list[str]], str]] = [
    (lambda lines: [], "line 1 is not JSON"),
    (broken(0, lambda line: changed(line, journal=99)), "line 1 is not the head"),
    (broken(2, lambda line: line[:40]), "line 3 is not JSON"),
    (broken(2, lambda line: "[]"), "line 3 is not a JSON object"),
    (broken(2, lambda line: "[" * 100_000), "line 3 is not JSON"),
    (broken(0, lambda line: '{"journal": 1}'), "line 1 cannot be read: KeyError: 'machine'"),
    (broken(0, lambda line: line.replace('"buffer": 10000', '"buffer": 0')), "line 1 cannot be read: LocalError"),
    (broken(0, lambda line: line.replace('"buffer"', '"puffer"')), "line 1 cannot be read: TypeError"),
    (broken(1, lambda line: changed(line, random=None)), "line 2 cannot be read: TypeError"),
    (broken(1, lambda line: changed(line, arguments=None)), "line 2 cannot be read: TypeError"),
    (broken(1, lambda line: changed(line, named=[1])), "line 2 cannot be read: TypeError"),
    (broken(1, lambda line: "{}"), "line 2 cannot be read: KeyError"),
    (broken(1, lambda line: changed(line, input="__init__")), "line 2 cannot be read"),
    (broken(1, lambda line: changed(line, arguments=[{"$": "Bomb"}])), "unknown class 'Bomb'"),
    (lambda lines: [changed(line, random=[]) for line in lines], "draws a random number"),
]
