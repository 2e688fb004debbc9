"""The adapters whose services are coroutines, as subjects of the kit."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from eda_core import EdaError
from eda_core.testing.conformance.script import Call, Handler, Hold, MakeSubject, Worker

Note = Callable[[str, tuple[Any, ...]], None]


class AsyncService(Protocol):
    """What the Service classes of coroutine adapters have."""

    async def run(self) -> None: ...
    async def stop(self, timeout: float | None = None) -> None: ...
    def use_json(self) -> None: ...
    def use_exclusive_queues(self) -> None: ...


class AsyncSubject:
    """A service of coroutines, run in the present event loop."""

    def __init__(self, base: Any, worker: Worker, urls: Sequence[str], note: Note) -> None:
        self._note = note
        self._gates: dict[str, asyncio.Event] = {}
        self._run: asyncio.Task[None] | None = None
        handlers: dict[str, Handler | None] = {"ready": None, "unconfigured": None, **worker.handlers}
        methods = {f"on_{name}": self._method(name, handler) for name, handler in handlers.items()}
        methods["handle_returned_message"] = self._method("returned", None)
        service_class = type(worker.name, (base,), {**worker.attributes(), **methods})
        self.service: AsyncService = service_class(
            urls, worker.events, worker.commands, worker.name, worker.configurations, log_routing_keys=worker.logs
        )
        if worker.json:
            self.service.use_json()
        if worker.exclusive:
            self.service.use_exclusive_queues()

    def _method(self, name: str, handler: Handler | None) -> Callable[..., Any]:
        async def method(service: Any, *arguments: Any) -> Any:
            self._note(name, arguments)
            return await self._perform(service, handler, arguments) if handler is not None else None

        return method

    async def _perform(self, service: Any, handler: Handler, arguments: tuple[Any, ...]) -> Any:
        steps = handler(*arguments)
        try:
            while True:
                step = next(steps)
                if isinstance(step, Call):
                    await getattr(service, step.method)(*step.arguments, **step.named)
                elif isinstance(step, Hold):
                    await self._gate(step.gate).wait()
                else:
                    self._note(step.what, ())
        except StopIteration as end:
            return end.value

    def _gate(self, name: str) -> asyncio.Event:
        return self._gates.setdefault(name, asyncio.Event())

    # What the kit asks for

    async def start(self) -> None:
        self._run = asyncio.create_task(self.service.run())
        await asyncio.sleep(0)  # a service that has not begun cannot be asked anything

    async def stop(self, timeout: float | None) -> None:
        await self.service.stop(timeout)

    async def ended(self) -> str | None:
        assert self._run is not None
        try:
            await asyncio.shield(self._run)
        except EdaError as error:
            return str(error)
        return None

    async def call(self, method: str, arguments: Sequence[Any], named: Mapping[str, Any]) -> None:
        returned = getattr(self.service, method)(*arguments, **named)
        if inspect.isawaitable(returned):
            await returned

    def open(self, gate: str) -> None:
        self._gate(gate).set()


def subjects_of(base: Any) -> MakeSubject:
    """Subjects whose services subclass ``base``."""
    return lambda worker, urls, note: AsyncSubject(base, worker, urls, note)
