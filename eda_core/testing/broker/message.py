"""Messages, the dead letters that RabbitMQ makes of them, and the words of its refusals.

Values only: nothing here knows of queues, channels or connections. Queues, clones and outgoing deliveries share
messages and the ``Basic.Properties`` in them; nobody may change these in place.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

from pamqp import commands

from eda_core.testing.broker.texts import octet_by_octet, quoted, reply_text, string
from eda_core.testing.broker.values import amqp_type, freeze, text_of
from eda_core.testing.broker.versions import Version

REJECTED: Final = "rejected"
EXPIRED: Final = "expired"
MAXLEN: Final = "maxlen"
DELIVERY_LIMIT: Final = "delivery_limit"

PERSISTENT: Final = 2
#: The longest time to live that RabbitMQ accepts: ten years, in milliseconds.
MAX_EXPIRY_MS: Final = 315_360_000_000

_INTEGER: Final = re.compile(r"[+-]?[0-9]+", re.ASCII)
_HIGHEST: Final = 2**63 - 1
_DEATH: Final = "x-death"
_DEATH_HEADERS: Final = frozenset(
    {_DEATH, *(f"x-{which}-death-{part}" for which in ("first", "last") for part in ("reason", "queue", "exchange"))}
)


class Reply(NamedTuple):
    """A reply code (AMQP 0-9-1 section 1.2). A ``hard`` one ends the connection, the others the channel."""

    code: int
    name: str
    hard: bool


ACCESS_REFUSED: Final = Reply(403, "ACCESS_REFUSED", False)
NOT_FOUND: Final = Reply(404, "NOT_FOUND", False)
RESOURCE_LOCKED: Final = Reply(405, "RESOURCE_LOCKED", False)
PRECONDITION_FAILED: Final = Reply(406, "PRECONDITION_FAILED", False)
COMMAND_INVALID: Final = Reply(503, "COMMAND_INVALID", True)
CHANNEL_ERROR: Final = Reply(504, "CHANNEL_ERROR", True)
RESOURCE_ERROR: Final = Reply(506, "RESOURCE_ERROR", True)
NOT_ALLOWED: Final = Reply(530, "NOT_ALLOWED", True)
NOT_IMPLEMENTED: Final = Reply(540, "NOT_IMPLEMENTED", True)
INTERNAL_ERROR: Final = Reply(541, "INTERNAL_ERROR", True)


class Refusal(Exception):
    """The broker refuses what a client asks. The model turns it into ``Channel.Close`` or ``Connection.Close``."""

    def __init__(self, reply: Reply, explanation: str) -> None:
        super().__init__(explanation)
        self.reply = reply
        self.explanation = explanation

    def text(self, version: Version) -> str | None:
        """The reply text, as a release writes it; ``None`` if it cannot, because it is too long."""
        return reply_text(self.reply.name, self.explanation, version)


class Dropped(bytes):
    """A body that was too large to be kept. It has the length that was announced, and no octets.

    Args:
        size: the length, bytes.
    """

    _size: int

    def __new__(cls, size: int) -> Dropped:
        dropped = super().__new__(cls)
        dropped._size = size
        return dropped

    def __len__(self) -> int:
        return self._size


@dataclass(slots=True, eq=False)
class AmqpMessage:
    """A published message.

    Attributes:
        routing_keys: its own, then those of the headers ``CC`` and ``BCC``.
        ttl: its time to live in milliseconds; ``None`` for no limit.
        blind: those of the header ``BCC``.
        dead: it is a dead letter, so that its ``x-death`` is the broker's.
        failures: how often a consumer has failed to handle it (see ``Version.remembers_failures``).
    """

    exchange: str
    routing_keys: tuple[str, ...]
    properties: commands.Basic.Properties
    body: bytes
    ttl: int | None = None
    blind: tuple[str, ...] = ()
    dead: bool = False
    failures: int = 0
    _image: tuple[Any, ...] | None = None

    @property
    def persistent(self) -> bool:
        """Whether a durable queue keeps it over a restart."""
        return self.properties.delivery_mode == PERSISTENT

    def image(self) -> tuple[Any, ...]:
        """A hashable value that stands for the whole message."""
        if self._image is None:
            properties = tuple((name, freeze(value)) for name, value in self.properties if value not in (None, ""))
            self._image = (self.exchange, self.routing_keys, properties, self.body, self.dead, self.failures)
        return self._image


def with_properties(properties: commands.Basic.Properties, **changes: Any) -> commands.Basic.Properties:
    """A copy with ``changes``. (pamqp's constructor would refuse values that a client may send.)"""
    copy = commands.Basic.Properties()
    for name, value in properties:
        setattr(copy, name, value)
    for name, value in changes.items():
        setattr(copy, name, value)
    return copy


def accept(
    exchange: str, routing_key: str, properties: commands.Basic.Properties, body: bytes, version: Version
) -> AmqpMessage:
    """The message of a ``Basic.Publish``.

    Raises:
        Refusal: 406. The expiration is not a number of milliseconds, the delivery mode is unknown, or the header CC or
            BCC is not a list.
    """
    ttl = parse_expiration(properties.expiration, version)
    copies, blind = (_copies(properties.headers, name) for name in ("CC", "BCC"))
    keys = [routing_key, *copies, *blind]
    if version.refuses_unknown_delivery_modes and properties.delivery_mode not in (None, 1, PERSISTENT):
        mode = properties.delivery_mode
        raise Refusal(PRECONDITION_FAILED, f"invalid message: {{delivery_mode_unknown,{mode}}}")
    if properties.headers and "BCC" in properties.headers:
        visible = {name: value for name, value in properties.headers.items() if name != "BCC"}
        properties = with_properties(properties, headers=visible)
    return AmqpMessage(exchange, tuple(keys), properties, body, ttl, tuple(blind))


def parse_expiration(text: str | None, version: Version) -> int | None:
    """The property ``expiration`` in milliseconds; ``None`` if there is none.

    Raises:
        Refusal: 406. It is not a number of milliseconds.
    """
    if text is None:
        return None
    number = _INTEGER.match(text)
    if number is None:
        reason = "no_integer"
    elif number.end() != len(text):
        reason = f"{{leftover_string,{string(octet_by_octet(text[number.end() :]), version)}}}"
    elif (value := int(number.group())) < 0:
        reason = f"{{value_negative,{value}}}"
    elif value > MAX_EXPIRY_MS:
        reason = f"{{value_too_large,{value}}}"
    else:
        return value
    raise Refusal(PRECONDITION_FAILED, f"invalid expiration '{quoted(text)}': {reason}")


def _copies(headers: Any, name: str) -> list[str]:
    """The routing keys in the header CC or BCC (RabbitMQ documentation, "Sender-selected Distribution")."""
    value = (headers or {}).get(name, [])
    if not isinstance(value, list):
        what = f'{{unacceptable_type_in_header,"{name}",{amqp_type(value)}}}'
        raise Refusal(PRECONDITION_FAILED, f"invalid message: {what}")
    return [text_of(key) for key in value if isinstance(key, (str, bytes))]


def dead_letter_of(
    message: AmqpMessage,
    reason: str,
    queue: str,
    exchange: str,
    routing_key: str | None,
    wall: float,
    version: Version,
) -> AmqpMessage:
    """The message that goes to the dead-letter exchange in place of ``message``.

    Its format is in the RabbitMQ documentation, "Dead Letter Exchanges", "Effects on messages"; fields and their order
    were compared with RabbitMQ.

    Args:
        reason: why it is dead-lettered, such as "rejected".
        queue: the queue that it was in.
        exchange: the dead-letter exchange.
        routing_key: of the dead letter; ``None`` to keep those of the message.
        wall: the time of day, seconds since 1970.
        version: of RabbitMQ.
    """
    headers = dict(message.properties.headers or {})
    if version.ignores_foreign_deaths and not message.dead:
        headers = {name: value for name, value in headers.items() if name not in _DEATH_HEADERS}
    death: dict[str, Any] = {
        "reason": reason,
        "queue": queue,
        "time": datetime.fromtimestamp(int(wall), UTC),
        "exchange": message.exchange,
        "routing-keys": _told_keys(message, version),
    }
    if message.properties.expiration is not None:
        death["original-expiration"] = message.properties.expiration
    _record_death(headers, death, version)
    keys = message.routing_keys
    if routing_key is not None:
        keys = (routing_key,)
        if not version.keeps_carbon_copies:
            headers.pop("CC", None)
    headers = dict(sorted(headers.items()))
    properties = with_properties(message.properties, headers=headers, expiration=None)
    return AmqpMessage(
        exchange, keys, properties, message.body, blind=message.blind, dead=True, failures=message.failures
    )


def _told_keys(message: AmqpMessage, version: Version) -> list[str]:
    """The routing keys of a message that its ``x-death`` tells."""
    if not version.subtracts_blind_copies:
        return [message.routing_keys[0], *_copies(message.properties.headers, "CC")]
    keys = list(message.routing_keys)
    for key in message.blind:
        if key in keys:
            keys.remove(key)
    return keys


def _record_death(headers: dict[str, Any], death: dict[str, Any], version: Version) -> None:
    earlier = headers.get(_DEATH)
    if version.tells_last_death:
        for part in ("reason", "queue", "exchange"):
            headers[f"x-last-death-{part}"] = death[part]
    if earlier is None:
        headers["x-first-death-reason"] = death["reason"]
        headers["x-first-death-queue"] = death["queue"]
        headers["x-first-death-exchange"] = death["exchange"]
    if not isinstance(earlier, list):
        headers[_DEATH] = [{"count": 1, **death}]
        return
    same: dict[str, Any] | None = None
    others: list[Any] = []
    for table in _one_per_queue_and_reason(earlier) if version.reverses_deaths else earlier:
        if same is None and _cause(table) == (death["queue"], death["reason"]):
            same = table
        else:
            others.append(table)
    if same is None:
        newest = {"count": 1, **death}
    else:
        count = same.get("count")
        newest = {**same, "count": _next(count) if isinstance(count, int) else 1}
    headers[_DEATH] = [dict(sorted(newest.items())), *others]


def _next(count: int) -> int:
    """The next number of 64 bits with a sign. A client may have sent the highest one."""
    return count + 1 if count < _HIGHEST else -_HIGHEST - 1


def _cause(table: Any) -> tuple[Any, Any]:
    return (table.get("queue"), table.get("reason")) if isinstance(table, dict) else (None, None)


def _one_per_queue_and_reason(deaths: list[Any]) -> list[Any]:
    """One table for each cause, and a list of two or more reversed, as RabbitMQ 3.10 does it."""
    if len(deaths) <= 1:
        return list(deaths)
    kept: dict[Any, Any] = {}
    for table in deaths:
        cause = freeze(list(_cause(table)))
        if cause not in kept:
            alike = sum(1 for other in deaths if _cause(other) == _cause(table))
            kept[cause] = table if not isinstance(table, dict) or "count" in table else {"count": alike, **table}
    return list(reversed(kept.values()))


def is_cycle(message: AmqpMessage, queue: str, reason: str) -> bool:
    """Whether a dead letter comes back to ``queue`` and no client has rejected it since. RabbitMQ drops it then."""
    deaths = (message.properties.headers or {}).get(_DEATH)
    if reason == REJECTED or not isinstance(deaths, list):
        return False
    for table in deaths:
        died_in, why = _cause(table)
        if why == REJECTED or not isinstance(table, dict):  # a client has written what is no table
            return False
        if died_in == queue:
            return True
    return False
