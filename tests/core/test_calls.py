"""Calls: commands whose results a caller waits for."""

from __future__ import annotations

from typing import Any

import pytest
from pamqp.commands import Queue

from eda_core import (
    Ack,
    BufferFull,
    CommandError,
    CommandTimeout,
    Connect,
    Consume,
    Declare,
    Dispatch,
    LocalError,
    Nack,
    Publish,
    PublishError,
    Replied,
    Report,
    StateError,
    Stopped,
    link,
)
from eda_core.calls import Call, Calls, answer, reply_key
from eda_core.effects import Cancel, Effect
from eda_core.topology import REPLIES
from eda_core.values import CONFIGURED, DONE, DeliveryId, Result

from .kit import Bench, kinds, of, only, opened

#: The bench subscribes to ``svc.#``.
KEY = "replies.svc.tok"


def call(bench: Bench, ticket: int = 1, **named: Any) -> list[Effect]:
    named = {"timeout": 30.0, **named}
    return bench.did(bench.machine.call("peer.Do", {"n": ticket}, bench.now, ticket=ticket, **named))


def ready() -> Bench:
    """A bench whose queue for results is bound; call 1 is sent and confirmed."""
    bench = opened()
    declared = bench.declared(only(Declare, call(bench)))
    bench.confirm(only(Publish, bench.declared(only(Declare, declared))))
    return bench


def reply(bench: Bench, ticket: int, payload: object = "yes", status: str = "success") -> list[Effect]:
    headers = {"conversation_id": "c-1", "status": status}
    return bench.deliver(KEY, payload, exchange="commands", headers=headers, correlation_id=f"tok-call-{ticket}")


# --- the queue of the results ---


@pytest.mark.parametrize("own", ["svc.tok", "svc.*", "svc.#", "*.*", "#.tok"])
def test_results_come_under_a_key_that_the_service_is_not_bound_to(own: str) -> None:
    assert reply_key("svc", "tok", ["svc.Do", "other.#"]) == "svc.tok"
    assert reply_key("svc", "tok", ["svc.Do", own]) == "replies.svc.tok"
    bench = opened(commands=[own])
    binding = of(Queue.Bind, only(Declare, bench.declared(only(Declare, call(bench)))).commands)
    assert [each.routing_key for each in binding] == ["replies.svc.tok"]


def test_the_first_call_on_an_open_link_makes_the_queue_and_waits_for_it() -> None:
    bench = opened()
    declare = only(Declare, call(bench))
    (queue,) = declare.commands[4:]
    assert [command.name for command in declare.commands[:4]] == ["Exchange.Declare"] * 4
    assert (queue.queue, queue.exclusive, queue.durable) == ("", True, False)  # type: ignore[attr-defined]
    bind = only(Declare, bench.declared(declare))
    assert [(each.exchange, each.routing_key) for each in bind.commands[:1]] == [("commands", KEY)]  # type: ignore[attr-defined]
    done = bench.declared(bind)
    assert kinds(done) == ["Consume", "Publish"]
    assert only(Consume, done).consumer_tag == REPLIES
    sent = only(Publish, done)
    assert (sent.exchange, sent.routing_key, sent.mandatory) == ("commands", "peer.Do", True)
    assert sent.properties.reply_to == KEY
    assert sent.properties.correlation_id == "tok-call-1"


def test_the_next_call_is_sent_at_once() -> None:
    bench = ready()
    assert kinds(call(bench, 2)) == ["Publish"]


def test_a_second_call_before_the_queue_is_there_waits_with_the_first() -> None:
    bench = opened()
    declare = only(Declare, call(bench))
    assert call(bench, 2) == []
    sent = of(Publish, bench.declared(only(Declare, bench.declared(declare))))
    assert [publish.properties.correlation_id for publish in sent] == ["tok-call-1", "tok-call-2"]


@pytest.mark.parametrize("state", [link.IDLE, link.CONNECTING, link.DECLARING, link.BINDING, link.BACKOFF])
def test_a_call_before_the_link_is_open_is_sent_when_it_is(state: str) -> None:
    bench = Bench()
    effects: list[Effect] = []
    asked: Declare | None = None
    while bench.state != state:
        if bench.state == link.IDLE:
            bench.connect()
        elif state == link.BACKOFF:
            bench.lose()
        elif bench.state == link.CONNECTING:
            asked = bench.link_up()
        else:
            assert asked is not None
            asked = only(Declare, bench.declared(asked))
    call(bench)
    if bench.state in (link.IDLE, link.BACKOFF):
        bench.connect()
    if asked is None:
        asked = bench.link_up()
    while True:
        effects = bench.declared(asked)
        if not of(Declare, effects):
            break
        asked = only(Declare, effects)
    assert [effect.queue for effect in of(Consume, bench.seen) if effect.consumer_tag == REPLIES]
    assert only(Publish, bench.seen).routing_key == "peer.Do"


