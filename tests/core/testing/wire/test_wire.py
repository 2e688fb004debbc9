"""The server side of the protocol, without a socket. pamqp makes and reads the frames of the client."""

from __future__ import annotations

import itertools
import struct
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pamqp import base, body, commands, frame, header, heartbeat

from eda_core.testing.broker import Broker, ConnectionId, Outgoing
from eda_core.testing.wire import CLOSING_TIMEOUT, HANDSHAKE_TIMEOUT, MAX_BODY, PROTOCOL_HEADER, Server
from tests.core.testing.broker.test_cost import calls

CAPABILITIES = {
    "authentication_failure_close": True,
    "connection.blocked": True,
    "consumer_cancel_notify": True,
    "basic.nack": True,
    "publisher_confirms": True,
}
Frame = tuple[int, frame.FrameTypes]


def new_server(**options: Any) -> Server:
    numbers = itertools.count(1)
    return Server(Broker(names=lambda: f"name-{next(numbers)}"), **options)


def start_ok(*, password: str = "guest", capabilities: dict[str, Any] | None = None) -> commands.Connection.StartOk:
    announced: Any = {"capabilities": CAPABILITIES if capabilities is None else capabilities}
    return commands.Connection.StartOk(announced, "PLAIN", f"\0guest\0{password}", "en_US")


def raw(kind: int, channel: int, payload: bytes, end: bytes = b"\xce") -> bytes:
    return struct.pack(">BHI", kind, channel, len(payload)) + payload + end


class Peer:
    """The client side of one connection."""

    def __init__(self, server: Server | None = None, *, now: float = 0.0) -> None:
        self.server = server or new_server()
        self.conn = self.server.accept(now=now)
        self.now = now

    def feed(self, data: bytes) -> list[Frame]:
        self.server.receive(self.conn, data, now=self.now)
        return self.received()

    def send(self, channel: int, *values: frame.FrameTypes) -> list[Frame]:
        return self.feed(b"".join(frame.marshal(value, channel) for value in values))

    def received(self) -> list[Frame]:
        data = self.conn.data_to_send()
        got: list[Frame] = []
        while data:
            size, channel, value = frame.unmarshal(data)
            got.append((channel, value))
            data = data[size:]
        return got

    def call(self, channel: int, *values: frame.FrameTypes) -> Any:
        """Send a method. Returns the only method that comes back."""
        [(answered, value)] = self.send(channel, *values)
        assert answered == channel
        return value

    def open(self, *, heartbeats: int = 0, frame_max: int = 131072, capabilities: dict[str, Any] | None = None) -> Peer:
        assert isinstance(self.call(0, header.ProtocolHeader()), commands.Connection.Start)
        assert isinstance(self.call(0, start_ok(capabilities=capabilities)), commands.Connection.Tune)
        assert self.send(0, commands.Connection.TuneOk(2047, frame_max, heartbeats)) == []
        assert isinstance(self.call(0, commands.Connection.Open("/")), commands.Connection.OpenOk)
        return self

    def channel(self, number: int = 1) -> Peer:
        assert isinstance(self.call(number, commands.Channel.Open()), commands.Channel.OpenOk)
        return self

    def queue(self, name: str, number: int = 1) -> Peer:
        assert isinstance(self.call(number, commands.Queue.Declare(queue=name)), commands.Queue.DeclareOk)
        return self


def publish(data: bytes, key: str = "q", size: int | None = None) -> list[frame.FrameTypes]:
    properties = commands.Basic.Properties(message_id="m")
    return [
        commands.Basic.Publish(routing_key=key),
        header.ContentHeader(0, len(data) if size is None else size, properties),
        *([body.ContentBody(data)] if data else []),
    ]


def closed_with(got: Iterable[Frame], code: int, text: str = "") -> None:
    [(channel, close)] = got
    assert channel == 0
    assert isinstance(close, commands.Connection.Close)
    assert (close.reply_code, text in close.reply_text) == (code, True), close.reply_text


# --- handshake ---


