"""An authority of our own, and brokers with certificates from it."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import trustme

from eda_tools.broker import EmbeddedBrokerThread
from tests.support.rabbitmq import RabbitNode, free_port


@dataclass(frozen=True, slots=True)
class TlsBroker:
    """A broker with a certificate for the name localhost, from ``authority``.

    Attributes:
        port: of 127.0.0.1.
        file: the authority's certificate.
    """

    port: int
    authority: trustme.CA
    file: Path

    def url(self, host: str = "localhost") -> str:
        return f"amqps://guest:guest@{host}:{self.port}/"

    @property
    def context(self) -> ssl.SSLContext:
        """A context for clients that trusts the authority and nobody else."""
        return ssl.create_default_context(cafile=str(self.file))


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="session")
def embedded_tls(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TlsBroker]:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(context)
    file = tmp_path_factory.mktemp("tls") / "ca.pem"
    authority.cert_pem.write_to_path(file)
    with EmbeddedBrokerThread(ssl=context) as broker:
        yield TlsBroker(broker.port, authority, file)


@pytest.fixture(scope="session")
def rabbit_tls(
    request: pytest.FixtureRequest, authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[TlsBroker]:
    request.getfixturevalue("rabbitmq")  # skips, or fails in CI, where there is none
    directory, port, node = tmp_path_factory.mktemp("tls"), free_port(), RabbitNode()
    certificate = authority.issue_cert("localhost")
    chain, key, file = (directory / name for name in ("chain.pem", "key.pem", "ca.pem"))
    for number, blob in enumerate(certificate.cert_chain_pems):
        blob.write_to_path(chain, append=number > 0)
    certificate.private_key_pem.write_to_path(key)
    authority.cert_pem.write_to_path(file)
    with (node.directory / "rabbitmq.conf").open("a") as settings:
        settings.write(
            f"listeners.ssl.1 = 127.0.0.1:{port}\n"
            f"ssl_options.cacertfile = {file}\n"
            f"ssl_options.certfile = {chain}\n"
            f"ssl_options.keyfile = {key}\n"
        )
    with node:
        yield TlsBroker(port, authority, file)


@pytest.fixture(params=["embedded", pytest.param("rabbitmq", marks=pytest.mark.rabbitmq)])
def broker(request: pytest.FixtureRequest) -> TlsBroker:
    name = "rabbit_tls" if request.param == "rabbitmq" else "embedded_tls"
    found: TlsBroker = request.getfixturevalue(name)
    return found


@pytest.fixture
def embedded_plain() -> Iterator[int]:
    """The port of a broker that does not speak TLS."""
    with EmbeddedBrokerThread() as broker:
        yield broker.port
