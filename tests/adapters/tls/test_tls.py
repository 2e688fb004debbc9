"""TLS: each adapter trusts a broker by its authority and its name."""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
import threading
from pathlib import Path
from typing import Any

import pytest
import trustme

from eda_core.testing.conformance.unreadable import UNREADABLE
from eda_tools.broker import EmbeddedBrokerThread
from eda_tools.cli import status as cli
from tests.adapters.aio.conftest import transport
from tests.adapters.tls.conftest import TlsBroker
from tests.support.octets import octet_publisher
from tests.support.services import Probe, Record, asynchronous, reports, running, within
from tests.support.tools import Ran, run_tool

Meta = dict[str, Any]

__all__ = ["transport"]
pytestmark = pytest.mark.parametrize("transport", ["aio-pika", "native"], indirect=True)


class Listener(Probe):
    async def on_Happened(self, payload: Any, conversation_id: str, meta: Meta) -> None:
        self.seen.add(payload)


def service(url: str, context: ssl.SSLContext | None) -> Listener:
    made = Listener(url, ["Happened"])
    made.ssl_context = context
    return made


async def refused(made: Listener, log: Record[str]) -> str:
    """The reason why the service does not connect."""
    run = asyncio.create_task(made.run())
    await log.until(lambda lines: any("no link to" in line for line in lines), "an attempt in vain")
    await made.stop(0.0)
    await within(run, "the service stops")
    assert not made.ready.all
    return next(line for line in log.all if "no link to" in line)


@asynchronous
async def test_a_context_that_trusts_the_authority(broker: TlsBroker) -> None:
    made = service(broker.url(), broker.context)
    async with running(made):
        await made.publish_event("Happened", "in secret", "c")
        assert await made.seen.next() == "in secret"


@asynchronous
async def test_messages_that_cannot_be_read_cost_no_link(broker: TlsBroker) -> None:
    made = Listener(broker.url(), ["Happened", "odd.#"])
    made.ssl_context = broker.context
    async with running(made), octet_publisher(broker.url(), broker.context) as publisher:
        for put, _ in UNREADABLE.values():
            await publisher.put(put)
        await made.publish_event("Happened", "the last", "c")
        assert await made.seen.next() == "the last"
    assert (made.seen.all, made.ready.all) == (["the last"], [1])


@asynchronous
async def test_the_authority_in_the_url(broker: TlsBroker) -> None:
    made = service(f"{broker.url()}?cafile={broker.file}", None)
    async with running(made):
        await made.publish_event("Happened", 1, "c")
        assert await made.seen.next() == 1


@asynchronous
async def test_by_default_only_the_authorities_of_the_system_are_trusted(broker: TlsBroker) -> None:
    with reports() as log:
        assert "CERTIFICATE_VERIFY_FAILED" in await refused(service(broker.url(), None), log)


@asynchronous
async def test_another_authority_is_not_trusted(broker: TlsBroker) -> None:
    other = ssl.create_default_context()
    trustme.CA().configure_trust(other)
    with reports() as log:
        assert "CERTIFICATE_VERIFY_FAILED" in await refused(service(broker.url(), other), log)


@asynchronous
async def test_a_certificate_for_another_name_is_not_trusted(broker: TlsBroker) -> None:
    with reports() as log:
        reason = await refused(service(broker.url("127.0.0.1"), broker.context), log)
    assert "IP address mismatch" in reason


@asynchronous
async def test_a_broker_without_tls_is_refused(embedded_tls: TlsBroker, embedded_plain: int) -> None:
    with reports() as log:
        reason = await refused(service(f"amqps://guest:guest@localhost:{embedded_plain}/", embedded_tls.context), log)
    assert "no link to amqps://guest:***@localhost" in reason


# --- the tools: they say in one line what is wrong, with status 4 ---


def inspect(url: str, authorities: object = "") -> Ran:
    """Look at a queue that does not exist. The exit status 1 says that the tool has connected."""
    env = {"SSL_CERT_FILE": str(authorities)} if authorities else {}
    return asyncio.run(run_tool("inspect_queue", url, "nowhere", env=env))


