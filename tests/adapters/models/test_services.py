"""Typed payloads in the services of every adapter, on the embedded broker, and in a simulation."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from typing import Any

import pytest

from eda_core.messages.codec import CBOR, decode
from eda_core.services import ClaimCheck
from eda_core.testing.live import Bus, EmbeddedBrokerThread, ServiceRunner
from eda_core.testing.simulation import Simulation
from eda_kombu import Endpoint
from tests.adapters.models.services import SERVICES, AioBilling, ChargeCard, Order, PikaBilling, Prices
from tests.core.services.claiming import Memory

MOMENT = datetime.datetime(2026, 7, 9, 12, 30, tzinfo=datetime.UTC)


@pytest.fixture
def broker() -> Iterator[EmbeddedBrokerThread]:
    with EmbeddedBrokerThread() as made:
        yield made


@pytest.fixture
def bus(broker: EmbeddedBrokerThread) -> Iterator[Bus]:
    with Bus(broker.url) as made:
        yield made


@pytest.fixture(params=SERVICES, ids=lambda kind: kind.__name__)
def billing(request: pytest.FixtureRequest, broker: EmbeddedBrokerThread, bus: Bus) -> Iterator[Any]:
    """A service that is configured."""
    runner = ServiceRunner(bus.service_died)
    service = runner(request.param(broker.url))
    bus.publish_configuration("Prices", Prices(pens=3))
    yield service
    runner.stop()


@pytest.mark.parametrize("json", [False, True])
def test_models_go_in_and_out(billing: Any, bus: Bus, json: bool) -> None:
    if json:
        billing.use_json()
    assert bus.call("billing.ChargeCard", ChargeCard(7, 5)).payload == {"order": 7, "receipt": "15 cents"}
    order = Order(7, MOMENT)
    bus.publish_event("OrderPlaced", order, "c-1")
    noted = bus.expect_event("OrderNoted")
    assert noted.payload == {"number": 7, "placed": "2026-07-09T12:30:00Z" if json else MOMENT}
    command = bus.expect_command("packing.Pack", where={"order": 7, "cents": 5})
    bus.answer(command, [order, Order(8)])
    assert bus.expect_event("Packed").payload == [7, 8]
    for number in (1, 2):
        bus.publish_event("Batched", Order(number))
    assert bus.expect_event("Collected").payload == [1, 2]


def test_what_does_not_fit_is_dead_lettered_at_once_and_answered(billing: Any, bus: Bus) -> None:
    result = bus.call("billing.ChargeCard", {"order": 7, "cents": "s3cret"})
    assert (result.status, result.payload) == ("error", {"reason": "payload.cents: expected int, got str"})
    bus.publish_event("OrderPlaced", {"number": "s3cret"}, "c-1")
    bus.publish_event("Batched", {}, "c-2")
    for name in ("billing.ChargeCard", "OrderPlaced", "Batched"):
        assert bus.expect_dead_letter(name).reason == "rejected"
    logs = [each.message.payload for each in bus.arrivals() if each.kind == "log"]
    texts = [log["short_message"] for log in logs]
    assert sum("after 1 attempt(s)" in text for text in texts) == 3, "each is given up at the first attempt"
    assert "OrderPlaced: InvalidPayload: payload.number: expected int, got str" in texts
    assert "s3cret" not in str(logs)


def test_a_configuration_that_does_not_fit_configures_nothing(broker: EmbeddedBrokerThread, bus: Bus) -> None:
    runner = ServiceRunner(bus.service_died)
    service = runner(AioBilling(broker.url))
    bus.publish_configuration("Prices", {"pens": "none"})
    bus.expect_log("billing.EMERGENCY")
    assert service.prices == {"pens": 0}
    bus.publish_configuration("Prices", {"pens": 1})
    assert bus.call("billing.ChargeCard", {"order": 7, "cents": 2}).payload["receipt"] == "2 cents"
    runner.stop()


def test_an_endpoint_publishes_models(broker: EmbeddedBrokerThread, bus: Bus) -> None:
    with Endpoint(broker.url, "web") as endpoint:
        endpoint.publish_event("OrderPlaced", Order(7, MOMENT), "c-1")
    assert bus.expect_event("OrderPlaced").payload == {"number": 7, "placed": MOMENT}


@pytest.mark.parametrize("kind", [AioBilling, PikaBilling])
def test_payloads_in_a_store_are_models_too(kind: Any, broker: EmbeddedBrokerThread, bus: Bus) -> None:
    claims = Memory()
    claiming = type("Claiming", (kind,), {"CLAIM_CHECK": ClaimCheck(claims, over=0)})
    runner = ServiceRunner(bus.service_died)
    runner(claiming(broker.url))
    bus.publish_configuration("Prices", {"pens": 3})
    bus.publish_event("OrderPlaced", Order(7, MOMENT), "c-1")
    noted = bus.expect_event("OrderNoted")
    (key,) = (value for name, value in noted.meta.items() if name == "claim_check")
    assert noted.payload is None
    assert decode(claims.bodies[key], CBOR) == {"number": 7, "placed": MOMENT}
    bus.publish_event("OrderPlaced", None, "c-2", {"claim_check": key})
    assert bus.expect_event("OrderNoted").meta["claim_check"] == key
    runner.stop()


@pytest.mark.parametrize("kind", [AioBilling, PikaBilling])
def test_a_simulation_gives_models_to_handlers(kind: Any) -> None:
    with Simulation([kind]) as sim:
        sim.publish_configuration("Prices", {"pens": 3})
        assert sim.call("billing.ChargeCard", ChargeCard(7, 5)) == {"order": 7, "receipt": "15 cents"}
        sim.publish_event("Batched", Order(7, MOMENT))
        sim.publish_event("Batched", {"number": "s3cret"})
        sim.run(100)
        sim.expect_event("Collected", lambda event: event.payload == [7])
        sim.expect_dead_letter("Batched")
        sim.finish()