def test_handshake() -> None:
    peer = Peer()
    start = peer.call(0, header.ProtocolHeader())
    assert (start.version_major, start.version_minor, start.locales) == (0, 9, "en_US")
    assert "PLAIN" in start.mechanisms.split()
    for name in CAPABILITIES:
        assert start.server_properties["capabilities"][name] is True
    tune = peer.call(0, start_ok())
    assert (tune.channel_max, tune.frame_max, tune.heartbeat) == (2047, 131072, 60)
    assert peer.send(0, commands.Connection.TuneOk(2047, 131072, 0)) == []
    assert isinstance(peer.call(0, commands.Connection.Open("/")), commands.Connection.OpenOk)
    assert (peer.conn.user, peer.conn.vhost, peer.conn.should_close) == ("guest", "/", False)
    assert isinstance(peer.call(0, commands.Connection.Close(200, "bye", 0, 0)), commands.Connection.CloseOk)
    assert peer.conn.should_close


@pytest.mark.parametrize("data", [b"AMQP\x01\x01\x00\x09", b"GET / HTTP/1.1\r\n\r\n", b"AMQP\x00\x01\x00\x00"])
def test_another_protocol_is_answered_with_ours(data: bytes) -> None:
    server = new_server()
    conn = server.accept(now=0)
    server.receive(conn, data, now=0)
    assert list(server.dirty()) == [conn]
    assert conn.data_to_send() == PROTOCOL_HEADER
    assert conn.should_close


def test_a_bad_password_is_told_only_to_clients_that_announced_it() -> None:
    peer = Peer()
    peer.send(0, header.ProtocolHeader())
    closed_with(peer.send(0, start_ok(password="wrong")), 403, "ACCESS_REFUSED")
    assert not peer.conn.should_close
    assert (peer.send(0, commands.Connection.CloseOk()), peer.conn.should_close) == ([], True)

    quiet = Peer()
    quiet.send(0, header.ProtocolHeader())
    assert (quiet.send(0, start_ok(password="wrong", capabilities={})), quiet.conn.should_close) == ([], True)


@pytest.mark.parametrize("response", ["", "guest", "\0guest", "\0guest\0guest\0more", "\0nobody\0", "\0\0"])
def test_bad_log_ins(response: str) -> None:
    peer = Peer()
    peer.send(0, header.ProtocolHeader())
    announced: Any = {"capabilities": CAPABILITIES}
    closed_with(peer.send(0, commands.Connection.StartOk(announced, "PLAIN", response)), 403)


def test_amqplain() -> None:
    def entry(name: bytes, value: bytes) -> bytes:
        return bytes((len(name),)) + name + b"S" + struct.pack(">I", len(value)) + value

    response = entry(b"LOGIN", b"guest") + entry(b"PASSWORD", b"guest")
    peer = Peer()
    peer.send(0, header.ProtocolHeader())
    answer = peer.call(0, commands.Connection.StartOk({}, "AMQPLAIN", response.decode()))
    assert isinstance(answer, commands.Connection.Tune)


def test_an_unknown_mechanism() -> None:
    peer = Peer()
    peer.send(0, header.ProtocolHeader())
    closed_with(peer.send(0, commands.Connection.StartOk({}, "EXTERNAL", "")), 503, "EXTERNAL")


def test_an_unknown_vhost() -> None:
    peer = Peer()
    peer.send(0, header.ProtocolHeader())
    peer.send(0, start_ok())
    peer.send(0, commands.Connection.TuneOk(2047, 131072, 0))
    closed_with(peer.send(0, commands.Connection.Open("other")), 530, "NOT_ALLOWED - vhost other not found")


@pytest.mark.parametrize(
    ("channel_max", "frame_max", "code"),
    [(2047, 4095, 501), (2047, 131073, 530), (2047, 0, 530), (0, 131072, 530), (2048, 131072, 530)],
)
def test_refused_negotiation(channel_max: int, frame_max: int, code: int) -> None:
    peer = Peer()
    peer.send(0, header.ProtocolHeader())
    peer.send(0, start_ok())
    closed_with(peer.send(0, commands.Connection.TuneOk(channel_max, frame_max, 0)), code)


def test_methods_out_of_order() -> None:
    peer = Peer()
    peer.send(0, header.ProtocolHeader())
    closed_with(peer.send(0, commands.Connection.Open("/")), 504, "unexpected method in connection state starting")
    closed_with(Peer().feed(PROTOCOL_HEADER + frame.marshal(commands.Channel.Open(), 1))[1:], 505)


