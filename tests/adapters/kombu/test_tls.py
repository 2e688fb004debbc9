"""``amqps://``: which brokers an Endpoint trusts."""

from __future__ import annotations

import asyncio
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trustme

from eda_kombu import NotConfirmed
from eda_tools.broker import EmbeddedBrokerThread
from tests.adapters.kombu.support import TIMEOUT, Publisher, witness

AUTHORITY = trustme.CA()


def trusting(authority: trustme.CA) -> ssl.SSLContext:
    """A context for clients that trusts one authority."""
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


@contextmanager
def tls_front(port: int, host: str) -> Iterator[str]:
    """The URL of a TLS server with a certificate for ``host``, in front of the broker at ``port``."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    AUTHORITY.issue_cert(host).configure_cert(context)
    loop = asyncio.new_event_loop()

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                writer.write(data)
        except OSError:
            pass
        finally:
            writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        back_reader, back_writer = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(relay(reader, back_writer), relay(back_reader, writer))

    async def start() -> asyncio.Server:
        return await asyncio.start_server(serve, "127.0.0.1", ssl=context)

    async def stop(server: asyncio.Server) -> None:
        server.close()
        rest = asyncio.all_tasks() - {asyncio.current_task()}
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)
        await asyncio.sleep(0)

    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    server = asyncio.run_coroutine_threadsafe(start(), loop).result(TIMEOUT)
    try:
        yield f"amqps://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    finally:
        asyncio.run_coroutine_threadsafe(stop(server), loop).result(TIMEOUT)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@pytest.fixture(scope="module")
def broker() -> Iterator[EmbeddedBrokerThread]:
    with EmbeddedBrokerThread() as embedded:
        yield embedded


def test_a_broker_with_a_trusted_certificate(broker: EmbeddedBrokerThread) -> None:
    with witness(broker.url) as seen, tls_front(broker.port, "127.0.0.1") as url:
        queue = seen.queue("events", name="kept")
        with Publisher(url, "source", ssl=trusting(AUTHORITY)) as endpoint:
            endpoint.publish_event("Happened", 1, "c")
            endpoint.publish_many(("Happened", "x" * 1000, "c") for _ in range(300))
            assert seen.waiting(queue) == 301


def test_a_broker_whose_authority_the_url_names(broker: EmbeddedBrokerThread, tmp_path: Path) -> None:
    AUTHORITY.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    with tls_front(broker.port, "127.0.0.1") as url, Publisher(f"{url}?cafile={tmp_path}/ca.pem", "source") as endpoint:
        endpoint.publish_event("Happened", 1, "c")


def test_an_authority_that_is_not_there_is_the_reason(broker: EmbeddedBrokerThread, tmp_path: Path) -> None:
    with tls_front(broker.port, "127.0.0.1") as url:
        with Publisher(f"{url}?cafile={tmp_path}/nothing.pem", "source", 0) as endpoint:
            with pytest.raises(NotConfirmed, match="No such file") as caught:
                endpoint.publish_event("Happened", 1, "c")
            assert not caught.value.may_arrive


@pytest.mark.parametrize(
    ("host", "context", "reason"),
    [
        ("127.0.0.1", None, "unable to get local issuer certificate"),
        ("127.0.0.1", trusting(trustme.CA()), "unable to get local issuer certificate"),
        ("broker.example.org", trusting(AUTHORITY), "IP address mismatch"),
    ],
    ids=["by default", "another authority", "another host's"],
)
def test_a_wrong_certificate_refuses_to_connect(
    broker: EmbeddedBrokerThread, host: str, context: ssl.SSLContext | None, reason: str
) -> None:
    with tls_front(broker.port, host) as url, Publisher(url, "source", 0, ssl=context) as endpoint:
        with pytest.raises(NotConfirmed, match=reason) as caught:
            endpoint.publish_event("Happened", 1, "c")
        assert not caught.value.may_arrive
