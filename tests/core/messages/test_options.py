"""Headers, expiration and priority of a message that is published: what is allowed, and what comes of it."""

from __future__ import annotations

from typing import Any

import pytest

from eda_core.errors import LocalError
from eda_core.messages.codec import CBOR, DEFAULT_LIMITS
from eda_core.messages.delays import DELAY, DELAY_STEP
from eda_core.messages.envelope import seal
from eda_core.messages.options import options
from eda_core.messages.values import Event


def test_what_is_given_becomes_headers_and_properties() -> None:
    meta = options({"tenant": "a", "deep": {"n": [1]}}, 1.5, 7)
    _, _, properties, _ = seal(Event("Happened", 1, "c", meta), CBOR, DEFAULT_LIMITS)
    assert properties.headers == {"conversation_id": "c", "tenant": "a", "deep": {"n": [1]}}
    assert (properties.expiration, properties.priority) == ("1500", 7)


def test_what_is_not_given_is_not_sent() -> None:
    assert options() == {}
    assert options({}, None, 0) == {"priority": 0}


@pytest.mark.parametrize(("delay", "seconds"), [(0, 0), (0.2, 1), (90, 90)])
def test_a_delay_is_a_whole_number_of_seconds_for_who_publishes(delay: float, seconds: int) -> None:
    assert options({"tenant": "a"}, delay=delay, delays=True) == {"tenant": "a", DELAY: seconds}


def test_the_headers_are_not_changed() -> None:
    given = {"tenant": "a"}
    options(given, 1.0, 1)
    assert given == {"tenant": "a"}


def test_a_short_expiration_is_not_none() -> None:
    assert options(expiration=0.0001) == {"expiration": "1"}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"headers": [("a", 1)]}, "headers is list; give a dict: names as text, and values"),
        ({"headers": {1: 2}}, "the name of a header is 1; give names as text"),
        (
            {"headers": {"x-death": []}},
            "the header 'x-death' cannot be sent: names that begin with x- belong to the broker; choose another name",
        ),
        (
            {"headers": {"priority": 1}},
            "the header 'priority' cannot be sent: it is a property of messages; give the argument priority",
        ),
        *(
            ({"headers": {name: "1"}}, f"the header '{name}' cannot be sent: the toolkit or the broker writes it; "
             "choose another name")
            for name in ("conversation_id", "status", "attempt", "causation_id", "origin_exchange", "CC", "BCC",
                         "deduplication_id", "message_id", "user_id", "delivery_tag", "timestamp", "app_id")
        ),
        ({"expiration": 0}, "expiration is 0; give seconds, more than 0"),
        ({"expiration": "60"}, "expiration is '60'; give seconds, more than 0"),
        ({"expiration": True}, "expiration is True; give seconds, more than 0"),
        ({"expiration": float("nan")}, "expiration is nan; give seconds, more than 0"),
        ({"expiration": 1e9}, "expiration is 1000000000.0; give seconds, up to 315360000"),
        (
            {"headers": {f"{DELAY_STEP}3": True}},
            f"the header '{DELAY_STEP}3' cannot be sent: the toolkit or the broker writes it; choose another name",
        ),
        (
            {"delay": 1},
            "delayed messages are not declared; set DELAYED_MESSAGES = True in the class, which declares the queues "
            "in which they wait",
        ),
        (
            {"delay": -1, "delays": True},
            "delay is -1; give seconds, from 0 to 16777216; keep what is due later in a database",
        ),
        ({"priority": 256}, "priority is 256; give a whole number from 0 to 255"),
        ({"priority": -1}, "priority is -1; give a whole number from 0 to 255"),
        ({"priority": True}, "priority is True; give a whole number from 0 to 255"),
        ({"priority": 1.0}, "priority is 1.0; give a whole number from 0 to 255"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(given: dict[str, Any], words: str) -> None:
    with pytest.raises(LocalError) as raised:
        options(**given)
    assert str(raised.value) == words
