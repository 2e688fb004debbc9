"""The model answers to a break of the protocol as RabbitMQ does: with the same code and the same method as cause."""

from __future__ import annotations

from typing import Final

import pytest
from pamqp import commands

from eda_core.testing.wire import frames
from tests.differential.client import Client, SilenceError
from tests.differential.comparison import Model, Rabbit
from tests.differential.known_differences import without_octets


def method_frame(channel: int, payload: bytes) -> bytes:
    return frames.frame(frames.FRAME_METHOD, channel, payload)


def header_frame(channel: int, payload: bytes) -> bytes:
    return frames.frame(frames.FRAME_HEADER, channel, payload)


def body_frame(channel: int, payload: bytes) -> bytes:
    return frames.frame(frames.FRAME_BODY, channel, payload)


_PUBLISH: Final = frames.encode_method(1, commands.Basic.Publish(routing_key="q"))
_GET: Final = frames.encode_method(1, commands.Basic.Get(queue="q"))
_HEADER: Final = header_frame(1, b"\0\x3c\0\0" + b"\0" * 7 + b"\4" + b"\0\0")  # four bytes of body, no properties

FAULTS: Final = {
    "method frame without a method": method_frame(1, b"\0\x3c"),
    "truncated short string": method_frame(1, b"\0\x3c\0\x28\0\0\xff"),
    "truncated table": method_frame(1, b"\0\x32\0\x0a\0\0\1q\0\0\0\0\x09\1a"),
    "connection.close on a channel": method_frame(1, b"\0\x0a\0\x32\0\0\0\0\0\0\0"),
    "connection method on a channel that is not open": method_frame(9, b"\0\x0a\0\x28\1/\0\0"),
    "channel method on channel 0": method_frame(0, b"\0\x14\0\x0a\0"),
    "second connection.open": method_frame(0, b"\0\x0a\0\x28\1/\0\0"),
    "connection.open-ok by a client": method_frame(0, b"\0\x0a\0\x29\0"),
    "second channel.open": method_frame(1, b"\0\x14\0\x0a\0"),
    "method on a channel that is not open": method_frame(9, b"\0\x14\0\x14\x01"),
    "header without a method": header_frame(1, b"\0\x3c" + b"\0" * 12),
    "body without a method": body_frame(1, b"body"),
    "header on channel 0": header_frame(0, b"\0\x3c" + b"\0" * 12),
    "body on channel 0": body_frame(0, b"body"),
    "body on a channel that is not open": body_frame(9, b"body"),
    "method instead of a header": _PUBLISH + _GET,
    "body instead of a header": _PUBLISH + body_frame(1, b"x"),
    "header of another class": _PUBLISH + header_frame(1, b"\0\x0a" + b"\0" * 12),
    "header instead of a body": _PUBLISH + _HEADER + _HEADER,
    "method instead of a body": _PUBLISH + _HEADER + _GET,
    "malformed properties": _PUBLISH + header_frame(1, b"\0\x3c\0\0" + b"\0" * 8 + b"\x80\0\xff"),
    "heartbeat on a channel": frames.frame(frames.FRAME_HEARTBEAT, 1, b""),
    "unknown frame type": frames.frame(7, 1, b"x"),
    "wrong end of a frame": _GET[:-1] + b"\0",
    "frame over the maximum": body_frame(1, b"x" * 131072),
}
#: These crash the process of the connection in RabbitMQ, which closes the socket. The model says what is wrong.
CRASHES: Final = {
    "unknown class": method_frame(1, b"\x7f\xff\0\x0a"),
    "unknown method": method_frame(1, b"\0\x3c\0\xff"),
    "unknown class on channel 0": method_frame(0, b"\x7f\xff\0\x0a"),
    "unknown type in a table": method_frame(1, b"\0\x32\0\x0a\0\0\1r\0\0\0\0\x03\1aZ"),
}
SILENCE: Final = "the server hung up without Connection.Close"


def end_of(client: Client, fault: bytes) -> str:
    """How the server ends the connection."""
    client.open_with("q")
    client.send_raw(fault)
    try:
        return close_of(client)
    except SilenceError as error:
        return str(error)
    finally:
        client.hang_up()


def close_of(client: Client) -> str:
    """The Connection.Close that the server sends."""
    client.until(lambda received: client.ended is not None)
    close = client.ended
    assert isinstance(close, commands.Connection.Close)
    text = without_octets(close.reply_code or 0, close.reply_text)
    return f"{close.reply_code} {text} ({close.class_id}.{close.method_id})"


@pytest.mark.parametrize("name", FAULTS)
def test_fault(rabbit: Rabbit, name: str) -> None:
    ours = end_of(Model("").connect(0), FAULTS[name])
    theirs = end_of(rabbit.connect(), FAULTS[name])
    assert ours == theirs


@pytest.mark.parametrize("name", CRASHES)
def test_known_difference_where_rabbitmq_crashes(rabbit: Rabbit, name: str) -> None:
    assert end_of(Model("").connect(0), CRASHES[name])[:3] in ("501", "540")
    assert end_of(rabbit.connect(), CRASHES[name]) == SILENCE


def test_number_of_channels(rabbit: Rabbit) -> None:
    """A client may open as many channels as were negotiated, whatever their numbers are."""
    ends = []
    for client in (Model("").connect(0, channel_max=2), rabbit.connect(channel_max=2)):
        for number in (2047, 7, 9):
            client.send(number, commands.Channel.Open())
        ends.append(close_of(client))
        client.hang_up()
    assert ends[0] == ends[1]
    assert "number of channels opened (2)" in ends[0]
