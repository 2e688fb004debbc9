"""The plugin for pytest: brokers, a bus and running services as fixtures. pytest finds it; there is nothing to import.

``eda_broker``
    An empty broker for each test, the embedded one by default, for any AMQP client: its ``url``.
``eda_rabbitmq``
    An empty vhost of a private RabbitMQ node, where RabbitMQ is installed.
``eda_bus``
    Publishes, and expects events, commands, results, logs and dead letters.
``eda_service``
    Runs services under test, and fails the test if one dies.
``eda_replay``
    Gives a service what a recording holds, and compares what it publishes.

It is a package of its own so that pytest starts as fast as before: nothing of the toolkit is loaded before a test asks
for a fixture.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final, Protocol

import pytest

if TYPE_CHECKING:
    from eda_core.testing.live import Bus, RabbitNode, RabbitVhost, ServiceRunner, VhostPool

__all__ = ["Broker"]

#: What to do where there is no RabbitMQ.
_HOW_TO_GET_IT: Final = (
    "RabbitMQ is not installed: apt-get install rabbitmq-server, or brew install rabbitmq; or let EDA_RABBITMQ name "
    "the directory of its programs"
)


class Broker(Protocol):
    """What the fixture ``eda_broker`` gives. The embedded broker also has ``cut``, ``kill`` and ``operate``."""

    @property
    def url(self) -> str:
        """The URL of the broker, or of a vhost of it."""


class _Given:
    """A broker that runs already."""

    def __init__(self, url: str) -> None:
        self.url = url


_RUNNER: Final = pytest.StashKey["ServiceRunner"]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options."""
    group = parser.getgroup("eda", "services on AMQP (eda-core)")
    group.addoption(
        "--eda-broker",
        choices=("embedded", "rabbitmq"),
        default="embedded",
        help="what eda_broker is: the embedded broker, or a vhost of a private RabbitMQ node (default: %(default)s)",
    )
    group.addoption(
        "--eda-url",
        metavar="URL",
        help="what eda_broker is: this broker, which runs already; {worker} in it becomes the name of the worker of "
        "pytest-xdist, so that each has a vhost of its own",
    )
    group.addoption(
        "--eda-update", action="store_true", help="eda_replay writes what services publish now, and compares nothing"
    )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """Fail a test whose service has died, with the traceback of the service."""
    yield
    runner = item.stash.get(_RUNNER, None)
    if runner is not None and runner.errors:
        raise runner.errors[0]


def _given_url(config: pytest.Config) -> str | None:
    url: str | None = config.getoption("--eda-url")
    worker = os.environ.get("PYTEST_XDIST_WORKER")
    if url is None or (worker is None and "{worker}" not in url):
        return url
    if "{worker}" not in url:
        raise pytest.UsageError(
            "--eda-url: the workers of pytest-xdist would share the queues of one vhost; make a vhost for each, "
            "and write {worker} for its name: amqp://localhost/{worker}"
        )
    return url.replace("{worker}", worker or "main")


@pytest.fixture
def eda_broker(request: pytest.FixtureRequest) -> Iterator[Broker]:
    """An empty broker for the test: its ``url`` is for any AMQP client, or for a service.

    It is the embedded broker, with what the operator of a RabbitMQ sets up for dead letters. ``--eda-broker=rabbitmq``
    takes a vhost of a private node of RabbitMQ instead, and so does a test that also asks for ``eda_rabbitmq``.
    ``--eda-url`` takes a broker that runs.
    """
    url = _given_url(request.config)
    if "eda_rabbitmq" in request.fixturenames:
        yield request.getfixturevalue("eda_rabbitmq")
    elif url is not None:
        yield _Given(url)
    elif request.config.getoption("--eda-broker") == "rabbitmq":
        yield request.getfixturevalue("eda_rabbitmq")
    else:
        from eda_core.testing.live import EmbeddedBrokerThread

        with EmbeddedBrokerThread() as broker:
            yield broker


