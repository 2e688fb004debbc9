"""A machine that writes a journal writes every input, once, and no password."""

from __future__ import annotations

import dataclasses
import datetime
import json
from collections import deque

import pytest

from eda_core import BufferFull, Epoch, Event, Machine, PayloadError, Ready
from eda_core.journal import replay
from eda_core.journal.recording import INPUTS
from tests.core.journal.journals import URL, a_life, a_recording


def test_every_input_of_the_machine_is_recorded() -> None:
    """A new input that is not in INPUTS would make journals that do not replay."""
    returning_effects = {
        name
        for base in Machine.__mro__
        for name, method in vars(base).items()
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


def test_the_fields_of_a_log_are_written_as_they_are_shown() -> None:
    lines: list[str] = []
    machine = a_recording(lines)
    machine.log(6, "text", 2.0, fields={"odd": deque([1])})
    shown = {"$": "Shown", "text": "deque([1])", "quoted": "deque([1])"}
    assert json.loads(lines[1])["named"] == {"fields": {"odd": shown}}


def test_an_input_that_is_refused_is_written_with_the_name_of_the_error() -> None:
    """Its arguments are written whole if only the buffer was full: nothing was wrong with them."""
    lines: list[str] = []
    machine = a_recording(lines, buffer=1)
    machine.publish(Event("Told", 1, "c"), 1.0)
    with pytest.raises(BufferFull):
        machine.publish(Event("Told", (1, 2), "c"), 1.0, mandatory=True)
    entry = json.loads(lines[2])
    assert (entry["raised"], entry["named"], "effects" in entry) == ("BufferFull", {"mandatory": True}, False)
    assert entry["arguments"][0]["payload"] == [1, 2]


@dataclasses.dataclass
class Model:
    when: datetime.datetime


@pytest.mark.parametrize("json_too", [False, True])
def test_a_replay_publishes_what_models_were_written_as(json_too: bool) -> None:
    lines: list[str] = []
    machine = a_recording(lines)
    machine.start(0.0)
    if json_too:
        machine.use_json(0.0)
    model = Model(datetime.datetime(2026, 7, 9, tzinfo=datetime.UTC))
    machine.publish(Event("Told", model, "c"), 1.0)
    machine.call("peer.Do", [model], 1.0, ticket=1, timeout=5.0)
    with pytest.raises(PayloadError):
        machine.publish(Event("Told", Model(object()), "c"), 1.0)  # type: ignore[arg-type]
    assert all(made == entry.get("effects", entry.get("raised")) for _, entry, made in replay(lines))
    assert len(lines) == 5 + json_too
