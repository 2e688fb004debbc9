"""A journal replays to the effects that were recorded, whatever the machine was told."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from eda_core import (
    CBOR,
    DONE,
    Dispatch,
    Epoch,
    Event,
    Failed,
    Limits,
    LocalError,
    Publish,
    RetryPolicy,
)
from eda_core.journal import replay
from eda_core.journal.values import JournalError
from tests.core.journal.journals import DAMAGES, a_life, a_recording, open_link, write
from tests.core.kit import seal

ROOT = Path(__file__).parents[3]


def test_a_life_replays_to_identical_effects() -> None:
    lines: list[str] = []
    a_life(lines)
    replayed = list(replay(lines))
    assert len(replayed) == len(lines) - 1 > 12
    for number, entry, made in replayed:
        assert made == entry.get("raised", entry.get("effects")), (number, entry)
    assert {entry["input"] for _, entry, _ in replayed} >= {"start", "delivered", "handled", "publish", "tick"}
    assert any("tenant" in line and '"1500"' in line for line in lines), "options of a publish are part of the journal"


class NotOurs:
    pass


@dataclass
class AlsoNotOurs:
    payload: object = field(default_factory=object)


def cyclic() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


def doubled(times: int) -> list[Any]:
    value: list[Any] = [1]
    for _ in range(times):
        value = [value, value]
    return value


REFUSED = [
    NotOurs(),
    AlsoNotOurs(),
    AlsoNotOurs,
    cyclic(),
    {"a": cyclic()},
    doubled(32),
    10**5000,
    {"$": [10**5000]},
    {"\ud800"},
]


@pytest.mark.parametrize("payload", REFUSED, ids=range(len(REFUSED)))
def test_what_the_machine_refuses_is_refused_again(payload: object) -> None:
    lines: list[str] = []
    machine = a_recording(lines)
    for message in (Event("Odd", payload, "c"), Event("Odd", 1, "c", {"own": payload}), Event("", payload, "c")):
        with pytest.raises(LocalError):
            machine.publish(message, 3.0, mandatory=True)
    with pytest.raises(LocalError):
        machine.call("svc.Do", payload, now=3.0, ticket=1, timeout=1.0)
    with pytest.raises(TypeError):
        machine.tick(3.0, payload)  # type: ignore[call-arg]
    replayed = list(replay(lines))
    assert [made for _, _, made in replayed] == [json.loads(line)["raised"] for line in lines[1:]]


class Text(str):
    pass


@pytest.mark.parametrize(
    "message",
    [
        Event("Odd", (1,), Text("c")),
        Event("Odd", (1,), "c", {"own": (1, 2)}),
        Event("Odd", (1,), "c", {"own": [{"deep": memoryview(b"x")}]}),
    ],
    ids=["conversation", "tuple", "view"],
)
def test_what_is_refused_for_its_type_is_refused_again(message: Event) -> None:
    lines: list[str] = []
    machine = a_recording(lines)
    with pytest.raises(LocalError):
        machine.publish(message, 3.0)
    assert [made for _, _, made in replay(lines)] == [json.loads(line)["raised"] for line in lines[1:]]


class Unshowable:
    def __repr__(self) -> str:
        raise ValueError("no")


def test_a_log_replays_whatever_its_fields_are() -> None:
    lines: list[str] = []
    machine = a_recording(lines)
    machine.start(0.5)
    open_link(machine, Epoch(1))
    for odd in (NotOurs(), deque([1]), memoryview(b"x"), frozenset("abc"), 1.5, float("nan")):
        machine.log(6, "text", 2.0, fields={"odd": odd, "deep": [{"odd": odd}, [odd]], "more": 1})
    machine.log(6, "text", 2.0, fields={"odd": Unshowable()})
    machine.log(6, "text", 2.0, fields={"odd": [deque([1])], "what makes all that is odd a text": float("nan")})
    machine.log(6, "text", 2.0, fields=None)
    assert all(made == entry["effects"] for _, entry, made in replay(lines))


def test_logs_replay_with_the_clock_that_was_set_meanwhile() -> None:
    lines: list[str] = []
    offset = 1000.0
    machine = a_recording(lines, lambda: offset)
    machine.start(now=0.5)
    open_link(machine, Epoch(1))
    machine.log(6, "before", 1.0)
    offset = 5000.0
    machine.log(6, "after", 2.0)
    assert [json.loads(line).get("wall_offsets") for line in lines[-2:]] == [[1000.0], [5000.0]]
    assert all(entry["effects"] == made for _, entry, made in replay(lines))


def test_sets_replay_in_a_process_that_has_them_in_another_order(tmp_path: Path) -> None:
    lines: list[str] = []
    machine = a_recording(lines)
    machine.start(0.5)
    open_link(machine, Epoch(1))
    names = {"alpha", "beta", "gamma", "delta", "epsilon"}
    sealed = seal(Event("Asked", {"names": names, "keys": {frozenset(names): 1}}, "c"), CBOR, Limits())
    (dispatch,) = machine.delivered(Epoch(1), 1, False, "events", "Asked", sealed.properties, sealed.body, 2.0)
    assert isinstance(dispatch, Dispatch)
    machine.publish(Event("Told", dispatch.message.payload, "c"), 2.0, within=dispatch.delivery)
    machine.publish(Event("Told", [frozenset(names)], "c"), 2.0)
    machine.log(6, "text", 2.0, fields={"names": names})
    machine.handled(dispatch.delivery, DONE, 3.0)
    command = [sys.executable, "-m", "eda_core.journal", "replay", write(tmp_path / "j", lines)]
    for seed in ("1", "2"):
        environment = os.environ | {"PYTHONHASHSEED": seed}
        done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


def test_a_full_buffer_is_full_again() -> None:
    lines: list[str] = []
    machine = a_recording(lines, buffer=1, limits=Limits(max_depth=400))
    deep: list[Any] = []
    for _ in range(300):
        deep = [deep]
    machine.publish(Event("Told", {"deep": deep}, "c"), 1.0)
    with pytest.raises(LocalError):
        machine.publish(Event("Told", [1] * 200_000, "c"), 1.0)
    assert [made for _, _, made in replay(lines)] == [[], "BufferFull"]


def test_what_comes_with_deep_payloads_is_performed() -> None:
    lines: list[str] = []
    machine = a_recording(lines, limits=Limits(max_depth=400))
    machine.start(0.5)
    open_link(machine, Epoch(1))
    deep: list[Any] = []
    for _ in range(300):
        deep = [deep]
    sealed = seal(Event("Asked", deep, "c"), CBOR, Limits(max_depth=400))
    assert machine.delivered(Epoch(1), 1, False, "events", "Asked", sealed.properties, sealed.body, 2.0)
    assert [made == entry["effects"] for _, entry, made in replay(lines)] == [True] * 5


@pytest.mark.parametrize("own", [bytearray(b"x"), b"x"])
def test_a_retry_replays_whatever_the_headers_hold(own: Any) -> None:
    """A byte array (x) is one thing and a string that is no UTF-8 (S) another, and each is written as what it is."""
    lines: list[str] = []
    machine = a_recording(lines, retry=RetryPolicy.backoff(2))
    machine.start(0.5)
    open_link(machine, Epoch(1))
    sealed = seal(Event("Asked", 1, "c"), CBOR, Limits())
    assert sealed.properties.headers is not None
    sealed.properties.headers["own"] = own
    (dispatch,) = machine.delivered(Epoch(1), 1, False, "events", "Asked", sealed.properties, sealed.body, 2.0)
    assert isinstance(dispatch, Dispatch)
    failed = machine.handled(dispatch.delivery, Failed("boom"), 3.0)
    assert isinstance(failed[-1], Publish)
    assert all(made == entry["effects"] for _, entry, made in replay(lines))


@pytest.mark.parametrize(("damage", "reason"), DAMAGES)
def test_a_damaged_journal_is_refused_with_the_line(damage: Callable[[list[str]], list[str]], reason: str) -> None:
    lines: list[str] = []
    a_life(lines)
    with pytest.raises(JournalError) as caught:
        list(replay(damage(lines)))
    assert reason in str(caught.value)