def test_each_new_link_declares_it_with_the_other_queues() -> None:
    bench = ready()
    bench.lose()
    effects = bench.open()
    assert [effect.consumer_tag for effect in of(Consume, effects)] == [REPLIES, "events", "commands"]


def test_a_broker_that_does_not_name_it_is_left() -> None:
    bench = opened()
    call(bench)
    assert "Close" in kinds(bench.did(bench.machine.declared(bench.epoch, [], bench.now)))
    assert bench.state == link.BACKOFF


def test_a_link_lost_while_it_is_declared() -> None:
    bench = opened()
    call(bench)
    bench.lose()
    assert only(Publish, bench.open()).routing_key == "peer.Do"


def test_an_unconfigured_service_can_call() -> None:
    bench = Bench(configurations=["Settings"])
    call(bench)
    tags = [effect.consumer_tag for effect in of(Consume, bench.open())]
    assert tags == [REPLIES, "configurations"]
    settings = bench.take("Settings", exchange="configurations")
    consumed = of(Consume, bench.handled(settings, CONFIGURED))
    assert [effect.consumer_tag for effect in consumed] == ["events", "commands"]


# --- what comes back ---


def test_the_result_is_acknowledged_and_brought() -> None:
    bench = ready()
    effects = reply(bench, 1, {"is": 7})
    assert kinds(effects) == ["Ack", "Replied"]
    assert answer(only(Replied, effects)) == {"is": 7}
    assert only(Ack, effects).multiple is False


def test_results_in_any_order() -> None:
    bench = ready()
    call(bench, 2)
    assert only(Replied, reply(bench, 2)).ticket == 2
    assert only(Replied, reply(bench, 1)).ticket == 1


def test_an_error_result() -> None:
    replied = only(Replied, reply(ready(), 1, {"why": "no"}, "error"))
    with pytest.raises(CommandError, match=r"peer\.Do: .*no") as caught:
        answer(replied)
    assert (caught.value.command, caught.value.payload) == ("peer.Do", {"why": "no"})


def test_an_error_with_a_long_payload_has_a_short_text() -> None:
    assert len(str(CommandError("peer.Do", "x" * 10_000))) <= 500


def test_a_result_that_is_late_or_unknown_is_counted_logged_and_dropped() -> None:
    bench = ready()
    reply(bench, 1)
    for number, effects in enumerate((reply(bench, 1), reply(bench, 99)), 1):
        assert kinds(effects) == ["Ack", "Report", "PublishLog"]
        assert f"the {number}. so far" in only(Report, effects).text
    assert bench.machine._calls.late == 2


def test_a_command_that_comes_to_that_queue_is_no_result() -> None:
    effects = ready().deliver(KEY, exchange="commands", reply_to="x.Y", correlation_id="tok-call-1")
    assert kinds(effects) == ["Ack", "Report", "PublishLog"]


def test_what_is_no_message_is_dead_lettered_as_ever() -> None:
    effects = ready().deliver(KEY, exchange="commands", headers={})
    assert only(Nack, effects).requeue is False


def test_other_results_go_to_the_handler() -> None:
    effects = ready().deliver(
        "svc.DoReturn", exchange="commands", headers={"conversation_id": "c", "status": "success"}
    )
    assert isinstance(only(Dispatch, effects).message, Result)


def test_without_a_result_it_is_over_in_time() -> None:
    bench = ready()
    call(bench, 2, timeout=40.0)
    assert bench.machine.deadline() == pytest.approx(130.0)
    assert of(Replied, bench.wait(29.9)) == []
    replied = only(Replied, bench.wait(0.1))
    assert (replied.ticket, replied.timed_out) == (1, True)
    with pytest.raises(CommandTimeout, match=r"peer\.Do: no result came in time"):
        answer(replied)
    assert isinstance(CommandTimeout("x"), TimeoutError)
    assert only(Replied, bench.due()).ticket == 2


def test_its_time_is_over_without_a_link_too() -> None:
    bench = ready()
    bench.lose()
    bench.now += 30.0
    assert only(Replied, bench.did(bench.machine.tick(bench.now))).timed_out


def test_a_command_that_nobody_serves_ends_its_call_at_once() -> None:
    bench = ready()
    sent = only(Publish, call(bench, 2))
    returned = bench.machine.returned(
        bench.epoch, "commands", "peer.Do", sent.properties, sent.body, "NO_ROUTE", bench.now
    )
    with pytest.raises(PublishError, match=r"peer\.Do: no service is bound to it \(NO_ROUTE\)"):
        answer(only(Replied, returned))
    assert kinds(returned) == ["Replied"]
    assert kinds(bench.confirm(sent)) == []


def test_a_forgotten_call() -> None:
    bench = ready()
    call(bench, 2)
    assert bench.machine.forget_call(2, bench.now) == []
    assert bench.machine.forget_call(3, bench.now) == []
    assert of(Replied, reply(bench, 2)) == []
    assert bench.machine._calls.late == 1
    assert bench.machine.deadline() == pytest.approx(130.0)


