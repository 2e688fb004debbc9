"""The brokers and the transports that eda_aio is tested on."""

from collections.abc import Iterator

import pytest

import eda_aio
from eda_tools.broker import EmbeddedBrokerThread
from tests.support.services import BrokerUnderTest

#: Here the transport makes no difference, or programs have their own.
ONE_TRANSPORT = (
    "test_batch",
    "test_counts",
    "test_health",
    "test_native_bounds",
    "test_signals",
    "test_structured",
    "test_webapp",
)


@pytest.fixture(params=["embedded", pytest.param("rabbitmq", marks=pytest.mark.rabbitmq)])
def broker(request: pytest.FixtureRequest) -> Iterator[BrokerUnderTest]:
    """An empty broker of each kind."""
    if request.param == "rabbitmq":
        url, vhost = request.getfixturevalue("rabbit_url"), request.getfixturevalue("rabbit_vhost")
        yield BrokerUnderTest(url, node=request.getfixturevalue("rabbitmq"), vhost=vhost)
    else:
        with EmbeddedBrokerThread() as embedded:
            yield BrokerUnderTest(embedded.url, embedded)


@pytest.fixture(autouse=True)
def transport(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The transport of the services."""
    name: str = getattr(request, "param", "aio-pika")
    monkeypatch.setattr(eda_aio.Service, "TRANSPORT", name)
    return name


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run each test on each transport, if it makes a difference."""
    module = metafunc.module.__name__.rpartition(".")[2]
    if "transport" in metafunc.fixturenames and module not in ONE_TRANSPORT:
        metafunc.parametrize("transport", ["aio-pika", "native"], indirect=True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What runs on both brokers runs on both with one transport; the conformance checks run with each on each."""
    items[:] = [item for item in items if not _on_both(item)]


def _on_both(item: pytest.Item) -> bool:
    given = getattr(getattr(item, "callspec", None), "params", {})
    return given.get("transport") == "native" and given.get("broker") == "rabbitmq"
