"""The machine of one service: inputs in, effects out, no I/O, no clock, no randomness of its own.

A driver calls an input for everything that happens (each takes ``now``, monotonic seconds), performs the effects that
it returns, in order, and calls :meth:`Machine.tick` when :meth:`Machine.deadline` has passed.

The machine is in three parts, each a class on top of the one before: :mod:`eda_core.machine.connection` keeps the
link, by the table in :mod:`eda_core.machine.link`; :mod:`eda_core.machine.deliveries` deals with deliveries; this
module publishes, and is what drivers use.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pamqp.commands import Basic

from eda_core.criticality import ALERT, EMERGENCY, WARNING
from eda_core.errors import StateError
from eda_core.machine.calls import Call, Calls, reply_key
from eda_core.machine.config import Config
from eda_core.machine.connection import OVER
from eda_core.machine.deliveries import Receiver
from eda_core.machine.effects import (
    ON_LINK,
    Close,
    Connect,
    Dispatch,
    Effect,
    Publish,
    PublishLog,
    Ready,
    Replied,
    Report,
    Returned,
    Settled,
    Unconfigured,
)
from eda_core.machine.identifiers import DeliveryId, Epoch, PublishId
from eda_core.machine.in_flight import RUNNING, WAITING, Delivery
from eda_core.machine.logs import LogBook
from eda_core.machine.outcomes import Failed
from eda_core.machine.topology import REPLIES, replies
from eda_core.messages.codec import DecodeError, decode
from eda_core.messages.envelope import envelope_of, parts
from eda_core.messages.headers import CAUSATION_ID
from eda_core.messages.routing import COMMANDS
from eda_core.messages.values import AnyMessage, Command, Result
from eda_core.urls import redact

_Parts = tuple[str, str, Basic.Properties, bytes]


class Machine(Receiver):
    """Decides everything for one service.

    Args:
        config: what the service is.
        random: evenly distributed numbers from 0 to 1, for the delays between attempts to connect.
        token: makes message ids unique among all workers; a few random characters.
        wall_offset: seconds since the epoch at monotonic time 0, for the time stamps of logs.
    """

    __slots__ = ("_calls", "_token")

    def __init__(self, config: Config, *, random: Callable[[], float], token: str, wall_offset: float) -> None:
        super().__init__(config, random, LogBook(config, wall_offset))
        self._token = token
        self._calls = Calls(reply_key(config.service, token, config.commands), config.buffer)

    def __repr__(self) -> str:
        return (
            f"<Machine {self.config.service} {self.state}, link {self.epoch}, "
            f"{len(self._flight)} in flight, {self._outbox.kept} to publish>"
        )

    # The link

    def effect_failed(self, effect: Effect, reason: str, now: float) -> list[Effect]:
        """The driver could not perform ``effect``. What was to be done on the link is lost with the link."""
        reason = redact(reason)
        if isinstance(effect, Dispatch):
            return self.handled(effect.delivery, Failed(reason), now)
        if isinstance(effect, (Connect, Close)):
            return self.link_down(effect.epoch, reason, now)
        if isinstance(effect, ON_LINK):
            return self._drop(effect.epoch, f"{effect!r} failed: {reason}", now)
        if isinstance(effect, (PublishLog, Report)):  # a log of it would fail as well
            return []
        return self.callback_failed(effect, Failed(reason), now)

    def callback_failed(self, effect: Effect | None, failure: Failed, now: float) -> list[Effect]:
        """A hook of the service (``effect``), or a timer of its (``None``), failed outside any delivery.

        A service that cannot get ready is of no use and would look alive: it stops, with the reason as its error.
        """
        effects: list[Effect] = []
        fatal = isinstance(effect, (Ready, Unconfigured))
        what = "a timer" if effect is None else type(effect).__name__.lower()
        text = f"{what} failed: {failure.reason}"
        effects.append(Report(ALERT, f"{text}\n{failure.detail}" if failure.detail else text))
        self._logs.write(EMERGENCY if fatal else ALERT, text, now, effects, full=failure.detail)
        if fatal:
            self._error = self._error or text
            effects += self.stop(now)
        return effects

    def deadline(self) -> float | None:
        """When to call :meth:`tick` next, monotonic seconds; ``None`` if nothing is waited for. May lie in the past."""
        first = super().deadline()
        due = self._calls.deadline()
        if due is not None and (first is None or due < first):
            first = due
        if self._serving():
            for time in (self._outbox.next_retry(), self._end_of_patience()):
                if time is not None and (first is None or time < first):
                    first = time
        return first

    def tick(self, now: float) -> list[Effect]:
        """Time has passed. Early, late and repeated calls do no harm (rule R7)."""
        effects = super().tick(now)
        for call in self._calls.overdue(now):
            effects.append(Replied(call.ticket, call.command, None, "no result came in time", timed_out=True))
        if self._serving():
            patience = self._end_of_patience()
            if patience is not None and now >= patience:
                self._give_up("a publish was not confirmed for too long", now, effects)
            elif self._outbox.retry(now):
                self._move(now, effects)
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
            LocalError: the message is not one that can be sent (see :func:`eda_core.messages.envelope.seal`).
            BufferFull: too many publishes wait for the broker; ``Room`` tells when there is room again.
            StateError: the service has stopped.
        """
        effects: list[Effect] = []
        if self.state in OVER:
            raise StateError(f"the service is {self.state}", hint="publish before it stops")
        config = self.config
        sealed = parts(message, config.content_type, config.limits)
        found = None if within is None else self._flight.by_id.get(within)
        if found is not None and found.stage is RUNNING and not immediate:
            self._outbox.reserve(True)
            found.held.append(self._stamp(sealed, mandatory, found, True, None))
        elif not immediate and within in self._orphans:  # its redelivery makes it again
            self._ignore()
        else:
            self._send(sealed, mandatory, found, ticket, now, effects)
            return effects
        if ticket is not None:
            effects.append(Settled(ticket))
        return effects

    def call(
        self,
        command: str,
        payload: Any,
        now: float,
        *,
        ticket: int,
        timeout: float,
        conversation_id: str = "",
        within: DeliveryId | None = None,
    ) -> list[Effect]:
        """Send a command at once, and bring its result in ``Replied``. The first call makes the queue for the results.

        Args:
            ticket: comes back in ``Replied``; like all tickets, it is used once.
            timeout: seconds until it is over without a result. A result that comes later is dropped.
            conversation_id: by default that of ``within``, else (a configuration may have none) a new one.
            within: the delivery whose handler calls; its acknowledgement waits for the command's confirm.

        Raises:
            LocalError: the command is not one that can be sent (see :func:`eda_core.messages.envelope.seal`).
            BufferFull: too many publishes wait for the broker, or too many calls for results.
            StateError: the service has stopped.
        """
        effects: list[Effect] = []
        if self._over():
            raise StateError(f"the service is {self.state}", hint="call before it stops")
        found = None if within is None else self._flight.by_id.get(within)
        correlation_id = f"{self._token}-call-{ticket}"
        if not conversation_id and found is not None:
            conversation_id = found.message.conversation_id
        message = Command(command, payload, conversation_id or correlation_id, self._calls.key, correlation_id)
        sealed = parts(message, self.config.content_type, self.config.limits)
        self._calls.reserve(timeout)
        self._outbox.reserve(False)
        publish = self._stamp(sealed, True, found, False, None)
        self._count(publish, found)
        self._calls.add(correlation_id, Call(ticket, command, now + timeout))
        if self._reply_key is None:
            self._reply_key = self._calls.key
            self._want(replies(self._calls.key), effects)
        if self._serving() and REPLIES in self._queues and not self._adding:
            self._outbox.backlog.append(publish)
            self._move(now, effects)
        else:
            self._calls.held.append(publish)
        return effects

    def forget_call(self, ticket: int, now: float) -> list[Effect]:
        """Nobody waits for it any more: its result will be dropped."""
        self._calls.forget(ticket)
        return []

    def confirmed(self, epoch: Epoch, tag: int, now: float, *, multiple: bool = False) -> list[Effect]:
        """The broker has taken the publish with this confirm tag (and all open ones below, if ``multiple``)."""
        effects: list[Effect] = []
        if epoch != self.epoch:
            self._ignore()
            return effects
        in_flight = self._flight.by_id
        for publish in self._outbox.confirmed(tag, multiple):
            if publish.ticket is not None:
                effects.append(Settled(publish.ticket))
            found = in_flight.get(publish.delivery)  # type: ignore[arg-type]  # None is nobody's
            if found is not None:
                found.unconfirmed -= 1
                if found.stage is WAITING and not found.unconfirmed:
                    self._complete(found, effects)
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
        if not exchange:  # only delayed retries go there; taking up the link again declares their queues again
            return self._drop(epoch, f"the retry queue {routing_key} is gone", now)
        call = self._calls.take(properties.correlation_id) if properties.reply_to == self._reply_key else None
        if call is not None:
            return [Replied(call.ticket, call.command, None, f"no service is bound to it ({reason})")]
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

    @property
    def published(self) -> int:
        """How many messages were accepted for publishing so far."""
        return self._published

    # Calls

    def _added(self, now: float, effects: list[Effect]) -> None:
        super()._added(now, effects)
        self._outbox.backlog += self._calls.held
        self._calls.held.clear()
        self._move(now, effects)

    def _replied(self, message: AnyMessage, now: float, effects: list[Effect]) -> None:
        call = self._calls.take(message.correlation_id) if isinstance(message, Result) else None
        if call is not None and isinstance(message, Result):
            effects.append(Replied(call.ticket, call.command, message))
            return
        self._calls.late += 1
        text = f"a result that nobody waits for (any more) is dropped: the {self._calls.late}. so far"
        effects.append(Report(WARNING, text))
        self._logs.write(WARNING, text, now, effects, conversation_id=message.conversation_id)

    def _lost(self) -> None:
        super()._lost()
        for publish in self._calls.held:
            publish.delivery = None

    def _abandon(self, effects: list[Effect]) -> None:
        super()._abandon(effects)
        error = "the service stopped before its result came"
        effects.extend(Replied(call.ticket, call.command, None, error) for call in self._calls.abandon())

    # Steps

    def _send(
        self,
        sealed: _Parts,
        mandatory: bool | None,
        within: Delivery | None,
        ticket: int | None,
        now: float,
        effects: list[Effect],
    ) -> None:
        """Publish at once, without holding it."""
        self._outbox.reserve(False)
        publish = self._stamp(sealed, mandatory, within, False, ticket)
        self._count(publish, within)
        self._outbox.backlog.append(publish)
        self._move(now, effects)

    def _count(self, publish: Publish, within: Delivery | None) -> None:
        """Let the acknowledgement of the delivery wait for the confirm, if it still can."""
        if within is not None and within.stage is not WAITING:
            within.unconfirmed += 1
        else:
            publish.delivery = None

    def _end_of_patience(self) -> float | None:
        """When the oldest publish has waited too long for its confirm, unless the broker has said that it would."""
        since = self._outbox.waiting_since() if self._blocked_since is None else None
        return None if since is None else max(since, self._unblocked_at) + self.config.confirm_timeout

    def _stamp(
        self, sealed: _Parts, mandatory: bool | None, within: Delivery | None, held: bool, ticket: int | None
    ) -> Publish:
        """Give the publish its identity: a fresh message id, which client libraries match returns by, and its cause."""
        exchange, routing_key, properties, body = sealed
        number: PublishId = self._published + 1  # type: ignore[assignment]  # a call of a NewType costs too much
        self._published = number
        properties.message_id = f"{self._token}-{number}"
        if properties.app_id is None:
            properties.app_id = self.config.service
        if mandatory is None:
            mandatory = exchange == COMMANDS
        delivery = None
        if within is not None:
            delivery = within.id
            cause = within.properties.message_id
            if cause and type(cause) is str and properties.headers is not None:
                properties.headers[CAUSATION_ID] = cause
        return Publish(
            self.epoch, 0, number, exchange, routing_key, properties, body, mandatory, delivery, ticket, not held, 0.0
        )
