"""The journal: whatever a machine is told is written down, and replays to the same effects."""

import json
import os
import runpy
import subprocess
import sys
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pamqp.commands import Basic, Exchange, Queue

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
    Publish,
    Ready,
    RetryPolicy,
)
from eda_core.journal import replay
from eda_core.journal.__main__ import main
from eda_core.journal.recording import INPUTS, RecordingMachine
from eda_core.journal.values import plain, revive
from tests.core.kit import seal

ROOT = Path(__file__).parents[3]
URL = "amqp://user:s3cret@host/"


def a_recording(lines: list[str], **settings: Any) -> RecordingMachine:
    draws = iter(number / 10 for number in range(10))
    config = Config.make(URL, "svc", ["Asked"], **settings)
    return RecordingMachine(config, random=lambda: next(draws), token="t", wall_offset=1000.0, write=lines.append)


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
        answer = Command("other.Do", {"d": Decimal("1.5"), 3: b"x", "set": {1}, "nan": float("nan")}, "c", "svc.R", "i")
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


def test_a_life_replays_to_identical_effects() -> None:
    lines: list[str] = []
    a_life(lines)
    replayed = list(replay(lines))
    assert len(replayed) == len(lines) - 1 > 12
    for number, entry, made in replayed:
        assert made == entry.get("raised", entry.get("effects")), (number, entry)
    assert {entry["input"] for _, entry, _ in replayed} >= {"start", "delivered", "handled", "publish", "tick"}


def test_every_input_of_the_machine_is_recorded() -> None:
    """A new input that is not in INPUTS would make journals that do not replay."""
    returning_effects = {
        name
        for name, method in vars(Machine).items() | {item for base in Machine.__mro__ for item in vars(base).items()}
        if not name.startswith("_") and getattr(method, "__annotations__", {}).get("return") == "list[Effect]"
    }
    assert returning_effects == set(INPUTS)


def test_inputs_made_by_inputs_are_written_once() -> None:
    lines: list[str] = []
    machine = a_recording(lines)
    machine.start(0.0)
    machine.effect_failed(Ready(), "x", 0.0)  # calls callback_failed, which calls stop
    assert [json.loads(line)["input"] for line in lines[1:]] == ["start", "effect_failed"]


def test_no_password_is_written() -> None:
    lines: list[str] = []
    a_life(lines)
    machine = a_recording(lines)
    machine.start(0.0)
    machine.effect_failed(Ready(), f"no link to {URL}", 0.5)
    machine.channel_closed(Epoch(1), f"{URL} gone", now=1.0)
    machine.link_down(Epoch(2), reason=f"cannot connect to {URL}", now=2.0)
    assert "s3cret" not in "".join(lines)


plain_values = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(allow_nan=False),
        st.text(),
        st.binary(),
        st.datetimes(timezones=st.just(UTC)),
        st.decimals(allow_nan=False, allow_infinity=False, places=2),
    ),
    lambda inner: st.one_of(
        st.lists(inner), st.dictionaries(st.one_of(st.text(), st.integers(), st.just("$")), inner, max_size=4)
    ),
    max_leaves=10,
)


class NotOurs:
    pass


@dataclass
class AlsoNotOurs:
    payload: int = 1


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


@given(plain_values)
def test_values_survive_the_journal(value: object) -> None:
    assert revive(json.loads(json.dumps(plain(value)))) == value


def test_frames_and_properties_survive_the_journal() -> None:
    declare = Queue.Declare(queue="q", durable=True, arguments={"x-message-ttl": 5})
    assert dict(revive(plain(declare))) == dict(declare)
    properties = Basic.Properties(headers={"a": [1, b"x"]}, timestamp=datetime(2026, 1, 1, tzinfo=UTC))
    assert revive(plain(properties)) == properties
    assert repr(revive(plain(float("inf")))) == "inf"
    odd = {frozenset({1}): 1, (1, (2,)): 2, 1 << 20_000: 3}
    assert revive(json.loads(json.dumps(plain(odd)))) == odd
    deep: Any = {frozenset({1}): 1}
    for _ in range(59):
        deep = [deep]
    assert revive(json.loads(json.dumps(plain(deep)))) == deep


def changed(line: str, **changes: Any) -> str:
    return json.dumps(json.loads(line) | changes)


def write(path: Path, lines: list[str]) -> str:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(path)


def test_the_command_replays_a_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As ``python -m eda_core.journal`` does it, which runs the module anew."""
    lines: list[str] = []
    a_life(lines)
    monkeypatch.setattr(sys, "argv", ["journal", "replay", write(tmp_path / "j", lines)])
    monkeypatch.delitem(sys.modules, "eda_core.journal.__main__")
    with pytest.raises(SystemExit) as ended:
        runpy.run_module("eda_core.journal", run_name="__main__", alter_sys=True)
    assert ended.value.code == 0
    assert f"replayed {len(lines) - 1} inputs" in capsys.readouterr().out


def test_show_prints_each_input(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines: list[str] = []
    a_life(lines)
    assert main(["show", write(tmp_path / "j", lines)]) == 0
    out = capsys.readouterr().out
    assert "\n2: start(now=0.5) -> [Connect(epoch=1, url='amqp://user:***@host/')]\n" in f"\n{out}"
    assert "Basic.Properties(content_type='application/cbor', headers={'conversation_id': 'c'}" in out
    assert "publish(<Command other.Do c>, 2.0, within=" in out
    assert " object at " not in out.replace("<object object at ", "")


def test_other_effects_are_pointed_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines: list[str] = []
    a_life(lines)
    lines[1] = changed(lines[1], effects=[])
    assert main(["replay", write(tmp_path / "j", lines)]) == 1
    assert "line 2: start gave other effects" in capsys.readouterr().err
    lines[1] = changed(lines[1], arguments=["a", "b", "c"])
    assert main(["replay", write(tmp_path / "j", lines)]) == 1
    assert 'replayed: "TypeError"' in capsys.readouterr().err


def broken(number: int, change: Callable[[str], str]) -> Callable[[list[str]], list[str]]:
    return lambda lines: [change(line) if at == number else line for at, line in enumerate(lines)]


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
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
    ],
)
def test_a_damaged_journal_is_refused_with_the_line(
    damage: Callable[[list[str]], list[str]], reason: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines: list[str] = []
    a_life(lines)
    assert main(["replay", write(tmp_path / "j", damage(lines))]) == 2
    assert reason in capsys.readouterr().err


def test_of_a_journal_that_was_cut_the_rest_is_replayed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines: list[str] = []
    a_life(lines)
    lines[-1] = lines[-1][:-9]
    assert main(["replay", write(tmp_path / "j", lines)]) == 2
    told = capsys.readouterr()
    assert f"j: line {len(lines)} is not JSON" in told.err
    assert f"replayed {len(lines) - 2} inputs" in told.out


def test_usage_and_missing_files_have_their_own_status(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert main(["replay", "/nonexistent"]) == 2
    assert "usage" in capsys.readouterr().err
