"""Fixtures for the whole suite: RabbitMQ nodes and vhosts, and the profiles of hypothesis."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from tests.support.rabbitmq import RabbitNode, find_server
from tests.support.rabbitmq_cluster import RabbitCluster
from tests.support.signals import take_none_for_ignored
from tests.support.vhosts import VhostPool, Victim, Victims

TESTS = Path(__file__).parent
#: The files that take 20 s or more, the longest first. A name that is none any more does no harm.
LONGEST = (
    "conformance/test_conformance",
    "core/testing/explorer/test_explorer",
    "differential/test_differential",
    "core/testing/explorer/test_planted_bugs",
    "core/testing/explorer/test_rules",
    "tools/test_publishing_tools",
    "adapters/kombu/test_faults",
    "tools/test_doctor",
    "conformance/test_cuts",
    "test_rabbitmq_node",
    "test_rabbitmq_cluster",
    "tools/test_watching_tools",
    "tools/test_inspect_queue",
    "tools/test_resurrect_in_trouble",
    "adapters/aio/test_faults",
    "adapters/tls/test_tls",
    "tools/test_topology",
    "tools/test_trace",
    "conformance/test_processes",
    "examples/test_conversations_end_to_end",
)
ADVICE = "RabbitMQ is not installed: apt-get update && apt-get install -y rabbitmq-server"
RABBIT_FIXTURES = frozenset(
    {"rabbitmq", "rabbit_victim", "rabbit_vhost", "rabbit_url", "rabbit_management", "rabbit_cluster"}
)

# No deadline, and no check of how fast examples are drawn: such times say more about the machine than about the code.
PATIENT: dict[str, Any] = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("default", **PATIENT)
settings.register_profile("deep", **PATIENT, max_examples=5_000, stateful_step_count=100)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


def pytest_configure() -> None:
    """Tests start programs from threads as well, where what they inherit cannot be changed."""
    take_none_for_ignored()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark what needs a server, so that ``-m "not rabbitmq"`` leaves exactly that out; among workers, order the files.

    What takes longest is begun first: else all others wait in the end for who happens to come to it last.
    """
    for item in items:
        if not RABBIT_FIXTURES.isdisjoint(getattr(item, "fixturenames", ())):
            item.add_marker("rabbitmq")
    if hasattr(config, "workerinput"):
        ranks = {TESTS / f"{name}.py": rank for rank, name in enumerate(LONGEST)}
        items.sort(key=lambda item: ranks.get(item.path, len(ranks)))


def _require_server() -> None:
    """Skip the test where there is no RabbitMQ; under CI=true fail, since a skip there would hide much of the suite."""
    if find_server() is None:
        if os.environ.get("CI", "").lower() == "true":
            pytest.fail(ADVICE, pytrace=False)
        pytest.skip(ADVICE)


@pytest.fixture(scope="session")
def rabbitmq() -> Iterator[RabbitNode]:
    """The node that tests share. A test that kills, freezes or alarms a node takes ``rabbit_victim`` instead."""
    _require_server()
    with RabbitNode() as node:
        yield node


@pytest.fixture(scope="session")
def rabbit_management() -> Iterator[RabbitNode]:
    """A second node that tests share, with the management plugin; kept apart, since few tests need to wait for it."""
    _require_server()
    node = RabbitNode(management=True)
    try:
        node.start()
        yield node
    finally:
        node.stop(grace=0.0)  # in good order it takes 6 s, and nobody asks for its data


@pytest.fixture(scope="module")
def rabbit_cluster() -> Iterator[RabbitCluster]:
    """A cluster of three, which the tests of a module may mistreat if they mend it."""
    _require_server()
    with RabbitCluster() as cluster:
        yield cluster


@pytest.fixture(scope="session")
def rabbit_victims() -> Iterator[Victims]:
    """The node that tests mistreat, or the next one where that was too much for it."""
    _require_server()
    victims = Victims()
    yield victims
    victims.end()


@pytest.fixture
def rabbit_victim(rabbit_victims: Victims) -> Iterator[Victim]:
    """A vhost that is the test's own, on a node that it may kill, freeze and alarm."""
    victim = rabbit_victims.take()
    yield victim
    rabbit_victims.give_back(victim)


@pytest.fixture(scope="session")
def rabbit_vhosts(rabbitmq: RabbitNode) -> VhostPool:
    """The vhosts of the shared node."""
    return VhostPool(rabbitmq)


@pytest.fixture
def rabbit_vhost(rabbit_vhosts: VhostPool) -> Iterator[str]:
    """The name of a vhost of the shared node that is the test's own, for ``rabbitmq.ctl(..., "-p", rabbit_vhost)``."""
    name = rabbit_vhosts.take()
    yield name
    rabbit_vhosts.give_back(name)


@pytest.fixture
def counted(record_property: Callable[[str, object], None]) -> Callable[[object], None]:
    """Tell what a test has counted: it is printed at the end of the run, whichever process the test was in."""
    return lambda what: record_property("counted", str(what))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what the tests have counted. Their reports come from whichever process they were in."""
    reports = (each for group in terminalreporter.stats.values() for each in group)
    told = (each.user_properties for each in reports if isinstance(each, pytest.TestReport) and each.when == "call")
    lines = [text for properties in told for name, text in properties if name == "counted"]
    if lines:
        terminalreporter.section("counted")
    for line in lines:
        terminalreporter.write_line(str(line))


@pytest.fixture
def rabbit_url(rabbitmq: RabbitNode, rabbit_vhost: str) -> str:
    """The address of ``rabbit_vhost``: an empty broker, as far as the test can see."""
    return rabbitmq.vhost_url(rabbit_vhost)
