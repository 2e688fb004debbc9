"""Publishing with confirms, where it has to be known of each message for sure whether a queue took it.

aiormq has confirms, too, but it gives each message a ``message_id`` that has none, and it finds the message that came
back as unroutable by that id alone: of two copies of one event in flight, the wrong one would be taken for delivered.
So its channel is used, and what the broker answers is read here. (Private names of aiormq's channel: the tests of
``resurrect`` fail if they change.)
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

from eda_tools.bus.connect import RPC_TIMEOUT, Session, explain

#: Seconds for a publish to be confirmed. In a resource alarm the broker does not.
CONFIRM_TIMEOUT: Final = 30.0


@dataclass(frozen=True, slots=True)
class Copy:
    """A message to publish."""

    exchange: str
    routing_key: str
    properties: Basic.Properties
    body: bytes

    def frames(self, size: int) -> list[Any]:
        """It in frames, with bodies of at most ``size`` bytes."""
        method = Basic.Publish(exchange=self.exchange, routing_key=self.routing_key, mandatory=True)
        pieces = [ContentBody(self.body[start : start + size]) for start in range(0, len(self.body), size)]
        return [method, ContentHeader(properties=self.properties, body_size=len(self.body)), *pieces]

    def is_in(self, returned: DeliveredMessage) -> bool:
        """Whether this is what came back, to the last byte."""
        frame, properties = returned.delivery, returned.header.properties
        return (
            isinstance(frame, Basic.Return)
            and (frame.exchange or "", frame.routing_key or "") == (self.exchange, self.routing_key)
            and returned.body == self.body
            and _values(properties) == _values(self.properties)
        )


def _values(properties: Basic.Properties) -> list[Any]:
    """Those that are on the wire: what is empty is left out there."""
    return [value or None for _, value in properties]


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of a publish.

    Attributes:
        sent: whether the broker has it in a queue; ``None``: nobody knows.
        reason: why not.
        late: there is no answer, and it can still come.
    """

    sent: bool | None
    reason: str = ""
    late: bool = False


_SENT: Final = Answer(True)


class Publisher:
    """Publishes on a channel of its own; after that was closed by the broker, on a new one.

    Publishes are mandatory.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._channel: _ConfirmingChannel | None = None

    async def publish(self, copy: Copy) -> asyncio.Future[Answer]:
        """Write it; the broker's answer is still to come.

        Raises:
            AMQPError, ConnectionError, TimeoutError: there is no channel to be had.
        """
        if self._channel is None or self._channel.closed:
            self._channel = _ConfirmingChannel(await self._session.channel())
            await self._channel.select()
        return await self._channel.publish(copy)

    async def answers(self, publishes: Sequence[asyncio.Future[Answer]]) -> list[Answer]:
        """What became of them, in order; those that are not confirmed in time are unknown."""
        if publishes:
            await asyncio.wait(publishes, timeout=CONFIRM_TIMEOUT)
        reason = f"the broker has not confirmed it within {CONFIRM_TIMEOUT:g} s; it may be short of memory or disk"
        late = Answer(None, reason, late=True)
        return [publish.result() if publish.done() else late for publish in publishes]


class _ConfirmingChannel:
    """A channel of aiormq whose returns and confirms come here."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._last = 0
        self._open: dict[int, tuple[Copy, asyncio.Future[Answer]]] = {}
        self._returned: dict[int, str] = {}
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
        """Write it; returns when it is written, which takes its time when the broker does not read."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Answer] = loop.create_future()
        written: asyncio.Future[None] = loop.create_future()
        frames = copy.frames(self._channel.max_content_size)
        self._last += 1
        self._open[self._last] = copy, answer
        self._channel.write_queue.put_nowait(
            ChannelFrame.marshall(channel_number=self._channel.number, frames=frames, drain_future=written)
        )
        await asyncio.wait((written, answer), timeout=CONFIRM_TIMEOUT, return_when=asyncio.FIRST_COMPLETED)
        if not written.done():
            self._settle(self._last, Answer(None, "the broker takes no more publishes", late=True))
        return answer

    async def _on_close(self, frame: spec.Channel.Close) -> None:
        """The broker closes it. What is written from now on would be taken for an error of the whole connection."""
        self.closed = True
        await self._close_frame(frame)

    async def _on_return(self, frame: Basic.Return) -> None:
        """A return comes before its confirm and carries no tag. Identical messages have the same fate, so that it does
        not matter which of them is taken. Should the broker have changed it, no copy that it may be is taken as sent.
        """
        header = await self._channel._get_frame()
        assert isinstance(header, ContentHeader)
        message = await self._channel._read_content(frame, header)
        waiting = {tag: copy for tag, (copy, _) in self._open.items() if tag not in self._returned}
        same = [tag for tag, copy in waiting.items() if copy.is_in(message)][:1]
        near = [tag for tag, copy in waiting.items() if copy.routing_key == frame.routing_key]
        reason = "no queue is bound for it" if frame.reply_code == 312 else str(frame.reply_text)
        for tag in same or near or waiting:
            self._returned[tag] = reason

    async def _on_confirm(self, frame: Basic.Ack | Basic.Nack | Basic.Reject) -> None:
        last = frame.delivery_tag or 0
        multiple = not isinstance(frame, Basic.Reject) and frame.multiple
        tags = [tag for tag in self._open if tag <= last or not last] if multiple else [last]
        for tag in tags:
            if tag in self._returned:
                self._settle(tag, Answer(False, self._returned.pop(tag)))
            elif isinstance(frame, Basic.Nack):
                self._settle(tag, Answer(False, "the broker refused it, as when a queue is full"))
            else:
                self._settle(tag, _SENT)

    def _settle(self, tag: int, answer: Answer) -> None:
        found = self._open.pop(tag, None)
        if found is not None and not found[1].done():
            found[1].set_result(answer)

    def _on_closed(self, closing: asyncio.Future[Any]) -> None:
        self.closed = True
        error = None if closing.cancelled() else closing.exception()
        reason = "the channel was closed" if error is None else explain(error)
        for tag in list(self._open):
            returned = self._returned.pop(tag, None)
            self._settle(tag, Answer(None, reason) if returned is None else Answer(False, returned))
