"""The addresses of direct replies (RabbitMQ documentation, "Direct Reply-to"): how they are written and read.

A client consumes from :data:`NAME`, and publishes requests with ``reply_to`` set to it. The broker writes an address in
its place, which begins with :data:`PREFIX`. Who answers publishes to the default exchange with the address as the
routing key. Clients must not look into it; here it names the channel, so that nobody has to keep a list of addresses.
"""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from collections.abc import Iterable
from operator import methodcaller
from typing import Final, NamedTuple

from eda_core.testing.broker.queue import ConnectionId
from eda_core.testing.broker.versions import Version

NAME: Final = "amq.rabbitmq.reply-to"
PREFIX: Final = f"{NAME}."
_like: Final = methodcaller("startswith", PREFIX)
_PLACE: Final = re.compile(r"reply\.([0-9]+)\.([0-9]+)\.([0-9]+)", re.ASCII)


class Place(NamedTuple):
    """A channel.

    Attributes:
        serial: tells it from earlier channels with its number.
    """

    connection: ConnectionId
    number: int
    serial: int


class Address(NamedTuple):
    """The address of a consumer of direct replies.

    Attributes:
        key: tells it from earlier consumers of the same channel.
    """

    place: Place
    key: str

    @property
    def name(self) -> str:
        """As a client sees it."""
        where = b64encode(".".join(map(str, ("reply", *self.place))).encode()).decode()
        return f"{PREFIX}{where}.{self.key}"


def among(names: Iterable[str]) -> bool:
    """Whether one of the names looks like an address."""
    return any(map(_like, names))


def read(name: str, version: Version) -> Address | None:
    """The address with this name, which begins with ``PREFIX``; ``None`` if the broker cannot have made it."""
    parts = _parts(name, version)
    place = _place(parts[0]) if len(parts) == 2 else None
    return None if place is None else Address(place, parts[1])


def crashes(name: str, version: Version) -> bool:
    """Whether RabbitMQ takes a name for an address, and fails to read it."""
    if version.replies_are_queues:
        return read(name, version) is None
    parts = _parts(name, version)
    return len(parts) == 2 and _place(parts[0]) is None


def _parts(name: str, version: Version) -> list[str]:
    rest = name.removeprefix(PREFIX)
    if version.replies_are_queues:
        return rest.split(".", 1)
    return [part for part in rest.split(".") if part]


def _place(text: str) -> Place | None:
    try:
        found = _PLACE.fullmatch(b64decode(text.encode("utf-8", "surrogateescape"), validate=True).decode())
    except ValueError:  # also of wrong base64, and of what is not UTF-8
        return None
    return None if found is None else Place(ConnectionId(int(found[1])), int(found[2]), int(found[3]))
