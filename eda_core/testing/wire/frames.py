"""Writes and reads AMQP 0-9-1 frames, for the server side. It does not know what the methods mean.

The classes of methods and properties are pamqp's. The codec is not, because a server gets what a client library never
gets. pamqp 4.0 accepts strings that run past the end of their frame, copies the rest of a table for each of its entries
(quadratic time), has no limit of depth, cannot write a long string that is not UTF-8, writes a double as a float of
single precision, sorts and cuts the keys of tables, and refuses names that RabbitMQ allows. Values become the same
Python types as with pamqp.

Sources: AMQP 0-9-1 section 4.2 (frames, field tables) and RabbitMQ's errata of the field types.
"""

from __future__ import annotations

import datetime
import decimal
import math
import struct
from collections.abc import Callable, Mapping
from typing import Any, Final

from pamqp import base, commands

FRAME_METHOD: Final = 1
FRAME_HEADER: Final = 2
FRAME_BODY: Final = 3
FRAME_HEARTBEAT: Final = 8
FRAME_END: Final = 0xCE
FRAME_OVERHEAD: Final = 8  # type, channel, size and the end octet
HEADER: Final = struct.Struct(">BHI")
HEARTBEAT_FRAME: Final = b"\x08\x00\x00\x00\x00\x00\x00\xce"

MAX_TABLE_DEPTH: Final = 100
_MILLISECONDS_FROM: Final = 0xFFFFFFFF  # a time stamp after the year 2106 is one in milliseconds, as in pamqp
_CLASS_BASIC: Final = commands.Basic.frame_id
_PUBLISH: Final = divmod(commands.Basic.Publish.index, 1 << 16)  # the only method of a client with content
_INT_MIN, _INT_MAX = -(2**31), 2**31 - 1
_EPOCH: Final = datetime.datetime.fromtimestamp(0, datetime.UTC)

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
_CONTENT_FLAGS = struct.Struct(">HHQH")

_Reader = Callable[[bytes, int], tuple[Any, int]]


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


def _structure(layout: struct.Struct) -> _Reader:
    size = layout.size
    unpack = layout.unpack_from

    def read(data: bytes, at: int) -> tuple[Any, int]:
        return unpack(data, at)[0], at + size

    return read


def _finite(layout: struct.Struct) -> _Reader:
    """A reader of floats that refuses NaN and infinities, as RabbitMQ does: Erlang has none."""
    read = _structure(layout)

    def read_finite(data: bytes, at: int) -> tuple[float, int]:
        value, at = read(data, at)
        if not math.isfinite(value):
            raise ValueError("not a number, or infinite")
        return value, at

    return read_finite


def _read_octet(data: bytes, at: int) -> tuple[int, int]:
    return data[at], at + 1


def _read_shortstr(data: bytes, at: int) -> tuple[str, int]:
    end = at + 1 + data[at]
    if end > len(data):
        raise ValueError("short string runs past its frame")
    return data[at + 1 : end].decode(), end


def _read_bytes(data: bytes, at: int) -> tuple[bytes, int]:
    start = at + 4
    end = start + int(_LONG.unpack_from(data, at)[0])
    if end > len(data):
        raise ValueError("long string runs past its frame")
    return data[start:end], end


def _read_longstr(data: bytes, at: int) -> tuple[str | bytes, int]:
    value, end = _read_bytes(data, at)
    try:
        return value.decode(), end
    except UnicodeDecodeError:
        return value, end


def _read_bytearray(data: bytes, at: int) -> tuple[bytearray, int]:
    value, end = _read_bytes(data, at)
    return bytearray(value), end


def _read_boolean(data: bytes, at: int) -> tuple[bool, int]:
    return data[at] != 0, at + 1


def _read_void(data: bytes, at: int) -> tuple[None, int]:
    return None, at


def _read_decimal(data: bytes, at: int) -> tuple[decimal.Decimal, int]:
    scale, mantissa = _DECIMAL.unpack_from(data, at)
    return decimal.Decimal(mantissa).scaleb(-scale), at + 5


def _read_timestamp(data: bytes, at: int) -> tuple[datetime.datetime, int]:
    seconds: float = _LONGLONG.unpack_from(data, at)[0]
    if seconds > _MILLISECONDS_FROM:
        seconds /= 1000.0
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC), at + 8


def _read_value(data: bytes, at: int, end: int, depth: int) -> tuple[Any, int]:
    kind = data[at]
    if kind == 0x46:  # F
        return _read_table(data, at + 1, depth + 1)
    if kind == 0x41:  # A
        return _read_array(data, at + 1, depth + 1)
    value, at = _VALUE_READERS[kind](data, at + 1)
    if at > end:
        raise ValueError("value runs past its table")
    return value, at


