"""The business service ``archive``: has each received conversation anonymized, then tagged, and keeps the outcome.

    python -m examples.conversations.archive [URL] --state FILE

or, with other services (``README.rst``), ``eda run examples.conversations.archive:archive``.

The process itself is in ``workflow.py``, what is kept in ``store.py``.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sqlite3
import sys
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from eda_aio import Service
from eda_core import criticality
from examples.conversations.store import Store
from examples.conversations.worker import DEAD_LETTERS, add_url_argument, note, required_url, say_ready
from examples.conversations.workflow import (
    ANONYMIZE,
    TAG,
    Failure,
    Next,
    NextCommand,
    NextEvent,
    Summary,
    Text,
    Workflow,
)


class Archive(Service):
    """Several workers may run on one state file."""

    DEAD_LETTER_EXCHANGE: ClassVar[str] = DEAD_LETTERS
    #: What it sends, for ``eda asyncapi`` and ``eda check``: the workflow makes the names.
    PUBLISHES: ClassVar[Mapping[str, Any]] = {"ConversationArchived": Summary, "ConversationFailed": Failure}
    SENDS: ClassVar[Mapping[str, Any]] = {f"anonymizer.{ANONYMIZE}": Text, f"tagger.{TAG}": Text}

    def __init__(self, amqp_urls: Sequence[str], store: Store) -> None:
        results = [f"archive.{ANONYMIZE}Return", f"archive.{TAG}Return"]
        super().__init__(amqp_urls, ["ConversationReceived"], results, "archive")
        self._workflow = Workflow(store)

    async def on_ready(self) -> None:
        say_ready()

    async def on_ConversationReceived(self, payload: Any, conversation_id: str, meta: dict[str, Any]) -> None:
        await self._send(self._workflow.received(conversation_id, payload), conversation_id)

    async def on_AnonymizeTextReturn(
        self, payload: Any, conversation_id: str, status: str, correlation_id: str, meta: dict[str, Any]
    ) -> None:
        if status == "success":
            await self._send(self._workflow.anonymized(conversation_id, payload), conversation_id)
        else:
            await self._send(self._workflow.failed(conversation_id, ANONYMIZE, payload), conversation_id)

    async def on_TagTopicsReturn(
        self, payload: Any, conversation_id: str, status: str, correlation_id: str, meta: dict[str, Any]
    ) -> None:
        if status == "success":
            await self._send(self._workflow.tagged(conversation_id, payload), conversation_id)
        else:
            await self._send(self._workflow.failed(conversation_id, TAG, payload), conversation_id)

    async def _send(self, message: Next, conversation_id: str) -> None:
        if isinstance(message, NextCommand):
            await self.send_command(
                f"{message.service}.{message.command}",
                message.payload,
                conversation_id,
                f"archive.{message.command}Return",
                message.correlation_id(conversation_id),
            )
        elif isinstance(message, NextEvent):
            await self.publish_event(message.event, message.payload, conversation_id)
        else:
            await self.log(criticality.WARNING, message.reason, conversation_id=conversation_id)


def archive(amqp_urls: Sequence[str]) -> Archive:
    """Make a worker for ``eda run``. Its state file is that of the environment variable ``ARCHIVE_STATE``."""
    return Archive(amqp_urls, Store(os.environ.get("ARCHIVE_STATE", "archive.sqlite")))


async def _run(url: str, store: Store) -> None:
    await Archive([url], store).run()


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m examples.conversations.archive", description="Run one archive worker."
    )
    add_url_argument(parser)
    parser.add_argument("--state", required=True, metavar="FILE", help="the SQLite file, created if missing")
    arguments = parser.parse_args()
    url = required_url(parser, arguments.url)
    try:
        store = Store(arguments.state)
    except sqlite3.Error as error:
        note(f"{arguments.state}: cannot be opened as an SQLite file ({error}); check --state")
        return 2
    with store:
        asyncio.run(_run(url, store))
    return 0


if __name__ == "__main__":
    sys.exit(main())
