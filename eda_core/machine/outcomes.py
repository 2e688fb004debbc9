"""What a handler's run came to, and how that is told from what the handler returned or raised."""

from __future__ import annotations

import traceback
from collections.abc import AsyncGenerator, Coroutine, Generator
from dataclasses import dataclass
from typing import Final

from eda_core.criticality import ALERT, ERROR
from eda_core.errors import NoHandler, NotBegun, Reject
from eda_core.messages.gelf import check_level
from eda_core.messages.values import AnyMessage, Configuration, LogRecord
from eda_core.text import one_line, shortened


@dataclass(frozen=True, slots=True)
class Done:
    """The handler succeeded: publish what it published, then acknowledge."""


@dataclass(frozen=True, slots=True)
class Deferred:
    """The handler succeeded and will acknowledge the message itself."""


@dataclass(frozen=True, slots=True)
class Configured:
    """A configuration handler succeeded and the service is now configured."""


@dataclass(frozen=True, slots=True, repr=False)
class Failed:
    """The handler failed: what it published is forgotten, the retry policy decides.

    Attributes:
        reason: one line.
        detail: the traceback, or "".
        permanent: trying again cannot help: dead-letter at once.
        level: criticality of the log.

    Raises:
        LocalError: the level is not a syslog severity.
    """

    reason: str
    detail: str = ""
    permanent: bool = False
    level: int = ALERT

    def __post_init__(self) -> None:
        check_level(self.level)

    def __repr__(self) -> str:
        return f"Failed({shortened(self.reason)!r})"


Outcome = Done | Deferred | Configured | Failed

DONE: Final = Done()
DEFERRED: Final = Deferred()
CONFIGURED: Final = Configured()


def outcome(message: AnyMessage, returned: object) -> Outcome:
    """What a handler that returned has come to."""
    try:
        if not returned:
            return DONE
        check_begun(returned)
    except Exception as error:  # whether an array is true, say, is an error
        return failure(error)
    if type(message) is LogRecord:
        return DONE
    return CONFIGURED if type(message) is Configuration else DEFERRED


def check_begun(returned: object) -> None:
    """See that what a handler, a hook or a timer returned is not its own work, still to be done.

    Raises:
        NotBegun: it is a coroutine or a generator.
    """
    if isinstance(returned, (Coroutine, Generator, AsyncGenerator)):
        if isinstance(returned, Coroutine):
            returned.close()  # or Python warns of it later, elsewhere
        raise NotBegun(
            f"nothing is done: what was returned is still to be run ({type(returned).__name__})",
            hint="await it where handlers are coroutines; elsewhere they have neither async nor yield",
        )


def failure(error: BaseException) -> Failed:
    """What a handler that raised has come to."""
    try:
        text = str(error)
    except BaseException:  # an exception of the user's whose __str__ fails, with whatever
        text = "it cannot be shown"
    if isinstance(error, NoHandler):
        return Failed(one_line(text), permanent=True, level=ERROR)
    reason = one_line(f"{type(error).__name__}: {text}")
    try:
        detail = "".join(traceback.format_exception(error))
    except BaseException:  # or one whose other parts fail
        detail = ""
    return Failed(reason, detail, permanent=isinstance(error, Reject))
