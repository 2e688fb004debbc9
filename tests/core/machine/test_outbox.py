"""The outbox: the publishes that were accepted and are not confirmed yet."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pamqp.commands import Basic

from eda_core.errors import BufferFull
from eda_core.machine.counts import Counts
from eda_core.machine.effects import Effect, Publish
from eda_core.machine.identifiers import DeliveryId, Epoch
from eda_core.machine.outbox import Outbox
from tests.core.kit import config, make_publish, of

FIRST, SECOND = Epoch(1), Epoch(2)


def make(window: int, limit: int) -> Outbox:
    return Outbox(config(window=window, buffer=limit, confirm_timeout=100.0, blocked_timeout=1000.0), Counts())


def accept(outbox: Outbox, *publishes: Publish) -> None:
    for publish in publishes:
        outbox.refuse_if_full()
        outbox.kept += 1
        outbox.backlog.append(publish)


def numbered(*numbers: int) -> list[Publish]:
    return [make_publish(number) for number in numbers]


def send(outbox: Outbox, epoch: Epoch = FIRST, now: float = 0.0) -> list[Publish]:
    effects: list[Effect] = []
    outbox.send(epoch, now, effects)
    return of(Publish, effects)


def pids(publishes: list[Publish]) -> list[int]:
    return [publish.pid for publish in publishes]


def test_sends_in_order_and_stamps_what_it_sends() -> None:
    outbox = make(10, 10)
    accept(outbox, *numbered(1, 2))
    sent = send(outbox, SECOND, 5.0)
    assert pids(sent) == [1, 2]
    assert [(each.tag, each.epoch, each.sent_at) for each in sent] == [(1, SECOND, 5.0), (2, SECOND, 5.0)]
    assert send(outbox) == []


def test_no_more_are_unconfirmed_at_once_than_the_window_allows() -> None:
    outbox = make(2, 10)
    accept(outbox, *numbered(1, 2, 3, 4))
    assert pids(send(outbox)) == [1, 2]
    assert send(outbox) == []
    outbox.confirmed(2, False)
    assert pids(send(outbox)) == [3]


def test_a_refused_publish_leaves_the_window_to_others_until_its_time_has_come() -> None:
    outbox = make(1, 10)
    accept(outbox, *numbered(1, 2))
    send(outbox)
    assert outbox.refused(1, False, 20.0) == (1, [])
    assert pids(send(outbox)) == [2]
    assert outbox.deadline(True) == 20.0


def test_accepts_no_more_than_the_buffer_holds() -> None:
    outbox = make(1, 2)
    accept(outbox, *numbered(1, 2))
    with pytest.raises(
        BufferFull, match="2 publishes wait for the broker's confirms, which is the limit; publish more slowly"
    ) as full:
        outbox.refuse_if_full()
    assert full.value.temporary
    assert outbox.kept == 2
    send(outbox)
    outbox.confirmed(1, False)
    outbox.refuse_if_full()


def test_only_a_confirm_makes_room() -> None:
    outbox = make(5, 3)
    accept(outbox, *numbered(1, 2, 3))
    send(outbox)
    assert outbox.kept == 3
    outbox.refused(1, False, 9.0)
    assert outbox.kept == 3
    assert pids(outbox.confirmed(3, True)) == [2, 3]
    assert outbox.kept == 1
    assert outbox.confirmed(3, True) == []
    assert outbox.kept == 1


def test_a_refused_publish_is_sent_again_with_everything_it_had() -> None:
    """eventail sends it without correlation_id and status, and with the headers as reply_to."""
    outbox = make(5, 5)
    properties = Basic.Properties(
        headers={"conversation_id": "c-1", "status": "success"}, correlation_id="k", reply_to="a.b", message_id="m"
    )
    original = make_publish(
        1,
        exchange="commands",
        routing_key="svc.Do",
        properties=properties,
        body=b"body",
        mandatory=True,
        delivery=DeliveryId(9),
        ticket=4,
        kept=False,
    )
    accept(outbox, original)
    send(outbox)
    outbox.refused(1, False, 15.0)
    assert not outbox.retry(14.999)
    assert send(outbox) == []
    assert outbox.retry(15.0)
    (again,) = send(outbox, now=15.0)
    assert again is not original  # the driver may still have the first
    assert again.properties is properties
    for name in ("pid", "exchange", "routing_key", "body", "mandatory", "delivery", "ticket", "kept"):
        assert getattr(again, name) == getattr(original, name)
    assert (again.tag, again.sent_at, original.tag, original.sent_at) == (2, 15.0, 1, 0.0)


def test_a_refusal_may_be_about_many_or_about_nothing_known() -> None:
    outbox = make(5, 5)
    accept(outbox, *numbered(1, 2, 3))
    send(outbox)
    assert outbox.refused(2, True, 1.0) == (2, [])
    assert outbox.refused(2, True, 1.0) == outbox.refused(77, False, 1.0) == (0, [])
    assert outbox.retry(1.0)
    assert not outbox.retry(1.0)
    assert outbox.deadline(True) == 100.0, "of the third, which is on the link"
    assert pids(send(outbox)) == [1, 2]


def test_the_refused_come_back_each_at_its_time() -> None:
    outbox = make(5, 5)
    accept(outbox, *numbered(1, 2))
    send(outbox)
    outbox.refused(2, False, 10.0)
    outbox.refused(1, False, 12.0)
    assert outbox.retry(11.0)
    assert pids(send(outbox)) == [2]
    assert outbox.deadline(True) == 12.0


def test_the_oldest_publish_has_so_long_to_be_confirmed() -> None:
    outbox = make(5, 5)
    assert outbox.deadline(True) is None
    accept(outbox, *numbered(1))
    assert outbox.deadline(True) is None
    send(outbox, now=3.0)
    accept(outbox, *numbered(2))
    send(outbox, now=4.0)
    assert outbox.deadline(True) == 103.0
    assert outbox.deadline(False) is None
    assert outbox.overdue(102.9, True) is outbox.overdue(103.0, False) is None
    assert outbox.overdue(103.0, True) == "a publish was not confirmed within 100 s"
    outbox.confirmed(1, False)
    assert outbox.deadline(True) == 104.0


def test_while_the_broker_takes_none_nothing_but_that_is_overdue() -> None:
    outbox = make(5, 5)
    accept(outbox, *numbered(1))
    send(outbox, now=3.0)
    outbox.block(50.0)
    outbox.block(60.0)  # said twice
    assert outbox.blocked_since == 50.0
    assert outbox.deadline(True) == outbox.deadline(False) == 1050.0
    assert outbox.overdue(1049.0, True) is None
    assert outbox.overdue(1050.0, False) == "the broker has blocked publishing for 1000 s"
    assert outbox.unblock(70.0)
    assert not outbox.unblock(80.0)
    assert outbox.deadline(True) == 170.0, "the time for the confirm begins anew"


def test_what_comes_first_is_the_deadline() -> None:
    outbox = make(5, 5)
    accept(outbox, *numbered(1, 2))
    send(outbox)
    outbox.refused(1, False, 20.0)
    assert outbox.deadline(True) == 20.0
    outbox.refused(2, False, 30.0)
    outbox.block(0.0)
    assert outbox.deadline(True) == 20.0
    assert outbox.deadline(False) == 1000.0


# Cancelled


def cancellable(outbox: Outbox, *publishes: Publish) -> None:
    accept(outbox, *publishes)
    for publish in publishes:
        outbox.may_cancel(publish)


def test_what_is_cancelled_before_it_is_sent_is_not_sent() -> None:
    outbox, publishes = make(5, 5), numbered(1, 2, 3)
    cancellable(outbox, *publishes)
    assert outbox.cancel([publishes[2], publishes[0]]) == [publishes[0], publishes[2]]
    assert outbox.kept == 1
    assert pids(send(outbox)) == [2]
    assert outbox.cancel([publishes[0]]) == []


def test_what_is_cancelled_after_a_refusal_is_not_sent_again() -> None:
    outbox, publishes = make(5, 5), numbered(1, 2)
    cancellable(outbox, *publishes)
    send(outbox)
    outbox.refused(2, True, 9.0)
    assert pids(outbox.cancel([publishes[0]])) == [1]
    assert outbox.retry(9.0)
    assert pids(send(outbox)) == [2]


@pytest.mark.parametrize("end", ["refused", "lost"])
def test_what_is_cancelled_on_the_link_is_not_sent_again(end: str) -> None:
    outbox, publishes = make(5, 5), numbered(1, 2)
    cancellable(outbox, *publishes)
    send(outbox)
    assert outbox.cancel([publishes[1]]) == []
    assert outbox.kept == 2
    if end == "refused":
        assert outbox.refused(2, True, 9.0) == (1, [publishes[1]])
        assert outbox.retry(9.0)
    else:
        outbox.lose_link()
    assert outbox.kept == 1
    assert pids(send(outbox, SECOND)) == [1]
    assert pids(outbox.cancel([publishes[0]])) == [], "it is on the link"


def test_what_is_confirmed_cannot_be_cancelled_any_more() -> None:
    outbox, publishes = make(5, 5), numbered(1, 2)
    cancellable(outbox, *publishes)
    send(outbox)
    assert pids(outbox.confirmed(1, False)) == [1]
    assert outbox.cancel(publishes) == []
    assert pids(outbox.confirmed(2, False)) == [2]
    assert (outbox.kept, outbox._cancellable) == (0, {})


def test_only_what_may_be_cancelled_is() -> None:
    outbox, publishes = make(5, 5), numbered(1)
    accept(outbox, *publishes)
    assert outbox.cancel(publishes) == []
    assert pids(send(outbox)) == [1]


# Returned


def test_a_returned_publish_is_found_by_its_message_id() -> None:
    outbox = make(5, 5)
    first, second = (make_publish(number, properties=Basic.Properties(message_id=f"m{number}")) for number in (1, 2))
    accept(outbox, first, second, make_publish(3))
    send(outbox)
    assert outbox.returned("m2", "312 NO_ROUTE") is second
    assert (first.returned, second.returned) == (None, "312 NO_ROUTE")
    assert outbox.returned("m3", "gone") is outbox.returned(None, "gone") is outbox.returned("", "gone") is None


def test_of_copies_with_the_same_message_id_none_is_safe_when_one_is_returned() -> None:
    """Nobody knows which of them has come back."""
    outbox = make(9, 9)
    known, nameless = Basic.Properties(message_id="m"), Basic.Properties()
    copies = [make_publish(number, exchange="am-dlx", properties=known) for number in (1, 2)]
    others = [
        make_publish(3, properties=known),
        make_publish(4, exchange="am-dlx", properties=Basic.Properties(message_id="another")),
        make_publish(5, exchange="am-dlx", properties=nameless),
    ]
    accept(outbox, *copies, *others)
    send(outbox)
    outbox.returned_copies("am-dlx", "m", "NO_ROUTE")
    assert [each.returned for each in (*copies, *others)] == ["NO_ROUTE"] * 2 + [None] * 3
    outbox.returned_copies("am-dlx", None, "gone")
    assert [each.returned for each in others] == [None, None, "gone"]


def test_a_lost_link_keeps_the_order_of_acceptance() -> None:
    """Unconfirmed, refused and unsent publishes are sent in the order of their acceptance."""
    outbox = make(3, 10)
    accept(outbox, *numbered(1, 2, 3, 4, 5))
    send(outbox)
    outbox.refused(2, False, 99.0)
    outbox.lose_link()
    assert outbox.deadline(True) is None
    assert outbox.kept == 5
    assert pids(send(outbox, SECOND)) == [1, 2, 3]
    outbox.confirmed(3, True)
    assert pids(send(outbox, SECOND)) == [4, 5]


def test_a_lost_link_counts_its_tags_from_one() -> None:
    outbox = make(3, 10)
    accept(outbox, *numbered(1, 2))
    send(outbox)
    outbox.lose_link()
    assert [each.tag for each in send(outbox, SECOND)] == [1, 2]


def test_a_lost_link_forgets_what_redeliveries_will_make_again() -> None:
    outbox = make(2, 10)
    gone, stays = make_publish(1, kept=False, delivery=DeliveryId(7)), make_publish(2, delivery=DeliveryId(7))
    refused, waiting = make_publish(3, kept=False), make_publish(4, kept=False)
    accept(outbox, gone, refused, stays, waiting)
    send(outbox)
    outbox.refused(2, False, 1.0)
    send(outbox)
    kept = outbox.lose_link()
    (again,) = send(outbox, SECOND)
    assert again.pid == 2
    assert kept == [again]
    assert outbox.kept == 1


def test_abandons_everything_once() -> None:
    outbox = make(2, 10)
    accept(outbox, *numbered(1, 2, 3))
    send(outbox)
    outbox.refused(1, False, 5.0)
    assert sorted(pids(outbox.abandon())) == [1, 2, 3]
    assert outbox.kept == 0
    assert outbox.abandon() == []
    assert outbox.deadline(True) is None
    assert send(outbox) == []


moves = st.sampled_from(["accept", "forgettable", "send", "retry", "lose"]) | st.tuples(
    st.sampled_from(["confirm", "refuse"]), st.integers(0, 12), st.booleans()
)


@given(st.lists(moves, max_size=40), st.integers(1, 4))
def test_nothing_is_lost_twice_or_in_two_places(steps: list[str | tuple[str, int, bool]], window: int) -> None:
    """Each publish is confirmed, or in the outbox, or is made again after a redelivery."""
    outbox = make(window, 1_000)
    accepted: set[int] = set()
    forgettable: set[int] = set()
    confirmed: list[int] = []
    unanswered: dict[int, int] = {}  # tag to pid, as the broker sees it
    for number, step in enumerate(steps, 1):
        if step in ("accept", "forgettable"):
            accept(outbox, make_publish(number, kept=step == "accept"))
            accepted.add(number)
            if step == "forgettable":
                forgettable.add(number)
        elif step == "send":
            sent = {publish.tag: int(publish.pid) for publish in send(outbox)}
            assert unanswered.keys().isdisjoint(sent)
            assert set(unanswered.values()).isdisjoint(sent.values())
            unanswered |= sent
            assert len(unanswered) <= window
        elif step == "retry":
            outbox.retry(float(number))
        elif step == "lose":
            outbox.lose_link()
            unanswered.clear()
        elif isinstance(step, tuple):
            name, tag, multiple = step
            hit = [each for each in sorted(unanswered) if each == tag or (multiple and (tag == 0 or each <= tag))]
            answered = [unanswered.pop(each) for each in hit]
            if name == "confirm":
                assert pids(outbox.confirmed(tag, multiple)) == answered
                confirmed += answered
            else:
                assert outbox.refused(tag, multiple, float(number)) == (len(answered), [])
    kept, left = outbox.kept, pids(outbox.abandon())
    assert len(left) == kept
    assert len({*confirmed, *left}) == len(confirmed) + len(left)
    assert accepted - {*confirmed, *left} <= forgettable
