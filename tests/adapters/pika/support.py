"""Services on pika under test, each run in a thread of its own beside the test's event loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, ClassVar

from eda_core import ReconnectPolicy
from eda_pika import Service
from tests.support.services import TIMEOUT, Record, conversation, within

#: Where no broker is.
NOWHERE = "amqp://guest:guest@127.0.0.1:1/"


class Probe(Service):
    """Reconnects fast, and notes things in the event loop of the test.

    Attributes:
        ready, seen: how often it was ready, and what the test's own methods note.
        end: of ``run()``.
    """

    RECONNECT_POLICY = ReconnectPolicy(base=0.05, cap=0.4)
    RETRY_DELAY = 0.05
    STOP_TIMEOUT: ClassVar[float] = 5

    def __init__(
        self,
        url: str | Sequence[str],
        events: Sequence[str] = (),
        commands: Sequence[str] = (),
        name: str = "probe",
        **named: Any,
    ) -> None:
        super().__init__(url, events, commands, name, **named)
        self.ready: Record[int] = Record("times ready")
        self.seen: Record[Any] = Record("things seen")
        self.loop = asyncio.get_running_loop()
        self.end: asyncio.Future[None] = self.loop.create_future()
        self._begun = threading.Event()

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if name == "_eda_running":  # from now on it may be asked
            self._begun.set()

    def on_ready(self) -> None:
        self.loop.call_soon_threadsafe(self.ready.add, len(self.ready.all) + 1)

    def note(self, item: Any) -> None:
        self.loop.call_soon_threadsafe(self.seen.add, item)

    def in_thread(self) -> None:
        """Begin to run in a thread. ``end`` gets the outcome."""

        def work() -> None:
            try:
                self.run()
            except BaseException as error:
                # A future takes neither StopIteration nor what ends a loop.
                failed = error if isinstance(error, Exception) else Broken(error)
                self.loop.call_soon_threadsafe(self.end.set_exception, failed)
            else:
                self.loop.call_soon_threadsafe(self.end.set_result, None)

        threading.Thread(target=work, name=self.logical_service, daemon=True).start()

    async def do(self, call: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        """Call a method in another thread than the service's."""
        return await within(asyncio.to_thread(call, *arguments, **named), f"{call} returns")

    async def ended(self, seconds: float = TIMEOUT) -> None:
        await within(asyncio.shield(self.end), f"the end of {self.logical_service}", seconds)


class Broken(Exception):
    """Wraps what ``run()`` raised, if that is no Exception."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(repr(error))
        self.error = error


class Listener(Probe):
    """Notes the payloads that it gets."""

    def handle_event(self, event: str, payload: Any, conversation_id: str, meta: dict[str, Any]) -> Any:
        self.note(payload)

    async def has_all(self, numbers: range, seconds: float = TIMEOUT) -> None:
        wanted = set(numbers)
        await self.seen.until(lambda seen: wanted <= set(seen), f"all {len(wanted)} events", seconds)


async def publish(service: Probe, *payloads: Any) -> None:
    """Events called ``Happened``, each of a conversation of its own."""
    for payload in payloads:
        await service.do(service.publish_event, "Happened", payload, conversation())


class Relay(Listener):
    """Publishes ``Relayed`` with each payload, in its handler."""

    def handle_event(self, event: str, payload: Any, conversation_id: str, meta: dict[str, Any]) -> Any:
        self.note(payload)
        self.publish_event("Relayed", payload, conversation_id)


@asynccontextmanager
async def running(*services: Probe, ready: bool = True) -> AsyncIterator[None]:
    """Run services, all ready when the block begins, and stop them at its end."""
    for service in services:
        service.in_thread()
    try:
        for service in services:
            await asyncio.to_thread(service._begun.wait)
            first = asyncio.ensure_future(service.ready.count(1))
            if ready:
                await asyncio.wait((first, service.end), return_when=asyncio.FIRST_COMPLETED)
            if service.end.done():
                await service.end
            elif ready:
                await first
            first.cancel()
        yield
    except BaseException:
        for service in services:
            if not service.end.done():
                service.stop(0.0)
        for service in services:  # or they would tell their end to an event loop that is closed, which is another error
            await asyncio.wait((service.end,), timeout=TIMEOUT)
        raise
    for service in services:
        if not service.end.done():
            service.stop()
        await service.ended()


async def until(condition: Callable[[], bool]) -> None:
    """Wait for something that does not notify anybody."""
    while not condition():
        await asyncio.sleep(0.01)
