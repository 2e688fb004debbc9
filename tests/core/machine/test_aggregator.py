"""Batches: when the callback is called, what is acknowledged together, and what a lost link does."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from pamqp.commands import Exchange, Queue

from eda_core import (
    CBOR,
    CONFIGURED,
    DEFERRED,
    DONE,
    Ack,
    Close,
    Config,
    DeliveryId,
    Dispatch,
    Effect,
    Epoch,
    Event,
    Failed,
    Limits,
    LocalError,
    Machine,
    Nack,
    Outcome,
    Publish,
    Report,
)
from eda_core.machine.aggregator import Collected
from tests.core.kit import seal
from tests.core.machine.batches import Batch

EPOCH = Epoch(1)


def an_open_machine() -> Machine:
    machine = Machine(
        Config.make("amqp://h/", "svc", ["Ticked"], prefetch=10), random=lambda: 0.0, token="t", wall_offset=0.0
    )
    machine.start(0.0)
    open_link(machine, EPOCH)
    return machine


def open_link(machine: Machine, epoch: Epoch) -> None:
    machine.link_up(epoch, 0.0)
    machine.declared(epoch, [*[Exchange.DeclareOk()] * 4, Queue.DeclareOk("svc.events", 0, 0)], 0.0)
    machine.declared(epoch, [], 0.0)


def deliver(machine: Machine, tag: int, epoch: Epoch = EPOCH) -> DeliveryId:
    message = seal(Event("Ticked", tag, "c"), CBOR, Limits())
    (dispatch,) = machine.delivered(
        epoch, tag, False, message.exchange, message.routing_key, message.properties, message.body, 0.0
    )
    assert isinstance(dispatch, Dispatch)
    return dispatch.delivery


def handle(machine: Machine, batch: Batch[int], tag: int, now: float, epoch: Epoch = EPOCH) -> list[object]:
    """Deliver a message, push it in its handler, and end the handler with a deferred acknowledgement."""
    delivery = deliver(machine, tag, epoch)
    return [*batch.push(machine, delivery, tag, now), *machine.handled(delivery, DEFERRED, now)]


def collector() -> tuple[list[list[int]], Callable[[Sequence[int]], None]]:
    got: list[list[int]] = []
    return got, lambda entries: got.append(list(entries))


def test_a_full_batch_is_handed_over_in_order_and_acknowledged() -> None:
    machine, (got, callback) = an_open_machine(), collector()
    batch = Batch(3, 60.0, callback)
    assert handle(machine, batch, 1, 0.0) == []
    assert handle(machine, batch, 2, 0.0) == []
    assert repr(batch) == "<Aggregator 2/3>"
    effects = handle(machine, batch, 3, 0.0)
    assert got == [[1, 2, 3]]
    acks = [(effect.tag, effect.multiple) for effect in effects if isinstance(effect, Ack)]
    assert acks == [(3, True)]
    assert len(batch) == 0
    assert batch.deadline() is None


def test_the_first_entry_sets_the_time() -> None:
    machine, (got, callback) = an_open_machine(), collector()
    batch = Batch(10, 5.0, callback)
    handle(machine, batch, 1, 100.0)
    handle(machine, batch, 2, 104.0)
    assert batch.deadline() == 105.0
    assert batch.tick(machine, 104.9) == []
    assert batch.tick(machine, 105.0) == [Ack(EPOCH, 2, True)]
    assert batch.tick(machine, 106.0) == []
    assert got == [[1, 2]]


def test_nothing_is_handed_over_from_an_empty_batch() -> None:
    machine, (got, callback) = an_open_machine(), collector()
    assert Batch(1, 1.0, callback).expire(machine, 0.0) == []
    assert got == []


def test_a_failing_callback_leaves_each_message_to_the_retry_policy() -> None:
    machine = an_open_machine()

    def fail(_entries: Sequence[int]) -> None:
        raise ValueError("no disk")

    batch = Batch(2, 60.0, fail)
    handle(machine, batch, 1, 0.0)
    effects = handle(machine, batch, 2, 0.0)
    assert [effect for effect in effects if isinstance(effect, Nack)] == [Nack(EPOCH, 1, True), Nack(EPOCH, 2, True)]
    assert "no disk" in repr(effects)


def test_messages_settled_by_the_callback_are_left_alone() -> None:
    machine = an_open_machine()
    effects: list[Effect] = []
    deliveries = [deliver(machine, tag) for tag in (1, 2, 3)]

    def settle(entries: Sequence[int]) -> None:
        effects.extend(machine.ack(deliveries[0], 0.0))
        effects.extend(machine.nack(deliveries[1], 0.0))

    batch: Batch[int] = Batch(10, 60.0, settle)
    for number, delivery in enumerate(deliveries):
        batch.push(machine, delivery, number, 0.0)
        machine.handled(delivery, DEFERRED, 0.0)
    effects += batch.expire(machine, 0.0)
    assert effects == [Ack(EPOCH, 1, False), Nack(EPOCH, 2, False), Ack(EPOCH, 3, False)]


def test_messages_settled_by_a_callback_that_fails_are_left_alone() -> None:
    machine = an_open_machine()
    effects: list[Effect] = []
    deliveries = [deliver(machine, tag) for tag in (1, 2)]

    def settle(entries: Sequence[int]) -> None:
        effects.extend(machine.ack(deliveries[0], 0.0))
        raise OSError("no disk")

    batch: Batch[int] = Batch(10, 60.0, settle)
    for number, delivery in enumerate(deliveries):
        batch.push(machine, delivery, number, 0.0)
        machine.handled(delivery, DEFERRED, 0.0)
    effects += batch.expire(machine, 0.0)
    assert [each for each in effects if isinstance(each, (Ack, Nack))] == [Ack(EPOCH, 1, False), Nack(EPOCH, 2, True)]


def test_messages_of_a_lost_link_do_not_fill_the_batch() -> None:
    machine, (got, callback) = an_open_machine(), collector()
    batch = Batch(2, 60.0, callback)
    handle(machine, batch, 1, 0.0)
    machine.link_down(EPOCH, "cut", 1.0)
    machine.tick(1.0)
    open_link(machine, Epoch(2))
    handle(machine, batch, 1, 5.0, Epoch(2))
    assert got == []
    assert batch.deadline() == 65.0
    handle(machine, batch, 2, 6.0, Epoch(2))
    assert got == [[1, 2]]


def test_what_the_callback_publishes_is_of_the_message_being_handled_or_one_whose_handler_is_over() -> None:
    machine, batch = an_open_machine(), Batch[str](9, 1.0, len)
    first, second, third = (deliver(machine, tag) for tag in (1, 2, 3))
    taken: list[Collected[str]] = [(None, "x"), (first, "x"), (second, "x"), (third, "x")]
    assert batch.publisher(machine, taken, second) == second
    assert batch.publisher(machine, taken, None) == first, "all run"
    machine.handled(third, DEFERRED, 0.0)
    assert batch.publisher(machine, taken, None) == third, "no failure of a handler drops what it publishes"
    assert batch.publisher(machine, taken, DeliveryId(7)) == third, "of another batch, or of none: not its business"
    assert batch.publisher(machine, taken[:1], third) is None, "what is acknowledged already waits for nothing"


def test_what_a_timer_hands_over_while_a_handler_goes_on_is_not_dropped_with_that_handler() -> None:
    machine, batch = an_open_machine(), Batch[str](9, 1.0, len)
    first, last = (deliver(machine, tag) for tag in (1, 2))
    for each in (first, last):
        batch.add(machine, each, "x", 0.0)
    machine.handled(first, DEFERRED, 0.0)
    taken = batch.take(machine)
    within = batch.publisher(machine, taken, None)
    (publish,) = machine.publish(Event("Counted", 2, "c"), 1.0, within=within)
    machine.handled(last, Failed("after the push"), 1.0)
    assert batch.settle(machine, taken, 1.0) == []
    assert isinstance(publish, Publish)
    assert machine.confirmed(EPOCH, publish.tag, 1.0) == [Ack(EPOCH, 1, False)]


def test_messages_of_a_lost_link_leave_the_batch() -> None:
    machine, (got, callback) = an_open_machine(), collector()
    batch = Batch(3, 60.0, callback)
    handle(machine, batch, 1, 0.0)
    machine.link_down(EPOCH, "cut", 1.0)
    machine.tick(1.0)
    open_link(machine, Epoch(2))
    assert batch.expire(machine, 2.0) == []
    assert got == []


def test_a_link_lost_while_the_batch_is_dealt_with_acknowledges_nothing() -> None:
    machine, (_, callback) = an_open_machine(), collector()
    batch = Batch(2, 60.0, callback)
    delivery = deliver(machine, 1)
    assert not batch.add(machine, delivery, 1, 0.0)
    machine.handled(delivery, DEFERRED, 0.0)
    taken = batch.take(machine)
    machine.link_down(EPOCH, "cut", 1.0)
    assert batch.settle(machine, taken, 2.0) == []


def end(machine: Machine, batch: Batch[int], tag: int, outcome: Outcome, epoch: Epoch = EPOCH) -> list[Effect]:
    """Deliver a message, add it, and end its handler with ``outcome``."""
    delivery = deliver(machine, tag, epoch)
    batch.add(machine, delivery, tag, 0.0)
    return machine.handled(delivery, batch.handled(machine, delivery, outcome, 0.0), 0.0)


def test_what_a_handler_does_not_defer_is_acknowledged_at_once_and_stays_in_the_batch() -> None:
    machine, (got, callback) = an_open_machine(), collector()
    batch = Batch(9, 60.0, callback)
    assert not batch.acknowledged
    assert end(machine, batch, 1, DONE) == [Ack(EPOCH, 1, False)]
    assert batch.acknowledged, "before it is handled"
    assert end(machine, batch, 2, DEFERRED) == []
    assert end(machine, batch, 3, DONE) == [Ack(EPOCH, 3, False)]
    assert batch.expire(machine, 1.0) == [Ack(EPOCH, 2, False)]
    assert got == [[1, 2, 3]]


def test_what_is_acknowledged_already_outlives_its_link() -> None:
    machine, (got, callback) = an_open_machine(), collector()
    batch = Batch(9, 60.0, callback)
    end(machine, batch, 1, DONE)
    end(machine, batch, 2, DEFERRED)
    late = deliver(machine, 3)
    batch.add(machine, late, 3, 0.0)
    machine.link_down(EPOCH, "cut", 1.0)
    batch.handled(machine, late, DONE, 1.0)  # acknowledged by nobody any more
    machine.tick(1.0)
    open_link(machine, Epoch(2))
    end(machine, batch, 1, DONE, Epoch(2))
    batch.expire(machine, 2.0)
    assert got == [[1, 1]], "the broker delivers 2 and 3 again"


def test_a_handler_of_a_lost_link_that_adds_late_drives_out_nothing() -> None:
    machine, (got, callback) = an_open_machine(), collector()
    batch = Batch(9, 60.0, callback)
    late = deliver(machine, 1)
    machine.link_down(EPOCH, "cut", 1.0)
    machine.tick(1.0)
    open_link(machine, Epoch(2))
    handle(machine, batch, 1, 2.0, Epoch(2))
    batch.push(machine, late, 1, 2.0)
    batch.handled(machine, late, DEFERRED, 2.0)
    machine.handled(late, DEFERRED, 2.0)
    assert batch.expire(machine, 3.0) == [Ack(Epoch(2), 1, False)]
    assert got == [[1]]


def test_what_a_handler_failed_with_leaves_the_batch() -> None:
    machine, (got, callback) = an_open_machine(), collector()
    batch = Batch(9, 60.0, callback)
    assert Nack(EPOCH, 1, True) in end(machine, batch, 1, Failed("no disk"))
    batch.handled(machine, deliver(machine, 2), DONE, 0.0)  # one that was never added
    assert batch.expire(machine, 1.0) == []
    assert got == []


def test_a_handler_that_ends_while_the_callback_runs_acknowledges_nothing() -> None:
    """Its message is acknowledged together with the others, and a stop waits for the callback."""
    machine = an_open_machine()
    batch: Batch[int] = Batch(9, 60.0, print)
    delivery = deliver(machine, 1)
    batch.add(machine, delivery, 1, 0.0)
    taken = batch.take(machine)
    assert machine.handled(delivery, batch.handled(machine, delivery, DONE, 1.0), 1.0) == []
    assert not any(isinstance(effect, Close) for effect in machine.stop(1.0))
    effects = batch.settle(machine, taken, 2.0)
    assert [type(effect) for effect in effects] == [Ack, Close]


def test_a_callback_that_fails_after_the_handlers_end_leaves_the_message_to_the_retry_policy() -> None:
    machine = an_open_machine()
    batch: Batch[int] = Batch(9, 60.0, print)
    delivery = deliver(machine, 1)
    batch.add(machine, delivery, 1, 0.0)
    taken = batch.take(machine)
    machine.handled(delivery, batch.handled(machine, delivery, DONE, 1.0), 1.0)
    effects = batch.settle(machine, taken, 2.0, OSError("no disk"))
    assert [effect for effect in effects if isinstance(effect, (Ack, Nack))] == [Nack(EPOCH, 1, True)]


@pytest.mark.parametrize("outcome", [DONE, DEFERRED, Failed("no disk")])
def test_a_handler_that_ends_after_the_callback_ends_as_it_says(outcome: Outcome) -> None:
    machine = an_open_machine()
    batch: Batch[int] = Batch(9, 60.0, print)
    delivery = deliver(machine, 1)
    batch.add(machine, delivery, 1, 0.0)
    batch.settle(machine, batch.take(machine), 1.0)
    assert batch.handled(machine, delivery, outcome, 2.0) is outcome


def test_a_handler_that_fails_while_the_callback_runs_has_failed() -> None:
    machine = an_open_machine()
    batch: Batch[int] = Batch(9, 60.0, print)
    delivery = deliver(machine, 1)
    batch.add(machine, delivery, 1, 0.0)
    batch.take(machine)
    failed = Failed("no disk")
    assert batch.handled(machine, delivery, failed, 1.0) is failed


def test_a_configuration_stays_in_the_batch_that_its_handler_adds_it_to() -> None:
    machine, (got, callback) = an_open_machine(), collector()
    batch = Batch(9, 60.0, callback)
    assert Ack(EPOCH, 1, False) in end(machine, batch, 1, CONFIGURED)
    batch.expire(machine, 1.0)
    assert got == [[1]]


@pytest.mark.parametrize("fails", [False, True])
def test_a_stop_waits_for_a_batch_of_acknowledged_messages(fails: bool) -> None:
    machine = an_open_machine()
    batch: Batch[int] = Batch(9, 60.0, lambda entries: entries[9 if fails else 0])
    end(machine, batch, 1, DONE)
    end(machine, batch, 2, DONE)
    assert not any(isinstance(effect, Close) for effect in machine.stop(1.0))
    assert isinstance(batch.expire(machine, 2.0)[-1], Close)


def test_a_failing_callback_tells_how_many_events_are_lost() -> None:
    machine = an_open_machine()

    def fail(_entries: Sequence[int]) -> None:
        raise ValueError("no disk")

    batch = Batch(9, 60.0, fail)
    end(machine, batch, 1, DONE)
    end(machine, batch, 2, DONE)
    end(machine, batch, 3, DEFERRED)
    effects = batch.expire(machine, 1.0)
    assert isinstance(effects[0], Report)
    assert "2 event(s) acknowledged before their batch failed are lost: ValueError: no disk" in effects[0].text
    assert [effect for effect in effects if isinstance(effect, Nack)] == [Nack(EPOCH, 3, True)]


@pytest.mark.parametrize(
    ("max_entries", "timeout"), [(0, 1.0), (-1, 1.0), (True, 1.0), (1, 0.0), (1, float("nan")), (1, "5")]
)
def test_a_batch_that_could_never_be_is_refused(max_entries: int, timeout: Any) -> None:
    with pytest.raises(LocalError, match=r"max_entries|timeout"):
        Batch(max_entries, timeout, print)
