"""Decides where a dead letter is published again, and what is changed in it. It publishes nothing."""

from __future__ import annotations

import argparse
import json
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from pamqp.commands import Basic

from eda_core.errors import LocalError
from eda_core.messages.codec import DecodeError, decode, encode
from eda_core.messages.headers import (
    ACQUIRED_COUNT_HEADER,
    ATTEMPT,
    DELIVERY_COUNT_HEADER,
    ERRORS,
    ORIGIN_EXCHANGE,
    ORIGIN_ROUTING_KEY,
)
from eda_core.messages.properties import Properties, Unreadable
from eda_core.messages.routing import COMMANDS, EVENTS, MAX_NAME_BYTES
from eda_core.testing.deaths import DEATH_HEADERS, has_died, original_expiration, place_of_death, published
from eda_tools.bus.confirming import Copy
from eda_tools.messages.delivery import Delivery
from eda_tools.messages.payloads import LIMITS
from eda_tools.messages.where import MISSING, Path, WhereError, key_of, parse_path

EXCHANGE: Final = "exchange"
QUEUE: Final = "queue"

#: Headers of the broker, which are never published again (docs/design.rst, "Republished x-death").
_BROKERS: Final = (*DEATH_HEADERS, DELIVERY_COUNT_HEADER, ACQUIRED_COUNT_HEADER)
#: Headers of a delayed retry. Attempts begin with 1 again.
_RETRYS: Final = (ATTEMPT, ORIGIN_EXCHANGE, ORIGIN_ROUTING_KEY)
#: Headers by which the broker would route the message to other queues as well.
_ROUTING: Final = ("CC", "BCC")
#: Bytes of properties and headers. RabbitMQ closes the connection for more, which would affect other messages.
_MAX_PROPERTIES: Final = 131_000
#: Milliseconds: the longest expiration that RabbitMQ accepts.
_MAX_EXPIRATION: Final = 315_360_000_000


class Unsendable(Exception):
    """The dead letter cannot be sent again. The text says why."""


@dataclass(frozen=True, slots=True)
class Change:
    """A change to payloads: ``--set payload.path=value``."""

    path: Path
    value: Any


def change(text: str) -> Change:
    """The type of the argument ``--set``. The value is JSON, or else text."""
    end = text.find("=")
    problem = "there is no = in it"
    while end >= 0:
        try:
            path = parse_path(text[:end], ("payload",))
        except WhereError as error:
            problem = str(error)
            end = text.find("=", end + 1)  # the path may have a quoted key with = in it
            continue
        value = text[end + 1 :]
        try:
            return Change(path, json.loads(value))
        except ValueError:
            return Change(path, value)
    raise argparse.ArgumentTypeError(f"{text!r} is not payload.path=value: {problem}")


def user_of(url: str) -> str:
    """The user name with which the broker's URL connects."""
    name = urlsplit(url).username
    return "guest" if name is None else unquote(name)


