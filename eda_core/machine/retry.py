"""Delayed retries: a failed message is published again, into a queue that gives it back when the delay is over.

For each delay there is one queue beside the service's own, ``<queue>.retry.<milliseconds>``. Nobody consumes it; its
messages expire and are dead-lettered, through the default exchange, straight into the service's queue. What they would
lose on that way travels in headers of ours: where they were published first, and how often they have failed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from pamqp.commands import Basic, Queue

from eda_core.messages.headers import ATTEMPT, DELIVERY_COUNT_HEADER, ORIGIN_EXCHANGE, ORIGIN_ROUTING_KEY, ROUTING
from eda_core.messages.properties import Properties
from eda_core.messages.routing import MAX_HEADER_BYTES

#: The broker's own; never to be published again (docs/design.rst, "Republished x-death").
_DEATH: Final = ("x-death", "x-first-death", "x-last-death", DELIVERY_COUNT_HEADER)


def retry_queue(queue: str, delay: float) -> str:
    """The queue in which messages of ``queue`` wait for ``delay`` seconds."""
    return f"{queue}.retry.{_milliseconds(delay)}"


def declaration(queue: str, delay: float) -> Queue.Declare:
    """The command that declares it."""
    arguments: dict[str, Any] = {
        "x-message-ttl": _milliseconds(delay),
        "x-dead-letter-exchange": "",
        "x-dead-letter-routing-key": queue,
    }
    return Queue.Declare(queue=retry_queue(queue, delay), durable=True, arguments=arguments)


def attempts_behind(headers: Mapping[str, Any]) -> int:
    """How often a message that was put straight into the queue has failed, by its own account."""
    count = headers.get(ATTEMPT)
    return count if type(count) is int and count > 0 else 0


def again(properties: Basic.Properties, exchange: str, routing_key: str, attempt: int) -> Basic.Properties | None:
    """The properties of a failed message's copy; ``None`` if it has headers that cannot be written again, or too many.

    Everything is kept but what is the broker's, the expiration (it has been delivered in time) and the user id (the
    broker refuses that of another user).
    """
    headers = {
        name: value
        for name, value in (properties.headers or {}).items()
        if not str(name).startswith(_DEATH) and name not in ROUTING
    }
    headers[ATTEMPT] = attempt
    headers[ORIGIN_EXCHANGE] = exchange
    headers[ORIGIN_ROUTING_KEY] = routing_key
    copy = Properties(
        content_type=properties.content_type,
        content_encoding=properties.content_encoding,
        headers=headers,
        delivery_mode=2,
        priority=properties.priority,
        correlation_id=properties.correlation_id,
        reply_to=properties.reply_to,
        message_id=properties.message_id,
        timestamp=properties.timestamp,
        message_type=properties.message_type,
        app_id=properties.app_id,
    )
    try:
        size = len(copy.marshal())
    except Exception:  # pamqp raises TypeError, struct.error, OverflowError … for what it has read but cannot write
        return None
    return copy if size <= MAX_HEADER_BYTES else None


def _milliseconds(delay: float) -> int:
    return round(delay * 1000)
