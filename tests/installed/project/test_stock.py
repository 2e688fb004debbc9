"""The service on a broker, with the plugin. Hypothesis is not needed."""

from __future__ import annotations

import asyncio
import sqlite3

import pytest

from eda_aio import Service
from eda_core import Event
from eda_core.testing import conformance
from eda_core.testing.live import Bus, EmbeddedBrokerThread, ServiceRunner

from .again import publish_twice
from .stock import Stock, pens_taken


def test_an_order_takes_its_pens(
    database: sqlite3.Connection, eda_broker: EmbeddedBrokerThread, eda_bus: Bus, eda_service: ServiceRunner
) -> None:
    eda_service(Stock(eda_broker.url, database))
    eda_bus.publish_event("OrderPlaced", {"order": 7, "pens": 3})
    eda_bus.expect_event("PensReserved", where={"order": 7})
    assert eda_bus.call("stock.Look", {"order": 7, "pens": 0}).payload == {"taken": 3}


def test_the_inbox_in_a_database_drops_what_was_handled(
    database: sqlite3.Connection, eda_broker: EmbeddedBrokerThread, eda_bus: Bus, eda_service: ServiceRunner
) -> None:
    eda_service(Stock(eda_broker.url, database))
    publish_twice(eda_bus, Event("OrderPlaced", {"order": 7, "pens": 3}, "c1", {"message_id": "7"}))
    reserved = [eda_bus.expect_event("PensReserved") for _ in range(2)]
    assert reserved[0].meta["deduplication_id"] == reserved[1].meta["deduplication_id"]
    assert pens_taken(database) == 3


def test_the_service_runs_in_the_loop_of_the_test(
    database: sqlite3.Connection, eda_broker: EmbeddedBrokerThread, eda_bus: Bus, eda_service: ServiceRunner
) -> None:
    async def order() -> None:
        async with eda_service.aio(Stock(eda_broker.url, database)):
            await eda_bus.aio.publish_event("OrderPlaced", {"order": 7, "pens": 3})
            await eda_bus.aio.expect_event("PensReserved")

    asyncio.run(order())


#: Not all forty: they are the tests of transports, and this is one that comes with the toolkit.
CASES = [
    case
    for case in conformance.cases(Service)
    if case.check.name in ("events_reach_their_subscribers", "a_lost_link_is_taken_up_again")
]


@pytest.mark.parametrize("case", CASES)
def test_the_transport_conforms(case: conformance.Case) -> None:
    case.run()
