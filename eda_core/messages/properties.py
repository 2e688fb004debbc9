"""AMQP properties whose headers are written exactly as they were read.

pamqp's own ``Basic.Properties`` changes some headers when it writes them: it rounds floats to single precision, cuts
names after 128 bytes, sorts them, and reads text that is not UTF-8 as ``bytes``, which it cannot write. But a retry
must keep the headers of a peer's message. This module knows nothing of what the headers mean.

Source: AMQP 0-9-1, section 4.2.5, with RabbitMQ's errata about the types of fields.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any, Final

from pamqp import encode
from pamqp.commands import Basic

_LENGTH: Final = struct.Struct(">I")
_DOUBLE: Final = struct.Struct(">d")


class Properties(Basic.Properties):
    """pamqp's properties, with another way to write the headers.

    ``marshal`` raises what pamqp raises for values that cannot be written: ``TypeError``, ``ValueError`` and others.
    """

    def encode_property(self, name: str, value: Any) -> bytes:
        """Return one property as bytes. pamqp calls this."""
        return _table(value) if name == "headers" else super().encode_property(name, value)


class Unreadable(Basic.Properties):
    """The properties of a message that cannot be read completely. Those that can be read are set.

    Such a message is dead-lettered (docs/architecture.rst, "Invalid messages").

    Attributes:
        reason: names each property that cannot be read, or the routing key, and says why.
    """

    reason: str = ""

    @classmethod
    def of(cls, properties: Any, reason: str) -> Unreadable:
        """Return a copy for a message that cannot be read for this reason.

        Args:
            properties: pamqp's, or an object with the same attributes. It need not have all of them.
        """
        copy = cls()
        for name in cls.attributes():
            setattr(copy, name, getattr(properties, name, None))
        if isinstance(properties, Unreadable):
            copy.reason = properties.reason
        copy.add(reason)
        return copy

    def add(self, reason: str) -> None:
        """Add a reason."""
        self.reason = f"{self.reason}; {reason}" if self.reason else reason


def persistent(content_type: str, headers: dict[str, Any]) -> Properties:
    """Return ``Properties(content_type, headers=headers, delivery_mode=2)``, made in half the time."""
    made: Properties = object.__new__(Properties)
    made.content_type = content_type
    made.headers = headers
    made.delivery_mode = 2
    made.content_encoding = made.correlation_id = made.reply_to = made.expiration = made.message_id = None
    made.priority = made.timestamp = made.message_type = made.user_id = made.app_id = None
    made.cluster_id = ""
    return made


def _table(headers: Mapping[str, Any]) -> bytes:
    return _with_length(b"".join([encode.short_string(name) + _value(value) for name, value in headers.items()]))


def _value(value: Any) -> bytes:
    if isinstance(value, float):
        return b"d" + _DOUBLE.pack(value)
    if isinstance(value, dict):
        return b"F" + _table(value)
    if isinstance(value, list):
        return b"A" + _with_length(b"".join(map(_value, value)))
    if isinstance(value, bytes):
        return b"S" + _with_length(value)
    return encode.encode_table_value(value)


def _with_length(data: bytes) -> bytes:
    return _LENGTH.pack(len(data)) + data