def test_a_handshake_must_end_in_time() -> None:
    server = new_server()
    peer = Peer(server, now=100.0)
    peer.send(0, header.ProtocolHeader())
    assert server.deadline() == 100.0 + HANDSHAKE_TIMEOUT
    list(server.dirty())
    server.tick(now=100.0 + HANDSHAKE_TIMEOUT - 0.01)
    assert not list(server.dirty())
    server.tick(now=100.0 + HANDSHAKE_TIMEOUT)
    assert list(server.dirty()) == [peer.conn]
    assert (peer.conn.should_close, server.deadline()) == (True, None)


# --- frames ---


def test_errors_of_framing_close_the_connection() -> None:
    too_long = struct.pack(">BHI", 3, 1, 131072 + 1)
    for data in (raw(7, 0, b""), raw(1, 1, b"\0\x14\0\x0a\0", b"\xcd"), too_long, raw(8, 0, b"x")):
        peer = Peer().open()
        closed_with(peer.feed(data), 501, "FRAME_ERROR")
        # From here on frames cannot be told apart; only the answer counts, wherever it starts.
        assert peer.feed(b"\x01garbage" * 100000) == []
        assert not peer.conn.should_close
        peer.feed(frame.marshal(commands.Connection.CloseOk(), 0))
        assert peer.conn.should_close


def test_the_largest_frame_is_accepted() -> None:
    peer = Peer().open(frame_max=4096).channel().queue("q")
    assert peer.send(1, *publish(b"x" * 4088)) == []
    # RabbitMQ lets a frame be as much too long as an empty frame is: found by tests/differential.
    assert peer.send(1, *publish(b"", size=4096), body.ContentBody(b"x" * 4096)) == []
    closed_with(peer.send(1, *publish(b"", size=5000), body.ContentBody(b"x" * 4097)), 501, "4097")


def test_poison_ends_one_connection_and_not_the_server() -> None:
    """Time stamps may be anything. RabbitMQ cannot read a NaN."""
    server = new_server()
    other = Peer(server).open().channel()
    peer = Peer(server).open().channel()
    peer.send(1, commands.Basic.Publish())
    assert peer.feed(raw(2, 1, struct.pack(">HHQHQ", 60, 0, 0, 0x40, 2**63 - 1))) == []
    peer.send(1, commands.Basic.Publish())
    nan = b"\x01nd\x7f\xf8" + bytes(6)
    closed_with(peer.feed(raw(2, 1, struct.pack(">HHQHI", 60, 0, 0, 0x2000, len(nan)) + nan)), 541)
    assert isinstance(other.call(1, commands.Queue.Declare(queue="q")), commands.Queue.DeclareOk)


# --- content ---


def test_content_of_two_channels_interleaved() -> None:
    peer = Peer().open().channel(1).channel(2).queue("q")
    first, second = publish(b"1" * 10, size=20), publish(b"2" * 5, size=10)
    for one, two in zip([*first, first[-1]], [*second, second[-1]], strict=True):
        assert peer.send(1, one) == []
        assert peer.send(2, two) == []
    bodies = []
    for _ in range(2):
        (_, got), (_, head), (_, data) = peer.send(1, commands.Basic.Get(queue="q", no_ack=True))
        assert isinstance(got, commands.Basic.GetOk)
        assert isinstance(head, header.ContentHeader)
        assert isinstance(data, body.ContentBody)
        assert head.properties.message_id == "m"
        bodies.append(data.value)
    assert bodies == [b"1" * 20, b"2" * 10]


def test_an_empty_body_has_no_body_frame_and_empty_body_frames_are_ignored() -> None:
    peer = Peer().open().channel().queue("q")
    assert peer.send(1, *publish(b"")) == []
    assert peer.send(1, *publish(b"", size=2)) == []
    assert peer.feed(raw(3, 1, b"") + raw(3, 1, b"ab") + raw(8, 0, b"")) == []
    assert len(peer.send(1, commands.Basic.Get(queue="q", no_ack=True))) == 2
    assert len(peer.send(1, commands.Basic.Get(queue="q", no_ack=True))) == 3


def test_properties_pass_byte_for_byte() -> None:
    odd = b"\x05bytesS\0\0\0\x02\xff\xfe" + b"\x01dd" + struct.pack(">d", 0.1) + b"\x01iI\0\0\0\x01" + b"\x01nV"
    written = struct.pack(">HI", 0x2000, len(odd)) + odd
    peer = Peer().open().channel().queue("q")
    peer.send(1, commands.Basic.Publish(routing_key="q"))
    peer.feed(raw(2, 1, struct.pack(">HHQ", 60, 0, 0) + written))
    peer.server.receive(peer.conn, frame.marshal(commands.Basic.Get(queue="q", no_ack=True), 1), now=0)
    assert written in peer.conn.data_to_send()


