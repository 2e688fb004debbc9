"""Services whose handlers are coroutines, in whatever event loop."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from functools import partial
from inspect import isawaitable
from typing import Any, cast

from eda_core.drivers.coroutines import CoroutineDriver
from eda_core.machine.effects import Effect
from eda_core.machine.machine import Machine
from eda_core.messages.values import AnyMessage
from eda_core.services.api import ServiceApi
from eda_core.services.batch import EventBatch


class CoroutineService(ServiceApi[Coroutine[Any, Any, None]]):
    """Base of the adapters' ``Service`` whose methods are awaited."""

    async def stop(self, timeout: float | None = None) -> None:
        """Ask the service to stop, and return at once; ``run`` returns when it has.

        Args:
            timeout: seconds until what is unfinished is left to other workers, ``STOP_TIMEOUT`` by default.
        """
        self.running_driver().stop(timeout)

    async def call(self, command: str, message: Any, timeout: float = 30.0, conversation_id: str = "") -> Any:
        """Send ``service.Command`` at once and wait for its result; returns the payload of that.

        The result comes to this worker only, and only while its link lasts: what must survive a lost link or a dead
        worker is sent with :meth:`send_command`.

        Args:
            timeout: seconds, in all.
            conversation_id: by default that of the message being handled, else a new one.

        Raises:
            CommandError: the result is an error; its payload is in it.
            CommandTimeout: no result came in time. If one comes later it is dropped, with a log.
            PublishError: no service is bound to the command, or this one stopped.
            LocalError: the command cannot be sent; it says why.
        """
        driver, within = self.running_driver(), self.handled_delivery()
        machine = driver.machine
        make = partial(machine.call, command, message, timeout=timeout, conversation_id=conversation_id, within=within)
        return await driver.request(make, machine.forget_call)

    def running_driver(self) -> CoroutineDriver:
        return cast(CoroutineDriver, super().running_driver())

    async def publish_message(self, message: AnyMessage, *, mandatory: bool, immediate: bool = False) -> None:
        driver, within = self.running_driver(), self.handled_delivery()
        publish = driver.machine.publish
        await driver.request(partial(publish, message, within=within, mandatory=mandatory, immediate=immediate))

    async def make_input(self, call: Callable[[Machine, float], list[Effect]]) -> None:
        self.make_input_now(call)


class CoroutineBatch(EventBatch):
    __doc__ = EventBatch.__doc__

    async def push(self, payload: Any, conversation_id: str, meta: dict[str, Any]) -> None:
        """Add the event being handled; if that makes the batch full, hand it over and wait until it is dealt with."""
        if self._add(payload, conversation_id, meta):
            await self.expire()

    async def expire(self) -> None:
        """Hand over what there is, at once, and wait until it is dealt with."""
        with self._taken() as events:
            if events:
                returned = self.callback(events)
                if isawaitable(returned):
                    await returned
