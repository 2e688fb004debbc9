"""The connection of the tools, on the embedded broker and before servers that are none."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trustme
from pamqp.commands import Basic, Channel, Confirm, Queue

from eda_core.amqp import Received
from eda_core.errors import LocalError
from eda_core.testing.live import EmbeddedBroker, Proxy
from eda_tools.bus import amqp
from eda_tools.bus.amqp import NOT_FOUND, AmqpError, ChannelClosed, Connection, ConnectionLost
from eda_tools.bus.connect import session
from eda_tools.cli.output import Output
from eda_tools.cli.status import NO_CONNECTION, ToolError
from tests.support.services import asynchronous, within

#: Seconds for what should happen at once. It is only reached if a test hangs.
LONG = 60.0


@asynccontextmanager
async def connected(broker: EmbeddedBroker, url: str = "") -> AsyncIterator[Connection]:
    connection = await Connection.open(url or broker.url, "test", timeout=LONG)
    try:
        yield connection
    finally:
        await connection.close()


@asynchronous
async def test_a_reply_that_comes_too_late_is_not_that_to_the_next_question(monkeypatch: pytest.MonkeyPatch) -> None:
    async with EmbeddedBroker() as broker, connected(broker) as connection:
        channel = await connection.channel()
        monkeypatch.setattr(amqp, "RPC_TIMEOUT", 0.0)
        with pytest.raises(TimeoutError):
            await channel.ask(Queue.Declare(queue="first", exclusive=True))
        monkeypatch.setattr(amqp, "RPC_TIMEOUT", LONG)
        answer = await channel.ask(Queue.Declare(queue="second", exclusive=True))
        assert answer.queue == "second"
        monkeypatch.setattr(amqp, "RPC_TIMEOUT", 0.0)
        with pytest.raises(TimeoutError):
            await channel.ask(Queue.Declare(queue="third", exclusive=True))
        monkeypatch.setattr(amqp, "RPC_TIMEOUT", LONG)
        await channel.close()  # drops the reply


@asynchronous
async def test_a_cancellation_that_comes_together_with_the_answer_is_not_lost() -> None:
    async with EmbeddedBroker() as broker, connected(broker) as connection:
        channel = await connection.channel()
        asking = asyncio.create_task(channel.ask(Queue.Declare(queue="q", exclusive=True)))
        await asyncio.sleep(0)
        channel.take(Received(1, Queue.DeclareOk("q", 0, 0)))
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking


@asynchronous
async def test_what_nobody_has_asked_for_is_no_reply() -> None:
    heard: list[Any] = []
    async with EmbeddedBroker() as broker, connected(broker) as connection:
        channel = await connection.channel(lambda event: heard.append((event.method.name, event.method.delivery_tag)))
        asking = asyncio.create_task(channel.ask(Queue.Declare(queue="q", exclusive=True)))
        await asyncio.sleep(0)
        for method in (Channel.Flow(True), Basic.Cancel("c"), Basic.Ack(1), Basic.Nack(2)):
            channel.take(Received(1, method))
        assert isinstance(await asking, Queue.DeclareOk)
        assert heard == [("Basic.Ack", 1), ("Basic.Nack", 2)]


@asynchronous
async def test_a_channel_that_the_broker_closes_is_closed_alone() -> None:
    told: list[AmqpError] = []
    async with EmbeddedBroker() as broker, connected(broker) as connection:
        channel, other = await connection.channel(lost=told.append), await connection.channel()
        waiting = [
            asyncio.create_task(channel.ask(Queue.Declare(queue="nowhere", passive=True))),
            asyncio.create_task(channel.get("q")),
        ]
        results: list[Any] = await asyncio.gather(*waiting, return_exceptions=True)
        for error in (*results, *told):
            assert isinstance(error, ChannelClosed)
            assert (error.code, str(error)) == (NOT_FOUND, "NOT_FOUND - no queue 'nowhere' in vhost '/'")
        assert len(told) == 1
        for refused in (channel.close(), channel.ask(Confirm.Select()), channel.get("q")):
            with pytest.raises(ChannelClosed, match="nowhere"):
                await refused
        with pytest.raises(ChannelClosed):
            channel.publish("", "q", Basic.Properties(), b"")
        assert (await other.ask(Queue.Declare(queue="q", exclusive=True))).queue == "q"
        assert await other.get("q") is None
    assert len(told) == 1
    with pytest.raises(ConnectionLost):
        await other.get("q")
    with pytest.raises(ConnectionLost):
        await connection.channel()


@asynchronous
async def test_numbers_of_channels_are_used_again() -> None:
    async with EmbeddedBroker() as broker, connected(broker) as connection:
        for _ in range(3_000):  # more than there may be at a time
            channel = await connection.channel()
            await channel.close()
            with pytest.raises(AmqpError, match="the channel was closed"):
                await channel.ask(Confirm.Select())


@asynchronous
async def test_a_publisher_waits_for_a_broker_that_does_not_read() -> None:
    heard: asyncio.Queue[Received] = asyncio.Queue()
    async with EmbeddedBroker() as broker, connected(broker) as connection:
        await broker.operate(lambda model, now: model.set_alarm(True, now=now))
        channel = await connection.channel(heard.put_nowait)
        await channel.ask(Confirm.Select())
        count = 0
        draining = asyncio.ensure_future(channel.drain())
        while draining.done():
            channel.publish("", "nowhere", Basic.Properties(message_id=str(count)), b"x" * 1_000_000)
            count += 1
            draining = asyncio.ensure_future(channel.drain())
            await asyncio.wait((draining,), timeout=0.5)
            if count == 1:
                await draining  # one message fits into the buffers
            assert count < 1_000, "it is never told to wait"
        assert heard.empty()
        await broker.operate(lambda model, now: model.set_alarm(False, now=now))
        await within(draining, "the broker reads again", LONG)
        returned, confirmed = 0, 0
        while confirmed < count:
            event = await within(heard.get(), "a return or a confirm", LONG)
            if isinstance(event.method, Basic.Return):
                assert len(event.body) == 1_000_000
                returned += 1
            else:
                confirmed = event.method.delivery_tag
        assert returned == count


@asynchronous
async def test_who_waits_to_write_is_told_that_the_connection_is_lost() -> None:
    told: list[AmqpError] = []
    async with EmbeddedBroker() as broker, Proxy(broker.port) as proxy:
        url = broker.url.replace(str(broker.port), str(proxy.port))
        connection = await Connection.open(url, "test", timeout=LONG)
        channel = await connection.channel(lost=told.append)
        proxy.freeze()

        async def write() -> None:
            channel.publish("", "nowhere", Basic.Properties(), b"x" * 50_000_000)
            await channel.drain()

        draining = asyncio.create_task(write())
        await asyncio.sleep(0)
        assert not draining.done()
        while connection._wire.writable.is_set():
            await asyncio.sleep(0)
        assert not draining.done()
        proxy.cut()
        await within(draining, "the end of the wait", LONG)
        (error,) = told
        assert isinstance(error, ConnectionLost)
        assert error.silently
        await connection.close()


@asynchronous
async def test_a_silent_broker_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(amqp, "HEARTBEAT", 1)
    async with EmbeddedBroker() as broker, Proxy(broker.port) as proxy:
        url = broker.url.replace(str(broker.port), str(proxy.port))
        connection = await Connection.open(url, "test", timeout=LONG)
        channel = await connection.channel()
        await asyncio.sleep(3)  # heartbeats of both keep it open
        assert await channel.ask(Confirm.Select()) is not None
        proxy.freeze()
        with pytest.raises(ConnectionLost, match="the broker has been silent for "):
            await within(channel.ask(Queue.Declare(queue="q")), "the end of the connection", LONG)
        await connection.close()


@asynchronous
async def test_a_broker_that_does_not_answer_a_close_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(amqp, "CLOSE_TIMEOUT", 0.1)
    async with EmbeddedBroker() as broker, Proxy(broker.port) as proxy:
        url = broker.url.replace(str(broker.port), str(proxy.port))
        connection = await Connection.open(url, "test", timeout=LONG)
        channel = await connection.channel()
        proxy.freeze()
        await within(connection.close(), "the end", LONG)
        with pytest.raises(ConnectionLost):
            await channel.ask(Confirm.Select())


@asynchronous
async def test_a_broker_that_ends_says_why() -> None:
    async with EmbeddedBroker() as broker:
        connection = await Connection.open(broker.url, "test", timeout=LONG)
        channel = await connection.channel()
    while connection.error is None:
        await asyncio.sleep(0)
    assert (connection.error.code, connection.error.silently) == (320, False)
    with pytest.raises(ConnectionLost, match="CONNECTION_FORCED - broker shutdown"):
        await channel.ask(Confirm.Select())
    await connection.close()


# --- what goes wrong while it connects ---

REASONS = {
    b"": "the broker closed the connection without giving a reason (does it require amqps://?)",
    b"HTTP/1.1 400 Bad Request\r\n\r\n": "it is not an AMQP 0-9-1 broker",
    b"AMQP\x00\x00\x09\x01": "it is not an AMQP 0-9-1 broker",
    b"\x15\x03\x03\x00\x02\x02\x0a": "it is not an AMQP 0-9-1 broker",  # an alert of TLS
    b"\x01\x00\x00\x00\x00\x00\x04\x00\x0a\x00\x1e\xce": "the broker breaks the protocol: ",  # Connection.Tune, cut off
}


@pytest.mark.parametrize("answer", REASONS)
@asynchronous
async def test_what_is_no_broker_is_told(answer: bytes) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(8)  # the protocol header: otherwise the end of the socket would be a reset
        writer.write(answer)
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        url = f"amqp://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        with pytest.raises(ToolError) as caught:
            async with session((url,), "test", Output("test")):
                raise AssertionError("it is connected")
    assert caught.value.status == NO_CONNECTION
    assert str(caught.value).startswith(f"no connection to {url}: {REASONS[answer]}")


@asynchronous
async def test_what_a_url_asks_for_must_exist() -> None:
    with pytest.raises(LocalError, match="the mechanism 'GSSAPI' is not supported"):
        await Connection.open("amqp://127.0.0.1:1/?auth_mechanism=gssapi", "test", timeout=LONG)
    with pytest.raises(ToolError, match=r"no connection to .*: the mechanism 'GSSAPI' is not supported") as caught:
        async with session(("amqp://127.0.0.1:1/?auth_mechanism=gssapi",), "test", Output("test")):
            raise AssertionError("it is connected")
    assert caught.value.status == NO_CONNECTION


@asynchronous
async def test_connecting_can_be_cancelled() -> None:
    silent = asyncio.Event()
    ended = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        silent.set()
        await reader.read()
        writer.close()
        await writer.wait_closed()
        ended.set()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        url = f"amqp://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        connecting = asyncio.create_task(Connection.open(url, "test", timeout=LONG))
        await within(silent.wait(), "a connection", LONG)
        connecting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await connecting
        await within(ended.wait(), "the end of the socket", LONG)
        ended.clear()
        with pytest.raises(TimeoutError):
            await Connection.open(url, "test", timeout=0.1)
        await within(ended.wait(), "the end of the socket", LONG)


# --- TLS ---


@asynchronous
async def test_tls_checks_the_broker_and_shows_a_certificate(tmp_path: Path) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    authority.issue_cert("tool@example.org").private_key_and_cert_chain_pem.write_to_path(tmp_path / "tool.pem")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.configure_trust(context)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    context.verify_mode = ssl.CERT_REQUIRED

    async def told(url: str) -> str:
        with pytest.raises(ToolError) as caught:
            async with session((url,), "test", Output("test")):
                raise AssertionError("it is connected")
        assert caught.value.status == NO_CONNECTION
        return str(caught.value)

    async with EmbeddedBroker(ssl=context) as broker:
        url = broker.url
        mine = f"cafile={tmp_path}/ca.pem"
        async with connected(broker, f"{url}?{mine}&certfile={tmp_path}/tool.pem") as connection:
            channel = await connection.channel()
            assert (await channel.ask(Queue.Declare(queue="q", exclusive=True))).queue == "q"
        assert "(does it require a client certificate?)" in await told(f"{url}?{mine}")
        assert "TLS failed: " in await told(url)
        assert "(does SSL_CERT_FILE name the file of your own authority?)" in await told(url)
        missing = "a file that the URL names cannot be read: no such file or directory"
        assert missing in await told(f"{url}?cafile={tmp_path}/nowhere.pem")