def test_a_large_body_is_split_for_a_consumer_with_smaller_frames() -> None:
    server = new_server()
    peer = Peer(server).open().channel().queue("q")
    consumer = Peer(server).open(frame_max=4096).channel()
    assert isinstance(consumer.call(1, commands.Basic.Consume(queue="q", no_ack=True)), commands.Basic.ConsumeOk)
    list(server.dirty())
    peer.send(1, *publish(b"x" * 100_000))
    assert consumer.conn in list(server.dirty())
    data = b"".join(value.value for _, value in consumer.received() if isinstance(value, body.ContentBody))
    assert data == b"x" * 100_000


# --- channels, closing ---


def test_a_channel_error_leaves_the_connection_and_the_number_usable() -> None:
    peer = Peer().open().channel()
    close = peer.call(1, commands.Queue.Declare(queue="missing", passive=True))
    assert isinstance(close, commands.Channel.Close)
    assert close.reply_code == 404
    # What the client sent before it knew is discarded, content too.
    assert peer.send(1, commands.Basic.Get(queue="missing"), *publish(b"lost")) == []
    assert isinstance(peer.call(1, commands.Channel.Close(200, "", 0, 0)), commands.Channel.CloseOk)
    assert peer.send(1, commands.Channel.CloseOk()) == []
    peer.channel().queue("q")
    assert isinstance(peer.call(1, commands.Channel.Close(200, "", 0, 0)), commands.Channel.CloseOk)
    closed_with(peer.send(1, commands.Basic.Get(queue="q")), 504)


def test_after_connection_close_only_the_answer_counts() -> None:
    peer = Peer().open().channel()
    closed_with(peer.send(1, commands.Channel.Open()), 504)
    assert peer.send(1, *publish(b"x"), commands.Channel.Open()) == []
    assert isinstance(peer.call(0, commands.Connection.Close(200, "", 0, 0)), commands.Connection.CloseOk)
    assert not peer.conn.should_close
    assert peer.send(0, commands.Connection.CloseOk()) == []
    assert peer.conn.should_close
    assert peer.send(0, heartbeat.Heartbeat()) == []


def test_a_client_that_never_answers_a_close_is_dropped() -> None:
    peer = Peer().open(heartbeats=3)
    peer.now = 1.0
    peer.send(0, commands.Channel.Open())
    peer.server.tick(now=1.0 + CLOSING_TIMEOUT - 0.1)
    assert not peer.conn.should_close
    peer.server.tick(now=1.0 + CLOSING_TIMEOUT)
    assert peer.conn.should_close


def test_a_lost_client_frees_what_it_held() -> None:
    server = new_server()
    peer = Peer(server).open().channel()
    assert isinstance(peer.call(1, commands.Queue.Declare(queue="mine", exclusive=True)), commands.Queue.DeclareOk)
    other = Peer(server).open().channel()
    refused = other.call(1, commands.Queue.Declare(queue="mine", passive=True))
    assert refused.reply_code == 405
    server.lost(peer.conn, now=0)
    server.lost(peer.conn, now=0)
    again = other.channel(2).call(2, commands.Queue.Declare(queue="mine", passive=True))
    assert again.reply_code == 404


def test_shutdown() -> None:
    server = new_server()
    peer, silent = Peer(server).open(), Peer(server)
    server.shutdown(now=0)
    closed_with(peer.received(), 320, "CONNECTION_FORCED - broker shutdown")
    assert (silent.received(), silent.conn.should_close) == ([], True)


@pytest.mark.parametrize("announced", [True, False])
def test_notifications_go_only_to_clients_that_announced_them(announced: bool) -> None:
    peer = Peer().open(capabilities=CAPABILITIES if announced else {})
    number = ConnectionId(1)
    notes: list[base.Frame] = [commands.Connection.Blocked("low on memory"), commands.Connection.Unblocked()]
    peer.server.route([Outgoing(number, 0, note) for note in notes], now=0)
    peer.server.route([Outgoing(number, 1, commands.Basic.Cancel("tag"))], now=0)
    assert len(peer.received()) == (3 if announced else 0)


