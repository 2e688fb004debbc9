"""What synchronous programs publish with: eventail's constructor and methods, and a few more."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from ssl import SSLContext
from typing import Any, ClassVar, Self, TypeVar

from eda_core import JSON, AnyMessage, Config, Configuration, Event, LocalError, ReconnectPolicy, StateError
from eda_core.drivers.blocking import KEPT_RECORDS, Record
from eda_core.drivers.publish_call import PartlyPublished, PublishCall, PublishLimits
from eda_core.messages import gelf
from eda_core.messages.routing import CONFIGURATIONS
from eda_core.services.eventail import EventailNames
from eda_kombu.session import Session

T = TypeVar("T")

#: How often a call looks for records that came while it sent others; who logs without a pause sees to them himself.
_ROUNDS = 3


class Endpoint(EventailNames):
    """Publishes events, configurations and logs, and returns when the broker has confirmed them.

    It connects at the first publish or log, and anew when the connection was lost since the last one. Threads may share
    it: they publish one after the other. After a fork the child gets a connection of its own, and leaves its parent's
    alone. A context manager: :meth:`close` is called at the end.

    Args:
        amqp_urls: brokers, tried in turn.
        logical_service: the name of the service that publishes.
        connection_max_retries: attempts to connect, after the first that fails, before a publish fails; each URL counts
            as one. ``None``: as many as the time allows.
        confirm_timeout: seconds that a publish may take until it is confirmed, reconnecting and trying again included,
            before it fails. ``None``: any time, as with eventail.
        connect_timeout: seconds for an attempt to connect, and for a single write.
        ssl: how to check the broker's certificate and which to show, for ``amqps://`` URLs; by default the chain and
            the host name are checked against the system's authorities.

    Raises:
        LocalError: an argument is wrong; it says which and why.
    """

    CONFIGURATION_EXCHANGE: ClassVar[str] = CONFIGURATIONS
    CONFIGURATION_EXCHANGE_TYPE: ClassVar[str] = "topic"
    #: Seconds. An endpoint that pauses for longer is disconnected by the broker, and connects again when it is used.
    HEARTBEAT: ClassVar[int] = 30
    #: Seconds until a publish that the broker refused is sent again.
    RETRY_DELAY: ClassVar[float] = 1
    #: Publishes of ``publish_many`` unconfirmed at once.
    WINDOW: ClassVar[int] = 500
    #: Seconds for :meth:`close`.
    STOP_TIMEOUT: ClassVar[float] = 10
    RECONNECT_POLICY: ClassVar[ReconnectPolicy] = ReconnectPolicy()

    def __init__(
        self,
        amqp_urls: str | Sequence[str],
        logical_service: str,
        connection_max_retries: int | None = None,
        *,
        confirm_timeout: float | None = 300.0,
        connect_timeout: float = 30.0,
        ssl: SSLContext | None = None,
    ) -> None:
        self.logical_service = logical_service
        self._eda_introduce(socket.gethostname(), os.getpid())
        self._config = Config.make(
            amqp_urls,
            logical_service,
            hostname=self.HOSTNAME,
            heartbeat=self.HEARTBEAT,
            retry_delay=self.RETRY_DELAY,
            window=self.WINDOW,
            buffer=self.WINDOW,
            connect_timeout=connect_timeout,
            close_timeout=self.STOP_TIMEOUT / 2,
            # Of a link. The session's ends before, and goes for what is not the fault of a link too.
            confirm_timeout=300.0 if confirm_timeout is None else 2 * confirm_timeout,
            reconnect=self.RECONNECT_POLICY,
        )
        self._limits = PublishLimits(confirm_timeout, connection_max_retries, None, self.RETRY_DELAY)
        self._ssl = ssl
        self._closed = False
        self._processes: dict[int, _Process] = {}

    def force_json(self) -> None:
        """From now on, publish payloads as JSON instead of CBOR."""
        self._config = replace(self._config, content_type=JSON)
        session = self._process().session
        if session is not None:
            session.machine.use_json(session.now())

    def publish_event(
        self, event: str, message: Any, conversation_id: str, max_retries: int | None = None, *, mandatory: bool = False
    ) -> None:
        """Publish an event; return when the broker has confirmed it.

        Args:
            max_retries: how often to try again, after the first failure (no connection, a lost one, a refusal by the
                broker), before this fails. ``None``: as often as ``confirm_timeout`` allows.
            mandatory: fail if nobody subscribes.

        Raises:
            LocalError: the message cannot be sent; it says why.
            StateError: the endpoint is closed.
            NotConfirmed: no confirm in the time or the attempts allowed; it says whether the message may arrive.
            Unroutable: it was mandatory, and no queue is bound for it.
        """
        self._publish_one(Event(event, message, _text(conversation_id)), mandatory, max_retries)

    def publish_configuration(
        self, event: str, message: Any, max_retries: int | None = None, *, mandatory: bool = False
    ) -> None:
        """Publish a configuration, for all workers that subscribe to it now. See :meth:`publish_event`."""
        self._publish_one(Configuration(event, message, ""), mandatory, max_retries)

    def publish_many(
        self, events: Iterable[tuple[str, Any, str]], max_retries: int | None = None, *, mandatory: bool = False
    ) -> int:
        """Publish many events, without waiting for the confirm of one before sending the next.

        At most ``WINDOW`` are unconfirmed at once, so the iterable may be a generator of any length.
        ``confirm_timeout`` is for each step forward, not for all of them, and the time that the iterable takes does not
        count. In that time nothing is sent or read, and after more than ``HEARTBEAT`` seconds the broker hangs up: then
        it connects anew.

        Args:
            events: each one's name, message and conversation id.
            max_retries, mandatory: see :meth:`publish_event`.

        Returns:
            How many there were. All are confirmed.

        Raises:
            StateError: the endpoint is closed.
            PartlyPublished: it tells which are confirmed and which are not, and why. After the first that fails no
                more are taken from the iterable.
        """
        call = self._publish(map(_event, events), mandatory, max_retries)
        if call.failed:
            raise PartlyPublished(call.taken, call.failed)
        return call.taken

    def log(
        self,
        criticity: int,
        short: str,
        full: str = "",
        conversation_id: str = "",
        additional_fields: Mapping[str, Any] = {},  # eventail's, and only read
    ) -> None:
        """Log to the bus: not confirmed, not repeated, and no failure of the network is raised.

        Without a connection it makes one attempt to connect, unless the last one has just failed; the latest 100
        records wait for the next connection, or get lost with a publish that fails. It does not wait for a publish that
        goes on: the latest 1,000 records go out in its course or after it. So it may be called from anywhere: in an
        iterable of ``publish_many``, in handlers of signals and of Python's logging.

        Args:
            criticity: a constant of ``eda_core.criticality``.
            additional_fields: more fields of the GELF record; not ``id``.

        Raises:
            LocalError: the level or a field's name is not allowed.
            StateError: the endpoint is closed.
        """
        gelf.check_level(criticity)
        fields = dict(additional_fields or {})
        gelf.check_names(fields)
        process = self._process()
        if self._closed and process.user != threading.get_ident():
            raise StateError("the endpoint is closed", hint="make another one")
        named = {"full": full, "conversation_id": conversation_id, "fields": fields}
        process.records.append(((criticity, short, time.monotonic()), named))
        self._pass_on(process)

    def close(self) -> None:
        """Send what is left of logs, and close the connection, within ``STOP_TIMEOUT`` seconds. Again: nothing happens.

        A publish that goes on in another thread gets half of that time; then it fails. If it does not even then (its
        attempt to connect goes on, or its iterable), its thread closes the connection when it does.
        """
        process, half = self._process(), self.STOP_TIMEOUT / 2
        locked = process.lock.acquire(timeout=half)
        self._closed = True
        session = process.session
        if session is not None and (not locked or process.user is not None):  # or in a handler of signals
            session.aborted = True
        if locked or process.lock.acquire(timeout=half):
            try:
                if process.user is None:
                    process.user = threading.get_ident()
                    process.close(half)
            finally:
                process.lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    # Steps

    def _publish_one(self, message: AnyMessage, mandatory: bool, max_retries: int | None) -> None:
        for error in self._publish((message,), mandatory, max_retries).failed.values():
            raise error

    def _publish(self, messages: Iterable[AnyMessage], mandatory: bool, max_retries: int | None) -> PublishCall:
        limits = replace(self._limits, max_retries=max_retries)
        process = self._process()
        with process.lock:
            if process.user is not None:
                raise StateError("the endpoint is in use", hint="do not publish in its own iterable or in a handler")
            if self._closed:
                raise StateError("the endpoint is closed", hint="make another one")
            call = self._use(process, lambda session: session.publish(messages, mandatory, limits))
        if not call.failed:
            self._pass_on(process)
        return call

    def _process(self) -> _Process:
        return self._processes.setdefault(os.getpid(), _Process())

    def _pass_on(self, process: _Process) -> None:
        """Log what waits for it. Whoever uses the session looks here in between, and when he is done."""
        for _ in range(_ROUNDS):
            if not process.records or not process.lock.acquire(blocking=False):
                return
            try:
                if process.user is not None or self._closed:
                    return
                self._use(process, Session.log)
            finally:
                process.lock.release()

    def _use(self, process: _Process, call: Callable[[Session], T]) -> T:
        """Call it with this process's session, with nothing in it that may be unsound. The lock is taken."""
        process.user = threading.get_ident()
        try:
            session = process.session
            if session is None or not session.is_fit():
                process.drop()
                config = replace(self._config, pid=os.getpid())
                session = process.session = Session(config, self._ssl, process.records)
            result = call(session)
            if self._closed:  # by a handler of signals, or in vain by another thread
                process.close(self.STOP_TIMEOUT / 2)
            return result
        except BaseException:
            process.drop()
            raise
        finally:
            process.user = None