def _extent(data: bytes, at: int, depth: int) -> tuple[int, int]:
    start = at + 4
    end = start + int(_LONG.unpack_from(data, at)[0])
    if end > len(data) or depth > MAX_TABLE_DEPTH:
        raise ValueError("table runs past its frame, or is nested too deeply")
    return start, end


def _read_table(data: bytes, at: int, depth: int = 1) -> tuple[dict[str, Any], int]:
    at, end = _extent(data, at, depth)
    table: dict[str, Any] = {}
    while at < end:
        key, at = _read_shortstr(data, at)
        table[key], at = _read_value(data, at, end, depth)
    if at != end:
        raise ValueError("table does not end where it says")
    return table, end


def _read_array(data: bytes, at: int, depth: int) -> tuple[list[Any], int]:
    at, end = _extent(data, at, depth)
    array = []
    while at < end:
        value, at = _read_value(data, at, end, depth)
        array.append(value)
    if at != end:
        raise ValueError("array does not end where it says")
    return array, end


# The field types of RabbitMQ, which differ from section 4.2.1, and 'L' and NUL as pamqp reads them.
_VALUE_READERS: Final[dict[int, _Reader]] = {
    ord("t"): _read_boolean,
    ord("b"): _structure(_OCTET_SIGNED),
    ord("B"): _read_octet,
    ord("s"): _structure(_SHORT_SIGNED),
    ord("u"): _structure(_SHORT),
    ord("I"): _structure(_LONG_SIGNED),
    ord("i"): _structure(_LONG),
    ord("l"): _structure(_LONGLONG_SIGNED),
    ord("L"): _structure(_LONGLONG_SIGNED),
    ord("f"): _finite(_FLOAT),
    ord("d"): _finite(_DOUBLE),
    ord("D"): _read_decimal,
    ord("S"): _read_longstr,
    ord("T"): _read_timestamp,
    ord("V"): _read_void,
    0: _read_void,
    ord("x"): _read_bytearray,
}

_READERS: Final[dict[str, _Reader]] = {
    "octet": _read_octet,
    "short": _structure(_SHORT),
    "long": _structure(_LONG),
    "longlong": _structure(_LONGLONG_SIGNED),
    "shortstr": _read_shortstr,
    "longstr": _read_longstr,
    "timestamp": _read_timestamp,
    "table": _read_table,
}

_MALFORMED: Final = (ValueError, LookupError, struct.error, OverflowError, OSError, ArithmeticError)


# --- writing ---------------------------------------------------------------------------------------------------------


def _write_shortstr(value: str | None) -> bytes:
    data = (value or "").encode("utf-8", "replace")
    if len(data) > 255:
        # Only a reply text is so long: it quotes a name that may have 255 bytes itself.
        data = data[:255].decode("utf-8", "ignore").encode()
    return bytes((len(data),)) + data


def _write_longstr(value: str | bytes | None) -> bytes:
    data = value.encode("utf-8", "replace") if isinstance(value, str) else (value or b"")
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


