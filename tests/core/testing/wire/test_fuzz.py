"""Whatever bytes a client sends, the server stays as it is for others, and keeps none of them.

A witness, which is another client of the same server, does an everyday round after each attack. ``nox -s deep`` tries
many more streams.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import struct
import tracemalloc
import warnings
from collections.abc import Iterable, Iterator
from random import Random
from typing import Any

import aio_pika
import pika
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pamqp import base, commands, frame, header, heartbeat

from eda_core.testing.broker import Broker
from eda_core.testing.live import EmbeddedBrokerThread
from eda_core.testing.wire import PROTOCOL_HEADER, Server, frames
from tests.core.testing.wire.test_wire import Peer, publish, raw, start_ok

kombu: Any = importlib.import_module("kombu")  # has no types

MEGABYTE = 1 << 20
#: What a server may keep of a client that has not sent a whole frame: less than two of the largest frames.
KEPT = 2 * 131_072


class Scene:
    """A server with a witness, and clients that attack it one after the other."""

    def __init__(self) -> None:
        self.server = Server(Broker())
        self.witness = Peer(self.server).open().channel().queue("witness")
        self.witness.call(1, commands.Confirm.Select())
        self.rounds = 0

    def attack(self, pieces: Iterable[bytes], *, opened: bool = False) -> Peer:
        """Let a new client send these bytes. Returns the client, which is still connected."""
        attacker = Peer(self.server)
        if opened:
            attacker.open().channel().queue("attacked")
        for piece in pieces:
            self.server.receive(attacker.conn, piece, now=0.0)
            check_frames(attacker.conn.data_to_send())
        self.look()
        return attacker

    def end(self, attacker: Peer) -> None:
        """The client is gone. What it has declared is deleted, so that it does not get more and more."""
        self.server.lost(attacker.conn, now=0.0)
        delete = commands.Queue.Delete()
        for delete.queue in self.server.broker.queue_names():
            if delete.queue != "witness":
                self.witness.feed(frames.encode_method(1, delete))
        self.look()

    def look(self) -> None:
        """The round of the witness. Each answer is the expected one, and nothing else comes."""
        self.rounds += 1
        text = b"%d" % self.rounds
        confirmed = self.witness.call(1, *publish(text, key="witness"))
        assert (type(confirmed), confirmed.delivery_tag) == (commands.Basic.Ack, self.rounds)
        answers: list[Any] = [value for _, value in self.witness.send(1, commands.Basic.Get(queue="witness"))]
        got, head, content = answers
        assert (type(got), got.message_count, got.redelivered) == (commands.Basic.GetOk, 0, False)
        assert isinstance(head, header.ContentHeader)
        assert content.value == text
        assert self.witness.send(1, commands.Basic.Ack(got.delivery_tag)) == []


def check_frames(data: bytes) -> None:
    """Check that an answer is whole frames. What is in them may be what no client can read, if a client has sent it."""
    at = 0
    while at < len(data) and data != PROTOCOL_HEADER:
        kind, _, size = frames.HEADER.unpack_from(data, at)
        at += size + frames.FRAME_OVERHEAD
        assert kind in (1, 2, 3, 8)
        assert data[at - 1] == frames.FRAME_END


def everyday_pika(url: str) -> None:
    connection = pika.BlockingConnection(pika.URLParameters(url))
    channel = connection.channel()
    channel.confirm_delivery()
    channel.exchange_declare("orders", "topic", durable=True)
    channel.queue_declare("pika", durable=True, arguments={"x-max-length": 10, "x-dead-letter-exchange": "orders"})
    channel.queue_bind("pika", "orders", "order.#")
    headers = {"number": 1, "deep": {"list": [True, None, "é"]}}
    channel.basic_publish("orders", "order.new", b"pika" * 50, pika.BasicProperties(headers=headers, expiration="9999"))
    channel.basic_qos(prefetch_count=2)
    for method, _, _ in channel.consume("pika"):
        channel.basic_nack(method.delivery_tag, requeue=False)
        break
    channel.cancel()
    connection.close()


async def everyday_aio_pika(url: str) -> None:
    async with await aio_pika.connect(url) as connection:
        channel = await connection.channel()
        exchange = await channel.declare_exchange("parts", aio_pika.ExchangeType.HEADERS)
        queue = await channel.declare_queue("aio", durable=True, arguments={"x-queue-type": "quorum"})
        await queue.bind(exchange, arguments={"x-match": "any", "kind": "bolt"})
        await exchange.publish(aio_pika.Message(b"aio" * 50, headers={"kind": "bolt"}), "")
        async with queue.iterator() as messages:
            async for message in messages:
                await message.ack()
                break


def everyday_kombu(url: str) -> None:
    with kombu.Connection(url, transport_options={"confirm_publish": True}) as connection:
        with contextlib.closing(connection.SimpleQueue("kombu")) as queue:
            queue.put({"hello": "world"}, headers={"n": 1})
            queue.get(timeout=60).requeue()
            queue.get(timeout=60).ack()


@pytest.fixture(scope="module")
def streams() -> list[bytes]:
    """What pika, aio-pika and kombu send in an everyday session."""
    sent: dict[object, bytearray] = {}
    take = Server.receive

    def note(server: Server, conn: Any, data: bytes, *, now: float) -> None:
        sent.setdefault(conn, bytearray()).extend(data)
        take(server, conn, data, now=now)

    with pytest.MonkeyPatch.context() as patch, EmbeddedBrokerThread() as broker:
        patch.setattr(Server, "receive", note)
        everyday_pika(broker.url)
        asyncio.run(everyday_aio_pika(broker.url))
        everyday_kombu(broker.url)
    assert len(sent) == 3
    return [bytes(each) for each in sent.values()]


def mutated(stream: bytes, random: Random) -> Iterator[bytes]:
    """A stream with some faults, in pieces."""
    data = bytearray(stream)
    for _ in range(random.choice((1, 1, 2, 5, 20))):
        at = random.randrange(len(data) + 1)
        end = min(len(data), at + random.choice((1, 2, 4, 30, 300)))
        match random.randrange(7):
            case 0:
                data[at:end] = b""
            case 1:
                data[at:at] = data[at:end]
            case 2:
                data[at:at] = random.randbytes(end - at)
            case 3:
                data[at:end] = random.randbytes(end - at)
            case 4:
                data[at:end] = bytes([random.choice((0, 1, 0x7F, 0x80, 0xFF))]) * (end - at)
            case 5:
                data[at:at] = stream[(begin := random.randrange(len(stream))) : begin + end - at]
            case _:
                del data[at:]
    at = 0
    while at < len(data):
        size = random.choice((1, 7, 100, len(data)))
        yield bytes(data[at : at + size])
        at += size


def test_the_streams_that_are_mutated_are_whole(streams: list[bytes]) -> None:
    scene = Scene()
    for stream in streams:
        attacker = scene.attack([stream])
        assert attacker.conn.client_properties["product"]
        scene.end(attacker)


@given(st.integers(0, 2**64 - 1))
def test_mutated_streams_of_real_clients(streams: list[bytes], seed: int) -> None:
    scene = Scene()
    for stream in streams:
        scene.end(scene.attack(mutated(stream, Random(seed))))


@pytest.mark.deep
def test_many_mutated_streams(streams: list[bytes]) -> None:
    scene = Scene()
    for seed in range(20_000):
        try:
            scene.end(scene.attack(mutated(streams[seed % 3], Random(seed))))
        except Exception as error:
            error.add_note(f"stream {seed % 3}, seed {seed}")
            raise


@given(st.lists(st.binary(max_size=2000), max_size=10), st.booleans(), st.sampled_from([b"", PROTOCOL_HEADER, b"AMQP"]))
def test_random_bytes(pieces: list[bytes], opened: bool, first: bytes) -> None:
    scene = Scene()
    scene.end(scene.attack([first, *pieces], opened=opened))


@given(
    st.lists(
        st.builds(raw, st.sampled_from([1, 2, 3, 8]), st.sampled_from([0, 1, 2]), st.binary(max_size=40)), max_size=8
    )
)
def test_whole_frames_with_random_payloads(sent: list[bytes]) -> None:
    scene = Scene()
    for one in sent:  # each on a connection of its own, or the first one would end it
        scene.end(scene.attack([one], opened=True))
    scene.end(scene.attack(sent, opened=True))


METHODS: list[type[base.Frame]] = [kind for _, kind in sorted(commands.INDEX_MAPPING.items())]


def malformed(kind: type[base.Frame]) -> Iterator[bytes]:
    """The payload of a method with each octet in turn cut off, or another one."""
    with warnings.catch_warnings(action="ignore"):  # one is deprecated
        method = kind()
    whole = frames.encode_method(1, method)[7:-1]
    yield whole
    for at in range(4, len(whole)):
        yield whole[:at]
        for octet in (0x00, 0x01, 0x7F, 0xFF):
            yield whole[:at] + bytes([octet]) + whole[at + 1 :]
    yield whole + b"\x00"


@pytest.mark.parametrize("kind", METHODS, ids=lambda kind: kind.name)
def test_malformed_methods(kind: type[base.Frame]) -> None:
    scene = Scene()
    for payload in malformed(kind):
        for channel in (0, 1, 2):
            scene.end(scene.attack([raw(1, channel, payload)], opened=True))
        scene.end(scene.attack([PROTOCOL_HEADER, raw(1, 0, payload)]))


def handshake() -> list[bytes]:
    values = [start_ok(), commands.Connection.TuneOk(2047, 131072, 0), commands.Connection.Open("/")]
    return [PROTOCOL_HEADER, *(frame.marshal(value, 0) for value in values)]


def test_handshakes_that_stop_at_any_octet_or_come_octet_by_octet() -> None:
    scene = Scene()
    data = b"".join(handshake())
    attackers = [scene.attack([data[:size]]) for size in range(0, len(data), 5)]
    attackers.append(scene.attack(data[at : at + 1] for at in range(len(data))))
    assert attackers[-1].conn.id is not None
    scene.server.tick(now=1000.0)
    assert [attacker.conn.should_close for attacker in attackers] == [True] * (len(attackers) - 1) + [False]
    for attacker in attackers:
        scene.end(attacker)


@pytest.mark.parametrize("order", [handshake()[::-1], handshake() * 2, handshake()[:2] * 3], ids=["back", "twice", "2"])
def test_handshakes_in_another_order(order: list[bytes]) -> None:
    scene = Scene()
    attacker = scene.attack(order)
    assert attacker.conn.id is None
    scene.end(attacker)


def kept(scene: Scene, attacker: Peer, pieces: Iterable[bytes]) -> int:
    """The most memory that the server needs while a client sends this, bytes."""
    tracemalloc.start()
    try:
        for piece in pieces:
            scene.server.receive(attacker.conn, piece, now=0.0)
            attacker.conn.data_to_send()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def content(size: int) -> bytes:
    """The start of a publish with a body of so many bytes."""
    head = struct.pack(">HHQH", 60, 0, size, 0)
    return frame.marshal(commands.Basic.Publish(routing_key="attacked"), 1) + raw(2, 1, head)


@pytest.mark.parametrize(
    ("first", "then", "times"),
    [
        (struct.pack(">BHI", 1, 1, 2**32 - 1), bytes(100_000), 200),
        (struct.pack(">BHI", 3, 1, 131_072), bytes(16), 8000),
        (content(2**64 - 1), raw(3, 1, bytes(131_000)), 300),
        (content(2**64 - 1), raw(3, 1, b""), 20_000),
        (content(50_000_000), raw(3, 1, bytes(100_000)), 500),  # more than RabbitMQ 4.3 takes
        (b"", frame.marshal(heartbeat.Heartbeat(), 0) * 1_000, 100),
        (b"", raw(1, 9, bytes(4)), 20_000),
    ],
    ids=[
        "a frame of 4 GiB",
        "a frame that comes slowly",
        "16 EiB",
        "empty bodies",
        "50 MB",
        "heartbeats",
        "garbage",
    ],
)
def test_what_is_announced_or_useless_is_not_kept(first: bytes, then: bytes, times: int) -> None:
    scene = Scene()
    attacker = scene.attack([], opened=True)
    assert kept(scene, attacker, [first]) < KEPT
    assert kept(scene, attacker, (then for _ in range(times))) < KEPT + 2 * len(then)
    scene.look()
    scene.end(attacker)


def test_many_channels() -> None:
    """A channel that nobody uses needs less than 2 kB, and its end gives that back."""
    scene = Scene()
    attacker = scene.attack([], opened=True)
    opening = (frame.marshal(commands.Channel.Open(), number) for number in range(2, 2001))
    assert kept(scene, attacker, opening) < 2000 * 2000
    scene.look()
    consuming = (frame.marshal(commands.Basic.Consume(queue="attacked"), number) for number in range(1, 2001))
    assert kept(scene, attacker, consuming) < 4 * MEGABYTE
    scene.look()
    scene.end(attacker)
    assert scene.server.broker.queue_names() == ["witness"]
