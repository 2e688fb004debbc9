"""Publishes messages and reports for each whether a queue has it. It does not know why they are published.

The table of what is not answered yet is the core's: :class:`eda_core.machine.outbox.Confirms`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from pamqp.commands import Basic, Confirm

from eda_core.amqp import Received, named
from eda_core.machine.outbox import Confirms
from eda_tools.bus.amqp import AmqpError, Channel
from eda_tools.bus.connect import Session, explain

#: Seconds for a publish to be confirmed. While a resource alarm is on, the broker confirms nothing.
CONFIRM_TIMEOUT: Final = 30.0
#: The reply code of a mandatory message for which no queue is bound (AMQP 0-9-1, section 1.2).
_NO_ROUTE: Final = 312


@dataclass(frozen=True, slots=True)
class Copy:
    """A message to publish."""

    exchange: str
    routing_key: str
    properties: Basic.Properties
    body: bytes

    def equals(self, returned: Received) -> bool:
        """Whether a returned message is this one, byte for byte."""
        exchange, routing_key, properties = named(returned.method, returned.properties or Basic.Properties())
        return (exchange, routing_key, returned.body) == (self.exchange, self.routing_key, self.body) and _values(
            properties
        ) == _values(self.properties)


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
            AmqpError, TimeoutError: no channel can be opened.
        """
        if self._channel is None or self._channel.closed:
            self._channel = _ConfirmingChannel()
            await self._channel.open(self._session)
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
    """A channel with publisher confirms."""

    _channel: Channel

    def __init__(self) -> None:
        self.closed = False
        self._confirms = Confirms[_InFlight]()

    async def open(self, session: Session) -> None:
        self._channel = await session.channel(self._heard, self._lost)
        await self._channel.ask(Confirm.Select())

    async def publish(self, copy: Copy) -> asyncio.Future[Answer]:
        """Write ``copy``; return when it is written. That takes long if the broker does not read."""
        publish = _InFlight(copy, asyncio.get_running_loop().create_future())
        self._channel.publish(copy.exchange, copy.routing_key, copy.properties, copy.body)
        tag = self._confirms.add(publish)
        try:
            async with asyncio.timeout(CONFIRM_TIMEOUT):
                await self._channel.drain()
        except TimeoutError:
            self._end(tag, False, Answer(None, "the broker accepts no more publishes", late=True))
        return publish.answer

    def _end(self, tag: int, multiple: bool, answer: Answer) -> None:
        for publish in self._confirms.take(tag, multiple):
            publish.end(answer)

    def _heard(self, event: Received) -> None:
        method = event.method
        if isinstance(method, Basic.Ack):
            self._end(method.delivery_tag or 0, bool(method.multiple), _SENT)
        elif isinstance(method, Basic.Nack):
            refused = Answer(False, "the broker refused it, as when a queue is full")
            self._end(method.delivery_tag or 0, bool(method.multiple), refused)
        elif isinstance(method, Basic.Return):
            self._returned(event)

    def _returned(self, event: Received) -> None:
        """Note which publish came back. A return comes before its confirm and has no tag.

        Equal messages are routed alike, so any of them will do. If the broker has changed the message, every publish
        that it may be counts as returned.
        """
        method = event.method
        candidates = [publish for publish in self._confirms.open.values() if not publish.returned]
        equal = [publish for publish in candidates if publish.copy.equals(event)][:1]
        alike = [publish for publish in candidates if publish.copy.routing_key == method.routing_key]
        reason = (
            "no queue is bound for it" if method.reply_code == _NO_ROUTE else str(method.reply_text) or "it came back"
        )
        for publish in equal or alike or candidates:
            publish.returned = reason

    def _lost(self, error: AmqpError) -> None:
        self.closed = True
        for publish in self._confirms.clear():
            publish.end(Answer(None, explain(error)))
