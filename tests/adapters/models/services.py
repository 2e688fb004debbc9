"""Services with typed handlers, for the tests, also for type checkers: they are checked as ``--strict`` does."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from typing import Any, TypedDict

import msgspec
import pydantic

import eda_aio
import eda_pika
from eda_core.services import CoroutineBatch, RawEvent


@dataclass
class Order:
    number: int
    placed: datetime.datetime | None = None


class ChargeCard(msgspec.Struct):
    order: int
    cents: int


class Charged(pydantic.BaseModel):
    order: int
    receipt: str


class Prices(TypedDict):
    pens: int


KEYS: tuple[Any, ...] = (
    ["OrderPlaced", "Batched"],
    ["billing.ChargeCard", "billing.PackReturn"],
    "billing",
    ["Prices"],
)


class AioBilling(eda_aio.Service):
    TRANSPORT = "native"

    def __init__(self, urls: Any) -> None:
        super().__init__(urls, *KEYS)
        self.prices: Prices = {"pens": 0}
        self.batch = CoroutineBatch(self, 2, 60, self.collected)

    async def on_Prices(self, payload: Prices, meta: dict[str, Any]) -> bool:
        self.prices = payload
        return True

    async def on_OrderPlaced(self, payload: Order, conversation_id: str, meta: dict[str, Any]) -> None:
        await self.publish_event("OrderNoted", payload, conversation_id)
        order = ChargeCard(payload.number, 5)
        await self.send_command("packing.Pack", order, conversation_id, "billing.PackReturn", "id")

    async def on_ChargeCard(
        self, payload: ChargeCard, conversation_id: str, reply_to: str, correlation_id: str, meta: dict[str, Any]
    ) -> Charged:
        return Charged(order=payload.order, receipt=f"{payload.cents * self.prices['pens']} cents")

    async def on_PackReturn(
        self, payload: list[Order], conversation_id: str, status: str, correlation_id: str, meta: dict[str, Any]
    ) -> None:
        await self.publish_event("Packed", [order.number for order in payload], conversation_id)

    async def on_Batched(self, payload: Order, conversation_id: str, meta: dict[str, Any]) -> bool:
        await self.batch.push(payload, conversation_id, meta)
        return True

    async def collected(self, events: list[RawEvent]) -> None:
        await self.publish_event("Collected", [event.payload.number for event in events], "c")


class LibraryBilling(AioBilling):
    TRANSPORT = "aio-pika"


class PikaBilling(eda_pika.Service):
    def __init__(self, urls: Any) -> None:
        super().__init__(urls, *KEYS)
        self.prices: Prices = {"pens": 0}
        self.batch = eda_pika.Batch(self, 2, 60, self.collected)

    def on_Prices(self, payload: Prices, meta: dict[str, Any]) -> bool:
        self.prices = payload
        return True

    def on_OrderPlaced(self, payload: Order, conversation_id: str, meta: dict[str, Any]) -> None:
        self.publish_event("OrderNoted", payload, conversation_id)
        order = ChargeCard(payload.number, 5)
        self.send_command("packing.Pack", order, conversation_id, "billing.PackReturn", "id")

    def on_ChargeCard(
        self, payload: ChargeCard, conversation_id: str, reply_to: str, correlation_id: str, meta: dict[str, Any]
    ) -> Charged:
        return Charged(order=payload.order, receipt=f"{payload.cents * self.prices['pens']} cents")

    def on_PackReturn(
        self, payload: list[Order], conversation_id: str, status: str, correlation_id: str, meta: dict[str, Any]
    ) -> None:
        self.publish_event("Packed", [order.number for order in payload], conversation_id)

    def on_Batched(self, payload: Order, conversation_id: str, meta: dict[str, Any]) -> bool:
        self.batch.push(payload, conversation_id, meta)
        return True

    def collected(self, events: list[RawEvent]) -> None:
        self.publish_event("Collected", [event.payload.number for event in events], "c")


class ThreadedBilling(PikaBilling):
    HANDLER_THREADS = 2


class PlainPikaBilling(PikaBilling):
    PIKA_ONLY = True


SERVICES = (AioBilling, LibraryBilling, PikaBilling, ThreadedBilling, PlainPikaBilling)
