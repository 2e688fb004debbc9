"""GELF records: the fields, and that a record is written whatever it reports."""

from __future__ import annotations

import datetime
import decimal
import enum
import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eda_core import criticality
from eda_core.errors import LocalError
from eda_core.messages import gelf
from eda_core.testing import strategies


def record(**changes: Any) -> dict[str, Any]:
    usual: dict[str, Any] = {
        "service": "transcriber",
        "hostname": "worker-1",
        "pid": 4711,
        "timestamp": 1783600200.25,
        "level": criticality.ALERT,
        "short": "it failed",
    }
    document: dict[str, Any] = json.loads(gelf.record(**(usual | changes)), parse_constant=refuse_constant)
    return document


def refuse_constant(name: str) -> None:
    raise AssertionError(f"{name} is not JSON")


def test_a_record_has_the_fields_of_the_architecture_and_no_others() -> None:
    assert record(full="Traceback …", conversation_id="c") == {
        "version": "1.1",
        "host": "transcriber@worker-1",
        "short_message": "it failed",
        "full_message": "Traceback …",
        "timestamp": 1783600200.25,
        "level": 1,
        "_levelname": "ALERT",
        "_conversation_id": "c",
        "_logical_service": "transcriber",
        "_worker_pid": 4711,
    }


def test_what_is_not_given_is_empty() -> None:
    document = record()
    assert (document["full_message"], document["_conversation_id"]) == ("", "")


@pytest.mark.parametrize("level", range(8))
def test_the_name_of_the_level_is_in_the_record_and_in_the_routing_key(level: int) -> None:
    document = record(level=level)
    assert (document["level"], document["_levelname"]) == (level, criticality.LABELS[level])
    assert gelf.routing_key("transcriber", level) == f"transcriber.{criticality.LABELS[level]}"


@pytest.mark.parametrize(
    ("name", "written"),
    [("attempt", "_attempt"), ("_attempt", "_attempt"), ("__attempt", "__attempt"), ("", "_"), ("é", "_é")],
)
def test_an_additional_field_is_given_one_underscore(name: str, written: str) -> None:
    document = record(fields={name: [1, {"a": None}]})
    assert document[written] == [1, {"a": None}]
    assert len(document) == 11


@given(st.dictionaries(strategies.texts(max_size=10).filter(lambda name: name not in ("id", "_id")), st.integers()))
def test_additional_fields_never_touch_those_that_gelf_defines(fields: dict[str, int]) -> None:
    document = record(fields=fields)
    assert {name: value for name, value in document.items() if not name.startswith("_")} == {
        name: value for name, value in record().items() if not name.startswith("_")
    }
    last = {f"_{name.removeprefix('_')}": value for name, value in fields.items()}
    assert {name: document[name] for name in last} == last


@pytest.mark.parametrize("name", ["id", "_id", 7, None, b"key"])
def test_names_that_gelf_reserves_or_cannot_carry_are_refused(name: object) -> None:
    with pytest.raises(LocalError) as caught:
        record(fields={"fine": 1, name: 2})
    assert str(caught.value) == f"a log field cannot have the name {name!r}; use text, but not 'id' or '_id'"
    gelf.check_names({"fine": 1, "_fine": 2})
    with pytest.raises(LocalError, match="a log field cannot have the name"):
        gelf.check_names({"fine": 1, name: 2})  # type: ignore[dict-item]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (datetime.date(2026, 7, 9), "2026-07-09"),
        (decimal.Decimal("1.20"), "1.20"),
        (b"\xff", r"b'\xff'"),
        (ValueError("no such customer"), "no such customer"),
        ([{"error": KeyError("x")}], [{"error": "'x'"}]),
    ],
)
def test_values_without_a_form_in_json_are_written_as_text(value: object, text: object) -> None:
    assert record(fields={"value": value})["_value"] == text


def test_lone_surrogates_become_question_marks() -> None:
    """The names of files that are not UTF-8 have them, for example."""
    document = record(short="file \udcff", full="\ud800", conversation_id="\udfff", fields={"na\udcffme": "\udcff"})
    assert document["short_message"] == "file ?"
    assert (document["full_message"], document["_conversation_id"], document["_na?me"]) == ("?", "?", "?")


