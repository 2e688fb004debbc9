"""Reads a queue and gives everything back: decides whether that does harm, and does it. Shows and changes nothing."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import re
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

from aiormq.channel import Channel
from aiormq.exceptions import ChannelClosed, ChannelPreconditionFailed
from pamqp.commands import Basic, Queue

from eda_core.amqp import named
from eda_core.messages import Unreadable
from eda_core.messages.headers import DELIVERY_COUNT_HEADER
from eda_tools.bus.connect import RPC_TIMEOUT, Session, explain
from eda_tools.bus.names import QueueDeclare
from eda_tools.cli.output import Output
from eda_tools.cli.status import FAILED, USAGE, ToolError
from eda_tools.messages.delivery import Delivery

CLASSIC: Final = "classic"
QUORUM: Final = "quorum"

#: No queue has this type, nor this locator. So the broker refuses to declare one, and tells what the queue has instead.
_IMPOSSIBLE: Final = "eda-probe"
#: The broker compares this argument after the delivery limit.
_COMPARED_LAST: Final = "x-queue-leader-locator"
#: Seconds for which messages are held. RabbitMQ closes a channel that leaves one unacknowledged for half an hour.
HOLD = 15 * 60.0
#: Seconds for giving back after a failure, which may be the broker's.
_GIVE_BACK_TIMEOUT: Final = 2.0

#: The most declarations with which to find out the kind of a queue.
_PROBES: Final = 20
_DIFFERS: Final = re.compile(
    r"inequivalent arg '(?P<name>[^']+)' for queue .*: received .* but current is "
    r"(?:none|the value '(?P<value>.*)' of type '(?P<type>\w+)'|'(?P<plain>.*)')",
    re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class QueueKind:
    """What AMQP tells about a queue.

    Attributes:
        kind: ``classic``, ``quorum``, ``stream`` …; ``None``: unknown.
        reason: why it is unknown.
        delivery_limit: set by the queue's arguments; ``None``: not set, or unknown. A policy may set one as well.
    """

    kind: str | None
    reason: str = ""
    delivery_limit: int | None = None


_UNKNOWN: Final = QueueKind(None, "its arguments cannot be compared")


async def queue_kind(session: Session, name: str) -> QueueKind:
    """Find out what kind of queue ``name`` is, by AMQP alone. This can neither change nor make a queue.

    AMQP cannot ask for the kind. But RabbitMQ refuses to declare an existing queue with other arguments, and it tells
    one argument that differs. Each declaration here has a value that no queue can have, so it never succeeds, even if
    the queue is deleted meanwhile.
    """
    arguments: dict[str, Any] = {"x-queue-type": _IMPOSSIBLE}
    for _ in range(_PROBES):
        difference = await _difference(session, name, arguments)
        if isinstance(difference, QueueKind):
            return difference
        argument = difference["name"]
        current = difference["value"] if difference["type"] else difference["plain"]
        if argument in ("durable", "auto_delete"):
            return QueueKind(CLASSIC)  # queues of the other types are durable and not deleted automatically
        if argument == "x-queue-type":
            if current != QUORUM:
                return QueueKind(CLASSIC if current is None else current)
            arguments |= {"x-queue-type": QUORUM, _COMPARED_LAST: _IMPOSSIBLE}
        elif argument == "x-delivery-limit" or argument in arguments or current is None:
            if _COMPARED_LAST not in arguments:
                return _UNKNOWN
            limited = argument == "x-delivery-limit" and current is not None and current.isdecimal()
            return QueueKind(QUORUM, "", int(current) if limited else None)
        else:
            arguments[argument] = _value(current, difference["type"])
    return _UNKNOWN


async def _difference(session: Session, name: str, arguments: dict[str, Any]) -> re.Match[str] | QueueKind:
    """The argument that differs, by :data:`_DIFFERS`; or what else the broker's answer says about the queue."""
    channel = await session.channel()  # the refusal closes the channel
    try:
        await channel.rpc(QueueDeclare(queue=name, durable=True, arguments=arguments), timeout=RPC_TIMEOUT)
    except ChannelPreconditionFailed as error:
        return _DIFFERS.search(explain(error)) or QueueKind(None, explain(error))
    except ChannelClosed as error:
        reserved = name.startswith("amq.")  # the broker gives such names, and to classic queues only
        return QueueKind(CLASSIC) if reserved else QueueKind(None, explain(error))
    await channel.close()
    return QueueKind(None, "the broker does not compare queue types")


def _value(text: str, kind: str | None) -> Any:
    if kind == "bool" or (kind is None and text in ("true", "false")):
        return text == "true"
    if kind != "longstr" and re.fullmatch(r"-?\d+", text):
        return int(text)
    return text


