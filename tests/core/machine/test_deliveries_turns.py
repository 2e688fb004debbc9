"""Handlers of one conversation that run one after the other: whose turn it is, and that nobody waits in vain."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eda_core.machine.effects import Ack, Dispatch, Effect, Nack, Publish
from eda_core.machine.identifiers import DeliveryId
from eda_core.machine.outcomes import DEFERRED, DONE, Failed
from eda_core.machine.policy import RetryPolicy
from tests.core.kit import Bench, of, only, opened

FAILED = Failed("on purpose")


def serial(**settings: Any) -> Bench:
    return opened(**{"serialize_by": "conversation_id", "prefetch": 100, **settings})


def begun(effects: list[Effect]) -> list[Any]:
    """The payloads of the messages whose handlers begin."""
    return [dispatch.message.payload for dispatch in of(Dispatch, effects)]


def deliver(bench: Bench, payload: str, conversation: str = "c", **fields: Any) -> list[Effect]:
    return bench.deliver(payload=payload, headers={"conversation_id": conversation}, message_id=payload, **fields)


def take(bench: Bench, payload: str, conversation: str = "c", **fields: Any) -> DeliveryId:
    return only(Dispatch, deliver(bench, payload, conversation, **fields)).delivery


def test_the_next_one_begins_when_the_handler_ends() -> None:
    bench = serial()
    first = take(bench, "1")
    assert begun(deliver(bench, "2")) == begun(deliver(bench, "3")) == []
    second = only(Dispatch, bench.handled(first))
    assert second.message.payload == "2"
    assert begun(bench.handled(second.delivery)) == ["3"]


def test_other_conversations_do_not_wait() -> None:
    bench = serial()
    take(bench, "1", "c")
    take(bench, "2", "d")
    assert begun(deliver(bench, "3", "d")) == []


def test_a_conversation_that_is_idle_waits_for_nothing() -> None:
    bench = serial()
    for payload in "123":
        bench.handled(take(bench, payload))


def test_without_the_setting_nobody_waits() -> None:
    bench = opened(prefetch=100)
    assert [begun(deliver(bench, payload)) for payload in "123"] == [["1"], ["2"], ["3"]]


@pytest.mark.parametrize("value", ["customer 7", 7, True, ["a", "list"], {"a": "table"}])
def test_the_key_may_be_in_any_header(value: object) -> None:
    bench = serial(serialize_by="customer")
    headers = {"conversation_id": "c", "customer": value}
    first = bench.take(headers=headers)
    assert bench.deliver(headers=headers) == []
    bench.take(headers={"conversation_id": "c", "customer": "another one"})
    assert len(of(Dispatch, bench.handled(first))) == 1


@pytest.mark.parametrize("value", [None, ""])
def test_messages_without_the_header_do_not_wait(value: object) -> None:
    bench = serial(serialize_by="customer")
    headers = {"conversation_id": "c", **({} if value is None else {"customer": value})}
    bench.take(headers=headers)
    bench.take(headers=headers)


def test_numbers_and_truth_values_are_different_keys() -> None:
    bench = serial(serialize_by="customer")
    for value in (1, True, "1"):
        bench.take(headers={"conversation_id": "c", "customer": value})


def test_a_failure_ends_the_turn_too() -> None:
    bench = serial(retry=RetryPolicy(1))
    first = take(bench, "1")
    deliver(bench, "2")
    effects = bench.handled(first, FAILED)
    assert not only(Nack, effects).requeue
    assert begun(effects) == ["2"]


def test_acknowledgement_by_hand_does_not_keep_the_turn() -> None:
    bench = serial()
    first = take(bench, "1")
    deliver(bench, "2")
    assert begun(bench.handled(first, DEFERRED)) == ["2"]


def test_a_message_that_was_settled_while_its_handler_ran_keeps_the_turn_until_that_ends() -> None:
    bench = serial()
    first = take(bench, "1")
    deliver(bench, "2")
    assert begun(bench.did(bench.machine.ack(first, bench.now))) == []
    assert begun(bench.handled(first)) == ["2"]


def test_who_has_the_turn_may_wait_for_space_and_keeps_its_place() -> None:
    bench = serial(buffer=1)
    first = take(bench, "1")
    deliver(bench, "2")
    sent = bench.send()  # the buffer is full
    assert begun(deliver(bench, "other", "d")) == []
    assert begun(bench.handled(first)) == []
    assert begun(deliver(bench, "3")) == []
    assert begun(bench.confirm(sent)) == ["other", "2"]


def test_a_stop_gives_back_those_that_wait() -> None:
    bench = serial()
    first = take(bench, "1")
    deliver(bench, "2")
    assert [nack.tag for nack in of(Nack, bench.stop())] == [2]
    effects = bench.handled(first)
    assert begun(effects) == []
    assert only(Ack, effects).tag == 1


def test_a_handler_keeps_its_turn_over_a_lost_link() -> None:
    bench = serial()
    first = take(bench, "1")
    deliver(bench, "2")
    bench.lose()
    bench.open()
    assert begun(deliver(bench, "2", redelivered=True)) == []
    assert begun(deliver(bench, "1", redelivered=True)) == []  # its handler goes on for it
    effects = bench.handled(first)
    assert begun(effects) == ["2"]
    assert only(Ack, effects).tag == 2


def test_a_handler_that_ends_without_a_link_ends_its_turn() -> None:
    bench = serial()
    first = take(bench, "1")
    deliver(bench, "2")
    bench.lose()
    assert begun(bench.handled(first)) == []
    bench.open()
    assert begun(deliver(bench, "2", redelivered=True)) == ["2"]


def test_a_message_of_a_batch_waits_for_its_own_handler_of_the_lost_link() -> None:
    bench = serial()
    first = take(bench, "1")
    bench.did(bench.machine.collected(first, bench.now))
    bench.lose()
    bench.open()
    assert begun(deliver(bench, "1", redelivered=True)) == []
    assert begun(bench.handled(first, DEFERRED)) == ["1"]


def test_what_waited_only_for_its_turn_has_no_turn_on_the_next_link() -> None:
    bench = serial(buffer=1)
    bench.publish()
    assert begun(deliver(bench, "1")) == []  # it has the turn, and waits for space
    bench.lose()
    bench.confirm(only(Publish, bench.open()))
    assert begun(deliver(bench, "2")) == ["2"]


@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans()), max_size=30), st.randoms(use_true_random=False))
def test_each_is_handled_once_alone_and_in_order(messages: list[tuple[str, bool]], random: Any) -> None:
    """Messages come and handlers end in any order."""
    bench = serial(retry=RetryPolicy(1))
    running: dict[DeliveryId, tuple[str, int]] = {}
    seen: list[tuple[str, int]] = []

    def note(effects: list[Effect]) -> None:
        for dispatch in of(Dispatch, effects):
            message = dispatch.message
            assert message.conversation_id not in {conversation for conversation, _ in running.values()}
            running[dispatch.delivery] = message.conversation_id, int(message.payload)
            seen.append((message.conversation_id, int(message.payload)))

    for number, (conversation, ends) in enumerate(messages):
        note(deliver(bench, str(number), conversation))
        if ends and running:
            ended = random.choice(sorted(running))
            del running[ended]
            note(bench.handled(ended, random.choice([DONE, FAILED, DEFERRED])))
    while running:
        ended = random.choice(sorted(running))
        del running[ended]
        note(bench.handled(ended))
    for each in "abc":
        expected = [number for number, (conversation, _) in enumerate(messages) if conversation == each]
        assert [number for conversation, number in seen if conversation == each] == expected
