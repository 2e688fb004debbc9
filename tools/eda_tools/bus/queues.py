"""Reads a queue and gives everything back: decides whether that does harm, and does it. Shows and changes nothing."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import re
from collections import Counter, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

from pamqp.commands import Basic, Queue

from eda_core.amqp import Received, named
from eda_core.messages import Unreadable
from eda_core.messages.headers import DELIVERY_COUNT_HEADER
from eda_tools.bus.amqp import ACCESS_REFUSED, PRECONDITION_FAILED, Channel, ChannelClosed
from eda_tools.bus.connect import Session, explain
from eda_tools.bus.names import QueueDeclare
from eda_tools.cli.output import Output
from eda_tools.cli.status import FAILED, USAGE, ToolError
from eda_tools.messages.delivery import Delivery

#: The queue of dead letters, as docs/operating/rabbitmq.rst sets it up.
DEAD_LETTER_QUEUE: Final = "dead-letters"
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
#: How many messages are taken at the same time. A message may have 128 MiB, and all of these are in memory.
PORTION: Final = 100
#: Seconds without a message, after which the broker is asked how many there are.
_QUIET: Final = 0.1
#: Seconds for which the broker may deliver nothing although messages are ready.
_UNDELIVERED: Final = 5.0
#: Seconds to wait for a queue that grows.
_GROWING: Final = 5.0
#: Seconds without any message that comes back, after which nobody waits for the others.
_NO_MORE: Final = 10.0

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
        await channel.ask(QueueDeclare(queue=name, durable=True, arguments=arguments))
    except ChannelClosed as error:
        if error.code == PRECONDITION_FAILED:
            return _DIFFERS.search(explain(error)) or QueueKind(None, explain(error))
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
    found = await _at_rest(session, name)
    if found is None:
        hint = ""
        if name == DEAD_LETTER_QUEUE:
            hint = "; if no other queue gets the dead letters, the broker drops them: set one up as in "
            hint += 'docs/operating/rabbitmq.rst, "2. The bus"'
        raise ToolError(f"there is no queue {name!r}{hint}", FAILED)
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


async def _at_rest(session: Session, name: str) -> Queue.DeclareOk | None:
    """What the broker says of the queue when it does not grow any more, or after :data:`_GROWING` seconds.

    Another tool may just have ended, and what it held is on its way back.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + _GROWING
    found = await session.queue(name)
    while found is not None and loop.time() < deadline:
        await asyncio.sleep(_QUIET)
        again = await session.queue(name)
        grows = again is not None and (again.message_count or 0) > (found.message_count or 0)
        found = again
        if not grows:
            break
    return found


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

    It consumes them in portions, each with a consumer of its own. RabbitMQ gives back what one consumer got in one go.
    What was taken by ``basic.get`` it gives back one by one, each in a time that grows with the queue. So that is used
    only if another consumer has the queue for itself.

    Args:
        counted: whether the queue may count deliveries.

    Attributes:
        missing: how many messages were given back and are not seen in the queue: others took them, they expired, or the
            broker has not put them back yet.
    """

    def __init__(self, session: Session, queue: str, *, counted: bool) -> None:
        self.missing: int = 0
        self._session = session
        self._queue = queue
        self._counted = counted
        self._channel: Channel | None = None
        self._arrived: deque[tuple[int, Delivery]] = deque()
        self._news = asyncio.Event()
        self._polls = False
        self._held: dict[int, bytes] = {}
        self._given_back: Counter[bytes] = Counter()
        self._opened = 0.0

    async def next(self, most: int) -> tuple[int, Delivery] | None:
        """Take the next message. Returns its delivery tag and the message; ``None`` if no message is ready.

        Args:
            most: how many messages the caller may still want, this one included. No more are taken from the queue.

        Raises:
            ToolError: the message shows that this is a quorum queue after all, and that was not forced (status 2).
        """
        while True:
            if not self._arrived:
                await self._take_portion(await self._open(), min(PORTION, most + self._given_back.total()))
            if not self._arrived:
                return None
            tag, delivery = self._arrived.popleft()
            self._held[tag] = digest = _digest(delivery)
            if not self._counted and DELIVERY_COUNT_HEADER in delivery.headers:
                reason = "counts delivery attempts; no more messages were read (--force reads all the same)"
                raise ToolError(f"{self._queue!r} {reason}", USAGE)
            if not self._given_back[digest]:
                return tag, delivery
            self._given_back[digest] -= 1

    async def _take_portion(self, channel: Channel, count: int) -> None:
        """Take so many messages, or all that are ready. Afterwards ``_arrived`` is empty if none is."""
        if not self._polls:
            self._polls = not await self._consume(channel, count)
        if self._polls and not self._arrived:
            channel = await self._open()
            got = await channel.get("")
            if got is not None:
                self._heard(got)

    async def _consume(self, channel: Channel, count: int) -> bool:
        """Consume so many messages, or all that are ready. Returns false if only another consumer may consume."""
        loop = asyncio.get_running_loop()
        await channel.ask(Basic.Qos(prefetch_count=count))
        try:
            # "": the queue that was declared last. pamqp refuses some names.
            consumer = await channel.ask(Basic.Consume(queue=""))
        except ChannelClosed as error:
            if error.code != ACCESS_REFUSED or self._held:
                raise
            self._channel = None  # another consumer is exclusive
            return False
        deadline = loop.time() + _UNDELIVERED
        while (before := len(self._arrived)) < count:
            self._news.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_QUIET):
                    await self._news.wait()
            if len(self._arrived) > before:
                deadline = loop.time() + _UNDELIVERED
            elif not await self._ready(channel) or loop.time() > deadline:
                break
        # The answer comes behind all that was delivered.
        await channel.ask(Basic.Cancel(consumer.consumer_tag))
        return bool(self._arrived) or not await self._ready(channel)  # else another consumer is the single active one

    async def _open(self) -> Channel:
        if self._channel is None:
            self._channel = await self._session.channel(self._heard)
            self._opened = asyncio.get_running_loop().time()
            await self._declare(self._channel)  # so "" means this queue
        return self._channel

    def _heard(self, event: Received) -> None:
        method = event.method
        exchange, key, properties = named(method, event.properties or Basic.Properties())
        delivery = Delivery(exchange, key, properties, event.body, bool(method.redelivered))
        self._arrived.append((int(method.delivery_tag or 0), delivery))
        self._news.set()

    def ack(self, tag: int) -> None:
        """Acknowledge a message: it leaves the queue."""
        assert self._channel is not None
        self._channel.send(Basic.Ack(tag))
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
        """Put everything that is not acknowledged back to its place. Returns when it is ready again.

        If consumers are there, they may have taken it, so nobody can see whether it is back.
        """
        channel, self._channel = self._channel, None
        if channel is None:
            return
        tags = [*self._held, *(tag for tag, _ in self._arrived)]
        self._held.clear()
        self._arrived.clear()
        if tags:
            before = await self._ready(channel)
            channel.send(Basic.Nack(max(tags), multiple=True, requeue=True))
            await self._await_back(channel, before + len(tags))
        await channel.close()

    async def _await_back(self, channel: Channel, count: int) -> None:
        """Wait until so many messages are ready, as long as they become more.

        The broker counts the messages of a queue before it does what it was told earlier, so its answer alone does not
        show that the messages are back.
        """
        loop = asyncio.get_running_loop()
        most, deadline = -1, 0.0
        while True:
            found = await self._declare(channel)
            ready = found.message_count or 0
            if ready > most:
                most, deadline = ready, loop.time() + _NO_MORE
            self.missing = 0 if found.consumer_count else max(0, count - most)
            if not self.missing or loop.time() > deadline:
                return
            await asyncio.sleep(_QUIET)

    async def _ready(self, channel: Channel) -> int:
        return (await self._declare(channel)).message_count or 0

    async def _declare(self, channel: Channel) -> Queue.DeclareOk:
        answer: Queue.DeclareOk = await channel.ask(QueueDeclare(queue=self._queue, passive=True))
        return answer


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
            async with asyncio.timeout(_GIVE_BACK_TIMEOUT):
                await reader.give_back()
        raise
    await reader.give_back()
