"""Leaves a broker as the demo has found it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import aio_pika
from aio_pika.exceptions import ChannelNotFoundEntity

from eda_core.urls import redact
from examples.conversations.processes import DemoError
from examples.conversations.worker import note

SERVICES: Final = ("archive", "anonymizer", "tagger", "collector")
QUEUES: Final = (
    *(f"{service}.{exchange}" for service in SERVICES for exchange in ("events", "commands")),
    "anonymizer.commands.retry.2000",  # of PatientAnonymizer
)

_TIMEOUT: Final = 10.0


@asynccontextmanager
async def guest_of(url: str) -> AsyncIterator[None]:
    """On leaving the block, delete the demo's queues, except those that were there before.

    Raises:
        DemoError: the broker cannot be used, or services of the same names are running on it: they would take the
            demo's messages, and the demo theirs.
    """
    try:
        before = await _consumers(url)
    except Exception as error:  # the client library's failures have no common class
        raise DemoError(f"cannot use the broker at {redact(url)}: {_reason(error)}") from None
    busy = sorted(name for name, consumers in before.items() if consumers)
    if busy:
        raise DemoError(
            f"the broker at {redact(url)} has consumers on {', '.join(busy)}; stop them, or use another virtual host"
        )
    try:
        yield
    finally:
        ours = [name for name in QUEUES if name not in before]
        try:
            await _delete(url, ours)
        except Exception as error:
            note(f"these queues could not be deleted from {redact(url)}: {', '.join(ours)} ({_reason(error)})")


async def _consumers(url: str) -> dict[str, int]:
    """The demo's queues that exist, and how many consumers they have."""
    found: dict[str, int] = {}
    async with await aio_pika.connect(url, timeout=_TIMEOUT) as connection:
        for name in QUEUES:
            # A passive declaration of a missing queue costs the channel.
            channel = await connection.channel()
            try:
                queue = await channel.declare_queue(name, passive=True, timeout=_TIMEOUT)
            except ChannelNotFoundEntity:
                continue
            found[name] = queue.declaration_result.consumer_count or 0
            await channel.close()
    return found


async def _delete(url: str, names: list[str]) -> None:
    async with await aio_pika.connect(url, timeout=_TIMEOUT) as connection:
        channel = await connection.channel()
        for name in names:
            await channel.queue_delete(name, timeout=_TIMEOUT)


def _reason(error: BaseException) -> str:
    return redact(" ".join(str(error).split())) or type(error).__name__
