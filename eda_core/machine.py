"""The machine of one service: inputs in, effects out, no I/O, no clock, no randomness of its own.

A driver calls an input for everything that happens (each takes ``now``, monotonic seconds), performs the effects that
it returns, in order, and calls :meth:`Machine.tick` when :meth:`Machine.deadline` has passed. The life of the link is
kept by the lower half, :mod:`eda_core.keeper`, by the table in :mod:`eda_core.link`; what is not safe yet is in
:mod:`eda_core.outbox`; how deliveries are acknowledged in :mod:`eda_core.consumer`. This module ties them together: it
receives, retries and publishes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from pamqp.commands import Basic

from eda_core import link
from eda_core.codec import DecodeError, decode
from eda_core.config import Config
from eda_core.consumer import ACK, DEFERRED, REJECT, REQUEUE, RUNNING, WAITING, Delivery, InFlight
from eda_core.criticality import ALERT, EMERGENCY, WARNING
from eda_core.effects import (
    ON_LINK,
    Close,
    Consume,
    Dispatch,
    Effect,
    Nack,
    Publish,
    Ready,
    Report,
    Returned,
    Room,
    Settled,
    Unconfigured,
)
from eda_core.envelope import CAUSATION_ID, InvalidEnvelope, Sealed, envelope_of, open_envelope, seal
from eda_core.errors import LocalError, StateError
from eda_core.keeper import LinkKeeper
from eda_core.logbook import LogBook
from eda_core.outbox import Outbox
from eda_core.policy import AttemptMemory, message_key
from eda_core.routing import COMMANDS, CONFIGURATIONS
from eda_core.values import (
    TAG_BITS,
    AnyMessage,
    Configured,
    Deferred,
    DeliveryId,
    Epoch,
    Failed,
    Outcome,
    PublishId,
    delivery_id,
)


class Machine(LinkKeeper):
    """Decides everything for one service.

    Args:
        config: what the service is.
        random: evenly distributed numbers from 0 to 1, for the delays between attempts to connect.
        token: makes message ids unique among all workers; a few random characters.
        wall_offset: seconds since the epoch at monotonic time 0, for the time stamps of logs.
    """

    def __init__(self, config: Config, *, random: Callable[[], float], token: str, wall_offset: float) -> None:
        super().__init__(config, random)
        self._token = token
        self._flight = InFlight(self.epoch)
        self._outbox = Outbox(config.window, config.buffer)
        self._memory = AttemptMemory()
        self._logs = LogBook(config, wall_offset)
        #: Deliveries of lost links whose handlers still run.
        self._orphans: set[DeliveryId] = set()
        self._published = 0
        self._configured = False

    def __repr__(self) -> str:
        return (
            f"<Machine {self.config.service} {self.state}, link {self.epoch}, "
            f"{len(self._flight)} in flight, {self._outbox.kept} to publish>"
        )

    # The link

    def effect_failed(self, effect: Effect, reason: str, now: float) -> list[Effect]:
        """The driver could not perform ``effect``. What was to be done on the link is lost with the link."""
        if isinstance(effect, Dispatch):
            return self.handled(effect.delivery, Failed(reason), now)
        if isinstance(effect, Close):
            return self.link_down(effect.epoch, reason, now)
        if isinstance(effect, ON_LINK):
            return self._drop(effect.epoch, f"{effect!r} failed: {reason}", now)
        return [Report(WARNING, f"{effect!r} failed: {reason}")]

    def deadline(self) -> float | None:
        """When to call :meth:`tick` next, monotonic seconds; ``None`` if nothing is waited for. May lie in the past."""
        first = super().deadline()
        if self._serving():
            for time in (self._outbox.next_retry(), self._end_of_patience()):
                if time is not None and (first is None or time < first):
                    first = time
        return first

    def tick(self, now: float) -> list[Effect]:
        """Time has passed. Early, late and repeated calls do no harm (rule R7)."""
        effects = super().tick(now)
        if self._serving():
            patience = self._end_of_patience()
            if patience is not None and now >= patience:
                self._give_up("a publish was not confirmed for too long", now, effects)
            elif self._outbox.retry(now):
                self._move(now, effects)
        return effects

    # Receiving

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
        if epoch != self.epoch or not self._serving() or not self._flight.seen(tag):
            self.stale += 1
            return []
        if self.state is link.DRAINING:  # crossed our cancel: somebody else's work
            return [Nack(epoch, tag, True)]
        self._delivered_any = True
        key = message_key(routing_key, properties, body)
        try:
            message = open_envelope(exchange, routing_key, properties, body, self.config.limits)
        except InvalidEnvelope as invalid:
            return self._reject(epoch, tag, f"{exchange}/{routing_key}", invalid, now)
        attempt = self._memory.attempt(key, properties.headers or {}, redelivered)
        number = delivery_id(epoch, tag)
        message.meta["delivery_tag"] = number
        self._flight.add(Delivery(number, tag, message, properties.message_id, key, attempt))
        return [Dispatch(number, message)]

    def handled(self, delivery: DeliveryId, outcome: Outcome, now: float) -> list[Effect]:
        """The handler of a ``Dispatch`` has come to its end."""
        effects: list[Effect] = []
        found = self._flight.get(delivery)
        if found is None or found.stage is not RUNNING:
            self.stale += 1
            self._orphans.discard(delivery)
            self._settle(now, effects)
            return effects
        if isinstance(outcome, Failed):
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
        self._settle(now, effects)
        return effects

    def nack(self, delivery: DeliveryId, now: float, *, requeue: bool = False, multiple: bool = False) -> list[Effect]:
        """Reject by hand: back to the queue, or, once the publishes of the delivery are confirmed, to the dead letters.

        Raises:
            LocalError: as :meth:`ack`.
        """
        effects: list[Effect] = []
        for found in self._by_hand(delivery, multiple):
            self._judge(found, REQUEUE if requeue else REJECT, effects)
        self._settle(now, effects)
        return effects

    # Publishing

    def publish(
        self,
        message: AnyMessage,
        now: float,
        *,
        within: DeliveryId | None = None,
        mandatory: bool | None = None,
        immediate: bool = False,
        ticket: int | None = None,
    ) -> list[Effect]:
        """Publish an event, command, result or configuration.

        Args:
            within: the delivery whose handler publishes. While that runs the message is held until it succeeds (rule
                R6), and the acknowledgement waits for the confirm. A handler that is over counts as outside.
            mandatory: hear of it by ``Returned`` if it is unroutable; by default so for commands and results.
            immediate: do not hold it.
            ticket: come back in ``Settled`` once the message is confirmed, or held.

        Raises:
            LocalError: the message is not one that can be sent (see :func:`eda_core.envelope.seal`).
            BufferFull: too many publishes wait for the broker; ``Room`` tells when there is room again.
            StateError: the service has stopped.
        """
        effects: list[Effect] = []
        if self.state in (link.STOPPED, link.CLOSING):
            raise StateError(f"the service is {self.state}", hint="publish before it stops")
        sealed = seal(message, self.config.content_type, self.config.limits)
        if mandatory is None:
            mandatory = sealed.exchange == COMMANDS
        found = None if within is None else self._flight.get(within)
        held = not immediate and (within in self._orphans or (found is not None and found.stage is RUNNING))
        if held and found is None:  # its redelivery makes it again
            self.stale += 1
        else:
            self._outbox.reserve()
            publish = self._stamp(sealed, mandatory, found, held, ticket)
            if held and found is not None:
                found.held.append(publish)
            else:
                if found is not None and found.stage is not WAITING:
                    found.unconfirmed += 1
                else:
                    publish.delivery = None
                self._outbox.add(publish)
                self._move(now, effects)
        if held and ticket is not None:
            effects.append(Settled(ticket))
        return effects

    def confirmed(self, epoch: Epoch, tag: int, now: float, *, multiple: bool = False) -> list[Effect]:
        """The broker has taken the publish with this confirm tag (and all open ones below, if ``multiple``)."""
        effects: list[Effect] = []
        if self._is_stale(epoch):
            return effects
        for publish in self._outbox.confirmed(tag, multiple):
            if publish.ticket is not None:
                effects.append(Settled(publish.ticket))
            if publish.delivery is not None:
                found = self._flight.get(publish.delivery)
                if found is not None:
                    found.unconfirmed -= 1
                    if found.stage is WAITING:
                        self._succeeded(found, effects)
        self._move(now, effects)
        return effects

    def refused(self, epoch: Epoch, tag: int, now: float, *, multiple: bool = False) -> list[Effect]:
        """The broker has refused the publish (a full queue, a failed node): it is sent again, whole, until accepted."""
        effects: list[Effect] = []
        if self._is_stale(epoch):
            return effects
        delay = self.config.retry_delay
        count = self._outbox.refused(tag, multiple, now + delay)
        if count:
            effects.append(Report(WARNING, f"the broker refused {count} publish(es), sending again in {delay:g} s"))
        self._move(now, effects)
        return effects

    def returned(
        self,
        epoch: Epoch,
        exchange: str,
        routing_key: str,
        properties: Basic.Properties,
        body: bytes,
        reason: str,
        now: float,
    ) -> list[Effect]:
        """A mandatory publish came back unroutable. Its confirm follows, so it is not sent again."""
        if self._is_stale(epoch):
            return []
        try:
            payload = decode(body, properties.content_type, self.config.limits)
        except DecodeError as error:  # not one of ours, or damaged on the way: the service hears of it all the same
            payload, reason = None, f"{reason}; {error}"
        return [
            Report(WARNING, f"{exchange}/{routing_key} came back: {reason}"),
            Returned(routing_key, payload, envelope_of(properties), reason),
        ]

    def log(
        self,
        level: int,
        short: str,
        now: float,
        *,
        full: str = "",
        conversation_id: str = "",
        fields: Mapping[str, Any] | None = None,
    ) -> list[Effect]:
        """Log to the bus: no confirm, no retry; without a link the latest records are kept for the next one.

        Raises:
            LocalError: the level is not a syslog severity or a field's name is not allowed.
        """
        effects: list[Effect] = []
        self._logs.write(level, short, now, effects, full=full, conversation_id=conversation_id, fields=fields)
        return effects

    # Steps

    def _end_of_patience(self) -> float | None:
        """When the oldest publish has waited too long for its confirm, unless the broker has said that it would."""
        since = self._outbox.waiting_since() if self._blocked_since is None else None
        return None if since is None else since + self.config.confirm_timeout

    def _move(self, now: float, effects: list[Effect]) -> None:
        """Send what may be sent, then settle what that allows to settle."""
        if self._serving() and self._blocked_since is None:
            self._outbox.send(self.epoch, now, effects)
        self._settle(now, effects)

    def _settle(self, now: float, effects: list[Effect]) -> None:
        """The end of every input that may have finished something."""
        self._flight.flush(effects)
        if self._outbox.starved and self._outbox.made_room():
            effects.append(Room())
        if self._stop_due is not None:
            self._finish_if_quiet(now, effects)

    def _stamp(
        self, sealed: Sealed, mandatory: bool, within: Delivery | None, held: bool, ticket: int | None
    ) -> Publish:
        """Give the publish its identity: a fresh message id, which client libraries match returns by, and its cause."""
        self._published += 1
        properties = sealed.properties
        properties.message_id = f"{self._token}-{self._published}"
        if properties.app_id is None:
            properties.app_id = self.config.service
        if within is not None and within.message_id is not None and properties.headers is not None:
            properties.headers[CAUSATION_ID] = within.message_id
        return Publish(
            self.epoch,
            0,
            PublishId(self._published),
            sealed.exchange,
            sealed.routing_key,
            properties,
            sealed.body,
            mandatory,
            None if within is None else within.id,
            ticket,
            not held,
            0.0,
        )

    # Deliveries

    def _release(self, delivery: Delivery, deferred: bool, effects: list[Effect]) -> None:
        """The handler succeeded: publish what it held."""
        if delivery.verdict is REQUEUE:  # its redelivery makes them again
            self._return(delivery, True, effects)
            return
        for publish in delivery.held:
            self._outbox.add(publish)
        delivery.unconfirmed += len(delivery.held)
        delivery.held = []
        if deferred and delivery.verdict is None:
            delivery.stage = DEFERRED
        else:
            self._succeeded(delivery, effects)

    def _judge(self, delivery: Delivery, verdict: str, effects: list[Effect]) -> None:
        """Settled by hand; while the handler runs the verdict waits for it."""
        delivery.verdict = verdict
        if delivery.stage is not RUNNING:
            if verdict is REQUEUE:
                self._return(delivery, True, effects)
            else:
                self._succeeded(delivery, effects)

    def _succeeded(self, delivery: Delivery, effects: list[Effect]) -> None:
        """Settle as soon as all its publishes are confirmed (invariant I1)."""
        delivery.stage = WAITING
        if delivery.unconfirmed:
            return
        if delivery.verdict is REJECT:
            self._return(delivery, False, effects)
        else:
            self._memory.forget(delivery.key)
            self._flight.acknowledge(delivery)

    def _return(self, delivery: Delivery, requeue: bool, effects: list[Effect]) -> None:
        self._outbox.kept -= len(delivery.held)
        delivery.held = []  # forgotten: a failure publishes nothing, a redelivery makes them again
        self._flight.remove(delivery)
        if requeue:
            self._memory.remember(delivery.key, delivery.attempt)
        else:
            self._memory.forget(delivery.key)
        effects.append(Nack(self.epoch, delivery.tag, requeue))

    def _failed(self, delivery: Delivery, outcome: Failed, now: float, effects: list[Effect]) -> None:
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
        """Dead-letter what is no message (``ARCHITECTURE.md``, "Receiving", 1)."""
        text = f"invalid message {where}: {invalid}: dead-lettered"
        effects: list[Effect] = [Report(EMERGENCY, text)]
        fields = {"outcome": "dead-letter", "routing_key": where.partition("/")[2]}
        self._logs.write(EMERGENCY, text, now, effects, conversation_id=invalid.conversation_id, fields=fields)
        effects.append(Nack(epoch, tag, False))
        return effects

    def _by_hand(self, delivery: DeliveryId, multiple: bool) -> list[Delivery]:
        """The deliveries that a manual acknowledgement is about."""
        if delivery >> TAG_BITS != self.epoch:
            if delivery <= 0 or delivery >> TAG_BITS > self.epoch:
                raise LocalError(f"{delivery!r} is not a delivery tag", hint='pass meta["delivery_tag"] as it is')
            self.stale += 1  # its link is lost: the broker delivers it again
            return []
        found = self._flight.get(delivery)
        if found is None or found.stage is WAITING or found.verdict is not None:
            raise LocalError(f"delivery {delivery} is settled already", hint="acknowledge or reject each message once")
        if not multiple:
            return [found]
        return [each for each in self._flight if each.id < delivery and each.stage is DEFERRED] + [found]

    # What the life of the link brings

    def _opened(self, now: float, effects: list[Effect]) -> None:
        self._configured = not self.config.configurations
        self._logs.opened(self.epoch, effects)
        if self.state is link.OPEN:
            if self._configured:
                self._consume(self._queues, effects)
                effects.append(Ready())
            else:
                self._consume((CONFIGURATIONS,), effects)
                effects.append(Unconfigured())
        self._move(now, effects)

    def _consume(self, exchanges: Iterable[str], effects: list[Effect]) -> None:
        for exchange in exchanges:
            self._consuming.append(exchange)
            effects.append(Consume(self.epoch, self._queues[exchange], exchange))

    def _now_configured(self, effects: list[Effect]) -> None:
        if not self._configured:
            self._configured = True
            if self.state is link.OPEN:
                self._consume([exchange for exchange in self._queues if exchange != CONFIGURATIONS], effects)
                effects.append(Ready())

    def _lost(self) -> None:
        for delivery in self._flight:
            self._memory.remember(delivery.key, delivery.attempt - 1)
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
