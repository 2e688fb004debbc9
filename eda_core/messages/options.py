"""What a publisher may add to a message: headers, a time after which it is of no use, a priority, and a delay.

It decides which values are allowed. It does not know when a message is published.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from eda_core.checks import check_seconds
from eda_core.errors import LocalError
from eda_core.messages.delays import DELAY, DELAY_STEP, check_delay
from eda_core.messages.envelope import LONGEST_EXPIRATION, NOT_SENT, SENT
from eda_core.messages.headers import CLAIM_CHECK
from eda_core.text import shortened

#: The highest priority that AMQP can carry. RabbitMQ's queues have as many levels as their ``x-max-priority``.
_HIGHEST_PRIORITY: Final = 255
#: The longest expiration, seconds.
_LONGEST: Final = LONGEST_EXPIRATION / 1000
#: The properties that have an argument of their own.
_ARGUMENTS: Final = ("expiration", "priority")


def options(
    headers: Mapping[str, Any] | None = None,
    expiration: float | None = None,
    priority: int | None = None,
    delay: float | None = None,
    *,
    delays: bool = False,
) -> dict[str, Any]:
    """Return the ``meta`` of a message that has these headers and properties.

    Args:
        headers: more headers, by name.
        expiration: how long the message is of use, seconds. A queue drops or dead-letters it then.
        priority: from 0 to 255. Only queues with priorities look at it.
        delay: how long the message waits on the broker before it is published, seconds.
        delays: whether the queues are declared in which it would wait.

    Raises:
        LocalError: a value is wrong, or a header has a name that the toolkit or the broker needs. The text says which.
    """
    meta: dict[str, Any] = {}
    if headers is not None:
        if not isinstance(headers, Mapping):
            raise LocalError(f"headers is {type(headers).__name__}", hint="give a dict: names as text, and values")
        for name in headers:
            _check_name(name)
        meta.update(headers)
    if expiration is not None:
        check_seconds("expiration", expiration)
        if expiration > _LONGEST:
            raise LocalError(f"expiration is {expiration!r}", hint=f"give seconds, up to {_LONGEST:.0f}")
        meta["expiration"] = str(max(1, round(expiration * 1000)))
    if priority is not None:
        if type(priority) is not int or not 0 <= priority <= _HIGHEST_PRIORITY:
            hint = f"give a whole number from 0 to {_HIGHEST_PRIORITY}"
            raise LocalError(f"priority is {shortened(repr(priority), 40)}", hint=hint)
        meta["priority"] = priority
    if delay is not None:
        if not delays:
            hint = "set DELAYED_MESSAGES = True in the class, which declares the queues in which they wait"
            raise LocalError("delayed messages are not declared", hint=hint)
        meta[DELAY] = check_delay(delay)
    return meta


def _check_name(name: object) -> None:
    shown = shortened(repr(name), 60)
    if not isinstance(name, str):
        raise LocalError(f"the name of a header is {shown}", hint="give names as text")
    hint = "choose another name"
    if name.startswith("x-"):
        reason = "names that begin with x- belong to the broker"
    elif name in _ARGUMENTS:
        reason, hint = "it is a property of messages", f"give the argument {name}"
    elif name in SENT or name in NOT_SENT or name == CLAIM_CHECK or name.startswith(DELAY_STEP):
        reason = "the toolkit or the broker writes it"
    else:
        return
    raise LocalError(f"the header {shown} cannot be sent: {reason}", hint=hint)
