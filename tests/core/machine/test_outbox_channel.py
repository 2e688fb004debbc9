"""The outbox when the broker closes the channel, refuses everything, or misses an exchange."""

from __future__ import annotations

import pytest

from eda_core.machine.counts import Counts
from eda_core.machine.effects import Effect, Publish
from eda_core.machine.identifiers import DeliveryId, Epoch
from eda_core.machine.outbox import Outbox
from tests.core.kit import config, make_publish, of

EPOCH, ONE, TWO = Epoch(1), DeliveryId(11), DeliveryId(12)


def filled(*publishes: Publish, window: int = 10) -> Outbox:
    """Return an outbox that has sent as many of these publishes as the window allows."""
    outbox = Outbox(config(window=window, connect_timeout=7.0), Counts())
    for publish in publishes:
        outbox.kept += 1
        outbox.backlog.append(publish)
    send(outbox)
    return outbox


def send(outbox: Outbox) -> list[int]:
    effects: list[Effect] = []
    outbox.send(EPOCH, 0.0, effects)
    return [publish.pid for publish in of(Publish, effects)]


def test_a_publish_alone_is_the_one() -> None:
    only = make_publish(1)
    outbox = filled(only)
    assert outbox.unconfirmed() == 1
    assert outbox.channel_closed(5.0) == (only, [])
    assert (outbox.kept, outbox.unconfirmed(), outbox.space) == (0, 0, 0)


def test_several_are_sent_again_one_by_one_in_order() -> None:
    outbox = filled(*(make_publish(number) for number in range(1, 5)), window=3)
    assert outbox.channel_closed(5.0) == (None, [])
    assert (outbox.suspects, send(outbox)) == (3, [])
    outbox.channel_opened()
    assert send(outbox) == [1]
    outbox.confirmed(1, False)
    assert send(outbox) == [2]
    outbox.refused(2, False, 99.0)
    assert send(outbox) == [3]
    outbox.confirmed(3, False)
    assert (outbox.suspects, outbox.space, send(outbox)) == (0, 3, [4])


def test_what_nobody_wants_is_dropped() -> None:
    wanted, unwanted, ownerless = make_publish(1), make_publish(2), make_publish(3, kept=False)
    outbox = filled(wanted, unwanted, ownerless)
    outbox.may_cancel(unwanted)
    outbox.cancel([unwanted])
    assert outbox.channel_closed(5.0) == (None, [unwanted, ownerless])
    assert (outbox.suspects, outbox.kept) == (1, 1)


def test_what_nobody_wants_is_not_the_one() -> None:
    ownerless = make_publish(1, kept=False)
    outbox = filled(ownerless)
    assert outbox.channel_closed(5.0) == (None, [ownerless])
    outbox.channel_opened()
    assert (outbox.kept, outbox.space) == (0, 10)


def test_the_publishes_of_a_failed_delivery_are_dropped() -> None:
    of_one = [make_publish(number, kept=False, delivery=ONE) for number in (1, 2, 3)]
    others = [make_publish(4, delivery=ONE), make_publish(5, kept=False, delivery=TWO)]
    outbox = filled(*of_one, *others, window=2)
    outbox.refused(2, False, 50.0)
    assert outbox.drop(ONE) == 3
    assert (of_one[0].delivery, outbox.kept) == (None, 3)
    assert send(outbox) == [4]
    assert outbox.drop(ONE) == 0


def test_a_channel_has_time_to_open() -> None:
    outbox = filled(make_publish(1), make_publish(2))
    outbox.channel_closed(5.0)
    assert outbox.deadline(True) == 12.0
    assert outbox.deadline(False) is None
    assert outbox.overdue(11.9, True) is None
    assert outbox.overdue(12.0, True) == "the broker has not opened a channel for 7 s"
    outbox.block(6.0)
    assert outbox.overdue(20.0, True) is None
    outbox.unblock(20.0)
    assert (outbox.deadline(True), outbox.overdue(26.9, True)) == (27.0, None)
    outbox.channel_opened()
    assert outbox.overdue(27.0, True) is None


def test_the_next_link_begins_anew() -> None:
    outbox = filled(make_publish(1), make_publish(2))
    outbox.channel_closed(5.0)
    outbox.lose_link()
    assert (outbox.suspects, outbox.space) == (0, 10)
    assert outbox.overdue(99.0, True) is None
    assert send(outbox) == [1, 2]


def test_refusals_without_a_confirm_are_counted_by_time() -> None:
    outbox = filled(make_publish(1), make_publish(2))
    assert outbox.refuses_all(100.0) is None
    assert outbox.refuses_all(104.9) is None
    assert outbox.refuses_all(105.0) == "the broker has refused all publishes for 5 s"
    outbox.lose_link()
    send(outbox)
    assert outbox.refuses_all(200.0) is None
    assert outbox.refuses_all(209.0) is None
    outbox.confirmed(1, False)
    assert outbox.refuses_all(300.0) is None
    assert outbox.refuses_all(305.0) is not None


def test_answers_without_a_confirm_are_counted_by_time() -> None:
    outbox = filled(make_publish(1), make_publish(2))  # at 0.0
    assert outbox.confirms_none(10.0, 11.0) is None
    assert outbox.confirms_none(13.0, 13.9) is None
    assert outbox.confirms_none(13.0, 14.0) == "the broker answers, but has confirmed no publish for 14 s"


@pytest.mark.parametrize("sign", ["confirm", "refusal", "lost link"])
def test_a_sign_that_publishes_are_read_begins_the_time_anew(sign: str) -> None:
    outbox = filled(make_publish(1), make_publish(2))
    assert outbox.confirms_none(10.0, 11.0) is None
    if sign == "confirm":
        outbox.confirmed(1, False)
    elif sign == "refusal":
        outbox.refused(1, False, 99.0)
    else:
        outbox.lose_link()
        send(outbox)
    assert outbox.confirms_none(99.0, 100.0) is None
    assert outbox.confirms_none(105.0, 106.0) is not None


def test_an_answer_says_nothing_of_what_was_sent_later_or_cannot_be_read() -> None:
    outbox = filled(make_publish(1))  # at 0.0
    assert outbox.confirms_none(-1.0, 50.0) is None
    assert outbox.confirms_none(-1.0, 60.0) is None, "no time has begun"
    outbox.block(61.0)
    assert outbox.confirms_none(70.0, 70.0) is None
    assert outbox.confirms_none(80.0, 80.0) is None
    outbox.unblock(81.0)
    outbox.confirmed(1, False)
    assert outbox.confirms_none(90.0, 90.0) is outbox.confirms_none(99.0, 99.0) is None, "nothing is unconfirmed"


@pytest.mark.parametrize("confirmed", [False, True])
def test_an_exchange_is_missing_for_the_first_time_until_it_confirms(confirmed: bool) -> None:
    outbox = filled(make_publish(1), make_publish(2, exchange="commands"))
    assert outbox.exchanges() == {"events", "commands"}
    assert not outbox.are_missing({"events"})
    if confirmed:
        outbox.confirmed(1, False)
    assert outbox.are_missing({"events"}) is not confirmed
    assert not outbox.are_missing({"events", "commands"})


def test_an_answer_about_nothing_changes_nothing() -> None:
    outbox = filled(make_publish(1), make_publish(2))
    outbox.channel_closed(5.0)
    assert outbox.confirmed(7, False) == []
    assert outbox.suspects == 2
