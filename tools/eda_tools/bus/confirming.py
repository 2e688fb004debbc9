"""Publishes messages and reports for each whether a queue has it. It does not know why they are published.

aiormq has publisher confirms, too. But it gives a ``message_id`` to each message that has none, and it finds a returned
message by that id alone: of two copies of one event in flight it could take the wrong one for delivered. So this module
uses aiormq's channel and reads the broker's answers itself. It replaces private methods of the channel; the tests of
``resurrect`` fail if those change.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from aiormq.abc import ChannelFrame, DeliveredMessage
from aiormq.channel import Channel
from pamqp import commands as spec
from pamqp.body import ContentBody
from pamqp.commands import Basic, Confirm
from pamqp.header import ContentHeader

from eda_core.machine.outbox import Confirms
from eda_tools.bus.connect import RPC_TIMEOUT, Session, explain
from eda_tools.bus.names import Publish

#: Seconds for a publish to be confirmed. While a resource alarm is on, the broker confirms nothing.
CONFIRM_TIMEOUT: Final = 30.0


@dataclass(frozen=True, slots=True)
class Copy:
    """A message to publish."""

    exchange: str
    routing_key: str
    properties: Basic.Properties
    body: bytes

    def frames(self, size: int) -> list[Any]:
        """Its frames, with bodies of at most ``size`` bytes."""
        method = Publish(exchange=self.exchange, routing_key=self.routing_key, mandatory=True)
        pieces = [ContentBody(self.body[start : start + size]) for start in range(0, len(self.body), size)]
        return [method, ContentHeader(properties=self.properties, body_size=len(self.body)), *pieces]

    def equals(self, returned: DeliveredMessage) -> bool:
        """Whether a returned message is this one, byte for byte."""
        frame, properties = returned.delivery, returned.header.properties
        return (
            isinstance(frame, Basic.Return)
            and (frame.exchange or "", frame.routing_key or "") == (self.exchange, self.routing_key)
            and returned.body == self.body
            and _values(properties) == _values(self.properties)
        )


def _values(properties: Basic.Properties) -> list[Any]:
    """The values as they are on the wire, where empty ones are left out."""
    return [value or None for _, value in properties]


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of a publish.

    Attributes:
        sent: whether a queue has the message; ``None``: unknown.
        reason: why it was not sent, or why that is unknown.
        late: there is no answer yet, but it can still come.
    """

    sent: bool | None
    reason: str = ""
    late: bool = False


_SENT: Final = Answer(True)


class Publisher:
    """Publishes on a channel of its own, or on a new one if the broker closed it. All publishes are mandatory."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._channel: _ConfirmingChannel | None = None

    async def publish(self, copy: Copy) -> asyncio.Future[Answer]:
        """Write ``copy``. Returns a future of the broker's answer.

        Raises:
            AMQPError, ConnectionError, TimeoutError: no channel can be opened.
        """
        if self._channel is None or self._channel.closed:
            self._channel = _ConfirmingChannel(await self._session.channel())
            await self._channel.select()
        return await self._channel.publish(copy)

    async def answers(self, publishes: Sequence[asyncio.Future[Answer]]) -> list[Answer]:
        """What became of the publishes, in order. Those that are not confirmed in time are unknown."""
        if publishes:
            await asyncio.wait(publishes, timeout=CONFIRM_TIMEOUT)
        reason = f"the broker has not confirmed it within {CONFIRM_TIMEOUT:g} s; it may be short of memory or disk"
        late = Answer(None, reason, late=True)
        return [publish.result() if publish.done() else late for publish in publishes]


@dataclass(slots=True, eq=False)
class _InFlight:
    """A publish without an answer; ``returned`` says why the message came back, if it did."""

    copy: Copy
    answer: asyncio.Future[Answer]
    returned: str = ""

    def end(self, answer: Answer) -> None:
        if not self.answer.done():
            self.answer.set_result(Answer(False, self.returned) if self.returned else answer)


class _ConfirmingChannel:
    """A channel of aiormq whose returns and confirms this class handles."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._confirms = Confirms[_InFlight]()
        self._close_frame = channel._on_close_frame
        self.closed = False
        channel.publisher_confirms = True
        channel._on_close_frame = self._on_close  # type: ignore[method-assign]
        channel._on_confirm_frame = self._on_confirm  # type: ignore[method-assign]
        channel._on_return_frame = self._on_return  # type: ignore[method-assign]
        channel.closing.add_done_callback(self._on_closed)

    async def select(self) -> None:
        await self._channel.rpc(Confirm.Select(), timeout=RPC_TIMEOUT)

    async def publish(self, copy: Copy) -> asyncio.Future[Answer]:
        """Write ``copy``; return when it is written. That takes long if the broker does not read."""
        loop = asyncio.get_running_loop()
        publish = _InFlight(copy, loop.create_future())
        written: asyncio.Future[None] = loop.create_future()
        frames = copy.frames(self._channel.max_content_size)
        tag = self._confirms.add(publish)
        self._channel.write_queue.put_nowait(
            ChannelFrame.marshall(channel_number=self._channel.number, frames=frames, drain_future=written)
        )
        first = asyncio.FIRST_COMPLETED
        await asyncio.wait((written, publish.answer), timeout=CONFIRM_TIMEOUT, return_when=first)
        if not written.done():
            self._end(tag, False, Answer(None, "the broker accepts no more publishes", late=True))
        return publish.answer

    def _end(self, tag: int, multiple: bool, answer: Answer) -> None:
        for publish in self._confirms.take(tag, multiple):
            publish.end(answer)

    async def _on_close(self, frame: spec.Channel.Close) -> None:
        """Note that the broker closes the channel. A later frame on it would be an error of the whole connection."""
        self.closed = True
        await self._close_frame(frame)

    async def _on_return(self, frame: Basic.Return) -> None:
        """Note which publish came back. A return comes before its confirm and has no tag.

        Equal messages are routed alike, so any of them will do. If the broker has changed the message, every publish
        that it may be counts as returned.
        """
        header = await self._channel._get_frame()
        assert isinstance(header, ContentHeader)
        message = await self._channel._read_content(frame, header)
        candidates = [publish for publish in self._confirms.open.values() if not publish.returned]
        equal = [publish for publish in candidates if publish.copy.equals(message)][:1]
        alike = [publish for publish in candidates if publish.copy.routing_key == frame.routing_key]
        reason = "no queue is bound for it" if frame.reply_code == 312 else str(frame.reply_text) or "it came back"
        for publish in equal or alike or candidates:
            publish.returned = reason

    async def _on_confirm(self, frame: Basic.Ack | Basic.Nack | Basic.Reject) -> None:
        refused = Answer(False, "the broker refused it, as when a queue is full")
        multiple = bool(getattr(frame, "multiple", False))
        self._end(frame.delivery_tag or 0, multiple, refused if isinstance(frame, Basic.Nack) else _SENT)

    def _on_closed(self, closing: asyncio.Future[Any]) -> None:
        self.closed = True
        error = None if closing.cancelled() else closing.exception()
        reason = "the channel was closed" if error is None else explain(error)
        for publish in self._confirms.clear():
            publish.end(Answer(None, reason))
