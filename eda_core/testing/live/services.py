"""Runs services under test: in threads, for tests that are plain functions, or in the event loop of the test."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Final, Protocol, TypeVar

#: Seconds for a service to become ready, and to stop. They are many, because they only end a test that has failed.
READY_WITHIN: Final = 30.0
_STOPS_WITHIN: Final = 60.0


class AnyService(Protocol):
    """A service of any adapter: run by awaiting it, or by a call that returns when it has stopped."""

    def run(self) -> Any:
        """Serve until the service is stopped."""

    def stop(self) -> Any:
        """Ask it to stop."""

    def on_ready(self) -> Any:
        """Called when it receives messages."""

    def on_unconfigured(self) -> Any:
        """Called when it waits for its configuration."""


S = TypeVar("S", bound=AnyService)


def _tell_when_it_serves(service: AnyService, serves: Callable[[], object]) -> None:
    """Have ``serves`` called when the service is ready, or waits for its configuration."""
    for name in ("on_ready", "on_unconfigured"):
        setattr(service, name, _followed(getattr(service, name), serves))


def _followed(hook: Callable[[], Any], serves: Callable[[], object]) -> Callable[[], Any]:
    if inspect.iscoroutinefunction(hook):

        async def awaited() -> Any:
            returned = await hook()
            serves()
            return returned

        return awaited

    def called() -> Any:
        returned = hook()
        serves()
        return returned

    return called


class _Threaded:
    """A service that runs in a thread of its own.

    Attributes:
        error: with which it has ended; ``None`` if it has not, or was stopped.
        over: whether it has ended.
    """

    def __init__(self, service: AnyService, died: Callable[[BaseException], object]) -> None:
        self.service = service
        self.error: BaseException | None = None
        self.over = threading.Event()
        self._died = died
        self._news = threading.Event()  # it serves, or it has ended
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping: asyncio.Future[None] | None = None
        _tell_when_it_serves(service, self._news.set)
        name = f"service {type(service).__name__}"
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self, within: float) -> None:
        self._thread.start()
        if not self._news.wait(within):
            self.stop()
            raise TimeoutError(f"{type(self.service).__name__} is not ready within {within:g} s")
        if self.error is not None:
            raise self.error

    def _run(self) -> None:
        try:
            if inspect.iscoroutinefunction(self.service.run):
                asyncio.run(self._in_loop())
            else:
                self.service.run()
        except BaseException as error:
            self.error = error
            self._died(error)
        finally:
            self.over.set()
            self._news.set()

    async def _in_loop(self) -> None:
        self._loop = asyncio.get_running_loop()
        await self.service.run()

    def stop(self) -> None:
        if not self.over.is_set():
            with contextlib.suppress(RuntimeError):  # it has ended meanwhile, and its loop with it
                if self._loop is not None:
                    self._loop.call_soon_threadsafe(self._begin_to_stop)
                elif not inspect.iscoroutinefunction(self.service.run):
                    self.service.stop()
        if not self.over.wait(_STOPS_WITHIN):
            raise TimeoutError(f"{type(self.service).__name__} does not stop within {_STOPS_WITHIN:g} s")
        self._thread.join()

    def _begin_to_stop(self) -> None:
        """Begin in the loop: nobody would await a coroutine that was made for a loop that has ended meanwhile."""
        self._stopping = asyncio.ensure_future(_stopped(self.service))


async def _stopped(service: AnyService) -> None:
    returned = service.stop()
    if inspect.isawaitable(returned):
        await returned


class ServiceRunner:
    """Runs services for a test, and stops them at its end.

    ``runner(service)`` runs it in a thread and returns when it is ready. In a test that is a coroutine,
    ``async with runner.aio(service, …)`` runs services in the event loop of the test.

    Args:
        died: called with the error of a service that ends with one, in whatever thread.

    Attributes:
        errors: the errors of services that have ended with one.
    """

    def __init__(self, died: Callable[[BaseException], object] = lambda _: None) -> None:
        self.errors: list[BaseException] = []
        self._died = died
        self._running: list[_Threaded] = []

    def __call__(self, service: S, *, within: float = READY_WITHIN) -> S:
        """Run a service in a thread, wait until it is ready or waits for its configuration, and return it.

        Args:
            within: seconds.

        Raises:
            TimeoutError: it is not ready within that time.
            Exception: what the service ends with, if it ends.
        """
        running = _Threaded(service, self._note)
        self._running.append(running)
        running.start(within)
        return service

    @asynccontextmanager
    async def aio(self, *services: AnyService, within: float = READY_WITHIN) -> AsyncIterator[None]:
        """Run services in this event loop, in the block, which begins when all are ready.

        Services whose ``run`` is no coroutine run in threads. If a service dies, the block is cancelled.

        Args:
            within: seconds.

        Raises:
            TimeoutError: a service is not ready within that time.
            Exception: what a service ends with, if it ends.
        """
        block = _Block()
        here = [each for each in services if inspect.iscoroutinefunction(each.run)]
        ready = [asyncio.Event() for _ in here]
        for service, event in zip(here, ready, strict=True):
            _tell_when_it_serves(service, event.set)
        tasks = [asyncio.create_task(each.run(), name=f"service {type(each).__name__}") for each in here]
        for task in tasks:
            task.add_done_callback(lambda ended: self._ended(ended, block))
        try:
            async with asyncio.timeout(within):
                for service in services:
                    if service not in here:
                        await asyncio.to_thread(self.__call__, service, within=within)
                await asyncio.gather(*(event.wait() for event in ready))
            yield
        except asyncio.CancelledError:
            if block.error is None or block.task.uncancel():
                raise
        finally:
            block.over = True
            await self._stop(here, tasks)
        if block.error is not None:
            raise block.error

    async def _stop(self, services: list[AnyService], tasks: list[asyncio.Task[Any]]) -> None:
        for service, task in zip(services, tasks, strict=True):
            if not task.done():
                await _stopped(service)
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.to_thread(self.stop)

    def _ended(self, task: asyncio.Task[Any], block: _Block) -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None:
            block.failed(error)
            if block.over:
                self.errors.append(error)  # nobody raises it any more
            self._died(error)

    def _note(self, error: BaseException) -> None:
        self.errors.append(error)
        self._died(error)

    def stop(self) -> None:
        """Stop the services that run in threads, the last one first. Raises TimeoutError if one does not stop."""
        while self._running:
            self._running.pop().stop()


class _Block:
    """A block in which services run, and the task that is in it."""

    def __init__(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.task = task
        self.error: BaseException | None = None
        self.over = False

    def failed(self, error: BaseException) -> None:
        """End the block."""
        if self.error is None and not self.over:
            self.error = error
            self.task.cancel()
