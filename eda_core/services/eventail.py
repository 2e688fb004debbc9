"""The names of eventail 2.3.6, as a layer on the services of this toolkit.

This module decides which of eventail's names exist here, and what to do instead of the others. It does not know how a
service works.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import TYPE_CHECKING, Any, ClassVar, Final, Generic, NoReturn, TypeVar

from eda_core.checks import is_number
from eda_core.errors import LocalError
from eda_core.machine.config import Config
from eda_core.messages.routing import COMMANDS, CONFIGURATIONS, EVENTS, LOGS
from eda_core.messages.values import Event
from eda_core.services.api import ServiceApi
from eda_core.services.coroutines import CoroutineService

R = TypeVar("R")

_LINK: Final = "the adapter opens and reopens connections and channels by itself; use on_ready() to begin"
_TIMERS: Final = "use call_later(); methods of eda_pika may be called from any thread"
_RETRIES: Final = "set RETRY_POLICY, or raise eda_core.Reject in the handler"
_TASKS: Final = "use asyncio.create_task() or asyncio.TaskGroup"

#: Methods that eventail calls when a link is opened or used, so that subclasses may override them; and what to do
#: instead.
_OVERRIDDEN: Final = dict.fromkeys(
    """on_connection_open on_connection_open_error on_connection_closed on_channel_open on_channel_closed
    on_exchange_declareok on_queue_declareok on_bindok on_basic_qos_ok on_delivery_confirmation on_consumer_cancelled
    on_message_returned on_message on_cancelok open_channels setup_exchange setup_queue set_qos start_consuming
    stop_consuming reset_connection_state enable_delivery_confirmations add_on_cancel_callback add_on_return_callback
    add_on_channel_close_callback""".split(),
    _LINK,
) | {"ack_policy": _RETRIES}

#: All methods and attributes of eventail that do not exist here, and what to do instead.
_GONE: Final = _OVERRIDDEN | {
    "connect": _LINK,
    "reconnect": _LINK,
    "close_connection": _LINK,
    "close_channel": _LINK,
    "should_reconnect": _LINK,
    "was_consuming": _LINK,
    "url_idx": _LINK,
    "_urls": _LINK,
    "_connection": f"{_LINK}; {_TIMERS}",
    "_channel": f"{_LINK}; acknowledge by manual_ack() and manual_nack()",
    "_log_channel": "use log()",
    "_emit": "use publish_event(), send_command(), return_success() …",
    "_auto_ack": "use manual_ack()",
    "_serialize": "payloads are written as CBOR, after use_json() as JSON",
    "_mime_type": "payloads are written as CBOR, after use_json() as JSON",
    "create_task": _TASKS,
    "loop": _TASKS,
}


class EventailNames:
    """The attributes that both eventail's ``Service`` and its ``Endpoint`` have, for subclasses to read.

    Attributes:
        ID: the process id of this worker.
        HOSTNAME: the name of its host in logs and in the name of the connection. A subclass may set it.
    """

    ID: int
    HOSTNAME: str = ""
    EVENT_EXCHANGE: ClassVar[str] = EVENTS
    EVENT_EXCHANGE_TYPE: ClassVar[str] = "topic"
    CONFIGURATION_EXCHANGE: ClassVar[str] = CONFIGURATIONS
    CONFIGURATION_EXCHANGE_TYPE: ClassVar[str] = "topic"
    LOG_EXCHANGE: ClassVar[str] = LOGS
    LOG_EXCHANGE_TYPE: ClassVar[str] = "topic"

    def _eda_introduce(self, hostname: str, pid: int) -> None:
        """Set the name of the host and the process id, and check the exchanges.

        Raises:
            LocalError: a subclass has set another exchange than the architecture has.
        """
        for name, fixed in _FIXED.items():
            value = getattr(type(self), name, fixed)
            if value != fixed:
                raise LocalError(
                    f"{type(self).__name__}.{name} is {value!r}, where the architecture has {fixed!r}",
                    hint="do not change it; use virtual hosts to separate buses",
                )
        self.ID = pid
        self.HOSTNAME = self.HOSTNAME or hostname


_FIXED: Final = {
    "EVENT_EXCHANGE": EVENTS,
    "CMD_EXCHANGE": COMMANDS,
    "CONFIG_EXCHANGE": CONFIGURATIONS,
    "CONFIGURATION_EXCHANGE": CONFIGURATIONS,
    "LOG_EXCHANGE": LOGS,
} | dict.fromkeys(
    """EVENT_EXCHANGE_TYPE CMD_EXCHANGE_TYPE CONFIG_EXCHANGE_TYPE CONFIGURATION_EXCHANGE_TYPE
    LOG_EXCHANGE_TYPE""".split(),
    "topic",
)


class EventailService(EventailNames, ServiceApi[R], Generic[R]):
    """The names of eventail's services. If user code uses one that does not exist here, it gets advice.

    The ``Service`` of an adapter derives from this class and from the class that runs it, in this order.
    """

    CMD_EXCHANGE: ClassVar[str] = COMMANDS
    CMD_EXCHANGE_TYPE: ClassVar[str] = "topic"
    CONFIG_EXCHANGE: ClassVar[str] = CONFIGURATIONS
    CONFIG_EXCHANGE_TYPE: ClassVar[str] = "topic"

    def _eda_configured(self, config: Config) -> None:
        super()._eda_configured(config)
        self._eda_introduce(config.hostname, config.pid)

    def __init_subclass__(cls, **named: Any) -> None:
        super().__init_subclass__(**named)
        for name in sorted(vars(cls).keys() & _OVERRIDDEN.keys()):
            warnings.warn(
                f"{cls.__name__}.{name} is never called, although eventail calls it; {_OVERRIDDEN[name]}",
                UserWarning,
                stacklevel=2,
            )

    @property
    def _message_number(self) -> int:
        """How many messages the service has published so far. eventail's example makes correlation ids of it."""
        return self.published_messages

    if not TYPE_CHECKING:  # pragma: no branch - or type checkers would believe that every name exists

        def __getattr__(self, name: str) -> NoReturn:
            advice = f", which eventail has; {_GONE[name]}" if name in _GONE else ""
            raise AttributeError(
                f"{type(self).__name__!r} object has no attribute {name!r}{advice}", name=name, obj=self
            )