def test_a_lost_link_ends_no_call() -> None:
    bench = ready()
    bench.lose()
    bench.open()
    assert only(Replied, reply(bench, 1)).ticket == 1


def test_an_unconfirmed_command_is_sent_again_on_the_next_link() -> None:
    bench = ready()
    first = only(Publish, call(bench, 2))
    bench.lose()
    again = only(Publish, bench.open())
    assert (again.pid, again.properties.correlation_id) == (first.pid, "tok-call-2")


# --- within a handler ---


def test_it_is_of_the_conversation_of_the_message_and_names_it_as_its_cause() -> None:
    bench = ready()
    delivery = bench.take()
    sent = only(Publish, call(bench, 2, within=delivery))
    assert sent.properties.headers == {"conversation_id": "c-1", "causation_id": "id-1-1"}


def test_elsewhere_it_begins_a_conversation_unless_it_is_given_one() -> None:
    bench = ready()
    assert only(Publish, call(bench, 2)).properties.headers == {"conversation_id": "tok-call-2"}
    assert only(Publish, call(bench, 3, conversation_id="c-9")).properties.headers == {"conversation_id": "c-9"}


def test_the_acknowledgement_waits_for_the_confirm_of_the_command() -> None:
    bench = ready()
    delivery = bench.take()
    sent = only(Publish, call(bench, 2, within=delivery))
    assert of(Ack, bench.handled(delivery, DONE)) == []
    assert kinds(bench.confirm(sent)) == ["Ack"]


def test_a_call_held_for_a_handler_whose_link_is_lost_is_sent_on_the_next() -> None:
    bench = opened()
    delivery = bench.take()
    call(bench, within=delivery)
    bench.lose()
    sent = only(Publish, bench.open())
    assert sent.delivery is None
    assert bench.confirm(sent) == []
    assert call(bench, 2, within=DeliveryId(delivery)), "of an orphan too"


def test_a_stop_lets_running_handlers_have_their_results() -> None:
    bench = ready()
    delivery = bench.take()
    bench.confirm(only(Publish, call(bench, 2, within=delivery)))
    stopping = bench.stop()
    assert sorted(effect.consumer_tag for effect in of(Cancel, stopping)) == ["commands", "events"]
    assert only(Replied, reply(bench, 2)).ticket == 2
    assert "Close" in kinds(bench.handled(delivery, DONE))


def test_the_end_of_the_service_ends_what_waits() -> None:
    bench = ready()
    effects = bench.stop() + bench.lose("closed")
    with pytest.raises(PublishError, match="the service stopped before its result came"):
        answer(only(Replied, effects))
    assert only(Stopped, effects).error is None
    assert bench.machine.deadline() is None
    with pytest.raises(StateError, match="the service is stopped"):
        call(bench, 2)


def test_held_commands_end_with_the_service() -> None:
    bench = Bench()
    call(bench)
    assert only(Replied, bench.stop()).ticket == 1
    assert bench.state == link.STOPPED


# --- wrong calls ---


@pytest.mark.parametrize("timeout", [0, -1, float("inf"), float("nan"), True, "5"])
def test_a_timeout_is_seconds(timeout: Any) -> None:
    with pytest.raises(LocalError, match="timeout is"):
        call(opened(), timeout=timeout)


def test_what_cannot_be_sent_is_refused_and_nothing_is_kept() -> None:
    bench = opened()
    with pytest.raises(LocalError):
        bench.machine.call("no dot", 1, bench.now, ticket=1, timeout=5.0)
    with pytest.raises(LocalError):
        bench.machine.call("peer.Do", object(), bench.now, ticket=1, timeout=5.0)
    assert len(bench.machine._calls) == 0
    assert bench.machine._outbox.kept == 0


def test_there_are_no_more_of_them_than_the_buffer_holds() -> None:
    bench = opened(buffer=1)
    bench.confirm(only(Publish, bench.declared(only(Declare, bench.declared(only(Declare, call(bench)))))))
    with pytest.raises(BufferFull, match="1 calls wait for results") as caught:
        call(bench, 2)
    assert caught.value.temporary is False


def test_a_full_outbox_takes_no_call() -> None:
    bench = opened(buffer=2)
    bench.publish()
    bench.publish()
    with pytest.raises(BufferFull) as caught:
        call(bench)
    assert caught.value.temporary is True
    assert len(bench.machine._calls) == 0


def test_the_table_forgets_in_any_order() -> None:
    calls = Calls("k", 10)
    for number in range(3):
        calls.add(str(number), Call(number, "c.D", 10.0 - number))
    calls.forget(2)
    assert calls.deadline() == 9.0
    assert [each.ticket for each in calls.overdue(10.0)] == [1, 0]
    assert calls.take("1") is None
    assert calls.take(None) is None


def test_connecting_is_not_needed_to_give_up() -> None:
    bench = Bench()
    call(bench)
    only(Connect, bench.did(bench.machine.start(bench.now)))
    assert only(Replied, bench.wait(30.0)).timed_out
