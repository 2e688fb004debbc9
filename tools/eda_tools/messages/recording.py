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
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

import cbor2

from eda_core.messages import Unreadable
from eda_core.testing.recordings import RecordingError, read_items
from eda_tools.cli.status import ToolError, naming_file
from eda_tools.messages.delivery import Delivery, fields, properties_of


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
    try:
        for each in read_items(content):
            received = each.received or datetime.datetime.fromtimestamp(0, datetime.UTC)
            yield Delivery(each.exchange, each.routing_key, each.properties, each.body, each.redelivered, received)
    except RecordingError as error:
        raise ToolError(f"{path}: {error}") from None
