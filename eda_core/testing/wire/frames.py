"""Writes and reads AMQP 0-9-1 frames, for the server side. It does not know what the methods mean.

The classes of methods and properties are pamqp's, and values are read as a client reads them (:mod:`eda_core.amqp`). A
server gets more than a client can read, and RabbitMQ passes it on as it is: names in properties and routing keys that
are not UTF-8, times beyond the year 9999, tables of any depth. Here such a name is text with surrogate escapes
(PEP 383), and such a value is :class:`Opaque`: both are written as the octets that they were.

pamqp's own writing cannot write a long string that is not UTF-8, writes a double as a float of single precision, sorts
and cuts the keys of tables, and refuses names that RabbitMQ allows.

Sources: AMQP 0-9-1 section 4.2 (frames, field tables) and RabbitMQ's errata of the field types.
"""

from __future__ import annotations

import datetime
import decimal
import math
import struct
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from pamqp import base, commands

from eda_core.amqp import reading, writing
from eda_core.amqp.reading import MALFORMED, PROPERTIES, STEPS, short_bytes
from eda_core.testing.broker.values import INTEGER_TYPES, Integer, Opaque, Single

FRAME_METHOD: Final[int] = reading.METHOD
FRAME_HEADER: Final[int] = reading.HEADER
FRAME_BODY: Final[int] = reading.BODY
FRAME_HEARTBEAT: Final[int] = reading.HEARTBEAT
FRAME_END: Final[int] = reading.FRAME_END
FRAME_OVERHEAD: Final[int] = writing.FRAME_OVERHEAD
HEADER: Final[struct.Struct] = reading.FRAME_START
HEARTBEAT_FRAME: Final[bytes] = writing.HEARTBEAT_FRAME
frame: Final[Callable[[int, int, bytes], bytes]] = writing.write_frame

#: The reserved long string of the method is empty in RabbitMQ. pamqp's class can hold nothing but "0".
_CHANNEL_OPEN_OK: Final = struct.pack(">II", commands.Channel.OpenOk.index, 0)
_ACK: Final = struct.Struct(">BHIIQBB")
_LARGEST_TAG: Final = 2**64 - 1
_CLASS_BASIC: Final = commands.Basic.frame_id
_PUBLISH: Final = divmod(commands.Basic.Publish.index, 1 << 16)  # the only method of a client with content
_INT_MIN, _INT_MAX = -(2**31), 2**31 - 1
_EPOCH: Final = datetime.datetime.fromtimestamp(0, datetime.UTC)

_SINGLE = struct.Struct(">f")
_DOUBLE = struct.Struct(">d")
_INTEGERS: Final = {kind: struct.Struct(f">{layout}") for kind, layout in zip("bBsuIilL", "bBhHiIqq", strict=True)}
_SHORT = struct.Struct(">H")
_LONG = struct.Struct(">I")
_LONG_SIGNED = struct.Struct(">i")
_LONGLONG = struct.Struct(">Q")
_LONGLONG_SIGNED = struct.Struct(">q")
_DECIMAL = struct.Struct(">Bi")
_CONTENT = struct.Struct(">HHQ")
_CONTENT_FLAGS = struct.Struct(">HHQH")


class WireError(Exception):
    """A client broke the protocol in a way that ends its connection. It never leaves ``eda_core.testing``.

    Attributes:
        code: the AMQP reply code, such as 501.
        text: the reply text, which begins with the name of the code.
        class_id, method_id: of the method at fault; 0 if there is none.
    """

    def __init__(self, code: int, text: str, class_id: int = 0, method_id: int = 0) -> None:
        super().__init__(text)
        self.code = code
        self.text = text
        self.class_id = class_id
        self.method_id = method_id


class ReceivedProperties(commands.Basic.Properties):
    """Properties as a client sent them, with their bytes, so that the broker passes them on exactly as they were.

    Nobody may change them in place. A copy is a plain ``Basic.Properties`` without the bytes, and may be changed.

    Attributes:
        wire: the flags and the property list (section 4.2.6.1), without class, weight and body size.
    """

    # There is no __slots__ here, because pamqp takes self.__slots__ for the names of the properties.
    wire: bytes

    def __reduce__(self) -> tuple[Any, ...]:
        # A copy may be changed, so it must not keep the bytes. pamqp's constructor would refuse values that clients may
        # send, such as delivery_mode 3.
        values = {name: getattr(self, name) for name in self.attributes()}
        return object.__new__, (commands.Basic.Properties,), (None, values)


# --- reading ---------------------------------------------------------------------------------------------------------


