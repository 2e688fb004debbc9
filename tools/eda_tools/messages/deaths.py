"""What the headers of a dead letter tell: where it was published, where and why it died, and when.

RabbitMQ turns the list ``x-death`` round on each death after the second (3.10), and counts deaths of the same queue and
reason in one entry; so nothing here goes by the order of the entries alone. Headers come from the network: whatever
they hold, nothing here raises.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from eda_core.messages.headers import ORIGIN_EXCHANGE, ORIGIN_ROUTING_KEY

#: Reasons that RabbitMQ gives.
REASONS: Final = ("rejected", "expired", "maxlen", "delivery_limit")

_RETRY_QUEUE: Final = re.compile(r"(?P<queue>.+)\.retry\.\d+", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Death:
    """An entry of ``x-death``.

    Attributes:
        exchange: that the message was published to before, and …
        routing_key: … with which key.
        time: of the first of them, if there are several; whole seconds of the broker's clock.
        expiration: that the message had then, in milliseconds; the broker takes it off a dead letter.
    """

    queue: str
    reason: str
    exchange: str
    routing_key: str | None
    count: int = 1
    time: datetime.datetime | None = None
    expiration: str | None = None

    @property
    def waited(self) -> str | None:
        """The queue that it went back to, if this was the end of the delay of a retry (``eda_core.machine.retry``)."""
        retry = _RETRY_QUEUE.fullmatch(self.queue) if self.exchange == "" else None
        return retry["queue"] if retry is not None else None


def deaths(headers: Mapping[str, Any]) -> list[Death]:
    """The entries of ``x-death``, those that are readable."""
    entries = headers.get("x-death")
    return [_death(entry) for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []


def _death(entry: dict[str, Any]) -> Death:
    keys, count, time = entry.get("routing-keys"), entry.get("count"), entry.get("time")
    expiration = entry.get("original-expiration")
    return Death(
        _text(entry.get("queue")),
        _text(entry.get("reason")),
        _text(entry.get("exchange")),
        keys[0] if isinstance(keys, list) and keys and isinstance(keys[0], str) else None,
        count if type(count) is int else 1,
        time if isinstance(time, datetime.datetime) and time.tzinfo is not None else None,
        expiration if isinstance(expiration, str) else None,
    )


def has_died(headers: Mapping[str, Any]) -> bool:
    """Whether it is a dead letter, or was one that nobody has made anew."""
    return bool(deaths(headers)) or isinstance(headers.get("x-first-death-exchange"), str)


def first_death(headers: Mapping[str, Any]) -> Death | None:
    """Where its way as a dead letter began."""
    found = deaths(headers)
    queue, reason = headers.get("x-first-death-queue"), headers.get("x-first-death-reason")
    for death in found:
        if (death.queue, death.reason) == (queue, reason):
            return death
    return min(found, key=_when, default=None)


def published(headers: Mapping[str, Any], routing_key: str) -> tuple[str, str] | None:
    """Exchange and routing key of its first publish; ``None`` if the headers do not tell: it has never died.

    Args:
        routing_key: with which it came; the dead-letter exchange keeps it, unless it is told not to.
    """
    exchange, key = headers.get(ORIGIN_EXCHANGE), headers.get(ORIGIN_ROUTING_KEY)
    if isinstance(exchange, str) and isinstance(key, str):
        return exchange, key
    first, told = first_death(headers), headers.get("x-first-death-exchange")
    if isinstance(told, str):
        return told, first.routing_key if first is not None and first.routing_key is not None else routing_key
    if first is None:
        return None
    return first.exchange, routing_key if first.routing_key is None else first.routing_key


def place_of_death(headers: Mapping[str, Any]) -> Death | None:
    """The death in a service's queue: neither the end of a retry's delay, nor one in a queue for dead letters."""
    found = deaths(headers)
    real = [death for death in found if death.waited is None]
    if not real:
        return max(found, key=_when, default=None)
    origin = published(headers, "")
    for exchange in (origin[0] if origin is not None else "", ""):  # a delayed retry comes through the default exchange
        there = [death for death in real if death.exchange == exchange]
        if there:
            return max(there, key=_when)
    first = first_death(headers)
    return first if first in real else min(real, key=_when)


def died_at(headers: Mapping[str, Any]) -> datetime.datetime | None:
    """When it died last."""
    times = [death.time for death in deaths(headers) if death.time is not None]
    return max(times, default=None)


def original_expiration(headers: Mapping[str, Any]) -> str | None:
    """The property that the broker took off when it died."""
    first = first_death(headers)
    if first is not None and first.expiration is not None:
        return first.expiration
    return next((death.expiration for death in deaths(headers) if death.expiration is not None), None)


def _when(death: Death) -> float:
    return death.time.timestamp() if death.time is not None else 0.0


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
