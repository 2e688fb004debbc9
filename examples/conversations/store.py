"""The archive: what is known of each conversation, in one SQLite file that several workers may share.

Each ``record_...`` method takes in one fact, in a transaction of its own, and returns the conversation as it is
afterwards. Facts come in any order and any number of times: the first of its kind stays, so what is archived never
changes, and the state follows from the facts that are there. The text that came in is not a fact to keep: only the
anonymized one is stored.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

RECEIVED: Final = "received"
ANONYMIZED: Final = "anonymized"
ARCHIVED: Final = "archived"
FAILED: Final = "failed"

#: How long a worker waits for another one's transaction, in seconds; those last milliseconds.
BUSY_TIMEOUT: Final = 15.0

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS conversations (
    conversation_id TEXT PRIMARY KEY,
    name TEXT, anonymized TEXT, counts TEXT, language TEXT, topics TEXT, failed_step TEXT, failure TEXT
) STRICT
"""
_COLUMNS: Final = "conversation_id, name, anonymized, counts, language, topics, failed_step, failure"


@dataclass(frozen=True, slots=True)
class Conversation:
    """What is known of one conversation. ``None`` stands for what has not come in yet."""

    conversation_id: str
    name: str | None = None
    anonymized: str | None = None
    counts: dict[str, int] | None = None
    language: str | None = None
    topics: list[dict[str, Any]] | None = None
    failed_step: str | None = None
    failure: str | None = None

    @property
    def state(self) -> str:
        """``archived`` if everything is known, else ``failed``, ``anonymized`` or ``received``: only ever forward."""
        if self.name is not None and self.anonymized is not None and self.topics is not None:
            return ARCHIVED
        if self.failed_step is not None:
            return FAILED
        return RECEIVED if self.anonymized is None else ANONYMIZED


class Store:
    """The conversations in a file. To be closed, or used as a context manager."""

    def __init__(self, path: Path | str) -> None:
        # Transactions are opened by hand: the module's own would begin as readers, and two readers that both want to
        # write end in an error that no time-out helps against.
        self._connection = sqlite3.connect(path, timeout=BUSY_TIMEOUT, isolation_level=None)
        try:
            self._connection.execute("PRAGMA journal_mode=WAL")
            with self._transaction():
                self._connection.execute(_SCHEMA)
        except BaseException:
            self._connection.close()
            raise

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        self._connection.close()

    def record_received(self, conversation_id: str, name: str) -> Conversation:
        """The conversation has begun."""
        return self._record(conversation_id, "name", {"name": name})

    def record_anonymized(self, conversation_id: str, text: str, counts: dict[str, int]) -> Conversation:
        """Its text is anonymized."""
        return self._record(conversation_id, "anonymized", {"anonymized": text, "counts": json.dumps(counts)})

    def record_topics(self, conversation_id: str, language: str, topics: list[dict[str, Any]]) -> Conversation:
        """Its topics are known."""
        return self._record(conversation_id, "topics", {"language": language, "topics": json.dumps(topics)})

    def record_failure(self, conversation_id: str, step: str, reason: str) -> Conversation:
        """A service has answered that it cannot do ``step``."""
        return self._record(conversation_id, "failed_step", {"failed_step": step, "failure": reason})

    def get(self, conversation_id: str) -> Conversation | None:
        query = f"SELECT {_COLUMNS} FROM conversations WHERE conversation_id = ?"
        row = self._connection.execute(query, (conversation_id,)).fetchone()
        if row is None:
            return None
        key, name, anonymized, counts, language, topics, failed_step, failure = row
        return Conversation(
            key,
            name,
            anonymized,
            None if counts is None else json.loads(counts),
            language,
            None if topics is None else json.loads(topics),
            failed_step,
            failure,
        )

    def _record(self, conversation_id: str, key: str, fact: dict[str, str]) -> Conversation:
        assignments = ", ".join(f"{column} = ?" for column in fact)
        with self._transaction():
            self._connection.execute(
                "INSERT INTO conversations (conversation_id) VALUES (?) ON CONFLICT DO NOTHING", (conversation_id,)
            )
            self._connection.execute(
                f"UPDATE conversations SET {assignments} WHERE conversation_id = ? AND {key} IS NULL",
                (*fact.values(), conversation_id),
            )
            conversation = self.get(conversation_id)
        assert conversation is not None
        return conversation

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._connection.execute("ROLLBACK")
            raise
        self._connection.execute("COMMIT")