def _name(data: bytes, at: int) -> tuple[str, int]:
    value, at = short_bytes(data, at)
    return value.decode("utf-8", "surrogateescape"), at


def _utf_8_name(data: bytes, at: int) -> tuple[str, int]:
    value, at = short_bytes(data, at)
    return value.decode(), at


def _table(data: bytes, at: int) -> tuple[dict[str, Any], int]:
    """Read a table as RabbitMQ does: of two entries with one name, the first counts."""
    start, end = reading.extent(data, at)
    table: dict[str, Any] = {}
    at = start
    while at < end:
        name, start = _name(data, at)
        at = reading.end_of_value(data, start)
        if at > end:
            raise ValueError("does not end where it says")
        try:
            value, _ = _value(data, start, 1)
        except MALFORMED:
            _check(data[start:at])
            value = Opaque(data[start:at])
        table.setdefault(name, value)
    return table, at


def _value(data: bytes, at: int, depth: int) -> tuple[Any, int]:
    """Read a value with its field type. Raises MALFORMED if a client could not read it."""
    kind = data[at]
    if kind not in _NESTED:
        return _VALUES[kind](data, at + 1)
    at, end = reading.extent(data, at + 1, depth + 1)
    names, values = [], []
    while at < end:
        if kind == _TABLE:
            name, at = _utf_8_name(data, at)
            names.append(name)
        value, at = _value(data, at, depth + 1)
        values.append(value)
    if at != end:
        raise ValueError("does not end where it says")
    if kind != _TABLE:
        return values, end
    table: dict[str, Any] = {}
    for name, value in zip(names, values, strict=True):
        table.setdefault(name, value)
    return table, end


def _integer(kind: str) -> reading.Reader:
    read = reading.VALUES[ord(kind)]

    def typed(data: bytes, at: int) -> tuple[int, int]:
        value, end = read(data, at)
        return (value if _write_integer(value)[0] == ord(kind) else Integer(value, kind)), end

    return typed


def _finite(kind: str, make: type[float]) -> reading.Reader:
    """RabbitMQ refuses NaN and infinities, because Erlang has none."""
    read = reading.VALUES[ord(kind)]

    def typed(data: bytes, at: int) -> tuple[float, int]:
        value, end = read(data, at)
        if not math.isfinite(value):
            raise ValueError("not a number, or infinite")
        return make(value), end

    return typed


def _time(data: bytes, at: int) -> tuple[Any, int]:
    """A time in milliseconds is passed on as it is. Client libraries that know such times read it as one."""
    (number,) = _LONGLONG.unpack_from(data, at)
    if number > _LATEST:
        return Opaque(b"T" + data[at : at + 8]), at + 8
    return reading.VALUES[ord("T")](data, at)


_TABLE: Final = ord("F")
_NESTED: Final = b"FA"
_LATEST: Final = 0xFFFFFFFF
_VALUES: Final[dict[int, reading.Reader]] = {
    **reading.VALUES,
    **{ord(kind): _integer(kind) for kind in INTEGER_TYPES},
    ord("f"): _finite("f", Single),
    ord("d"): _finite("d", float),
    ord("T"): _time,
}


def _check(value: bytes) -> None:
    """Check a value that cannot be read, but that RabbitMQ may take. It may be nested to any depth.

    Raises:
        ValueError, LookupError, struct.error: RabbitMQ cannot read it either.
    """
    spans = [(0, len(value), False)]  # where values are; whether they have names
    while spans:
        at, end, named = spans.pop()
        while at < end:
            if named:
                _, at = short_bytes(value, at)
            kind, start = value[at], at
            at = reading.end_of_value(value, start)
            if kind in b"FA":
                spans.append((start + 5, at, kind == 0x46))
            elif kind in b"fd" and not math.isfinite(reading.read_value(value, start)[0]):
                raise ValueError("not a number, or infinite")
        if at != end:
            raise ValueError("does not end where it says")


def _longlong(data: bytes, at: int) -> tuple[int, int]:
    """Without a sign, as AMQP says. Client libraries read it with one."""
    return int(_LONGLONG.unpack_from(data, at)[0]), at + 8


_READERS: Final = {**reading.READERS, "longlong": _longlong, "shortstr": _utf_8_name, "table": _table}
#: What may be published is more than what may be declared.
_READERS_OF_PUBLISH: Final = {**_READERS, "shortstr": _name}


# --- writing ---------------------------------------------------------------------------------------------------------


def _octets(text: str) -> bytes:
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # other surrogates than those of octets
        return text.encode("utf-8", "replace")