def test_a_blocked_connection_is_not_read_before_the_alarm_clears() -> None:
    peer = Peer().open(heartbeats=10).channel().queue("q")
    server = peer.server
    server.route(server.broker.set_alarm(True, now=0), now=0)
    assert peer.received() == []
    assert isinstance(peer.send(1, *publish(b"x"))[0][1], commands.Connection.Blocked)
    assert peer.send(0, commands.Connection.Close(200, "", 0, 0)) == []
    server.tick(now=100)
    assert [type(value) for _, value in peer.received()] == [heartbeat.Heartbeat]
    server.route(server.broker.set_alarm(False, now=100), now=100)
    answers = [type(value) for _, value in peer.received()]
    assert answers == [commands.Connection.Unblocked, commands.Connection.CloseOk]
    assert [message.body for message in server.broker.messages("q")] == [b"x"]


# --- heartbeats ---


def test_heartbeats() -> None:
    peer = Peer().open(heartbeats=10)
    server = peer.server
    assert server.deadline() == 5.0
    server.tick(now=4.9)
    assert peer.received() == []
    server.tick(now=5.0)
    assert [type(value) for _, value in peer.received()] == [heartbeat.Heartbeat]
    peer.now = 9.0
    assert peer.send(0, heartbeat.Heartbeat()) == []
    server.tick(now=28.9)
    assert not peer.conn.should_close
    server.tick(now=29.0)
    assert peer.conn.should_close


def test_a_heartbeat_costs_nothing_for_other_connections() -> None:
    costs = []
    for others in (1, 300):
        server = new_server()
        peer = Peer(server).open(heartbeats=10)
        crowd = [Peer(server).open(heartbeats=100) for _ in range(others)]
        costs.append(calls(lambda: server.tick(now=6.0)))  # noqa: B023 - called at once
        assert [type(value) for _, value in peer.received()] == [heartbeat.Heartbeat]
        assert crowd[0].received() == []
    assert costs[0] == costs[1]


def test_no_heartbeats_when_the_client_wants_none() -> None:
    peer = Peer(new_server(heartbeat=1)).open(heartbeats=0)
    peer.server.tick(now=1e6)
    assert (peer.received(), peer.conn.should_close) == ([], False)


# --- any bytes ---

chunks = st.one_of(
    st.binary(max_size=40),
    st.builds(raw, st.sampled_from([1, 1, 1, 2, 3, 8]), st.integers(0, 2), st.binary(max_size=30)),
    st.builds(
        lambda method, channel: frame.marshal(method, channel),
        st.sampled_from(
            [
                commands.Channel.Open(),
                commands.Queue.Declare(queue="q"),
                commands.Queue.Declare(),
                commands.Basic.Publish(routing_key="q"),
                commands.Basic.Get(queue="q"),
                commands.Basic.Ack(1),
                commands.Confirm.Select(),
                header.ContentHeader(0, 3),
                body.ContentBody(b"abc"),
                commands.Channel.CloseOk(),
                commands.Connection.CloseOk(),
                commands.Connection.Close(200, "", 0, 0),
            ]
        ),
        st.integers(0, 2),
    ),
)


def conversation(*, opened: bool) -> bytes:
    if not opened:
        return PROTOCOL_HEADER
    values = start_ok(), commands.Connection.TuneOk(2047, 131072, 60), commands.Connection.Open("/")
    handshake = b"".join(frame.marshal(value, 0) for value in values)
    return PROTOCOL_HEADER + handshake + frame.marshal(commands.Channel.Open(), 1)


def answer(data: bytes, sizes: Iterable[int]) -> tuple[bytes, bool]:
    server = new_server()
    conn = server.accept(now=0)
    at = 0
    sent = b""
    for size in sizes:
        server.receive(conn, data[at : at + size], now=0)
        sent += conn.data_to_send()
        at += size
    server.receive(conn, data[at:], now=0)
    return sent + conn.data_to_send(), conn.should_close


@settings(deadline=None)
@given(
    st.sampled_from([b"", conversation(opened=False), conversation(opened=True)]),
    st.lists(chunks, max_size=8),
    st.data(),
)
def test_any_bytes_in_any_pieces(start: bytes, more: list[bytes], draw: st.DataObject) -> None:
    data = start + b"".join(more)
    whole = answer(data, [])
    assert answer(data, itertools.repeat(1, len(data))) == whole
    assert answer(data, draw.draw(st.lists(st.integers(1, 100), max_size=10))) == whole


