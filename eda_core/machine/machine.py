"""The machine of one service. It decides everything, and does no I/O.

For everything that happens a driver calls an *input*, a method of :class:`Machine`, with ``now``, in monotonic seconds.
The input returns *effects*, which the driver performs in order. When :meth:`Machine.deadline` has passed, the driver
calls :meth:`Machine.tick`.

The machine has five parts, and each owns its state: :class:`Connection` (the link), :class:`Deliveries` (received
messages), :class:`Outbox` (published messages), :class:`Calls` and :class:`Logs`. A part returns what has happened, and
this module decides what that means for the other parts. It knows nothing of sockets, clocks, threads and event loops.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from pamqp import base
from pamqp.commands import Basic

from eda_core._version import __version__
from eda_core.checks import is_number
from eda_core.criticality import ALERT, EMERGENCY, ERROR, NOTICE, WARNING
from eda_core.errors import BufferFull, LocalError, StateError
from eda_core.machine.calls import Call, Calls, reply_key
from eda_core.machine.config import Config
from eda_core.machine.connection import ADDED, CLOSING, ENDED, LOST, OPENED, Connection
from eda_core.machine.counts import Counts
from eda_core.machine.deliveries import ABANDONED, ACK, HOLDING, REJECT, REQUEUE, Deliveries, Read
from eda_core.machine.effects import (
    CHECKING,
    CONSUMING,
    LOGGING,
    ON_LINK,
    PUBLISHING,
    Ack,
    BufferAvailable,
    Close,
    Connect,
    Declare,
    Dispatch,
    Effect,
    Nack,
    OpenChannel,
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
from eda_core.machine.events import (
    BLOCKED,
    CALLBACK_FAILED,
    CHANNEL_CLOSED,
    CONFIGURED,
    LATE_RESULT,
    PUBLISH_FAILED,
    PUBLISH_REFUSED,
    READY,
    RECONNECTED,
    RETURNED,
    STARTED,
    UNBLOCKED,
    UNCONFIGURED,
    UNCONFIRMED,
)
from eda_core.machine.events import STOPPED as HAS_STOPPED
from eda_core.machine.health import Health, LinkHealth
from eda_core.machine.identifiers import DeliveryId, Epoch
from eda_core.machine.in_flight import Delivery
from eda_core.machine.link import DRAINING, OPEN, OVER, SERVING, STOPPED, WITHOUT_LINK
from eda_core.machine.logs import Logs, WallOffset
from eda_core.machine.metrics import Metrics, handler_metrics
from eda_core.machine.outbox import Outbox
from eda_core.machine.outcomes import Failed, Outcome
from eda_core.machine.topology import NOT_FOUND, PRECONDITION_FAILED, REPLIES, replies
from eda_core.messages.codec import JSON, DecodeError, decode
from eda_core.messages.envelope import InvalidEnvelope, envelope_of, open_envelope, seal
from eda_core.messages.headers import CAUSATION_ID, DEDUPLICATION_ID
from eda_core.messages.routing import COMMANDS, CONFIGURATIONS, LOGS
from eda_core.messages.values import AnyMessage, Command, Result
from eda_core.text import shortened
from eda_core.urls import redact


class Machine:
    """The machine of one service: it turns inputs into effects.

    Args:
        config: the configuration of the service.
        random: returns evenly distributed numbers from 0 to 1, for the delays between attempts to connect.
        token: a few random characters, which make message ids unique among all workers.
        wall_offset: what to add to ``now`` to get seconds since 1970 (POSIX time), for the time stamps of logs. A
            function that returns this is asked for each record, so that the time stamps follow a clock that is set.
        read: reads a delivery as a message, or raises ``InvalidEnvelope``. A tool that shows all deliveries gives its
            own function.

    Attributes:
        config: the configuration of the service.
    """

    __slots__ = (
        *"_ask_due _asked _blamed _broker _calls _calls_wanted _configured _connection _consuming".split(),
        *"_content_type _counts _deliveries _holds _library _logs _outbox _publishing _random _stale _starved".split(),
        *"_received _token _waits_since _warn_due config".split(),
    )

    def __init__(
        self,
        config: Config,
        *,
        random: Callable[[], float],
        token: str,
        wall_offset: WallOffset,
        read: Read = open_envelope,
    ) -> None:
        self.config: Config = config
        self._token = token
        self._content_type = config.content_type
        self._configured = False
        self._random = random
        #: When to ask for a configuration again, monotonic seconds, and how often this was done since the last one.
        self._ask_due: float | None = None
        self._asked = 0
        #: When to warn that the service is not configured yet, and since when it waits for that, monotonic seconds.
        self._warn_due: float | None = None
        self._waits_since = 0.0
        #: The names of the configurations that came meanwhile, as keys.
        self._received: dict[str, None] = {}
        self._holds = 0
        self._broker = self._library = ""
        self._stale = 0
        #: Whether the broker has ended the link, perhaps because a handler has taken too long.
        self._blamed = False
        #: Whether a caller got BufferFull, because the outbox was full or because there were too many calls, and was
        #: not told yet that there is space again.
        self._starved = self._calls_wanted = False
        self._counts = counts = Counts()
        self._connection = Connection(config, random, counts)
        self._consuming, self._publishing = self._connection.consuming, self._connection.publishing
        self._logs = Logs(config, wall_offset)
        self._outbox = Outbox(config, counts)
        self._calls = Calls(reply_key(config.service, token, config.commands), config.buffer)
        self._deliveries = Deliveries(config, self._outbox, self._logs, read, counts)

    def __repr__(self) -> str:
        return (
            f"<Machine {self.config.service} {self.state}, link {self.epoch}, "
            f"{len(self._deliveries.in_flight)} in flight, {self._outbox.kept} to publish>"
        )

    @property
    def state(self) -> str:
        """The state of the link: a constant of :mod:`eda_core.machine.link`, such as ``"open"``."""
        return self._connection.state

    @property
    def epoch(self) -> Epoch:
        """The number of the present link, or of the next one while there is none."""
        return self._connection.epoch

    @property
    def sends_logs(self) -> bool:
        """Whether log records are sent at once. Otherwise the latest 100 are kept for the next link."""
        return self._logs.open

    @property
    def ready(self) -> bool:
        """Whether the service receives its messages: the link is open, and the service is configured if it has to be.

        It is false again when a stop was asked for.
        """
        return self._configured and self._connection.state is OPEN

    @property
    def stopping(self) -> bool:
        """Whether a stop was asked for. It stays true when the service has stopped."""
        return self._connection.stop_due is not None

    @property
    def stale(self) -> int:
        """How many inputs were ignored because they are about an earlier link or an ended delivery."""
        return self._stale + self._deliveries.stale

    @property
    def urls(self) -> tuple[str, ...]:
        """The URLs of the brokers. The first one is that of the link, or of the next attempt to connect."""
        return self._connection.urls()

    @property
    def published(self) -> int:
        """How many messages were accepted for publishing so far."""
        return self._outbox.published

    @property
    def last_message_id(self) -> str:
        """The ``message_id`` of the message that was accepted last; of no use if there was none."""
        return f"{self._token}-{self._outbox.published}"

    def metrics(self, now: float) -> Metrics:
        """Return the numbers of the service at ``now``. This is no input: it changes nothing."""
        counts, deliveries, outbox = self._counts, self._deliveries, self._outbox
        return Metrics(
            service=self.config.service,
            received=counts.received,
            acknowledged=counts.acknowledged,
            retried=counts.retried,
            dead_lettered=counts.dead_lettered,
            given_back=counts.given_back,
            lost=counts.lost,
            in_flight=len(deliveries.in_flight),
            paused=deliveries.waiting(),
            running=deliveries.running(),
            oldest_delivery=deliveries.oldest(now)[0],
            failed=counts.failed,
            published=outbox.published,
            confirmed=counts.confirmed,
            refused=counts.refused,
            returned=counts.returned,
            unsendable=counts.unsendable,
            dropped=counts.dropped,
            held=deliveries.held(),
            waiting=outbox.kept,
            unconfirmed=outbox.unconfirmed(),
            calls=len(self._calls),
            connecting=counts.connecting,
            links_opened=counts.links_opened,
            links_lost=counts.links_lost,
            link_open=self._connection.state in SERVING,
            ready=self.ready,
            handlers=handler_metrics(counts),
        )

    def health(self, now: float) -> Health:
        """Return what the service does at ``now``. This is no input: it changes nothing."""
        config, connection, counts = self.config, self._connection, self._counts
        deliveries, outbox, serving = self._deliveries, self._outbox, connection.state in SERVING
        age, oldest = deliveries.oldest(now)
        blocked, since = outbox.blocked_since, connection.since
        return Health(
            service=config.service,
            worker=f"{config.hostname}:{config.pid}",
            state=connection.state,
            ready=self.ready,
            configured=self._configured and serving,
            stopping=self.stopping,
            link=LinkHealth(
                url=redact(connection.urls()[0]),
                broker=self._broker,
                open=serving,
                seconds=None if since is None else now - since,
                number=connection.epoch,
                opened=counts.links_opened,
                lost=counts.links_lost,
                blocked=None if blocked is None else now - blocked,
            ),
            queues=tuple(connection.queues.values()),
            in_flight=len(deliveries.in_flight),
            running=deliveries.running(),
            paused=deliveries.waiting(),
            oldest_seconds=None if oldest is None else age,
            oldest_name="" if oldest is None else oldest.message.name,
            waiting=outbox.kept,
            held=deliveries.held(),
            calls=len(self._calls),
        )

    # The link

    def start(self, now: float) -> list[Effect]:
        """Begin to connect.

        Raises:
            StateError: the machine was started before.
        """
        effects: list[Effect] = []
        self._connection.start(now, effects)
        return effects

    def link_up(self, epoch: Epoch, now: float, *, broker: str = "", library: str = "") -> list[Effect]:
        """Report that the link of a ``Connect`` is complete. All inputs about a link have its number as ``epoch``.

        Args:
            broker: the name and the version of the broker, for the log; "" if they are not known.
            library: the name and the version of the client library, for the log.

        Raises:
            StateError: this was reported before.
        """
        effects: list[Effect] = []
        if not self._is_stale(epoch):
            self._broker, self._library = broker, library
            self._connection.link_up(effects)
        return effects

    def declared(
        self, epoch: Epoch, replies: Sequence[base.Frame], now: float, *, channel: str = CONSUMING
    ) -> list[Effect]:
        """Report the broker's replies to the commands of a ``Declare``, in order.

        Args:
            channel: that of the ``Declare``.

        Raises:
            StateError: there was no ``Declare``.
        """
        effects: list[Effect] = []
        if not self._is_stale(epoch):
            self._follow(self._connection.declared(replies, now, effects, channel), now, effects)
        return effects

    def link_down(self, epoch: Epoch, reason: str, now: float, *, refused: str = "") -> list[Effect]:
        """Report that the link could not be opened, was lost, or is closed after a ``Close``.

        Args:
            reason: why, in one line. Passwords in URLs are removed.
            refused: what the broker refused during the login (:func:`eda_core.drivers.login_refusal`):
                ``CREDENTIALS``, or ``VHOST``, which is missing or not permitted; "" if it refused neither. A service
                ends when all URLs refuse it; but not for a virtual host that it has used before, because an operator
                may give it back.
        """
        effects: list[Effect] = []
        if not self._is_stale(epoch):
            happened = self._connection.down(reason, now, effects, refused)
            if happened is None:
                self._stale += 1
            self._follow(happened, now, effects)
        return effects

    def channel_closed(
        self,
        epoch: Epoch,
        reason: str,
        now: float,
        *,
        channel: str = CONSUMING,
        declaration: base.Frame | None = None,
    ) -> list[Effect]:
        """Report that the broker has closed a channel.

        The channel for publishing is opened again, and the publish is found for which the broker has closed it: its
        caller is told, or its delivery fails. Without the channel for logs the service goes on without logs, and
        without the one that checks the node it does not check it any more. If it is the channel for consuming, the
        link is closed and opened again.

        Args:
            reason: what the broker says, such as "ACCESS_REFUSED - access to topic …".
            channel: ``CONSUMING``, ``PUBLISHING``, ``LOGGING``, or that of a ``Declare``.
            declaration: the command of a ``Declare`` that the broker has refused, if it did so for that.
        """
        if self._is_stale(epoch):
            return []
        effects: list[Effect] = []
        if declaration is not None:
            self._connection.refused(declaration, reason, effects)
        if self._connection.state in SERVING and channel == PUBLISHING and self._outbox.unconfirmed():
            return self._publishing_closed(epoch, reason, now)
        if self._connection.state in SERVING and channel == LOGGING:
            return self._logging_closed(epoch, reason, now)
        if channel == CHECKING:
            self._connection.check_refused()
            return effects
        return effects + self._give_up_link(epoch, f"channel closed: {reason}", now, blamed=channel == CONSUMING)

    def channel_opened(self, epoch: Epoch, now: float, *, channel: str = PUBLISHING) -> list[Effect]:
        """Report that the channel of an ``OpenChannel`` is open."""
        effects: list[Effect] = []
        if not self._is_stale(epoch):
            if channel == LOGGING:
                self._logs.opened(epoch, effects)
            else:
                self._outbox.channel_opened()
                self._connection.watch(now, reopening=False)
                self._proceed(now, effects)
        return effects

    def alive(self, epoch: Epoch, now: float, *, channel: str, answered: bool = False) -> list[Effect]:
        """Report a sign of life from the broker on a channel, as an effect ``Probe`` asks for it.

        If the broker answers on the channel for publishing, but confirms nothing that it has read, the link is closed
        and opened again: it may be in a part of its cluster that is cut off from most other nodes.

        Args:
            answered: whether this is the answer to the ``Probe``, and not only bytes that go to and fro.
        """
        effects: list[Effect] = []
        if self._is_stale(epoch):
            return effects
        silence = self._consuming if channel == CONSUMING else self._publishing
        silence.answered = now
        if answered and channel == PUBLISHING and self._connection.state in SERVING:
            reason = self._outbox.confirms_none(silence.asked, now)
            if reason is not None:
                self._follow(self._connection.give_up(reason, now, effects, unresponsive=True), now, effects)
        return effects

    def consumer_cancelled(self, epoch: Epoch, consumer_tag: str, now: float) -> list[Effect]:
        """Report that the broker has cancelled a consumer. The link is closed and opened again.

        The reason is that the queue was deleted or has moved to another node, or that a handler has taken too long.
        """
        return self._give_up_link(epoch, f"the broker cancelled the consumer of {consumer_tag}", now, blamed=True)

    def blocked(self, epoch: Epoch, reason: str, now: float) -> list[Effect]:
        """Report that the broker blocks publishing, because it is short of memory or disk space."""
        if self._is_stale(epoch) or self._connection.state in WITHOUT_LINK:
            return []
        self._outbox.block(now)
        self._connection.watch(now, blocked=True)
        return [Report(WARNING, f"the broker blocks publishing: {reason}", BLOCKED)]

    def unblocked(self, epoch: Epoch, now: float) -> list[Effect]:
        """Report that the broker does not block publishing any more."""
        effects: list[Effect] = []
        if not self._is_stale(epoch) and self._outbox.unblock(now):
            self._connection.watch(now, blocked=False)
            effects.append(Report(NOTICE, "the broker takes publishes again", UNBLOCKED))
            self._proceed(now, effects)
        return effects

    def effect_failed(self, effect: Effect, reason: str, now: float) -> list[Effect]:
        """Report that the driver could not perform an effect. If the effect was for the link, the link is closed.

        Not so for the ``Declare`` that checks the node: the node is not checked any more on this link.
        """
        reason = redact(reason)
        if isinstance(effect, Dispatch):
            return self.handled(effect.delivery, Failed(reason), now)
        if isinstance(effect, (Connect, Close)):
            return self.link_down(effect.epoch, reason, now)
        if isinstance(effect, Declare) and effect.channel == CHECKING:
            self._connection.check_refused()
            return []
        if isinstance(effect, ON_LINK):
            return self._give_up_link(effect.epoch, f"{effect!r} failed: {reason}", now)
        if isinstance(effect, (PublishLog, Report)):  # a log record about it would fail as well
            return []
        return self.callback_failed(effect, Failed(reason), now)

    def _publishing_closed(self, epoch: Epoch, reason: str, now: float) -> list[Effect]:
        """Open the channel for publishing again, and tell or find out for which publish the broker has closed it."""
        outbox = self._outbox
        optional = self.config.dead_letter_exchange  # no link declares it
        others = not (optional and f"'{optional}'" in reason)
        if NOT_FOUND in reason and others and not outbox.are_missing(outbox.exchanges()):
            return self._give_up_link(epoch, f"channel closed: {reason}", now)  # the next link declares it again
        self._connection.watch(now, reopening=True)
        effects: list[Effect] = [OpenChannel(epoch, PUBLISHING)]
        several = outbox.unconfirmed() > 1
        culprit, dropped = outbox.channel_closed(now)
        if culprit is not None:
            self._publish_failed(culprit, f"the broker does not take it: {redact(reason)}", now, effects)
        elif several:
            text = f"the broker closed the channel for publishing: {redact(reason)}; "
            text += f"each of the last {outbox.suspects} publishes is sent alone now, to find the one that it refuses"
            effects.append(Report(WARNING, text, CHANNEL_CLOSED))
        self._dropped(dropped, now, effects)
        self._proceed(now, effects)
        return effects

    def _publish_failed(self, publish: Publish, reason: str, now: float, effects: list[Effect]) -> None:
        """Tell whoever has to know that a publish is not sent any more: its caller, or its delivery, or the log."""
        text = f"the publish of {shortened(publish.routing_key)} ({len(publish.body)} bytes) has failed: {reason}"
        calls, key, level = self._calls, publish.properties.correlation_id, WARNING
        call = calls.take(key) if publish.properties.reply_to == calls.key else None
        if call is not None:
            effects.append(Replied(call.ticket, call.command, None, reason))
        elif publish.ticket is not None:
            effects.append(PublishDone(publish.ticket, reason, refused=True))
        elif publish.delivery is not None and self._deliveries.publish_failed(publish, text, now, effects):
            return
        else:
            level = EMERGENCY
            self._logs.write(level, text, now, effects)
        effects.append(Report(level, text, PUBLISH_FAILED))
        self._dropped([publish], now, effects)

    def _logging_closed(self, epoch: Epoch, reason: str, now: float) -> list[Effect]:
        """Go on without logs on this link; or with a new channel if the broker only refuses one record."""
        if NOT_FOUND in reason and not self._outbox.are_missing({LOGS}):
            return self._give_up_link(epoch, f"channel closed: {reason}", now)  # the next link declares it again
        effects: list[Effect] = []
        again = PRECONDITION_FAILED in reason
        if self._logs.channel_closed(reason):
            rest = "drops this record" if again else "publishes no logs on this link"
            text = f"the broker closed the channel for logs: {redact(reason)}; the service {rest}"
            effects.append(Report(WARNING, text, CHANNEL_CLOSED))
        if again:
            effects.append(OpenChannel(epoch, LOGGING))
        return effects

    # The service

    def callback_failed(self, effect: Effect | None, failure: Failed, now: float) -> list[Effect]:
        """Report that a hook or a timer of the service has failed.

        The service stops if its ``on_ready`` or ``on_unconfigured`` fails, because it would seem to run but do nothing.
        If it stops already, that is no error of the service: what the hook waited for does not come any more.

        Args:
            effect: the effect that called the hook; ``None`` if it was a timer.
        """
        effects: list[Effect] = []
        fatal = isinstance(effect, (Ready, Unconfigured))
        if fatal and self.stopping:
            hook = _HOOKS[type(effect)]
            return [Report(WARNING, f"{hook} was broken off by the stop: {failure.reason}", CALLBACK_FAILED)]
        what = "a timer" if effect is None else _HOOKS.get(type(effect), f"the effect {type(effect).__name__}")
        text = f"{what} failed: {failure.reason}"
        shown = f"{text}\n{failure.detail}" if failure.detail else text
        effects.append(Report(ALERT, shown, CALLBACK_FAILED))
        self._logs.write(EMERGENCY if fatal else ALERT, text, now, effects, full=failure.detail)
        if fatal:
            self._connection.error = self._connection.error or text
            effects += self.stop(now)
        return effects

    def stop(self, now: float, timeout: float | None = None) -> list[Effect]:
        """Stop the service: take no new messages, let the handlers end, wait for confirms, acknowledge, close the link.

        A second call can only shorten the time.

        Args:
            timeout: how long this may take, seconds; by default ``Config.stop_timeout``. Then the link is closed, and
                the broker delivers unfinished messages to other workers.

        Raises:
            LocalError: the timeout is not a number.
        """
        effects: list[Effect] = []
        if timeout is None:
            timeout = self.config.stop_timeout
        elif not is_number(timeout) or timeout != timeout:
            raise LocalError(f"the timeout of stop() is {timeout!r}", hint="give seconds")
        self._follow(self._connection.stop(now + timeout, effects), now, effects)
        self._deliveries.stop(now, effects)
        self._finish_if_quiet(now, effects)
        return effects

    def hold(self, now: float) -> list[Effect]:
        """Let a stop wait until :meth:`release`, for work that the machine knows nothing of, such as a batch."""
        self._holds += 1
        return []

    def release(self, now: float) -> list[Effect]:
        """Report that the work of one :meth:`hold` is done.

        Raises:
            StateError: each hold was released before.
        """
        effects: list[Effect] = []
        if not self._holds:
            raise StateError("there is nothing to release", hint="call hold first, once for each release")
        self._holds -= 1
        self._finish_if_quiet(now, effects)
        return effects

    def use_json(self, now: float) -> list[Effect]:
        """Write the payloads of all messages that are published from now on as JSON."""
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
        """Publish a log record. It is not confirmed. Without a link the latest 100 records are kept for the next link.

        Args:
            level: a syslog severity, from 0 to 7 (:mod:`eda_core.criticality`).
            short: the message in one line.
            full: the whole message, such as a traceback.
            fields: additional fields.

        Raises:
            LocalError: the level is not a syslog severity, or the name of a field is not allowed.
        """
        effects: list[Effect] = []
        self._logs.write(level, short, now, effects, full=full, conversation_id=conversation_id, fields=fields)
        return effects

    # Time

    def deadline(self) -> float | None:
        """Return when to call :meth:`tick` next, in monotonic seconds; it may be past. ``None`` if nothing is due."""
        first = self._connection.deadline()
        for due in (self._ask_due, self._warn_due):
            if due is not None and (first is None or due < first):
                first = due
        due = self._calls.deadline()
        if due is not None and (first is None or due < first):
            first = due
        due = self._outbox.deadline(self._connection.state in SERVING)
        return due if first is None or (due is not None and due < first) else first

    def tick(self, now: float) -> list[Effect]:
        """Do what is due at ``now``. Early, late and repeated calls do no harm (rule R7)."""
        effects: list[Effect] = []
        self._follow(self._connection.tick(now, effects, busy=self._deliveries.busy()), now, effects)
        if self._ask_due is not None and now >= self._ask_due:
            self._ask_due = None
            if self._connection.state is OPEN:
                effects.append(Unconfigured())
        if self._warn_due is not None and now >= self._warn_due:
            self._still_waiting(now, effects)
        overdue = self._calls.overdue(now)
        late = "no result came in time"
        effects.extend(Replied(call.ticket, call.command, None, late, timed_out=True) for call in overdue)
        if overdue:
            self._cancel(overdue, now, effects)
        serving = self._connection.state in SERVING
        reason = self._outbox.overdue(now, serving)
        if reason is not None:
            self._follow(self._connection.give_up(reason, now, effects, unresponsive=True), now, effects)
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
        """Report that the broker has delivered a message. ``tag`` is the broker's delivery tag.

        Args:
            properties: :class:`eda_core.messages.Unreadable` if the properties or the routing key cannot be read. The
                message is dead-lettered then.
        """
        connection, deliveries = self._connection, self._deliveries
        if epoch != connection.epoch or connection.state not in SERVING or not deliveries.in_flight.is_next(tag):
            self._stale += 1
            return []
        self._consuming.heard = now
        self._counts.received += 1
        if self._calls.subscribed and routing_key == self._calls.key:
            return self._result(epoch, tag, exchange, routing_key, properties, body, now)
        if connection.state is DRAINING:  # the broker sent it before our Cancel came; another worker will get it
            self._counts.given_back += 1
            return [Nack(epoch, tag, True)]
        effects = deliveries.delivered(epoch, tag, redelivered, exchange, routing_key, properties, body, now)
        if self._outbox.backlog:  # perhaps a copy of this message, which is given up
            self._proceed(now, effects)
        if not self._configured:
            if len(self._received) < _MOST_NAMES:
                self._received[routing_key] = None
            self._ask_again(now)
        return effects

    def in_flight(self, delivery: DeliveryId) -> bool:
        """Return whether a delivery can be settled: it is on the present link, and its end is not decided yet."""
        return self._deliveries.is_undecided(delivery)

    def deferred(self, delivery: DeliveryId) -> bool:
        """Return whether its handler has ended and deferred the acknowledgement. Then its publishes are not held."""
        return self._deliveries.is_deferred(delivery)

    def attempt(self, delivery: DeliveryId) -> int:
        """Return which attempt at its message a delivery is, from 1; 0 if it has ended. Any thread may ask."""
        deliveries = self._deliveries
        found = deliveries.in_flight.by_id.get(delivery) or deliveries.of_handler(delivery)
        return 0 if found is None else found.attempt

    def handled(
        self, delivery: DeliveryId, outcome: Outcome, now: float, *, began: float | None = None
    ) -> list[Effect]:
        """Report that the handler of a ``Dispatch`` has ended.

        Args:
            began: when it began, monotonic seconds; ``None`` if it began with the ``Dispatch``.
        """
        effects: list[Effect] = []
        if self._deliveries.handled(delivery, outcome, now, effects, began):
            self._now_configured(effects)
        turns = self._deliveries.turns
        if turns is not None:
            self._deliveries.pass_turn(turns, delivery, now, effects)
        self._proceed(now, effects)
        return effects

    def collected(self, delivery: DeliveryId, now: float) -> list[Effect]:
        """Report that a batch holds the message of a handler that runs.

        If the link is lost, the message leaves the batch. So its handler does not go on for the next delivery of the
        message, as others do.

        Raises:
            LocalError: the delivery is settled already, or is no delivery of this service.
        """
        effects: list[Effect] = []
        self._deliveries.collect(delivery, now, effects)
        return effects

    def identify(self, delivery: DeliveryId, source: str, now: float) -> list[Effect]:
        """Let ``source`` identify a message to its handler, instead of its ``deduplication_id`` or its ``message_id``.

        What the handler publishes from now on gets its ``deduplication_id`` from it.
        """
        self._deliveries.identify(delivery, source)
        return []

    def failed(self, delivery: DeliveryId, failure: Failed, now: float) -> list[Effect]:
        """Treat a delivery as failed whose acknowledgement is deferred. The retry policy decides about it.

        Raises:
            LocalError: as for :meth:`ack`.
        """
        effects: list[Effect] = []
        self._deliveries.fail(delivery, failure, now, effects)
        self._proceed(now, effects)
        return effects

    def ack(self, delivery: DeliveryId, now: float, *, multiple: bool = False) -> list[Effect]:
        """Acknowledge a delivery by hand, as soon as all its publishes are confirmed.

        A delivery of a lost link is ignored, because the broker delivers the message again.

        Args:
            multiple: whether to acknowledge also all earlier deliveries of the link whose acknowledgement is deferred.

        Raises:
            LocalError: the delivery is settled already, or is no delivery of this service.
        """
        effects: list[Effect] = []
        self._deliveries.settle(delivery, ACK, multiple, now, effects)
        self._proceed(now, effects)
        return effects

    def nack(self, delivery: DeliveryId, now: float, *, requeue: bool = False, multiple: bool = False) -> list[Effect]:
        """Reject a delivery by hand. A delivery of a lost link is ignored.

        Args:
            requeue: whether the message goes back to its queue, which counts as a failed attempt. If not, it is
                dead-lettered as soon as all its publishes are confirmed.
            multiple: whether to reject also all earlier deliveries of the link whose acknowledgement is deferred.

        Raises:
            LocalError: as for :meth:`ack`.
        """
        effects: list[Effect] = []
        self._deliveries.settle(delivery, REQUEUE if requeue else REJECT, multiple, now, effects)
        self._proceed(now, effects)
        return effects

    def ack_together(self, deliveries: Iterable[DeliveryId], now: float) -> list[Effect]:
        """Acknowledge several deliveries, none before the publishes of all of them are confirmed.

        Those that are not :meth:`in_flight` are ignored. If the handler of one still runs and then fails, and not all
        that it has published is confirmed, all of them fail.
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
            within: the delivery whose handler publishes, if any. While that handler runs, the message is held until it
                succeeds (rule R6), and the acknowledgement waits for the confirm.
            mandatory: whether the broker returns the message if it is unroutable (``Returned``). By default it does so
                with commands and results.
            immediate: whether to send the message at once, although the handler runs.
            ticket: comes back in ``PublishDone`` when the message is confirmed or held, or has failed.
            asks_return: whether only ``PublishDone`` tells that the message was unroutable, and neither ``Returned``
                nor a report.

        Raises:
            LocalError: the message cannot be sent (:func:`eda_core.messages.envelope.seal`).
            BufferFull: too many publishes wait for their confirms, and ``BufferAvailable`` will tell when there is
                space again. Or the handler holds as many as it may.
            StateError: the service has stopped.
        """
        effects: list[Effect] = []
        if self._connection.state in OVER:
            raise StateError(f"the service is {self.state}", hint="publish before it stops")
        sealed = seal(message, self._content_type, self.config.limits)
        deliveries = self._deliveries
        delivery = None if within is None else deliveries.in_flight.by_id.get(within) or deliveries.of_handler(within)
        if delivery is not None and not immediate and delivery.stage in HOLDING:
            if len(delivery.held) >= self.config.held:
                raise BufferFull(
                    f"the handler of {delivery.message.name} holds {self.config.held} publishes, which is the limit",
                    hint="publish less in one handler, or with immediate=True",
                    temporary=False,
                )
            delivery.held.append(self._stamp(sealed, mandatory, delivery, None, False))
        elif delivery is not None and not immediate and delivery.stage is ABANDONED:  # it is published again later
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
        """Report that the broker has confirmed the publish with this tag, or, if ``multiple``, all up to it."""
        effects: list[Effect] = []
        if epoch != self._connection.epoch:
            self._stale += 1
            return effects
        safe = self._outbox.confirmed(tag, multiple)
        if safe:
            self._publishing.heard = now
            self._connection.progress = True
        for publish in safe:
            if publish.ticket is not None:
                effects.append(PublishDone(publish.ticket, None, publish.returned))
            if publish.delivery is not None:
                if publish.returned is None or publish.exchange != self.config.dead_letter_exchange:
                    self._deliveries.confirmed(publish.delivery, now, effects)
                else:
                    text = f"no queue is bound to {publish.exchange} for {publish.routing_key} ({publish.returned})"
                    self._deliveries.publish_failed(publish, text, now, effects)
        self._proceed(now, effects)
        return effects

    def refused(self, epoch: Epoch, tag: int, now: float, *, multiple: bool = False) -> list[Effect]:
        """Report that the broker has refused a publish, or several, as in :meth:`confirmed`. They are sent again later.

        The broker does so if a queue is full or a node has failed, for example. If it goes on without confirming
        anything, the link is closed and opened again: another channel, or another node, may take the publishes.
        """
        effects: list[Effect] = []
        if self._is_stale(epoch):
            return effects
        delay = self.config.retry_delay
        count, unwanted = self._outbox.refused(tag, multiple, now + delay)
        if count or unwanted:
            self._publishing.heard = now
        if count:
            text = f"the broker refused {count} publish(es), sending again in {delay:g} s"
            effects.append(Report(WARNING, text, PUBLISH_REFUSED))
        self._dropped(unwanted, now, effects)
        reason = self._outbox.refuses_all(now) if count else None
        if reason is not None:
            self._follow(self._connection.give_up(reason, now, effects), now, effects)
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
        """Report that the broker has returned a mandatory message as unroutable. Its confirm follows."""
        if self._is_stale(epoch):
            return []
        self._publishing.heard = now
        self._counts.returned += 1
        if not exchange:  # it was to be tried again; the next link declares the queues again
            return self._give_up_link(epoch, f"the queue {routing_key} is gone", now)
        if exchange == self.config.dead_letter_exchange:
            self._outbox.returned_copies(exchange, properties.message_id, reason)
            return []
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
        except DecodeError as error:  # the hook is called all the same
            payload, reason = None, f"{reason}; {error}"
        return [
            Report(WARNING, f"{exchange}/{routing_key} came back: {reason}", RETURNED),
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
        meta: Mapping[str, Any] | None = None,
    ) -> list[Effect]:
        """Send a command at once. ``Replied`` brings its result. The first call declares a queue for the results.

        Args:
            command: ``service.Command``.
            ticket: comes back in ``Replied``. Each ticket is used once.
            timeout: how long to wait for the result, seconds. Then the command is not sent any more, and a result that
                comes later is dropped.
            conversation_id: by default that of the delivery ``within``, or else a new one.
            within: the delivery whose handler calls, if any. Its acknowledgement waits for the confirm of the command.
            meta: the ``meta`` of the command.

        Raises:
            LocalError: the command cannot be sent (:func:`eda_core.messages.envelope.seal`), or the timeout is wrong.
            BufferFull: too many publishes wait for their confirms, or too many calls for their results.
            StateError: the service has stopped.
        """
        effects: list[Effect] = []
        if self._connection.state in OVER:
            raise StateError(f"the service is {self.state}", hint="call before it stops")
        calls = self._calls
        deliveries = self._deliveries
        delivery = None if within is None else deliveries.in_flight.by_id.get(within) or deliveries.of_handler(within)
        correlation_id = self._correlation_id(ticket)
        if not conversation_id and delivery is not None:
            conversation_id = delivery.message.conversation_id
        message = Command(
            command, payload, conversation_id or correlation_id, calls.key, correlation_id, dict(meta or {})
        )
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
        """End a call: nobody waits for it any more. Its command is not sent any more, and its result is dropped."""
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
        """End the call to which the result belongs that came to the queue for results."""
        try:
            message = open_envelope(exchange, routing_key, properties, body, self.config.limits)
        except InvalidEnvelope as invalid:
            rejected = self._deliveries.reject_invalid(
                epoch, tag, exchange, routing_key, properties, body, invalid, now
            )
            self._proceed(now, rejected)
            return rejected
        self._counts.acknowledged += 1
        effects: list[Effect] = [Ack(epoch, tag, False)]
        if isinstance(message, Result) and (call := self._calls.take(message.correlation_id)) is not None:
            effects.append(Replied(call.ticket, call.command, message))
            self._cancel([call], now, effects)
            return effects
        self._calls.late += 1
        text = f"a result that nobody waits for is dropped ({self._calls.late} so far)"
        effects.append(Report(WARNING, text, LATE_RESULT))
        self._logs.write(WARNING, text, now, effects, conversation_id=message.conversation_id)
        return effects

    def _cancel(self, calls: Sequence[Call], now: float, effects: list[Effect]) -> None:
        """Do not send the commands of these calls any more: the calls have ended."""
        publishes = [call.publish for call in calls]
        self._outbox.backlog.extend(self._calls.drop(publishes))
        self._dropped(self._outbox.cancel(publishes), now, effects)
        self._proceed(now, effects)

    def _dropped(self, publishes: Iterable[Publish], now: float, effects: list[Effect]) -> None:
        """Let no acknowledgement wait for these publishes: they are not sent any more."""
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
        """Take space in the outbox for one publish that is not held, or, with a ``timeout``, for a call.

        For a handler that runs there is more space, up to ``Config.held``: a delivery must not fail because the outbox
        is full (rule R9). Raises ``BufferFull`` if there is no space, and ``LocalError`` if the timeout is wrong.
        """
        try:
            if timeout is not None:
                self._calls.check(timeout)
            if not self._deliveries.has_credit(delivery):
                self._outbox.refuse_if_full()
        except BufferFull:
            self._outbox.wanted = True
            if timeout is not None and self._calls.full():
                self._calls_wanted = True
            else:
                self._starved = True
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
        """Make the publish of a sealed message: give it a number, a new message id, and the headers of its cause."""
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
            identifier = delivery.run
            headers, cause = properties.headers, delivery.properties.message_id
            assert headers is not None
            if cause and type(cause) is str:
                headers[CAUSATION_ID] = cause
            deduplication_id = self._deliveries.deduplication_id(delivery, routing_key)
            if deduplication_id:
                headers[DEDUPLICATION_ID] = deduplication_id
        return Publish(
            number,  # type: ignore[arg-type]  # to call a NewType takes too long here
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
        """Send, acknowledge and finish what is possible now. Each input that may have changed that calls this last."""
        connection, outbox, deliveries = self._connection, self._outbox, self._deliveries
        if not self._configured:
            self._ask_again(now)
        if outbox.backlog and outbox.blocked_since is None and connection.state in SERVING:
            outbox.send(connection.epoch, now, effects)
        in_flight = deliveries.in_flight
        if in_flight.to_ack:
            connection.progress = True
            in_flight.flush(effects)
        if outbox.wanted and outbox.kept < outbox.limit and connection.state is not STOPPED:
            deliveries.resume(now, effects)
            if self._starved or (self._calls_wanted and not self._calls.full()):
                self._starved = self._calls_wanted = False  # whoever finds no space now asks for it again
                effects.append(BufferAvailable())
            outbox.wanted = self._calls_wanted or bool(deliveries.paused)
        if connection.stop_due is not None:
            self._finish_if_quiet(now, effects)

    def _give_up_link(self, epoch: Epoch, reason: str, now: float, *, blamed: bool = False) -> list[Effect]:
        effects: list[Effect] = []
        if not self._is_stale(epoch) and self._connection.state not in OVER:
            self._blamed = blamed
            self._follow(self._connection.give_up(reason, now, effects), now, effects)
            self._blamed = False
        return effects

    def _finish_if_quiet(self, now: float, effects: list[Effect]) -> None:
        connection = self._connection
        if connection.stop_due is None or connection.state in OVER or self._holds:
            return
        if not self._deliveries.busy() and not self._outbox.kept:
            self._follow(connection.finish(now, effects), now, effects)

    # What follows from what has happened to the link

    def _follow(self, happened: str | None, now: float, effects: list[Effect]) -> None:
        if happened is not None:
            _FOLLOWING[happened](self, now, effects)

    def _opened(self, now: float, effects: list[Effect]) -> None:
        connection, config = self._connection, self.config
        self._configured = not config.configurations or not config.wait_for_configuration
        self._ask_due, self._asked = None, 0
        self._warn_due, self._waits_since = None if self._configured else now + _CONFIGURING, now
        self._received.clear()
        self._report_link(now, effects)
        self._deliveries.opened(connection.queues, connection.dead_lettering)
        self._logs.opened(connection.epoch, effects)
        if REPLIES in connection.queues:
            self._added(now, effects)
        if connection.state is OPEN:
            if self._configured:
                self._consume(connection.queues, effects)
                self._ready(effects)
            else:
                self._consume((CONFIGURATIONS,), effects)
                effects.append(Unconfigured())
        self._proceed(now, effects)

    def _report_link(self, now: float, effects: list[Effect]) -> None:
        """Report that the link is open: which one, and what the service does on it."""
        config, connection = self.config, self._connection
        broker = f"{self._broker or 'broker'} at {redact(connection.urls()[0])}"
        if connection.lost_at is not None:
            text = f"reconnected after {now - connection.lost_at:.1f} s: {broker}"
            effects.append(Report(NOTICE, text, RECONNECTED))
            return
        library = f" on {self._library}" if self._library else ""
        text = f"started: {config.connection_name}, eda-core {__version__}{library}; {broker}; "
        text += f"queues {', '.join(connection.queues.values()) or 'none'}; prefetch {config.prefetch}"
        effects.append(Report(NOTICE, text, STARTED))

    def _ready(self, effects: list[Effect]) -> None:
        names = ", ".join(tag for tag in self._connection.queues if tag != REPLIES)
        effects.append(Report(NOTICE, f"ready: receives {names or 'nothing, publishes only'}", READY))
        effects.append(Ready())

    def _added(self, now: float, effects: list[Effect]) -> None:
        """Consume the queue for the results of calls, also during a stop, because handlers may wait for them."""
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
            self._ask_due, self._asked, self._warn_due = None, 0, None
            effects.append(Report(NOTICE, "configured", CONFIGURED))
            if self._connection.state is OPEN:
                self._consume([tag for tag in self._connection.queues if tag != CONFIGURATIONS], effects)
                self._ready(effects)

    def _still_waiting(self, now: float, effects: list[Effect]) -> None:
        """Warn that the service is not configured yet: after a while, and then each time after twice as long."""
        self._warn_due = None
        if self._connection.state is OPEN:
            seconds = now - self._waits_since
            self._warn_due = now + seconds
            text = f"still waiting for a configuration handler to return True, for {seconds:.0f} s now; received: "
            text += ", ".join(map(shortened, self._received)) or "nothing"
            effects.append(Report(WARNING, text, UNCONFIGURED))
            self._logs.write(WARNING, text, now, effects)

    def _ask_again(self, now: float) -> None:
        """Ask for a configuration again after a while, if the last one was of no use."""
        if self._deliveries.useless:
            self._deliveries.useless = False
            self._asked += 1
            self._ask_due = now + self.config.reconnect.delay(self._asked, 1, self._random)

    def _lost(self, now: float, effects: list[Effect]) -> None:
        self._forget_link(now, effects)
        self._proceed(now, effects)

    def _closing(self, now: float, effects: list[Effect]) -> None:
        self._abandon(now, effects)
        effects.append(Close(self._connection.epoch, "the service stops"))

    def _ended(self, now: float, effects: list[Effect]) -> None:
        self._abandon(now, effects)
        error, counts = self._connection.error, self._counts
        handled = counts.succeeded()
        text = f"stopped: {error}; " if error else "stopped: "
        text += f"handled {handled}, failed {counts.failed}, published {self.published}"
        effects.append(Report(ERROR if error else NOTICE, text, HAS_STOPPED))
        effects.append(Stopped(error))

    def _forget_link(self, now: float, effects: list[Effect], *, over: bool = False) -> None:
        """Tell all parts that the link is lost."""
        self._logs.lost()
        self._ask_due = self._warn_due = None
        self._deliveries.lose_link(self._connection.epoch, now, effects, blamed=self._blamed, over=over)
        for publish in (*self._outbox.lose_link(), *self._calls.held()):
            self._deliveries.await_again(publish)

    def _abandon(self, now: float, effects: list[Effect]) -> None:
        """Tell all callers that wait that nothing more is sent."""
        self._forget_link(now, effects, over=True)
        unsafe = self._outbox.abandon()
        error = "the service stopped before the broker confirmed it"
        effects.extend(PublishDone(publish.ticket, error) for publish in unsafe if publish.ticket is not None)
        dropped = sum(publish.kept for publish in unsafe)
        if dropped:
            effects.append(Report(EMERGENCY, f"{dropped} publish(es) were never confirmed by the broker", UNCONFIRMED))
        error = "the service stopped before its result came"
        effects.extend(Replied(call.ticket, call.command, None, error) for call in self._calls.abandon())


def unused(config: Config) -> Machine:
    """Return a machine that is never started, for what is told of a service that does not run yet."""
    return Machine(config, random=lambda: 0.0, token="", wall_offset=0.0)


#: Seconds until the first warning that the service is not configured yet.
_CONFIGURING: Final = 30.0
#: How many names of configurations such a warning has at most.
_MOST_NAMES: Final = 10

#: The hooks of a service, by the effect that calls them.
_HOOKS: dict[type, str] = {Ready: "on_ready", Unconfigured: "on_unconfigured", Returned: "handle_returned_message"}

_FOLLOWING: dict[str, Callable[[Machine, float, list[Effect]], None]] = {
    OPENED: Machine._opened,
    ADDED: Machine._added,
    LOST: Machine._lost,
    CLOSING: Machine._closing,
    ENDED: Machine._ended,
}
