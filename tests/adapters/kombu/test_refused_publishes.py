"""Publishes for which the broker closes the channel: the error says so at once, and the connection stays."""

from __future__ import annotations

import asyncio

import pytest

from eda_core import PublishRefused
from eda_core.criticality import INFO
from eda_kombu import PartlyPublished
from tests.adapters.kombu.support import Publisher, witness
from tests.support.services import FORBIDDEN, BrokerUnderTest, forbid


def test_the_error_comes_at_once_and_the_connection_stays(broker: BrokerUnderTest) -> None:
    url = asyncio.run(forbid(broker))
    with witness(broker.url) as seen, Publisher([url], "source") as endpoint:
        queue = seen.queue("events")
        endpoint.publish_event("Happened", 0, "c")
        link = endpoint._process().session.link  # type: ignore[union-attr]  # there is one: it has just published
        for number in (1, 2):
            with pytest.raises(PublishRefused, match=r"the broker does not take it: .*(ACCESS_REFUSED|PRECONDITION)"):
                endpoint.publish_event(*FORBIDDEN, "c")
            endpoint.publish_event("Happened", number, "c")
        assert endpoint._process().session.link is link  # type: ignore[union-attr]
        assert len(seen.take(queue, 3)) == 3


def test_of_many_only_that_one_fails(broker: BrokerUnderTest) -> None:
    url = asyncio.run(forbid(broker))
    with witness(broker.url) as seen, Publisher([url], "source") as endpoint:
        queue = seen.queue("events")
        events: list[tuple[str, object, str]] = [("Happened", number, "c") for number in range(10)]
        events[5:5] = [(*FORBIDDEN, "c")]
        with pytest.raises(PartlyPublished) as caught:
            endpoint.publish_many(events)
        assert {place: type(error) for place, error in caught.value.failed.items()} == {5: PublishRefused}
        assert len(set(seen.all(queue))) == len(caught.value.confirmed)


def test_logs_that_the_broker_does_not_take_cost_no_connection(broker: BrokerUnderTest) -> None:
    url = asyncio.run(forbid(broker))
    with Publisher([url], "source") as endpoint:
        endpoint.publish_event("Happened", 0, "c")
        link = endpoint._process().session.link  # type: ignore[union-attr]
        for number in range(3):
            endpoint.log(INFO, "much to say", FORBIDDEN[1])
            endpoint.publish_event("Happened", number, "c")
        assert endpoint._process().session.link is link  # type: ignore[union-attr]
