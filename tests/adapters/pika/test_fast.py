"""Messages past pika: what the core reads and writes, what is left to pika, and what happens if pika does not fit."""

from __future__ import annotations

import inspect
import socket
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pika.channel
import pytest
from pamqp.commands import Basic, Connection
from pika.adapters.select_connection import IOLoop
from pika.adapters.utils import io_services_utils
from pika.adapters.utils.nbio_interface import AbstractStreamProtocol
from pika.exceptions import ChannelWrongStateError

import eda_pika.service
from eda_core import Ack, Connect, Epoch, Publish
from eda_core.amqp.writing import HEARTBEAT_FRAME, write_ack, write_message, write_method
from eda_core.drivers import Link
from eda_core.machine.identifiers import PublishId
from eda_pika.fast import MISFIT, Direct
from eda_tools.broker import EmbeddedBroker
from tests.adapters.pika.support import Listener, Relay, publish, running
from tests.core.amqp.pair import PROPERTIES, message
from tests.core.drivers.test_link import Inputs
from tests.support.services import asynchronous, peer

EPOCH, CHANNEL, FRAME_MAX = Epoch(7), 3, 4096
ACK, BLOCKED = write_method(CHANNEL, Basic.Ack(5)), write_method(0, Connection.Blocked("memory"))


class Pika(AbstractStreamProtocol):  # type: ignore[misc]  # pika publishes no types
    """What pika does with a stream: it notes what it gets, and counts it."""

    def __init__(self, connection: Any) -> None:
        self.connection, self.got = connection, b""
        self.transport: Any = None
        self.lost: list[BaseException | None] = []

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def connection_lost(self, error: BaseException | None) -> None:
        self.lost.append(error)

    def eof_received(self) -> None:
        pass

    def data_received(self, data: bytes) -> None:
        self.got += data
        self.connection.bytes_received += len(data)


class Stream:
    """A stream in pika's loop, of which the test makes each turn, and the other end of its socket."""

    def __init__(self) -> None:
        self.loop = IOLoop()
        self.loop.activate_poller()
        self.inputs = Inputs()
        self.network: Any = Direct(self.loop, Link(Connect(EPOCH, "amqp://one/", "svc", 20), self.inputs))
        params = SimpleNamespace(frame_max=FRAME_MAX)
        self.connection = SimpleNamespace(bytes_received=0, bytes_sent=0, params=params)
        self.network.connection = self.connection
        self.pika = Pika(self.connection)
        ours, self.peer = socket.socketpair()
        ours.setblocking(False)
        self.peer.settimeout(10)
        self.network.create_streaming_connection(lambda: self.pika, ours, lambda done: None)
        while self.pika.transport is None:
            self.turn()

    def turn(self) -> None:
        self.loop.poll()
        self.loop.process_timeouts()

    def close(self) -> None:
        self.peer.close()
        if not self.pika.lost:
            self.pika.transport.abort()
        while not self.pika.lost:
            self.turn()
        self.loop.deactivate_poller()
        self.loop.close()


@pytest.fixture
def stream() -> Iterator[Stream]:
    made = Stream()
    yield made
    made.close()


def channel(stream: Stream, *, is_open: bool = True) -> Any:
    return SimpleNamespace(channel_number=CHANNEL, is_open=is_open, connection=stream.connection)


# --- reading ---


def test_the_core_gets_what_comes_on_its_channels_and_pika_the_rest(stream: Stream) -> None:
    stream.network.opened(channel(stream))
    other = write_method(CHANNEL + 1, Basic.Ack(6))
    stream.peer.sendall(message(CHANNEL, b"1", 8) + BLOCKED + ACK + HEARTBEAT_FRAME + other)
    stream.turn()
    assert [told[:3] for told in stream.inputs.told] == [("delivered", EPOCH, 8), ("confirmed", EPOCH, 5)]
    assert stream.pika.got == BLOCKED + HEARTBEAT_FRAME + other
    stream.network.closed(channel(stream))
    stream.peer.sendall(ACK)
    stream.turn()
    assert stream.pika.got.endswith(ACK)
    assert len(stream.inputs.told) == 2


