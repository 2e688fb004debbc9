"""The sockets of the embedded broker, and the faults that a test can ask it for."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import socket
import ssl
import subprocess
import sys
from typing import Any

import aio_pika
import pika
import pika.exceptions
import pytest
import trustme
from pamqp import base, commands, frame
from pamqp.heartbeat import Heartbeat

from eda_core.testing.live import EmbeddedBroker, EmbeddedBrokerThread, embedded

MEGABYTE = bytes(range(256)) * 4096
numbers = itertools.count(1)


@pytest.fixture
def name() -> str:
    return f"queue-{next(numbers)}"


# --- where it is ---


def test_the_url_is_for_clients_that_do_not_log_in_as_guest_by_themselves() -> None:
    guests, strangers = EmbeddedBroker(port=5000), EmbeddedBroker("::1", 5000, users={"me": "secret"})
    assert (guests.url, guests.address) == ("amqp://guest:guest@127.0.0.1:5000/", "amqp://127.0.0.1:5000/")
    assert strangers.url == strangers.address == "amqp://[::1]:5000/"


def ipv6() -> bool:
    """Whether the machine has it."""
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


@pytest.mark.skipif(not ipv6(), reason="this machine has no IPv6")
def test_the_loopback_is_that_of_ipv6_as_well(name: str) -> None:
    """For some clients localhost is ::1."""
    with EmbeddedBrokerThread() as broker:
        for host in ("127.0.0.1", "[::1]"):
            connection = pika.BlockingConnection(pika.URLParameters(f"amqp://guest:guest@{host}:{broker.port}/"))
            connection.channel().queue_declare(name)
            connection.close()


@pytest.mark.skipif(not ipv6(), reason="this machine has no IPv6")
def test_a_port_that_is_taken_on_one_of_the_two_is_not_used() -> None:
    async def scenario() -> None:
        with socket.socket(socket.AF_INET6) as other:
            other.bind(("::1", 0))
            other.listen()
            with pytest.raises(OSError, match="address already in use"):
                await EmbeddedBroker(port=other.getsockname()[1]).start()
            async with EmbeddedBroker() as broker:  # and the port of the failed start is free
                assert broker.port

    asyncio.run(scenario())


def test_virtual_hosts_are_apart_and_have_dead_letters(name: str) -> None:
    with EmbeddedBrokerThread(vhosts=["/", "shop"]) as broker:
        connection = pika.BlockingConnection(pika.URLParameters(broker.url))
        connection.channel().queue_declare(name)
        other = pika.BlockingConnection(pika.URLParameters(f"{broker.url}shop"))
        other.channel().queue_declare("dead-letters", passive=True)
        with pytest.raises(pika.exceptions.ChannelClosedByBroker, match=r"no queue 'queue-\d+' in vhost 'shop'"):
            other.channel().queue_declare(name, passive=True)
        with pytest.raises(pika.exceptions.ProbableAccessDeniedError, match="vhost none not found"):
            pika.BlockingConnection(pika.URLParameters(f"{broker.url}none"))
        other.close()
        connection.close()


# --- faults ---


def test_a_killed_broker_keeps_what_is_durable(name: str) -> None:
    with EmbeddedBrokerThread() as broker:
        connection = pika.BlockingConnection(pika.URLParameters(broker.url))
        channel = connection.channel()
        channel.queue_declare(name, durable=True)
        channel.queue_declare(f"{name}-transient")
        channel.basic_publish("", name, b"lost")
        channel.basic_publish("", name, b"kept", pika.BasicProperties(delivery_mode=2))
        # The answer to a later frame shows that the publishes arrived.
        assert channel.queue_declare(name, passive=True).method.message_count == 2
        broker.kill()
        with pytest.raises(pika.exceptions.AMQPConnectionError):
            connection.process_data_events(time_limit=5)
        with contextlib.closing(pika.BlockingConnection(pika.URLParameters(broker.url))) as again:
            channel = again.channel()
            assert channel.basic_get(name)[2] == b"kept"
            assert channel.basic_get(name)[2] is None
            with pytest.raises(pika.exceptions.ChannelClosedByBroker):
                channel.queue_declare(f"{name}-transient", passive=True)


def test_an_alarm_is_announced(name: str) -> None:
    with EmbeddedBrokerThread() as broker:
        with contextlib.closing(pika.BlockingConnection(pika.URLParameters(broker.url))) as connection:
            heard: list[str] = []
            connection.add_on_connection_blocked_callback(lambda *_: heard.append("blocked"))
            connection.add_on_connection_unblocked_callback(lambda *_: heard.append("unblocked"))
            channel = connection.channel()
            channel.queue_declare(name)
            broker.operate(lambda model, now: model.set_alarm(True, now=now))
            channel.basic_publish("", name, b"held")
            while heard != ["blocked"]:
                connection.process_data_events(time_limit=1)
            broker.operate(lambda model, now: model.set_alarm(False, now=now))
            while heard != ["blocked", "unblocked"]:
                connection.process_data_events(time_limit=1)
            assert channel.basic_get(name)[2] == b"held"


# --- the sockets ---


_QOS = b"\x01\x00\x01\x00\x00\x00\x0b\x00\x3c\x00\x0a\x00\x00\x00\x00\x00\x00\x00\xce"


def _handshake() -> bytes:
    values = [
        commands.Connection.StartOk({}, "PLAIN", "\0guest\0guest", "en_US"),
        commands.Connection.TuneOk(2047, 131072, 0),
        commands.Connection.Open("/"),
    ]
    opened = frame.marshal(commands.Channel.Open(), 1)
    return b"AMQP\x00\x00\x09\x01" + b"".join(frame.marshal(value, 0) for value in values) + opened


def test_a_client_that_does_not_read_is_not_read_from() -> None:
    async def scenario() -> None:
        async with EmbeddedBroker() as broker:
            with socket.socket() as raw:
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                raw.setblocking(False)
                loop = asyncio.get_running_loop()
                await loop.sock_connect(raw, (broker.host, broker.port))
                await loop.sock_sendall(raw, _handshake())
                sent = 0
                # Each Qos is answered. The sender must be stopped, or the answers would fill the memory.
                with contextlib.suppress(asyncio.TimeoutError):
                    while sent < 200_000_000:
                        await asyncio.wait_for(loop.sock_sendall(raw, _QOS * 5000), 0.5)
                        sent += len(_QOS) * 5000
                assert sent < 200_000_000, "the broker read everything from a client that read nothing"

    asyncio.run(scenario())


def test_a_client_that_pipelines_does_not_hold_up_others(name: str) -> None:
    """Another one has its answer before the first one has all of its own."""
    pipelined = b"".join(frame.marshal(commands.Queue.Declare(queue=f"{name}-{n}"), 1) for n in range(5_000))
    asked = frame.marshal(commands.Queue.Declare(queue=name), 1)

    async def scenario() -> None:
        async with EmbeddedBroker() as broker, asyncio.timeout(60):
            readers, writers = zip(
                *[await asyncio.open_connection(broker.host, broker.port, limit=1 << 22) for _ in range(2)], strict=True
            )
            for reader, writer in zip(readers, writers, strict=True):
                writer.write(_handshake())
                await reader.readuntil(frame.marshal(commands.Connection.OpenOk(), 0))
                await reader.readuntil(b"\x00\x14\x00\x0b\x00\x00\x00\x00\xce")  # the channel is open
            writers[0].write(pipelined)
            writers[1].write(asked)
            await readers[1].readuntil(name.encode())
            assert len(broker.broker.queue_names()) < 5_000
            await readers[0].readuntil(f"{name}-4999".encode())
            for writer in writers:
                writer.close()

    asyncio.run(scenario())


def test_messages_for_a_client_that_does_not_read_stay_in_their_queue(name: str) -> None:
    async def scenario() -> None:
        async with EmbeddedBroker() as broker, asyncio.timeout(60):
            with socket.socket() as raw:
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                raw.setblocking(False)
                loop = asyncio.get_running_loop()
                await loop.sock_connect(raw, (broker.host, broker.port))
                consume = [commands.Queue.Declare(queue=name), commands.Basic.Consume(queue=name, no_ack=True)]
                await loop.sock_sendall(raw, _handshake() + b"".join(frame.marshal(each, 1) for each in consume))
                connection = await aio_pika.connect(broker.url)
                async with connection:
                    channel = await connection.channel()
                    for _ in range(40):
                        await channel.default_exchange.publish(aio_pika.Message(MEGABYTE), name)
                    waiting = (await channel.declare_queue(name, passive=True)).declaration_result.message_count
                    assert waiting is not None
                    assert waiting > 20
                    received = 0
                    while received < 40 * len(MEGABYTE):  # and when it reads, it gets them all
                        received += len(await loop.sock_recv(raw, 1 << 20))

    asyncio.run(scenario())


_MORE = frame.marshal(Heartbeat(), 0) * 500_000  # 4 MB, which no buffer between the two holds


@pytest.mark.parametrize(
    ("sent", "last"),
    [
        (_handshake() + frame.marshal(commands.Connection.Close(200, "bye", 0, 0), 0), commands.Connection.CloseOk()),
        (b"AMQP\x00\x01\x00\x00", b"AMQP\x00\x00\x09\x01"),  # a client of AMQP 1.0
    ],
    ids=["closed by the client", "another protocol"],
)
def test_the_last_word_reaches_a_client_that_still_sends(sent: bytes, last: base.Frame | bytes) -> None:
    """A socket that is closed with octets unread in it is reset, and what it had sent is lost on the way."""
    with EmbeddedBrokerThread() as broker, socket.create_connection(("127.0.0.1", broker.port), timeout=60) as raw:
        received = exchange(raw, sent)
    assert received.endswith(last if isinstance(last, bytes) else frame.marshal(last, 0))


def exchange(raw: socket.socket, sent: bytes) -> bytes:
    """Send this and more. Returns all that comes back."""
    raw.sendall(sent)
    raw.sendall(_MORE)
    received = b""
    while data := raw.recv(1 << 16):
        received += data
    return received


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_the_last_word_reaches_a_client_of_tls_that_still_sends(version: ssl.TLSVersion) -> None:
    """TLS has no end of one direction only: the broker waits until the client sends nothing more."""
    authority = trustme.CA()
    served, trusting = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH), ssl.create_default_context()
    authority.issue_cert("localhost").configure_cert(served)
    authority.configure_trust(trusting)
    trusting.maximum_version = version
    sent = _handshake() + frame.marshal(commands.Connection.Close(200, "bye", 0, 0), 0)
    with (
        EmbeddedBrokerThread(ssl=served) as broker,
        socket.create_connection(("127.0.0.1", broker.port), timeout=60) as raw,
        trusting.wrap_socket(raw, server_hostname="localhost") as secured,
    ):
        assert exchange(secured, sent).endswith(frame.marshal(commands.Connection.CloseOk(), 0))


_FEW_FILES = """
import resource, sys
from eda_core.testing.live import EmbeddedBrokerThread
resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))
with EmbeddedBrokerThread() as broker:
    print(broker.port, flush=True)
    sys.stdin.read()
