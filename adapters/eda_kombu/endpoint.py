"""The class that synchronous programs publish with: eventail's constructor and methods, and a few more.

This module decides which thread and which process may use a session. It does not know how a link works.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from ssl import SSLContext
from typing import Any, ClassVar, Self, TypeVar

from eda_core import JSON, AnyMessage, Config, Health, ReconnectPolicy, StateError
from eda_core.drivers.processes import ProcessState
from eda_core.drivers.publish_call import PublishCall, PublishLimits
from eda_core.machine.machine import unused
from eda_core.messages import gelf
from eda_core.services.endpoints import EndpointApi
from eda_kombu.session import Session

T = TypeVar("T")

#: The attributes of the machine's configuration that are class attributes of an endpoint, in capitals.
_SETTINGS = ("hostname", "heartbeat", "probe_interval", "probe_timeout", "retry_delay", "window")
#: How often a call looks for log records that came while it sent others. If a thread logs without a pause, it sends its
#: own records.
_ROUNDS = 3


class Endpoint(EndpointApi):
    """Publishes events, commands, configurations and logs, and returns when the broker has confirmed them.

    It connects at the first publish or log, and again when it finds that the connection was lost. Threads may share it:
    they publish one after the other. After a fork the child opens a connection of its own and does not touch its
    parent's. It is a context manager, which calls :meth:`close` at the end.

    Args:
        amqp_urls: the URLs of brokers, tried in turn.
        logical_service: the name of the service that publishes.
        connection_max_retries: attempts to connect, after the first that fails, before a publish fails; each URL counts
            as one. ``None``: as many as the time allows.
        confirm_timeout: seconds until a publish that is not confirmed fails. That includes the time to reconnect and to
            try again. ``None``: no limit, as with eventail.
        connect_timeout: seconds for one attempt to connect, and for one write.
        ssl: for ``amqps://`` URLs: how to check the broker's certificate, and which certificate to show. By default the
            chain and the host name are checked against the authorities of the system.

    Raises:
        LocalError: an argument is wrong. The text says which one and why.
    """

    #: Seconds. The broker disconnects an endpoint that is not used for longer; it connects again when it is used.
    HEARTBEAT: ClassVar[int] = 30
    #: While a publish waits: seconds that the broker may send nothing until it is asked whether it still works, 0 for
    #: never, and seconds that it has to answer. Then the endpoint connects to the next URL.
    PROBE_INTERVAL: ClassVar[float] = 4
    PROBE_TIMEOUT: ClassVar[float] = 4
    #: Seconds until a message that the broker refused is sent again.
    RETRY_DELAY: ClassVar[float] = 1
    #: How many messages of ``publish_many`` may be unconfirmed at the same time.
    WINDOW: ClassVar[int] = 500
    #: Seconds for :meth:`close`.
    STOP_TIMEOUT: ClassVar[float] = 10
    #: When to connect again after a lost connection.
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
            **{name: getattr(self, name.upper()) for name in _SETTINGS},
            buffer=self.WINDOW,
            delayed_messages=self.DELAYED_MESSAGES,
            connect_timeout=connect_timeout,
            close_timeout=self.STOP_TIMEOUT / 2,
            # The machine would give up the link after this time. The call gives up earlier, for whatever reason.
            confirm_timeout=300.0 if confirm_timeout is None else 2 * confirm_timeout,
            reconnect=self.RECONNECT_POLICY,
        )
        self._eda_limits = PublishLimits(confirm_timeout, connection_max_retries, None, self.RETRY_DELAY)
        self._ssl = ssl
        self._closed = False
        self._processes: dict[int, ProcessState[Session]] = {}

    def force_json(self) -> None:
        """From now on, publish payloads as JSON instead of CBOR."""
        self._config = replace(self._config, content_type=JSON)
        session = self._process().session
        if session is not None:
            session.machine.use_json(session.now())

    def log(
        self,
        criticity: int,
        short: str,
        full: str = "",
        conversation_id: str = "",
        additional_fields: Mapping[str, Any] = {},  # eventail's default; it is only read
    ) -> None:
        """Log to the bus. The record is not confirmed and not repeated, and no failure of the network is raised.

        Without a connection it tries once to connect, unless the last attempt has just failed. Up to 100 records, the
        latest ones, wait for the next connection; a publish that fails drops them. It does not wait for a publish that
        runs: up to 1,000 records, the latest ones, are sent while that publish runs or after it. So it may be called
        from anywhere: in the iterable of ``publish_many``, in handlers of signals, in handlers of Python's logging.

        Args:
            criticity: a constant of ``eda_core.criticality``.
            short: the short message.
            full: the full message.
            conversation_id: the conversation that the record belongs to.
            additional_fields: more fields of the GELF record; not ``id``.

        Raises:
            LocalError: the level or the name of a field is not allowed.
            StateError: the endpoint is closed.
        """
        fields = gelf.checked_fields(criticity, additional_fields)
        process = self._process()
        if self._closed and process.user != threading.get_ident():
            raise StateError("the endpoint is closed", hint="make another one")
        named = {"full": full, "conversation_id": conversation_id, "fields": fields}
        process.records.append(((criticity, short, time.monotonic()), named))
        self._pass_on(process)

    def health(self) -> Health:
        """Return what the endpoint does now: its state, its link, what waits, its last error. For any thread.

        It does not ask the broker. A connection that was lost while nobody used the endpoint counts as open until the
        next use finds that out. Without a connection the state is ``idle``.
        """
        session = self._process().session
        if session is not None:
            return session.health()
        return unused(replace(self._config, pid=os.getpid())).health(0.0)

    def close(self) -> None:
        """Send the log records that are left, and close the connection, within ``STOP_TIMEOUT`` seconds.

        A publish that runs in another thread gets half of that time, and then fails. If it still runs then (because of
        its attempt to connect, or its iterable), its thread closes the connection when the publish ends. A second call
        does nothing.
        """
        process, half = self._process(), self.STOP_TIMEOUT / 2
        locked = process.lock.acquire(timeout=half)
        self._closed = True
        session = process.session
        if session is not None and (not locked or process.user is not None):  # a publish runs, perhaps in this thread
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

    def _eda_publish(self, messages: Iterable[AnyMessage], mandatory: bool, limits: PublishLimits) -> PublishCall:
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

    def _process(self) -> ProcessState[Session]:
        return self._processes.setdefault(os.getpid(), ProcessState(threading.RLock()))

    def _pass_on(self, process: ProcessState[Session]) -> None:
        """Send the log records that wait. Every user of the session does so meanwhile and at the end."""
        for _ in range(_ROUNDS):
            if not process.records or not process.lock.acquire(blocking=False):
                return
            try:
                if process.user is not None or self._closed:
                    return
                self._use(process, Session.log)
            finally:
                process.lock.release()

    def _use(self, process: ProcessState[Session], call: Callable[[Session], T]) -> T:
        """Run ``call`` with this process's session, or with a new one if that is not fit. The caller has the lock."""
        process.user = threading.get_ident()
        try:
            session = process.session
            if session is None or not session.is_fit():
                process.drop()
                config = replace(self._config, pid=os.getpid(), urls=process.urls or self._config.urls)
                session = process.begin(lambda config, records: Session(config, records, self._ssl), config)
                session.tracing = self._eda_tracing
            result = call(session)
            if self._closed:  # meanwhile, by a handler of signals or by a thread that did not get the lock
                process.close(self.STOP_TIMEOUT / 2)
            return result
        except BaseException:
            process.drop()
            raise
        finally:
            process.user = None
