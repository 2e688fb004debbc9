"""Reads recordings, which ``eda monitor --record`` and ``eda resurrect --backup`` write, and the messages of journals.

A recording is a sequence of CBOR items (RFC 8742), one map for each message: ``eda_tools.messages.recording`` has the
keys.
"""

from __future__ import annotations

import datetime
import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import cbor2
from pamqp.commands import Basic

from eda_core.amqp.reading import MAX_DEPTH
from eda_core.journal.values import restore
from eda_core.machine.effects import Publish
from eda_core.messages.properties import Unreadable

#: The properties by AMQP's names, and pamqp's names for them. The headers are not among them.
PROPERTIES: Final = {
    "content_type": "content_type",
    "content_encoding": "content_encoding",
    "delivery_mode": "delivery_mode",
    "priority": "priority",
    "correlation_id": "correlation_id",
    "reply_to": "reply_to",
    "expiration": "expiration",
    "message_id": "message_id",
    "timestamp": "timestamp",
    "type": "message_type",
    "user_id": "user_id",
    "app_id": "app_id",
}
#: Levels of an item: those of its headers, one around them, and those with which CBOR writes decimals and times.
_DEPTH: Final = MAX_DEPTH + 5
#: The properties that are not text.
_TYPES: Final = {"delivery_mode": int, "priority": int, "timestamp": datetime.datetime}


class RecordingError(ValueError):
    """What is read is no recording. The text says which message, and at which byte it begins."""


@dataclass(slots=True)
class Recorded:
    """A message of a recording.

    Attributes:
        exchange: the exchange to which it was published last.
        routing_key: its routing key.
        properties: as they were; ``Unreadable`` if some could not be read.
        body: as it was on the wire.
        redelivered: whether it was delivered before.
        received: when it arrived, in UTC; ``None`` in a journal.
        published: whether the service of the journal has published it; false in a recording, which does not know.
    """

    exchange: str
    routing_key: str
    properties: Basic.Properties
    body: bytes
    redelivered: bool = False
    received: datetime.datetime | None = None
    published: bool = False


def is_journal(content: bytes) -> bool:
    """Whether it is the journal of a service, and no recording."""
    return content.startswith(b'{"journal"')


def read_items(content: bytes) -> Iterator[Recorded]:
    """Read the messages of a recording, in order.

    Raises:
        RecordingError: after the messages before it, an item is cut off or is not a message; or it is a journal.
    """
    if is_journal(content):
        raise RecordingError(
            "it is the journal of a service, not a recording: 'python -m eda_core.journal' shows it, and the fixture "
            "eda_replay of pytest gives it to the service; 'eda monitor --record' makes a recording"
        )
    stream, number = io.BytesIO(content), 0
    while stream.tell() < len(content):
        start, number = stream.tell(), number + 1
        try:
            recorded = _recorded(cbor2.CBORDecoder(stream, max_depth=_DEPTH).decode())
        except cbor2.CBORDecodeEOF:
            raise RecordingError(f"cut off in message {number}, which begins at byte {start}") from None
        except Exception as error:  # the file may hold anything
            reason = f"{type(error).__name__}: {error}"
            raise RecordingError(f"message {number}, at byte {start}, is not one of a recording: {reason}") from None
        yield recorded


def _recorded(item: Any) -> Recorded:
    if not isinstance(item, dict):
        raise TypeError(f"a {type(item).__name__} instead of a map")
    headers, body = item["headers"], item["body"]
    if not isinstance(headers, dict) or not isinstance(body, bytes) or not isinstance(item["properties"], dict):
        raise TypeError("headers and properties must be maps, body a byte string")
    properties = Basic.Properties()
    for name, value in item["properties"].items():
        if name not in PROPERTIES:
            continue
        wanted = _TYPES.get(name, str)
        if value is not None and type(value) is not wanted:  # on the wire it can have no other type
            raise TypeError(f"the property {name} is {type(value).__name__}, not {wanted.__name__}")
        setattr(properties, PROPERTIES[name], value)
    properties.headers = headers
    if "unreadable" in item:
        properties = Unreadable.of(properties, str(item["unreadable"]))
    return Recorded(
        str(item["exchange"]),
        str(item["routing_key"]),
        properties,
        body,
        bool(item.get("redelivered", False)),
        datetime.datetime.fromtimestamp(item["received"], datetime.UTC),
    )


def journal_messages(entries: Iterator[tuple[int, dict[str, Any], Any]]) -> Iterator[Recorded]:
    """The messages that the machine of a journal received, and those that it published, in order.

    Args:
        entries: what ``eda_core.journal.replay`` yields.
    """
    for _, entry, _ in entries:
        if entry["input"] == "delivered":
            _, _, redelivered, exchange, key, properties, body, *_ = restore(entry["arguments"])
            yield Recorded(exchange, key, properties, bytes(body), bool(redelivered))
        for effect in restore(entry.get("effects", [])):
            if isinstance(effect, Publish):
                yield Recorded(effect.exchange, effect.routing_key, effect.properties, effect.body, published=True)
