"""What a client can do wrong on an open connection, and what the server answers."""

from __future__ import annotations

import pytest
from pamqp import body, commands, frame, header

from eda_core.testing.broker import Broker
from eda_core.testing.wire import MAX_BODY, Server
from tests.core.testing.wire.test_wire import Peer, closed_with, publish, raw, start_ok


# Codes and texts as RabbitMQ's, where it has any: tests/differential/test_faults.py compares them.
@pytest.mark.parametrize(
    ("value", "code", "text"),
    [
        (raw(1, 1, b"\0\x3c"), 501, ""),
        (raw(1, 1, b"\x7f\xff\0\x0a"), 540, ""),
        (raw(1, 1, b"\0\x3c\0\xff"), 540, ""),
        (raw(1, 1, b"\0\x3c\0\x28\0\0\xff"), 501, "FRAME_ERROR - cannot decode"),
        (raw(1, 1, b"\0\x0a\0\x32\0\0\0\0\0\0\0"), 503, "unimplemented method"),
        (raw(1, 9, b"\0\x0a\0\x28\1/\0\0"), 504, "expected 'channel.open'"),
        (raw(1, 0, b"\0\x14\0\x0a\0"), 504, "unexpected method in connection state running"),
        (raw(1, 0, b"\0\x0a\0\x46\0\0\0\0\0"), 540, ""),
        (raw(1, 0, b"\0\x0a\0\x29\0"), 504, "unexpected method in connection state running"),
        (raw(1, 1, b"\0\x14\0\x0a\0"), 504, "second 'channel.open' seen"),
        (raw(1, 9, b"\0\x14\0\x14\x01"), 504, "expected 'channel.open'"),
        (raw(2, 1, b"\0\x3c" + b"\0" * 12), 505, "expected method frame, got non method frame instead"),
        (raw(3, 1, b"body"), 505, "expected method frame, got non method frame instead"),
        (raw(3, 0, b"body"), 505, "UNEXPECTED_FRAME - content on channel 0"),
        (raw(3, 9, b"body"), 505, "expected method frame, got non method frame instead"),
        (raw(8, 1, b""), 505, ""),
    ],
)
def test_errors_of_the_open_connection(value: bytes, code: int, text: str) -> None:
    closed_with(Peer().open().channel().feed(value), code, text)


@pytest.mark.parametrize(
    ("values", "code", "text"),
    [
        ([commands.Basic.Publish(), commands.Basic.Get(queue="q")], 505, "class 60, got non content header frame"),
        ([commands.Basic.Publish(), body.ContentBody(b"x")], 505, "class 60, got non content header frame"),
        ([*publish(b"", size=4), header.ContentHeader(0, 4)], 505, "expected content body, got non content body frame"),
        ([*publish(b"", size=4), body.ContentBody(b"12345")], 501, ""),
        (publish(b"", size=MAX_BODY + 1), 501, ""),
    ],
)
def test_errors_of_content(values: list[frame.FrameTypes], code: int, text: str) -> None:
    closed_with(Peer().open().channel().send(1, *values), code, text)


def test_the_number_of_channels_is_bounded_and_not_their_numbers() -> None:
    peer = Peer(Server(Broker(), channel_max=2))
    peer.send(0, header.ProtocolHeader())
    peer.send(0, start_ok())
    peer.send(0, commands.Connection.TuneOk(2, 131072, 0))
    peer.send(0, commands.Connection.Open("/"))
    peer.channel(7).channel(9)
    text = "number of channels opened (2) has reached the negotiated channel_max (2)"
    closed_with(peer.send(1, commands.Channel.Open()), 530, text)
