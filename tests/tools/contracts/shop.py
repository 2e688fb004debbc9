"""Services of a shop, for the tests of contracts."""

from __future__ import annotations

import datetime
import enum
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, TypedDict

import msgspec
import pydantic

import eda_aio
import eda_pika
from eda_core.messages.values import AnyMessage

if TYPE_CHECKING:
    from decimal import Decimal

ORDER_NOTED = "OrderNoted"


class Kind(enum.Enum):
    NEW = "new"
    OLD = "old"


class Point(NamedTuple):
    x: int
    y: int


class Order(msgspec.Struct):
    number: int
    placed: datetime.datetime
    kind: Kind = Kind.NEW
    place: Point = Point(0, 0)
    counts: dict[str, int] = {}
    parts: list[Order] = []


class ChargeCard(pydantic.BaseModel):
    order: int
    cents: int
    note: str | None = None


@dataclass
class Charged:
    receipt: str


class Prices(TypedDict):
    pens: int


class Orders(eda_aio.Service):
    CONFIGURES: ClassVar[tuple[str, ...]] = ("OrdersConfigured",)

    def __init__(self, amqp_urls: Sequence[str]) -> None:
        super().__init__(amqp_urls, ["OrderPlaced", "shop.*"], ["orders.ChargeReturn"], "orders", ["Prices"])

    async def on_OrderPlaced(self, payload: Order, conversation_id: str, meta: dict[str, Any]) -> None:
        charge = ChargeCard(order=payload.number, cents=5)
        reply_to = f"{self.logical_service}.ChargeReturn"
        await self.send_command("billing.ChargeCard", charge, conversation_id, reply_to=reply_to, correlation_id="x")
        await self.publish_event(ORDER_NOTED, payload, conversation_id)

    async def on_ChargeReturn(
        self, payload: Charged | dict[str, Any], conversation_id: str, status: str, correlation_id: str, meta: Any
    ) -> None:
        if isinstance(payload, Charged):
            await self.publish_event(
                "Order" + "Charged", {"receipt": await self.call("stamps.Stamp", {}, 5.0)}, conversation_id
            )

    async def on_Closed(self, payload: Decimal, conversation_id: str, meta: Any) -> None: ...

    async def on_Prices(self, payload: Prices, meta: Any) -> bool:
        return True


class Billing(eda_pika.Service):
    def __init__(self, amqp_urls: Sequence[str]) -> None:
        super().__init__(amqp_urls, [], ["billing.ChargeCard"], "billing")
        self.use_json()

    def on_ChargeCard(
        self, payload: ChargeCard, conversation_id: str, reply_to: str, correlation_id: str, meta: dict[str, Any]
    ) -> Charged | None:
        return Charged("r")


class Listener(eda_aio.Service):
    """Hears everything, by queues of its own."""

    def __init__(self, amqp_urls: Sequence[str]) -> None:
        super().__init__(amqp_urls, ["#"], [], "listener")
        self.use_exclusive_queues()

    async def handle(self, message: AnyMessage) -> None: ...


class Strict(msgspec.Struct, forbid_unknown_fields=True):
    """What another service takes for an order."""

    number: str
    customer: str


class Mailer(eda_aio.Service):
    def __init__(self, amqp_urls: Sequence[str]) -> None:
        super().__init__(amqp_urls, [ORDER_NOTED], ["mailer.Send"], "mailer")

    async def on_OrderNoted(self, payload: Strict, conversation_id: str, meta: Any) -> None:
        for name in meta["names"]:
            await self.publish_event(name, {}, conversation_id)


def orders(amqp_urls: Sequence[str]) -> Orders:
    return Orders(amqp_urls)


class Broken(Mailer):
    PUBLISHES: ClassVar[Any] = "OrderPlaced"
