"""Links of each transport without a machine: a test asks for effects by hand, and sees the inputs that come of them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from pika.adapters.select_connection import IOLoop

from eda_aio.native import NativeLink
from eda_aio.transport import AioLink
from eda_core import Connect, Epoch
from eda_core.drivers import Link
from eda_core.testing.conformance.running.brokers import Embedded
from eda_core.testing.conformance.running.runner import no_task_is_left
from eda_pika.transport import PikaLink
from eda_tools.broker import EmbeddedBroker
from examples.custom_transport import CustomLink
from tests.core.drivers.test_base import Carrier
from tests.support.services import Record, within

T = TypeVar("T")
Told = tuple[Any, ...]

EPOCH = Epoch(7)


class Inputs(Carrier):
    """A driver that notes the inputs that it is to make, and makes none.

    Attributes:
        told: the name of each input, and its arguments after the epoch.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.told: Record[Told] = Record("inputs")
        self._loop = asyncio.get_running_loop()

    def now(self) -> float:
        return self._loop.time()

    def tell(self, method: Any, *arguments: Any, **named: Any) -> None:
        self._loop.call_soon_threadsafe(self.told.add, (method.__name__, *arguments[1:]))


class Host:
    """Makes one link, and does things where the link lives: here in the event loop of the test.

    Attributes:
        link: it, once it is made.
        inputs: what it has told.
    """

    link: Link

    def __init__(self, make: Callable[[Connect, Inputs, Any], Link], **settings: Any) -> None:
        self._make = make
        self.inputs = Inputs(**settings)
        self.loop: Any = None

    async def open(self, url: str, heartbeat: int, *effects: Any) -> None:
        """Begin to open the link, and perform effects before anything else happens."""

        def begin() -> None:
            self.link = self._make(Connect(EPOCH, url, "test", heartbeat), self.inputs, self.loop)
            for effect in effects:
                self.link.perform(effect)

        await self.do(begin)

    async def perform(self, *effects: Any) -> None:
        """Perform effects. What performing them raises is raised here."""

        def perform() -> None:
            for effect in effects:
                self.link.perform(effect)

        await self.do(perform)

    async def do(self, call: Callable[[], T]) -> T:
        """Call something where the link lives."""
        return call()

    async def told(self, name: str) -> list[Told]:
        """Wait for an input of this name. Returns all inputs so far."""
        await self.inputs.told.until(lambda all: any(told[0] == name for told in all), name)
        return self.inputs.told.all

    async def end(self) -> None:
        """Stop the loop of the link."""


class PikaHost(Host):
    """Its link lives in the loop of pika, in a thread."""

    def __init__(self, make: Callable[[Connect, Inputs, Any], Link], **settings: Any) -> None:
        super().__init__(make, **settings)
        self.loop = IOLoop()
        self._thread = threading.Thread(target=self.loop.start, daemon=True)
        self._thread.start()

    async def do(self, call: Callable[[], T]) -> T:
        done: Future[T] = Future()

        def work() -> None:
            try:
                done.set_result(call())
            except BaseException as error:
                done.set_exception(error)

        self.loop.add_callback_threadsafe(work)
        return await within(asyncio.wrap_future(done), "the call in the loop of pika")

    async def end(self) -> None:
        self.loop.add_callback_threadsafe(self.loop.stop)
        await asyncio.to_thread(self._thread.join)
        self.loop.close()


HOSTS: dict[str, Callable[..., Host]] = {
    "eda_aio": lambda **settings: Host(lambda asked, driver, _: AioLink(asked, driver, None), **settings),
    "native": lambda **settings: Host(lambda asked, driver, _: NativeLink(asked, driver, None), **settings),
    "eda_pika": lambda **settings: PikaHost(
        lambda asked, driver, loop: PikaLink(asked, driver, None, loop, lambda: None), **settings
    ),
    "eda_pika, pika only": lambda **settings: PikaHost(
        lambda asked, driver, loop: PikaLink(asked, driver, None, loop, lambda: None, False), **settings
    ),
    "custom": lambda **settings: Host(lambda asked, driver, _: CustomLink(asked, driver), **settings),
}


@asynccontextmanager
async def hosted(transport: str, **settings: Any) -> AsyncIterator[tuple[Host, Embedded]]:
    """A host for a link of a transport, and the embedded broker behind a proxy. At the end no task is left.

    Args:
        settings: of the machine, such as ``close_timeout``.
    """
    async with EmbeddedBroker() as embedded, Embedded(embedded) as broker:
        host = HOSTS[transport](**settings)
        try:
            yield host, broker
        finally:
            broker.proxy.cut()
            await host.end()
    await no_task_is_left()
