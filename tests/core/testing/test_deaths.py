"""What the headers of dead letters tell, for each order in which RabbitMQ puts the entries."""

from __future__ import annotations

import datetime
import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eda_core.testing.deaths import (
    attempts,
    deaths,
    died_at,
    has_died,
    original_expiration,
    place_of_death,
    published,
)

NOON = datetime.datetime(2026, 11, 24, 12, tzinfo=datetime.UTC)


def entry(queue: str, reason: str, exchange: str, key: str, minute: int, **more: Any) -> dict[str, Any]:
    time = NOON + datetime.timedelta(minutes=minute)
    return {"queue": queue, "reason": reason, "exchange": exchange, "routing-keys": [key], "time": time, **more}


def first(queue: str, reason: str, exchange: str) -> dict[str, Any]:
    return {"x-first-death-queue": queue, "x-first-death-reason": reason, "x-first-death-exchange": exchange}


ORIGIN = {"origin_exchange": "events", "origin_routing_key": "Placed"}
#: Headers without x-death, its entries, where it was published, where it died and why.
HISTORIES: dict[str, tuple[dict[str, Any], list[dict[str, Any]], tuple[str, str], tuple[str, str]]] = {
    "rejected": (
        first("a.events", "rejected", "events"),
        [entry("a.events", "rejected", "events", "Placed", 0)],
        ("events", "Placed"),
        ("a.events", "rejected"),
    ),
    "by way of a delayed retry": (
        {**first("a.events.retry.50", "expired", ""), **ORIGIN},
        [
            entry("a.events.retry.50", "expired", "", "a.events.retry.50", 0),
            entry("a.events", "rejected", "", "a.events", 1),
        ],
        ("events", "Placed"),
        ("a.events", "rejected"),
    ),
    "out of a delayed retry": (
        {**first("a.events.retry.50", "expired", ""), **ORIGIN},
        [entry("a.events.retry.50", "expired", "", "a.events.retry.50", 0)],
        ("events", "Placed"),
        ("a.events.retry.50", "expired"),
    ),
    "through a queue for dead letters, with another key": (
        first("a.events", "rejected", "events"),
        [
            entry("a.events", "rejected", "events", "Placed", 0),
            entry("parked", "expired", "am-dlx", "other.key", 1),
        ],
        ("events", "Placed"),
        ("a.events", "rejected"),
    ),
    "twice in one queue": (
        first("a.events", "expired", "events"),
        [
            entry("a.events", "expired", "events", "Placed", 0),
            entry("a.events", "rejected", "events", "Placed", 5),
        ],
        ("events", "Placed"),
        ("a.events", "rejected"),
    ),
    "straight from a queue": (
        first("q", "maxlen", ""),
        [entry("q", "maxlen", "", "q", 0), entry("parked", "expired", "dlx", "q", 1)],
        ("", "q"),
        ("q", "maxlen"),
    ),
}


@pytest.mark.parametrize("name", HISTORIES)
def test_in_any_order(name: str) -> None:
    headers, entries, origin, place = HISTORIES[name]
    for order in itertools.permutations(entries):
        found = {**headers, "x-death": list(order)}
        assert has_died(found)
        assert published(found, "key with which it came") == origin
        death = place_of_death(found)
        assert death is not None
        assert (death.queue, death.reason) == place
        assert died_at(found) == max(each["time"] for each in entries)


def test_a_living_message() -> None:
    assert not has_died({"conversation_id": "c"})
    assert published({}, "Placed") is None
    assert place_of_death({}) is None
    assert died_at({}) is None
    assert published(ORIGIN, "a.events") == ("events", "Placed")
    assert not has_died(ORIGIN), "it waits in the queue of its service"


WAITED = entry("a.events.retry.50", "expired", "", "a.events.retry.50", 0)


@pytest.mark.parametrize(
    ("headers", "count"),
    [
        ({"attempt": 3, "x-death": [entry("a.events", "rejected", "", "a.events", 1), WAITED]}, 4),
        ({"attempt": 3, "x-death": [entry("a.events", "rejected", "", "a.events", 1)]}, 4),
        ({"attempt": 3, "x-death": [entry("a.events", "expired", "", "a.events", 1), WAITED]}, 3),
        ({"attempt": 3, "x-death": [WAITED]}, 3),
        ({"attempt": 1}, 1),
        ({"x-death": [entry("a.events", "rejected", "events", "Placed", 1)]}, None),
        ({"attempt": "first"}, None),
        ({"attempt": True}, None),
        ({"attempt": 0}, None),
        ({}, None),
    ],
)
def test_how_often_it_was_tried(headers: dict[str, Any], count: int | None) -> None:
    """The header counts the failures before this copy."""
    assert attempts(headers) == count


def test_the_expiration_is_that_of_the_first_death() -> None:
    headers, entries, _, _ = HISTORIES["through a queue for dead letters, with another key"]
    of_both = [{**each, "original-expiration": text} for each, text in zip(entries, ("60000", "5"), strict=True)]
    for order in itertools.permutations(of_both):
        assert original_expiration({**headers, "x-death": list(order)}) == "60000"


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.binary(max_size=4) | st.datetimes(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)
entries = st.lists(
    values
    | st.dictionaries(
        st.sampled_from(["queue", "reason", "exchange", "routing-keys", "count", "time", "original-expiration"]), values
    ),
    max_size=4,
)
headers = st.dictionaries(
    st.sampled_from(["x-first-death-queue", "x-first-death-reason", "x-first-death-exchange", "attempt", *ORIGIN]),
    values,
)


@given(headers, entries | values)
def test_no_headers_raise(found: dict[str, Any], death: Any) -> None:
    found = {**found, "x-death": death}
    deaths(found)
    has_died(found)
    died_at(found)
    original_expiration(found)
    place_of_death(found)
    attempts(found)
    origin = published(found, "key")
    assert origin is None or all(isinstance(each, str) for each in origin)
