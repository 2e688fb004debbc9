"""What the answers of the broker say about each publish."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Self

import pytest
from pamqp import base
from pamqp.commands import Basic, Confirm

from eda_core.amqp import Received
from eda_tools.bus import confirming
from eda_tools.bus.amqp import AmqpError, ChannelClosed
from eda_tools.bus.confirming import Answer, Copy, Publisher
from tests.support.services import asynchronous

REFUSED = Answer(False, "the broker refused it, as when a queue is full")
UNBOUND = Answer(False, "no queue is bound for it")
SENT = Answer(True)


class Line:
    """A session and its channel, on which a test answers as the broker does."""

    def __init__(self) -> None:
        self.opened = 0
        self.keys: list[str] = []
        self.full = asyncio.Event()
        self.full.set()
        self._heard: Callable[[Received], object]
        self.lose: Callable[[AmqpError], object]

    async def channel(self, heard: Callable[[Received], object], lost: Callable[[AmqpError], object]) -> Self:
        self.opened += 1
        self._heard, self.lose = heard, lost
        return self

    async def ask(self, method: base.Frame) -> None:
        assert isinstance(method, Confirm.Select)

    def publish(self, exchange: str, routing_key: str, properties: Basic.Properties, body: bytes) -> None:
        self.keys.append(routing_key)

    async def drain(self) -> None:
        await self.full.wait()

    def answer(self, method: base.Frame, properties: Basic.Properties | None = None, body: bytes = b"") -> None:
        self._heard(Received(1, method, properties, body))

    def give_back(self, copy: Copy, code: int = 312, text: str = "NO_ROUTE") -> None:
        self.answer(Basic.Return(code, text, copy.exchange, copy.routing_key), copy.properties, copy.body)


class Bench:
    def __init__(self) -> None:
        self.line = Line()
        session: Any = self.line
        self.publisher = Publisher(session)

    async def publish(self, *copies: Copy) -> list[asyncio.Future[Answer]]:
        return [await self.publisher.publish(copy) for copy in copies]


def copy(key: str, body: bytes = b"{}", **properties: Any) -> Copy:
    return Copy("events", key, Basic.Properties(**properties), body)


def answers(sent: list[asyncio.Future[Answer]]) -> list[Answer | None]:
    return [each.result() if each.done() else None for each in sent]


@asynchronous
async def test_answers_come_in_any_order_and_for_several() -> None:
    bench = Bench()
    sent = await bench.publish(*(copy(f"k{number}") for number in range(1, 7)))
    bench.line.answer(Basic.Ack(2))
    assert answers(sent) == [None, SENT, None, None, None, None]
    bench.line.answer(Basic.Nack(4, multiple=True))
    assert answers(sent) == [REFUSED, SENT, REFUSED, REFUSED, None, None]
    bench.line.answer(Basic.Nack(6))
    bench.line.answer(Basic.Ack(6, multiple=True))
    assert answers(sent) == [REFUSED, SENT, REFUSED, REFUSED, SENT, REFUSED]
    bench.line.answer(Basic.Ack(6))
    bench.line.answer(Basic.Ack(99))  # nobody waits for these
    (last,) = await bench.publish(copy("k7"))
    bench.line.answer(Basic.Ack(0, multiple=True))  # all
    assert last.result() == SENT
    assert bench.line.opened == 1


@asynchronous
async def test_what_came_back_is_not_sent_although_it_is_confirmed() -> None:
    bench = Bench()
    equal, other = copy("k", message_id="1"), copy("k", message_id="2")
    sent = await bench.publish(equal, equal, other)
    bench.line.give_back(other)
    bench.line.give_back(equal)
    assert answers(sent) == [None, None, None], "a return comes before the confirm"
    bench.line.answer(Basic.Ack(3, multiple=True))
    assert answers(sent) == [UNBOUND, SENT, UNBOUND], "of equal ones any is that which came back"
    sent = await bench.publish(equal, equal, equal)
    bench.line.give_back(equal)
    bench.line.give_back(equal)
    bench.line.answer(Basic.Ack(6, multiple=True))
    assert answers(sent) == [UNBOUND, UNBOUND, SENT]


@asynchronous
async def test_a_message_that_the_broker_has_changed_may_be_any_with_its_key() -> None:
    bench = Bench()
    sent = await bench.publish(copy("a", b"1"), copy("b", b"1"), copy("a", b"2"))
    bench.line.give_back(copy("a", b"1", app_id="added"), 313, "NO_CONSUMERS")
    bench.line.answer(Basic.Ack(3, multiple=True))
    assert answers(sent) == [Answer(False, "NO_CONSUMERS"), SENT, Answer(False, "NO_CONSUMERS")]
    sent = await bench.publish(copy("a"), copy("b"))
    unreadable: Any = Basic.Return(312, "", "", "")
    unreadable.exchange = unreadable.routing_key = b"\xff"
    bench.line.answer(unreadable, Basic.Properties(), b"{}")
    bench.line.answer(Basic.Ack(5, multiple=True))
    assert answers(sent) == [UNBOUND, UNBOUND]


@asynchronous
async def test_what_is_not_answered_when_the_channel_closes_is_unknown() -> None:
    bench = Bench()
    sent = await bench.publish(copy("a"), copy("b"), copy("c"))
    bench.line.give_back(copy("b"))
    bench.line.answer(Basic.Ack(1))
    bench.line.lose(ChannelClosed("NOT_FOUND - no exchange 'events'", 404))
    assert answers(sent) == [SENT, UNBOUND, Answer(None, "NOT_FOUND - no exchange 'events'")]
    (again,) = await bench.publish(copy("d"))
    assert bench.line.opened == 2
    bench.line.answer(Basic.Ack(1))  # of the new channel
    assert again.result() == SENT


@asynchronous
async def test_a_broker_that_takes_or_confirms_nothing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(confirming, "CONFIRM_TIMEOUT", 0.0)
    bench = Bench()
    (taken,) = await bench.publish(copy("a"))
    (late,) = await bench.publisher.answers([taken])
    assert (late.sent, late.late) == (None, True)
    assert late.reason.startswith("the broker has not confirmed it within 0 s")
    bench.line.full.clear()
    (stuck,) = await bench.publish(copy("b"))
    assert stuck.result() == Answer(None, "the broker accepts no more publishes", late=True)
    bench.line.answer(Basic.Ack(2, multiple=True))
    assert (taken.result(), stuck.result().late) == (SENT, True)
    assert await bench.publisher.answers([]) == []
