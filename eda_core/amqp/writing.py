"""Writes frames, methods and messages.

What is sent with each message (``Basic.Publish``, its header and its body, ``Basic.Ack``) is written by hand, because
pamqp takes ten times as long. Everything else is written by pamqp.

Source: AMQP 0-9-1, section 4.2.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterator
from functools import lru_cache
from typing import Final

from pamqp import base, commands, frame
from pamqp.commands import Basic

from eda_core.amqp.reading import BODY, FRAME_END, FRAME_START, HEADER, HEADER_START, KINDS, METHOD
from eda_core.messages.properties import short_string

#: The octets of a frame around its payload: type, channel and size before it, the end behind it.
FRAME_OVERHEAD: Final = 8
#: The first bytes of a client of AMQP 0-9-1 (section 4.2.2).
PROTOCOL_HEADER: Final = b"AMQP\x00\x00\x09\x01"
HEARTBEAT_FRAME: Final = b"\x08\x00\x00\x00\x00\x00\x00\xce"
#: The octets of a content header frame around the properties: also the class, the weight and the size of the body.
_CONTENT_OVERHEAD: Final = FRAME_OVERHEAD + 12

_END: Final = bytes((FRAME_END,))
_BETWEEN = struct.Struct(">BBHI")  # the end of the content header, and the start of the body
_ACK = struct.Struct(">BHIIqBB")  # the tag has a sign, as where pamqp and the core read it


def write_frame(kind: int, channel: int, payload: bytes) -> bytes:
    """Return a frame of any type (section 4.2.3)."""
    return FRAME_START.pack(kind, channel, len(payload)) + payload + _END


def write_method(channel: int, method: base.Frame) -> bytes:
    """Return the frame of a method of pamqp.

    Raises:
        TypeError, ValueError, struct.error: AMQP 0-9-1 does not allow an argument.
    """
    return frame.marshal(method, channel)


def write_ack(channel: int, tag: int, multiple: bool = False) -> bytes:
    """Return the frame of ``Basic.Ack``.

    Raises:
        struct.error: the tag has more than 64 bits, one of them for its sign.
    """
    return _ACK.pack(METHOD, channel, 13, commands.Basic.Ack.index, tag, multiple, FRAME_END)


def write_message(
    channel: int,
    exchange: str,
    routing_key: str,
    properties: Basic.Properties,
    body: bytes,
    *,
    mandatory: bool = False,
    frame_max: int = 0,
) -> bytes:
    """Return the frames of ``Basic.Publish`` with its message.

    Args:
        exchange: any text of up to 255 bytes, as with RabbitMQ. pamqp allows 127 of a few characters.
        properties: pamqp's, or :class:`eda_core.messages.Properties`.
        frame_max: the largest size of a frame, bytes; 0 for no limit.

    Raises:
        TypeError, ValueError, struct.error: AMQP 0-9-1 does not allow a name or a property.
        ValueError: the properties do not fit into a frame. A broker would close the connection.
    """
    octets, size = properties.marshal(), len(body)
    method = _publish(channel, exchange, routing_key, mandatory)
    length, limit = len(octets) + _CONTENT_OVERHEAD, frame_max or sys.maxsize
    if length <= limit and 0 < size <= limit - FRAME_OVERHEAD:  # most messages, in one step
        header = HEADER_START.pack(HEADER, channel, length - FRAME_OVERHEAD, Basic.frame_id, 0, size)
        return b"".join((method, header, octets, _BETWEEN.pack(FRAME_END, BODY, channel, size), body, _END))
    if length > limit:
        largest = frame_max - _CONTENT_OVERHEAD
        raise ValueError(f"properties of {len(octets)} bytes do not fit into a frame, which can have {largest}")
    return b"".join([method, *write_content(channel, octets, body, frame_max)])


def write_content(channel: int, properties: bytes, body: bytes, frame_max: int) -> list[bytes]:
    """Return the content header frame and the body frames of a message (section 4.2.6), in parts to join.

    Args:
        properties: the flags and the property list.
        frame_max: the largest size of a frame with a part of the body, bytes; 0 for no limit.
    """
    parts = [*write_header(channel, properties, len(body))]
    for frame_of_body in write_body(channel, body, frame_max):
        parts += frame_of_body
    return parts


def write_header(channel: int, properties: bytes, size: int) -> tuple[bytes, bytes, bytes]:
    """Return the content header frame of a message with a body of ``size`` bytes, in three parts to join.

    Args:
        properties: the flags and the property list.
    """
    length = len(properties) + _CONTENT_OVERHEAD - FRAME_OVERHEAD
    return HEADER_START.pack(HEADER, channel, length, Basic.frame_id, 0, size), properties, _END


def write_body(channel: int, body: bytes, frame_max: int) -> Iterator[tuple[bytes, bytes, bytes]]:
    """Yield the body frames of a message, each in three parts to join.

    Args:
        frame_max: the largest size of a frame, bytes; 0 for no limit.
    """
    size = len(body)
    step = frame_max - FRAME_OVERHEAD if frame_max else max(size, 1)
    for at in range(0, size, step):
        yield FRAME_START.pack(BODY, channel, min(step, size - at)), body[at : at + step], _END


@lru_cache(maxsize=KINDS)
def _publish(channel: int, exchange: str, routing_key: str, mandatory: bool) -> bytes:
    names = short_string(exchange) + short_string(routing_key)
    payload = commands.Basic.Publish.index.to_bytes(4) + b"\x00\x00" + names + (b"\x01" if mandatory else b"\x00")
    return write_frame(METHOD, channel, payload)
