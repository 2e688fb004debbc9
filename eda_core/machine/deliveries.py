"""The life of a delivery, as a table; and what each stage is for: handlers, retries, dead letters, settling by hand.

``TABLE`` decides which stage follows which, and the code does only what it says. A cell is the next stage, ``IGNORE``
(nothing changes; the report is about something that is over) or ``ILLEGAL`` (a wrong local call, or an input that
cannot come: refused, nothing changes). This module knows nothing of the life of the link; it is told when a link is
lost.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import Any, Final, NoReturn

from pamqp.commands import Basic

from eda_core.criticality import ALERT, EMERGENCY
from eda_core.errors import BufferFull, LocalError
from eda_core.machine.attempts import AttemptMemory, fallback_key
from eda_core.machine.config import Config
from eda_core.machine.effects import Dispatch, Effect, Nack, Publish, Report
from eda_core.machine.identifiers import TAG_BITS, DeliveryId, Epoch, PublishId
from eda_core.machine.in_flight import Delivery, Group, InFlight
from eda_core.machine.logs import Logs
from eda_core.machine.outbox import Outbox
from eda_core.machine.outcomes import DONE, Configured, Deferred, Failed, Outcome
from eda_core.machine.retry import again, attempts_behind, retry_queue
from eda_core.messages.envelope import InvalidEnvelope
from eda_core.messages.routing import COMMANDS, EVENTS
from eda_core.messages.values import AnyMessage, Command, Configuration, LogRecord, Result

# Stages: its handler runs
RUNNING: Final = "running"  # its handler runs
RUNNING_ACKED: Final = "running, acked"  # … and has acknowledged it by hand
RUNNING_REJECTED: Final = "running, rejected"  # … and has rejected it by hand
RUNNING_REQUEUED: Final = "running, requeued"  # … and has given it back by hand
RUNNING_FAILED: Final = "running, failed"  # … and it will count as failed, however its handler ends
RUNNING_GROUPED: Final = "running, in a group"  # … and it will be acknowledged together with others
# Its handler does not run
PAUSED: Final = "paused"  # its handler waits for space in the outbox
DEFERRED: Final = "deferred"  # its handler has succeeded, and will acknowledge it later
FAILING: Final = "failing"  # it has failed; the retry policy is asked
ACKING: Final = "acking"  # it is acknowledged when its publishes are confirmed
ACKING_GROUPED: Final = "acking, in a group"  # … and when all others of its group can be
READY_GROUPED: Final = "ready, in a group"  # its publishes are confirmed, some of others in its group are not
REJECTING: Final = "rejecting"  # it is rejected when its publishes are confirmed
# It is over
ACKED: Final = "acked"  # acknowledged
REJECTED: Final = "rejected"  # rejected: dead-lettered
REQUEUED: Final = "requeued"  # given back to its queue
ORPHANED: Final = "orphaned"  # its link is lost, its handler still runs
LOST: Final = "lost"  # its link is lost: the broker delivers it again

_RUNNING: Final = (
    RUNNING,
    RUNNING_ACKED,
    RUNNING_REJECTED,
    RUNNING_REQUEUED,
    RUNNING_FAILED,
    RUNNING_GROUPED,
)
_WAITING: Final = (PAUSED, DEFERRED, FAILING, ACKING, ACKING_GROUPED, READY_GROUPED, REJECTING)
_OVER: Final = (ACKED, REJECTED, REQUEUED, ORPHANED, LOST)
STAGES: Final = (*_RUNNING, *_WAITING, *_OVER)

# Inputs: from the handler
SPACE: Final = "space"  # the outbox has space for what its handler may publish
SUCCEEDED: Final = "succeeded"  # its handler has succeeded
DEFERS: Final = "defers"  # its handler has succeeded, and acknowledges by hand
FAILED: Final = "failed"  # its handler has failed
# … by hand, or by its batch
ACK: Final = "ack"  # acknowledge it
REJECT: Final = "reject"  # dead-letter it
REQUEUE: Final = "requeue"  # give it back to its queue
FAIL: Final = "fail"  # count it as failed
GROUP: Final = "group"  # acknowledge it together with others
# … from the retry policy
RETRY: Final = "retry"  # try it again at once
RETRY_LATER: Final = "retry later"  # a copy was published that comes back after a delay
GIVE_UP: Final = "give up"  # dead-letter it
# … from the broker and the service
CONFIRMED: Final = "confirmed"  # all its publishes are confirmed
GROUP_CONFIRMED: Final = "group confirmed"  # so are those of all others in its group
GROUP_FAILED: Final = "group failed"  # another one has failed with what was published for the group
LINK_LOST: Final = "link lost"  # its link is lost, or was closed at the end of a stop
STOP: Final = "stop"  # the service takes no new work

INPUTS: Final = (
    *(SPACE, SUCCEEDED, DEFERS, FAILED),
    *(ACK, REJECT, REQUEUE, FAIL, GROUP),
    *(RETRY, RETRY_LATER, GIVE_UP),
    *(CONFIRMED, GROUP_CONFIRMED, GROUP_FAILED, LINK_LOST, STOP),
)

IGNORE: Final = "ignore"
ILLEGAL: Final = "illegal"

# What rows have in common
_NO_HANDLER: Final = dict.fromkeys((SUCCEEDED, DEFERS, FAILED), IGNORE)  # the end of a handler was reported before
_SETTLED: Final = dict.fromkeys((ACK, REJECT, REQUEUE, FAIL, GROUP), ILLEGAL)  # or it is about to be
_GONE: Final = dict.fromkeys((ACK, REJECT, REQUEUE, FAIL, GROUP), IGNORE)  # the broker delivers it again
_NO_POLICY: Final = dict.fromkeys((RETRY, RETRY_LATER, GIVE_UP), ILLEGAL)  # only asked about what is failing
_NO_GROUP: Final = dict.fromkeys((GROUP_CONFIRMED, GROUP_FAILED), ILLEGAL)
#: A handler runs; its publishes may be confirmed, and a stop lets it finish.
_RUNS: Final = {
    SPACE: ILLEGAL,
    **_SETTLED,
    **_NO_POLICY,
    **_NO_GROUP,
    CONFIRMED: IGNORE,
    LINK_LOST: ORPHANED,
    STOP: IGNORE,
}
#: No handler runs; a stop waits for the confirms.
_WAITS: Final = {
    SPACE: ILLEGAL,
    **_NO_HANDLER,
    **_SETTLED,
    **_NO_POLICY,
    **_NO_GROUP,
    CONFIRMED: ILLEGAL,
    LINK_LOST: LOST,
    STOP: IGNORE,
}
_IS_OVER: Final = {
    SPACE: ILLEGAL,
    **_NO_HANDLER,
    **_SETTLED,
    **_NO_POLICY,
    **_NO_GROUP,
    CONFIRMED: ILLEGAL,
    LINK_LOST: IGNORE,
    STOP: IGNORE,
}

TABLE: Final[dict[str, dict[str, str]]] = {
    RUNNING: {
        **_RUNS,
        SUCCEEDED: ACKING,
        DEFERS: DEFERRED,
        FAILED: FAILING,
        ACK: RUNNING_ACKED,
        REJECT: RUNNING_REJECTED,
        REQUEUE: RUNNING_REQUEUED,
        FAIL: RUNNING_FAILED,
        GROUP: RUNNING_GROUPED,
    },
    RUNNING_ACKED: {**_RUNS, SUCCEEDED: ACKING, DEFERS: ACKING, FAILED: FAILING},
    RUNNING_REJECTED: {**_RUNS, SUCCEEDED: REJECTING, DEFERS: REJECTING, FAILED: FAILING},
    RUNNING_REQUEUED: {**_RUNS, SUCCEEDED: REQUEUED, DEFERS: REQUEUED, FAILED: FAILING},
    RUNNING_FAILED: {**_RUNS, SUCCEEDED: FAILING, DEFERS: FAILING, FAILED: FAILING},
    RUNNING_GROUPED: {
        **_RUNS,
        SUCCEEDED: ACKING_GROUPED,
        DEFERS: ACKING_GROUPED,
        FAILED: FAILING,
        GROUP_FAILED: RUNNING_FAILED,
    },
    PAUSED: {**_WAITS, SPACE: RUNNING, STOP: REQUEUED},
    DEFERRED: {
        **_WAITS,
        ACK: ACKING,
        REJECT: REJECTING,
        REQUEUE: REQUEUED,
        FAIL: FAILING,
        GROUP: ACKING_GROUPED,
        CONFIRMED: IGNORE,
    },
    FAILING: {**_WAITS, RETRY: REQUEUED, RETRY_LATER: ACKING, GIVE_UP: REJECTING},
    ACKING: {**_WAITS, CONFIRMED: ACKED},
    ACKING_GROUPED: {**_WAITS, CONFIRMED: READY_GROUPED, GROUP_FAILED: FAILING},
    READY_GROUPED: {**_WAITS, GROUP_CONFIRMED: ACKED, GROUP_FAILED: FAILING},
    REJECTING: {**_WAITS, CONFIRMED: REJECTED},
    ACKED: _IS_OVER,
    REJECTED: _IS_OVER,
    REQUEUED: _IS_OVER,
    ORPHANED: {**_IS_OVER, **_GONE, SUCCEEDED: LOST, DEFERS: LOST, FAILED: LOST},
    LOST: {**_IS_OVER, **_GONE},
}

#: The handler runs, and holds what it publishes.
HOLDING: Final = frozenset(_RUNNING)
#: What is published for the delivery is waited for before it is acknowledged.
_AWAITING: Final = HOLDING | {DEFERRED}
#: The stages in which a delivery may still be settled by hand.
_UNDECIDED: Final = (RUNNING, DEFERRED)
#: The stages that last until the publishes are confirmed.
_CONFIRMING: Final = frozenset((ACKING, ACKING_GROUPED, REJECTING))

#: Reads a delivery as a message: exchange, routing key, properties, body, limits.
Read = Callable[[str, str, Basic.Properties, bytes, Any], AnyMessage]


class Deliveries:
    """The deliveries of one service that are not settled.

    Attributes:
        in_flight: those of the present link.
        paused: those whose handlers wait for space in the outbox.
        stale: how many reports about deliveries that are over were ignored.
    """

    __slots__ = (
        "_config",
        "_logs",
        "_memory",
        "_orphans",
        "_outbox",
        "_over",
        "_queues",
        "_read",
        "in_flight",
        "paused",
        "stale",
    )

    def __init__(self, config: Config, outbox: Outbox, logs: Logs, read: Read) -> None:
        self._config = config
        self._outbox = outbox
        self._logs = logs
        self._read = read
        self._memory = AttemptMemory(4096 + 2 * config.prefetch)  # events and commands, should the link be lost
        #: Deliveries of lost links whose handlers still run.
        self._orphans: set[DeliveryId] = set()
        self.paused: deque[Delivery] = deque()
        self._queues: Mapping[str, str] = {}
        self._over = False
        self.in_flight = InFlight(Epoch(1))
        self.stale: int = 0

    def busy(self) -> bool:
        """Whether a stop has to wait for a delivery or its handler."""
        return bool(self.in_flight.by_id or self._orphans)

    # From the broker

    def delivered(
        self,
        epoch: Epoch,
        tag: int,
        redelivered: bool,
        exchange: str,
        routing_key: str,
        properties: Basic.Properties,
        body: bytes,
        now: float,
    ) -> list[Effect]:
        """A message of a subscription was delivered on the present link."""
        try:
            message = self._read(exchange, routing_key, properties, body, self._config.limits)
        except InvalidEnvelope as invalid:
            return self.reject_invalid(epoch, tag, exchange, routing_key, invalid, now)
        key = properties.message_id or fallback_key(routing_key, properties, body)
        attempt = 1 if exchange else attempts_behind(properties.headers or {}) + 1
        if redelivered:
            attempt = max(attempt, self._attempt(key, properties))
        number: DeliveryId = epoch << TAG_BITS | tag  # type: ignore[assignment]  # delivery_id() without a call
        message.meta["delivery_tag"] = number
        delivery = Delivery(number, tag, message, properties, body, key, attempt, [], RUNNING)
        self.in_flight.by_id[number] = delivery
        outbox = self._outbox
        if self.paused or outbox.kept >= outbox.limit:
            outbox.wanted = True
            delivery.stage = PAUSED
            self.paused.append(delivery)
            return []
        return [Dispatch(number, message)]

    def reject_invalid(
        self, epoch: Epoch, tag: int, exchange: str, routing_key: str, invalid: InvalidEnvelope, now: float
    ) -> list[Effect]:
        """Dead-letter what is no message (docs/architecture.rst, "Invalid messages")."""
        text = f"invalid message {exchange}/{routing_key}: {invalid}: dead-lettered"
        effects: list[Effect] = [Report(EMERGENCY, text)]
        fields = {"outcome": "dead-letter", "routing_key": routing_key}
        self._logs.write(EMERGENCY, text, now, effects, conversation_id=invalid.conversation_id, fields=fields)
        effects.append(Nack(epoch, tag, False))
        return effects

    def _attempt(self, key: Hashable, properties: Basic.Properties) -> int:
        """Which attempt a redelivery is, as far as its own header does not tell."""
        if self._config.retry.delays:  # attempts are counted in that header, lost links are not
            return self._memory.failures(key) + 1
        return self._memory.attempt(key, properties.headers or {})

    def confirmed(self, number: DeliveryId, now: float, effects: list[Effect]) -> None:
        """One publish of this delivery is confirmed, or is not sent any more."""
        delivery = self.in_flight.by_id.get(number)
        if delivery is not None:
            delivery.unconfirmed -= 1
            if not delivery.unconfirmed:
                stage = TABLE[delivery.stage][CONFIRMED]
                if stage is not IGNORE:
                    self._enter(delivery, stage, now, effects)

    # From the handler

    def find(self, number: DeliveryId | None) -> Delivery | None:
        """The delivery, if it is on the present link and not settled."""
        return None if number is None else self.in_flight.by_id.get(number)

    def is_orphaned(self, number: DeliveryId | None) -> bool:
        """Whether its link is lost while its handler runs."""
        return number in self._orphans

    def is_undecided(self, number: DeliveryId) -> bool:
        """Whether it can still be settled by hand."""
        delivery = self.in_flight.by_id.get(number)
        return delivery is not None and delivery.stage in _UNDECIDED

    def is_deferred(self, number: DeliveryId) -> bool:
        """Whether its handler is over and has left the acknowledgement for later."""
        delivery = self.in_flight.by_id.get(number)
        return delivery is not None and delivery.stage is DEFERRED

    def refuse_held(self, delivery: Delivery) -> NoReturn:
        """Its handler may not publish one more message.

        Raises:
            BufferFull: always.
        """
        raise BufferFull(
            f"the handler of {delivery.message.name} holds {len(delivery.held)} publishes until it ends, the limit",
            hint="publish less in one handler, or with immediate=True",
            temporary=False,
        )

    def has_credit(self, delivery: Delivery | None) -> bool:
        """Whether its handler may send one more message at once although the outbox is full."""
        return delivery is not None and delivery.stage in _AWAITING and delivery.unconfirmed < self._config.held

    def await_confirm(self, delivery: Delivery | None, publish: Publish) -> None:
        """Let the acknowledgement of the delivery wait for a publish, if it still can."""
        if delivery is not None and delivery.stage in _AWAITING:
            delivery.unconfirmed += 1
        else:
            publish.delivery = None

    def handled(self, number: DeliveryId, outcome: Outcome, now: float, effects: list[Effect]) -> bool:
        """A handler has come to its end. Returns whether it has configured the service."""
        delivery = self.in_flight.by_id.get(number)
        if delivery is None:
            self.stale += 1
            self._orphans.discard(number)
            return False
        configures = False
        if outcome is DONE:  # as nearly all are
            signal = SUCCEEDED
        elif isinstance(outcome, Failed):
            signal = FAILED
        else:
            signal = DEFERS if isinstance(outcome, Deferred) else SUCCEEDED
            configures = isinstance(outcome, Configured)
        stage = TABLE[delivery.stage][signal]
        if stage is IGNORE:
            self.stale += 1
            return False
        if signal is FAILED and delivery.failure is None:
            delivery.failure = outcome  # type: ignore[assignment]  # signal says that it is Failed
        held = delivery.held
        if held and stage is not FAILING and stage is not REQUEUED:
            outbox, count = self._outbox, len(held)
            outbox.backlog.extend(held)
            outbox.kept += count
            delivery.unconfirmed += count
            delivery.held = []
            delivery.stage = stage  # and it waits, since nothing of that is confirmed
        else:
            self._enter(delivery, stage, now, effects)
        return configures

    # By hand

    def settle(self, number: DeliveryId, signal: str, multiple: bool, now: float, effects: list[Effect]) -> None:
        """Settle a delivery by hand; with ``multiple`` also all earlier ones that are deferred.

        Raises:
            LocalError: it is no delivery of this service, or it is settled already.
        """
        delivery = self.in_flight.by_id.get(number) if type(number) is int else None
        cell = TABLE[self._stage_of_gone(number) if delivery is None else delivery.stage][signal]
        if cell is ILLEGAL:
            raise LocalError(f"delivery {number} is settled already", hint="acknowledge or reject each message once")
        if cell is IGNORE or delivery is None:
            self.stale += 1
            return
        found = [delivery]
        if multiple:
            found = [each for each in self.in_flight if each.id < number and each.stage is DEFERRED] + found
        for each in found:
            self._step(each, signal, now, effects)

    def fail(self, number: DeliveryId, failure: Failed, now: float, effects: list[Effect]) -> None:
        """Count a delivery as failed whose acknowledgement was deferred, or is as soon as its handler ends.

        Raises:
            LocalError: as :meth:`settle`.
        """
        delivery = self.in_flight.by_id.get(number)
        if delivery is not None and delivery.stage in _UNDECIDED:
            delivery.failure = failure
        self.settle(number, FAIL, False, now, effects)

    def ack_together(self, numbers: Iterable[DeliveryId], now: float, effects: list[Effect]) -> None:
        """Acknowledge those that are undecided, none before all publishes of all of them are confirmed."""
        distinct = dict.fromkeys(filter(self.is_undecided, numbers))
        members = [self.in_flight.by_id[number] for number in distinct]
        group = Group(members.copy(), len(members))
        for delivery in members:
            delivery.group = group
        for delivery in members:
            self._step(delivery, GROUP, now, effects)

    def _stage_of_gone(self, number: DeliveryId) -> str:
        """The stage of a delivery that is over.

        Raises:
            LocalError: it never was one.
        """
        epoch = number >> TAG_BITS if type(number) is int else 0
        if not 0 < epoch <= self.in_flight.epoch:
            raise LocalError(f"{number!r} is not a delivery tag", hint='pass meta["delivery_tag"] as it is')
        return LOST if epoch != self.in_flight.epoch or self._over else ACKED

    # From the service

    def opened(self, queues: Mapping[str, str]) -> None:
        """The link is open, with these queues by consumer tag."""
        self._queues = queues

    def resume(self, effects: list[Effect]) -> None:
        """Run handlers that wait for space in the outbox, as far as there is any."""
        outbox = self._outbox
        while self.paused and outbox.kept < outbox.limit:
            delivery = self.paused.popleft()
            delivery.stage = TABLE[delivery.stage][SPACE]
            effects.append(Dispatch(delivery.id, delivery.message))

    def stop(self, now: float, effects: list[Effect]) -> None:
        """Take no new work: give back what no handler has seen."""
        self.paused.clear()
        for delivery in list(self.in_flight):
            self._step(delivery, STOP, now, effects)

    def lose_link(self, epoch: Epoch, *, over: bool = False) -> None:
        """The link is lost, and with it every delivery.

        Args:
            epoch: of the next link.
            over: there will be none.
        """
        for delivery in self.in_flight:
            self._memory.remember(delivery.key, delivery.attempt - 1, lost=True)
            if TABLE[delivery.stage][LINK_LOST] is ORPHANED:
                self._orphans.add(delivery.id)
        self.paused.clear()
        self._over = over
        self.in_flight = InFlight(epoch)

    # Steps

    def _step(self, delivery: Delivery, signal: str, now: float, effects: list[Effect]) -> None:
        """Go to where the table leads."""
        stage = TABLE[delivery.stage][signal]
        if stage is ILLEGAL:
            raise AssertionError(f"{signal!r} cannot come while a delivery is {delivery.stage}")
        if stage is not IGNORE:
            self._enter(delivery, stage, now, effects)

    def _enter(self, delivery: Delivery, stage: str, now: float, effects: list[Effect]) -> None:
        """Do what a stage is for."""
        before, delivery.stage = delivery.stage, stage
        if stage is ACKED:
            if self._memory.known:
                self._memory.forget(delivery.key)
            in_flight = self.in_flight
            del in_flight.by_id[delivery.id]
            in_flight.to_ack.append(delivery.tag)
        elif stage in _CONFIRMING:
            if not delivery.unconfirmed:
                self._step(delivery, CONFIRMED, now, effects)
        elif stage is REQUEUED or stage is REJECTED:
            self._return(delivery, before, effects)
        elif stage is FAILING:
            self._failed(delivery, now, effects)
        elif stage is READY_GROUPED and delivery.group is not None:
            self._one_less(delivery.group, now, effects)

    def _return(self, delivery: Delivery, before: str, effects: list[Effect]) -> None:
        """Give it back to its queue, or dead-letter it. What its handler held is forgotten."""
        requeue = delivery.stage is REQUEUED
        del self.in_flight.by_id[delivery.id]
        if before is PAUSED:
            self._memory.remember(delivery.key, delivery.attempt - 1, lost=True)
        elif requeue:
            self._memory.remember(delivery.key, delivery.attempt)
        else:
            self._memory.forget(delivery.key)
        effects.append(Nack(self.in_flight.epoch, delivery.tag, requeue))

    # Groups

    def _one_less(self, group: Group, now: float, effects: list[Effect]) -> None:
        """One more of a group need not be waited for."""
        group.missing -= 1
        if not group.missing:
            for delivery in group.members:
                self._step(delivery, GROUP_CONFIRMED, now, effects)

    def _leave_group(self, delivery: Delivery, group: Group, now: float, effects: list[Effect]) -> None:
        """It has failed. What it published may be for all of the group: if that is not safe, all fail with it."""
        delivery.group = None
        group.members.remove(delivery)
        if not delivery.held and not delivery.unconfirmed:
            self._one_less(group, now, effects)
            return
        for each in group.members:
            each.group, each.failure = None, delivery.failure
            self._step(each, GROUP_FAILED, now, effects)

    # Failures

    def _failed(self, delivery: Delivery, now: float, effects: list[Effect]) -> None:
        """Ask the retry policy, and report what it says."""
        if delivery.group is not None:
            self._leave_group(delivery, delivery.group, now, effects)
        delivery.held = []  # a failure publishes nothing
        failure, retry, name = delivery.failure, self._config.retry, delivery.message.name
        assert failure is not None
        gives_up = failure.permanent or retry.gives_up(delivery.attempt)
        fields = {
            "outcome": "dead-letter" if gives_up else "retry",
            "routing_key": name,
            "attempt": delivery.attempt,
        }
        self._report(failure.level, f"{name}: {failure.reason}", delivery, fields, now, effects)
        if gives_up:
            text = f"giving up on {name} after {delivery.attempt} attempt(s): dead-lettered"
            self._report(EMERGENCY, text, delivery, fields, now, effects)
            self._step(delivery, GIVE_UP, now, effects)
        elif self._publish_again(delivery):
            self._step(delivery, RETRY_LATER, now, effects)
        else:
            self._step(delivery, RETRY, now, effects)

    def _publish_again(self, delivery: Delivery) -> bool:
        """Publish it by way of its retry queue, if the policy has delays; it is acknowledged on the confirm."""
        retry, message = self._config.retry, delivery.message
        delay = retry.delay(delivery.attempt)
        exchange = COMMANDS if isinstance(message, (Command, Result)) else EVENTS
        queue = self._queues.get(exchange)
        if not delay or not queue or self._config.exclusive_queues or isinstance(message, (Configuration, LogRecord)):
            return False
        properties = again(delivery.properties, exchange, message.name, delivery.attempt)
        if properties is None:
            return False
        outbox = self._outbox
        outbox.kept += 1  # in the place of its source, whatever the limit
        outbox.published += 1
        delivery.unconfirmed += 1
        outbox.backlog.append(
            Publish(
                PublishId(outbox.published),
                exchange="",
                routing_key=retry_queue(queue, delay),
                properties=properties,
                body=delivery.body,
                mandatory=True,
                delivery=delivery.id,
                kept=False,
            )
        )
        return True

    def _report(
        self,
        level: int,
        text: str,
        delivery: Delivery,
        fields: Mapping[str, Any],
        now: float,
        effects: list[Effect],
    ) -> None:
        """To the bus and to the local log."""
        full = delivery.failure.detail if delivery.failure is not None else ""
        effects.append(Report(level, f"{text}\n{full}" if full and level == ALERT else text))
        conversation = delivery.message.conversation_id
        self._logs.write(level, text, now, effects, full=full, conversation_id=conversation, fields=fields)
