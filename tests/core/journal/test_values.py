"""The arguments and effects of a machine survive the journal."""

from __future__ import annotations

import json
from collections import deque
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pamqp.commands import Basic, Queue

from eda_core import Config, Connect, Epoch, Event, Limits, RetryPolicy
from eda_core.journal.values import (
    SET,
    JournalError,
    Shown,
    in_order,
    plain,
    refused,
    restore,
    shown_fields,
    without_password,
)
from eda_core.messages import Unreadable

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


@given(plain_values)
def test_values_survive_the_journal(value: object) -> None:
    assert restore(json.loads(json.dumps(plain(value)))) == value


def test_frames_and_properties_survive_the_journal() -> None:
    declare = Queue.Declare(queue="q", durable=True, arguments={"x-message-ttl": 5})
    assert dict(restore(plain(declare))) == dict(declare)
    properties = Basic.Properties(headers={"a": [1, b"x"]}, timestamp=datetime(2026, 1, 1, tzinfo=UTC))
    assert restore(plain(properties)) == properties
    unreadable = Unreadable.of(properties, "the property message_id is not UTF-8")
    again = restore(json.loads(json.dumps(plain(unreadable))))
    assert (type(again), dict(again), again.reason) == (Unreadable, dict(unreadable), unreadable.reason)
    assert repr(restore(plain(float("inf")))) == "inf"
    odd = {frozenset({1}): 1, (1, (2,)): 2, 1 << 20_000: 3}
    assert restore(json.loads(json.dumps(plain(odd)))) == odd
    deep: Any = {frozenset({1}): 1}
    for _ in range(59):
        deep = [deep]
    assert restore(json.loads(json.dumps(plain(deep)))) == deep


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        -(2**64),
        1.5,
        float("-inf"),
        "text",
        b"\x00",
        bytearray(b"\xff"),
        datetime(2026, 1, 1, tzinfo=UTC),
        Decimal("1.50"),
        [1, ["two"]],
        {"a": {"b": 1}},
        {"$": "no class"},
        {1: {2: 3}},
        {1, 2},
        {frozenset({1})},
        Event("Told", {"n": 1}, "c", {"own": 1}),
        Connect(Epoch(1), "amqp://host/", "svc", 60),
        Config.make("amqp://host/", "svc", ["Asked"], retry=RetryPolicy.backoff(3)),
        Limits(max_depth=5),
        Shown("text", "quoted"),
    ],
    ids=repr,
)
def test_a_value_survives_the_journal(value: object) -> None:
    found = restore(json.loads(json.dumps(plain(value))))
    assert found == value
    assert type(found) is type(value) or isinstance(value, (set, frozenset))


def test_what_is_nested_very_deeply_is_written_in_one_piece() -> None:
    deep: Any = []
    for _ in range(100):
        deep = [deep]
    assert json.dumps(plain(deep)).count("[") == 60
    assert restore(json.loads(json.dumps(plain(deep)))) == deep


def test_what_no_machine_takes_comes_back_as_something_that_no_machine_takes() -> None:
    assert plain(Ellipsis) == {"$": "cbor", "is": "", "of": "ellipsis"}
    assert type(restore(plain(Ellipsis))) is object


def test_urls_are_written_without_their_passwords() -> None:
    assert plain(Connect(Epoch(1), "amqp://user:s3cret@host/", "svc", 60))["url"] == "amqp://user:***@host/"
    assert plain(Config.make("amqp://user:s3cret@host/", "svc"))["urls"] == ["amqp://user:***@host/"]
    assert without_password("no link to amqp://user:s3cret@host/") == "no link to amqp://user:***@host/"
    assert without_password(7) == 7


class Unshowable:
    def __repr__(self) -> str:
        raise ValueError("no")


def test_the_fields_of_a_log_are_texts_where_json_has_no_form_for_them() -> None:
    odd = deque([1])
    fields = shown_fields({"odd": odd, "more": [odd, (1.5, None)], "unshowable": Unshowable()})
    assert fields == {
        "odd": Shown("deque([1])", "deque([1])"),
        "more": [Shown("deque([1])", "deque([1])"), [1.5, None]],
        "unshowable": Shown("<Unshowable>", "<Unshowable>"),
    }
    assert (str(fields["odd"]), repr(fields["odd"])) == ("deque([1])", "deque([1])")


def test_the_fields_of_a_log_have_a_bounded_depth() -> None:
    value: list[Any] = []
    value.append(value)
    assert json.dumps(plain(shown_fields(value))).count("[") >= 60


def test_an_argument_that_was_refused_is_cut_to_a_bounded_size() -> None:
    value: list[Any] = [1]
    for _ in range(32):
        value = [value, value]
    assert len(json.dumps(plain(refused(value)))) < 10_000_000


@pytest.mark.parametrize(
    ("meta", "kept"),
    [({"own": [1, b"x"]}, True), ({"own": {"deep": "x"}}, True), ({"own": (1, 2)}, False), ({"own": Ellipsis}, False)],
)
def test_of_a_message_that_was_refused_only_valid_headers_are_kept(meta: dict[str, Any], kept: bool) -> None:
    found = refused(Event("Odd", (1, 2), "c", meta))
    assert (found.name, found.payload, found.conversation_id) == ("Odd", [1, 2], "c")
    assert (found.meta == meta) is kept


def test_a_conversation_id_that_is_no_text_stays_refused() -> None:
    assert type(refused(Event("Odd", 1, ["c"])).conversation_id) is object  # type: ignore[arg-type]  # on purpose


def test_sets_have_the_order_of_the_journal() -> None:
    names = ["delta", "alpha", "gamma", "beta"]
    line = json.dumps({"set": {"$": "set", "is": names}})
    assert SET in line
    assert list(restore(json.loads(line))["set"]) == names
    assert in_order([json.loads(line), 1]) == [{"set": {"$": "set", "is": sorted(names)}}, 1]


def test_a_class_that_no_journal_has_is_refused() -> None:
    with pytest.raises(JournalError, match="unknown class 'Bomb'"):
        restore({"$": "Bomb"})