def _write_shortstr(value: str | None) -> bytes:
    data = _octets(value or "")
    if len(data) > 255:
        # Only a reply text is so long: it quotes a name that may have 255 bytes itself.
        data = data[:255].decode("utf-8", "ignore").encode()
    return bytes((len(data),)) + data


def _write_longstr(value: str | bytes | None) -> bytes:
    data = _octets(value) if isinstance(value, str) else (value or b"")
    return _LONG.pack(len(data)) + data


def _write_table(table: Mapping[str, Any] | None) -> bytes:
    data = b"".join([_write_shortstr(key) + _write_value(value) for key, value in table.items()]) if table else b""
    return _LONG.pack(len(data)) + data


def _write_array(array: list[Any]) -> bytes:
    data = b"".join([_write_value(value) for value in array])
    return b"A" + _LONG.pack(len(data)) + data


def _write_integer(value: int) -> bytes:
    return b"I" + _LONG_SIGNED.pack(value) if _INT_MIN <= value <= _INT_MAX else b"l" + _LONGLONG_SIGNED.pack(value)


def _write_decimal(value: decimal.Decimal) -> bytes:
    sign, digits, exponent = value.as_tuple()
    places = int(exponent)
    mantissa = int("".join(map(str, digits))) * 10 ** max(places, 0)
    return b"D" + _DECIMAL.pack(max(-places, 0), -mantissa if sign else mantissa)


