"""The brokers that eda_aio is tested on."""

from collections.abc import Iterator

import pytest

from eda_tools.broker import EmbeddedBrokerThread
from tests.support.services import TestBroker


@pytest.fixture(params=["embedded", pytest.param("rabbitmq", marks=pytest.mark.rabbitmq)])
def broker(request: pytest.FixtureRequest) -> Iterator[TestBroker]:
    """An empty broker of each kind."""
    if request.param == "rabbitmq":
        url = request.getfixturevalue("rabbit_url")
        yield TestBroker(url, request.getfixturevalue("rabbitmq"), request.getfixturevalue("rabbit_vhost"))
    else:
        with EmbeddedBrokerThread() as embedded:
            yield TestBroker(embedded.url.replace("amqp://", "amqp://guest:guest@"))