class EventailCoroutines(EventailService[Coroutine[Any, Any, None]], CoroutineService):
    """The names of eventail's asynchronous services, for services whose methods are awaited."""

    def stop(self, timeout: float | None = None, *, reconnect: bool = False) -> Coroutine[Any, Any, None]:
        """Ask the service to stop. This returns at once; ``run`` returns when the service has stopped.

        Args:
            timeout: seconds, by default ``STOP_TIMEOUT``. Then unfinished messages are left to other workers.
            reconnect: an argument of eventail's that must be false: ``run`` reconnects by itself.

        Raises:
            LocalError: the timeout is not a number of seconds, or ``reconnect`` is true.
            StateError: the service was not run yet.
        """
        return super().stop(time_to_stop(timeout, reconnect))


def time_to_stop(timeout: float | None, reconnect: bool) -> float | None:
    """Return the timeout that is meant by a call of ``stop``. Its first argument may be eventail's ``reconnect``.

    Raises:
        LocalError: ``reconnect`` is true, or the timeout is not a number of seconds.
    """
    if isinstance(timeout, bool):
        timeout, reconnect = None, reconnect or timeout
    if reconnect:
        raise LocalError(
            "stop() was asked to reconnect", hint="lost links are reopened anyway; to begin anew, run another service"
        )
    if timeout is not None and not (is_number(timeout) and timeout >= 0):
        raise LocalError(f"the timeout of stop() is {timeout!r}", hint="give seconds, 0 or more")
    return timeout


def event_of(meta: dict[str, Any], given: tuple[str, Any, str]) -> Event:
    """Return the event that is given as its name, its payload and its conversation id.

    Raises:
        LocalError: something else is given.
    """
    try:
        name, message, conversation_id = given
    except (TypeError, ValueError):
        raise LocalError(
            f"an event is a {type(given).__name__}", hint="pass (name, message, conversation_id)"
        ) from None
    return Event(name, message, text_of(conversation_id), meta)


def text_of(conversation_id: Any) -> Any:
    """Return a conversation id as text: eventail took a UUID or a number too. ``None`` stays, and is refused later."""
    return conversation_id if conversation_id is None else str(conversation_id)


class ReconnectingSupervisor:
    """Runs ``service_factory(*args, **kwargs)``, as in eventail. The service reconnects by itself.

    Attributes:
        service: the service.
    """

    def __init__(self, service_factory: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        self.service: Any = service_factory(*args, **kwargs)

    def run(self) -> None:
        """Run the service: see its method ``run``. A ``KeyboardInterrupt`` ends it and is not raised."""
        with suppress(KeyboardInterrupt):
            self.service.run()
