"""Calls: commands whose results a caller waits for, and what the machine does with them."""

from __future__ import annotations

import pytest
from pamqp.commands import Queue

from eda_core import (
    Ack,
    BufferFull,
    CommandError,
    CommandTimeout,
    Connect,
    Declare,
    LocalError,
    Nack,
    Publish,
    PublishError,
    Replied,
    Report,
    StateError,
    Stopped,
)
from eda_core.machine import link
from eda_core.machine.calls import answer
from eda_core.machine.effects import BufferAvailable
from eda_core.machine.identifiers import DeliveryId
from eda_core.machine.outcomes import DONE
from eda_core.messages.values import Command
from tests.core.kit import REJECTED, REPLY_KEY, Bench, calling, kinds, of, only, opened
from tests.core.machine.states import REACH

# --- the command ---


def test_its_result_comes_under_a_key_that_the_service_is_not_bound_to() -> None:
    bench = opened(commands=["svc.*"])
    bind = only(Declare, bench.declared(only(Declare, bench.call())))
    assert [each.routing_key for each in of(Queue.Bind, bind.commands)] == ["replies.svc.tok"]
    assert only(Publish, bench.declared(bind)).properties.reply_to == "replies.svc.tok"
    bench = opened(commands=["svc.Do"])
    bind = only(Declare, bench.declared(only(Declare, bench.call())))
    assert [each.routing_key for each in of(Queue.Bind, bind.commands)] == ["svc.tok"]


def test_the_first_command_waits_for_the_queue_of_its_result() -> None:
    bench = opened()
    bind = only(Declare, bench.declared(only(Declare, bench.call())))
    sent = only(Publish, bench.declared(bind))
    assert (sent.exchange, sent.routing_key, sent.mandatory) == ("commands", "peer.Do", True)
    assert (sent.properties.reply_to, sent.properties.correlation_id) == (REPLY_KEY, "tok-call-1")


@pytest.mark.parametrize("state", [link.IDLE, link.CONNECTING, link.DECLARING, link.BINDING, link.BACKOFF])
def test_a_command_before_the_link_is_open_waits_for_it_and_for_the_queue(state: str) -> None:
    bench = REACH[state]()
    assert bench.call() == []
    if state in (link.CONNECTING, link.DECLARING, link.BINDING):
        bench.lose()
    effects = bench.open()
    assert kinds(effects) == ["Consume", "Publish", "Consume", "Consume", "Ready"]
    assert only(Publish, effects).routing_key == "peer.Do"


def test_the_next_call_is_sent_at_once() -> None:
    bench = calling()
    assert kinds(bench.call(2)) == ["Publish"]


def test_a_second_call_before_the_queue_is_there_waits_with_the_first() -> None:
    bench = opened()
    declare = only(Declare, bench.call())
    assert bench.call(2) == []
    sent = of(Publish, bench.declared(only(Declare, bench.declared(declare))))
    assert [publish.properties.correlation_id for publish in sent] == ["tok-call-1", "tok-call-2"]


# --- a command that nobody wants any more ---


@pytest.mark.parametrize("end", ["timed out", "forgotten"])
def test_the_command_of_a_call_that_is_over_is_not_sent_when_the_queue_is_there(end: str) -> None:
    bench = opened(buffer=1)
    bind = only(Declare, bench.declared(only(Declare, bench.call(timeout=5.0))))
    if end == "timed out":
        bench.wait(5.0)
    else:
        bench.did(bench.machine.forget_call(1, bench.now))
    assert kinds(bench.declared(bind)) == ["Consume"]
    assert kinds(bench.publish()) == ["Publish"], "it takes no space any more"
    bench.lose()
    assert len(of(Publish, bench.open())) == 1


@pytest.mark.parametrize("end", ["timed out", "forgotten"])
def test_nor_when_an_alarm_is_over(end: str) -> None:
    bench = calling()
    bench.did(bench.machine.blocked(bench.epoch, "memory", bench.now))
    assert bench.call(2, timeout=5.0) == []
    if end == "timed out":
        bench.wait(5.0)
    else:
        bench.did(bench.machine.forget_call(2, bench.now))
    assert of(Publish, bench.did(bench.machine.unblocked(bench.epoch, bench.now))) == []
    assert kinds(bench.stop()) == ["Report", "Cancel", "Cancel", "Replied", "Close"], "it holds up no stop"


def test_the_message_of_its_caller_does_not_wait_for_it() -> None:
    bench = calling()
    delivery = bench.take()
    bench.did(bench.machine.blocked(bench.epoch, "memory", bench.now))
    bench.call(2, timeout=5.0, within=delivery)
    assert bench.handled(delivery) == []
    assert kinds(bench.wait(5.0)) == ["Replied", "Ack"]


def test_a_refused_command_is_not_sent_again_when_its_call_is_over() -> None:
    bench = calling(retry_delay=10.0)
    bench.refuse(only(Publish, bench.call(2, timeout=5.0)))
    bench.wait(5.0)
    assert of(Publish, bench.wait(10.0)) == []


