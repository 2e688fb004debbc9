"""The services that tools are when they publish or watch: the core connects, reconnects, confirms and retries.

Publishing::

    service = ToolService(args.urls, "publish_event", output)
    async with running(service):
        routed = await service.publish(Event(...))  # returns when the broker has confirmed it

Watching::

    async with watching(args.urls, "monitor", output, events=["#"], commands=["#"]) as watch:
        while (delivery := await watch.next(timeout=idle)) is not None:  # a Delivery
            ...

The queues of a tool are exclusive and named by the broker, so nothing stays behind. This module does not know what the
messages mean.
"""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, ClassVar, Final, TypeVar

from pamqp.commands import Basic

from eda_aio import Service
from eda_aio.service import _Driver
from eda_core import Ack, AnyMessage, Effect, Epoch, Machine, Report
from eda_core.errors import ServiceError
from eda_core.messages.envelope import envelope_of
from eda_core.messages.headers import CONVERSATION_ID
from eda_core.urls import redact
from eda_tools.bus.connect import CLOSE_TIMEOUT, CONNECT_TIMEOUT, answering
from eda_tools.cli.output import Output
from eda_tools.cli.status import FAILED, ToolError
from eda_tools.messages.delivery import Delivery

T = TypeVar("T")

#: The broker's reason for closing a channel, in whatever text it stands.
_REPLY_TEXT: Final = re.compile(r"[A-Z]+_[A-Z_]+ - .*")
#: How many messages one acknowledgement is about while more are waiting.
_ACK_EVERY: Final = 50


# The two machines override methods of the core's, since it has no hooks for what tools need.


class _ToolMachine(Machine):
    """A machine that tells its service of returned messages at once and logs nothing about them.

    It also tells the service that the broker refuses a declaration, which other services try again for ever.
    """

    owner: Any

    def returned(
        self,
        epoch: Epoch,
        exchange: str,
        routing_key: str,
        properties: Basic.Properties,
        body: bytes,
        reason: str,
        now: float,
    ) -> list[Effect]:
        if epoch == self.epoch:
            self.owner.returned.add((routing_key, str(envelope_of(properties).get(CONVERSATION_ID, ""))))
        return []

    def _drop(self, epoch: Epoch, reason: str, now: float) -> list[Effect]:
        effects = super()._drop(epoch, reason, now)
        if not effects or self.owner.ready.is_set():
            return effects
        self.owner.refused(reason)
        return [effect for effect in effects if not isinstance(effect, Report)]


class _WatchingMachine(_ToolMachine):
    """A machine that hands over messages without opening them, configurations like all others."""

    def delivered(
        self,
        epoch: Epoch,
        tag: int,
        redelivered: bool,
        exchange: str,
        routing_key: str,
        properties: Basic.Properties,
        body: bytes,
        now: float,
    ) -> list[Effect]:
        if epoch == self.epoch and self._serving():
            self._delivered_any = True
            self.owner.seen(epoch, tag, Delivery(exchange, routing_key, properties, body, redelivered))
        return []

    def settle(self, epoch: Epoch, tag: int) -> list[Effect]:
        """Acknowledge this message and all before it."""
        return [Ack(epoch, tag, True)] if epoch == self.epoch and self._serving() else []

    def _opened(self, now: float, effects: list[Effect]) -> None:
        super()._opened(now, effects)
        self._now_configured(effects)


def _settle(machine: Machine, epoch: Epoch, tag: int) -> list[Effect]:
    assert isinstance(machine, _WatchingMachine)
    return machine.settle(epoch, tag)


