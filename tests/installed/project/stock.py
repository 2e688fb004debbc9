"""Reserves pens for orders, with coroutines. Whatever fails, each order takes its pens once."""

from __future__ import annotations

import sqlite3
from typing import Any, TypedDict

from eda_aio import Service
from eda_core.services import DatabaseStore, Inbox


class Order(TypedDict):
    """The payload of OrderPlaced and of stock.Look."""

    order: int
    pens: int


def new_database() -> sqlite3.Connection:
    """Return an empty database in memory."""
    database = sqlite3.connect(":memory:", check_same_thread=False)
    with database:
        DatabaseStore(sqlite3.paramstyle).create(database)
        database.execute("CREATE TABLE taken (pens INTEGER)")
    return database


def pens_taken(database: sqlite3.Connection) -> int:
    """Return how many pens are reserved."""
    (pens,) = database.execute("SELECT COALESCE(SUM(pens), 0) FROM taken").fetchone()
    return int(pens)


class Stock(Service):
    """The service. Its inbox is in its database."""

    def __init__(self, urls: str | list[str], database: sqlite3.Connection) -> None:
        super().__init__(urls, ["OrderPlaced"], ["stock.Look"], "stock")
        self.database = database
        self.inbox = Inbox(self, DatabaseStore(sqlite3.paramstyle))

    async def on_OrderPlaced(self, payload: Order, conversation_id: str, meta: dict[str, Any]) -> None:
        with self.database as database, self.inbox.once(database) as first:
            if first:
                database.execute("INSERT INTO taken VALUES (?)", (payload["pens"],))
                await self.publish_event("PensReserved", payload, conversation_id)

    async def on_Look(
        self, payload: Order, conversation_id: str, reply_to: str, correlation_id: str, meta: dict[str, Any]
    ) -> dict[str, int]:
        return {"taken": pens_taken(self.database)}


class ForgetfulStock(Stock):
    """The service with a fault: it does not know which orders it has handled."""

    async def on_OrderPlaced(self, payload: Order, conversation_id: str, meta: dict[str, Any]) -> None:
        with self.database as database:
            database.execute("INSERT INTO taken VALUES (?)", (payload["pens"],))
        await self.publish_event("PensReserved", payload, conversation_id)
