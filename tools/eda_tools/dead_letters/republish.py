"""The message that a dead letter becomes again: where it goes, and what is changed in it."""

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
from eda_core.messages.headers import ATTEMPT, DELIVERY_COUNT_HEADER, ORIGIN_EXCHANGE, ORIGIN_ROUTING_KEY
from eda_core.messages.properties import Properties
from eda_core.messages.routing import COMMANDS, EVENTS
from eda_tools.bus.confirming import Copy
from eda_tools.messages.deaths import has_died, original_expiration, place_of_death, published
from eda_tools.messages.delivery import Delivery
from eda_tools.messages.payloads import LIMITS
from eda_tools.messages.where import Path, WhereError, parse_path

EXCHANGE: Final = "exchange"
QUEUE: Final = "queue"

#: The broker's own headers; never to be published again (docs/design.rst, "Republished x-death").
_BROKERS: Final = ("x-death", "x-first-death", "x-last-death", DELIVERY_COUNT_HEADER)
#: Those of a delayed retry; attempts start anew.
_RETRYS: Final = (ATTEMPT, ORIGIN_EXCHANGE, ORIGIN_ROUTING_KEY)
#: Would route copies of the copy to other queues.
_ROUTING: Final = ("CC", "BCC")
#: RabbitMQ closes the connection over more, so that the messages beside it would suffer, too.
_MAX_PROPERTIES: Final = 131_000
_MAX_EXPIRATION: Final = 315_360_000_000


class Unsendable(Exception):
    """A dead letter that cannot be sent again; the text says why."""


@dataclass(frozen=True, slots=True)
class Change:
    """``--set payload.path=value``."""

    path: Path
    value: Any


def change(text: str) -> Change:
    """The type of the argument ``--set``: the value is JSON, or else text."""
    place = text.find("=")
    problem = "there is no = in it"
    while place >= 0:
        try:
            path = parse_path(text[:place], ("payload",))
        except WhereError as error:
            problem = str(error)
            place = text.find("=", place + 1)  # it may stand in a quoted key
            continue
        try:
            return Change(path, json.loads(text[place + 1 :]))
        except ValueError:
            return Change(path, text[place + 1 :])
    raise argparse.ArgumentTypeError(f"{text!r} is not payload.path=value: {problem}")


def user_of(url: str) -> str:
    """Who publishes, as the broker sees it."""
    name = urlsplit(url).username
    return "guest" if name is None else unquote(name)


@dataclass(frozen=True, slots=True)
class Reviver:
    """Makes dead letters what they were.

    Attributes:
        to: ``exchange`` or ``queue``.
        queue: of the dead letters.
        user: whose ``user_id`` the broker accepts.
        changes: to the payload.
        expire: whether the expiration is given back.
    """

    to: str
    queue: str
    user: str
    changes: Sequence[Change] = ()
    expire: bool = True

    def revive(self, delivery: Delivery) -> Copy:
        """The copy to publish: all properties and headers, but those of the broker and of delayed retries.

        The expiration is what it was when it died first; a ``user_id`` that is not ours is left out.

        Raises:
            Unsendable: where it came from is not known, or it cannot be written again.
        """
        origin = published(delivery.headers, delivery.routing_key)
        if origin is None or not has_died(delivery.headers):
            raise Unsendable("it has not died: no x-death header tells where it comes from")
        headers = {
            name: value
            for name, value in delivery.headers.items()
            if not name.startswith(_BROKERS) and name not in _RETRYS
        }
        exchange, routing_key = origin
        if self.to == QUEUE:
            exchange, routing_key = self._to_queue(delivery, headers, origin)
        copy = Properties()  # by attributes, since the constructor refuses what a publisher may have sent
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
        """Whether :meth:`revive` leaves out its ``user_id``."""
        return delivery.properties.user_id not in (None, "", self.user)

    def _to_queue(self, delivery: Delivery, headers: dict[str, Any], origin: tuple[str, str]) -> tuple[str, str]:
        """Straight into a queue, with the headers by which services know what it is."""
        death = place_of_death(delivery.headers)
        target = "" if death is None else death.waited or death.queue
        if not target:
            raise Unsendable("no x-death header tells in which queue it died")
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
        last = place == len(change.path) - 1
        key: Any = step
        if isinstance(node, dict):
            if key not in node and isinstance(key, str) and key.isdecimal() and int(key) in node:
                key = int(key)  # CBOR has maps with whole numbers for keys
            if not last:
                node.setdefault(key, {})
        elif isinstance(node, list) and (isinstance(step, int) or step.isdecimal()):
            key = int(step)
            if not -len(node) <= key < len(node):
                raise Unsendable(f"its payload has no {_dotted(change.path[: place + 1])}")
        else:
            raise Unsendable(f"its {_dotted(change.path[:place])} is neither a map nor a list")
        if last:
            node[key] = change.value
        else:
            node = node[key]
    return root["payload"]


def _dotted(path: Path) -> str:
    return ".".join(map(str, path))


def _check(exchange: str, routing_key: str, properties: Basic.Properties) -> None:
    """Refuse what the broker would close the channel or the connection for, and what pamqp has read but would write
    differently."""
    for name in (exchange, routing_key):
        if len(name.encode(errors="surrogatepass")) > 255:
            raise Unsendable(f"the name {name[:40]!r}… is longer than 255 bytes")
    try:
        Basic.Publish(exchange=exchange, routing_key=routing_key)
    except ValueError as error:  # pamqp has a shorter limit than the broker
        raise Unsendable(f"it cannot be published to {exchange[:40]!r}…: {error}") from None
    expiration = properties.expiration
    if expiration and not (expiration.isascii() and expiration.isdecimal() and int(expiration[:20]) <= _MAX_EXPIRATION):
        raise Unsendable(f"its expiration {expiration!r} is not a number of milliseconds")
    if properties.delivery_mode not in (None, 1, 2):
        raise Unsendable(f"its delivery mode {properties.delivery_mode} is neither 1 nor 2")
    again = Basic.Properties()
    try:
        written = properties.marshal()
        again.unmarshal(struct.unpack(">H", written[:2])[0], written[2:])
    except Exception as error:  # pamqp raises TypeError, struct.error, OverflowError … for what it has read
        raise Unsendable(f"its properties and headers cannot be written again: {error}") from None
    if any((value or None) != (getattr(again, name) or None) for name, value in properties):
        raise Unsendable("its properties and headers cannot be written again as they are")
    if len(written) > _MAX_PROPERTIES:
        raise Unsendable(f"its properties and headers are {len(written)} bytes")
