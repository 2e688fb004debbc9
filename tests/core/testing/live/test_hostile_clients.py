"""Clients that do what they should not, on sockets, while another client has its everyday round.

The broker runs in a process of its own with a witness (:mod:`tests.core.testing.live.witnessed`). During each attack
the witness goes on, and waits for no answer longer than 100 ms: of the processor, which the broker has used meanwhile.
What a busy or a slow machine makes longer is taken off. The memory stays flat, nothing is logged, and the broker ends
in good order when all are through. ``nox -s deep`` does five times as much.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import resource
import ssl
import struct
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import trustme
from pamqp import base, body, commands, frame, header, heartbeat

from tests.core.testing.wire.test_fuzz import mutated

ROOT = Path(__file__).parents[4]
MEGABYTE: Final = 1 << 20
#: Seconds of the processor that the witness may wait.
LONGEST: Final = 0.1
#: Seconds of the processor for the other piece of work, where LONGEST was measured.
WORK: Final = 0.00021
#: Bytes of memory that an attack may cost while it lasts, if it says nothing else.
FLAT: Final = 40 * MEGABYTE

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Victim:
    """The broker with its witness."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        assert process.stdout is not None
        self.port, self.tls_port = map(int, process.stdout.readline().split())

    def report(self) -> dict[str, Any]:
        """What happened since the last report."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        told: dict[str, Any] = json.loads(self._process.stdout.readline())
        return told

    async def connect(self, *sent: bytes) -> Connection:
        """A client that has sent this."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(b"".join(sent))
        return reader, writer

    async def opened(self, *asked: base.Frame) -> Connection:
        """A client with an open channel that has its answers."""
        reader, writer = await self.connect(OPENED)
        await answered(reader, writer, *asked)
        return reader, writer


def method(value: base.Frame, channel: int = 1) -> bytes:
    return frame.marshal(value, channel)


def hello(heartbeats: int = 0) -> bytes:
    values: list[base.Frame] = [
        commands.Connection.StartOk({}, "PLAIN", "\0guest\0guest", "en_US"),
        commands.Connection.TuneOk(2047, 131072, heartbeats),
        commands.Connection.Open("/"),
    ]
    return b"AMQP\x00\x00\x09\x01" + b"".join(method(value, 0) for value in values)


OPENED: Final = hello() + method(commands.Channel.Open())


def published(key: str, data: bytes, exchange: str = "") -> bytes:
    head = header.ContentHeader(0, len(data), commands.Basic.Properties())
    pieces: list[frame.FrameTypes] = [body.ContentBody(data[at : at + 131_064]) for at in range(0, len(data), 131_064)]
    start = commands.Basic.Publish(exchange=exchange, routing_key=key)
    return b"".join(frame.marshal(each, 1) for each in (start, head, *pieces))


async def answered(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *asked: base.Frame) -> None:
    """Ask this, and wait until the broker has done all that was asked before, too."""
    writer.write(b"".join(map(method, (*asked, commands.Basic.Qos()))))
    mark, seen = method(commands.Basic.QosOk()), b""
    while not seen.endswith(mark):
        data = await reader.read(1 << 16)
        assert data, "the broker has closed the connection"
        seen = seen[-len(mark) :] + data


async def dropped(reader: asyncio.StreamReader) -> int:
    """Read and forget all until the end. Returns the number of bytes."""
    size = 0
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(1 << 16):
            size += len(data)
    return size


def cut(*connections: Connection) -> None:
    for _, writer in connections:
        writer.transport.abort()


async def played(attack: Attack, victim: Victim, scale: int) -> None:
    """An attack, and what the loop has to do when the connections are cut."""
    await attack(victim, scale)
    for _ in range(3):
        await asyncio.sleep(0)


Attack = Callable[[Victim, int], Awaitable[None]]


# The attacks


async def garbage(victim: Victim, scale: int) -> None:
    """Random bytes, with and without a handshake, and faults in an everyday stream."""
    draw = random.Random(scale)
    everyday = OPENED + method(commands.Queue.Declare(queue="g", auto_delete=True)) + published("g", b"x" * 500)
    everyday += method(commands.Basic.Get(queue="g")) + method(commands.Queue.Delete(queue="g"))
    for _ in range(200 * scale):
        start = draw.choice([b"", b"AMQP\x00\x00\x09\x01", OPENED])
        connection = await victim.connect(start, draw.randbytes(draw.randrange(2000)))
        faulty = await victim.connect(*mutated(everyday, draw))
        cut(connection, faulty)