def _write_timestamp(value: datetime.datetime) -> bytes:
    aware = value if value.tzinfo is not None else value.replace(tzinfo=datetime.UTC)
    return _LONGLONG.pack(max((aware - _EPOCH) // datetime.timedelta(seconds=1), 0))


_VALUE_WRITERS: Final[dict[type, Callable[[Any], bytes]]] = {
    bool: lambda value: b"t\x01" if value else b"t\x00",
    int: _write_integer,
    float: lambda value: b"d" + _DOUBLE.pack(value),
    str: lambda value: b"S" + _write_longstr(value),
    bytes: lambda value: b"S" + _write_longstr(value),
    bytearray: lambda value: b"x" + _write_longstr(value),
    dict: lambda value: b"F" + _write_table(value),
    list: _write_array,
    type(None): lambda value: b"V",
    decimal.Decimal: _write_decimal,
    datetime.datetime: lambda value: b"T" + _write_timestamp(value),
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

# One step for each argument. Consecutive bits share an octet (section 4.2.5.2), so together they are one step.
_Step = tuple[str | None, tuple[str, ...]]


def _steps(method: type[base.Frame]) -> list[_Step]:
    steps: list[_Step] = []
    for name in method.attributes():
        kind = method.amqp_type(name)
        if kind != "bit":
            steps.append((kind, (name,)))
        elif steps and steps[-1][0] is None and len(steps[-1][1]) < 8:
            steps[-1] = (None, (*steps[-1][1], name))
        else:
            steps.append((None, (name,)))
    return steps


_STEPS: Final[dict[type[base.Frame], list[_Step]]] = {kind: _steps(kind) for kind in commands.INDEX_MAPPING.values()}


def decode_method(payload: bytes) -> base.Frame:
    """The method in the payload of a method frame.

    Raises:
        WireError: 501, there is no method in it, or its arguments cannot be decoded (among them short strings that are
            not UTF-8 and time stamps after the year 9999); 540, AMQP 0-9-1 has no such method.
    """
    if len(payload) < 4:
        raise WireError(501, "FRAME_ERROR - method frame without a method")
    index = int(_LONG.unpack_from(payload)[0])
    ids = index >> 16, index & 0xFFFF
    kind = commands.INDEX_MAPPING.get(index)
    if kind is None:
        raise WireError(540, f"NOT_IMPLEMENTED - no method {ids[1]} in class {ids[0]}", *ids)
    method: base.Frame = kind()
    try:
        _read_arguments(method, payload, _STEPS[kind])
    except _MALFORMED:
        raise WireError(501, f"FRAME_ERROR - cannot decode the arguments of {method.name}", *ids) from None
    return method


def _read_arguments(method: base.Frame, payload: bytes, steps: list[_Step]) -> None:
    at = 4
    for kind, names in steps:
        if kind is None:
            bits = payload[at]
            at += 1
            for position, name in enumerate(names):
                setattr(method, name, bits >> position & 1 != 0)
        else:
            value, at = _READERS[kind](payload, at)
            setattr(method, names[0], value)
    if at != len(payload):
        raise ValueError("octets after the last argument")


def encode_method(channel: int, method: base.Frame) -> bytes:
    """One method frame. It may hold any names, valid or not."""
    parts = [_LONG.pack(method.index)]
    for kind, names in _STEPS[type(method)]:
        if kind is None:
            octet = sum(bool(getattr(method, name)) << position for position, name in enumerate(names))
            parts.append(bytes((octet,)))
        else:
            parts.append(_WRITERS[kind](getattr(method, names[0])))
    return frame(FRAME_METHOD, channel, b"".join(parts))


def frame(kind: int, channel: int, payload: bytes) -> bytes:
    """A frame of any kind (section 4.2.3)."""
    return HEADER.pack(kind, channel, len(payload)) + payload + b"\xce"


def decode_table(entries: bytes) -> dict[str, Any]:
    """A field table without its length, as AMQPLAIN sends it.

    Raises:
        WireError: 501. It cannot be decoded.
    """
    try:
        return _read_table(_LONG.pack(len(entries)) + entries, 0)[0]
    except _MALFORMED:
        raise WireError(501, "FRAME_ERROR - cannot decode a table") from None


# --- content ---------------------------------------------------------------------------------------------------------

_PROPERTIES: Final = [
    (name, commands.Basic.Properties.flags[name], commands.Basic.Properties.amqp_type(name))
    for name in commands.Basic.Properties.attributes()
]
_KNOWN_FLAGS: Final = sum(commands.Basic.Properties.flags.values())


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
        if flags & ~_KNOWN_FLAGS:
            raise ValueError("unknown property")
        for name, flag, kind in _PROPERTIES:
            if flags & flag:
                value, at = _READERS[kind](payload, at)
                setattr(properties, name, value)
        if at != len(payload):
            raise ValueError("octets after the last property")
    except _MALFORMED:
        raise WireError(541, "INTERNAL_ERROR - malformed properties") from None
    properties.wire = payload[_CONTENT.size :]
    return size, properties


def encode_properties(properties: commands.Basic.Properties) -> bytes:
    """Flags and property list. Properties of a client that were not changed have the bytes that the client sent."""
    if isinstance(properties, ReceivedProperties):
        return properties.wire
    flags = 0
    parts = []
    for name, flag, kind in _PROPERTIES:
        value = getattr(properties, name)
        # cluster_id is reserved, and has to be empty. pamqp's constructor sets it to ''.
        if value is not None and (name != "cluster_id" or value):
            flags |= flag
            parts.append(_WRITERS[kind](value))
    return _SHORT.pack(flags) + b"".join(parts)


def encode_content(channel: int, properties: commands.Basic.Properties | None, body: bytes, frame_max: int) -> bytes:
    """The content header frame and the body frames of a message, joined.

    Args:
        frame_max: the largest size of a frame in bytes; 0 for no limit.
    """
    written = encode_properties(properties) if properties is not None else b"\x00\x00"
    parts = [frame(FRAME_HEADER, channel, _CONTENT.pack(_CLASS_BASIC, 0, len(body)) + written)]
    step = frame_max - FRAME_OVERHEAD if frame_max else max(len(body), 1)
    for start in range(0, len(body), step):
        parts.append(frame(FRAME_BODY, channel, body[start : start + step]))
    return b"".join(parts)
