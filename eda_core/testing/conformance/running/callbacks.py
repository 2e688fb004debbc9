"""The adapters whose handlers are callbacks, as subjects of the kit: each service runs in a thread of its own."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

from eda_core import EdaError
from eda_core.testing.conformance.script import Call, Handler, Hold, MakeSubject, Worker

Note = Callable[[str, tuple[Any, ...]], None]
Begin = Callable[[Callable[[], None]], None]


class CallbackService(Protocol):
    """What the Service classes of callback adapters have."""

    def run(self) -> None: ...
    def stop(self, timeout: float | None = None) -> None: ...
    def use_json(self) -> None: ...
    def use_exclusive_queues(self) -> None: ...


class CallbackSubject:
    """A service of callbacks. A handler that has to hold blocks the thread that it runs in.

    Args:
        begin: begins to run the service, in a thread of its own or in the main one.
    """

    def __init__(self, base: Any, threads: int, begin: Begin, worker: Worker, urls: Sequence[str], note: Note) -> None:
        self._begin = begin
        self._note = note
        self._gates: dict[str, threading.Event] = {}
        self._caller = ThreadPoolExecutor(1)  # one, so that calls are made in the order in which they are begun
        self._loop = asyncio.get_running_loop()
        self._begun = asyncio.Event()
        self._end: asyncio.Future[str | None] = self._loop.create_future()
        handlers: dict[str, Handler | None] = {"ready": None, "unconfigured": None, **worker.handlers}
        methods: dict[str, Any] = {f"on_{name}": self._method(name, handler) for name, handler in handlers.items()}
        methods["handle_returned_message"] = self._method("returned", None)
        methods["__setattr__"] = self._on_setattr(base)
        attributes = {"HANDLER_THREADS": threads, **worker.attributes(), **methods}
        self.service: CallbackService = type(worker.name, (base,), attributes)(
            urls, worker.events, worker.commands, worker.name, worker.configurations, log_routing_keys=worker.logs
        )
        if worker.json:
            self.service.use_json()
        if worker.exclusive:
            self.service.use_exclusive_queues()

    def _on_setattr(self, base: Any) -> Callable[..., None]:
        """Notes when the service has begun. Before that no method of it can be called."""

        def set_attribute(service: Any, name: str, value: Any) -> None:
            base.__setattr__(service, name, value)
            if name == "_eda_running":
                self._loop.call_soon_threadsafe(self._begun.set)

        return set_attribute

    def _method(self, name: str, handler: Handler | None) -> Callable[..., Any]:
        def method(service: Any, *arguments: Any) -> Any:
            self._note(name, arguments)
            return self._perform(service, handler, arguments) if handler is not None else None

        return method

    def _perform(self, service: Any, handler: Handler, arguments: tuple[Any, ...]) -> Any:
        steps = handler(*arguments)
        try:
            while True:
                step = next(steps)
                if isinstance(step, Call):
                    getattr(service, step.method)(*step.arguments, **step.named)
                elif isinstance(step, Hold):
                    self._gate(step.gate).wait()
                else:
                    self._note(step.what, ())
        except StopIteration as end:
            return end.value

    def _gate(self, name: str) -> threading.Event:
        return self._gates.setdefault(name, threading.Event())

    def _run(self) -> None:
        end: Any = None
        try:
            self.service.run()
        except EdaError as error:
            end = str(error)
        except BaseException as error:
            self._loop.call_soon_threadsafe(self._end.set_exception, error)
            return
        self._loop.call_soon_threadsafe(self._end.set_result, end)

    # What the kit asks for

    async def start(self) -> None:
        self._begin(self._run)
        await self._begun.wait()

    async def stop(self, timeout: float | None) -> None:
        self.service.stop(timeout)

    async def ended(self) -> str | None:
        end = await asyncio.shield(self._end)
        self._caller.shutdown(wait=False)
        for gate in list(self._gates.values()):  # let handlers go that were left behind
            gate.set()
        return end

    async def call(self, method: str, arguments: Sequence[Any], named: Mapping[str, Any]) -> None:
        called = self._caller.submit(getattr(self.service, method), *arguments, **named)
        await asyncio.wrap_future(called)

    def open(self, gate: str) -> None:
        self._gate(gate).set()


def in_a_thread(run: Callable[[], None]) -> None:
    """Each service runs in a thread of its own."""
    threading.Thread(target=run, name="service", daemon=True).start()


class MainThread:
    """Runs services in the main thread, one after the other, and the check in another one."""

    def __init__(self) -> None:
        assert threading.current_thread() is threading.main_thread()
        self._runs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()

    def begin(self, run: Callable[[], None]) -> None:
        """Run a service when those before it have ended."""
        self._runs.put(run)

    def during(self, check: Callable[[], None]) -> None:
        """Run the check, and the services that it begins. Raise what the check raises."""
        with ThreadPoolExecutor(1) as pool:
            checked = pool.submit(check)
            checked.add_done_callback(lambda _: self._runs.put(None))
            while (run := self._runs.get()) is not None:
                run()
        checked.result()


def callback_subjects_of(base: Any, threads: int = 0, begin: Begin = in_a_thread) -> MakeSubject:
    """Subjects whose services subclass ``base``, with so many threads for handlers."""
    return lambda worker, urls, note: CallbackSubject(base, threads, begin, worker, urls, note)
