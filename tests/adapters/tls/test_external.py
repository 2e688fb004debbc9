"""A client's certificate as its login: the mechanism EXTERNAL, on RabbitMQ with the plugin that brings it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import trustme

from eda_core.testing.live.rabbitmq import RabbitNode as Node
from eda_kombu import NotConfirmed
from tests.adapters.aio.conftest import transport
from tests.adapters.kombu.support import Publisher
from tests.adapters.pika.support import Listener as PikaListener
from tests.adapters.pika.support import publish
from tests.adapters.pika.support import running as pika_running
from tests.adapters.tls.conftest import TlsBroker
from tests.adapters.tls.test_tls import Listener, refused
from tests.adapters.tls.test_tls_pika import refused as pika_refused
from tests.conformance.test_conformance import ADAPTERS
from tests.conformance.test_refused_logins import error_of
from tests.support.rabbitmq import RabbitNode, free_port
from tests.support.services import asynchronous, reports, running

__all__ = ["transport"]
USER = "transcriber"
NO_USER = "the broker has no user of the name in the client's certificate"
NOT_OFFERED = "the broker does not offer the mechanism "

on_both_transports = pytest.mark.parametrize("transport", ["aio-pika", "native"], indirect=True)


@dataclass(frozen=True, slots=True)
class Certificates:
    """A broker that takes certificates for logins and nothing else, and those of its clients.

    Attributes:
        url_of: the URL with which a client shows the certificate with this common name.
    """

    node: Node
    url_of: Callable[[str], str]

    def logins(self) -> set[tuple[str, ...]]:
        """The user and the mechanism of each connection that has logged in. Others may still be closing."""
        listed = self.node.ctl("list_connections", "-q", "user", "auth_mechanism")
        found = {tuple(line.split("\t")) for line in listed.splitlines()}
        return {login for login in found if login[0] not in ("", "user")}


@pytest.fixture(scope="module")
def certificates(
    request: pytest.FixtureRequest, authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Certificates]:
    request.getfixturevalue("rabbitmq")  # skips, or fails in CI, where there is none
    directory, port, node = tmp_path_factory.mktemp("external"), free_port(), RabbitNode()
    authority.cert_pem.write_to_path(directory / "ca.pem")
    _write(directory / "broker.pem", authority.issue_cert("localhost"))
    (node.directory / "plugins").write_text("[rabbitmq_auth_mechanism_ssl].\n")
    node.configure(
        f"listeners.ssl.1 = 127.0.0.1:{port}\n"
        f"ssl_options.cacertfile = {directory}/ca.pem\n"
        f"ssl_options.certfile = {directory}/broker.pem\n"
        f"ssl_options.keyfile = {directory}/broker.pem\n"
        "ssl_options.verify = verify_peer\n"
        "ssl_options.fail_if_no_peer_cert = true\n"
        "ssl_cert_login_from = common_name\n"
        "auth_mechanisms.1 = EXTERNAL"
    )

    def url_of(user: str) -> str:
        file = directory / f"{user}.pem"
        if not file.exists():
            _write(file, authority.issue_cert(f"{user}.example.org", common_name=user))
        files = f"cafile={directory}/ca.pem&certfile={file}&keyfile={file}"
        return f"amqps://localhost:{port}/?{files}&auth_mechanism=EXTERNAL"

    with node:
        node.ctl("add_user", USER, "nobody asks for this password")
        node.ctl("set_permissions", USER, ".*", ".*", ".*")
        yield Certificates(node, url_of)


def _write(file: Path, certificate: trustme.LeafCert) -> None:
    certificate.private_key_and_cert_chain_pem.write_to_path(file)


@pytest.mark.rabbitmq
@on_both_transports
@asynchronous
async def test_aio(certificates: Certificates) -> None:
    made = Listener(certificates.url_of(USER), ["Happened"])
    async with running(made):
        await made.publish_event("Happened", "by certificate", "c")
        assert await made.seen.next() == "by certificate"
        assert await asyncio.to_thread(certificates.logins) == {(USER, "EXTERNAL")}


@pytest.mark.rabbitmq
@pytest.mark.parametrize("adapter", ADAPTERS)
@asynchronous
async def test_a_certificate_of_no_user_ends_a_service(adapter: str, certificates: Certificates) -> None:
    assert NO_USER in str(await error_of(adapter, certificates.url_of("nobody")))


@on_both_transports
@asynchronous
async def test_aio_with_a_broker_that_does_not_offer_it(embedded_tls: TlsBroker) -> None:
    with reports() as log:
        assert NOT_OFFERED in await refused(Listener(without(embedded_tls), ["Happened"]), log)


def without(broker: TlsBroker) -> str:
    """The URL of a broker that knows passwords only."""
    return f"{broker.url()}?cafile={broker.file}&auth_mechanism=external"


@pytest.mark.rabbitmq
@asynchronous
async def test_pika(certificates: Certificates) -> None:
    service = PikaListener(certificates.url_of(USER), ["Happened"])
    async with pika_running(service):
        await publish(service, "by certificate")
        await service.seen.count(1)
        assert await asyncio.to_thread(certificates.logins) == {(USER, "EXTERNAL")}


@asynchronous
async def test_pika_with_a_broker_that_does_not_offer_it(embedded_tls: TlsBroker) -> None:
    assert "AuthenticationError: EXTERNAL" in await pika_refused(PikaListener(without(embedded_tls), ["Happened"]))


@pytest.mark.rabbitmq
def test_kombu(certificates: Certificates) -> None:
    with Publisher(certificates.url_of(USER), "source", 0) as endpoint:
        endpoint.publish_event("Happened", "by certificate", "c")
        assert certificates.logins() == {(USER, "EXTERNAL")}


@pytest.mark.rabbitmq
def test_kombu_with_a_certificate_of_no_user(certificates: Certificates) -> None:
    with Publisher(certificates.url_of("nobody"), "source", 0) as endpoint:
        with pytest.raises(NotConfirmed, match=NO_USER):
            endpoint.publish_event("Happened", 1, "c")


def test_kombu_with_a_broker_that_does_not_offer_it(embedded_tls: TlsBroker) -> None:
    with Publisher(without(embedded_tls), "source", 0) as endpoint:
        with pytest.raises(NotConfirmed, match=r"mechanism .*can offer: EXTERNAL; available: PLAIN"):
            endpoint.publish_event("Happened", 1, "c")