def _write_timestamp(value: datetime.datetime | int) -> bytes:
    if isinstance(value, int):
        return _LONGLONG.pack(value)
    aware = value if value.tzinfo is not None else value.replace(tzinfo=datetime.UTC)
    return _LONGLONG.pack(max((aware - _EPOCH) // datetime.timedelta(seconds=1), 0))


_VALUE_WRITERS: Final[dict[type, Callable[[Any], bytes]]] = {
    bool: lambda value: b"t\x01" if value else b"t\x00",
    int: _write_integer,
    Integer: lambda value: value.field_type.encode() + _INTEGERS[value.field_type].pack(value),
    Single: lambda value: b"f" + _SINGLE.pack(value),
    float: lambda value: b"d" + _DOUBLE.pack(value),
    str: lambda value: b"S" + _write_longstr(value),
    bytes: lambda value: b"S" + _write_longstr(value),
    bytearray: lambda value: b"x" + _write_longstr(bytes(value)),
    dict: lambda value: b"F" + _write_table(value),
    list: _write_array,
    type(None): lambda value: b"V",
    decimal.Decimal: _write_decimal,
    datetime.datetime: lambda value: b"T" + _write_timestamp(value),
    Opaque: lambda value: value.octets,
}


def _write_value(value: Any) -> bytes:
    return _VALUE_WRITERS[type(value)](value)


_WRITERS: Final[dict[str, Callable[[Any], bytes]]] = {
    "octet": lambda value: bytes((value or 0,)),
    "short": lambda value: _SHORT.pack(value or 0),
    "long": lambda value: _LONG.pack(value or 0),
    "longlong": lambda value: _LONGLONG.pack((value or 0) & 0xFFFFFFFFFFFFFFFF),
    "shortstr": _write_shortstr,
    "longstr": _write_longstr,
    "timestamp": _write_timestamp,
    "table": _write_table,
}


# --- methods ---------------------------------------------------------------------------------------------------------


def decode_method(payload: bytes) -> base.Frame:
    """The method in the payload of a method frame.

    Raises:
        WireError: 501, there is no method in it, or its arguments cannot be decoded; 540, AMQP 0-9-1 has no such
            method.
    """
    if len(payload) < 4:
        raise WireError(501, "FRAME_ERROR - method frame without a method")
    index = int(_LONG.unpack_from(payload)[0])
    ids = index >> 16, index & 0xFFFF
    kind: type[base.Frame] | None = commands.INDEX_MAPPING.get(index)
    if kind is None:
        raise WireError(540, f"NOT_IMPLEMENTED - no method {ids[1]} in class {ids[0]}", *ids)
    readers = _READERS_OF_PUBLISH if kind is commands.Basic.Publish else _READERS
    try:
        return reading.read_method(payload, readers)
    except ValueError as error:
        if isinstance(error.__cause__, UnicodeDecodeError):
            raise WireError(501, "FRAME_ERROR - Malformed UTF-8 in shortstr") from None
        raise WireError(501, f"FRAME_ERROR - cannot decode the arguments of {kind.name}", *ids) from None


def encode_method(channel: int, method: base.Frame) -> bytes:
    """One method frame. It may hold any names, valid or not."""
    if type(method) is commands.Basic.Ack:  # there is one for each publish
        tag = (method.delivery_tag or 0) & _LARGEST_TAG
        return _ACK.pack(FRAME_METHOD, channel, 13, commands.Basic.Ack.index, tag, bool(method.multiple), FRAME_END)
    if type(method) is commands.Channel.OpenOk:
        return frame(FRAME_METHOD, channel, _CHANNEL_OPEN_OK)
    parts = [_LONG.pack(method.index)]
    for kind, names in STEPS[type(method)]:
        if kind is None:
            octet = sum(bool(getattr(method, name)) << position for position, name in enumerate(names))
            parts.append(bytes((octet,)))
        else:
            parts.append(_WRITERS[kind](getattr(method, names[0])))
    return frame(FRAME_METHOD, channel, b"".join(parts))


def decode_table(entries: bytes) -> dict[str, Any]:
    """A field table without its length, as AMQPLAIN sends it.

    Raises:
        WireError: 501. It cannot be decoded.
    """
    try:
        return _table(_LONG.pack(len(entries)) + entries, 0)[0]
    except MALFORMED:
        raise WireError(501, "FRAME_ERROR - cannot decode a table") from None


# --- content ---------------------------------------------------------------------------------------------------------


def _timestamp(data: bytes, at: int) -> tuple[datetime.datetime | int, int]:
    number, end = _longlong(data, at)
    return (number, end) if number > _LATEST else reading.READERS["timestamp"](data, at)


#: What reads the properties that are set, by their flags.
_readers_of: Final = reading.readers_by_flags({**_READERS_OF_PUBLISH, "timestamp": _timestamp})


def decode_content_header(payload: bytes) -> tuple[int, ReceivedProperties]:
    """The size of the body in bytes, and the properties, in a content header frame (section 4.2.6.1).

    Raises:
        WireError: 501, the header is cut; 505, it is not of the class Basic; 541 as in RabbitMQ, the properties cannot
            be decoded.
    """
    try:
        class_id, _, size, flags = _CONTENT_FLAGS.unpack_from(payload)
    except struct.error:
        raise WireError(501, "FRAME_ERROR - truncated content header") from None
    if class_id != _CLASS_BASIC:
        text = f"UNEXPECTED_FRAME - expected content header for class 60, got one for class {class_id} instead"
        raise WireError(505, text, *_PUBLISH)
    properties = ReceivedProperties()
    at = _CONTENT_FLAGS.size
    try:
        for name, read in _readers_of(flags):
            value, at = read(payload, at)
            setattr(properties, name, value)
        if at != len(payload):
            raise ValueError("octets after the last property")
    except MALFORMED:
        raise WireError(541, "INTERNAL_ERROR - malformed properties") from None
    properties.wire = payload[_CONTENT.size :]
    return size, properties


def encode_properties(properties: commands.Basic.Properties) -> bytes:
    """Flags and property list. Properties of a client that were not changed have the bytes that the client sent."""
    if isinstance(properties, ReceivedProperties):
        return properties.wire
    flags = 0
    parts = []
    for name, _, flag, kind in PROPERTIES:
        value = getattr(properties, name)
        # cluster_id is reserved, and has to be empty. pamqp's constructor sets it to ''.
        if value is not None and (name != "cluster_id" or value):
            flags |= flag
            parts.append(_WRITERS[kind](value))
    return _SHORT.pack(flags) + b"".join(parts)


def encode_header(channel: int, properties: commands.Basic.Properties | None, size: int) -> bytes:
    """The content header frame of a message with a body of so many bytes."""
    written = b"\x00\x00" if properties is None else encode_properties(properties)
    return b"".join(writing.write_header(channel, written, size))


def encode_body(channel: int, body: bytes, frame_max: int) -> Iterator[bytes]:
    """The body frames of a message, one by one.

    Args:
        frame_max: the largest size of a frame in bytes; 0 for no limit.
    """
    return map(b"".join, writing.write_body(channel, body, frame_max))


def size_of_body(size: int, frame_max: int) -> int:
    """The bytes of all body frames of a body of so many bytes, at least one."""
    return size + FRAME_OVERHEAD * (-(-size // (frame_max - FRAME_OVERHEAD)) if frame_max else 1)


def encode_content(channel: int, properties: commands.Basic.Properties | None, body: bytes, frame_max: int) -> bytes:
    """The content header frame and the body frames of a message, joined. For ``frame_max`` see :func:`encode_body`."""
    return encode_header(channel, properties, len(body)) + b"".join(encode_body(channel, body, frame_max))
