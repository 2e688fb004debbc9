"""Recordings, which ``monitor --record FILE`` writes: a sequence of CBOR items (RFC 8742), one map per message.

========================  ==============================================================================================
``received``              when the message arrived, in seconds since the epoch (float)
``exchange``              text
``routing_key``           text
``redelivered``           bool
``kind``                  ``event`` ``command`` ``result`` ``configuration`` ``log`` or ``invalid``
``properties``            map: those that were set, by AMQP's names (``content_type``, ``reply_to``, ``type`` …)
``headers``               map
``unreadable``            text, only if not all properties, or not the routing key, could be read: why
``body``                  byte string, as it was on the wire
========================  ==============================================================================================

Readers ignore keys that they do not know. Two recordings, one appended to the other, are a recording. This module does
not decide what is recorded.
"""

from __future__ import annotations

import datetime
import io
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Final, Self

import cbor2
from pamqp.commands import Basic

from eda_core.amqp.reading import MAX_DEPTH
from eda_core.messages import Unreadable
from eda_tools.cli.status import ToolError, naming_file
from eda_tools.messages.delivery import PROPERTIES, Delivery, fields, properties_of

#: Levels of an item: those of its headers, one around them, and those with which CBOR writes decimals and times.
_DEPTH: Final = MAX_DEPTH + 5
#: The properties that are not text.
_TYPES: Final = {"delivery_mode": int, "priority": int, "timestamp": datetime.datetime}


class Recorder:
    """Appends to a recording. A context manager.

    Raises:
        ToolError: the file cannot be written.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        with naming_file(path):
            self._file: BinaryIO = open(path, "ab")  # noqa: SIM115 - closed by __exit__

    def write(self, delivery: Delivery, kind: str | None = None) -> None:
        """Append a message: all of it, or nothing if the process dies. Raises what the constructor raises."""
        with naming_file(self._path):
            self._file.write(dumps(delivery, kind))
            self._file.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self._file.close()


def dumps(delivery: Delivery, kind: str | None = None) -> bytes:
    """One item of a recording. Pass ``kind`` if it is known already."""
    properties = delivery.properties
    unreadable = {"unreadable": properties.reason} if isinstance(properties, Unreadable) else {}
    return cbor2.dumps(
        {
            **unreadable,
            "received": delivery.received.timestamp(),
            "exchange": delivery.exchange,
            "routing_key": delivery.routing_key,
            "redelivered": delivery.redelivered,
            "kind": kind or fields(delivery)["kind"],
            "properties": properties_of(properties),
            "headers": delivery.headers,
            "body": delivery.body,
        }
    )


def read_recording(path: str) -> Iterator[Delivery]:
    """Read the messages of a recording, in order.

    Raises:
        ToolError: the file cannot be read; or, after the messages before it, an item is cut off or is not a message.
            The text says which item, and at which byte it begins.
    """
    with naming_file(path):
        content = Path(path).read_bytes()
    stream, number = io.BytesIO(content), 0
    while stream.tell() < len(content):
        start, number = stream.tell(), number + 1
        try:
            delivery = _delivery(cbor2.CBORDecoder(stream, max_depth=_DEPTH).decode())
        except cbor2.CBORDecodeEOF:
            raise ToolError(f"{path}: cut off in message {number}, which begins at byte {start}") from None
        except Exception as error:  # the file may hold anything
            reason = f"{type(error).__name__}: {error}"
            raise ToolError(f"{path}: message {number}, at byte {start}, is not one of a recording: {reason}") from None
        yield delivery


def _delivery(item: Any) -> Delivery:
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
    return Delivery(
        str(item["exchange"]),
        str(item["routing_key"]),
        properties,
        body,
        bool(item.get("redelivered", False)),
        datetime.datetime.fromtimestamp(item["received"], datetime.UTC),
    )
