"""Results of calls: they come to a queue of this worker alone, and no handler sees them."""

from __future__ import annotations

from eda_core.machine import link
from eda_core.machine.effects import (
    Ack,
    Consume,
    Declare,
    Dispatch,
    Nack,
    Publish,
    Ready,
    Replied,
    Report,
    Unconfigured,
)
from eda_core.machine.outcomes import CONFIGURED
from eda_core.machine.topology import REPLIES
from eda_core.messages.values import Result
from tests.core.kit import REPLY_KEY, Bench, calling, kinds, of, only, opened


def consumed(effects: list[Consume]) -> list[str]:
    return [effect.consumer_tag for effect in effects]


def test_a_result_is_acknowledged_at_once_and_brought() -> None:
    bench = calling()
    effects = bench.reply(1, {"is": 7})
    assert kinds(effects) == ["Ack", "Replied"]
    assert only(Ack, effects) == Ack(bench.epoch, 1, False)
    result = only(Replied, effects).result
    assert isinstance(result, Result)
    assert (result.payload, result.status) == ({"is": 7}, "success")


def test_its_acknowledgement_is_of_it_alone() -> None:
    bench = calling()
    first = bench.take()
    assert only(Ack, bench.reply(1)) == Ack(bench.epoch, 2, False)
    third = bench.take()
    assert bench.handled(third) == [Ack(bench.epoch, 3, False)]
    assert bench.handled(first) == [Ack(bench.epoch, 1, False)]


def test_a_result_that_comes_twice_with_one_tag_is_ignored() -> None:
    bench = calling()
    bench.reply(1)
    headers = {"conversation_id": "c-1", "status": "success"}
    assert bench.deliver(REPLY_KEY, tag=1, exchange="commands", headers=headers, correlation_id="tok-call-1") == []
    assert bench.machine.stale == 1


def test_what_is_no_message_is_dead_lettered_there_too() -> None:
    bench = calling()
    effects = bench.deliver(REPLY_KEY, exchange="commands", headers={})
    assert only(Nack, effects) == Nack(bench.epoch, 1, False)
    assert "no conversation_id" in only(Report, effects).text
    assert of(Replied, effects) == []


def test_results_under_other_keys_go_to_the_handler() -> None:
    headers = {"conversation_id": "c-1", "status": "success"}
    effects = calling().deliver("svc.DoReturn", exchange="commands", headers=headers, correlation_id="tok-call-1")
    assert kinds(effects) == ["Dispatch"]
    assert isinstance(only(Dispatch, effects).message, Result)


def test_while_the_service_never_called_its_own_key_is_a_key_like_any_other() -> None:
    headers = {"conversation_id": "c-1", "status": "success"}
    assert kinds(opened().deliver(REPLY_KEY, exchange="commands", headers=headers)) == ["Dispatch"]


def test_a_stop_gives_other_messages_back_and_lets_running_handlers_have_their_results() -> None:
    bench = calling()
    delivery = bench.take()
    bench.confirm(only(Publish, bench.call(2, within=delivery)))
    bench.reply(1)
    bench.stop()
    assert bench.deliver() == [Nack(bench.epoch, 3, True)]
    effects = bench.reply(2)
    assert kinds(effects) == ["Ack", "Replied"]
    assert only(Replied, effects).ticket == 2
    assert kinds(bench.handled(delivery)) == ["Ack", "Close"]


def test_each_link_consumes_results_before_messages_and_before_the_service_is_ready() -> None:
    bench = calling()
    bench.lose()
    effects = bench.open()
    assert consumed(of(Consume, effects)) == [REPLIES, "events", "commands"]
    assert isinstance(effects[-1], Ready)
    assert len(of(Ready, effects)) == 1


def test_an_unconfigured_service_gets_results_and_consumes_that_queue_once() -> None:
    bench = Bench(configurations=["Settings"])
    bench.call()
    effects = bench.open()
    assert consumed(of(Consume, effects)) == [REPLIES, "configurations"]
    assert isinstance(effects[-1], Unconfigured)
    bench.confirm(only(Publish, effects))
    assert only(Replied, bench.reply(1)).ticket == 1
    settings = bench.take("Settings", exchange="configurations")
    assert consumed(of(Consume, bench.handled(settings, CONFIGURED))) == ["events", "commands"]


def test_a_link_that_opens_to_finish_a_stop_consumes_results_only() -> None:
    bench = calling()
    bench.send()
    bench.stop()
    bench.lose()
    bench.connect()
    effects = bench.declared(only(Declare, bench.declared(bench.link_up())))
    assert consumed(of(Consume, effects)) == [REPLIES]
    assert of(Ready, effects) == []
    assert bench.state is link.DRAINING
