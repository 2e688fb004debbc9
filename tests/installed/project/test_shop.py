"""The service with callbacks on a broker, with the plugin. Hypothesis is not needed."""

from __future__ import annotations

from eda_core import Event
from eda_core.testing.live import Bus, EmbeddedBrokerThread, ServiceRunner

from .again import publish_twice
from .shop import Shop


def test_a_cart_is_sold(eda_broker: EmbeddedBrokerThread, eda_bus: Bus, eda_service: ServiceRunner) -> None:
    eda_service(Shop(eda_broker.url))
    eda_bus.publish_event("CartSent", {"order": 7, "pens": 3}, "c1")
    eda_bus.expect_event("OrderPlaced", where={"order": 7})
    eda_bus.publish_event("PensReserved", {"order": 7, "pens": 3}, "c1")
    eda_bus.answer(eda_bus.expect_command("stock.Look"), {"taken": 3})
    eda_bus.expect_event("CartSold", where={"taken": 3, "order": 7})


def test_the_inbox_in_memory_drops_what_was_handled(
    eda_broker: EmbeddedBrokerThread, eda_bus: Bus, eda_service: ServiceRunner
) -> None:
    eda_service(Shop(eda_broker.url))
    publish_twice(eda_bus, Event("CartSent", {"order": 7, "pens": 3}, "c1", {"message_id": "7"}))
    orders = [eda_bus.expect_event("OrderPlaced") for _ in range(2)]
    assert orders[0].meta["deduplication_id"] == orders[1].meta["deduplication_id"]
