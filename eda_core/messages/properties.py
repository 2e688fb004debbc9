"""AMQP properties whose headers are written exactly as they were read.

pamqp's own ``Basic.Properties`` changes some headers when it writes them: it rounds floats to single precision, cuts
names after 128 bytes, sorts them, and reads text that is not UTF-8 as ``bytes``, which it cannot write. But a retry
must keep the headers of a peer's message. This module knows nothing of what the headers mean.

Source: AMQP 0-9-1, section 4.2.5, with RabbitMQ's errata about the types of fields.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from functools import lru_cache
from operator import attrgetter
from typing import Any, Final

from pamqp import encode
from pamqp.commands import Basic

_LENGTH: Final = struct.Struct(">I")
_DOUBLE: Final = struct.Struct(">d")
_TEXT: Final = struct.Struct(">cI")  # the field type of a long string, and its length
_FLAGS: Final = struct.Struct(">H")
_LONGEST: Final = 255
#: The octet for each length of a short string.
_LENGTHS: Final = [bytes((length,)) for length in range(_LONGEST + 1)]


class Properties(Basic.Properties):
    """pamqp's properties, with another way to write the headers.

    ``marshal`` raises what pamqp raises for values that cannot be written: ``TypeError``, ``ValueError`` and others.
    """

    def marshal(self) -> bytes:
        """Return the flags and the properties that are set as bytes, as pamqp does, in a quarter of the time."""
        flags = 0
        parts = [b""]
        for value, (flag, write) in zip(_values(self), _WRITERS, strict=True):
            if value is not None and value != "":
                flags |= flag
                parts.append(write(value))
        parts[0] = _FLAGS.pack(flags)
        return b"".join(parts)


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


def short_string(text: str) -> bytes:
    """Return a text as a short string of AMQP, its length in front.

    Raises:
        TypeError: it is no text, or longer than 255 bytes.
    """
    if type(text) is not str or len(data := text.encode()) > _LONGEST:
        return encode.short_string(text)  # says what is wrong
    return _LENGTHS[len(data)] + data


def _table(headers: Mapping[str, Any]) -> bytes:
    if type(headers) is not dict and not isinstance(headers, Mapping):
        raise TypeError(f"the headers are no table, but {type(headers).__name__}")
    parts = []
    for name, value in headers.items():
        parts.append(_known_string(name) if type(name) is str else short_string(name))
        parts.append(_value(value))
    return _with_length(b"".join(parts))


#: For the names of headers, of which a service has few.
_known_string: Final = lru_cache(maxsize=1000)(short_string)


def _value(value: Any) -> bytes:
    if type(value) is str:
        data = value.encode()
        return _TEXT.pack(b"S", len(data)) + data
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


_values: Callable[[Basic.Properties], tuple[Any, ...]] = attrgetter(*Basic.Properties.attributes())
_BY_KIND: Final[dict[str, Callable[[Any], bytes]]] = {**encode.METHODS, "shortstr": short_string, "table": _table}
#: The flag of each property, in AMQP's order, and how its value is written.
_WRITERS: Final[list[tuple[int, Callable[[Any], bytes]]]] = [
    (Basic.Properties.flags[name], _BY_KIND[Basic.Properties.amqp_type(name)]) for name in Basic.Properties.attributes()
]