@dataclass
class _Process:
    """What belongs to one process, and is never touched by another: a fork copies memory, but shares the sockets.

    Attributes:
        lock: who has it may use the session. A thread may take it twice: handlers, of signals and of logging, run
            anywhere.
        user: the thread that uses the session, and for this while nothing else does, not even that thread.
        records: logs, for who uses the session; a log does not wait for a publish, which may wait for who logs.
    """

    lock: threading.RLock = field(default_factory=threading.RLock)
    user: int | None = None
    session: Session | None = None
    records: deque[Record] = field(default_factory=lambda: deque(maxlen=KEPT_RECORDS))

    def drop(self) -> None:
        """Be rid of the session, whatever state it is in; if this is interrupted, too."""
        session, self.session = self.session, None
        if session is not None:
            session.drop()

    def close(self, timeout: float) -> None:
        """Be rid of it in good order. Its user does that, or who is about to be."""
        session, self.session = self.session, None
        try:
            if session is not None:
                session.close(timeout)
        finally:
            self.user = None


def _event(given: tuple[str, Any, str]) -> Event:
    try:
        name, message, conversation_id = given
    except (TypeError, ValueError):
        raise LocalError(f"an event is {type(given).__name__}", hint="pass (name, message, conversation_id)") from None
    return Event(name, message, _text(conversation_id))


def _text(conversation_id: Any) -> Any:
    """eventail took a UUID or a number too. ``None`` is left for the core to refuse."""
    return conversation_id if conversation_id is None else str(conversation_id)
