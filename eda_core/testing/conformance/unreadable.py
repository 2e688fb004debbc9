"""Messages that RabbitMQ takes, and that a client cannot read: one for each kind of property, and for the routing key.

Publish them by :func:`eda_core.testing.wire.frames.encode_content`, which writes surrogate escapes as the octets that
they stand for, and ``Opaque`` values as they are. Client libraries refuse to write them.
"""

from __future__ import annotations

import struct
from collections.abc import Generator
from typing import Any, Final

import cbor2
from pamqp.commands import Basic

from eda_core.messages.codec import CBOR
from eda_core.messages.headers import CONVERSATION_ID
from eda_core.testing.broker.values import Opaque
from eda_core.testing.conformance.script import Put

_NOT_UTF_8: Final = "\udcff\udcfe"
_LATE: Final = 2**63 - 1


def nested(kind: str, depth: int) -> Opaque:
    """Return tables (``F``) or arrays (``A``) in each other."""
    value, name = b"V", b"\x01k" if kind == "F" else b""
    for _ in range(depth):
        value = kind.encode() + struct.pack(">I", len(name + value)) + name + value
    return Opaque(value)


def _unreadable(key: str = "Happened", headers: Any = (), **properties: Any) -> Put:
    given = Basic.Properties(content_type=CBOR, delivery_mode=2)
    given.headers = {CONVERSATION_ID: "c", **dict(headers)}
    for name, value in properties.items():
        setattr(given, name, value)
    return Put("events", key, cbor2.dumps("unreadable"), given)


def _kinds() -> Generator[tuple[str, Put, str]]:
    names = ("content_type", "content_encoding", "correlation_id", "reply_to", "message_id", "message_type", "app_id")
    for name in (*names, "cluster_id"):
        amqp_name = "type" if name == "message_type" else name
        yield f"{amqp_name} that is not UTF-8", _unreadable(**{name: _NOT_UTF_8}), f"property {amqp_name} "
    yield "routing key that is not UTF-8", _unreadable(f"odd.{_NOT_UTF_8}"), "routing key "
    for number in (_LATE, 2**64 - 1, 1_700_000_000_000_000):
        yield f"timestamp {number}", _unreadable(timestamp=number), "property timestamp "
    headers = {
        "header's name that is not UTF-8": {_NOT_UTF_8: "x"},
        "header with a late time": {"t": Opaque(b"T" + struct.pack(">Q", _LATE))},
        "tables in each other": {"t": nested("F", 3000)},
        "arrays in each other": {"t": nested("A", 2000)},
        "name in a table that is not UTF-8": {"t": Opaque(b"F\0\0\0\x04\x02\xff\xfeV")},
    }
    for kind, given in headers.items():
        yield kind, _unreadable(headers=given), "property headers "


#: By their kinds: the messages, and words that the reason has for which they are dead-lettered. All go to the exchange
#: ``events``, with the routing key ``Happened`` or one that ``odd.#`` matches.
UNREADABLE: Final[dict[str, tuple[Put, str]]] = {kind: (put, reason) for kind, put, reason in _kinds()}