def test_each_byte_is_counted_once_however_they_come(stream: Stream) -> None:
    """pika takes a broker for dead from which no bytes have come, and a link looks whether a message is on its way."""
    stream.network.opened(channel(stream))
    data = message(CHANNEL, b"1", 8) + BLOCKED + ACK + HEARTBEAT_FRAME
    for at in range(len(data)):
        stream.peer.sendall(data[at : at + 1])
        stream.turn()
        assert stream.connection.bytes_received == at + 1
    assert len(stream.inputs.told) == 2


def test_one_turn_reads_much_and_once(stream: Stream) -> None:
    stream.network.opened(channel(stream))
    stream.peer.sendall(message(CHANNEL, b"x" * 1000) * 30)
    stream.turn()
    assert len(stream.inputs.told) == 30


def test_a_broker_that_breaks_the_protocol_costs_the_link(stream: Stream) -> None:
    stream.network.opened(channel(stream))
    stream.peer.sendall(message(CHANNEL, b"1")[:-9] + ACK)
    stream.peer.sendall(write_method(CHANNEL, Basic.Deliver("t", 1, False, "", "q")) * 2)
    while not stream.pika.lost:
        stream.turn()
    (error,) = stream.pika.lost
    assert isinstance(error, ValueError)
    assert "the broker breaks the protocol: " in str(error)


# --- writing ---


def a_publish(body: bytes) -> Publish:
    return Publish(PublishId(1), "events", "Told", PROPERTIES, body, epoch=EPOCH, tag=1)


def test_what_is_sent_in_one_turn_of_the_loop_is_one_write(stream: Stream) -> None:
    sent: list[bytes] = []
    plain = stream.network._plain

    def send(data: bytes) -> int:
        sent.append(data)
        return int(plain.send(data))

    stream.network._plain = SimpleNamespace(send=send)
    body = b"x" * (FRAME_MAX + 1)
    stream.network.publish(channel(stream), a_publish(body), True)
    stream.pika.transport.write(HEARTBEAT_FRAME)
    stream.network.ack(channel(stream), Ack(EPOCH, 9, True))
    limits: Any = {"mandatory": True, "frame_max": FRAME_MAX}
    published = write_message(CHANNEL, "events", "Told", PROPERTIES, body, **limits)
    wanted = published + HEARTBEAT_FRAME + write_ack(CHANNEL, 9, True)
    assert (sent, stream.pika.transport.get_write_buffer_size()) == ([], len(wanted))
    stream.turn()
    assert (sent, stream.pika.transport.get_write_buffer_size()) == ([wanted], 0)
    assert stream.peer.recv(99_999) == wanted
    assert stream.connection.bytes_sent == len(wanted) - len(HEARTBEAT_FRAME), "pika counts what it writes itself"


def test_what_the_socket_does_not_take_waits_and_stays_in_order(stream: Stream) -> None:
    body = b"x" * 3_000_000
    stream.network.publish(channel(stream), a_publish(body))
    stream.turn()
    waits = stream.pika.transport.get_write_buffer_size()
    assert 0 < waits < len(body)
    stream.network.ack(channel(stream), Ack(EPOCH, 9, False))
    assert stream.pika.transport.get_write_buffer_size() == waits + len(write_ack(CHANNEL, 9))
    wanted = write_message(CHANNEL, "events", "Told", PROPERTIES, body, frame_max=FRAME_MAX) + write_ack(CHANNEL, 9)
    got = b""
    while len(got) < len(wanted):
        stream.turn()
        got += stream.peer.recv(1_000_000)
    assert got == wanted
    assert stream.pika.transport.get_write_buffer_size() == 0


def test_pika_hears_of_a_socket_that_is_broken(stream: Stream) -> None:
    stream.peer.close()
    stream.network.ack(channel(stream), Ack(EPOCH, 9, False))
    while not stream.pika.lost:
        stream.turn()
    stream.network.ack(channel(stream), Ack(EPOCH, 10, False))  # nobody is there any more, and nothing is raised
    stream.turn()


def test_nothing_is_sent_once_the_connection_is_dropped(stream: Stream) -> None:
    stream.network.ack(channel(stream), Ack(EPOCH, 9, False))
    stream.pika.transport.abort()
    while not stream.pika.lost:
        stream.turn()
    assert stream.peer.recv(99) == b""


