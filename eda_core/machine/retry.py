"""Delayed retries: a failed message is published to a queue from which it returns after the delay.

For each delay there is one retry queue, ``<queue>.retry.<milliseconds>``. Nobody consumes it. Its messages expire, and
the broker dead-letters them through the default exchange, straight into the service's queue. Headers of ours say where
a message was published first, and how often it has failed (docs/architecture.rst, "Delayed retries" and "Retry
queues"). This module does not decide when a message is tried again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from pamqp.commands import Basic, Queue

from eda_core.messages.headers import (
    ACQUIRED_COUNT_HEADER,
    ATTEMPT,
    DELIVERY_COUNT_HEADER,
    ERRORS,
    ORIGIN_EXCHANGE,
    ORIGIN_ROUTING_KEY,
    ROUTING,
)
from eda_core.messages.properties import Properties
from eda_core.messages.routing import MAX_HEADER_BYTES

#: The first characters of the broker's own headers, which must not be published again (docs/design.rst, "Republished
#: x-death").
_DEATH: Final = ("x-death", "x-first-death", "x-last-death", DELIVERY_COUNT_HEADER, ACQUIRED_COUNT_HEADER)


#: The other properties that a copy has.
_COPIED: Final = (
    *("content_type", "content_encoding", "priority", "correlation_id", "reply_to"),
    *("message_id", "timestamp", "message_type", "app_id"),
)


def retry_queue(queue: str, delay: float) -> str:
    """Return the name of the queue in which messages of ``queue`` wait for ``delay`` seconds."""
    return f"{queue}.retry.{_milliseconds(delay)}"


def declaration(queue: str, delay: float) -> Queue.Declare:
    """Return the command that declares the retry queue for ``queue`` and a delay, seconds."""
    arguments: dict[str, Any] = {
        "x-message-ttl": _milliseconds(delay),
        "x-dead-letter-exchange": "",
        "x-dead-letter-routing-key": queue,
    }
    return Queue.Declare(queue=retry_queue(queue, delay), durable=True, arguments=arguments)


def attempts_behind(headers: Mapping[str, Any]) -> int:
    """Return how often a message has failed before its delayed retry, as its headers say."""
    count = headers.get(ATTEMPT)
    return count if type(count) is int and count > 0 else 0


def again(
    properties: Basic.Properties, exchange: str, routing_key: str, more: Mapping[str, Any]
) -> Basic.Properties | None:
    """Return the properties for a copy of a failed message; ``None`` if they cannot be written, or are too large.

    They are those of the message without the broker's own headers, without the expiration, because the message was
    delivered in time, and without the user id, because the broker refuses that of another user. Headers say to which
    exchange and with which routing key the message was published first.

    Args:
        more: more headers.
    """
    headers = {
        name: value
        for name, value in (properties.headers or {}).items()
        if not str(name).startswith(_DEATH) and name not in ROUTING and name not in ERRORS
    }
    headers[ORIGIN_EXCHANGE] = exchange
    headers[ORIGIN_ROUTING_KEY] = routing_key
    headers.update(more)
    copy = Properties(headers=headers, delivery_mode=2, **{name: getattr(properties, name) for name in _COPIED})
    try:
        size = len(copy.marshal())
    except Exception:  # pamqp raises TypeError, struct.error, OverflowError and others
        return None
    return copy if size <= MAX_HEADER_BYTES else None


def _milliseconds(delay: float) -> int:
    return round(delay * 1000)
