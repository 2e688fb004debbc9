"""What services of all adapters offer their authors: the constructor, the settings and the methods, in one place.

``R`` is what a method returns: ``None`` in a callback adapter, an awaitable in an async one. An adapter says how an
input reaches the machine; everything else is here. This module knows nothing of event loops and threads.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Self, TypeVar

from pamqp.commands import Basic

from eda_core.drivers.base import Driver
from eda_core.drivers.handling import handled_by
from eda_core.errors import StateError
from eda_core.journal.recording import RecordingMachine
from eda_core.machine.config import Config
from eda_core.machine.effects import Effect
from eda_core.machine.identifiers import DeliveryId
from eda_core.machine.machine import Machine
from eda_core.machine.policy import ReconnectPolicy, RetryPolicy
from eda_core.messages.codec import JSON, Limits
from eda_core.messages.envelope import open_envelope
from eda_core.messages.values import ERROR, SUCCESS, AnyMessage, Command, Configuration, Event, Result
from eda_core.services.handlers import Handlers

if TYPE_CHECKING:
    from ssl import SSLContext  # the core loads no ssl, and only passes it on

R = TypeVar("R")
D = TypeVar("D", bound=Driver)


class ServiceApi(Handlers, Generic[R]):
    """Base of the adapters' ``Service``.

    What a handler publishes is held until it succeeds; then it is published, and the handler's message is acknowledged
    when all of that is confirmed.

    Args:
        amqp_urls: brokers, tried in turn.
        event_routing_keys: events to subscribe to.
        command_routing_keys: commands to serve, and results to receive.
        logical_service: its name, which all its workers share.
        config_routing_keys: configurations to subscribe to; without them the service is ready at once.
        log_routing_keys: logs to receive, for tools.
        ssl: how to check the broker's certificate and which to show, for ``amqps://`` URLs; by default the chain and
            the host name are checked against the system's authorities.

    Raises:
        LocalError: an argument or a class attribute is wrong; it says which and why.
    """

    #: Messages unacknowledged at once, per queue.
    PREFETCH_COUNT: ClassVar[int] = 10
    #: Seconds.
    HEARTBEAT: ClassVar[int] = 20
    #: Seconds until a publish that the broker refused is sent again.
    RETRY_DELAY: ClassVar[float] = 15
    #: Seconds that a resource alarm of the broker may last before another broker is tried.
    BLOCKED_TIMEOUT: ClassVar[float] = 3600
    #: Publishes accepted and not confirmed. Over that, callers are refused or wait, and no handler begins.
    BUFFER: ClassVar[int] = 10_000
    #: Publishes sent and not confirmed.
    WINDOW: ClassVar[int] = 500
    #: Seconds that the oldest publish may stay unconfirmed before the connection is given up.
    CONFIRM_TIMEOUT: ClassVar[float] = 300
    #: Seconds that a stop may take before what is unfinished is left to other workers.
    STOP_TIMEOUT: ClassVar[float] = 30
    #: The host's name in logs and in the name of the connection; by default that of the machine.
    HOSTNAME: str = ""
    RETRY_POLICY: ClassVar[RetryPolicy] = RetryPolicy()
    RECONNECT_POLICY: ClassVar[ReconnectPolicy] = ReconnectPolicy()

    _eda_journal: Callable[[str], None] | None = None
    _eda_running: Driver | None = None
    _eda_machine: Machine | None = None

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
        self._eda_identity = self.worker_identity()
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

    def machine_settings(self) -> dict[str, Any]:
        """The attributes of :class:`eda_core.Config` that the class decides, by name. A subclass may add some."""
        hostname, pid = self._eda_identity
        return {
            "hostname": self.HOSTNAME or hostname,
            "pid": pid,
            "prefetch": self.PREFETCH_COUNT,
            "heartbeat": self.HEARTBEAT,
            "retry_delay": self.RETRY_DELAY,
            "blocked_timeout": self.BLOCKED_TIMEOUT,
            "buffer": self.BUFFER,
            "window": self.WINDOW,
            "confirm_timeout": self.CONFIRM_TIMEOUT,
            "stop_timeout": self.STOP_TIMEOUT,
            "retry": self.RETRY_POLICY,
            "reconnect": self.RECONNECT_POLICY,
        }

    # What an adapter fills in

    @abstractmethod
    def worker_identity(self) -> tuple[str, int]:
        """For adapters: the name of the host and the process id of this worker."""

    @abstractmethod
    def make_input(self, call: Callable[[Machine, float], list[Effect]]) -> R:
        """For adapters: make an input to the running machine, and perform its effects.

        Args:
            call: calls the method of the machine with the time, monotonic seconds.
        """

    def make_input_now(self, call: Callable[[Machine, float], list[Effect]]) -> None:
        """For adapters: as :meth:`make_input`, done on return whatever the adapter."""
        driver = self.running_driver()
        driver.ask(partial(driver.make, call))

    def publish_message(self, message: AnyMessage, *, mandatory: bool, immediate: bool = False) -> R:
        """Publish any message, within the delivery being handled, if any. See :meth:`publish_event`."""
        within = self.handled_delivery()
        return self.make_input(
            lambda machine, now: machine.publish(message, now, within=within, mandatory=mandatory, immediate=immediate)
        )

    def begin_run(self, make: Callable[[Self], D]) -> D:
        """For adapters: make the driver, with which the service runs from now on.

        Raises:
            StateError: it was run before.
        """
        if self._eda_running is not None:
            raise StateError("a service runs once", hint="make another one")
        driver = make(self)
        self._eda_running = driver
        return driver

    def running_driver(self) -> Driver:
        """For adapters: the driver of the run.

        Raises:
            StateError: it was not run yet.
        """
        if self._eda_running is None:
            raise StateError("the service does not run", hint="run it first, and begin in on_ready")
        return self._eda_running

    def make_machine(self, *, random: Callable[[], float], token: str, wall_offset: float) -> Machine:
        """For adapters: the machine of a run; see :class:`Machine`.

        Raises:
            LocalError: a setting was given a wrong value since the service was made.
        """
        self._eda_config = config = replace(self._eda_config, **self.machine_settings())
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
        """Read a delivery as a message. A tool that shows whatever comes overrides it; a journal does not know that.

        Raises:
            InvalidEnvelope: it is no message; it is dead-lettered.
        """
        return open_envelope(exchange, routing_key, properties, body, limits)

    def handled_delivery(self) -> DeliveryId | None:
        """For adapters: the delivery whose handler this is called from."""
        return handled_by(self)

    # Timers

    def call_later(self, delay: float, callback: Callable[[], Any]) -> int:
        """Call ``callback`` after ``delay`` seconds, outside any handler. Returns what :meth:`cancel_timer` takes.

        It ends with the service. Where handlers are coroutine functions ``callback`` may be one too.

        Raises:
            StateError: the service was not run yet, or it has stopped.
        """
        driver = self.running_driver()
        return driver.ask(partial(driver.call_later, delay, callback))

    def cancel_timer(self, timer: int) -> None:
        """Do not call it any more."""
        driver = self.running_driver()
        with suppress(StateError):  # it has stopped, and its timers with it
            driver.ask(partial(driver.cancel_timer, timer))

    # Settings

    def keep_journal(self, write: Callable[[str], None]) -> None:
        """Record every input, to be replayed after the fact (:mod:`eda_core.journal`). Call it before the service runs.

        Args:
            write: takes one line of JSON, without its end, and never raises. The messages are in it, the passwords of
                the brokers are not.

        Raises:
            StateError: it runs.
        """
        self._eda_before_run("keep_journal()")
        self._eda_journal = write

    def use_json(self) -> None:
        """From now on, publish payloads as JSON instead of CBOR."""
        self._eda_config = replace(self._eda_config, content_type=JSON)
        if self._eda_machine is not None:
            self.make_input_now(lambda machine, now: machine.use_json(now))

    def use_exclusive_queues(self) -> None:
        """Use queues that vanish with the connection, for tools. Call it before the service runs.

        Raises:
            StateError: it runs.
        """
        self._eda_before_run("use_exclusive_queues()")
        self._eda_config = replace(self._eda_config, exclusive_queues=True)

    def _eda_before_run(self, what: str) -> None:
        if self._eda_machine is not None:
            raise StateError(f"{what} comes too late, the service runs", hint="call it before run()")

    @property
    def exclusive_queues(self) -> bool:
        """Whether :meth:`use_exclusive_queues` was called."""
        return self._eda_config.exclusive_queues

    @property
    def published_messages(self) -> int:
        """How many messages it has published so far."""
        return 0 if self._eda_machine is None else self._eda_machine.published

    # Publishing

    def publish_event(
        self, event: str, message: Any, conversation_id: str, mandatory: bool = False, *, immediate: bool = False
    ) -> R:
        """Publish an event. In a handler it is held until that succeeds, elsewhere it goes out at once.

        Args:
            mandatory: hear of it by ``handle_returned_message`` if nobody subscribes.
            immediate: do not hold it: a progress report.

        Raises:
            LocalError: the message cannot be sent; it says why.
            PublishError: the service stopped before the broker confirmed it (where the adapter waits for that).
        """
        return self.publish_message(Event(event, message, conversation_id), mandatory=mandatory, immediate=immediate)

    def publish_configuration(self, event: str, message: Any, *, immediate: bool = False) -> R:
        """Publish a configuration. See :meth:`publish_event`."""
        return self.publish_message(Configuration(event, message, ""), mandatory=False, immediate=immediate)

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
    ) -> R:
        """Send ``service.Command``; its result comes with the routing key ``reply_to``. See :meth:`publish_event`."""
        sent = Command(command, message, conversation_id, reply_to, _or_none(correlation_id))
        return self.publish_message(sent, mandatory=mandatory, immediate=immediate)

    def return_success(
        self, destination: str, message: Any, conversation_id: str, correlation_id: str | None, mandatory: bool = True
    ) -> R:
        """Answer a command; ``destination`` is its ``reply_to``. See :meth:`publish_event`."""
        result = Result(destination, message, conversation_id, SUCCESS, _or_none(correlation_id))
        return self.publish_message(result, mandatory=mandatory)

    def return_error(
        self, destination: str, message: Any, conversation_id: str, correlation_id: str | None, mandatory: bool = True
    ) -> R:
        """Answer a command that failed in an expected way. See :meth:`publish_event`."""
        result = Result(destination, message, conversation_id, ERROR, _or_none(correlation_id))
        return self.publish_message(result, mandatory=mandatory)

    def log(
        self,
        criticity: int,
        short: str,
        full: str = "",
        conversation_id: str = "",
        additional_fields: Mapping[str, Any] | None = None,
    ) -> R:
        """Log to the bus: never held, not confirmed.

        Args:
            criticity: a constant of ``eda_core.criticality``.
            additional_fields: more fields of the GELF record; not ``id``.

        Raises:
            LocalError: the level or a field's name is not allowed.
        """
        return self.make_input(
            lambda machine, now: machine.log(
                criticity, short, now, full=full, conversation_id=conversation_id, fields=additional_fields
            )
        )

    # Acknowledging by hand

    def manual_ack(self, delivery_tag: int, multiple: bool = False) -> R:
        """Acknowledge a message whose handler has returned a truthy value, once its publishes are confirmed.

        Args:
            delivery_tag: ``meta["delivery_tag"]``.
            multiple: also every earlier one that waits for it.

        Raises:
            LocalError: it is settled already.
        """
        return self.make_input(lambda machine, now: machine.ack(DeliveryId(delivery_tag), now, multiple=multiple))

    def manual_nack(self, delivery_tag: int, requeue: bool = False, multiple: bool = False) -> R:
        """Reject it: back to the queue, which counts as an attempt, or to the dead letters. See :meth:`manual_ack`."""
        return self.make_input(
            lambda machine, now: machine.nack(DeliveryId(delivery_tag), now, requeue=requeue, multiple=multiple)
        )


def _or_none(correlation_id: str | None) -> str:
    """On the wire there is no difference between an empty one and none; handlers get text."""
    return "" if correlation_id is None else correlation_id
