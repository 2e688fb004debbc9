"""Receiving: deliveries, what their handlers come to, retries and dead letters. The middle part of the machine."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import Any

from pamqp.commands import Basic

from eda_core.criticality import ALERT, EMERGENCY
from eda_core.errors import LocalError
from eda_core.machine import link
from eda_core.machine.attempts import AttemptMemory, message_key
from eda_core.machine.config import Config
from eda_core.machine.connection import SERVING, LinkKeeper
from eda_core.machine.effects import (
    Ack,
    Consume,
    Dispatch,
    Effect,
    Nack,
    Publish,
    Ready,
    Report,
    Room,
    Settled,
    Unconfigured,
)
from eda_core.machine.identifiers import TAG_BITS, DeliveryId, Epoch, PublishId
from eda_core.machine.in_flight import ACK, DEFERRED, REJECT, REQUEUE, RUNNING, WAITING, Delivery, Group, InFlight
from eda_core.machine.link import DRAINING
from eda_core.machine.logs import LogBook
from eda_core.machine.outbox import Outbox
from eda_core.machine.outcomes import DONE, Configured, Deferred, Failed, Outcome
from eda_core.machine.retry import again, attempts_behind, retry_queue
from eda_core.machine.topology import REPLIES
from eda_core.messages.envelope import InvalidEnvelope, open_envelope
from eda_core.messages.routing import COMMANDS, CONFIGURATIONS, EVENTS
from eda_core.messages.values import AnyMessage, Command, Configuration, LogRecord, Result


class Receiver(LinkKeeper):
    """What a service does with the messages it gets."""

    __slots__ = ("_configured", "_flight", "_logs", "_memory", "_orphans", "_outbox", "_published", "_reply_key")

    def __init__(self, config: Config, random: Callable[[], float], logs: LogBook) -> None:
        super().__init__(config, random)
        self._logs = logs
        self._flight = InFlight(self.epoch)
        self._outbox = Outbox(config.window, config.buffer)
        self._memory = AttemptMemory(4096 + 2 * config.prefetch)  # events and commands, should the link be lost
        #: Deliveries of lost links whose handlers still run.
        self._orphans: set[DeliveryId] = set()
        self._configured = False
        self._published = 0
        #: The routing key of the results that callers of this worker wait for.
        self._reply_key: str | None = None

    @abstractmethod
    def _replied(self, message: AnyMessage, now: float, effects: list[Effect]) -> None:
        """A message came to the queue for the results of calls."""

    # Inputs

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
        """A message from a consumer of this link. ``tag`` is the broker's delivery tag."""
        if epoch != self.epoch or self.state not in SERVING or not self._flight.seen(tag):
            self._ignore()
            return []
        for_caller = routing_key == self._reply_key
        if self.state is DRAINING and not for_caller:  # crossed our cancel: somebody else's work
            return [Nack(epoch, tag, True)]
        self._delivered_any = True
        try:
            message = open_envelope(exchange, routing_key, properties, body, self.config.limits)
        except InvalidEnvelope as invalid:
            return self._reject(epoch, tag, f"{exchange}/{routing_key}", invalid, now)
        if for_caller:
            effects: list[Effect] = [Ack(epoch, tag, False)]
            self._replied(message, now, effects)
            return effects
        key = properties.message_id or message_key(routing_key, properties, body)
        attempt = 1 if exchange else attempts_behind(properties.headers or {}) + 1
        if redelivered:
            attempt = max(attempt, self._attempt(key, properties))
        number: DeliveryId = epoch << TAG_BITS | tag  # type: ignore[assignment]  # delivery_id() without a call
        message.meta["delivery_tag"] = number
        self._flight.by_id[number] = Delivery(number, tag, message, properties, body, key, attempt, [])
        return [Dispatch(number, message)]

    def _attempt(self, key: Hashable, properties: Basic.Properties) -> int:
        """Which attempt a redelivery is, as far as its own header does not tell."""
        if self.config.retry.delays:  # attempts are counted in that header, lost links are not
            return self._memory.failures(key) + 1
        return self._memory.attempt(key, properties.headers or {})

    def in_flight(self, delivery: DeliveryId) -> bool:
        """Whether the delivery is on the present link, and neither settled nor to be settled."""
        found = self._flight.by_id.get(delivery)
        return found is not None and found.verdict is None and found.stage is not WAITING

    def deferred(self, delivery: DeliveryId) -> bool:
        """Whether its handler is over and has left the acknowledgement for later: what is published within it is sent
        at once, and no failure can take it back."""
        found = self._flight.by_id.get(delivery)
        return found is not None and found.stage is DEFERRED

    def failed(self, delivery: DeliveryId, failure: Failed, now: float) -> list[Effect]:
        """A message whose acknowledgement was deferred has failed after all: the retry policy decides.

        Raises:
            LocalError: as :meth:`ack`.
        """
        effects: list[Effect] = []
        for found in self._by_hand(delivery, False):
            if found.stage is RUNNING:
                found.verdict = failure
            else:
                self._failed(found, failure, now, effects)
        self._move(now, effects)
        return effects

    def handled(self, delivery: DeliveryId, outcome: Outcome, now: float) -> list[Effect]:
        """The handler of a ``Dispatch`` has come to its end."""
        effects: list[Effect] = []
        found = self._flight.by_id.get(delivery)
        if found is None or found.stage is not RUNNING:
            self._ignore()
            self._orphans.discard(delivery)
            self._move(now, effects)
            return effects
        if isinstance(found.verdict, Failed):
            outcome = found.verdict
        if outcome is DONE:  # as nearly all are
            self._release(found, False, effects)
        elif isinstance(outcome, Failed):
            self._failed(found, outcome, now, effects)
        else:
            self._release(found, isinstance(outcome, Deferred), effects)
            if isinstance(outcome, Configured):
                self._now_configured(effects)
        self._move(now, effects)
        return effects

    def ack(self, delivery: DeliveryId, now: float, *, multiple: bool = False) -> list[Effect]:
        """Acknowledge by hand: at once if all publishes of the delivery are confirmed, else as soon as they are.

        Args:
            multiple: also all earlier deliveries of the link whose handlers have deferred their acknowledgement.

        Raises:
            LocalError: this delivery of the present link is settled already. (One of a lost link is ignored: it will be
                redelivered.)
        """
        effects: list[Effect] = []
        for found in self._by_hand(delivery, multiple):
            self._judge(found, ACK, effects)
        self._move(now, effects)
        return effects

    def nack(self, delivery: DeliveryId, now: float, *, requeue: bool = False, multiple: bool = False) -> list[Effect]:
        """Reject by hand: back to the queue, or, once the publishes of the delivery are confirmed, to the dead letters.

        Back to the queue counts as an attempt: nothing else can be seen of it where it is delivered again.

        Raises:
            LocalError: as :meth:`ack`.
        """
        effects: list[Effect] = []
        for found in self._by_hand(delivery, multiple):
            self._judge(found, REQUEUE if requeue else REJECT, effects)
        self._move(now, effects)
        return effects

    def ack_together(self, deliveries: Iterable[DeliveryId], now: float) -> list[Effect]:
        """Acknowledge those that are :meth:`in_flight`, none before all publishes of all of them are confirmed.

        If the handler of one still runs, and fails before what it has published is confirmed, all fail.
        """
        effects: list[Effect] = []
        distinct = dict.fromkeys(filter(self.in_flight, deliveries))
        found = [each for each in map(self._flight.by_id.get, distinct) if each is not None]
        group = Group(found, len(found))
        for delivery in found:
            delivery.group = group
        for delivery in found:
            self._judge(delivery, ACK, effects)
        self._move(now, effects)
        return effects

    # Deliveries

    def _release(self, delivery: Delivery, deferred: bool, effects: list[Effect]) -> None:
        """The handler succeeded: publish what it held."""
        if delivery.verdict is REQUEUE:  # its redelivery makes them again
            self._return(delivery, True, effects)
            return
        held = delivery.held
        if held:
            self._outbox.backlog.extend(held)
            delivery.unconfirmed += len(held)
            delivery.held = []
        if deferred and delivery.verdict is None:
            delivery.stage = DEFERRED
        elif held:  # just sent: not confirmed for sure
            delivery.stage = WAITING
        else:
            self._wait(delivery, effects)

    def _judge(self, delivery: Delivery, verdict: str, effects: list[Effect]) -> None:
        """Settled by hand; while the handler runs the verdict waits for it."""
        delivery.verdict = verdict
        if delivery.stage is not RUNNING:
            if verdict is REQUEUE:
                self._return(delivery, True, effects)
            else:
                self._wait(delivery, effects)

    def _wait(self, delivery: Delivery, effects: list[Effect]) -> None:
        """Settle it as soon as all its publishes are confirmed (invariant I1)."""
        delivery.stage = WAITING
        if not delivery.unconfirmed:
            self._complete(delivery, effects)

    def _complete(self, delivery: Delivery, effects: list[Effect]) -> None:
        """Nothing is left to wait for."""
        if delivery.verdict is REJECT:
            self._return(delivery, False, effects)
        elif delivery.group is None:
            self._memory.forget(delivery.key)
            self._flight.acknowledge(delivery)
        else:
            delivery.group.ready.append(delivery)
            self._leave_group(delivery.group)

    def _leave_group(self, group: Group) -> None:
        for ready in group.one_less():
            self._memory.forget(ready.key)
            self._flight.acknowledge(ready)

    def _fail_in_group(
        self, group: Group, delivery: Delivery, outcome: Failed, now: float, effects: list[Effect]
    ) -> None:
        """It is not waited for; but what it published may be for all of them: if that is not safe all fail with it."""
        delivery.group = None
        group.members.remove(delivery)
        if not delivery.held and not delivery.unconfirmed:
            self._leave_group(group)
            return
        for each in group.members:
            each.group = None
            if each.stage is RUNNING:
                each.verdict = outcome
            else:
                each.verdict, each.stage = None, DEFERRED
                self._failed(each, outcome, now, effects)

    def _return(self, delivery: Delivery, requeue: bool, effects: list[Effect]) -> None:
        self._outbox.kept -= len(delivery.held)
        delivery.held = []  # forgotten: a failure publishes nothing, a redelivery makes them again
        self._flight.remove(delivery)
        if requeue:
            self._memory.remember(delivery.key, delivery.attempt)
        else:
            self._memory.forget(delivery.key)
        effects.append(Nack(self.epoch, delivery.tag, requeue))

    def _retry_later(self, delivery: Delivery) -> bool:
        """Publish it again by way of its retry queue, if the policy has delays, to be acknowledged on the confirm."""
        retry, message = self.config.retry, delivery.message
        delay = retry.delay(delivery.attempt)
        exchange = COMMANDS if isinstance(message, (Command, Result)) else EVENTS
        queue = self._queues.get(exchange)
        if not delay or not queue or self.config.exclusive_queues or isinstance(message, (Configuration, LogRecord)):
            return False
        properties = again(delivery.properties, exchange, message.name, delivery.attempt)
        if properties is None:
            return False
        self._outbox.kept += 1 - len(delivery.held)  # in the place of its source, whatever the limit
        delivery.held = []
        delivery.unconfirmed += 1
        delivery.verdict, delivery.stage = ACK, WAITING
        self._published += 1
        number, target = PublishId(self._published), retry_queue(queue, delay)
        self._outbox.backlog.append(
            Publish(self.epoch, 0, number, "", target, properties, delivery.body, True, delivery.id, None, False, 0.0)
        )
        return True

    def _failed(self, delivery: Delivery, outcome: Failed, now: float, effects: list[Effect]) -> None:
        if delivery.group is not None:
            self._fail_in_group(delivery.group, delivery, outcome, now, effects)
        name = delivery.message.name
        gives_up = outcome.permanent or self.config.retry.gives_up(delivery.attempt)
        fields = {
            "outcome": "dead-letter" if gives_up else "retry",
            "routing_key": name,
            "attempt": delivery.attempt,
        }
        self._report(outcome.level, f"{name}: {outcome.reason}", delivery, fields, now, effects, outcome.detail)
        if gives_up:
            text = f"giving up on {name} after {delivery.attempt} attempt(s): dead-lettered"
            self._report(EMERGENCY, text, delivery, fields, now, effects, outcome.detail)
        if gives_up and delivery.stage is DEFERRED:  # nobody makes again what it had published: only when that is safe
            delivery.verdict = REJECT
            self._wait(delivery, effects)
        elif gives_up or not self._retry_later(delivery):
            self._return(delivery, not gives_up, effects)

    def _report(
        self,
        level: int,
        text: str,
        delivery: Delivery,
        fields: Mapping[str, Any],
        now: float,
        effects: list[Effect],
        full: str,
    ) -> None:
        """To the bus and to the local log."""
        effects.append(Report(level, f"{text}\n{full}" if full and level == ALERT else text))
        conversation = delivery.message.conversation_id
        self._logs.write(level, text, now, effects, full=full, conversation_id=conversation, fields=fields)

    def _reject(self, epoch: Epoch, tag: int, where: str, invalid: InvalidEnvelope, now: float) -> list[Effect]:
        """Dead-letter what is no message (docs/architecture.rst, "Invalid messages")."""
        text = f"invalid message {where}: {invalid}: dead-lettered"
        effects: list[Effect] = [Report(EMERGENCY, text)]
        fields = {"outcome": "dead-letter", "routing_key": where.partition("/")[2]}
        self._logs.write(EMERGENCY, text, now, effects, conversation_id=invalid.conversation_id, fields=fields)
        effects.append(Nack(epoch, tag, False))
        return effects

    def _by_hand(self, delivery: DeliveryId, multiple: bool) -> list[Delivery]:
        """The deliveries that a manual acknowledgement is about."""
        epoch = delivery >> TAG_BITS if type(delivery) is int else 0
        if epoch != self.epoch or self._over():
            if not 0 < epoch <= self.epoch:
                raise LocalError(f"{delivery!r} is not a delivery tag", hint='pass meta["delivery_tag"] as it is')
            self._ignore()  # its link is lost: the broker delivers it again
            return []
        found = self._flight.by_id.get(delivery)
        if found is None or found.stage is WAITING or found.verdict is not None:
            raise LocalError(f"delivery {delivery} is settled already", hint="acknowledge or reject each message once")
        if not multiple:
            return [found]
        return [each for each in self._flight if each.id < delivery and each.stage is DEFERRED] + [found]

    # Steps

    def _move(self, now: float, effects: list[Effect]) -> None:
        """The end of every input that may have finished something: send and settle what now can be."""
        outbox = self._outbox
        if outbox.backlog and self._blocked_since is None and self.state in SERVING:
            outbox.send(self.epoch, now, effects)
        if self._flight.settled:
            self._flight.flush(effects)
        if outbox.starved and outbox.made_room():
            effects.append(Room())
        if self._stop_due is not None:
            self._finish_if_quiet(now, effects)

    # What the life of the link brings

    def _opened(self, now: float, effects: list[Effect]) -> None:
        self._configured = not self.config.configurations
        self._logs.opened(self.epoch, effects)
        if REPLIES in self._queues:
            self._added(now, effects)
        if self.state is link.OPEN:
            if self._configured:
                self._consume(self._queues, effects)
                effects.append(Ready())
            else:
                self._consume((CONFIGURATIONS,), effects)
                effects.append(Unconfigured())
        self._move(now, effects)

    def _lost(self) -> None:
        for delivery in self._flight:
            self._memory.remember(delivery.key, delivery.attempt - 1, lost=True)
            self._outbox.kept -= len(delivery.held)
            if delivery.stage is RUNNING:
                self._orphans.add(delivery.id)
        self._flight = InFlight(self.epoch)
        self._outbox.lose_link()
        self._logs.lost()

    def _busy(self) -> bool:
        return bool(self._flight or self._orphans or self._outbox.kept)

    def _abandon(self, effects: list[Effect]) -> None:
        unsafe = self._outbox.abandon()
        error = "the service stopped before the broker confirmed it"
        effects.extend(Settled(publish.ticket, error) for publish in unsafe if publish.ticket is not None)
        dropped = sum(publish.kept for publish in unsafe)
        if dropped:
            effects.append(Report(EMERGENCY, f"{dropped} publish(es) were never confirmed by the broker"))

    def _added(self, now: float, effects: list[Effect]) -> None:
        # Not among those that a stop cancels: handlers that still run wait for results.
        effects.append(Consume(self.epoch, self._queues[REPLIES], REPLIES))

    def _consume(self, tags: Iterable[str], effects: list[Effect]) -> None:
        for tag in tags:
            if tag != REPLIES:
                self._consuming.append(tag)
                effects.append(Consume(self.epoch, self._queues[tag], tag))

    def _now_configured(self, effects: list[Effect]) -> None:
        if not self._configured:
            self._configured = True
            if self.state is link.OPEN:
                self._consume([tag for tag in self._queues if tag != CONFIGURATIONS], effects)
                effects.append(Ready())
