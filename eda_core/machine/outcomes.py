"""The outcomes of handlers, and how they are made of what a handler returned or raised.

It decides which outcome a result means. It does not know what follows from an outcome.
"""

from __future__ import annotations

import traceback
from collections.abc import AsyncGenerator, Coroutine, Generator
from dataclasses import dataclass
from typing import Final

from eda_core.criticality import ALERT, ERROR
from eda_core.errors import EdaError, NoHandler, NotBegun, Reject
from eda_core.messages.gelf import check_level
from eda_core.messages.values import AnyMessage, Command, Configuration, Event, LogRecord, Message, Result
from eda_core.text import one_line, shortened

#: The packages that run user code.
PACKAGES: Final = ("eda_core", "eda_aio", "eda_pika", "eda_kombu")


@dataclass(frozen=True, slots=True)
class Done:
    """The handler succeeded. Its publishes are sent, and its message is acknowledged when they are confirmed."""


@dataclass(frozen=True, slots=True)
class Deferred:
    """The handler succeeded, and its message will be acknowledged by hand. Its publishes are sent."""


@dataclass(frozen=True, slots=True)
class Configured:
    """The handler of a configuration succeeded, and the service is configured now."""


@dataclass(frozen=True, slots=True, repr=False)
class Failed:
    """The handler failed. Its publishes are dropped, and the retry policy decides about its message.

    Attributes:
        reason: why, in one line.
        detail: the traceback; "" if there is none.
        permanent: whether to dead-letter the message at once, because trying again cannot help.
        level: the syslog severity of the log record, from 0 to 7.
        error: the name of the type of the exception; "" if there is none.

    Raises:
        LocalError: the level is not a syslog severity.
    """

    reason: str
    detail: str = ""
    permanent: bool = False
    level: int = ALERT
    error: str = ""

    def __post_init__(self) -> None:
        check_level(self.level)

    def __repr__(self) -> str:
        return f"Failed({shortened(self.reason)!r})"


#: Any outcome of a handler.
Outcome = Done | Deferred | Configured | Failed

#: A ``Done``, made once.
DONE: Final = Done()
#: A ``Deferred``, made once.
DEFERRED: Final = Deferred()
#: A ``Configured``, made once.
CONFIGURED: Final = Configured()


#: What ``True`` from a handler means, by the type of its message.
_TRUE: Final[dict[type[Message], Outcome]] = {
    Event: DEFERRED,
    Command: DEFERRED,
    Result: DEFERRED,
    Configuration: CONFIGURED,
    LogRecord: DONE,
}


def outcome(message: AnyMessage, returned: object) -> Outcome:
    """Return the outcome of a handler that has returned a value for ``message``.

    ``True`` means ``Configured`` for a configuration, nothing for a log record, and ``Deferred`` for any other message.
    ``None`` and ``False`` mean ``Done``. So does any other value, because a message must not stay unacknowledged by
    mistake; but for a configuration another true value means ``Configured``, as in eventail. :func:`is_payload` tells
    such values. A coroutine or a generator is a failure.
    """
    if returned is None or returned is False:
        return DONE
    if returned is True:
        return _TRUE[type(message)]
    try:
        check_begun(returned)
        return CONFIGURED if type(message) is Configuration and returned else DONE
    except Exception as error:  # some values, such as arrays, are neither true nor false
        return failure(error)


def is_payload(returned: object) -> bool:
    """Return whether a value that a handler has returned is no sign. From the handler of a command it is the result."""
    return returned is not None and returned is not True and returned is not False


def check_begun(returned: object) -> None:
    """Check that a handler, a hook or a timer did its work, and did not return it as a coroutine or a generator.

    Raises:
        NotBegun: ``returned`` is a coroutine or a generator.
    """
    if isinstance(returned, (Coroutine, Generator, AsyncGenerator)):
        if isinstance(returned, Coroutine):
            returned.close()  # otherwise Python warns later that it was never awaited
        raise NotBegun(
            f"the function was not run: its result is a value of type {type(returned).__name__}",
            hint="await it if handlers are coroutines; otherwise use neither async nor yield in them",
        )


def failure(error: BaseException) -> Failed:
    """Return the outcome of a handler that has raised ``error``.

    ``Reject`` and ``NoHandler`` are permanent failures. The level of a ``NoHandler`` is ERROR, that of others ALERT.
    """
    try:
        text = str(error)
    except BaseException:  # the __str__ of a user's exception may raise anything
        text = "it cannot be shown"
    if isinstance(error, NoHandler):
        return Failed(one_line(text), permanent=True, level=ERROR, error=type(error).__name__)
    name = type(error).__name__
    reason = one_line(f"{name}: {text}")
    try:
        detail = _traceback(error)
    except BaseException:  # its other methods, too
        detail = ""
    return Failed(reason, detail, permanent=isinstance(error, Reject), error=one_line(name))


def _traceback(error: BaseException) -> str:
    """Return the traceback of an error without the frames of this toolkit that have called the user's code.

    If there is no frame of the user, all frames are kept, because the toolkit is wrong. But if the error is one of the
    toolkit, it is about what the user's code has returned: its text says all, and "" is returned.
    """
    first = error.__traceback__
    while first is not None and first.tb_frame.f_globals.get("__name__", "").partition(".")[0] in PACKAGES:
        first = first.tb_next
    if first is None and error.__traceback__ is not None:
        if isinstance(error, EdaError):
            return ""
        first = error.__traceback__
    return "".join(traceback.format_exception(type(error), error, first))
