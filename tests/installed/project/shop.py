"""Sells pens, with callbacks in threads, and remembers in memory which carts it has seen."""

from __future__ import annotations

from typing import Any

from eda_core.services import Inbox
from eda_pika import Service


class Shop(Service):
    """Places an order for each cart, and asks the stock when the pens are reserved."""

    HANDLER_THREADS = 2

    def __init__(self, urls: str | list[str]) -> None:
        super().__init__(urls, ["CartSent", "PensReserved"], ["shop.LookReturn"], "shop")
        self.inbox = Inbox(self)

    def on_CartSent(self, payload: Any, conversation_id: str, meta: dict[str, Any]) -> None:
        with self.inbox.once() as first:
            if first:
                self.publish_event("OrderPlaced", payload, conversation_id)

    def on_PensReserved(self, payload: Any, conversation_id: str, meta: dict[str, Any]) -> None:
        self.send_command("stock.Look", payload, conversation_id, "shop.LookReturn", str(payload["order"]))

    def on_LookReturn(
        self, payload: Any, conversation_id: str, status: str, correlation_id: str, meta: dict[str, Any]
    ) -> None:
        self.publish_event("CartSold", {"taken": payload["taken"], "order": int(correlation_id)}, conversation_id)
