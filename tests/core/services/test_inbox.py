"""Handlers that handle each message once in effect."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
from pamqp.commands import Basic

from eda_core.errors import LocalError, StateError
from eda_core.machine.effects import Ack, Publish
from eda_core.messages.codec import JSON, encode
from eda_core.services.inbox import Inbox
from eda_core.services.stores import DatabaseStore, MemoryStore
from tests.core.drivers import jobs, turning
from tests.core.kit import URLS, of


class Ledger(jobs.Service):
    """Notes in a database what has happened, and tells it."""

    def __init__(self, database: sqlite3.Connection) -> None:
        super().__init__(URLS[0], ["Happened", "Odd"], ["ledger.Note"], "ledger", ["Settings"])
        self.database = database
        self.inbox = Inbox(self, DatabaseStore())
        self.key = ""
        self.fails = self.returns = False

    def on_Happened(self, payload: Any, conversation_id: str, meta: dict[str, Any]) -> Any:
        with self.database, self.inbox.once(self.database, key=self.key) as first:
            if first:
                self.database.execute("INSERT INTO notes VALUES (?)", (payload,))
                self.publish_event("Noted", payload, conversation_id, mandatory=True)
                self.publish_event("Progress", 50, conversation_id, immediate=True)
                if self.fails:
                    raise LookupError("nothing there")
        return self.returns

    def on_Note(self, payload: Any, conversation_id: str, reply_to: str, correlation_id: str, meta: Any) -> Any:
        with self.database, self.inbox.once(self.database) as first:
            if first:
                self.database.execute("INSERT INTO notes VALUES (?)", (payload,))
                if self.returns:
                    return {"noted": payload}
                self.return_success(reply_to, {"noted": payload}, conversation_id, correlation_id)
        return None

    def on_Odd(self, *_: Any) -> None:
        with self.inbox.once(self.database), self.inbox.once(self.database):
            pass

    def on_Settings(self, *_: Any) -> None:
        with self.inbox.once(self.database):
            pass


@pytest.fixture
def database() -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(":memory:")) as connection:
        DatabaseStore().create(connection)
        connection.execute("CREATE TABLE notes (text)")
        connection.commit()
        yield connection


def begin(service: Ledger) -> jobs.Runs:
    driver = service.begin_run(jobs.Runs)
    driver.tell(driver.machine.start)
    driver.tell(driver.machine.link_up, driver.machine.epoch)
    driver.work()
    driver.reports.clear()
    return driver


def take(
    driver: jobs.Runs | turning.Runs,
    name: str = "Happened",
    message_id: str | None = "m",
    exchange: str = "events",
    reply_to: str | None = None,
    correlation_id: str | None = None,
    **headers: str,
) -> None:
    """Deliver a message as the broker would, and let its handler run."""
    driver.clock += 1
    properties = Basic.Properties(
        headers={"conversation_id": "c-1", **headers},
        content_type=JSON,
        message_id=message_id,
        reply_to=reply_to,
        correlation_id=correlation_id,
    )
    tag = int(driver.clock) - 100
    body = encode("note", JSON)
    driver.tell(driver.machine.delivered, driver.machine.epoch, tag, False, exchange, name, properties, body)
    if isinstance(driver, jobs.Runs):
        driver.work()
    else:
        driver.turn()


def notes(database: sqlite3.Connection) -> int:
    database.rollback()
    return int(database.execute("SELECT count(*) FROM notes").fetchone()[0])


def sent(driver: jobs.Runs | turning.Runs) -> list[tuple[str, object]]:
    return [
        (publish.routing_key, (publish.properties.headers or {}).get("deduplication_id"))
        for publish in of(Publish, driver.link.asked)
    ]


PUBLISHED = [("Progress", "m/ledger/Progress.1"), ("Noted", "m/ledger/Noted.1")]
#: When it is published again, all of it is held until the handler has ended.
AGAIN = PUBLISHED[::-1]


def test_a_message_is_handled_once_and_published_for_each_time(database: sqlite3.Connection) -> None:
    driver = begin(Ledger(database))
    take(driver)
    assert sent(driver) == PUBLISHED
    driver.link.asked.clear()
    take(driver)
    assert sent(driver) == AGAIN, "the worker may have died before the broker had it"
    assert [each.mandatory for each in of(Publish, driver.link.asked)] == [True, False]
    assert notes(database) == 1
    assert driver.reports == []


def test_another_worker_publishes_for_it_too(database: sqlite3.Connection) -> None:
    take(begin(Ledger(database)))
    driver = begin(Ledger(database))
    take(driver)
    assert (sent(driver), notes(database)) == (AGAIN, 1)


def test_the_header_is_looked_at_before_the_message_id(database: sqlite3.Connection) -> None:
    driver = begin(Ledger(database))
    take(driver, message_id="m", deduplication_id="d")
    take(driver, message_id="n", deduplication_id="d")
    take(driver, message_id="n", deduplication_id="e")
    assert notes(database) == 2


def test_a_handler_that_fails_has_done_nothing(database: sqlite3.Connection) -> None:
    service = Ledger(database)
    driver = begin(service)
    service.fails = True
    take(driver)
    assert (sent(driver), notes(database)) == (PUBLISHED[:1], 0)
    service.fails = False
    take(driver)
    assert (sent(driver), notes(database)) == (PUBLISHED[:1] + PUBLISHED, 1)


def test_a_command_that_is_sent_again_is_answered_again(database: sqlite3.Connection) -> None:
    driver = begin(Ledger(database))
    for reply_to, correlation_id in (("caller.t1", "k-1"), ("caller.t2", "k-2")):
        take(driver, "ledger.Note", "m", "commands", reply_to, correlation_id)
    assert [(each.routing_key, each.properties.correlation_id) for each in of(Publish, driver.link.asked)] == [
        ("caller.t1", "k-1"),
        ("caller.t2", "k-2"),
    ]
    assert notes(database) == 1
    assert driver.reports == []


def test_a_returned_result_is_warned_about(database: sqlite3.Connection) -> None:
    service = Ledger(database)
    service.returns = True
    driver = begin(service)
    take(driver, "ledger.Note", "m", "commands", "caller.t1", "k-1")
    assert driver.reports == [
        "Ledger.on_Note uses an inbox and returns the result of ledger.Note, which the inbox does not keep: if the "
        "worker dies now, nobody answers; call return_success() in the block"
    ]


def test_an_acknowledgement_by_hand_is_warned_about(database: sqlite3.Connection) -> None:
    service = Ledger(database)
    service.returns = True
    driver = begin(service)
    take(driver)
    (text,) = driver.reports
    assert text.startswith("Ledger.on_Happened uses an inbox and acknowledges Happened by hand: ")


def test_two_services_may_share_a_table(database: sqlite3.Connection) -> None:
    class Other(Ledger):
        def __init__(self, database: sqlite3.Connection) -> None:
            super().__init__(database)
            self.logical_service = "other"

    take(begin(Ledger(database)))
    take(begin(Other(database)))
    assert notes(database) == 2


def test_a_key_identifies_messages_without_an_id(database: sqlite3.Connection) -> None:
    service = Ledger(database)
    driver = begin(service)
    service.key = "order 17"
    for _ in range(2):
        take(driver, message_id=None)
    assert sent(driver)[1::2] == [("Noted", "order 17/ledger/Noted.1"), ("Progress", "order 17/ledger/Progress.1")]
    assert notes(database) == 1


# Wrong use


def failures(driver: jobs.Runs) -> str:
    return "\n".join(driver.reports)


def test_without_an_id_and_a_key_the_handler_fails(database: sqlite3.Connection) -> None:
    driver = begin(Ledger(database))
    take(driver, message_id=None)
    assert "nothing identifies Happened: it has neither a deduplication_id nor a message_id; pass" in failures(driver)
    assert notes(database) == 0


def test_it_is_used_once_for_a_message(database: sqlite3.Connection) -> None:
    driver = begin(Ledger(database))
    take(driver, "Odd")
    assert "the handler of Odd uses Inbox.once() a second time; use one block" in failures(driver)


def test_a_configuration_is_handled_by_each_worker(database: sqlite3.Connection) -> None:
    driver = begin(Ledger(database))
    take(driver, "Settings", exchange="configurations")
    assert "outside of the handler of an event, a command or a result" in failures(driver)


def test_outside_of_handlers_there_is_no_message(database: sqlite3.Connection) -> None:
    service = Ledger(database)
    begin(service)
    with (
        pytest.raises(LocalError, match=r"Inbox.once\(\) is used outside of the handler"),
        service.inbox.once(database),
    ):
        pass


def test_in_a_service_with_queues_of_its_own_each_worker_handles_each_message(database: sqlite3.Connection) -> None:
    service = Ledger(database)
    service.use_exclusive_queues()
    driver = begin(service)
    take(driver)
    assert "a service with exclusive queues" in failures(driver)


# Forgetting


def test_what_is_forgotten_is_handled_again(database: sqlite3.Connection) -> None:
    service = Ledger(database)
    driver = begin(service)
    take(driver)
    driver.clock += 10
    assert service.inbox.forget(database, older_than=11) == 0
    assert service.inbox.forget(database, older_than=9) == 1
    database.commit()
    take(driver)
    assert notes(database) == 2


@pytest.mark.parametrize("seconds", [0, -1, None, "1"])
def test_the_age_is_in_seconds(database: sqlite3.Connection, seconds: Any) -> None:
    with pytest.raises(LocalError, match="older_than is"):
        Ledger(database).inbox.forget(database, older_than=seconds)


def test_the_time_comes_from_the_service(database: sqlite3.Connection) -> None:
    with pytest.raises(StateError, match="the service does not run"):
        Ledger(database).inbox.forget(database, older_than=1)


# Coroutines


class Awaited(MemoryStore):
    """A store whose methods are coroutines, as those of an asynchronous database."""

    async def claim(self, *arguments: Any) -> str | None:  # type: ignore[override]
        return super().claim(*arguments)

    async def keep(self, *arguments: Any) -> None:  # type: ignore[override]
        super().keep(*arguments)


class Claimed:
    """An awaitable that is no coroutine, as that of some databases."""

    def __await__(self) -> Iterator[Any]:
        yield from ()


class Awaitables(MemoryStore):
    """A store whose methods are plain, and return what is to be awaited."""

    def claim(self, *arguments: Any) -> Claimed:  # type: ignore[override]
        return Claimed()


class Counter(turning.Service):
    """Counts what has happened, with a store that is awaited or not."""

    def __init__(self, inbox: bool, waits: bool, awaited: type[MemoryStore] = Awaited) -> None:
        super().__init__(URLS[0], ["Happened"], [], "ledger")
        self.inbox = Inbox(self, awaited() if inbox else None)
        self.waits = waits
        self.count = 0

    async def on_Happened(self, payload: Any, conversation_id: str, meta: dict[str, Any]) -> None:
        if self.waits:
            async with self.inbox.once() as first:
                await self.work(first, conversation_id)
        else:
            with self.inbox.once() as first:
                await self.work(first, conversation_id)

    async def work(self, first: bool, conversation_id: str) -> None:
        if first:
            self.count += 1
            await self.publish_event("Noted", self.count, conversation_id)


@pytest.mark.parametrize(("inbox", "waits"), [(True, True), (False, True), (False, False)])
def test_a_coroutine_handles_a_message_once(inbox: bool, waits: bool) -> None:
    service = Counter(inbox, waits)
    driver, _ = turning.running(service)
    for _ in range(2):
        take(driver)
        driver.turn()
    assert service.count == 1
    assert sent(driver) == [("Noted", "m/ledger/Noted.1")] * 2
    driver.confirm()
    assert [(each.tag, each.multiple) for each in of(Ack, driver.link.asked)] == [(2, True)]


@pytest.mark.parametrize("awaited", [Awaited, Awaitables])
def test_a_store_that_has_to_be_awaited_says_so(awaited: type[MemoryStore]) -> None:
    service = Counter(True, False, awaited)
    driver, _ = turning.running(service)
    take(driver)
    ((_, _, failed),) = driver.told
    assert "the store of this inbox has to be awaited; write 'async with inbox.once(…)'" in failed.reason
