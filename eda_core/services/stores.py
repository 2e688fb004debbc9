"""Where an inbox keeps what was handled: in memory, or in a table of the user's database.

A store decides whether a message was handled before, within the transaction of the handler. It does not know what a
message is, and neither begins nor ends a transaction.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Mapping
from contextlib import closing, suppress
from typing import Any, ClassVar, Final, Protocol

from eda_core.errors import LocalError

_TABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)?", re.ASCII)


class Store(Protocol):
    """What an inbox needs of a store. With ``async with``, each method may also return an awaitable."""

    def claim(self, transaction: Any, key: str, now: float) -> str | Awaitable[str | None] | None:
        """Note in this transaction that the message with this key is handled, unless it was before.

        Two transactions must not both be the first: the second one waits for the end of the first, or fails.

        Args:
            transaction: what ``Inbox.once`` was given.
            key: at most 255 characters.
            now: seconds since 1970.

        Returns:
            ``None`` if the message was not handled before, and else the text that :meth:`keep` was given.
        """

    def keep(self, transaction: Any, key: str, publishes: str) -> Awaitable[None] | None:
        """Keep a text, in ASCII, with a key that this transaction has claimed."""

    def forget(self, transaction: Any, before: float) -> int | Awaitable[int]:
        """Forget what was handled before this time, seconds since 1970. Returns how many messages these were."""


class MemoryStore:
    """Keeps the latest messages in the memory of one worker.

    It knows nothing of what other workers have handled, and of what was handled before the worker was started. If two
    copies of a message are handled at the same time, both are the first.

    Args:
        limit: how many messages to remember. Beyond it the oldest is forgotten.

    Raises:
        LocalError: the limit is not a whole number of at least 1.
    """

    def __init__(self, limit: int = 10_000) -> None:
        if type(limit) is not int or limit < 1:
            raise LocalError(f"limit is {limit!r}", hint="give a whole number, at least 1")
        self._limit = limit
        self._times: dict[str, float] = {}
        self._kept: dict[str, tuple[float, str]] = {}

    def __len__(self) -> int:
        return len(self._kept)

    def claim(self, transaction: Any, key: str, now: float) -> str | None:
        """Return what was kept; ``None`` if the message was not handled yet. The transaction does not matter."""
        found = self._kept.get(key)
        if found is None:
            self._times[key] = now
            return None
        return found[1]

    def keep(self, transaction: Any, key: str, publishes: str) -> None:
        """Remember that a message is handled."""
        self._kept[key] = (self._times.pop(key, 0.0), publishes)
        while len(self._kept) > self._limit:
            with suppress(RuntimeError):  # another thread has changed the dict meanwhile
                self._kept.pop(next(iter(self._kept)), None)

    def forget(self, transaction: Any, before: float) -> int:
        """Forget what was handled before this time. Returns how many messages these were."""
        old = [key for key, (time, _) in list(self._kept.items()) if time < before]
        for key in old:
            self._kept.pop(key, None)
        return len(old)


class DatabaseStore:
    """Keeps messages in a table of a database, by any connection of Python's DB-API (PEP 249), such as ``sqlite3``.

    The transaction is a connection. All is written in the transaction that is open on it. The statements are those of
    SQLite and PostgreSQL; for another database override them in a subclass.

    Args:
        paramstyle: that of the module of the connection: ``sqlite3.paramstyle``.
        table: the name of the table, with its schema if need be.

    Raises:
        LocalError: the paramstyle is none of PEP 249, or the table has a name that would have to be quoted.
    """

    #: The statements. ``{table}`` is the name of the table, the other names are parameters.
    CREATE: ClassVar[str] = (
        "CREATE TABLE IF NOT EXISTS {table} "
        "(id VARCHAR(255) NOT NULL PRIMARY KEY, handled_at DOUBLE PRECISION NOT NULL, publishes TEXT)"
    )
    INSERT: ClassVar[str] = "INSERT INTO {table} (id, handled_at) VALUES ({id}, {now}) ON CONFLICT (id) DO NOTHING"
    SELECT: ClassVar[str] = "SELECT publishes FROM {table} WHERE id = {id}"
    UPDATE: ClassVar[str] = "UPDATE {table} SET publishes = {publishes} WHERE id = {id}"
    DELETE: ClassVar[str] = "DELETE FROM {table} WHERE handled_at < {before}"

    def __init__(self, paramstyle: str = "qmark", table: str = "eda_inbox") -> None:
        if paramstyle not in _MARKERS:
            raise LocalError(f"paramstyle is {paramstyle!r}", hint=f"use one of {', '.join(_MARKERS)}")
        if not isinstance(table, str) or not _TABLE.fullmatch(table):
            raise LocalError(f"table is {table!r}", hint="use ASCII letters, digits and _, and one dot after a schema")
        self._paramstyle = paramstyle
        self._table = table

    def create(self, transaction: Any) -> None:
        """Create the table, unless it is there. Commit the transaction then."""
        self._execute(transaction, self.CREATE)

    def claim(self, transaction: Any, key: str, now: float) -> str | None:
        """Insert the key, or return what is kept with it: see :class:`Store`.

        Raises:
            LocalError: the transaction is no connection, or it was committed while a message was handled.
        """
        count, _ = self._execute(transaction, self.INSERT, id=key, now=now)
        if count == 1:
            return None
        if count != 0:
            raise LocalError(
                f"the database does not say whether {self._table} had {key!r}: rowcount is {count}",
                hint="override DatabaseStore.claim for this database",
            )
        _, row = self._execute(transaction, self.SELECT, id=key)
        if row is None or row[0] is None:
            raise LocalError(
                f"the transaction in which {key!r} was handled was committed before its end",
                hint="give Inbox.once a connection that does not commit by itself, and commit after its block; "
                f"delete the row from {self._table} when you know what was done",
            )
        return str(row[0])

    def keep(self, transaction: Any, key: str, publishes: str) -> None:
        """Keep a text with a key that was claimed."""
        self._execute(transaction, self.UPDATE, publishes=publishes, id=key)

    def forget(self, transaction: Any, before: float) -> int:
        """Delete what was handled before this time. Returns how many messages these were."""
        return self._execute(transaction, self.DELETE, before=before)[0]

    def _execute(self, connection: Any, statement: str, **values: object) -> tuple[int, Any]:
        """Execute a statement. Returns how many rows it has changed, and the first row of what it has selected."""
        if not hasattr(connection, "cursor"):
            raise LocalError(
                f"the transaction is {connection!r}, not a database connection", hint="write inbox.once(connection)"
            )
        sql, parameters = _bound(statement, self._table, self._paramstyle, values)
        with closing(connection.cursor()) as cursor:
            cursor.execute(sql, parameters) if parameters else cursor.execute(sql)
            return cursor.rowcount, cursor.fetchone() if cursor.description else None


#: How a parameter is written in each paramstyle of PEP 249, with its name and its position from 1.
_MARKERS: Final = {"qmark": "?", "numeric": ":{position}", "named": ":{name}", "format": "%s", "pyformat": "%({name})s"}


def _bound(
    statement: str, table: str, paramstyle: str, values: Mapping[str, object]
) -> tuple[str, dict[str, object] | tuple[object, ...]]:
    """Return a statement with the markers of a paramstyle, and its parameters."""
    names = [name for name in re.findall(r"{(\w+)}", statement) if name != "table"]
    marker = _MARKERS[paramstyle]
    markers = {name: marker.format(name=name, position=names.index(name) + 1) for name in names}
    sql = statement.format(table=table, **markers)
    if paramstyle in ("named", "pyformat"):
        return sql, {name: values[name] for name in names}
    return sql, tuple(values[name] for name in names)
