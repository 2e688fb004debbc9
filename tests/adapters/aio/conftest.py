"""The brokers that eda_aio is tested on."""

from collections.abc import Iterator

import pytest

from eda_tools.broker import EmbeddedBrokerThread
from tests.support.services import BrokerUnderTest


@pytest.fixture(params=["embedded", pytest.param("rabbitmq", marks=pytest.mark.rabbitmq)])
def broker(request: pytest.FixtureRequest) -> Iterator[BrokerUnderTest]:
    """An empty broker of each kind."""
    if request.param == "rabbitmq":
        url, vhost = request.getfixturevalue("rabbit_url"), request.getfixturevalue("rabbit_vhost")
        yield BrokerUnderTest(url, node=request.getfixturevalue("rabbitmq"), vhost=vhost)
    else:
        with EmbeddedBrokerThread() as embedded:
            yield BrokerUnderTest(embedded.url, embedded)
