"""Dead letters that a service publishes itself: what their headers say of the failure.

The broker says of a dead letter only that it was rejected. A copy with these headers says why. This module does not
decide when a message is given up.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

from pamqp.commands import Basic

from eda_core.machine.outcomes import Failed
from eda_core.machine.retry import again
from eda_core.messages.headers import (
    ATTEMPT,
    ERROR_ATTEMPTS,
    ERROR_MESSAGE,
    ERROR_QUEUE,
    ERROR_SERVICE,
    ERROR_TIME,
    ERROR_TRACEBACK,
    ERROR_TYPE,
)
from eda_core.text import shortened

#: Characters of the message of the exception that are kept.
LONGEST_MESSAGE: Final = 1000
#: Characters of the traceback that are kept: its end, which is nearest to the fault.
LONGEST_TRACEBACK: Final = 8000


def dead_letter(
    properties: Basic.Properties,
    origin: tuple[str, str],
    failure: Failed,
    *,
    service: str,
    queue: str,
    attempts: int,
    time: float,
) -> Basic.Properties | None:
    """Return the properties for a copy of a message that is given up; ``None`` if they cannot be written.

    If the headers are too large with the traceback, it is left out.

    Args:
        properties: of the message.
        origin: the exchange to which it was published first, and its routing key.
        queue: the queue of the service from which it came; "" if that is not known.
        attempts: how often it was tried.
        time: now, in seconds since 1970 (POSIX time).
    """
    message = failure.reason.removeprefix(f"{failure.error}: ") if failure.error else failure.reason
    headers: dict[str, Any] = {
        ERROR_TYPE: failure.error,
        ERROR_MESSAGE: shortened(message, LONGEST_MESSAGE),
        ERROR_SERVICE: service,
        ERROR_QUEUE: queue,
        ERROR_ATTEMPTS: attempts,
        ERROR_TIME: datetime.fromtimestamp(time, UTC).isoformat(timespec="milliseconds"),
        ERROR_TRACEBACK: failure.detail[-LONGEST_TRACEBACK:],
    }
    written = {name: _writable(value) for name, value in headers.items() if value != ""}
    copy = _copy(properties, origin, written)
    if copy is None and written.pop(ERROR_TRACEBACK, None) is not None:
        copy = _copy(properties, origin, written)
    return copy


def _copy(properties: Basic.Properties, origin: tuple[str, str], headers: dict[str, Any]) -> Basic.Properties | None:
    copy = again(properties, *origin, headers)
    if copy is not None and copy.headers is not None:
        copy.headers.pop(ATTEMPT, None)  # it is no retry: its attempts are counted by the other header
    return copy


def _writable(value: object) -> object:
    """Return the text of a program as text that has an encoding."""
    return value.encode(errors="replace").decode() if isinstance(value, str) else value