async def safe_to_read(
    session: Session, name: str, output: Output, *, force: bool
) -> tuple[str | None, Queue.DeclareOk]:
    """Check that messages can be read from the queue and given back. Returns its kind, and what the broker says of it.

    Args:
        force: also if reading spends delivery attempts.

    Raises:
        ToolError: there is no such queue (status 1); or reading is not safe, and not forced (status 2).
    """
    found = await session.queue(name)
    if found is None:
        raise ToolError(f"there is no queue {name!r}", FAILED)
    queue = await queue_kind(session, name)
    if queue.kind == CLASSIC:
        return CLASSIC, found
    if queue.kind == QUORUM:
        risk = _quorum_risk(queue.delivery_limit)
    elif queue.kind is None:
        risk = f"may be a quorum queue, on which reading spends delivery attempts: {queue.reason}"
    else:
        raise ToolError(f"{name!r} is a {queue.kind} queue: its messages cannot be taken and given back", USAGE)
    if not force:
        raise ToolError(f"{name!r} {risk}; nothing was read (--force reads all the same)", USAGE)
    output.note(f"{name!r} {risk}; --force reads all the same")
    return queue.kind, found


def _quorum_risk(limit: int | None) -> str:
    known = (
        f"its delivery limit is {limit}"
        if limit is not None
        else "its arguments set no delivery limit, but a policy may, and RabbitMQ 4 sets 20"
    )
    return (
        "is a quorum queue: each reading counts as a delivery attempt, after the last of which the broker drops or "
        f"dead-letters the message ({known}), and messages that are given back may change their places"
    )


class Reader:
    """Takes messages from a queue one after the other. Consumers do not get them until they are given back.

    Args:
        counted: whether the queue may count deliveries.
    """

    def __init__(self, session: Session, queue: str, *, counted: bool) -> None:
        self._session = session
        self._queue = queue
        self._counted = counted
        self._channel: Channel | None = None
        self._held: dict[int, bytes] = {}
        self._given_back: Counter[bytes] = Counter()
        self._opened = 0.0

    async def next(self) -> tuple[int, Delivery] | None:
        """Take the next message. Returns its delivery tag and the message; ``None`` if no message is ready.

        Raises:
            ToolError: the message shows that this is a quorum queue after all, and that was not forced (status 2).
        """
        while True:
            if self._channel is None:
                self._channel, self._opened = await self._session.channel(), asyncio.get_running_loop().time()
                await self._declare(self._channel)
            got = await self._channel.basic_get("", timeout=RPC_TIMEOUT)  # "": the queue that was declared last
            _raise_lost_cancellation()
            frame = got.delivery
            if not isinstance(frame, Basic.GetOk):
                return None
            tag = int(frame.delivery_tag or 0)
            exchange, key, properties = named(frame, got.header.properties)
            delivery = Delivery(exchange, key, properties, got.body, bool(frame.redelivered))
            self._held[tag] = digest = _digest(delivery)
            if not self._counted and DELIVERY_COUNT_HEADER in delivery.headers:
                reason = "counts delivery attempts; no more messages were read (--force reads all the same)"
                raise ToolError(f"{self._queue!r} {reason}", USAGE)
            if not self._given_back[digest]:
                return tag, delivery
            self._given_back[digest] -= 1

    async def ack(self, tag: int) -> None:
        """Acknowledge a message: it leaves the queue."""
        assert self._channel is not None
        await self._channel.basic_ack(tag)
        del self._held[tag]

    async def renew(self) -> None:
        """Give back what has been held for long, before the broker closes the channel. All tags become invalid.

        :meth:`next` does not return these messages again.
        """
        if self._held and asyncio.get_running_loop().time() - self._opened > HOLD:
            held = Counter(self._held.values())
            await self.give_back()
            self._given_back = held

    async def give_back(self) -> None:
        """Put everything that is not acknowledged back to its place. Returns when the broker has done so."""
        channel, self._channel = self._channel, None
        if channel is None:
            return
        if self._held:
            await channel.basic_nack(max(self._held), multiple=True, requeue=True)
            self._held.clear()
        await self._declare(channel)  # the broker answers when it has done everything before
        await channel.close()

    async def _declare(self, channel: Channel) -> None:
        await channel.rpc(QueueDeclare(queue=self._queue, passive=True), timeout=RPC_TIMEOUT)


def _raise_lost_cancellation() -> None:
    """In Python 3.11 asyncio.wait_for, which aiormq uses, loses a cancellation that comes together with the answer."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


def _digest(delivery: Delivery) -> bytes:
    """Tells messages apart, also across connections."""
    properties = [(name, value) for name, value in delivery.properties if name != "headers"]
    headers = sorted((str(name), repr(value)) for name, value in delivery.headers.items())
    unreadable = delivery.properties.reason if isinstance(delivery.properties, Unreadable) else ""
    parts = (delivery.exchange, delivery.routing_key, properties, headers, unreadable)
    text = repr(parts).encode(errors="surrogatepass")
    return hashlib.blake2b(text + delivery.body, digest_size=16).digest()


@asynccontextmanager
async def reading(session: Session, queue: str, *, force: bool = False) -> AsyncIterator[Reader]:
    """A reader of ``queue``. At the end of the block, also after an error, everything it holds is given back.

    Args:
        force: go on if messages show that the queue counts deliveries.
    """
    reader = Reader(session, queue, counted=force)
    try:
        yield reader
    except BaseException:
        with contextlib.suppress(Exception):  # when the channel closes, the broker takes back what it held
            await asyncio.wait_for(reader.give_back(), _GIVE_BACK_TIMEOUT)
        raise
    await reader.give_back()
