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
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar, Final, TypeVar

from pamqp.commands import Basic

from eda_aio import Service
from eda_core import AnyMessage, Event, Limits, ReconnectPolicy
from eda_core.errors import ServiceError
from eda_core.urls import redact
from eda_tools.bus.amqp import CLOSE_TIMEOUT
from eda_tools.bus.connect import CONNECT_TIMEOUT, answering
from eda_tools.cli.output import Output
from eda_tools.cli.status import FAILED, ToolError
from eda_tools.messages.delivery import Delivery

T = TypeVar("T")

#: The broker's reason for closing a channel, in whatever text it stands.
_REPLY_TEXT: Final = re.compile(r"[A-Z]+_[A-Z_]+ - .*")
#: How many messages may wait until they are shown, here and in each queue of the broker, and how many bytes here.
MOST_WAITING: Final = 10_000
MOST_BYTES: Final = 200_000_000


class ToolService(Service):
    """A service that leaves no queue behind. Run it by :func:`running`."""

    TRANSPORT: ClassVar[str] = "native"
    PREFETCH_COUNT: ClassVar[int] = 200
    RETRY_DELAY: ClassVar[float] = 1.0
    STOP_TIMEOUT: ClassVar[float] = 3.0

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
        self.ready: asyncio.Event = asyncio.Event()
        self.running: asyncio.Task[None] | None = None

    def machine_settings(self) -> dict[str, Any]:
        return super().machine_settings() | {
            "connect_timeout": CONNECT_TIMEOUT,
            "close_timeout": CLOSE_TIMEOUT,
            "wait_for_configuration": False,
            # What the broker refuses to declare it refuses again: the user is to know.
            "reconnect": ReconnectPolicy(initial_attempts=1),
        }

    async def on_ready(self) -> None:
        if self.ready.is_set():
            self.output.note("connected again")
        self.ready.set()

    async def publish(self, message: AnyMessage) -> bool:
        """Publish ``message``. Returns, when the broker has confirmed it, whether a queue was bound for it.

        Raises:
            LocalError: it cannot be sent.
            PublishError: the service stopped before it was confirmed.
        """
        driver = self.running_driver()
        publish = partial(driver.machine.publish, message, mandatory=True, asks_return=True)
        return await driver.request(publish) is None

    async def start(self) -> None:
        """Connect to any of the URLs, trying each once. Returns when the service is ready.

        Raises:
            ToolError: no URL answers (status 4), or the broker refuses a declaration (status 1).
            ServiceError: the service ended.
        """
        urls = await answering(self._eda_config.urls, self.tool, self.output)
        self._eda_config = replace(self._eda_config, urls=urls)
        # Signals end the tool (eda_tools.cli.signals), not its service.
        self.running = asyncio.create_task(self.run(signals=False))
        try:
            await self.until(self.ready.wait())
        except ServiceError as error:
            answer = _REPLY_TEXT.search(str(error))  # without what the core says around it
            if answer is None:
                raise
            raise ToolError(f"{redact(urls[0])} refuses it: {answer[0]}", FAILED) from error

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


# Watching


class _Raw(Event):
    """A delivery that was not read. Its payload is the :class:`Delivery`."""


class Watch(ToolService):
    """A service that is given each message as it is, valid or not.

    Messages are acknowledged when they arrive. If they come faster than they are asked for, the oldest ones are
    dropped, and the tool says how many.
    """

    def __init__(self, *args: Any, **keys: Any) -> None:
        super().__init__(*args, **keys)
        self._arrived: deque[Delivery] = deque()
        self._some = asyncio.Event()
        self._bytes = self._missed = 0

    def machine_settings(self) -> dict[str, Any]:
        return super().machine_settings() | {"exclusive_length": MOST_WAITING}

    def read_delivery(
        self, exchange: str, routing_key: str, properties: Basic.Properties, body: bytes, limits: Limits
    ) -> AnyMessage:
        return _Raw(routing_key, Delivery(exchange, routing_key, properties, body, False), "")

    async def handle(self, message: AnyMessage) -> None:
        """Keep it for :meth:`next`."""
        self._arrived.append(message.payload)
        self._bytes += len(message.payload.body)
        while len(self._arrived) > MOST_WAITING or (self._bytes > MOST_BYTES and len(self._arrived) > 1):
            self._bytes -= len(self._arrived.popleft().body)
            self._missed += 1
        self._some.set()

    async def on_ready(self) -> None:
        if self.ready.is_set():
            self.output.note("connected again; what was published in between has not been seen")
        self.ready.set()

    async def next(self, timeout: float | None = None) -> Delivery | None:
        """The next message; ``None`` if no message came for ``timeout`` seconds.

        Raises:
            ServiceError: the service ended.
        """
        if not self._arrived:
            self.output.flush()
            self._some.clear()
            try:
                await self.until(self._some.wait(), timeout)
            except TimeoutError:
                return None
        await asyncio.sleep(0)  # the network has its turn, however many messages are here
        if self._missed:
            missed, self._missed = self._missed, 0
            self.output.note(f"{missed} messages were missed: they came faster than they could be shown")
        delivery = self._arrived.popleft()
        self._bytes -= len(delivery.body)
        return delivery


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
