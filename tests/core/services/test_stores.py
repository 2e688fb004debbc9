"""Where an inbox keeps what was handled."""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from eda_core.errors import LocalError
from eda_core.services.stores import DatabaseStore, MemoryStore, _bound


@pytest.fixture
def database() -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(":memory:")) as connection:
        DatabaseStore().create(connection)
        yield connection


def test_a_message_is_claimed_once(database: sqlite3.Connection) -> None:
    for store, transaction in ((DatabaseStore(), database), (MemoryStore(), None)):
        assert store.claim(transaction, "svc/m", 1.0) is None
        store.keep(transaction, "svc/m", "text")
        assert store.claim(transaction, "svc/m", 2.0) == "text"
        assert store.claim(transaction, "svc/n", 2.0) is None


def test_a_rollback_takes_back_the_claim(database: sqlite3.Connection) -> None:
    store = DatabaseStore()
    store.claim(database, "svc/m", 1.0)
    store.keep(database, "svc/m", "text")
    database.rollback()
    assert store.claim(database, "svc/m", 2.0) is None


def test_in_memory_a_claim_without_an_end_means_nothing() -> None:
    store = MemoryStore()
    store.claim(None, "svc/m", 1.0)
    assert store.claim(None, "svc/m", 2.0) is None


def test_old_messages_are_forgotten(database: sqlite3.Connection) -> None:
    for store, transaction in ((DatabaseStore(), database), (MemoryStore(), None)):
        for key, now in (("a", 1.0), ("b", 2.0), ("c", 3.0)):
            store.claim(transaction, key, now)
            store.keep(transaction, key, key)
        assert store.forget(transaction, 2.5) == 2
        assert [store.claim(transaction, key, 4.0) for key in "abc"] == [None, None, "c"]


def test_memory_is_bounded() -> None:
    store = MemoryStore(2)
    for key in "abc":
        store.claim(None, key, 1.0)
        store.keep(None, key, key)
    assert len(store) == 2
    assert [store.claim(None, key, 1.0) for key in "abc"] == [None, "b", "c"]


@pytest.mark.parametrize("limit", [0, -1, 1.5, True, "9"])
def test_a_limit_is_a_whole_number(limit: Any) -> None:
    with pytest.raises(LocalError, match="limit is"):
        MemoryStore(limit)


# The database


def test_of_two_workers_the_second_one_sees_what_the_first_has_committed(tmp_path: Path) -> None:
    path, store = tmp_path / "work.db", DatabaseStore()
    with closing(sqlite3.connect(path, timeout=0.05)) as one, closing(sqlite3.connect(path, timeout=0.05)) as other:
        store.create(one)
        assert store.claim(one, "svc/m", 1.0) is None
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            store.claim(other, "svc/m", 1.0)
        store.keep(one, "svc/m", "text")
        one.commit()
        assert store.claim(other, "svc/m", 1.0) == "text"


def test_a_connection_that_commits_by_itself_is_noticed() -> None:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        store = DatabaseStore()
        store.create(connection)
        store.claim(connection, "svc/m", 1.0)
        connection.rollback()
        with pytest.raises(LocalError, match=r"in which 'svc/m' was handled was committed before its end; .*by itself"):
            store.claim(connection, "svc/m", 1.0)


def test_the_table_may_have_another_name(database: sqlite3.Connection) -> None:
    store = DatabaseStore(table="main.handled_1")
    store.create(database)
    store.create(database)
    assert store.claim(database, "svc/m", 1.0) is None


@pytest.mark.parametrize("table", ["", "a b", "a;b", 'a"b', "a.b.c", "ä", "1a", None])
def test_a_table_has_a_plain_name(table: Any) -> None:
    with pytest.raises(LocalError, match="table is"):
        DatabaseStore(table=table)


@pytest.mark.parametrize(
    ("paramstyle", "sql", "parameters"),
    [
        ("qmark", "UPDATE t SET publishes = ? WHERE id = ?", ("x", "k")),
        ("numeric", "UPDATE t SET publishes = :1 WHERE id = :2", ("x", "k")),
        ("named", "UPDATE t SET publishes = :publishes WHERE id = :id", {"publishes": "x", "id": "k"}),
        ("format", "UPDATE t SET publishes = %s WHERE id = %s", ("x", "k")),
        ("pyformat", "UPDATE t SET publishes = %(publishes)s WHERE id = %(id)s", {"publishes": "x", "id": "k"}),
    ],
)
def test_every_paramstyle_can_be_used(paramstyle: str, sql: str, parameters: object) -> None:
    values = {"id": "k", "publishes": "x"}
    assert _bound(DatabaseStore.UPDATE, "t", paramstyle, values) == (sql, parameters)


#: sqlite3 of Python 3.12 and later does not take "numeric" any more.
OF_SQLITE = ["qmark", "named"] if sys.version_info >= (3, 12) else ["qmark", "numeric", "named"]


@pytest.mark.parametrize("paramstyle", OF_SQLITE)
def test_sqlite_takes_some_of_them(database: sqlite3.Connection, paramstyle: str) -> None:
    store = DatabaseStore(paramstyle)
    assert store.claim(database, "svc/m", 1.0) is None
    store.keep(database, "svc/m", "text")
    assert store.claim(database, "svc/m", 1.0) == "text"
    assert store.forget(database, 1.5) == 1


def test_an_unknown_paramstyle_is_refused() -> None:
    with pytest.raises(LocalError, match="paramstyle is 'dollar'; use one of qmark, numeric"):
        DatabaseStore("dollar")


def test_without_a_connection_it_says_what_to_write() -> None:
    with pytest.raises(LocalError, match=r"the transaction is None, .*; write inbox.once\(connection\)"):
        DatabaseStore().claim(None, "svc/m", 1.0)


class Silent:
    """A connection of a database that does not say how many rows a statement has changed."""

    rowcount, description = -1, None

    def cursor(self) -> Silent:
        return self

    def execute(self, *_: object) -> None: ...

    def close(self) -> None: ...


def test_a_database_that_does_not_count_rows_is_refused() -> None:
    with pytest.raises(LocalError, match=r"rowcount is -1; override DatabaseStore\.claim"):
        DatabaseStore().claim(Silent(), "svc/m", 1.0)