@pytest.mark.parametrize("ask", ["ack", "publish"])
def test_on_a_channel_that_is_closed_pika_says_what_is_wrong(stream: Stream, ask: str) -> None:
    loop = IOLoop()
    unconnected = pika.SelectConnection(custom_ioloop=loop, internal_connection_workflow=False)
    loop.close()
    closed = pika.channel.Channel(unconnected, CHANNEL, lambda _: None)
    effect = Ack(EPOCH, 9, False) if ask == "ack" else a_publish(b"1")
    with pytest.raises(ChannelWrongStateError):
        getattr(stream.network, ask)(closed, effect)
    assert stream.pika.transport.get_write_buffer_size() == 0


def test_properties_that_fit_into_no_frame_are_refused(stream: Stream) -> None:
    """A broker would close the connection."""
    huge = Basic.Properties(headers={"h": "x" * FRAME_MAX})
    effect = Publish(PublishId(1), "events", "Told", huge, b"", epoch=EPOCH, tag=1)
    with pytest.raises(ValueError, match="do not fit into a frame"):
        stream.network.publish(channel(stream), effect)


# --- whole services ---


@pytest.mark.usefixtures("either_way")
@asynchronous
async def test_bodies_of_many_frames_go_in_and_out() -> None:
    bodies = [b"x" * size for size in (0, 1, 131_063, 131_064, 131_065, 1_000_000)]
    async with EmbeddedBroker() as broker, peer(broker.url) as client:
        service = Relay(broker.url, ["Happened"])
        async with running(service):
            relayed = await client.tap("events", "Relayed")
            await publish(service, *bodies)
            await relayed.count(len(bodies))
        assert sorted(service.seen.all, key=len) == bodies
        assert service.ready.all == [1]


@pytest.mark.usefixtures("either_way")
@asynchronous
async def test_pika_handles_messages_only_if_it_is_asked_to(monkeypatch: pytest.MonkeyPatch) -> None:
    used: set[str] = set()

    def noted(name: str) -> Any:
        as_it_is = getattr(pika.channel.Channel, name)

        def note(*arguments: Any) -> Any:
            used.add(name)
            return as_it_is(*arguments)

        return note

    for name in ("basic_publish", "basic_ack", "_handle_content_frame"):
        monkeypatch.setattr(pika.channel.Channel, name, noted(name))
    async with EmbeddedBroker() as broker:
        service = Listener(broker.url, ["Happened"])
        async with running(service):
            await publish(service, *range(20))
            await service.has_all(range(20))
    every = {"basic_publish", "basic_ack", "_handle_content_frame"}
    assert used == (every if eda_pika.Service.PIKA_ONLY else set())


# --- whether pika fits ---


def test_pika_fits() -> None:
    """Whoever sees this fail: services take much more time for each message now. Read fast.py, then pika's changes."""
    assert MISFIT == ""
    base = io_services_utils._AsyncTransportBase
    assert (base._MAX_RECV_BYTES, base._MAX_CONSUME_BYTES) == (4096, 102_400)
    for name in ("_MAX_RECV_BYTES", "_MAX_CONSUME_BYTES"):
        assert f"self.{name}" in inspect.getsource(base._consume)
    assert "bytes_received" in inspect.getsource(pika.heartbeat.HeartbeatChecker._has_received_data.fget)
    assert not inspect.isabstract(Direct)


@pytest.mark.parametrize("only", [False, True])
@asynchronous
async def test_with_a_pika_that_does_not_fit_a_warning_says_so_and_all_works(
    only: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(eda_pika.service, "MISFIT", "AbstractStreamTransport has no method write")
    monkeypatch.setattr(eda_pika.Service, "PIKA_ONLY", only)
    monkeypatch.setattr(Direct, "__init__", None)  # it is not used
    async with EmbeddedBroker() as broker:
        service = Listener(broker.url, ["Happened"])
        async with running(service):
            driver: Any = service.running_driver()
            for link in driver.links.values():
                link.lose("as asked")
            await service.ready.count(2)
            await publish(service, *range(20))
            await service.has_all(range(20))
    warnings = [record for record in caplog.records if record.__dict__.get("eda_event") == "library-unknown"]
    assert len(warnings) == (0 if only else 1), "once for each run, not for each link"
    for record in warnings:
        assert record.levelname == "WARNING"
        assert f"pika {pika.__version__}" in record.getMessage()
        assert "processor time" in record.getMessage()
