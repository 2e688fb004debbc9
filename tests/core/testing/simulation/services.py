"""Services to simulate, without faults of their own."""

from __future__ import annotations

import asyncio
from typing import Any

from eda_aio import Service


class Billing(Service):
    """Keeps which orders are billed, and answers a command."""

    def __init__(self, urls: list[str], store: dict[Any, Any]) -> None:
        super().__init__(urls, ["OrderPlaced"], ["billing.Charge"], "billing")
        self.store = store

    async def on_OrderPlaced(self, payload: Any, conversation_id: str, meta: dict[str, Any]) -> None:
        await asyncio.sleep(payload.get("seconds", 0))
        self.store[payload["id"]] = "billed"
        await self.publish_event("InvoiceSent", {"id": payload["id"]}, conversation_id)

    async def on_Charge(
        self, payload: Any, conversation_id: str, reply_to: str, correlation_id: str, meta: dict[str, Any]
    ) -> Any:
        if payload["amount"] < 0:
            await self.return_error(reply_to, {"reason": "negative"}, conversation_id, correlation_id)
            return None
        return {"charged": payload["amount"]}


class Shop(Service):
    """Calls the other service."""

    def __init__(self, urls: list[str]) -> None:
        super().__init__(urls, ["CartSent"], [], "shop")

    async def on_CartSent(self, payload: Any, conversation_id: str, meta: dict[str, Any]) -> None:
        result = await self.call("billing.Charge", {"amount": payload["amount"]}, timeout=5.0)
        await self.publish_event("CartCharged", result, conversation_id)