async def halves(victim: Victim, scale: int) -> None:
    """Handshakes that stop anywhere, and clients that are silent for ever; some of them have announced heartbeats."""
    some = [await victim.connect(OPENED[:size]) for size in range(0, len(OPENED), max(1, 4 // scale))]
    silent = [await victim.connect(hello(heartbeats=1)) for _ in range(50 * scale)]
    await asyncio.gather(*(dropped(reader) for reader, _ in silent))  # the broker ends them
    cut(*some, *silent)


async def slowly(victim: Victim, scale: int) -> None:
    """Everything comes octet by octet."""
    data = OPENED + method(commands.Basic.Qos())

    async def one() -> None:
        reader, writer = await victim.connect()
        for at in range(len(data)):
            writer.write(data[at : at + 1])
            await asyncio.sleep(0)
        await reader.readuntil(method(commands.Basic.QosOk()))
        cut((reader, writer))

    await asyncio.gather(*(one() for _ in range(20 * scale)))


async def sizes(victim: Victim, scale: int) -> None:
    """A frame of 4 GiB, and a body of 16 EiB, of which a lot is sent."""
    reader, writer = await victim.connect(OPENED, struct.pack(">BHI", 1, 1, 2**32 - 1))
    writer.write(bytes(8 * MEGABYTE))
    cut((reader, writer))
    reader, writer = await victim.connect(OPENED, method(commands.Basic.Publish(routing_key="none")))
    writer.write(struct.pack(">BHIHHQHB", 2, 1, 14, 60, 0, 2**64 - 1, 0, 0xCE))
    piece = struct.pack(">BHI", 3, 1, 131_000) + bytes(131_000) + b"\xce"
    for _ in range(500 * scale):
        writer.write(piece)
        await writer.drain()
    cut((reader, writer))


async def heartbeats(victim: Victim, scale: int) -> None:
    """A flood of the smallest frames."""
    reader, writer = await victim.opened()
    reading = asyncio.create_task(dropped(reader))
    for _ in range(4 * scale):
        writer.write(frame.marshal(heartbeat.Heartbeat(), 0) * 50_000)
        await writer.drain()
    writer.write(method(commands.Connection.Close(200, "", 0, 0), 0))
    await reading
    cut((reader, writer))


async def declares(victim: Victim, scale: int) -> None:
    """Thousands of declarations and bindings in one go. All goes with the connection."""
    both = [
        method(commands.Queue.Declare(queue=f"d{n}", exclusive=True))
        + method(commands.Queue.Bind(queue=f"d{n}", exchange="amq.topic", routing_key=f"d.{n}"))
        for n in range(3000)
    ]
    for _ in range(scale):
        reader, writer = await victim.connect(OPENED, *both)
        await answered(reader, writer)
        writer.write(method(commands.Connection.Close(200, "", 0, 0), 0))
        await dropped(reader)
        cut((reader, writer))


async def bodies(victim: Victim, scale: int) -> None:
    """Messages of 50 MB, in one go, to a consumer. Some of them are on their way at a time."""
    size = 50_000_000
    message = published("large", bytes(size))
    queue = commands.Queue.Declare(queue="large", exclusive=True, arguments={"x-max-length": 1})
    reader, writer = await victim.opened(queue)
    reading = asyncio.create_task(dropped(reader))
    writer.write(method(commands.Basic.Consume(queue="large", no_ack=True)))
    for _ in range(2 * scale):
        writer.write(message)
        await writer.drain()
    writer.write(method(commands.Connection.Close(200, "", 0, 0), 0))
    assert await reading > size
    cut((reader, writer))


async def deaf_consumer(victim: Victim, scale: int) -> None:
    """A consumer that does not read, and 60 MB (deep: 300 MB) for it: they stay in the queue."""
    queue = commands.Queue.Declare(queue="deaf", auto_delete=True)
    consumer = await victim.opened(queue, commands.Basic.Consume(queue="deaf", no_ack=True))
    consumer[1].transport.pause_reading()  # type: ignore[attr-defined]
    reader, writer = await victim.opened()
    for _ in range(60 * scale):
        writer.write(published("deaf", bytes(MEGABYTE)))
        await writer.drain()
    await answered(reader, writer)
    cut(consumer, (reader, writer))


async def deaf_getter(victim: Victim, scale: int) -> None:
    """A client that asks for a message of 1 MB again and again, and does not read."""
    reader, writer = await victim.opened(commands.Queue.Declare(queue="once", exclusive=True))
    writer.write(published("once", bytes(MEGABYTE)))
    await answered(reader, writer)
    writer.transport.pause_reading()  # type: ignore[attr-defined]
    again = method(commands.Basic.Get(queue="once")) + method(commands.Basic.Nack(0, True, True))
    writer.write(again * 2000 * scale)
    await asyncio.sleep(1)  # nothing tells when the broker has understood
    cut((reader, writer))


async def channels(victim: Victim, scale: int) -> None:
    """2,000 channels of a connection, each with a consumer of the same queue, to which messages come."""
    numbers = range(2, 2001)
    reader, writer = await victim.opened(commands.Queue.Declare(queue="shared", exclusive=True))
    writer.write(b"".join(method(commands.Channel.Open(), number) for number in numbers))
    writer.write(b"".join(method(commands.Basic.Consume(queue="shared"), number) for number in numbers))
    writer.write(published("shared", b"x") * 2000 * scale)
    await answered(reader, writer)
    cut((reader, writer))


async def connections(victim: Victim, scale: int) -> None:
    """1,500 connections, each of which works a little."""
    count = min(1500, resource.getrlimit(resource.RLIMIT_NOFILE)[0] - 200)
    if count < 1500:
        print(f"only {count} connections: no more open files are allowed (ulimit -Hn)")
    some: list[Connection] = []
    for _ in range(count // 100):
        some += await asyncio.gather(*(victim.opened() for _ in range(100)))
    for at in range(0, len(some), 100):
        await asyncio.gather(
            *(
                answered(reader, writer, commands.Queue.Declare(queue="common", auto_delete=True))
                for reader, writer in some[at : at + 100]
            )
        )
    cut(*some)


async def consumers(victim: Victim, scale: int) -> None:
    """100 consumers, half of which do not read, begin at once on a queue with many small messages."""
    filling = await victim.opened(commands.Queue.Declare(queue="many", exclusive=False, auto_delete=True))
    filling[1].write(published("many", b"x") * 20_000 * scale)
    await answered(*filling)
    some = [await victim.opened() for _ in range(100)]
    reading = []
    for number, (reader, writer) in enumerate(some):
        writer.write(method(commands.Basic.Consume(queue="many", no_ack=True)))
        if number % 2:
            reading.append(asyncio.create_task(dropped(reader)))
        else:
            writer.transport.pause_reading()  # type: ignore[attr-defined]
    await asyncio.sleep(1)
    cut(filling, *some)
    await asyncio.gather(*reading)


async def fanout(victim: Victim, scale: int) -> None:
    """Each publish goes to 1,000 queues."""
    queues = [
        method(commands.Queue.Declare(queue=f"f{n}", exclusive=True, arguments={"x-max-length": 1}))
        + method(commands.Queue.Bind(queue=f"f{n}", exchange="amq.fanout"))
        for n in range(1000)
    ]
    reader, writer = await victim.connect(OPENED, *queues, published("", b"x", "amq.fanout") * 50 * scale)
    await answered(reader, writer)
    cut((reader, writer))


async def without_tls(victim: Victim, scale: int) -> None:
    """Clients of a broker with TLS that are silent, or speak without it, or only begin with it, or vanish in it."""
    draw = random.Random(scale)
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    for _ in range(20 * scale):
        silent = await asyncio.open_connection("127.0.0.1", victim.tls_port)
        plain = await asyncio.open_connection("127.0.0.1", victim.tls_port)
        plain[1].write(draw.choice([OPENED, b"\x16\x03\x01", draw.randbytes(300)]))
        with contextlib.suppress(ConnectionError):
            await plain[1].drain()
        vanished = await asyncio.open_connection("127.0.0.1", victim.tls_port, ssl=context)
        vanished[1].write(OPENED)
        cut(plain, vanished, silent)


ATTACKS: Final[dict[Attack, int]] = {
    garbage: FLAT,
    halves: FLAT,
    slowly: FLAT,
    sizes: FLAT,
    heartbeats: FLAT,
    declares: FLAT,
    bodies: 50 * MEGABYTE * 3 + FLAT,  # the message, when it is put together, and one that arrives
    deaf_consumer: 60 * MEGABYTE + FLAT,
    deaf_getter: FLAT,
    channels: FLAT,
    connections: FLAT,
    consumers: FLAT,
    fanout: FLAT,
    without_tls: FLAT,
}


@pytest.fixture(scope="module")
def victim(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Victim]:
    """The broker for all attacks. In the end it must stop by itself and have logged nothing."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit[1], limit[1]))
    certificate = tmp_path_factory.mktemp("tls") / "broker.pem"
    trustme.CA().issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(str(certificate))
    command = [sys.executable, "-m", "tests.core.testing.live.witnessed", "3.10", str(certificate)]
    log = certificate.with_name("log")
    try:
        with (
            log.open("w") as errors,
            subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True, cwd=ROOT
            ) as process,
        ):
            yield Victim(process)
        assert (log.read_text("utf-8"), process.returncode) == ("", 0)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limit)


@pytest.mark.parametrize("scale", [1, pytest.param(5, marks=pytest.mark.deep)])
@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.__name__)
def test_a_witness_does_not_notice(victim: Victim, attack: Attack, scale: int) -> None:
    before = victim.report()
    asyncio.run(played(attack, victim, scale))
    during = victim.report()
    waited = during["longest"] / max(1.0, during["work"] / WORK)
    assert waited < LONGEST, during
    after = victim.report()
    while after["rounds"] < during["rounds"] + 20:  # it goes on
        after = victim.report()
    if before["memory"]:
        kept = scale if attack in (deaf_consumer, consumers) else 1  # messages in queues
        assert during["memory"]["most"] - before["memory"]["now"] < ATTACKS[attack] * kept
        # Where there were many small pieces, the next ones get their memory, and the system not all of it.
        left = scale if attack is consumers else 1
        assert after["memory"]["now"] - before["memory"]["now"] < FLAT * left
