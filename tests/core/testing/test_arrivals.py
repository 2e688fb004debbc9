"""What has arrived, what answers an expectation, and how it is told that nothing does."""

from __future__ import annotations

from typing import Any

import pytest
from pamqp.commands import Basic

from eda_core.messages import CBOR, AnyMessage, Command, Event, Limits, Result, seal
from eda_core.testing.arrivals import Arrival, DeadLetter, Expectation, Invalid, arrival, report


def arrived(message: AnyMessage, *, sent: bool = False) -> Arrival:
    exchange, key, properties, body = seal(message, CBOR, Limits())
    return arrival(exchange, key, properties, body, dead=False, sent=sent)


PAID = Event("OrderPaid", {"amount": 80, "by": {"card": "visa", "name": "zoe"}, "items": [1, 2]}, "c1")


@pytest.mark.parametrize(
    ("where", "met"),
    [
        (None, True),
        ({}, True),
        ({"amount": 80}, True),
        ({"amount": 81}, False),
        ({"nothing": None}, False),
        ({"by": {"card": "visa"}}, True),
        ({"by": {"card": "amex"}}, False),
        ({"by": "visa"}, False),
        ({"items": [1, 2]}, True),
        ({"items": [1]}, False),
        ({"amount": pytest.approx(80.0001, abs=0.1)}, True),
        (lambda message: message.conversation_id == "c1", True),
        (lambda message: None, False),
    ],
)
def test_where_is_a_part_of_the_payload_or_a_function(where: Any, met: bool) -> None:
    assert Expectation("event", "OrderPaid", where).met_by(arrived(PAID)) is met


@pytest.mark.parametrize(
    ("kind", "name", "message", "met"),
    [
        ("event", "OrderPaid", PAID, True),
        ("event", "Order*", PAID, False),  # * is a word, as on a topic exchange
        ("event", "*", PAID, True),
        ("event", "#", PAID, True),
        ("command", "OrderPaid", PAID, False),
        ("event", "Paid", Event("Order.Paid", 1, "c"), False),
        ("command", "billing.Charge", Command("billing.Charge", 1, "c", "shop.R", "7"), True),
        ("command", "Charge", Command("billing.Charge", 1, "c", "shop.R", "7"), True),
        ("command", "billing.*", Command("billing.Charge", 1, "c", "shop.R", "7"), True),
        ("result", "R", Result("shop.R", 1, "c", "success", "7"), True),
    ],
)
def test_a_name_may_be_a_pattern_or_the_last_word(kind: str, name: str, message: AnyMessage, met: bool) -> None:
    assert Expectation(kind, name).met_by(arrived(message)) is met


def test_conversation_and_correlation_count() -> None:
    found = arrived(Result("shop.R", 1, "c1", "success", "7"))
    assert Expectation("result", "shop.R", None, "c1", "7").met_by(found)
    assert not Expectation("result", "shop.R", None, "c2", "7").met_by(found)
    assert not Expectation("result", "shop.R", None, "c1", "8").met_by(found)
    assert not Expectation("event", "OrderPaid", correlation_id="7").met_by(arrived(PAID))


def test_what_the_test_has_sent_or_has_had_answers_nothing() -> None:
    assert not Expectation("event", "OrderPaid").met_by(arrived(PAID, sent=True))
    taken = arrived(PAID)
    taken.taken = True
    assert not Expectation("event", "OrderPaid").met_by(taken)


def dead(properties: Basic.Properties, body: bytes, *, sent: bool = True) -> Arrival:
    entry: dict[str, Any] = {
        "queue": "billing.events",
        "reason": "rejected",
        "exchange": "events",
        "routing-keys": ["OrderPaid"],
    }
    properties.headers = {**(properties.headers or {}), "x-death": [{**entry, "count": 1}]}
    return arrival("am-dlx", "OrderPaid", properties, body, dead=True, sent=sent)


def test_a_dead_letter_says_where_and_why_it_died() -> None:
    _, _, properties, body = seal(PAID, CBOR, Limits())
    found = dead(properties, body)
    letter = found.message
    assert isinstance(letter, DeadLetter)
    assert (letter.name, letter.queue, letter.reason) == ("OrderPaid", "billing.events", "rejected")
    assert (letter.payload, letter.conversation_id, letter.invalid) == (PAID.payload, "c1", "")
    assert isinstance(letter.message, Event)
    assert Expectation("dead letter", "OrderPaid", {"amount": 80}).met_by(found), "although the test has sent it"


def test_an_invalid_dead_letter_says_why() -> None:
    letter = dead(Basic.Properties(content_type=CBOR), b"\xff").message
    assert isinstance(letter, DeadLetter)
    assert (letter.message, letter.payload, letter.invalid) == (None, None, "no conversation_id in the headers")


def test_an_invalid_message_is_of_a_kind_of_its_own() -> None:
    found = arrival("events", "OrderPaid", Basic.Properties(content_type=CBOR), b"\x01", dead=False, sent=False)
    assert found.kind == "invalid"
    assert isinstance(found.message, Invalid)
    assert (found.message.payload, found.message.invalid) == (1, "no conversation_id in the headers")


def test_a_report_shows_the_difference_and_all_that_arrived() -> None:
    expected = Expectation("event", "OrderPaid", {"amount": 81, "by": {"name": "zoe"}}, "c1")
    told = report(expected, [arrived(Event("OrderPlaced", 1, "c1"), sent=True), arrived(PAID)], "within 2 s")
    assert told.splitlines() == [
        "no event OrderPaid with {'amount': 81, 'by': {'name': 'zoe'}} in the conversation c1 within 2 s",
        "",
        "of this name there is, in the conversation c1:",
        "  - expected, + arrived",
        "  - {'amount': 81,",
        "  + {'amount': 80,",
        "     'by': {'card': 'visa',",
        "            'name': 'zoe'},",
        "     'items': [1,",
        "               2]}",
        "",
        "what has arrived, in order:",
        "  the test sent event OrderPlaced [c1] 1",
        "  event OrderPaid [c1] {'amount': 80, 'by': {'card': 'visa', 'name': 'zoe'}, 'items': [1, 2]}",
    ]


def test_a_report_says_what_another_expectation_has_taken() -> None:
    taken = arrived(PAID)
    taken.taken = True
    told = report(Expectation("event", "OrderPaid"), [taken], "within 2 s")
    assert "of this name there is, in the conversation c1, which another expectation has taken:" in told


def test_a_report_is_bounded() -> None:
    many = [arrived(Event(f"E{n}", {"n": [*range(500)]}, "c")) for n in range(1000)]
    told = report(Expectation("event", "Other"), many, "within 2 s")
    assert "… and 960 before" in told
    assert len(told) < 15_000


def test_nothing_has_arrived() -> None:
    assert report(Expectation("log", "ERROR", lambda record: True), [], "at all").endswith("\nnothing has arrived")