@pytest.mark.parametrize("end", ["timed out", "answered"])
@pytest.mark.parametrize("fate", ["refused", "lost"])
def test_a_command_on_its_way_is_not_sent_again_when_its_call_is_over(end: str, fate: str) -> None:
    bench = calling(retry_delay=10.0)
    delivery = bench.take()
    sent = only(Publish, bench.call(2, timeout=5.0, within=delivery))
    bench.handled(delivery)
    if end == "timed out":
        bench.wait(5.0)
    else:
        bench.reply(2)
    if fate == "refused":
        assert kinds(bench.refuse(sent)) == ["Ack"], "nothing is left to wait for"
        assert of(Publish, bench.wait(10.0)) == []
    else:
        bench.lose()
        assert of(Publish, bench.open()) == []


def test_who_may_not_call_yet_hears_when_there_is_space_again() -> None:
    bench = calling(buffer=3)
    bench.confirm(only(Publish, bench.call(2)))
    bench.confirm(only(Publish, bench.call(3)))
    with pytest.raises(BufferFull):
        bench.call(4)
    assert of(BufferAvailable, bench.reply(2)) == [BufferAvailable()]
    assert of(BufferAvailable, bench.reply(3)) == [], "it was told once"


# --- what comes back ---


def test_results_in_any_order() -> None:
    bench = calling()
    bench.call(2)
    assert only(Replied, bench.reply(2)).ticket == 2
    assert only(Replied, bench.reply(1)).ticket == 1


def test_an_error_result() -> None:
    replied = only(Replied, calling().reply(1, {"why": "no"}, "error"))
    with pytest.raises(CommandError, match=r"peer\.Do: .*no") as caught:
        answer(replied)
    assert (caught.value.command, caught.value.payload) == ("peer.Do", {"why": "no"})


def test_a_result_that_is_late_or_unknown_is_counted_logged_and_dropped() -> None:
    bench = calling()
    bench.reply(1)
    for number, effects in enumerate((bench.reply(1), bench.reply(99)), 1):
        assert kinds(effects) == ["Ack", "Report", "PublishLog"]
        assert only(Report, effects).text == f"a result that nobody waits for is dropped ({number} so far)"
    assert bench.machine._calls.late == 2


def test_a_result_that_cannot_be_read_is_dead_lettered() -> None:
    bench = calling()
    reason = "the property message_id is not UTF-8"
    effects = bench.deliver(REPLY_KEY, exchange="commands", correlation_id="tok-call-1", unreadable=reason)
    assert kinds(effects) == ["Report", "PublishLog", "Nack"]
    assert not only(Nack, effects).requeue
    assert only(Report, effects).text == f"invalid message commands/{REPLY_KEY}: {reason}: {REJECTED}"
    assert only(Replied, bench.reply(1)).ticket == 1


def test_a_command_that_comes_to_that_queue_is_no_result() -> None:
    effects = calling().deliver(REPLY_KEY, exchange="commands", reply_to="x.Y", correlation_id="tok-call-1")
    assert kinds(effects) == ["Ack", "Report", "PublishLog"]


def test_without_a_result_it_is_over_in_time() -> None:
    bench = calling()
    bench.call(2, timeout=40.0)
    assert bench.machine.deadline() == pytest.approx(130.0)
    assert of(Replied, bench.wait(29.9)) == []
    replied = only(Replied, bench.wait(0.1))
    assert (replied.ticket, replied.timed_out) == (1, True)
    with pytest.raises(CommandTimeout, match=r"peer\.Do: no result came in time"):
        answer(replied)
    assert only(Replied, bench.due()).ticket == 2


def test_whatever_is_due_first_is_the_deadline() -> None:
    bench = calling()
    bench.take()
    bench.stop(20.0)
    assert bench.machine.deadline() == pytest.approx(120.0), "of the stop, before that of call 1"
    bench.call(2, timeout=5.0)
    assert bench.machine.deadline() == pytest.approx(105.0)


def test_its_time_is_over_without_a_link_too() -> None:
    bench = calling()
    bench.lose()
    bench.now += 30.0
    assert only(Replied, bench.did(bench.machine.tick(bench.now))).timed_out


def test_a_command_that_nobody_serves_ends_its_call_at_once() -> None:
    bench = calling()
    sent = only(Publish, bench.call(2))
    returned = bench.machine.returned(
        bench.epoch, "commands", "peer.Do", sent.properties, sent.body, "NO_ROUTE", bench.now
    )
    with pytest.raises(PublishError, match=r"peer\.Do: no service is bound to it \(NO_ROUTE\)"):
        answer(only(Replied, returned))
    assert kinds(returned) == ["Replied"]
    assert kinds(bench.confirm(sent)) == []


def test_another_command_that_came_back_is_not_taken_for_a_call() -> None:
    """A service may give it any correlation id."""
    bench = calling()
    sent = bench.send(Command("other.Do", 1, "c-1", "svc.DoReturn", "tok-call-1"))
    returned = bench.machine.returned(
        bench.epoch, "commands", "other.Do", sent.properties, sent.body, "NO_ROUTE", bench.now
    )
    assert kinds(returned) == ["Report", "Returned"]
    assert only(Replied, bench.reply(1)).ticket == 1