# What a client can do wrong on an open connection. The codes and texts are those of RabbitMQ, if it sends any:
# tests/differential/test_faults.py compares them.
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
    ],
)
def test_errors_of_content(values: list[frame.FrameTypes], code: int, text: str) -> None:
    closed_with(Peer().open().channel().send(1, *values), code, text)


@pytest.mark.parametrize(("version", "limit"), [("3.10", 128 * 1024 * 1024), ("4.3", 16 * 1024 * 1024)])
def test_a_body_over_the_limit_closes_its_channel(version: str, limit: int) -> None:
    """The connection goes on. What is too large for the memory is counted, and not kept."""
    peer = Peer(Server(Broker(version=version))).open().channel()
    method, head = publish(b"", size=MAX_BODY + 1)
    assert peer.send(1, method, head) == []
    piece = raw(3, 1, bytes(1 << 17))
    for _ in range(MAX_BODY >> 17):
        assert peer.feed(piece) == []
    [(channel, close)] = peer.send(1, body.ContentBody(b"x"))
    assert channel == 1
    assert isinstance(close, commands.Channel.Close)
    assert (close.reply_code, close.class_id, close.method_id) == (406, 60, 40)
    assert close.reply_text == (
        f"PRECONDITION_FAILED - message size {MAX_BODY + 1} is larger than configured max size {limit}"
    )
    peer.send(1, commands.Channel.CloseOk())
    assert isinstance(peer.channel(2).call(2, commands.Queue.Declare(queue="q")), commands.Queue.DeclareOk)


def test_the_number_of_channels_is_bounded_and_not_their_numbers() -> None:
    peer = Peer(Server(Broker(), channel_max=2))
    peer.send(0, header.ProtocolHeader())
    peer.send(0, start_ok())
    peer.send(0, commands.Connection.TuneOk(2, 131072, 0))
    peer.send(0, commands.Connection.Open("/"))
    peer.channel(7).channel(9)
    text = "number of channels opened (2) has reached the negotiated channel_max (2)"
    closed_with(peer.send(1, commands.Channel.Open()), 530, text)


def test_a_new_secret_is_taken() -> None:
    """Clients that renew their tokens send it. A refusal would end their connections."""
    secret = commands.Connection.UpdateSecret("guest", "the old one expires")
    assert isinstance(Peer().open().call(0, secret), commands.Connection.UpdateSecretOk)


