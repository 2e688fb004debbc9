"""Reading a queue without taking from it: what kind it is, whether that does harm, and the reading itself."""

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

from eda_core.messages.headers import DELIVERY_COUNT_HEADER
from eda_tools.bus.connect import RPC_TIMEOUT, Session, explain
from eda_tools.cli.output import Output
from eda_tools.cli.status import FAILED, USAGE, ToolError
from eda_tools.messages.delivery import Delivery

CLASSIC: Final = "classic"
QUORUM: Final = "quorum"

#: No queue has this type, nor this locator: the broker refuses to make one, and tells what an existing one has.
_NO_SUCH: Final = "eda-probe"
#: The argument that is compared after the delivery limit.
_BEHIND_THE_LIMIT: Final = "x-queue-leader-locator"
#: Seconds for which messages are held: RabbitMQ closes a channel that leaves one unacknowledged for half an hour.
HOLD = 15 * 60.0
#: Seconds for giving back when something has gone wrong, perhaps with the broker.
_FAREWELL: Final = 2.0

_PROBES: Final = 20
_DIFFERS: Final = re.compile(
    r"inequivalent arg '(?P<name>[^']+)' for queue .*: received .* but current is "
    r"(?:none|the value '(?P<value>.*)' of type '(?P<type>\w+)'|'(?P<plain>.*)')",
    re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class QueueKind:
    """What AMQP tells of a queue.

    Attributes:
        kind: ``classic``, ``quorum``, ``stream`` …; ``None`` if the broker does not tell, for …
        reason: … this reason.
        delivery_limit: of its arguments; ``None`` if they set none, or were not told. A policy may set one, too.
    """

    kind: str | None
    reason: str = ""
    delivery_limit: int | None = None


_UNTOLD: Final = QueueKind(None, "its arguments cannot be compared")


async def queue_kind(session: Session, name: str) -> QueueKind:
    """Find out what kind of queue it is, with AMQP alone, and without a way to change or make a queue.

    AMQP has no question for that. But declaring a queue that exists with other arguments is refused, and RabbitMQ says
    in what it differs, one argument at a time. Each declaration holds a value that no queue can have, so that it never
    succeeds, even if the queue is deleted meanwhile.
    """
    arguments: dict[str, Any] = {"x-queue-type": _NO_SUCH}
    for _ in range(_PROBES):
        told = await _difference(session, name, arguments)
        if isinstance(told, QueueKind):
            return told
        differs, current = told["name"], told["value"] if told["type"] else told["plain"]
        if differs in ("durable", "auto_delete"):
            return QueueKind(CLASSIC)  # those of other types are durable, and not deleted by themselves
        if differs == "x-queue-type":
            if current != QUORUM:
                return QueueKind(CLASSIC if current is None else current)
            arguments |= {"x-queue-type": QUORUM, _BEHIND_THE_LIMIT: _NO_SUCH}
        elif differs == "x-delivery-limit" or differs in arguments or current is None:
            limited = differs == "x-delivery-limit" and current is not None and current.isdecimal()
            return (
                QueueKind(QUORUM, "", int(current) if limited else None) if _BEHIND_THE_LIMIT in arguments else _UNTOLD
            )
        else:
            arguments[differs] = _value(current, told["type"])
    return _UNTOLD


async def _difference(session: Session, name: str, arguments: dict[str, Any]) -> re.Match[str] | QueueKind:
    channel = await session.channel()  # the refusal costs the channel
    try:
        await channel.queue_declare(name, durable=True, arguments=arguments, timeout=RPC_TIMEOUT)
    except ChannelPreconditionFailed as error:
        told = _DIFFERS.search(explain(error))
        return told if told is not None else QueueKind(None, explain(error))
    except ChannelClosed as error:
        reserved = name.startswith("amq.")  # such names are given by the broker, to classic queues only
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
    """Its kind, and what the broker tells of a queue from which messages can be read and given back.

    Raises:
        ToolError: there is no such queue (status 1); or giving back is not safe, and not forced (status 2).
    """
    found = await session.queue(name)
    if found is None:
        raise ToolError(f"there is no queue {name!r}", FAILED)
    told = await queue_kind(session, name)
    if told.kind == CLASSIC:
        return CLASSIC, found
    if told.kind == QUORUM:
        risk = _quorum_risk(told)
    elif told.kind is None:
        risk = f"may be a quorum queue, on which reading spends delivery attempts: {told.reason}"
    else:
        raise ToolError(f"{name!r} is a {told.kind} queue, which is not read by taking messages and giving back", USAGE)
    if not force:
        raise ToolError(f"{name!r} {risk}; nothing was read (--force reads all the same)", USAGE)
    output.note(f"{name!r} {risk}; --force reads all the same")
    return told.kind, found


def _quorum_risk(told: QueueKind) -> str:
    limit = told.delivery_limit
    known = (
        f"its delivery limit is {limit}"
        if limit is not None
        else "its arguments set no delivery limit, but a policy may, and RabbitMQ 4 sets 20"
    )
    return (
        "is a quorum queue: each reading counts as a delivery attempt, after the last of which the broker drops or "
        f"dead-letters the message ({known}), and what is given back may change its place"
    )


class Reader:
    """Takes messages from a queue, one after the other, and keeps them from others until it is closed.

    Args:
        counted: whether the queue may count deliveries.

    Attributes:
        held: how many it has that are not acknowledged.
    """

    def __init__(self, session: Session, queue: str, *, counted: bool) -> None:
        self._session = session
        self._queue = queue
        self._counted = counted
        self._channel: Channel | None = None
        self._held: dict[int, bytes] = {}
        self._given_back: Counter[bytes] = Counter()
        self._opened = 0.0

    @property
    def held(self) -> int:
        return len(self._held)

    async def next(self) -> tuple[int, Delivery] | None:
        """The next message, with its delivery tag; ``None`` if there is none that nobody has.

        Raises:
            ToolError: it shows that this is a quorum queue after all, and that was not forced (status 2).
        """
        while True:
            if self._channel is None:
                self._channel, self._opened = await self._session.channel(), asyncio.get_running_loop().time()
            got = await self._channel.basic_get(self._queue, timeout=RPC_TIMEOUT)
            _be_cancelled()
            frame = got.delivery
            if not isinstance(frame, Basic.GetOk):
                return None
            properties, tag = got.header.properties, int(frame.delivery_tag or 0)
            exchange, key = frame.exchange or "", frame.routing_key or ""
            delivery = Delivery(exchange, key, properties, got.body, bool(frame.redelivered))
            self._held[tag] = image = _image(delivery)
            if not self._counted and DELIVERY_COUNT_HEADER in delivery.headers:
                raise ToolError(f"{self._queue!r} counts delivery attempts; no more was read (--force does)", USAGE)
            if not self._given_back[image]:
                return tag, delivery
            self._given_back[image] -= 1

    async def ack(self, tag: int) -> None:
        """Take a message out of the queue."""
        assert self._channel is not None
        await self._channel.basic_ack(tag)
        del self._held[tag]

    async def renew(self) -> None:
        """Give back what is held before the broker loses patience; :meth:`next` will pass over these messages. All
        tags are void then."""
        if self._held and asyncio.get_running_loop().time() - self._opened > HOLD:
            held = Counter(self._held.values())
            await self.give_back()
            self._given_back = held

    async def give_back(self) -> None:
        """Put all that is not acknowledged back to its place; returns when the broker has done it."""
        channel, self._channel = self._channel, None
        if channel is None:
            return
        if self._held:
            await channel.basic_nack(max(self._held), multiple=True, requeue=True)
            self._held.clear()
        # The answer comes after all before it.
        await channel.queue_declare(self._queue, passive=True, timeout=RPC_TIMEOUT)
        await channel.close()


def _be_cancelled() -> None:
    """asyncio.wait_for of Python 3.11, by which aiormq waits, loses a cancellation that meets the answer."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


def _image(delivery: Delivery) -> bytes:
    """Tells messages apart, also from one connection to the next."""
    properties = [(name, value) for name, value in delivery.properties if name != "headers"]
    headers = sorted((str(name), repr(value)) for name, value in delivery.headers.items())
    told = repr((delivery.exchange, delivery.routing_key, properties, headers)).encode(errors="surrogatepass")
    return hashlib.blake2b(told + delivery.body, digest_size=16).digest()


@asynccontextmanager
async def reading(session: Session, queue: str, *, force: bool = False) -> AsyncIterator[Reader]:
    """A reader of ``queue``; at the end of the block, however it comes, what it holds is given back.

    Args:
        force: also if messages turn out to count their deliveries.
    """
    reader = Reader(session, queue, counted=force)
    try:
        yield reader
    except BaseException:
        with contextlib.suppress(Exception):  # the broker gives back what a closed channel held
            await asyncio.wait_for(reader.give_back(), _FAREWELL)
        raise
    await reader.give_back()
