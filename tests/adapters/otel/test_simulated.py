"""Services that are traced, in simulations: they keep the rules whatever happens, and a conversation is one trace."""

from __future__ import annotations

from typing import Any

from opentelemetry.trace import SpanKind

import eda_aio
import eda_pika
from eda_core.testing.simulation import Simulation, simulate
from tests.adapters.otel.support import Spans, traces, tree

Meta = dict[str, Any]
SPANS = Spans()


class Shop(eda_aio.Service):
    def __init__(self, urls: list[str]) -> None:
        super().__init__(urls, ["OrderPlaced"], [], "shop")
        SPANS.of(self)

    async def on_OrderPlaced(self, payload: Any, conversation_id: str, meta: Meta) -> None:
        await self.publish_event("OrderPaid", await self.call("billing.ChargeCard", payload), conversation_id)


class Billing(eda_pika.Service):
    def __init__(self, urls: list[str]) -> None:
        super().__init__(urls, [], ["billing.ChargeCard"], "billing")
        SPANS.of(self)

    def on_ChargeCard(self, payload: Any, *_: Any) -> Any:
        return {"paid": payload}


def test_a_simulated_conversation_is_one_trace() -> None:
    SPANS.clear()
    with Simulation([Shop, Billing]) as sim:
        sim.publish_event("OrderPlaced", 7)
        sim.run()
        sim.expect_event("OrderPaid", {"paid": 7})
        sim.finish()
    found = SPANS.ended(6)
    assert traces(found) == 1
    process = "process commands:billing.ChargeCard:billing.commands"
    assert sorted(tree(found), key=lambda row: row[0]) == [
        ("call commands:billing.ChargeCard", SpanKind.CLIENT, "process events:OrderPlaced:shop.events"),
        (process, SpanKind.CONSUMER, "send commands:billing.ChargeCard"),
        ("process events:OrderPlaced:shop.events", SpanKind.CONSUMER, ""),
        ("send commands:billing.ChargeCard", SpanKind.PRODUCER, "call commands:billing.ChargeCard"),
        ("send commands:shop.shop-1-1", SpanKind.PRODUCER, process),
        ("send events:OrderPaid", SpanKind.PRODUCER, "process events:OrderPlaced:shop.events"),
    ]


class Office(eda_aio.Service):
    """As the shop, but it does not wait for the result."""

    def __init__(self, urls: list[str]) -> None:
        super().__init__(urls, ["OrderPlaced"], ["office.ChargeCardReturn"], "office")
        SPANS.of(self)

    async def on_OrderPlaced(self, payload: Any, conversation_id: str, meta: Meta) -> None:
        await self.send_command("billing.ChargeCard", payload, conversation_id, "office.ChargeCardReturn", "k")

    async def on_ChargeCardReturn(self, payload: Any, conversation_id: str, status: str, key: str, meta: Meta) -> None:
        await self.publish_event("OrderPaid", payload, conversation_id)


@simulate(Office, Billing, workers=2, runs=100)
def test_traced_services_keep_the_rules_when_faults_strike(sim: Simulation) -> None:
    sim.publish_event("OrderPlaced", 7)
    sim.run()
    sim.expect_event("OrderPaid", {"paid": 7})
