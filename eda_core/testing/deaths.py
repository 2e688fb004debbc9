"""Reads the headers of a dead letter: where it was published, where, why and when it died. It decides nothing about it.

RabbitMQ 3.10 reverses the list ``x-death`` with each death after the second, and one entry counts the deaths in the
same queue for the same reason. So nothing here relies on the order of the entries alone. Headers come from the network:
nothing here raises, whatever they hold.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from eda_core.messages.delays import DELAY_EXCHANGES, DELAY_QUEUES
from eda_core.messages.headers import (
    ATTEMPT,
    ERROR_ATTEMPTS,
    ERROR_MESSAGE,
    ERROR_QUEUE,
    ERROR_SERVICE,
    ERROR_TIME,
    ERROR_TRACEBACK,
    ERROR_TYPE,
    ORIGIN_EXCHANGE,
    ORIGIN_ROUTING_KEY,
)

#: The reason of a death that a service has told itself (``DEAD_LETTER_EXCHANGE``).
GIVEN_UP: Final = "given up"
#: The beginnings of the names of the headers that RabbitMQ gives a dead letter.
DEATH_HEADERS: Final = ("x-death", "x-first-death", "x-last-death")
#: Names of the queues in which messages wait for their retry (``eda_core.machine.retry``).
_RETRY_QUEUE: Final = re.compile(r"(.+)\.retry\.\d+", re.DOTALL)


def retried(queue: str) -> str:
    """The queue whose messages wait in ``queue`` for their retry, by the name; "" if it is no such queue."""
    match = _RETRY_QUEUE.fullmatch(queue)
    return match[1] if match else ""


@dataclass(frozen=True, slots=True)
class Death:
    """An entry of ``x-death``, or what the service says that has given the message up.

    Attributes:
        queue: the queue in which the message died.
        reason: ``rejected``, ``expired``, ``maxlen`` or ``delivery_limit``; or ``given up``.
        exchange: the exchange to which the message had been published.
        routing_key: the routing key with which it had been published.
        count: how often this happened.
        time: when it happened first; whole seconds of the broker's clock.
        expiration: the message's expiration in milliseconds. The broker removes it from a dead letter.
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
        """The queue to which the message returned, if this was the end of a retry's delay; else ``None``."""
        return (retried(self.queue) or None) if self.exchange == "" else None


@dataclass(frozen=True, slots=True)
class Error:
    """Why a service has given a message up, as it says in the headers of the dead letter.

    Attributes:
        type: the name of the type of the exception; "" if there was none.
        message: what the exception says, or why the message was given up without one.
        traceback: the end of the traceback; "" if there is none.
        service: who has given it up.
    """

    type: str
    message: str
    traceback: str
    service: str

    @property
    def text(self) -> str:
        """The last line of the traceback, such as ``KeyError: 'amount'``."""
        return f"{self.type}: {self.message}" if self.type else self.message


def error_of(headers: Mapping[str, Any]) -> Error | None:
    """Why a service has given the message up; ``None`` if none says so."""
    service = _text(headers.get(ERROR_SERVICE))
    if not service:
        return None
    kind, message, traceback = (_text(headers.get(name)) for name in (ERROR_TYPE, ERROR_MESSAGE, ERROR_TRACEBACK))
    return Error(kind, message, traceback, service)


def deaths(headers: Mapping[str, Any]) -> list[Death]:
    """The readable entries of ``x-death``, and what a service says that has given the message up.

    The end of the delay with which a message was published is none of them.
    """
    entries = headers.get("x-death")
    found = [_death(entry) for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []
    found = [death for death in found if death.queue not in DELAY_QUEUES]
    if error_of(headers) is not None:
        key = headers.get(ORIGIN_ROUTING_KEY)
        death = Death(
            _text(headers.get(ERROR_QUEUE)),
            GIVEN_UP,
            _text(headers.get(ORIGIN_EXCHANGE)),
            key if isinstance(key, str) else None,
            time=_time(headers.get(ERROR_TIME)),
        )
        found.append(death)
    return found


def _time(value: object) -> datetime.datetime | None:
    try:
        time = datetime.datetime.fromisoformat(_text(value))
    except ValueError:
        return None
    return time if time.tzinfo is not None else None


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
    """Whether the message is a dead letter, or was one and keeps those headers."""
    first = headers.get("x-first-death-exchange")
    return bool(deaths(headers)) or (isinstance(first, str) and first not in DELAY_EXCHANGES)


def first_death(headers: Mapping[str, Any]) -> Death | None:
    """The first death of the message."""
    found = deaths(headers)
    queue, reason = headers.get("x-first-death-queue"), headers.get("x-first-death-reason")
    for death in found:
        if (death.queue, death.reason) == (queue, reason):
            return death
    return min(found, key=_when, default=None)


def published(headers: Mapping[str, Any], routing_key: str) -> tuple[str, str] | None:
    """Exchange and routing key of the first publish; ``None`` if the headers do not tell: the message has never died.

    Args:
        routing_key: the message's own. A dead-letter exchange keeps it unless the queue sets another one.
    """
    exchange, key = headers.get(ORIGIN_EXCHANGE), headers.get(ORIGIN_ROUTING_KEY)
    if isinstance(exchange, str) and isinstance(key, str):
        return exchange, key
    first, first_exchange = first_death(headers), headers.get("x-first-death-exchange")
    if isinstance(first_exchange, str):
        return first_exchange, first.routing_key if first is not None and first.routing_key is not None else routing_key
    if first is None:
        return None
    return first.exchange, routing_key if first.routing_key is None else first.routing_key


def place_of_death(headers: Mapping[str, Any]) -> Death | None:
    """The death in a service's queue: not the end of a retry's delay, and not one in a queue for dead letters."""
    found = deaths(headers)
    real = [death for death in found if death.waited is None]
    if not real:
        return max(found, key=_when, default=None)
    origin = published(headers, "")
    # A delayed retry comes through the default exchange.
    for exchange in (origin[0] if origin is not None else "", ""):
        there = [death for death in real if death.exchange == exchange]
        if there:
            return max(there, key=_when)
    first = first_death(headers)
    return first if first in real else min(real, key=_when)


def attempts(headers: Mapping[str, Any]) -> int | None:
    """How often the message was tried; ``None`` if its headers do not tell, because no copy of it was published.

    A service that gives a message up says it. The header of a copy for a retry counts the attempts that failed before.
    If that copy was rejected, it was tried once more.
    """
    told = headers.get(ERROR_ATTEMPTS)
    if type(told) is int and told >= 0:
        return told
    failed = headers.get(ATTEMPT)
    if type(failed) is not int or failed < 1:
        return None
    return failed + any(death.waited is None and death.reason == "rejected" for death in deaths(headers))


def died_at(headers: Mapping[str, Any]) -> datetime.datetime | None:
    """When the message died last."""
    times = [death.time for death in deaths(headers) if death.time is not None]
    return max(times, default=None)


def original_expiration(headers: Mapping[str, Any]) -> str | None:
    """The expiration that the broker removed when the message died."""
    first = first_death(headers)
    if first is not None and first.expiration is not None:
        return first.expiration
    return next((death.expiration for death in deaths(headers) if death.expiration is not None), None)


def _when(death: Death) -> float:
    return death.time.timestamp() if death.time is not None else 0.0


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
