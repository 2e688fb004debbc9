"""With an inbox each effect happens once, wherever a worker is killed, in every adapter."""

from __future__ import annotations

import signal
import sqlite3
from collections import Counter
from contextlib import AbstractAsyncContextManager, closing
from pathlib import Path

import pytest

from tests.adapters.aio.conftest import broker
from tests.adapters.once import ADAPTERS
from tests.support.services import BrokerUnderTest, Peer, Program, asynchronous, peer, program

__all__ = ["broker"]

MESSAGE = {"headers": {"conversation_id": "c"}, "content_type": "application/json"}
#: Where the first worker dies, and whether it has had its effect then. "told": when its event has arrived.
DEATHS = {"before": 0, "after": 1, "told": 1}


def effects(database: Path) -> Counter[str]:
    with closing(sqlite3.connect(database)) as connection:
        return Counter(role for (role,) in connection.execute("SELECT role FROM effects"))


async def finish(client: Peer, service: Program, role: str) -> None:
    """End a worker when it has handled what is in its queue."""
    await client.publish("events", "Last", f'"{role}"'.encode(), message_id=f"last {role}", **MESSAGE)
    assert (await service.end(), service.errors) == (0, "")


@pytest.mark.parametrize("death", DEATHS)
@pytest.mark.parametrize("adapter", ADAPTERS)
@asynchronous
async def test_each_effect_happens_once(broker: BrokerUnderTest, tmp_path: Path, adapter: str, death: str) -> None:
    database = tmp_path / "effects.db"

    def worker(role: str, way: str) -> AbstractAsyncContextManager[Program]:
        return program("-m", "tests.adapters.once", adapter, role, str(database), way, url=broker.url)

    async with peer(broker.url) as client:
        noted, read = await client.tap("events", "Noted"), await client.tap("events", "Read")
        async with worker("reader", "never") as reader:
            await reader.says("ready")
            async with worker("ledger", death) as victim:
                await victim.says("ready")
                await client.publish("events", "Happened", b"1", message_id="m", **MESSAGE)
                if death == "told":
                    await noted.count(1)
                    victim.process.kill()
                assert await victim.end() == -signal.SIGKILL
            assert effects(database)["ledger"] == DEATHS[death]
            async with worker("ledger", "never") as heir:
                await heir.says("ready")
                await noted.count(1)
                await client.publish("events", "Happened", b"1", message_id="m", **MESSAGE)  # a duplicate
                await finish(client, heir, "ledger")
            await finish(client, reader, "reader")
        assert effects(database) == {"ledger": 1, "reader": 1}
        assert len(noted.all) >= 2, "the duplicate was published for, too"
        assert {message.headers["deduplication_id"] for message in noted.all} == {"m/ledger/Noted.1"}
        assert {message.headers["deduplication_id"] for message in read.all} == {"m/ledger/Noted.1/reader/Read.1"}