class Slow(Broker):
    """A broker that takes a second for each method of a client."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds = 0

    def receive(self, *arguments: Any, **named: Any) -> list[Outgoing]:
        self.seconds += 1
        return super().receive(*arguments, **named)


def timed_server(turn: int) -> Server:
    """A server whose turns all together take so many seconds, one for each method."""
    broker = Slow()
    return Server(broker, turn=turn, clock=lambda: broker.seconds)


def declares(count: int) -> list[frame.FrameTypes]:
    return [commands.Queue.Declare(queue=f"q{number}") for number in range(count)]


def turns(server: Server, *peers: Peer) -> list[list[int]]:
    """Let the clients take turns until all is taken. Returns how many answers each gets in each."""
    answered = []
    while server.busy:
        server.proceed(now=0.0)
        list(server.dirty())
        answered.append([len(peer.received()) for peer in peers])
    return answered


def opened(server: Server, count: int) -> list[Peer]:
    """Clients that are open, when there is nothing left to do for the server."""
    peers = []
    for _ in range(count):
        peer = Peer(server)
        for data in (header.ProtocolHeader(), start_ok(), commands.Connection.TuneOk(2047, 131072, 0)):
            peer.send(0, data)
            turns(server, peer)
        peer.send(0, commands.Connection.Open("/"))
        turns(server, peer)
        peer.send(1, commands.Channel.Open())
        turns(server, peer)
        peers.append(peer)
    return peers


def test_clients_take_turns() -> None:
    server = timed_server(10)
    (alone,) = opened(server, 1)
    first = len(alone.send(1, *declares(30)))
    rounds = [first, *(answers for (answers,) in turns(server, alone))]
    assert sum(rounds) == 30
    assert rounds == [10, 10, 10, 0]


def test_who_comes_late_does_not_wait_for_what_others_have_sent() -> None:
    """It is taken at once, but not more of it than a publish."""
    server = timed_server(10)
    greedy, late = opened(server, 2)
    greedy.send(1, *declares(100))
    assert len(late.send(1, *declares(5))) == 3
    assert late.conn.behind
    assert turns(server, late)[0] == [2]
    assert not late.conn.behind


def test_clients_share_the_time() -> None:
    """A turn is three frames at least, and those that wait longest come first."""
    server = timed_server(12)
    peers = opened(server, 40)
    answered = [[len(peer.send(1, *declares(12))) for peer in peers]]
    answered += turns(server, *peers)
    assert list(map(sum, zip(*answered, strict=True))) == [12] * 40
    assert max(sum(answers) for answers in answered[1:]) == 12
    waits = [[number for number, answers in enumerate(answered) if answers[peer]] for peer in range(40)]
    assert max(later - sooner for wait in waits for sooner, later in itertools.pairwise(wait)) <= 11


def test_what_is_left_of_a_client_that_is_gone_is_dropped() -> None:
    server = timed_server(5)
    (greedy,) = opened(server, 1)
    greedy.send(1, *declares(30))
    done = server.broker.queue_names()
    assert 0 < len(done) < 10
    server.lost(greedy.conn, now=0.0)
    assert turns(server) == [[]]
    assert server.broker.queue_names() == done


def test_nothing_is_taken_from_a_client_that_does_not_read_the_answers() -> None:
    server = Server(Broker(), room=1000)
    peer = Peer(server).open().channel().queue("q")
    peer.send(1, *publish(bytes(600)))
    get = [commands.Basic.Get(queue="q"), commands.Basic.Nack(0, True, True)]
    data = b"".join(frame.marshal(value, 1) for value in get * 10)
    server.receive(peer.conn, data, now=0.0)  # and nobody writes what is answered
    assert peer.conn.unwritten < 2000
    assert peer.conn.behind
    server.proceed(now=0.0)
    assert peer.conn.unwritten < 2000
    answered = []
    server.choked(peer.conn)
    answered.append(len(peer.received()))
    server.proceed(now=0.0)
    assert peer.received() == []
    while peer.conn.behind:
        server.written(peer.conn, now=0.0)
        server.proceed(now=0.0)
        answered.append(len(peer.received()))
    assert (sum(answered), max(answered)) == (30, 6)


def test_a_large_body_is_written_piece_by_piece() -> None:
    peer = Peer().open().channel().queue("q")
    data = bytes(range(256)) * 2000
    peer.send(1, *publish(data[:130_000], size=len(data)))
    for start in range(130_000, len(data), 130_000):
        peer.send(1, body.ContentBody(data[start : start + 130_000]))
    peer.server.receive(peer.conn, frame.marshal(commands.Basic.Get(queue="q"), 1), now=0.0)
    peer.server.receive(peer.conn, frame.marshal(commands.Basic.Qos(), 1), now=0.0)
    pieces = []
    while peer.conn.unwritten:
        pieces.append(peer.conn.data_to_send(1000))
    assert len(pieces) >= 4
    assert max(map(len, pieces)) <= 131_072 + 1000
    received, rest = [], b"".join(pieces)
    while rest:
        size, _, value = frame.unmarshal(rest)
        rest = rest[size:]
        received.append(value)
    assert [type(value).__name__ for value in received[:2]] == ["GetOk", "ContentHeader"]
    assert b"".join(value.value for value in received if isinstance(value, body.ContentBody)) == data
    assert isinstance(received[-1], commands.Basic.QosOk)
    assert peer.conn.data_to_send() == b""


def test_consumers_get_more_when_the_client_has_read() -> None:
    server = Server(Broker(), room=1000)
    peer = Peer(server).open().channel().queue("q")
    for _ in range(5):
        peer.send(1, *publish(bytes(300)))
    delivered = [peer.send(1, commands.Basic.Consume(queue="q", consumer_tag="c"))]
    for _ in range(2):
        server.written(peer.conn, now=0.0)
        server.proceed(now=0.0)
        delivered.append(peer.received())
    counts = [len([value for _, value in got if isinstance(value, commands.Basic.Deliver)]) for got in delivered]
    assert counts == [1, 3, 1]
    server.lost(peer.conn, now=0.0)
    server.written(peer.conn, now=0.0)  # whoever writes may hear of it later