@pytest.fixture(scope="session")
def eda_rabbitmq_node() -> Iterator[RabbitNode]:
    """A private node of RabbitMQ, which the tests of this process share. It leaves nothing behind."""
    from eda_core.testing.live import RabbitNode
    from eda_core.testing.live.rabbitmq import find_server

    if find_server() is None:
        pytest.skip(_HOW_TO_GET_IT)
    with RabbitNode() as node:
        yield node


@pytest.fixture(scope="session")
def eda_rabbitmq_vhosts(eda_rabbitmq_node: RabbitNode) -> VhostPool:
    """The vhosts of the node."""
    from eda_core.testing.live import VhostPool

    return VhostPool(eda_rabbitmq_node, dead_letters=True)


@pytest.fixture
def eda_rabbitmq(eda_rabbitmq_node: RabbitNode, eda_rabbitmq_vhosts: VhostPool) -> Iterator[RabbitVhost]:
    """An empty vhost of a private RabbitMQ node, with its ``url``, and with dead letters set up.

    The test may kill its ``node``, freeze it and raise alarms: the next test finds it in order. Where RabbitMQ is not
    installed the test is skipped.
    """
    import asyncio
    from concurrent.futures import ThreadPoolExecutor

    from eda_core.testing.live import RabbitVhost, prepare_dead_letters

    _in_order(eda_rabbitmq_node)
    vhost = RabbitVhost(eda_rabbitmq_node, eda_rabbitmq_vhosts.take())
    with ThreadPoolExecutor(1) as thread:  # this one may have an event loop
        thread.submit(lambda: asyncio.run(prepare_dead_letters(vhost.url))).result()
    yield vhost
    eda_rabbitmq_vhosts.give_back(vhost.vhost)


def _in_order(node: RabbitNode) -> None:
    """Undo what a test may have done to the node."""
    if node.running:
        node.resume()
    node.start()
    if node.alarmed:
        node.set_memory_alarm(False)
    if node.limited:
        node.limit_messages(None)


@pytest.fixture
def eda_bus(eda_broker: Broker) -> Iterator[Bus]:
    """Publishes for the test, and watches all that services publish: see ``eda_core.testing.live.Bus``.

    In a test that is a coroutine, await the methods of ``eda_bus.aio``.
    """
    from eda_core.testing.live import Bus

    with Bus(eda_broker.url) as bus:
        yield bus


@pytest.fixture
def eda_service(request: pytest.FixtureRequest, eda_broker: Broker) -> Iterator[ServiceRunner]:
    """Runs services under test until its end: ``eda_service(service)`` in a thread.

    In a test that is a coroutine, ``async with eda_service.aio(service)`` runs it in the event loop of the test. A
    service that ends with an error fails the test: see ``eda_core.testing.live.ServiceRunner``.
    """
    from eda_core.testing.live import ServiceRunner

    bus: Any = request.getfixturevalue("eda_bus") if "eda_bus" in request.fixturenames else None
    runner = ServiceRunner(died=(lambda _: None) if bus is None else bus.service_died)
    request.node.stash[_RUNNER] = runner
    yield runner
    runner.stop()


@pytest.fixture
def eda_replay(request: pytest.FixtureRequest) -> Callable[..., None]:
    """Gives a service what a recording or a journal holds, and compares what it publishes with the expectation.

    ``eda_replay("calls.cbor", Billing)``: the path begins at the test's own directory, and ``Billing(url)`` makes the
    service. ``--eda-update`` writes the expectation, beside the recording: see ``eda_core.testing.live.replay``.
    """
    from eda_core.testing.live import replay

    def run(path: str, make: Callable[[str], Any], *, expectation: str | None = None) -> None:
        __tracebackhide__ = True
        here = request.path.parent
        expected = None if expectation is None else here / expectation
        replay(here / path, make, update=request.config.getoption("--eda-update"), expectation=expected)

    return run