class ToolService(Service):
    """A service that leaves no queue behind. :func:`running` runs it.

    Attributes:
        returned: routing key and conversation id of the mandatory messages that the broker returned. A message is here
            before its publish is confirmed.
        ready: set when the service is subscribed, or when the broker has refused that.
    """

    PREFETCH_COUNT = 200
    RETRY_DELAY = 1.0
    STOP_TIMEOUT = 3.0

    _machine_class: ClassVar[type[_ToolMachine]] = _ToolMachine

    def __init__(
        self,
        urls: Sequence[str],
        tool: str,
        output: Output,
        *,
        events: Sequence[str] = (),
        commands: Sequence[str] = (),
        configurations: Sequence[str] = (),
        logs: Sequence[str] = (),
    ) -> None:
        super().__init__(urls, events, commands, f"eda-{tool}", configurations, log_routing_keys=logs)
        self.use_exclusive_queues()
        self.tool = tool
        self.output = output
        self.returned: set[tuple[str, str]] = set()
        self.ready = asyncio.Event()
        self._refusal = ""
        self.running: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Serve until :meth:`stop`. Signals end the tool (:mod:`eda_tools.cli.signals`), not its service."""
        await self._eda_begin(_Driver).run()

    async def on_ready(self) -> None:
        if self.ready.is_set():
            self.output.note("connected again")
        self.ready.set()

    def make_machine(self, *, random: Callable[[], float], token: str, wall_offset: float) -> Machine:
        machine = self._machine_class(self._eda_config, random=random, token=token, wall_offset=wall_offset)
        machine.owner = self
        return machine

    async def publish(self, message: AnyMessage) -> bool:
        """Publish ``message``. Returns, when the broker has confirmed it, whether a queue was bound for it.

        Raises:
            LocalError: it cannot be sent.
            PublishError: the service stopped before it was confirmed.
        """
        await self._eda_publish(message, mandatory=True, immediate=False)
        return (message.name, message.conversation_id) not in self.returned

    async def start(self) -> None:
        """Connect to any of the URLs, trying each once. Returns when the service is ready.

        Raises:
            ToolError: no URL answers (status 4), or the broker refuses a declaration (status 1).
            ServiceError: the service ended.
        """
        urls = await answering(self._eda_config.urls, self.tool, self.output)
        self._eda_config = replace(
            self._eda_config, urls=urls, connect_timeout=CONNECT_TIMEOUT, close_timeout=CLOSE_TIMEOUT
        )
        self.running = asyncio.create_task(self.run())
        await self.until(self.ready.wait())
        if self._refusal:
            raise ToolError(f"{redact(urls[0])} refuses it: {self._refusal}", FAILED)

    def refused(self, reason: str) -> None:
        """The machine calls this when the broker refuses a declaration."""
        answer = _REPLY_TEXT.search(reason)  # without the words of the client library and of the core around it
        self._refusal = answer[0] if answer else reason
        self.ready.set()

    async def until(self, awaited: Awaitable[T], timeout: float | None = None) -> T:
        """Await something while the service runs. Returns its result.

        Raises:
            ServiceError: the service ended.
            TimeoutError: ``timeout`` seconds have passed.
        """
        assert self.running is not None, "start() comes first"
        waiting = asyncio.ensure_future(awaited)
        try:
            await asyncio.wait((waiting, self.running), timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
            if waiting.done():
                return waiting.result()
            if self.running.done():
                self.running.result()
                raise ServiceError("the connection was closed")
            raise TimeoutError
        finally:
            waiting.cancel()

    async def end(self) -> None:
        """Stop the service. It waits for confirms for at most ``STOP_TIMEOUT`` seconds."""
        if self.running is None:
            return
        if not self.running.done():
            await self.stop()
        await asyncio.wait((self.running,))
        if not self.running.cancelled():
            self.running.exception()  # was raised where it was awaited


@asynccontextmanager
async def running(service: ToolService) -> AsyncIterator[ToolService]:
    """Start ``service`` and stop it at the end of the block. Raises what :meth:`ToolService.start` raises."""
    try:
        await service.start()
        yield service
    finally:
        await service.end()


class Watch(ToolService):
    """A service that gets each message as it is, valid or not, and acknowledges it when the next one is asked for."""

    _machine_class = _WatchingMachine

    def __init__(self, *args: Any, **keys: Any) -> None:
        super().__init__(*args, **keys)
        self._arrived: deque[tuple[Epoch, int, Delivery]] = deque()
        self._some = asyncio.Event()
        self._taken: tuple[Epoch, int] | None = None
        self._unsettled = 0

    async def on_ready(self) -> None:
        if self.ready.is_set():
            self.output.note("connected again; what was published in between has not been seen")
        self.ready.set()

    async def next(self, timeout: float | None = None) -> Delivery | None:
        """The next message; ``None`` if no message came for ``timeout`` seconds.

        Raises:
            ServiceError: the service ended.
        """
        if self._taken is not None and (not self._arrived or self._unsettled >= _ACK_EVERY):
            epoch, tag = self._taken
            self._taken, self._unsettled = None, 0
            await self._eda_input(lambda machine, now: _settle(machine, epoch, tag))
        if not self._arrived:
            self.output.flush()
            self._some.clear()
            try:
                await self.until(self._some.wait(), timeout)
            except TimeoutError:
                return None
        epoch, tag, delivery = self._arrived.popleft()
        self._taken = epoch, tag
        self._unsettled += 1
        return delivery

    def seen(self, epoch: Epoch, tag: int, delivery: Delivery) -> None:
        """The machine calls this with each message."""
        self._arrived.append((epoch, tag, delivery))  # at most PREFETCH_COUNT for each queue
        self._some.set()


@asynccontextmanager
async def watching(
    urls: Sequence[str], tool: str, output: Output, *, as_json: bool = False, **keys: Sequence[str]
) -> AsyncIterator[Watch]:
    """A subscribed :class:`Watch`.

    Args:
        as_json: what it publishes is JSON instead of CBOR.
        keys: binding keys, as ``events``, ``commands``, ``configurations`` and ``logs``.

    Raises:
        ToolError: no URL answers (status 4). After that, a lost connection is opened again, for ever.
    """
    watch = Watch(urls, tool, output, **keys)
    if as_json:
        watch.use_json()
    async with running(watch):
        yield watch
