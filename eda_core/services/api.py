"""The base class of the services of all adapters: constructor, settings and methods.

An adapter adds how an input is made. Its type ``R`` is what the methods return: ``None`` with callbacks, an awaitable
with coroutines. This module decides what each argument means to the machine. It knows nothing of event loops and
threads.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Final, Generic, Self, TypeGuard, TypeVar, cast

from pamqp.commands import Basic

from eda_core.criticality import WARNING
from eda_core.drivers.base import Driver, Timed
from eda_core.drivers.handling import handled_by, run_of
from eda_core.drivers.readiness import Readiness
from eda_core.drivers.tracing import Noting, Tracing
from eda_core.errors import LocalError, StateError
from eda_core.journal.recording import RecordingMachine
from eda_core.machine import events
from eda_core.machine.config import Config
from eda_core.machine.effects import Effect
from eda_core.machine.health import Health
from eda_core.machine.identifiers import TAG_BITS, DeliveryId
from eda_core.machine.logs import WallOffset
from eda_core.machine.machine import Machine, unused
from eda_core.machine.metrics import Metrics
from eda_core.machine.outcomes import is_payload
from eda_core.machine.policy import ReconnectPolicy, RetryPolicy
from eda_core.messages import gelf
from eda_core.messages.codec import DEFAULT_LIMITS, JSON, Limits
from eda_core.messages.envelope import open_envelope
from eda_core.messages.options import options
from eda_core.messages.routing import TopicPattern
from eda_core.messages.values import ERROR, SUCCESS, AnyMessage, Command, Configuration, Event, Result
from eda_core.services.checks import check_service
from eda_core.services.claims import ClaimCheck, stored
from eda_core.services.handlers import Handlers
from eda_core.text import shortened

if TYPE_CHECKING:
    from ssl import SSLContext  # only the type: the core does not load ssl

R = TypeVar("R")
D = TypeVar("D", bound=Driver)

#: How many keys for results are checked. Keys that are made for one command each would fill the memory.
_MOST_REPLY_KEYS: Final = 1000


class _NotMade:
    """Stands for the configuration of a service whose constructor has not called that of its base class."""

    def __get__(self, service: object, owner: type) -> Self:
        if service is None:
            return self
        raise LocalError(
            f"the constructor of {owner.__name__} has not called that of its base class",
            hint="call super().__init__(amqp_urls, event_routing_keys, command_routing_keys, logical_service) in it",
        )


class ServiceApi(Handlers, Generic[R]):
    """The base class of the adapters' ``Service``.

    What a handler publishes is held until the handler has succeeded. Then it is published, and when all of it is
    confirmed, the handler's message is acknowledged (docs/architecture.rst, "Publishing in a handler").

    Args:
        amqp_urls: the URL of the broker, or several URLs, which are tried in turn.
        event_routing_keys: the binding keys of the events to receive.
        command_routing_keys: the binding keys of the commands and results to receive.
        logical_service: the name of the logical service, which all its workers share.
        config_routing_keys: the binding keys of the configurations to receive. Without any, the service is ready as
            soon as it is connected.
        log_routing_keys: the binding keys of the log records to receive, for tools.
        ssl: the TLS context for ``amqps://`` URLs. By default the certificate and the host name of the broker are
            checked, with the certificate authorities of the system.

    Raises:
        LocalError: an argument or a class attribute is wrong. The text says which, and why.
    """

    #: How many messages may be unacknowledged at once, for each queue.
    PREFETCH_COUNT: ClassVar[int] = 10
    #: The type of the queues for events and commands: ``"classic"`` or ``"quorum"``; "" for the broker's default.
    #: Queues that exist are used as they are, with a warning if they differ.
    QUEUE_TYPE: ClassVar[str] = ""
    #: How often a quorum queue delivers a message before the broker dead-letters it by itself. RabbitMQ 4 has 20 by
    #: default, RabbitMQ 3 has no limit.
    DELIVERY_LIMIT: ClassVar[int] = 20
    #: The heartbeat to propose to the broker, seconds. With 0 there are none, and nobody notices a vanished broker.
    HEARTBEAT: ClassVar[int] = 20
    #: For how long the broker may send nothing before it is asked whether it still works, seconds; 0: never. It has
    #: ``PROBE_TIMEOUT`` seconds to answer. Then the service connects to the next URL.
    PROBE_INTERVAL: ClassVar[float] = 4
    PROBE_TIMEOUT: ClassVar[float] = 4
    #: The time until a publish that the broker refused is sent again, seconds.
    RETRY_DELAY: ClassVar[float] = 15
    #: How long a resource alarm of the broker may last before another broker is tried, seconds.
    BLOCKED_TIMEOUT: ClassVar[float] = 3600
    #: How many publishes may be accepted and not yet confirmed. Beyond that, callers are refused or wait, and no
    #: handler begins.
    BUFFER: ClassVar[int] = 10_000
    #: How many publishes may be sent and not yet confirmed.
    WINDOW: ClassVar[int] = 500
    #: How long a publish may wait for its confirm before the connection is closed, seconds.
    CONFIRM_TIMEOUT: ClassVar[float] = 300
    #: How many publishes one handler may hold until it ends.
    HELD: ClassVar[int] = 10_000
    #: How large and how deep a payload may be, when it is written and when it is read.
    LIMITS: ClassVar[Limits] = DEFAULT_LIMITS
    #: The time from the start of connecting until the service receives messages, seconds.
    CONNECT_TIMEOUT: ClassVar[float] = 30
    #: How long the connection may take to close, seconds.
    CLOSE_TIMEOUT: ClassVar[float] = 5
    #: How long a stop may take before unfinished messages are left to other workers, seconds.
    STOP_TIMEOUT: ClassVar[float] = 30
    #: The name of the host in logs and in the name of the connection; by default that of the computer.
    HOSTNAME: str = ""
    #: How often a failed message is tried again, and after which time. By default there is one retry, at once.
    RETRY_POLICY: ClassVar[RetryPolicy] = RetryPolicy()
    #: The exchange to which the service publishes messages that it gives up, such as ``"am-dlx"``. Their headers say
    #: why. By default they are rejected, and a policy of the broker decides what becomes of them.
    DEAD_LETTER_EXCHANGE: ClassVar[str] = ""
    #: Whether messages may be published with a ``delay``. The service declares the queues in which they wait then.
    DELAYED_MESSAGES: ClassVar[bool] = False
    #: Which payloads are too large for the broker, and the store in which they wait. By default all are sent.
    CLAIM_CHECK: ClassVar[ClaimCheck | None] = None
    #: The name of a header, such as ``"conversation_id"``: handlers of messages with the same value there run one after
    #: the other in this worker. It is of use if handlers run at the same time: as coroutines, or in threads.
    SERIALIZE_BY: ClassVar[str] = ""
    #: When to connect again after a lost link.
    RECONNECT_POLICY: ClassVar[ReconnectPolicy] = ReconnectPolicy()

    #: Whether handlers are given models if their payloads are annotated with such classes.
    TYPED_PAYLOADS: ClassVar[bool] = True
    #: The events that the service publishes, with the type of each payload, or only their names. ``eda asyncapi`` and
    #: ``eda check`` read it; publishing does not.
    PUBLISHES: ClassVar[Mapping[str, Any] | Collection[str]] = ()
    #: The commands that it sends, as ``service.Command``, in the same way.
    SENDS: ClassVar[Mapping[str, Any] | Collection[str]] = ()
    #: The configurations that it publishes, in the same way.
    CONFIGURES: ClassVar[Mapping[str, Any] | Collection[str]] = ()

    #: Whether handlers, hooks and timers may be coroutine functions.
    _eda_awaits: ClassVar[bool] = False
    _eda_config: Config = cast(Any, _NotMade())
    _eda_readiness: Readiness = cast(Any, _NotMade())
    _eda_journal: Callable[[str], None] | None = None
    _eda_tracing: Tracing | None = None
    _eda_timed: Timed | None = None
    _eda_running: Driver | None = None
    _eda_machine: Machine | None = None
    #: What is suspicious about objects that the service has made, one line each.
    _eda_doubts: tuple[str, ...] = ()
    _eda_wall_offset: WallOffset = 0.0

    def __init__(
        self,
        amqp_urls: str | Sequence[str],
        event_routing_keys: Sequence[str],
        command_routing_keys: Sequence[str],
        logical_service: str,
        config_routing_keys: Sequence[str] = (),
        *,
        log_routing_keys: Sequence[str] = (),
        ssl: SSLContext | None = None,
    ) -> None:
        if not isinstance(self.CLAIM_CHECK, ClaimCheck | None):
            hint = "give a ClaimCheck, which has the store"
            raise LocalError(f"CLAIM_CHECK is {shortened(repr(self.CLAIM_CHECK))}", hint=hint)
        self._eda_identity = self.worker_identity()
        self._eda_readiness = Readiness()
        #: The deliveries that wait in a batch, which acknowledges them, and the batch.
        self._eda_batched: dict[DeliveryId, object] = {}
        #: The keys for results of this service that were checked.
        self._eda_reply_keys: set[str] = set()
        self.ssl_context = ssl
        self.logical_service = logical_service
        self._eda_config = Config.make(
            amqp_urls,
            logical_service,
            event_routing_keys,
            command_routing_keys,
            config_routing_keys,
            log_routing_keys,
            **self.machine_settings(),
        )
        self._eda_configured(self._eda_config)

    def _eda_configured(self, config: Config) -> None:
        """Take note of the configuration, which the constructor has made. A subclass may do more."""

    def machine_settings(self) -> dict[str, Any]:
        """Return the attributes of :class:`eda_core.Config` that this class sets, by name. A subclass may add some."""
        hostname, pid = self._eda_identity
        return {
            "hostname": self.HOSTNAME or hostname,
            "pid": pid,
            "prefetch": self.PREFETCH_COUNT,
            "queue_type": self.QUEUE_TYPE,
            "delivery_limit": self.DELIVERY_LIMIT,
            "heartbeat": self.HEARTBEAT,
            "probe_interval": self.PROBE_INTERVAL,
            "probe_timeout": self.PROBE_TIMEOUT,
            "retry_delay": self.RETRY_DELAY,
            "blocked_timeout": self.BLOCKED_TIMEOUT,
            "buffer": self.BUFFER,
            "window": self.WINDOW,
            "confirm_timeout": self.CONFIRM_TIMEOUT,
            "held": self.HELD,
            "limits": self.LIMITS,
            "connect_timeout": self.CONNECT_TIMEOUT,
            "close_timeout": self.CLOSE_TIMEOUT,
            "stop_timeout": self.STOP_TIMEOUT,
            "retry": self.RETRY_POLICY,
            "reconnect": self.RECONNECT_POLICY,
            "dead_letter_exchange": self.DEAD_LETTER_EXCHANGE,
            "serialize_by": self.SERIALIZE_BY,
            "delayed_messages": self.DELAYED_MESSAGES,
        }

    def subscribes_to(self, kind: str, name: str) -> bool:
        config = self._eda_config
        keys = {"event": config.events, "configuration": config.configurations}.get(kind, config.commands)
        return any(TopicPattern(key).matches(name) for key in keys)

    # An adapter defines the first two of these, and uses the others

    @abstractmethod
    def worker_identity(self) -> tuple[str, int]:
        """Return the name of the host and the process id of this worker."""

    @abstractmethod
    def make_input(self, call: Callable[[Machine, float], list[Effect]], *, waits: bool = True) -> R:
        """Make the input that ``call(machine, now)`` makes, and perform its effects.

        Args:
            waits: whether this may wait for the thread that uses the machine. If not, ``call`` must not raise.
        """

    def _eda_redeem_and_handle(self, message: AnyMessage) -> Any:
        """Handle a message whose payload may be in a store. Store the payload of its result if that is too large."""
        raise NotImplementedError

    def _eda_is_large(self, message: AnyMessage, returned: object) -> TypeGuard[Command]:
        """Return whether a handler has returned a result that has to be stored."""
        if self.CLAIM_CHECK is None or not isinstance(message, Command) or not is_payload(returned):
            return False
        result = Result(message.reply_to, returned, message.conversation_id, SUCCESS, message.correlation_id)
        return self.CLAIM_CHECK.checked_in(result, self._eda_config.limits) is not None

    def make_input_now(self, call: Callable[[Machine, float], list[Effect]], *, waits: bool = True) -> None:
        """Make an input before this returns, in every adapter, unless ``waits`` is false. See :meth:`make_input`."""
        driver = self.running_driver()
        if waits:
            driver.ask(partial(driver.make, call))
        else:
            driver.make_soon(call)

    def publish_message(
        self, message: AnyMessage, *, mandatory: bool, immediate: bool = False, timeout: float | None = None
    ) -> R:
        """Publish a message of any kind. See :meth:`publish_event`."""
        if timeout is not None:
            raise LocalError("timeout is given, but this method does not wait for the confirm", hint="leave it out")
        if self.CLAIM_CHECK is not None:
            message = stored(self.CLAIM_CHECK, message, self._eda_config.limits)
        if self._eda_tracing is not None:
            return self._eda_trace_publish(self._eda_tracing, message, mandatory, immediate)
        publish = self.publishing(message, mandatory=mandatory, immediate=immediate)
        return self.make_input(lambda machine, now: publish(message, machine, now))

    def _eda_trace_publish(self, tracing: Tracing, message: AnyMessage, mandatory: bool, immediate: bool) -> R:
        with tracing.sending(message, held=self._eda_holds(immediate)) as sending:
            publish = self.publishing(sending.message, mandatory=mandatory, immediate=immediate)
            return self.make_input(lambda machine, now: publish(sending.message, Noting(machine, sending), now))

    def _eda_holds(self, immediate: bool) -> bool:
        """Return whether what is published here is held until a handler has succeeded."""
        return not immediate and self.handled_delivery() is not None

    def publishing(self, message: AnyMessage, *, mandatory: bool, immediate: bool) -> Callable[..., list[Effect]]:
        """Return the input that publishes a message for the user code that calls this.

        It takes the message, or a copy of it, the machine, ``now``, and ``ticket`` if somebody waits for the confirm.
        """
        run = run_of(self)
        within = None if run is None else run.delivery

        def publish(message: AnyMessage, machine: Machine, now: float, ticket: int | None = None) -> list[Effect]:
            effects = machine.publish(
                message, now, within=within, mandatory=mandatory, immediate=immediate, ticket=ticket
            )
            if run is not None and run.keep is not None:
                run.keep(message, mandatory)
            if isinstance(message, Result):
                self.running_driver().answered(run, message)
            elif isinstance(message, Command):
                self._eda_check_reply_key(message)
            return effects

        return publish

    def _eda_check_reply_key(self, command: Command) -> None:
        """Warn, once for each key, if the result of a command would come to this service, but it does not get it."""
        key, config, checked = command.reply_to, self._eda_config, self._eda_reply_keys
        if key in checked or not key.startswith(f"{config.service}.") or len(checked) >= _MOST_REPLY_KEYS:
            return
        checked.add(key)
        if not any(TopicPattern(pattern).matches(key) for pattern in config.commands):
            self.running_driver().warn(
                events.NO_REPLY_KEY,
                f"the result of {command.name} cannot come: this service does not subscribe to its reply_to {key!r}; "
                f"add {key!r} to command_routing_keys, and define on_{key.rpartition('.')[2]}()",
                command,
            )

    def begin_run(self, make: Callable[[Self], D]) -> D:
        """Check the service, make the driver with which it runs from now on, and return it.

        Raises:
            LocalError: the methods of the service are wrong, so that no message could be handled. The text lists all
                that is wrong. What is only suspicious is a warning in the local log.
            StateError: the service was run before.
        """
        if self._eda_running is not None:
            raise StateError("a service runs once", hint="make another one")
        findings = check_service(self, self._eda_config, awaits=self._eda_awaits)
        try:
            if findings.faults:
                raise LocalError(f"{type(self).__name__} cannot run{_listed(findings.faults)}")
            self._eda_read_by(findings.readers)
            driver = make(self)
        except Exception as error:
            self._eda_readiness.end(error)
            raise
        self._eda_readiness.begin()
        driver.readiness, driver.tracing = self._eda_readiness, self._eda_tracing
        driver.timed = self._eda_timed
        if self.CLAIM_CHECK is not None:
            driver.redeeming = self._eda_redeem_and_handle
        self._eda_running = driver
        self._eda_report_doubts((*findings.doubts, *self._eda_doubts))
        return driver

    def _eda_doubt(self, text: str) -> None:
        """Let the report at the start say that something is suspicious. If the service runs already, report it now.

        Args:
            text: what, and what to do, as one line.
        """
        if self._eda_running is None:
            self._eda_doubts += (text,)
        else:
            self._eda_report_doubts((text,))

    def _eda_report_doubts(self, doubts: Sequence[str]) -> None:
        if doubts and self._eda_running is not None:
            text = f"{type(self).__name__} may not do what it should{_listed(doubts)}"
            self._eda_running.report(WARNING, text, events.CHECKED)

    def running_driver(self) -> Driver:
        """Return the driver with which the service runs.

        Raises:
            LocalError: the constructor of the service has not called that of its base class.
            StateError: the service was not run yet.
        """
        if self._eda_running is None:
            _ = self._eda_config  # raises if it is missing
            mock = "AsyncMock" if self._eda_awaits else "Mock"
            hint = f"run it first, and begin in on_ready; in a unit test set the method to {mock}(), as in "
            raise StateError("the service does not run", hint=f'{hint}docs/tutorial/5-tests.rst, "Call a handler"')
        return self._eda_running

    def make_machine(self, *, random: Callable[[], float], token: str, wall_offset: WallOffset) -> Machine:
        """Make the machine for a run. The arguments are those of :class:`Machine`.

        Raises:
            LocalError: a class attribute was set to a wrong value since the service was made.
        """
        self._eda_config = config = replace(self._eda_config, **self.machine_settings())
        self._eda_wall_offset = wall_offset
        write = self._eda_journal
        if write is None:
            read = self.read_delivery
            self._eda_machine = Machine(config, random=random, token=token, wall_offset=wall_offset, read=read)
        else:
            self._eda_machine = RecordingMachine(
                config, random=random, token=token, wall_offset=wall_offset, write=write
            )
        return self._eda_machine

    def read_delivery(
        self, exchange: str, routing_key: str, properties: Basic.Properties, body: bytes, limits: Limits
    ) -> AnyMessage:
        """Return the message that a delivery holds. A tool that shows all deliveries overrides this.

        A service that keeps a journal does not call it, because the replay could not.

        Raises:
            InvalidEnvelope: the delivery is no message, and is dead-lettered.
        """
        return open_envelope(exchange, routing_key, properties, body, limits)

    def handled_delivery(self) -> DeliveryId | None:
        """Return the delivery whose handler calls this; ``None`` outside of handlers."""
        return handled_by(self)

    def wall_time(self) -> float:
        """Return the time in seconds since 1970, POSIX time.

        Raises:
            StateError: the service was not run yet.
        """
        return self.running_driver().wall_time(self._eda_wall_offset)

    # How it does

    def health(self, timeout: float = 5.0) -> Health:
        """Return what the service does now: its state, its link, what is in flight, what waits, its last error.

        Any thread may call this, also before the service runs and after its end. It is no coroutine.

        Args:
            timeout: how long another thread than that of the service waits for the service, seconds.

        Raises:
            NotAnswered: the service has not answered in time, because its event loop, or its thread, is busy.
            StateError: this is a fork of the process of the service.
        """
        driver = self._eda_running
        return unused(self._eda_config).health(0.0) if driver is None else driver.inspect(driver.health, timeout)

    def metrics(self, timeout: float = 5.0) -> Metrics:
        """Return what the service has done so far, as numbers. The arguments and errors are those of :meth:`health`."""
        driver = self._eda_running
        return unused(self._eda_config).metrics(0.0) if driver is None else driver.inspect(driver.metrics, timeout)

    def when_ended(self, call: Callable[[], object]) -> None:
        """Call a function once when the service has ended, or at once if it has. Any thread may call this.

        Args:
            call: must not raise or wait. It is called where the service ends, perhaps in its event loop.
        """

        def ended() -> bool:
            if self._eda_running is None:  # it was refused to run, and may run later
                return False
            call()
            return True

        self._eda_readiness.watch(ended)

    # Timers

    def call_later(self, delay: float, callback: Callable[[], Any]) -> int:
        """Call a function once after ``delay`` seconds, outside any handler, unless the service stops before.

        It may be a coroutine function if handlers are. Returns the number of the timer, for :meth:`cancel_timer`.

        Raises:
            StateError: the service was not run yet, or it has stopped.
        """
        driver = self.running_driver()
        return driver.ask(partial(driver.call_later, delay, callback))

    def cancel_timer(self, timer: int) -> None:
        """Cancel the timer with this number. It does no harm if the timer does not exist any more."""
        driver = self.running_driver()
        with suppress(StateError):  # the service has stopped, and its timers with it
            driver.ask(partial(driver.cancel_timer, timer))

    # Settings

    def keep_journal(self, write: Callable[[str], None]) -> None:
        """Record all inputs, so that :mod:`eda_core.journal` can replay them. Call this before the service runs.

        Args:
            write: is called with each line of the journal: JSON without a line end. It must not raise. The lines have
                the messages in them, but not the passwords of the brokers.

        Raises:
            StateError: the service runs already.
        """
        self._eda_before_run("keep_journal()")
        self._eda_journal = write

    def trace_by(self, tracing: Tracing) -> None:
        """Tell ``tracing`` of each handler and each publish. Call this before the service runs.

        The package ``eda_otel`` does so for OpenTelemetry.

        Raises:
            StateError: the service runs already.
        """
        self._eda_before_run("trace_by()")
        self._eda_tracing = tracing

    def time_handlers_by(self, timed: Timed) -> None:
        """Call ``timed`` when a handler has ended. Call this before the service runs.

        The package ``eda_otel`` does so for OpenTelemetry.

        Raises:
            StateError: the service runs already.
        """
        self._eda_before_run("time_handlers_by()")
        self._eda_timed = timed

    @property
    def traced(self) -> bool:
        """Whether :meth:`trace_by` was called."""
        return self._eda_tracing is not None

    def use_json(self) -> None:
        """Write the payloads of all messages that are published from now on as JSON, and not as CBOR."""
        self._eda_config = replace(self._eda_config, content_type=JSON)
        if self._eda_machine is not None:
            self.make_input_now(lambda machine, now: machine.use_json(now))

    def use_exclusive_queues(self) -> None:
        """Use queues that are deleted with the connection, as tools do. Call this before the service runs.

        Raises:
            StateError: the service runs already.
        """
        self._eda_before_run("use_exclusive_queues()")
        self._eda_config = replace(self._eda_config, exclusive_queues=True)

    def _eda_before_run(self, what: str) -> None:
        if self._eda_machine is not None:
            raise StateError(f"{what} comes too late: the service runs already", hint="call it before run()")

    @property
    def exclusive_queues(self) -> bool:
        """Whether :meth:`use_exclusive_queues` was called."""
        return self._eda_config.exclusive_queues

    @property
    def published_messages(self) -> int:
        """How many messages the service has published so far."""
        return 0 if self._eda_machine is None else self._eda_machine.published

    # Publishing

    def publish_event(
        self,
        event: str,
        message: Any,
        conversation_id: str,
        mandatory: bool = False,
        *,
        immediate: bool = False,
        headers: Mapping[str, Any] | None = None,
        expiration: float | None = None,
        priority: int | None = None,
        delay: float | None = None,
        timeout: float | None = None,
    ) -> R:
        """Publish an event. In a handler it is held until the handler succeeds; elsewhere it is sent at once.

        Args:
            event: the name of the event, which is its routing key.
            message: the payload: plain data, or a model (docs/howto/typed-payloads.rst).
            mandatory: whether ``handle_returned_message`` is called if no service receives the event.
            immediate: whether to send the event at once although the handler runs, for example a report of progress.
            headers: more headers, by name. Names that begin with ``x-`` and those of the toolkit are refused.
            expiration: how long the message is of use, seconds. Then its queue drops or dead-letters it.
            priority: from 0 to 255, for queues that have priorities.
            delay: how long the message waits on the broker before it is published, seconds, rounded up to whole ones.
                The class needs ``DELAYED_MESSAGES = True``. Such a message is always mandatory: there has to be a queue
                in which it waits. Nobody is told if no service receives it in the end.
            timeout: how long to wait for the confirm, seconds; by default as long as it takes. Only coroutines wait for
                it, outside of handlers.

        Raises:
            LocalError: the message cannot be sent. The text says why.
            PublishError: the service stopped before the broker confirmed the message. Only coroutines wait for that.
            PublishTimeout: there was no confirm within ``timeout``. The text says whether the message may still arrive.
            StateError: the service was not run yet, or it has stopped.
        """
        meta = options(headers, expiration, priority, delay, delays=self._eda_config.delayed_messages)
        sent = Event(event, message, conversation_id, meta)
        return self.publish_message(sent, mandatory=mandatory or bool(delay), immediate=immediate, timeout=timeout)

    def publish_configuration(
        self,
        event: str,
        message: Any,
        *,
        immediate: bool = False,
        headers: Mapping[str, Any] | None = None,
        expiration: float | None = None,
        priority: int | None = None,
        timeout: float | None = None,
    ) -> R:
        """Publish a configuration. Its name ``event`` is its routing key. See :meth:`publish_event`."""
        sent = Configuration(event, message, "", options(headers, expiration, priority))
        return self.publish_message(sent, mandatory=False, immediate=immediate, timeout=timeout)

    def send_command(
        self,
        command: str,
        message: Any,
        conversation_id: str,
        reply_to: str,
        correlation_id: str | None,
        mandatory: bool = True,
        *,
        immediate: bool = False,
        headers: Mapping[str, Any] | None = None,
        expiration: float | None = None,
        priority: int | None = None,
        delay: float | None = None,
        timeout: float | None = None,
    ) -> R:
        """Send a command. The other arguments are those of :meth:`publish_event`.

        Args:
            command: ``service.Command``, which is the routing key.
            reply_to: the routing key for the result.
            correlation_id: comes back with the result, so that the handler knows to which command it belongs.
        """
        meta = options(headers, expiration, priority, delay, delays=self._eda_config.delayed_messages)
        sent = Command(command, message, conversation_id, reply_to, _or_empty(correlation_id), meta)
        return self.publish_message(sent, mandatory=mandatory or bool(delay), immediate=immediate, timeout=timeout)

    def return_success(
        self,
        destination: str,
        message: Any,
        conversation_id: str,
        correlation_id: str | None,
        mandatory: bool = True,
        *,
        headers: Mapping[str, Any] | None = None,
        expiration: float | None = None,
        priority: int | None = None,
        timeout: float | None = None,
    ) -> R:
        """Publish the result of a command that succeeded. See :meth:`publish_event`.

        Args:
            destination: the ``reply_to`` of the command. Both other identifiers are also those of the command.
        """
        meta = options(headers, expiration, priority)
        result = Result(destination, message, conversation_id, SUCCESS, _or_empty(correlation_id), meta)
        return self.publish_message(result, mandatory=mandatory, timeout=timeout)

    def return_error(
        self,
        destination: str,
        message: Any,
        conversation_id: str,
        correlation_id: str | None,
        mandatory: bool = True,
        *,
        headers: Mapping[str, Any] | None = None,
        expiration: float | None = None,
        priority: int | None = None,
        timeout: float | None = None,
    ) -> R:
        """Publish the result of a command that failed in an expected way. See :meth:`return_success`."""
        meta = options(headers, expiration, priority)
        result = Result(destination, message, conversation_id, ERROR, _or_empty(correlation_id), meta)
        return self.publish_message(result, mandatory=mandatory, timeout=timeout)

    def log(
        self,
        criticity: int,
        short: str,
        full: str = "",
        conversation_id: str = "",
        additional_fields: Mapping[str, Any] | None = None,
    ) -> R:
        """Publish a log record, soon and without a confirm.

        It waits for nothing, so handlers of signals and of Python's logging may call it. After the end of the service
        it does nothing.

        Args:
            criticity: the level, from 0 to 7: a constant of :mod:`eda_core.criticality`.
            short: the message in one line.
            full: the whole message, such as a traceback.
            additional_fields: more fields of the GELF record. None may be called ``id``.

        Raises:
            LocalError: the level or the name of a field is not allowed.
            StateError: the service was not run yet.
        """
        level, fields = gelf.check_level(criticity), gelf.checked_fields(criticity, additional_fields)
        return self.make_input(
            lambda machine, now: machine.log(
                level, short, now, full=full, conversation_id=conversation_id, fields=fields
            ),
            waits=False,
        )

    # Acknowledging by hand

    def manual_ack(self, delivery_tag: int, multiple: bool = False) -> R:
        """Acknowledge a message whose handler has returned ``True``, as soon as its publishes are confirmed.

        Args:
            delivery_tag: ``meta["delivery_tag"]`` of the message.
            multiple: whether to acknowledge also all earlier messages whose handlers have returned ``True``.

        Raises:
            LocalError: the message is acknowledged or rejected already, or it waits in a batch, which acknowledges it.
            StateError: the service was not run yet.
        """

        def ack(machine: Machine, now: float) -> list[Effect]:
            _check_not_batched(self._eda_batched, delivery_tag, multiple)
            return machine.ack(DeliveryId(delivery_tag), now, multiple=multiple)

        return self.make_input(ack)

    def manual_nack(self, delivery_tag: int, requeue: bool = False, multiple: bool = False) -> R:
        """Reject a message whose handler has returned ``True``. See :meth:`manual_ack`.

        Args:
            requeue: whether it goes back to its queue, which counts as a failed attempt. If not, it is dead-lettered.
        """
        return self.make_input(
            lambda machine, now: machine.nack(DeliveryId(delivery_tag), now, requeue=requeue, multiple=multiple)
        )


def _check_not_batched(batched: Collection[DeliveryId], delivery: object, multiple: bool) -> None:
    """Check that no message is acknowledged by hand that waits in a batch: the batch would not hand it over.

    Raises:
        LocalError: one would be.
    """
    if delivery in batched:
        raise LocalError(
            f"delivery {delivery} is in a batch, which acknowledges it",
            hint="return True after push(), and do not call manual_ack()",
        )
    if multiple and type(delivery) is int:
        epoch = delivery >> TAG_BITS
        count = sum(each < delivery and each >> TAG_BITS == epoch for each in batched)
        if count:
            raise LocalError(
                f"manual_ack(…, multiple=True) would acknowledge {count} message(s) that are in a batch",
                hint="acknowledge the others one by one",
            )


def _listed(lines: Sequence[str]) -> str:
    return "".join(f"\n- {line}" for line in lines)


def _or_empty(correlation_id: str | None) -> str:
    """Return the correlation id, or "" for ``None``: in a message both mean that there is none."""
    return "" if correlation_id is None else correlation_id
