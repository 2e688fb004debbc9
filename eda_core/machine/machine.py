"""The machine of one service: inputs in, effects out. It has no I/O, no clock and no randomness of its own.

A driver calls an input for everything that happens (each takes ``now``, monotonic seconds), performs the effects that
the input returns, in order, and calls :meth:`Machine.tick` when :meth:`Machine.deadline` has passed.

The machine is made of parts, and each owns its state: :class:`Connection` (the link), :class:`Deliveries` (what is
received), :class:`Outbox` (what is published), :class:`Calls` and :class:`Logs`. A part tells what has happened; this
module says what follows from that for the others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from pamqp import base
from pamqp.commands import Basic

from eda_core.checks import is_number
from eda_core.criticality import ALERT, EMERGENCY, NOTICE, WARNING
from eda_core.errors import BufferFull, LocalError, StateError
from eda_core.machine.calls import Call, Calls, reply_key
from eda_core.machine.config import Config
from eda_core.machine.connection import ADDED, CLOSING, ENDED, LOST, OPENED, Connection
from eda_core.machine.deliveries import ACK, HOLDING, REJECT, REQUEUE, Deliveries, Read
from eda_core.machine.effects import (
    ON_LINK,
    Ack,
    BufferAvailable,
    Close,
    Connect,
    Dispatch,
    Effect,
    Nack,
    Publish,
    PublishDone,
    PublishLog,
    Ready,
    Replied,
    Report,
    Returned,
    Stopped,
    Unconfigured,
)
from eda_core.machine.identifiers import DeliveryId, Epoch
from eda_core.machine.in_flight import Delivery
from eda_core.machine.link import DRAINING, OPEN, OVER, SERVING, WITHOUT_LINK
from eda_core.machine.logs import Logs
from eda_core.machine.outbox import Outbox
from eda_core.machine.outcomes import Failed, Outcome
from eda_core.machine.topology import REPLIES, replies
from eda_core.messages.codec import JSON, DecodeError, decode
from eda_core.messages.envelope import InvalidEnvelope, envelope_of, open_envelope, seal
from eda_core.messages.headers import CAUSATION_ID
from eda_core.messages.routing import COMMANDS, CONFIGURATIONS
from eda_core.messages.values import AnyMessage, Command, Result
from eda_core.urls import redact


class Machine:
    """Decides everything for one service.

    Args:
        config: what the service is.
        random: evenly distributed numbers from 0 to 1, for the delays between attempts to connect.
        token: makes message ids unique among all workers; a few random characters.
        wall_offset: seconds since the epoch at monotonic time 0, for the time stamps of logs.
        read: reads a delivery as a message; raises ``InvalidEnvelope`` for what is none. A tool that shows whatever
            comes gives its own.
    """

    __slots__ = (
        "_calls",
        "_configured",
        "_connection",
        "_content_type",
        "_deliveries",
        "_holds",
        "_logs",
        "_outbox",
        "_stale",
        "_starved",
        "_token",
        "config",
    )

    def __init__(
        self,
        config: Config,
        *,
        random: Callable[[], float],
        token: str,
        wall_offset: float,
        read: Read = open_envelope,
    ) -> None:
        self.config: Config = config
        self._token = token
        self._content_type = config.content_type
        self._configured = False
        self._holds = 0
        self._stale = 0
        #: A caller was refused for want of space, and not told yet that there is some again.
        self._starved = False
        self._connection = Connection(config, random)
        self._logs = Logs(config, wall_offset)
        self._outbox = Outbox(config)
        self._calls = Calls(reply_key(config.service, token, config.commands), config.buffer)
        self._deliveries = Deliveries(config, self._outbox, self._logs, read)

    def __repr__(self) -> str:
        return (
            f"<Machine {self.config.service} {self.state}, link {self.epoch}, "
            f"{len(self._deliveries.in_flight)} in flight, {self._outbox.kept} to publish>"
        )

    @property
    def state(self) -> str:
        """Where the life of the link stands, a constant of :mod:`eda_core.machine.link`."""
        return self._connection.state

    @property
    def epoch(self) -> Epoch:
        """The number of the present link, or of the next one while there is none."""
        return self._connection.epoch

    @property
    def stale(self) -> int:
        """How many reports about earlier links, or about what is over, were ignored."""
        return self._stale + self._deliveries.stale

    @property
    def published(self) -> int:
        """How many messages were accepted for publishing so far."""
        return self._outbox.published

    # The link

    def start(self, now: float) -> list[Effect]:
        """Begin.

        Raises:
            StateError: it had begun.
        """
        effects: list[Effect] = []
        self._connection.start(now, effects)
        return effects

    def link_up(self, epoch: Epoch, now: float) -> list[Effect]:
        """The link asked for by ``Connect`` is complete.

        Raises:
            StateError: it was reported before.
        """
        effects: list[Effect] = []
        if not self._is_stale(epoch):
            self._connection.link_up(effects)
        return effects

    def declared(self, epoch: Epoch, replies: Sequence[base.Frame], now: float) -> list[Effect]:
        """The replies to a ``Declare``, in order.

        Raises:
            StateError: none was asked for.
        """
        effects: list[Effect] = []
        if not self._is_stale(epoch):
            self._follow(self._connection.declared(replies, now, effects), now, effects)
        return effects

    def link_down(self, epoch: Epoch, reason: str, now: float, *, refused: bool = False) -> list[Effect]:
        """The link could not be opened, was lost, or is closed as asked.

        Args:
            reason: one line for the log; passwords in URLs are removed.
            refused: the broker refused the credentials.
        """
        effects: list[Effect] = []
        if not self._is_stale(epoch):
            happened = self._connection.down(reason, now, effects, refused)
            if happened is None:
                self._stale += 1
            self._follow(happened, now, effects)
        return effects

    def channel_closed(self, epoch: Epoch, reason: str, now: float) -> list[Effect]:
        """The broker closed one of the channels. The link is opened anew, since its topology may be gone."""
        return self._give_up_link(epoch, f"channel closed: {reason}", now)

    def consumer_cancelled(self, epoch: Epoch, consumer_tag: str, now: float) -> list[Effect]:
        """The broker cancelled a consumer: its queue was deleted, or has moved to another node."""
        return self._give_up_link(epoch, f"the broker cancelled the consumer of {consumer_tag}", now)

    def blocked(self, epoch: Epoch, reason: str, now: float) -> list[Effect]:
        """The broker is short of resources and asks not to publish. It may say so before the link is open."""
        if self._is_stale(epoch) or self._connection.state in WITHOUT_LINK:
            return []
        self._outbox.block(now)
        return [Report(WARNING, f"the broker blocks publishing: {reason}")]

    def unblocked(self, epoch: Epoch, now: float) -> list[Effect]:
        """The broker takes publishes again."""
        effects: list[Effect] = []
        if not self._is_stale(epoch) and self._outbox.unblock(now):
            effects.append(Report(NOTICE, "the broker takes publishes again"))
            self._proceed(now, effects)
        return effects

    def effect_failed(self, effect: Effect, reason: str, now: float) -> list[Effect]:
        """The driver could not perform ``effect``. What was to be done on the link is lost with the link."""
        reason = redact(reason)
        if isinstance(effect, Dispatch):
            return self.handled(effect.delivery, Failed(reason), now)
        if isinstance(effect, (Connect, Close)):
            return self.link_down(effect.epoch, reason, now)
        if isinstance(effect, ON_LINK):
            return self._give_up_link(effect.epoch, f"{effect!r} failed: {reason}", now)
        if isinstance(effect, (PublishLog, Report)):  # a log of it would fail as well
            return []
        return self.callback_failed(effect, Failed(reason), now)

    # The service

    def callback_failed(self, effect: Effect | None, failure: Failed, now: float) -> list[Effect]:
        """A hook of the service (``effect``), or a timer of its (``None``), failed outside any delivery.

        A service that cannot get ready is of no use and would look alive: it stops, with the reason as its error.
        """
        effects: list[Effect] = []
        fatal = isinstance(effect, (Ready, Unconfigured))
        what = "a timer" if effect is None else _HOOKS.get(type(effect), f"the effect {type(effect).__name__}")
        text = f"{what} failed: {failure.reason}"
        effects.append(Report(ALERT, f"{text}\n{failure.detail}" if failure.detail else text))
        self._logs.write(EMERGENCY if fatal else ALERT, text, now, effects, full=failure.detail)
        if fatal:
            self._connection.error = self._connection.error or text
            effects += self.stop(now)
        return effects

    def stop(self, now: float, timeout: float | None = None) -> list[Effect]:
        """Take no new work, finish what runs, acknowledge, close. Called again, it can only shorten the time left.

        Args:
            timeout: seconds until what is unfinished is abandoned, by default the configuration's ``stop_timeout``.

        Raises:
            LocalError: the timeout is not a number.
        """
        effects: list[Effect] = []
        if timeout is None:
            timeout = self.config.stop_timeout
        elif not is_number(timeout) or timeout != timeout:
            raise LocalError(f"timeout is {timeout!r}", hint="give seconds")
        self._follow(self._connection.stop(now + timeout, effects), now, effects)
        self._deliveries.stop(now, effects)
        self._finish_if_quiet(now, effects)
        return effects

    def hold(self, now: float) -> list[Effect]:
        """There is work that the machine knows nothing of, such as a batch: a stop waits for its :meth:`release`."""
        self._holds += 1
        return []

    def release(self, now: float) -> list[Effect]:
        """The work of one :meth:`hold` is done.

        Raises:
            StateError: there is no hold that was not released.
        """
        effects: list[Effect] = []
        if not self._holds:
            raise StateError("there is nothing to release", hint="call hold first, once for each release")
        self._holds -= 1
        self._finish_if_quiet(now, effects)
        return effects

    def use_json(self, now: float) -> list[Effect]:
        """Write the payloads of what is published from now on as JSON."""
        self._content_type = JSON
        return []

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
        """Log to the bus: no confirm, no retry. Without a link the latest records are kept for the next one.

        Raises:
            LocalError: the level is not a syslog severity or a field's name is not allowed.
        """
        effects: list[Effect] = []
        self._logs.write(level, short, now, effects, full=full, conversation_id=conversation_id, fields=fields)
        return effects

    # Time

    def deadline(self) -> float | None:
        """When to call :meth:`tick` next, monotonic seconds; ``None`` if nothing is waited for. May lie in the past."""
        first = self._connection.deadline()
        due = self._calls.deadline()
        if due is not None and (first is None or due < first):
            first = due
        due = self._outbox.deadline(self._connection.state in SERVING)
        return due if first is None or (due is not None and due < first) else first

    def tick(self, now: float) -> list[Effect]:
        """Time has passed. Early, late and repeated calls do no harm (rule R7)."""
        effects: list[Effect] = []
        self._follow(self._connection.tick(now, effects), now, effects)
        overdue = self._calls.overdue(now)
        for call in overdue:
            effects.append(Replied(call.ticket, call.command, None, "no result came in time", timed_out=True))
        if overdue:
            self._cancel(overdue, now, effects)
        serving = self._connection.state in SERVING
        reason = self._outbox.overdue(now, serving)
        if reason is not None:
            self._follow(self._connection.give_up(reason, now, effects), now, effects)
        elif serving and self._outbox.retry(now):
            self._proceed(now, effects)
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
        connection, deliveries = self._connection, self._deliveries
        if epoch != connection.epoch or connection.state not in SERVING or not deliveries.in_flight.is_next(tag):
            self._stale += 1
            return []
        connection.received = True
        if self._calls.subscribed and routing_key == self._calls.key:
            return self._result(epoch, tag, exchange, routing_key, properties, body, now)
        if connection.state is DRAINING:  # it crossed our cancel: somebody else's work
            return [Nack(epoch, tag, True)]
        return deliveries.delivered(epoch, tag, redelivered, exchange, routing_key, properties, body, now)

    def in_flight(self, delivery: DeliveryId) -> bool:
        """Whether the delivery is on the present link, and neither settled nor to be settled."""
        return self._deliveries.is_undecided(delivery)

    def deferred(self, delivery: DeliveryId) -> bool:
        """Whether its handler is over and has left the acknowledgement for later: what is published within it is sent
        at once, and no failure can take it back."""
        return self._deliveries.is_deferred(delivery)

    def handled(self, delivery: DeliveryId, outcome: Outcome, now: float) -> list[Effect]:
        """The handler of a ``Dispatch`` has come to its end."""
        effects: list[Effect] = []
        if self._deliveries.handled(delivery, outcome, now, effects):
            self._now_configured(effects)
        self._proceed(now, effects)
        return effects

    def failed(self, delivery: DeliveryId, failure: Failed, now: float) -> list[Effect]:
        """A message whose acknowledgement was deferred has failed after all: the retry policy decides.

        Raises:
            LocalError: as :meth:`ack`.
        """
        effects: list[Effect] = []
        self._deliveries.fail(delivery, failure, now, effects)
        self._proceed(now, effects)
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
        self._deliveries.settle(delivery, ACK, multiple, now, effects)
        self._proceed(now, effects)
        return effects

    def nack(self, delivery: DeliveryId, now: float, *, requeue: bool = False, multiple: bool = False) -> list[Effect]:
        """Reject by hand: back to the queue, or, once the publishes of the delivery are confirmed, to the dead letters.

        Back to the queue counts as an attempt: nothing else can be seen of it where it is delivered again.

        Raises:
            LocalError: as :meth:`ack`.
        """
        effects: list[Effect] = []
        self._deliveries.settle(delivery, REQUEUE if requeue else REJECT, multiple, now, effects)
        self._proceed(now, effects)
        return effects

    def ack_together(self, deliveries: Iterable[DeliveryId], now: float) -> list[Effect]:
        """Acknowledge those that are :meth:`in_flight`, none before all publishes of all of them are confirmed.

        If the handler of one still runs, and fails before what it has published is confirmed, all fail.
        """
        effects: list[Effect] = []
        self._deliveries.ack_together(deliveries, now, effects)
        self._proceed(now, effects)
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
        asks_return: bool = False,
    ) -> list[Effect]:
        """Publish an event, command, result or configuration.

        Args:
            within: the delivery whose handler publishes. While that runs the message is held until it succeeds (rule
                R6), and the acknowledgement waits for the confirm. A handler that is over counts as outside.
            mandatory: hear of it by ``Returned`` if it is unroutable; by default so for commands and results.
            immediate: do not hold it.
            ticket: comes back in ``PublishDone`` once the message is confirmed, or held.
            asks_return: ``PublishDone`` alone tells whether the message was unroutable; without ``Returned`` or report.

        Raises:
            LocalError: the message is not one that can be sent (see :func:`eda_core.messages.envelope.seal`).
            BufferFull: too many publishes wait for the broker; ``BufferAvailable`` tells when there is space again. Or
                the handler holds too many.
            StateError: the service has stopped.
        """
        effects: list[Effect] = []
        if self._connection.state in OVER:
            raise StateError(f"the service is {self.state}", hint="publish before it stops")
        sealed = seal(message, self._content_type, self.config.limits)
        deliveries = self._deliveries
        delivery = None if within is None else deliveries.in_flight.by_id.get(within)
        if delivery is not None and not immediate and delivery.stage in HOLDING:
            if len(delivery.held) >= self.config.held:
                deliveries.refuse_held(delivery)
            delivery.held.append(self._stamp(sealed, mandatory, delivery, None, False))
        elif not immediate and deliveries.is_orphaned(within):  # its redelivery makes it again
            self._stale += 1
        else:
            self._reserve(delivery)
            publish = self._stamp(sealed, mandatory, delivery, ticket, True)
            publish.asks_return = asks_return
            deliveries.await_confirm(delivery, publish)
            self._outbox.backlog.append(publish)
            self._proceed(now, effects)
            return effects
        if ticket is not None:
            effects.append(PublishDone(ticket))
        return effects

    def confirmed(self, epoch: Epoch, tag: int, now: float, *, multiple: bool = False) -> list[Effect]:
        """The broker has taken the publish with this confirm tag (and all open ones below, if ``multiple``)."""
        effects: list[Effect] = []
        if epoch != self._connection.epoch:
            self._stale += 1
            return effects
        safe = self._outbox.confirmed(tag, multiple)
        if safe:
            self._connection.progress = True
        for publish in safe:
            if publish.ticket is not None:
                effects.append(PublishDone(publish.ticket, None, publish.returned))
            if publish.delivery is not None:
                self._deliveries.confirmed(publish.delivery, now, effects)
        self._proceed(now, effects)
        return effects

    def refused(self, epoch: Epoch, tag: int, now: float, *, multiple: bool = False) -> list[Effect]:
        """The broker has refused the publish (a full queue, a failed node): it is sent again, whole, until accepted."""
        effects: list[Effect] = []
        if self._is_stale(epoch):
            return effects
        delay = self.config.retry_delay
        count, unwanted = self._outbox.refused(tag, multiple, now + delay)
        if count:
            effects.append(Report(WARNING, f"the broker refused {count} publish(es), sending again in {delay:g} s"))
        self._dropped(unwanted, now, effects)
        self._proceed(now, effects)
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
        if not exchange:  # only delayed retries go there; opening the link anew declares their queues again
            return self._give_up_link(epoch, f"the retry queue {routing_key} is gone", now)
        calls = self._calls
        call = calls.take(properties.correlation_id) if properties.reply_to == calls.key else None
        if call is not None:
            effects: list[Effect] = [Replied(call.ticket, call.command, None, f"no service is bound to it ({reason})")]
            self._cancel([call], now, effects)
            return effects
        publish = self._outbox.returned(properties.message_id, reason)
        if publish is not None and publish.asks_return:
            return []
        try:
            payload = decode(body, properties.content_type, self.config.limits)
        except DecodeError as error:  # not one of ours, or damaged on the way: the service hears of it all the same
            payload, reason = None, f"{reason}; {error}"
        return [
            Report(WARNING, f"{exchange}/{routing_key} came back: {reason}"),
            Returned(routing_key, payload, envelope_of(properties), reason),
        ]

    # Calls

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
            timeout: seconds until it is over without a result. A result that comes later is dropped, and the command is
                not sent any more.
            conversation_id: by default that of ``within``, else (a configuration may have none) a new one.
            within: the delivery whose handler calls; its acknowledgement waits for the command's confirm.

        Raises:
            LocalError: the command is not one that can be sent (see :func:`eda_core.messages.envelope.seal`).
            BufferFull: too many publishes wait for the broker, or too many calls for results.
            StateError: the service has stopped.
        """
        effects: list[Effect] = []
        if self._connection.state in OVER:
            raise StateError(f"the service is {self.state}", hint="call before it stops")
        delivery, calls = self._deliveries.find(within), self._calls
        correlation_id = self._correlation_id(ticket)
        if not conversation_id and delivery is not None:
            conversation_id = delivery.message.conversation_id
        message = Command(command, payload, conversation_id or correlation_id, calls.key, correlation_id)
        sealed = seal(message, self._content_type, self.config.limits)
        self._reserve(delivery, timeout)
        publish = self._stamp(sealed, True, delivery, None, True)
        self._deliveries.await_confirm(delivery, publish)
        self._outbox.may_cancel(publish)
        calls.add(correlation_id, Call(ticket, command, now + timeout, publish))
        if not calls.subscribed:
            calls.subscribed = True
            self._connection.want(replies(calls.key), now, effects)
        if self._connection.usable(REPLIES):
            self._outbox.backlog.append(publish)
            self._proceed(now, effects)
        else:
            calls.hold(publish)
        return effects

    def forget_call(self, ticket: int, now: float) -> list[Effect]:
        """Nobody waits for the call any more: its result will be dropped, and its command is not sent any more."""
        effects: list[Effect] = []
        call = self._calls.take(self._correlation_id(ticket))
        if call is not None:
            self._cancel([call], now, effects)
        return effects

    def _correlation_id(self, ticket: int) -> str:
        return f"{self._token}-call-{ticket}"

    def _result(
        self,
        epoch: Epoch,
        tag: int,
        exchange: str,
        routing_key: str,
        properties: Basic.Properties,
        body: bytes,
        now: float,
    ) -> list[Effect]:
        """A message came to the queue for the results of calls."""
        try:
            message = open_envelope(exchange, routing_key, properties, body, self.config.limits)
        except InvalidEnvelope as invalid:
            return self._deliveries.reject_invalid(epoch, tag, exchange, routing_key, invalid, now)
        effects: list[Effect] = [Ack(epoch, tag, False)]
        call = self._calls.take(message.correlation_id) if isinstance(message, Result) else None
        if call is not None and isinstance(message, Result):
            effects.append(Replied(call.ticket, call.command, message))
            self._cancel([call], now, effects)
            return effects
        self._calls.late += 1
        text = f"a result that nobody waits for (any more) is dropped: the {self._calls.late}. so far"
        effects.append(Report(WARNING, text))
        self._logs.write(WARNING, text, now, effects, conversation_id=message.conversation_id)
        return effects

    def _cancel(self, calls: Sequence[Call], now: float, effects: list[Effect]) -> None:
        """These calls are over: their commands are not sent any more, or not again."""
        publishes = [call.publish for call in calls]
        self._outbox.backlog.extend(self._calls.drop(publishes))
        self._dropped(self._outbox.cancel(publishes), now, effects)
        self._proceed(now, effects)

    def _dropped(self, publishes: Iterable[Publish], now: float, effects: list[Effect]) -> None:
        """No acknowledgement waits for these publishes any more."""
        for publish in publishes:
            if publish.delivery is not None:
                self._deliveries.confirmed(publish.delivery, now, effects)

    # Steps

    def _is_stale(self, epoch: Epoch) -> bool:
        if epoch == self._connection.epoch:
            return False
        self._stale += 1
        return True

    def _reserve(self, delivery: Delivery | None, timeout: float | None = None) -> None:
        """Take space in the outbox for one publish that is not held, or for a call.

        A handler gets space beyond the limit, up to a limit of its own: want of space must not fail a delivery (rule
        R9).

        Args:
            timeout: of a call.

        Raises:
            LocalError: the time is not one.
            BufferFull: there is no space.
        """
        try:
            if timeout is not None:
                self._calls.check(timeout)
            if not self._deliveries.has_credit(delivery):
                self._outbox.refuse_if_full()
        except BufferFull:
            self._starved = self._outbox.wanted = True
            raise
        self._outbox.kept += 1

    def _stamp(
        self,
        sealed: tuple[str, str, Basic.Properties, bytes],
        mandatory: bool | None,
        delivery: Delivery | None,
        ticket: int | None,
        kept: bool,
    ) -> Publish:
        """Give the publish its identity: a fresh message id, which client libraries match returns by, and its cause."""
        exchange, routing_key, properties, body = sealed
        outbox = self._outbox
        outbox.published = number = outbox.published + 1
        properties.message_id = f"{self._token}-{number}"
        if properties.app_id is None:
            properties.app_id = self.config.service
        if mandatory is None:
            mandatory = exchange == COMMANDS
        identifier = None
        if delivery is not None:
            identifier = delivery.id
            cause = delivery.properties.message_id
            if cause and type(cause) is str and properties.headers is not None:
                properties.headers[CAUSATION_ID] = cause
        return Publish(
            number,  # type: ignore[arg-type]  # a call of a NewType costs too much here
            exchange,
            routing_key,
            properties,
            body,
            mandatory=mandatory,
            delivery=identifier,
            ticket=ticket,
            kept=kept,
        )

    def _proceed(self, now: float, effects: list[Effect]) -> None:
        """The end of every input that may have finished something: send and settle what now can be."""
        connection, outbox, deliveries = self._connection, self._outbox, self._deliveries
        if outbox.backlog and outbox.blocked_since is None and connection.state in SERVING:
            outbox.send(connection.epoch, now, effects)
        in_flight = deliveries.in_flight
        if in_flight.to_ack:
            connection.progress = True
            in_flight.flush(effects)
        if outbox.wanted and outbox.kept < outbox.limit:
            deliveries.resume(effects)
            if self._starved and not self._calls.full():
                self._starved = False
                effects.append(BufferAvailable())
            outbox.wanted = self._starved or bool(deliveries.paused)
        if connection.stop_due is not None:
            self._finish_if_quiet(now, effects)

    def _give_up_link(self, epoch: Epoch, reason: str, now: float) -> list[Effect]:
        effects: list[Effect] = []
        if not self._is_stale(epoch) and self._connection.state not in OVER:
            self._follow(self._connection.give_up(reason, now, effects), now, effects)
        return effects

    def _finish_if_quiet(self, now: float, effects: list[Effect]) -> None:
        connection = self._connection
        if connection.stop_due is None or connection.state in OVER or self._holds:
            return
        if not self._deliveries.busy() and not self._outbox.kept:
            self._follow(connection.finish(now, effects), now, effects)

    # What follows from what happened to the link

    def _follow(self, happened: str | None, now: float, effects: list[Effect]) -> None:
        if happened is not None:
            _FOLLOWING[happened](self, now, effects)

    def _opened(self, now: float, effects: list[Effect]) -> None:
        connection, config = self._connection, self.config
        self._configured = not config.configurations or not config.wait_for_configuration
        self._deliveries.opened(connection.queues)
        self._logs.opened(connection.epoch, effects)
        if REPLIES in connection.queues:
            self._added(now, effects)
        if connection.state is OPEN:
            if self._configured:
                self._consume(connection.queues, effects)
                effects.append(Ready())
            else:
                self._consume((CONFIGURATIONS,), effects)
                effects.append(Unconfigured())
        self._proceed(now, effects)

    def _added(self, now: float, effects: list[Effect]) -> None:
        """The queue for the results of calls is bound. Handlers wait for them during a stop, too."""
        self._connection.consume(REPLIES, effects, while_stopping=True)
        self._outbox.backlog.extend(self._calls.release())
        self._proceed(now, effects)

    def _consume(self, tags: Iterable[str], effects: list[Effect]) -> None:
        for tag in tags:
            if tag != REPLIES:
                self._connection.consume(tag, effects)

    def _now_configured(self, effects: list[Effect]) -> None:
        if not self._configured:
            self._configured = True
            if self._connection.state is OPEN:
                self._consume([tag for tag in self._connection.queues if tag != CONFIGURATIONS], effects)
                effects.append(Ready())

    def _lost(self, now: float, effects: list[Effect]) -> None:
        self._forget_link()
        self._proceed(now, effects)

    def _closing(self, now: float, effects: list[Effect]) -> None:
        self._abandon(effects)
        effects.append(Close(self._connection.epoch, "the service stops"))

    def _ended(self, now: float, effects: list[Effect]) -> None:
        self._abandon(effects)
        effects.append(Stopped(self._connection.error))

    def _forget_link(self, *, over: bool = False) -> None:
        """What was on the link is the broker's again."""
        self._deliveries.lose_link(self._connection.epoch, over=over)
        self._outbox.lose_link()
        self._calls.lose_link()
        self._logs.lost()

    def _abandon(self, effects: list[Effect]) -> None:
        """Nothing more is sent: tell what can no longer be done."""
        self._forget_link(over=True)
        unsafe = self._outbox.abandon()
        error = "the service stopped before the broker confirmed it"
        effects.extend(PublishDone(publish.ticket, error) for publish in unsafe if publish.ticket is not None)
        dropped = sum(publish.kept for publish in unsafe)
        if dropped:
            effects.append(Report(EMERGENCY, f"{dropped} publish(es) were never confirmed by the broker"))
        error = "the service stopped before its result came"
        effects.extend(Replied(call.ticket, call.command, None, error) for call in self._calls.abandon())


#: The hooks of a service, by the effect that calls them.
_HOOKS: dict[type, str] = {
    Ready: "on_ready",
    Unconfigured: "on_unconfigured",
    Returned: "handle_returned_message",
}

_FOLLOWING: dict[str, Callable[[Machine, float, list[Effect]], None]] = {
    OPENED: Machine._opened,
    ADDED: Machine._added,
    LOST: Machine._lost,
    CLOSING: Machine._closing,
    ENDED: Machine._ended,
}