CONNECTED = (1, "inspect_queue.py: there is no queue 'nowhere'")


def test_tools_trust_the_authorities_of_the_environment_and_of_the_url(broker: TlsBroker) -> None:
    for url, authorities in ((broker.url(), broker.file), (f"{broker.url()}?cafile={broker.file}", "")):
        ran = inspect(url, authorities)
        assert (ran.status, ran.line) == CONNECTED
    ran = asyncio.run(  # by the core, where inspect_queue connects by itself
        run_tool("send_command", broker.url(), "a.B", "--data", "1", env={"SSL_CERT_FILE": str(broker.file)})
    )
    assert (ran.status, ran.out) == (cli.FAILED, "")
    assert ran.line.startswith("send_command.py: no service is bound to a.B")


def test_tools_tell_why_a_broker_is_not_trusted(broker: TlsBroker, tmp_path: Path) -> None:
    other = tmp_path / "other.pem"
    trustme.CA().cert_pem.write_to_path(other)
    wrong_authority = inspect(broker.url(), other)
    told = f"inspect_queue.py: no connection to amqps://guest:***@localhost:{broker.port}/: TLS failed: "
    assert (wrong_authority.status, wrong_authority.out) == (cli.NO_CONNECTION, "")
    assert wrong_authority.line.startswith(told)
    assert wrong_authority.line.endswith(" (does SSL_CERT_FILE name the file of your own authority?)")
    wrong_name = inspect(broker.url("127.0.0.1"), broker.file)
    assert (wrong_name.status, wrong_name.out) == (cli.NO_CONNECTION, "")
    assert wrong_name.line.endswith(": IP address mismatch, certificate is not valid for '127.0.0.1'.")


def test_tools_tell_what_is_wrong_with_a_url(embedded_tls: TlsBroker, embedded_plain: int, tmp_path: Path) -> None:
    (tmp_path / "text.pem").write_text("no certificate")
    for url, told in (
        (f"{embedded_tls.url()}?cafile={tmp_path}/nowhere", "a file that the URL names cannot be read: no such file"),
        (f"{embedded_tls.url()}?cafile={tmp_path}/text.pem", "TLS failed: no certificate or crl found"),
        (
            embedded_tls.url().replace("amqps", "amqp"),
            "closed the connection without giving a reason (does it require amqps://?)",
        ),
        (f"amqps://localhost:{embedded_plain}/", "TLS failed: the server does not use TLS"),
    ):
        ran = inspect(url)
        assert (ran.status, ran.out) == (cli.NO_CONNECTION, "")
        assert told in ran.line


def test_tools_have_the_same_hint_when_the_broker_resets_the_connection() -> None:
    def reset() -> None:
        connection = server.accept()[0]
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.recv(1)
        connection.close()

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=reset)
        thread.start()
        ran = inspect(f"amqp://127.0.0.1:{server.getsockname()[1]}/")
        thread.join()
    assert (ran.status, ran.out) == (cli.NO_CONNECTION, "")
    assert ran.line.endswith(": connection reset by peer (does it require amqps://?)")


def test_tools_show_a_certificate_of_their_own(authority: trustme.CA, embedded_tls: TlsBroker, tmp_path: Path) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(context)
    authority.configure_trust(context)
    context.verify_mode = ssl.CERT_REQUIRED
    mine = authority.issue_cert("operator")
    mine.private_key_pem.write_to_path(tmp_path / "key.pem")
    mine.cert_chain_pems[0].write_to_path(tmp_path / "mine.pem")
    with EmbeddedBrokerThread(ssl=context) as strict:
        url = f"amqps://localhost:{strict.port}/?cafile={embedded_tls.file}"
        ran = inspect(url)
        assert ran.status == cli.NO_CONNECTION
        assert ran.line.endswith("(does it require a client certificate?)")
        ran = inspect(f"{url}&certfile={tmp_path}/mine.pem&keyfile={tmp_path}/key.pem")
        assert (ran.status, ran.line) == CONNECTED