"""


def test_too_many_connections_have_to_wait_and_are_one_line_of_the_log() -> None:
    def greet(stack: contextlib.ExitStack) -> socket.socket:
        client = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=60))
        client.sendall(b"AMQP\x00\x00\x09\x01")
        return client

    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with subprocess.Popen([sys.executable, "-c", _FEW_FILES], text=True, **pipes) as process:  # type: ignore[call-overload]
        port = int(process.stdout.readline())
        with contextlib.ExitStack() as stack:
            clients = [greet(stack) for _ in range(60)]
            assert clients[0].recv(1) == b"\x01"
            logged = process.stderr.readline()
        with contextlib.ExitStack() as stack:  # those before have gone
            assert greet(stack).recv(1) == b"\x01"
        process.stdin.close()
        more = process.stderr.read()
    assert logged == "no more connections for now: Too many open files (see `ulimit -n`). Who connects has to wait.\n"
    assert set(more.splitlines(keepends=True)) <= {logged}
    assert process.returncode == 0


@pytest.mark.parametrize("closed", [True, False])
def test_to_listen_again_on_a_closed_socket_is_no_fault(closed: bool, caplog: pytest.LogCaptureFixture) -> None:
    """asyncio does so if a broker ends less than a second after too many files were open."""
    loop: Any = asyncio.new_event_loop()
    loop.set_exception_handler(embedded.report_fault)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        if closed:
            listener.close()
        loop.call_soon(loop._start_serving if closed else _fail, asyncio.Protocol, listener)
        loop.call_soon(loop.stop)
        loop.run_forever()
    loop.close()
    assert len(caplog.records) == (0 if closed else 1)


def _fail(*_: object) -> None:
    raise ValueError("something else")


def test_a_client_that_never_hangs_up_does_not_hold_up_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "_SHUTDOWN_TIMEOUT", 600.0)

    async def scenario() -> None:
        async with asyncio.timeout(60):
            async with EmbeddedBroker() as broker:
                reader, writer = await asyncio.open_connection(broker.host, broker.port)
                writer.write(b"AMQP\x00\x01\x00\x00")
                assert await reader.read() == b"AMQP\x00\x00\x09\x01"
            writer.close()

    asyncio.run(scenario())
