"""A worker that dies near its commit: ``python -m tests.adapters.once ADAPTER ROLE DATABASE DEATH``.

The role ``ledger`` notes the event ``Happened`` in the database and tells ``Noted``; ``reader`` notes that. Both use an
inbox, and stop when the event ``Last`` names their role. ``DEATH`` is where the process kills itself: ``before`` its
commit, ``after`` it, or ``never``.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import eda_aio
import eda_pika
from eda_core.services import DatabaseStore, Inbox
from examples import custom_service
from tests.support.native import NativeService

Meta = dict[str, Any]
#: The event that each role handles, and what it tells then.
ROLES = {"ledger": ("Happened", "Noted"), "reader": ("Noted", "Read")}


def die(place: str) -> None:
    """End as if the machine lost its power, if this is the place."""
    if sys.argv[4] == place:
        os.kill(os.getpid(), signal.SIGKILL)


@contextmanager
def first_time(service: Any) -> Iterator[sqlite3.Connection | None]:
    """The database, if the message is handled for the first time. The transaction is the block."""
    with closing(sqlite3.connect(sys.argv[3], timeout=60)) as database:
        with database, service.inbox.once(database) as first:
            if first:
                database.execute("INSERT INTO effects VALUES (?)", (sys.argv[2],))
            yield database if first else None
            die("before")
        die("after")


def say(line: str) -> None:
    os.write(1, f"{line}\n".encode())


class OnCoroutines:
    async def on_ready(self) -> None:
        say("ready")

    async def handle_event(self, event: str, payload: Any, conversation_id: str, meta: Meta) -> None:
        service: Any = self
        if event == "Last":
            if payload == sys.argv[2]:
                await service.stop()
            return
        with first_time(self) as database:
            if database is not None:
                await service.publish_event(ROLES[sys.argv[2]][1], payload, conversation_id)


class OnCallbacks:
    def on_ready(self) -> None:
        say("ready")

    def handle_event(self, event: str, payload: Any, conversation_id: str, meta: Meta) -> None:
        service: Any = self
        if event == "Last":
            if payload == sys.argv[2]:
                service.stop()
            return
        with first_time(self) as database:
            if database is not None:
                service.publish_event(ROLES[sys.argv[2]][1], payload, conversation_id)


class Aio(OnCoroutines, eda_aio.Service):
    PREFETCH_COUNT = 1


class Native(OnCoroutines, NativeService):
    PREFETCH_COUNT = 1


class Custom(OnCoroutines, custom_service.Service):
    PREFETCH_COUNT = 1


class Pika(OnCallbacks, eda_pika.Service):
    PREFETCH_COUNT = 1


class PikaThreads(Pika):
    HANDLER_THREADS = 3


ADAPTERS: dict[str, type[Any]] = {
    "eda_aio": Aio,
    "native": Native,
    "custom": Custom,
    "eda_pika": Pika,
    "eda_pika/3": PikaThreads,
}


def main() -> None:
    _, adapter, role, path, _ = sys.argv
    with closing(sqlite3.connect(path, timeout=60)) as database:
        DatabaseStore().create(database)
        database.execute("CREATE TABLE IF NOT EXISTS effects (role TEXT)")
        database.commit()
    service = ADAPTERS[adapter](os.environ["EDA_AMQP_URL"], [ROLES[role][0], "Last"], [], role)
    service.inbox = Inbox(service, DatabaseStore())
    ran = service.run()
    if ran is not None:
        asyncio.run(ran)


if __name__ == "__main__":
    main()