@dataclass(frozen=True, slots=True)
class CopyRules:
    """How a dead letter becomes the message that is published.

    Attributes:
        to: ``exchange`` or ``queue``.
        queue: the queue of the dead letters.
        user: the only ``user_id`` that the broker accepts from us.
        changes: changes to the payload.
        expire: whether the message gets its expiration back.
    """

    to: str
    queue: str
    user: str
    changes: Sequence[Change] = ()
    expire: bool = True

    def copy(self, delivery: Delivery) -> Copy:
        """The message to publish: all properties and headers except those of the broker and of delayed retries.

        The expiration is the one that the message had when it died first. A ``user_id`` other than ours is left out.

        Raises:
            Unsendable: it is not known where the message was published, or it cannot be written again.
        """
        origin = published(delivery.headers, delivery.routing_key)
        if not isinstance(delivery.properties, Unreadable) and (origin is None or not has_died(delivery.headers)):
            raise Unsendable("it has not died: no header tells where it was published")
        return self._copy(delivery, origin or ("", ""))

    def original(self, delivery: Delivery) -> Copy:
        """The message as it was published first, whether it has died or not. Otherwise like :meth:`copy`."""
        return self._copy(delivery, delivery.origin())

    def _copy(self, delivery: Delivery, origin: tuple[str, str]) -> Copy:
        if isinstance(delivery.properties, Unreadable):
            raise Unsendable(f"{delivery.properties.reason}: it cannot be sent as it was")
        headers = {
            name: value
            for name, value in delivery.headers.items()
            if not name.startswith(_BROKERS) and name not in _RETRYS and name not in ERRORS
        }
        exchange, routing_key = origin
        if self.to == QUEUE:
            exchange, routing_key = self._to_queue(delivery, headers, origin)
        copy = Properties()  # the constructor would refuse values that publishers can send
        for name, value in delivery.properties:
            setattr(copy, name, value)
        copy.headers = headers or None
        if copy.expiration is None:
            copy.expiration = original_expiration(delivery.headers)
        if not self.expire:
            copy.expiration = None
        if copy.user_id != self.user:
            copy.user_id = None
        body = self._changed(delivery) if self.changes else delivery.body
        _check(exchange, routing_key, copy)
        return Copy(exchange, routing_key, copy, body)

    def loses_user(self, delivery: Delivery) -> bool:
        """Whether :meth:`copy` leaves out the ``user_id``."""
        return delivery.properties.user_id not in (None, "", self.user)

    def _to_queue(self, delivery: Delivery, headers: dict[str, Any], origin: tuple[str, str]) -> tuple[str, str]:
        """Send it directly to a queue. Services need two headers to recognize such a message."""
        death = place_of_death(delivery.headers)
        target = "" if death is None else death.waited or death.queue
        if not target:
            raise Unsendable("no header tells in which queue it died")
        if target == self.queue:
            raise Unsendable(f"it died in {target!r} itself")
        for name in _ROUTING:
            headers.pop(name, None)
        if origin[0] in (EVENTS, COMMANDS):
            headers[ORIGIN_EXCHANGE], headers[ORIGIN_ROUTING_KEY] = origin
        return "", target

    def _changed(self, delivery: Delivery) -> bytes:
        content_type = (delivery.properties.content_type or "").partition(";")[0].strip().lower()
        try:
            payload = decode(delivery.body, content_type, LIMITS)
        except DecodeError as error:
            raise Unsendable(f"its payload cannot be changed: {error}") from None
        for each in self.changes:
            payload = _set(payload, each)
        try:
            return encode(payload, content_type, LIMITS)
        except LocalError as error:
            raise Unsendable(f"its payload cannot be written: {error}") from None


def _set(payload: Any, change: Change) -> Any:
    root = {"payload": payload}
    node: Any = root
    for place, step in enumerate(change.path):
        key = key_of(step, node) if isinstance(node, (dict, list)) else MISSING
        if key is MISSING and isinstance(node, list):
            raise Unsendable(f"its payload has no {_dotted(change.path[: place + 1])}")
        if key is MISSING:
            raise Unsendable(f"its {_dotted(change.path[:place])} is neither a map nor a list")
        if place == len(change.path) - 1:
            node[key] = change.value
        else:
            node = node.setdefault(key, {}) if isinstance(node, dict) else node[key]
    return root["payload"]


def _dotted(path: Path) -> str:
    return ".".join(map(str, path))


def _check(exchange: str, routing_key: str, properties: Basic.Properties) -> None:
    """Refuse what pamqp cannot write again, and for what the broker would close the channel or the connection."""
    for name in (exchange, routing_key):
        if len(name.encode(errors="surrogatepass")) > MAX_NAME_BYTES:
            raise Unsendable(f"the name {name[:40]!r}… is longer than {MAX_NAME_BYTES} bytes")
    expiration = properties.expiration
    if expiration and not (expiration.isascii() and expiration.isdecimal() and int(expiration[:20]) <= _MAX_EXPIRATION):
        raise Unsendable(f"its expiration {expiration!r} is not a number of milliseconds")
    if properties.delivery_mode not in (None, 1, 2):
        raise Unsendable(f"its delivery mode {properties.delivery_mode} is neither 1 nor 2")
    again = Basic.Properties()
    try:
        written = properties.marshal()
        again.unmarshal(struct.unpack(">H", written[:2])[0], written[2:])
    except Exception as error:  # pamqp raises TypeError, struct.error, OverflowError … for values that it has read
        raise Unsendable(f"its properties and headers cannot be written again: {error}") from None
    if any((value or None) != (getattr(again, name) or None) for name, value in properties):
        raise Unsendable("its properties and headers cannot be written again as they are")
    if len(written) > _MAX_PROPERTIES:
        raise Unsendable(f"its properties and headers are {len(written)} bytes")