def test_a_forgotten_call() -> None:
    bench = calling()
    bench.call(2)
    assert bench.machine.forget_call(2, bench.now) == []
    assert bench.machine.forget_call(3, bench.now) == []
    assert of(Replied, bench.reply(2)) == []
    assert bench.machine._calls.late == 1
    assert bench.machine.deadline() == pytest.approx(130.0)


def test_a_lost_link_ends_no_call() -> None:
    bench = calling()
    bench.lose()
    bench.open()
    assert only(Replied, bench.reply(1)).ticket == 1


def test_an_unconfirmed_command_is_sent_again_on_the_next_link() -> None:
    bench = calling()
    first = only(Publish, bench.call(2))
    bench.lose()
    again = only(Publish, bench.open())
    assert (again.pid, again.properties.correlation_id) == (first.pid, "tok-call-2")


# --- within a handler ---


def test_it_is_of_the_conversation_of_the_message_and_names_it_as_its_cause() -> None:
    bench = calling()
    delivery = bench.take()
    sent = only(Publish, bench.call(2, within=delivery))
    assert sent.properties.headers == {
        "conversation_id": "c-1",
        "causation_id": "id-1-1",
        "deduplication_id": "id-1-1/svc/peer.Do.1",
    }


def test_a_configuration_without_a_conversation_begins_one() -> None:
    bench = calling(configurations=["Settings"])
    delivery = bench.take("Settings", exchange="configurations", headers={})
    assert only(Publish, bench.call(2, within=delivery)).properties.headers["conversation_id"] == "tok-call-2"  # type: ignore[index]


def test_elsewhere_it_begins_a_conversation_unless_it_is_given_one() -> None:
    bench = calling()
    assert only(Publish, bench.call(2)).properties.headers == {"conversation_id": "tok-call-2"}
    assert only(Publish, bench.call(3, conversation_id="c-9")).properties.headers == {"conversation_id": "c-9"}


def test_the_acknowledgement_waits_for_the_confirm_of_the_command() -> None:
    bench = calling()
    delivery = bench.take()
    sent = only(Publish, bench.call(2, within=delivery))
    assert of(Ack, bench.handled(delivery, DONE)) == []
    assert kinds(bench.confirm(sent)) == ["Ack"]


def test_a_call_held_for_a_handler_whose_link_is_lost_is_sent_on_the_next() -> None:
    bench = opened()
    delivery = bench.take()
    bench.call(within=delivery)
    bench.lose()
    sent = only(Publish, bench.open())
    assert sent.delivery == delivery, "the handler may go on for the next delivery"
    assert bench.confirm(sent) == []
    assert bench.call(2, within=DeliveryId(delivery)), "of an orphan too"


def test_the_end_of_the_service_ends_what_waits() -> None:
    bench = calling()
    effects = bench.stop() + bench.lose("closed")
    with pytest.raises(PublishError, match="the service stopped before its result came"):
        answer(only(Replied, effects))
    assert only(Stopped, effects).error is None
    assert bench.machine.deadline() is None
    with pytest.raises(StateError, match="the service is stopped"):
        bench.call(2)


def test_held_commands_end_with_the_service() -> None:
    bench = Bench()
    bench.call()
    assert only(Replied, bench.stop()).ticket == 1
    assert bench.state == link.STOPPED


# --- wrong calls ---


def test_what_cannot_be_sent_is_refused_and_nothing_is_kept() -> None:
    bench = opened()
    with pytest.raises(LocalError):
        bench.machine.call("no dot", 1, bench.now, ticket=1, timeout=5.0)
    with pytest.raises(LocalError):
        bench.machine.call("peer.Do", object(), bench.now, ticket=1, timeout=5.0)
    with pytest.raises(LocalError, match="timeout is"):
        bench.machine.call("peer.Do", 1, bench.now, ticket=1, timeout=0.0)
    assert len(bench.machine._calls) == 0
    assert bench.machine._outbox.kept == 0


def test_there_are_no_more_of_them_than_the_buffer_holds() -> None:
    bench = opened(buffer=1)
    bench.confirm(only(Publish, bench.declared(only(Declare, bench.declared(only(Declare, bench.call()))))))
    with pytest.raises(BufferFull, match="1 calls wait for results") as caught:
        bench.call(2)
    assert caught.value.temporary
    assert of(BufferAvailable, bench.reply(1)) == [BufferAvailable()]
    assert of(Publish, bench.call(2))


def test_a_full_outbox_takes_no_call() -> None:
    bench = opened(buffer=2)
    bench.publish()
    bench.publish()
    with pytest.raises(BufferFull) as caught:
        bench.call()
    assert caught.value.temporary is True
    assert len(bench.machine._calls) == 0


def test_connecting_is_not_needed_to_give_up() -> None:
    bench = Bench()
    bench.call()
    only(Connect, bench.did(bench.machine.start(bench.now)))
    assert only(Replied, bench.wait(30.0)).timed_out
