"""Reads frames, methods and the properties of messages.

Who publishes a message decides about its routing key and its properties, and RabbitMQ passes on almost any bytes. If
such bytes ended the connection, the broker would deliver the message again, to the next connection. So
:func:`read_properties` and :func:`named` return :class:`Unreadable` for what they cannot read, and raise nothing.

The classes of methods and properties, and the types of values, are pamqp's. pamqp itself raises in many ways for such
bytes, and copies the rest of a table for each of its entries.

Sources: AMQP 0-9-1, section 4.2, and RabbitMQ's errata about the types of fields.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from functools import lru_cache
from typing import Any, Final

from pamqp import base, commands
from pamqp.body import ContentBody
from pamqp.commands import Basic
from pamqp.header import ContentHeader
from pamqp.heartbeat import Heartbeat

from eda_core.messages.properties import Properties, Unreadable
from eda_core.text import as_text, shortened

METHOD: Final = 1
HEADER: Final = 2
BODY: Final = 3
HEARTBEAT: Final = 8
FRAME_TYPES: Final = frozenset({METHOD, HEADER, BODY, HEARTBEAT})
FRAME_END: Final = 0xCE

#: Levels of tables and arrays. Python's own limit would be reached somewhere above.
MAX_DEPTH: Final = 100
#: How many kinds of messages are remembered. Of fewer than a service gets in turns, none would be found again.
KINDS: Final = 2000
#: The field type of long strings.
_LONG_STRING: Final = ord("S")
#: A time stamp after the year 2106 is one in milliseconds, as with pamqp.
_MILLISECONDS_FROM: Final = 0xFFFFFFFF
#: Characters of names and values that reasons quote.
_QUOTED: Final = 60

_FLOAT = struct.Struct(">f")
_DOUBLE = struct.Struct(">d")
_SHORT = struct.Struct(">H")
_SHORT_SIGNED = struct.Struct(">h")
_LONG = struct.Struct(">I")
_LONG_SIGNED = struct.Struct(">i")
_LONGLONG = struct.Struct(">Q")
_LONGLONG_SIGNED = struct.Struct(">q")
_OCTET_SIGNED = struct.Struct(">b")
_DECIMAL = struct.Struct(">Bi")
_CONTENT = struct.Struct(">HHQ")
#: The start of a frame: its type, its channel, and the size of its payload.
FRAME_START: Final = struct.Struct(">BHI")
_METHOD_START = struct.Struct(">BHII")
#: The same of a content header, and the class, the weight and the size of the body.
HEADER_START: Final = struct.Struct(">BHIHHQ")

#: Takes bytes and a position. Returns the value there, and the position behind it.
Reader = Callable[[bytes, int], tuple[Any, int]]

#: What readers raise for bytes that they cannot read.
MALFORMED: Final[tuple[type[Exception], ...]] = (ValueError, LookupError, struct.error, RecursionError)


# Values


def _structure(layout: struct.Struct) -> Reader:
    size = layout.size
    unpack = layout.unpack_from

    def read(data: bytes, at: int) -> tuple[Any, int]:
        return unpack(data, at)[0], at + size

    return read


def _read_octet(data: bytes, at: int) -> tuple[int, int]:
    return data[at], at + 1


def short_bytes(data: bytes, at: int) -> tuple[bytes, int]:
    """Read a short string as bytes."""
    end = at + 1 + data[at]
    if end > len(data):
        raise ValueError("is cut off")
    return data[at + 1 : end], end


def _read_name(data: bytes, at: int) -> tuple[str, int]:
    end = at + 1 + data[at]
    if end > len(data):
        raise ValueError("is cut off")
    return data[at + 1 : end].decode(), end


def _read_shortstr(data: bytes, at: int) -> tuple[str | bytes, int]:
    """Read a short string of a method. It is bytes if it is not UTF-8, as with pika."""
    value, end = short_bytes(data, at)
    return _text_or_bytes(value), end


def _read_bytes(data: bytes, at: int) -> tuple[bytes, int]:
    start = at + 4
    end = start + int(_LONG.unpack_from(data, at)[0])
    if end > len(data):
        raise ValueError("is cut off")
    return data[start:end], end


def _read_longstr(data: bytes, at: int) -> tuple[str | bytes, int]:
    """Read a long string. It is bytes if it is not UTF-8, as with pamqp."""
    value, end = _read_bytes(data, at)
    return _text_or_bytes(value), end


def _read_bytearray(data: bytes, at: int) -> tuple[bytearray, int]:
    value, end = _read_bytes(data, at)
    return bytearray(value), end


def _read_boolean(data: bytes, at: int) -> tuple[bool, int]:
    return data[at] != 0, at + 1


def _read_void(data: bytes, at: int) -> tuple[None, int]:
    return None, at


def _read_decimal(data: bytes, at: int) -> tuple[Decimal, int]:
    scale, mantissa = _DECIMAL.unpack_from(data, at)
    # Not by arithmetic: its result would depend on the decimal context of the program.
    return Decimal((mantissa < 0, tuple(map(int, str(abs(mantissa)))), -scale)), at + 5


def _read_timestamp(data: bytes, at: int) -> tuple[datetime, int]:
    number: int = _LONGLONG.unpack_from(data, at)[0]
    try:
        return datetime.fromtimestamp(number / 1000.0 if number > _MILLISECONDS_FROM else number, UTC), at + 8
    except (ValueError, OverflowError, OSError):
        raise ValueError(f"is the time {number}, after the year 9999") from None


def read_value(data: bytes, at: int, depth: int = 1) -> tuple[Any, int]:
    """Read a value of a table or an array of ``depth``, with the octet for its type. Raises :data:`MALFORMED`."""
    kind = data[at]
    if kind == 0x46:  # F
        return read_table(data, at + 1, depth + 1)
    if kind == 0x41:  # A
        return _read_array(data, at + 1, depth + 1)
    return VALUES[kind](data, at + 1)


def extent(data: bytes, at: int, depth: int = 1) -> tuple[int, int]:
    """Return where the entries of a table or an array begin and end. Raises :data:`MALFORMED`."""
    if depth > MAX_DEPTH:
        raise ValueError(f"is nested deeper than {MAX_DEPTH} levels")
    start = at + 4
    end = start + int(_LONG.unpack_from(data, at)[0])
    if end > len(data):
        raise ValueError("is cut off")
    return start, end


def read_table(data: bytes, at: int, depth: int = 1) -> tuple[dict[str, Any], int]:
    """Read a field table, with its length. Raises :data:`MALFORMED`."""
    at, end = extent(data, at, depth)
    table: dict[str, Any] = {}
    while at < end:
        start = at + 1 + data[at]
        name = _decoded(data[at + 1 : start])
        if data[start] == _LONG_STRING:  # most headers are; this is read_value() without its calls
            start += 5
            at = start + int.from_bytes(data[start - 4 : start])
            if at > len(data):
                raise ValueError("is cut off")
            try:
                table[name] = data[start:at].decode()
            except UnicodeDecodeError:
                table[name] = data[start:at]
        else:
            table[name], at = read_value(data, start, depth)
    if at != end:
        raise ValueError("does not end where it says")
    return table, end


@lru_cache(maxsize=1000)  # nearly all messages of a service have the same names
def _decoded(name: bytes) -> str:
    return name.decode()


def _text_or_bytes(value: bytes) -> str | bytes:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value


def _read_array(data: bytes, at: int, depth: int) -> tuple[list[Any], int]:
    at, end = extent(data, at, depth)
    array = []
    while at < end:
        value, at = read_value(data, at, depth)
        array.append(value)
    if at != end:
        raise ValueError("does not end where it says")
    return array, end


#: Reads a value, by its field type: those of RabbitMQ, which differ from section 4.2.1, and 'L' and NUL as pamqp does.
VALUES: Final[dict[int, Reader]] = {
    ord("t"): _read_boolean,
    ord("b"): _structure(_OCTET_SIGNED),
    ord("B"): _read_octet,
    ord("s"): _structure(_SHORT_SIGNED),
    ord("u"): _structure(_SHORT),
    ord("I"): _structure(_LONG_SIGNED),
    ord("i"): _structure(_LONG),
    ord("l"): _structure(_LONGLONG_SIGNED),
    ord("L"): _structure(_LONGLONG_SIGNED),
    ord("f"): _structure(_FLOAT),
    ord("d"): _structure(_DOUBLE),
    ord("D"): _read_decimal,
    ord("S"): _read_longstr,
    ord("T"): _read_timestamp,
    ord("V"): _read_void,
    0: _read_void,
    ord("x"): _read_bytearray,
}
#: How many octets a value of each type has. Not here are those that begin with their length.
_SIZES: Final = {
    **{
        ord(kind): size for kind, size in zip("tbBsuIilLfdDTV", (1, 1, 1, 2, 2, 4, 4, 8, 8, 4, 8, 5, 8, 0), strict=True)
    },
    0: 0,
}
_WITH_LENGTH: Final = b"SxFA"


def end_of_value(data: bytes, at: int) -> int:
    """Return where a value ends, whether it can be read or not. Raises :data:`MALFORMED` if its type is unknown."""
    kind = data[at]
    return extent(data, at + 1)[1] if kind in _WITH_LENGTH else at + 1 + _SIZES[kind]


def read_entries(data: bytes, at: int, end: int) -> Iterator[tuple[bytes, Any, bytes, str]]:
    """Read the entries of a table one by one, also those behind one that cannot be read.

    Yields:
        The name, the value, its bytes, and why the value cannot be read; "" if it can be.

    Raises:
        ValueError, LookupError, struct.error: nobody can know where the next entry begins.
    """
    while at < end:
        name, start = short_bytes(data, at)
        at = end_of_value(data, start)
        if at > end:
            raise ValueError("does not end where it says")
        octets, value, why = data[start:at], None, ""
        try:
            value = read_value(octets, 0)[0]
        except MALFORMED as error:
            why = _why(error, "holds a name that is not UTF-8")
        yield name, value, octets, why


def _why(error: Exception, not_utf_8: str) -> str:
    if isinstance(error, UnicodeDecodeError):
        return not_utf_8
    return str(error) if type(error) is ValueError else "cannot be decoded"


# Properties

_FLAGS: Final = Basic.Properties.flags
#: pamqp's name, AMQP's name, flag and type of each property, in their order.
PROPERTIES: Final[list[tuple[str, str, int, str]]] = [
    (name, "type" if name == "message_type" else name, _FLAGS[name], Basic.Properties.amqp_type(name))
    for name in Basic.Properties.attributes()
]
KNOWN_FLAGS: Final[int] = sum(_FLAGS.values())
_PROPERTY_READERS: Final[dict[str, Reader]] = {
    "octet": _read_octet,
    "shortstr": _read_name,
    "timestamp": _read_timestamp,
    "table": read_table,
}


def readers_by_flags(readers: Mapping[str, Reader]) -> Callable[[int], list[tuple[str, Reader]]]:
    """Return a function that returns, for flags, the names of the properties that are set, each with what reads it.

    They come in their order on the wire. The function raises ``ValueError`` for flags that no property has.

    Args:
        readers: by the types of properties.
    """

    @lru_cache(maxsize=1000)  # nearly all messages of a program have the same flags
    def of(flags: int) -> list[tuple[str, Reader]]:
        if flags & ~KNOWN_FLAGS:
            raise ValueError("unknown properties")
        return [(name, readers[kind]) for name, _, flag, kind in PROPERTIES if flags & flag]

    return of


_readers: Final = readers_by_flags(_PROPERTY_READERS)


def read_properties(data: bytes) -> Basic.Properties:
    """Read the flags and the property list of a content header (section 4.2.6.1).

    Returns:
        :class:`eda_core.messages.Properties`; or :class:`Unreadable`, with the properties that can be read, if not all
        can be.
    """
    try:
        properties: Basic.Properties = object.__new__(Properties)
        values, at, size = properties.__dict__, 2, len(data)
        for name, read in _readers(int.from_bytes(data[:2])):
            if read is _read_name:  # without its call
                start = at + 1
                at = start + data[at]
                if at > size:
                    raise ValueError("is cut off")
                values[name] = data[start:at].decode()
            else:
                values[name], at = read(data, at)
        if at == size:
            return properties
    except MALFORMED:
        pass
    return _unreadable(data)


def _unreadable(data: bytes) -> Unreadable:
    """Read what can be read of properties that cannot all be read."""
    found = Unreadable()
    try:
        _read_singly(data, found)
    except MALFORMED:  # nobody knows where the next property begins
        found.add("the properties are malformed")
    return found


def _read_singly(data: bytes, found: Unreadable) -> None:
    flags, at = int(_SHORT.unpack_from(data)[0]), 2
    for name, amqp_name, flag, kind in PROPERTIES:
        if not flags & flag:
            continue
        start = at
        at = _end_of_property(data, at, kind)
        if kind == "table":
            found.headers = _readable_headers(data, start + 4, at, found)
            continue
        try:
            setattr(found, name, _PROPERTY_READERS[kind](data, start)[0])
        except MALFORMED as error:
            what = f": {_quoted(data[start + 1 : at])}" if kind == "shortstr" else ""
            found.add(f"the property {amqp_name} {_why(error, 'is not UTF-8')}{what}")
    if at != len(data) or flags & ~KNOWN_FLAGS:
        raise ValueError("octets after the last property")


def _end_of_property(data: bytes, at: int, kind: str) -> int:
    if kind == "table":
        return extent(data, at)[1]
    if kind == "shortstr":
        return short_bytes(data, at)[1]
    end = at + (8 if kind == "timestamp" else 1)
    if end > len(data):
        raise ValueError("is cut off")
    return end


def _readable_headers(data: bytes, at: int, end: int, found: Unreadable) -> dict[str, Any]:
    headers: dict[str, Any] = {}
    first = ""
    try:
        for octets, value, _, why in read_entries(data, at, end):
            try:
                name = octets.decode()
            except UnicodeDecodeError:
                first = first or f"has a name that is not UTF-8: {_quoted(octets)}"
                continue
            if why:
                first = first or f"has a value that cannot be read: {shortened(repr(name), _QUOTED)} {why}"
            else:
                headers[name] = value
    except MALFORMED:
        first = first or "is malformed"
    if first:
        found.add(f"the property headers {first}")
    return headers


def _quoted(octets: bytes) -> str:
    return shortened(repr(octets), _QUOTED)


# Methods and frames

#: One step for each argument: its type and its name. Consecutive bits share an octet (section 4.2.5.2), so together
#: they are one step, without a type.
Step = tuple[str | None, tuple[str, ...]]


def _steps(method: type[base.Frame]) -> list[Step]:
    steps: list[Step] = []
    for name in method.attributes():
        kind = method.amqp_type(name)
        if kind != "bit":
            steps.append((kind, (name,)))
        elif steps and steps[-1][0] is None and len(steps[-1][1]) < 8:
            steps[-1] = (None, (*steps[-1][1], name))
        else:
            steps.append((None, (name,)))
    return steps


#: The steps by the class of the method.
STEPS: Final[dict[type[base.Frame], list[Step]]] = {kind: _steps(kind) for kind in commands.INDEX_MAPPING.values()}

#: Readers of arguments by their types.
READERS: Final[dict[str, Reader]] = {
    "octet": _read_octet,
    "short": _structure(_SHORT),
    "long": _structure(_LONG),
    "longlong": _structure(_LONGLONG_SIGNED),
    "shortstr": _read_shortstr,
    "longstr": _read_longstr,
    "timestamp": _read_timestamp,
    "table": read_table,
}


def read_method(payload: bytes, readers: Mapping[str, Reader] = READERS) -> base.Frame:
    """Read the payload of a method frame. A short string that is not UTF-8 becomes ``bytes``.

    Raises:
        ValueError: AMQP 0-9-1 has no such method, or its arguments are malformed.
    """
    try:
        index = _LONG.unpack_from(payload)[0]
        if readers is READERS and index in _FREQUENT:
            return _FREQUENT[index](payload)
        kind_of_method = commands.INDEX_MAPPING[index]
        method: base.Frame = object.__new__(kind_of_method)  # without the defaults of pamqp: all arguments are read
        at = 4
        for kind, names in STEPS[kind_of_method]:
            if kind is None:
                bits = payload[at]
                at += 1
                for position, name in enumerate(names):
                    setattr(method, name, bits >> position & 1 != 0)
            else:
                value, at = readers[kind](payload, at)
                setattr(method, names[0], value)
    except MALFORMED as error:
        raise ValueError(f"malformed method {_quoted(payload)}") from error
    if at != len(payload):
        raise ValueError(f"octets after the last argument of {method.name}")
    return method


def _read_deliver(payload: bytes) -> base.Frame:
    """Read ``Basic.Deliver`` as :func:`read_method` reads others, in a quarter of the time."""
    made: Any = object.__new__(Basic.Deliver)
    at = 5 + payload[4]
    made.consumer_tag = _known_text(payload[5:at])
    made.delivery_tag, bits = _TAG_AND_BITS.unpack_from(payload, at)
    made.redelivered = bits & 1 != 0
    made.exchange, made.routing_key = _two_names(payload[at + _TAG_AND_BITS.size :])
    return made  # type: ignore[no-any-return]


def _read_ack(payload: bytes) -> base.Frame:
    if len(payload) != 4 + _TAG_AND_BITS.size:
        raise ValueError("is cut off, or does not end where it should")
    made: Any = object.__new__(Basic.Ack)
    made.delivery_tag, bits = _TAG_AND_BITS.unpack_from(payload, 4)
    made.multiple = bits & 1 != 0
    return made  # type: ignore[no-any-return]


@lru_cache(maxsize=1000)
def _known_text(value: bytes) -> str | bytes:
    return _text_or_bytes(value)


@lru_cache(maxsize=KINDS)
def _two_names(octets: bytes) -> tuple[str | bytes, str | bytes]:
    first, at = _read_shortstr(octets, 0)
    second, at = _read_shortstr(octets, at)
    if at != len(octets):
        raise ValueError("octets after the last argument")
    return first, second


_TAG_AND_BITS = struct.Struct(">qB")
#: Methods that come with each message, and what reads them.
_FREQUENT: Final[dict[int, Callable[[bytes], base.Frame]]] = {
    Basic.Deliver.index: _read_deliver,
    Basic.Ack.index: _read_ack,
}


def read_content(payload: bytes) -> tuple[int, Basic.Properties]:
    """Read the payload of a content header frame.

    Returns:
        The size of the body in bytes, and the properties, which may be :class:`Unreadable`.

    Raises:
        ValueError: it is shorter than the size of the body, or not of the class Basic.
    """
    try:
        class_id, _, size = _CONTENT.unpack_from(payload)
    except struct.error:
        raise ValueError(f"content header of {len(payload)} octets") from None
    if class_id != Basic.frame_id:
        raise ValueError(f"content header of the class {class_id}")
    return size, read_properties(payload[_CONTENT.size :])


def read_delivery(data: bytes, at: int, limit: int) -> tuple[base.Frame, Basic.Properties, bytes, int] | None:
    """Read a whole delivery of the usual form, in a third of the time that its frames take one by one.

    Args:
        at: where the frame of ``Basic.Deliver`` begins.
        limit: the largest frame, and the largest body, bytes.

    Returns:
        The method, the properties, the body, and the position behind it; ``None`` if anything is unusual: a frame is
        missing or malformed, or the body has no frame, or several.
    """
    try:
        _, channel, length, index = _METHOD_START.unpack_from(data, at)
        if index != Basic.Deliver.index:
            return None
        start, header = at + 7, at + 8 + length
        kind, header_channel, header_length, class_id, _, size = HEADER_START.unpack_from(data, header)
        body = header + 8 + header_length
        if kind != HEADER or class_id != Basic.frame_id or header_channel != channel or not 0 < size <= limit:
            return None
        kind, body_channel, body_length = FRAME_START.unpack_from(data, body)
        begin, end = body + 7, body + 7 + size
        if kind != BODY or body_length != size or body_channel != channel or not 14 <= header_length <= limit:
            return None
        if not data[header - 1] == data[body - 1] == data[end] == FRAME_END:
            return None
        properties = read_properties(data[header + 19 : body - 1])
        return _read_deliver(data[start : header - 1]), properties, data[begin:end], end + 1
    except MALFORMED:  # one frame after the other, what is wrong can be told
        return None


def read_header(payload: bytes) -> ContentHeader:
    """Read the payload of a content header frame as an object of pamqp. Raises what :func:`read_content` raises."""
    size, properties = read_content(payload)
    header: Any = ContentHeader(0, size, properties)
    header.class_id = Basic.frame_id
    return header  # type: ignore[no-any-return]


def read_frame(data: bytes) -> tuple[int, base.Frame | ContentHeader | ContentBody | Heartbeat]:
    """Read one whole frame (section 4.2.3): seven octets, as many as these say, and the octet that ends a frame.

    Returns:
        The number of the channel, and an object of pamqp.

    Raises:
        ValueError: it is malformed. The properties and the routing key of a message are no reason.
    """
    if len(data) < 8 or data[-1] != FRAME_END:
        raise ValueError("a frame does not end with the octet for that")
    kind, channel, payload = data[0], int.from_bytes(data[1:3]), data[7:-1]
    if kind == METHOD:
        return channel, read_method(payload)
    if kind == HEADER:
        return channel, read_header(payload)
    if kind == BODY:
        return channel, ContentBody(payload)
    if kind == HEARTBEAT:
        return channel, Heartbeat()
    raise ValueError(f"unknown frame type {kind}")


def named(method: Any, properties: Basic.Properties) -> tuple[str, str, Basic.Properties]:
    """Return the exchange and the routing key of a delivery as text, and its properties.

    Args:
        method: ``Basic.Deliver``, ``Basic.GetOk`` or ``Basic.Return``, with ``bytes`` for a name that is not UTF-8.

    Returns:
        The text has U+FFFD for octets that are not UTF-8. The properties are :class:`Unreadable` then.
    """
    exchange, key = method.exchange, method.routing_key
    if type(exchange) is str and type(key) is str:
        return exchange, key, properties
    for what, name in (("exchange", exchange), ("routing key", key)):
        if isinstance(name, bytes):
            properties = Unreadable.of(properties, f"the {what} is not UTF-8: {_quoted(name)}")
    return as_text(exchange), as_text(key), properties