@given(st.text(), st.text(), st.text(), st.dictionaries(st.text(), st.text() | st.floats(allow_nan=False)))
def test_no_text_makes_a_record_fail(short: str, full: str, conversation_id: str, fields: dict[str, Any]) -> None:
    fields = {name: value for name, value in fields.items() if name not in ("id", "_id") and abs_is_finite(value)}
    assert record(short=short, full=full, conversation_id=conversation_id, fields=fields)["version"] == "1.1"


def abs_is_finite(value: object) -> bool:
    return not isinstance(value, float) or math.isfinite(value)


class Unspeakable:
    def __str__(self) -> str:
        raise RuntimeError("no text for this")


def cyclic() -> list[object]:
    cycle: list[object] = []
    cycle.append(cycle)
    return cycle


def deep() -> object:
    value: object = "x"
    for _ in range(100_000):
        value = [value]
    return value


@pytest.mark.parametrize(
    "value",
    [math.nan, math.inf, {(1, 2): 3}, cyclic(), Unspeakable(), 10**5000],
    ids=["NaN", "infinity", "keys that are no text", "a cycle", "no text", "a huge number"],
)
def test_a_log_does_not_fail_because_of_what_it_reports(value: object) -> None:
    assert "_value" in record(fields={"value": value})


MUCH = 2 * gelf.MAX_RECORD_BYTES


@pytest.mark.parametrize(
    "parts",
    [
        {"short": "a" + "s" * MUCH + "z"},
        {"short": ["a"] * MUCH},
        {"full": "a" + "\0" * MUCH + "z"},
        {"conversation_id": "a" + "é" * MUCH},
        {"fields": {"k": "a" + "s" * MUCH}},
        {"fields": {"k": ["a"] * MUCH}},
        {"fields": {"k" * MUCH: "a"}},
        {"fields": {f"k{number}": number for number in range(MUCH // 8)}},
    ],
    ids=["short", "no text", "full", "conversation", "text", "list", "name", "number"],
)
def test_what_is_too_long_for_the_wire_is_cut(parts: dict[str, Any]) -> None:
    written = record(**{"short": "text", **parts})
    assert len(json.dumps(written)) <= gelf.MAX_RECORD_BYTES
    assert written["version"] == "1.1"
    assert written["_logical_service"] == "transcriber"
    for name in {"short", "full"} & parts.keys():
        assert written[f"{name}_message"].startswith("a" if isinstance(parts[name], str) else '{"": ["a"')
        assert written[f"{name}_message"][-1] in "z}"


def test_what_is_not_is_written_whole() -> None:
    fields = {"k": "x" * 100_000, "l": [1] * 1000}
    written = record(short="s" * 100_000, full="f" * 100_000, fields=fields)
    assert (written["_k"], written["_l"]) == (fields["k"], fields["l"])
    assert len(written["short_message"] + written["full_message"]) == 200_000
    cut = record(short="s", full="f" * MUCH, fields={"l": [1], "n": None, "m": "m"})
    assert (cut["_l"], cut["_n"], cut["_m"]) == ([1], None, "m")


def test_a_log_does_not_fail_because_of_deep_nesting() -> None:
    assert "_value" in record(fields={"value": deep()})


@pytest.mark.parametrize("level", range(8))
def test_a_syslog_severity_is_a_level(level: int) -> None:
    assert gelf.check_level(level) == level
    enumeration: Any = enum.IntEnum
    assert type(gelf.check_level(enumeration("Levels", {"MINE": level}).MINE)) is int


@pytest.mark.parametrize("level", [-1, 8, 1.0, True, "ALERT", None])
def test_anything_else_is_not(level: Any) -> None:
    with pytest.raises(LocalError) as caught:
        gelf.check_level(level)
    assert str(caught.value) == f"log level {level!r} is not from 0 to 7; use a constant of eda_core.criticality"


def test_checked_fields_are_a_copy() -> None:
    fields = {"order": 7}
    checked = gelf.checked_fields(criticality.INFO, fields)
    assert checked == fields
    assert checked is not fields
    assert gelf.checked_fields(criticality.INFO, None) == {}


@pytest.mark.parametrize(("level", "fields"), [(8, {}), (criticality.INFO, {"id": 1}), (criticality.INFO, {7: 1})])
def test_fields_and_levels_that_no_record_may_have_are_refused(level: int, fields: Any) -> None:
    with pytest.raises(LocalError):
        gelf.checked_fields(level, fields)
