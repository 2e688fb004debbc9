"""The embedded broker as the client libraries see it, and its command."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import itertools
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import aio_pika
import aiormq
import amqp
import pika
import pika.exceptions
import pytest
from pamqp import base, commands, frame
from pamqp.heartbeat import Heartbeat

from eda_core.testing.live import embedded
from eda_tools import broker as tool
from eda_tools import eda
from eda_tools.broker import EmbeddedBroker, EmbeddedBrokerThread

kombu: Any = importlib.import_module("kombu")  # has no types
ROOT = Path(__file__).parents[2]
MEGABYTE = bytes(range(256)) * 4096
numbers = itertools.count(1)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with EmbeddedBrokerThread() as broker:
        yield broker.url


@pytest.fixture
def name() -> str:
    return f"queue-{next(numbers)}"


def with_password(url: str, password: str) -> str:
    return url.replace("guest:guest@", f"guest:{password}@")


# --- pika ---


@pytest.fixture
def connection(url: str) -> Iterator[Any]:
    connection = pika.BlockingConnection(pika.URLParameters(url))
    yield connection
    if connection.is_open:
        connection.close()


@pytest.fixture
def channel(connection: Any) -> Any:
    channel = connection.channel()
    channel.confirm_delivery()
    return channel


def test_pika_publish_get_ack_requeue(channel: Any, name: str) -> None:
    channel.exchange_declare(f"{name}-x", "topic", durable=True)
    assert channel.queue_declare(name, durable=True).method.message_count == 0
    channel.queue_bind(name, f"{name}-x", "order.*")
    properties = pika.BasicProperties(
        content_type="application/cbor", headers={"conversation_id": "c", "n": 1, "deep": {"list": [True, None]}}
    )
    channel.basic_publish(f"{name}-x", "order.paid", MEGABYTE, properties, mandatory=True)
    with pytest.raises(pika.exceptions.UnroutableError):
        channel.basic_publish(f"{name}-x", "elsewhere", b"", properties, mandatory=True)

    got, header, body = channel.basic_get(name)
    assert (body, got.redelivered, got.exchange, got.routing_key) == (MEGABYTE, False, f"{name}-x", "order.paid")
    assert header.headers == properties.headers
    channel.basic_nack(got.delivery_tag, requeue=True)
    got, _, _ = channel.basic_get(name)
    assert got.redelivered
    channel.basic_reject(got.delivery_tag, requeue=True)
    got, _, _ = channel.basic_get(name)
    channel.basic_ack(got.delivery_tag)
    assert channel.basic_get(name) == (None, None, None)


def test_pika_consume_purge_delete(channel: Any, name: str) -> None:
    channel.queue_declare(name)
    for number in range(20):
        channel.basic_publish("", name, b"%d" % number)
    channel.basic_qos(prefetch_count=5)
    bodies = []
    for got, _, body in channel.consume(name, inactivity_timeout=5):
        bodies.append(body)
        if len(bodies) % 5 == 0:
            channel.basic_ack(got.delivery_tag, multiple=True)
        if len(bodies) == 10:
            break
    assert bodies == [b"%d" % number for number in range(10)]
    channel.cancel()
    assert channel.queue_purge(name).method.message_count == 10
    channel.queue_delete(name)
    with pytest.raises(pika.exceptions.ChannelClosedByBroker) as caught:
        channel.queue_declare(name, passive=True)
    assert caught.value.reply_code == 404


def test_pika_dead_letters_by_policy(channel: Any, name: str) -> None:
    channel.queue_purge(tool.DEAD_LETTER_QUEUE)
    channel.queue_declare(f"{name}.events", durable=True)
    channel.basic_publish("", f"{name}.events", b"poison", pika.BasicProperties(headers={"conversation_id": "c"}))
    got, _, _ = channel.basic_get(f"{name}.events")
    channel.basic_reject(got.delivery_tag, requeue=False)
    _, properties, body = channel.basic_get(tool.DEAD_LETTER_QUEUE, auto_ack=True)
    assert body == b"poison"
    assert properties.headers["conversation_id"] == "c"
    death = properties.headers["x-death"][0]
    assert (death["queue"], death["reason"], death["count"]) == (f"{name}.events", "rejected", 1)


def test_pika_exclusive_queue_ends_with_its_connection(url: str, channel: Any) -> None:
    with contextlib.closing(pika.BlockingConnection(pika.URLParameters(url))) as other:
        queue = other.channel().queue_declare("", exclusive=True).method.queue
        assert queue.startswith("amq.gen-")
        with pytest.raises(pika.exceptions.ChannelClosedByBroker) as caught:
            channel.queue_declare(queue, passive=True)
        assert caught.value.reply_code == 405
    again = channel.connection.channel()
    with pytest.raises(pika.exceptions.ChannelClosedByBroker) as caught:
        again.queue_declare(queue, passive=True)
    assert caught.value.reply_code == 404


def test_pika_channel_errors_leave_the_connection(connection: Any, name: str) -> None:
    connection.channel().queue_declare(name, durable=False)
    wrong: dict[int, Callable[[Any], object]] = {
        404: lambda channel: channel.basic_get("no such queue"),
        406: lambda channel: channel.queue_declare(name, durable=True),
    }
    for code, call in wrong.items():
        with pytest.raises(pika.exceptions.ChannelClosedByBroker) as caught:
            call(connection.channel())
        assert caught.value.reply_code == code
    assert connection.channel().basic_get(name) == (None, None, None)


def test_pika_connection_errors(url: str, connection: Any) -> None:
    with pytest.raises(pika.exceptions.ProbableAuthenticationError):
        pika.BlockingConnection(pika.URLParameters(with_password(url, "wrong")))
    with pytest.raises(pika.exceptions.ProbableAccessDeniedError, match="vhost nowhere not found"):
        pika.BlockingConnection(pika.URLParameters(url + "nowhere"))
    with pytest.raises(pika.exceptions.ConnectionClosedByBroker) as caught:
        connection.channel().tx_select()
    assert caught.value.reply_code == 540


# --- aio-pika ---


async def aio_scenario(url: str, name: str) -> None:
    async with await aio_pika.connect(url) as connection:
        channel = await connection.channel(publisher_confirms=True, on_return_raises=True)
        await channel.set_qos(prefetch_count=10)
        exchange = await channel.declare_exchange(f"{name}-x", aio_pika.ExchangeType.TOPIC, durable=True)
        queue = await channel.declare_queue(f"{name}.events", durable=True)
        await queue.bind(exchange, "#")
        message = aio_pika.Message(MEGABYTE, headers={"conversation_id": "é"}, correlation_id="1")
        await exchange.publish(message, "any.key", mandatory=True)
        with pytest.raises(aio_pika.exceptions.PublishError):
            await channel.default_exchange.publish(aio_pika.Message(b""), "nowhere", mandatory=True)

        arrived: asyncio.Queue[aio_pika.abc.AbstractIncomingMessage] = asyncio.Queue()
        tag = await queue.consume(arrived.put)
        first = await arrived.get()
        assert (first.body, first.redelivered, dict(first.headers)) == (MEGABYTE, False, {"conversation_id": "é"})
        await first.nack(requeue=True)
        second = await arrived.get()
        assert second.redelivered
        await second.reject(requeue=False)
        await queue.cancel(tag)
        dead = await channel.declare_queue(tool.DEAD_LETTER_QUEUE, passive=True)
        while (letter := await dead.get(no_ack=True)).correlation_id != "1":
            pass
        assert "x-death" in letter.headers

        await channel.default_exchange.publish(aio_pika.Message(b"left"), queue.name)
        assert (await queue.purge()).message_count == 1
        await queue.delete()
        own = await channel.declare_queue(exclusive=True)
        assert own.name.startswith("amq.gen-")
        assert await own.get(fail=False) is None
        with pytest.raises(aio_pika.exceptions.ChannelNotFoundEntity):
            await channel.declare_queue(queue.name, passive=True)
        again = await connection.channel()
        with pytest.raises(aio_pika.exceptions.ChannelPreconditionFailed):
            await again.declare_exchange(f"{name}-x", aio_pika.ExchangeType.FANOUT, durable=True)
        await (await connection.channel()).exchange_delete(f"{name}-x")


def test_aio_pika(url: str, name: str) -> None:
    asyncio.run(aio_scenario(url, name))


def test_aio_pika_connection_errors(url: str) -> None:
    async def scenario() -> None:
        with pytest.raises(aiormq.exceptions.ProbableAuthenticationError):
            await aio_pika.connect(with_password(url, "wrong"))
        async with await aiormq.connect(url) as connection:
            channel = await connection.channel()
            with pytest.raises(aiormq.exceptions.AMQPError, match="NOT_IMPLEMENTED"):
                await channel.tx_select()

    asyncio.run(scenario())


def test_the_url_is_for_clients_that_do_not_log_in_as_guest_by_themselves() -> None:
    guests, strangers = EmbeddedBroker(port=5000), EmbeddedBroker("::1", 5000, users={"me": "secret"})
    assert (guests.url, guests.address) == ("amqp://guest:guest@127.0.0.1:5000/", "amqp://127.0.0.1:5000/")
    assert strangers.url == strangers.address == "amqp://[::1]:5000/"


def test_embedded_in_an_event_loop(name: str) -> None:
    async def scenario() -> None:
        async with EmbeddedBroker(port=0, users={"me": "secret"}, dead_letters=False) as broker:
            connection = await aio_pika.connect(broker.url.replace("//", "//me:secret@"))
            channel = await connection.channel()
            await channel.declare_queue(name, durable=True)
            lost = asyncio.Event()
            connection.close_callbacks.add(lambda *_: lost.set())
            await broker.cut()
            await lost.wait()
            async with await aio_pika.connect(broker.url.replace("//", "//me:secret@")) as again:
                await (await again.channel()).declare_queue(name, durable=True, passive=True)

    asyncio.run(scenario())


# --- kombu ---


def test_kombu(url: str, name: str) -> None:
    with kombu.Connection(url, transport_options={"confirm_publish": True}) as connection:
        channel = connection.channel()
        exchange = kombu.Exchange(f"{name}-x", "topic", durable=True, channel=channel)
        queue = kombu.Queue(f"{name}.commands", exchange, "#", durable=True, channel=channel)
        queue.declare()
        returned: list[Any] = []
        producer = connection.Producer(channel, on_return=lambda *args: returned.append(args))
        producer.publish(MEGABYTE, exchange=exchange, routing_key="k", headers={"conversation_id": "c"}, mandatory=True)
        assert not returned
        producer.publish(b"", exchange="", routing_key="nowhere", mandatory=True)
        assert returned[0][0].reply_code == 312

        messages: list[Any] = []
        with connection.Consumer([queue], on_message=messages.append, channel=channel, prefetch_count=10):
            connection.drain_events(timeout=5)
            assert (messages[0].body, messages[0].headers) == (MEGABYTE, {"conversation_id": "c"})
            messages[0].requeue()
            connection.drain_events(timeout=5)
            assert messages[1].delivery_info["redelivered"]
            messages[1].reject()
        letters = kombu.Queue(tool.DEAD_LETTER_QUEUE, channel=channel)
        while (letter := letters.get(no_ack=True)).delivery_info["routing_key"] != "k":
            pass
        assert letter.headers["x-death"][0]["queue"] == f"{name}.commands"

        producer.publish(b"left", exchange="", routing_key=queue.name)
        assert queue.purge() == 1
        queue.delete()
        with pytest.raises(amqp.exceptions.NotFound):
            connection.channel().queue_declare(queue.name, passive=True)
        with pytest.raises(amqp.exceptions.PreconditionFailed):
            connection.channel().exchange_declare(f"{name}-x", "fanout", durable=True)
        own = connection.channel().queue_declare("", exclusive=True).queue
        assert own.startswith("amq.gen-")
        connection.channel().exchange_delete(f"{name}-x")


def test_kombu_connection_errors(url: str) -> None:
    with pytest.raises(amqp.exceptions.AccessRefused):
        kombu.Connection(with_password(url, "wrong")).connect()
    with kombu.Connection(url) as connection, pytest.raises(amqp.exceptions.AMQPNotImplementedError):
        connection.channel().tx_select()


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


# --- heartbeats ---


def test_heartbeats_keep_idle_connections_of_all_clients() -> None:
    seconds = 3  # three intervals; a client that sends nothing is dropped after one

    def idle_pika(url: str) -> None:
        with contextlib.closing(pika.BlockingConnection(pika.URLParameters(url))) as connection:
            connection.process_data_events(time_limit=seconds)
            connection.channel()

    def idle_kombu(url: str) -> None:
        with kombu.Connection(url, heartbeat=1) as connection:
            connection.connect()
            until = time.monotonic() + seconds
            while time.monotonic() < until:
                connection.heartbeat_check()
                with contextlib.suppress(TimeoutError):
                    connection.drain_events(timeout=0.4)
            connection.channel()

    async def idle_aio(url: str) -> None:
        async with await aio_pika.connect(url) as connection:
            await asyncio.sleep(seconds)
            await connection.channel()

    async def scenario() -> None:
        async with EmbeddedBroker(heartbeat=1) as broker:
            url = broker.url + "?heartbeat=1"
            await asyncio.gather(
                asyncio.to_thread(idle_pika, url.replace("/?", "/%2F?")),
                asyncio.to_thread(idle_kombu, broker.url),
                idle_aio(url),
            )

    asyncio.run(scenario())


# --- the command ---


@contextlib.contextmanager
def command(
    *arguments: str, module: str = "eda_tools.broker", before: Sequence[str] = ()
) -> Iterator[subprocess.Popen[str]]:
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tools")])}
    with (
        subprocess.Popen(
            [sys.executable, "-m", module, *before, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=env,
        ) as process,
    ):
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_command(number: signal.Signals) -> None:
    with command("--port", "0", "--user", "me:a:b") as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("listening on amqp://127.0.0.1:")
        assert line.endswith("/\n")
        url = line.split()[-1]
        with pytest.raises(pika.exceptions.ProbableAuthenticationError):
            pika.BlockingConnection(pika.URLParameters(url))
        connection = pika.BlockingConnection(pika.URLParameters(url.replace("//", "//me:a%3Ab@")))
        process.send_signal(number)
        with pytest.raises(pika.exceptions.ConnectionClosedByBroker, match="CONNECTION_FORCED - broker shutdown"):
            connection.process_data_events(time_limit=10)
        out, err = process.communicate(timeout=10)
        assert (process.returncode, out, err) == (0, "", "")


def test_a_port_in_use_is_status_1_and_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with command("--port", str(port)) as process:
            out, err = process.communicate(timeout=10)
    assert (process.returncode, out) == (1, "")
    assert err.startswith(f"cannot listen on 127.0.0.1 port {port}: ")
    assert err.count("\n") == 1


@pytest.mark.parametrize("arguments", [["--port", "x"], ["--port", "65536"], ["--user", "nobody"], ["more"]])
def test_usage_errors_are_status_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        tool.main(arguments)
    assert caught.value.code == 2
    assert capsys.readouterr().out == ""


def test_eda_broker_is_the_same_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        eda.main(["broker", "--help"])
    assert caught.value.code == 0
    assert capsys.readouterr().out.startswith("usage: eda broker [-h] [--host HOST] ")
    with command("--port", "0", module="eda_tools", before=("broker",)) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("listening on amqp://127.0.0.1:")
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=10)
    assert (process.returncode, out, err) == (0, "", "")


def test_help_says_what_it_is_for(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        tool.main(["--help"])
    assert caught.value.code == 0
    assert "In production use RabbitMQ" in " ".join(capsys.readouterr().out.split())


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
    with EmbeddedBrokerThread() as broker, socket.create_connection(("127.0.0.1", broker.port), timeout=20) as raw:
        raw.sendall(sent)
        raw.sendall(_MORE)
        received = b""
        while data := raw.recv(1 << 16):
            received += data
    assert received.endswith(last if isinstance(last, bytes) else frame.marshal(last, 0))


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


# --- what it is, and where ---


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


@pytest.mark.parametrize("version", ["3.10", "4.3"])
def test_clients_are_told_which_rabbitmq_it_behaves_like(version: str) -> None:
    """Those of kombu decide by it what a prefetch means."""
    with EmbeddedBrokerThread(version=version) as broker, kombu.Connection(broker.url) as connection:
        connection.connect()
        told = connection.connection.server_properties
        assert (told["product"], told["version"]) == ("RabbitMQ", f"{version}.0")
        assert connection.qos_semantics_matches_spec is (version == "4.3")


def test_the_command_has_virtual_hosts_and_releases() -> None:
    with command("--port", "0", "--vhost", "shop", "--rabbitmq", "3.10") as process:
        assert process.stdout is not None
        url = process.stdout.readline().split()[-1].replace("//", "//guest:guest@")
        with pytest.raises(pika.exceptions.ProbableAccessDeniedError, match="vhost / not found"):
            pika.BlockingConnection(pika.URLParameters(url))
        pika.BlockingConnection(pika.URLParameters(f"{url}shop")).close()
