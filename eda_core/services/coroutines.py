"""Services whose handlers are coroutines, and their batches.

This module decides what their methods wait for. It knows no event loop.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from copy import deepcopy
from functools import partial
from inspect import isawaitable
from typing import Any, cast

from eda_core.drivers.coroutines import CoroutineDriver, Input
from eda_core.errors import BufferFull
from eda_core.machine.effects import Effect
from eda_core.machine.machine import Machine
from eda_core.messages.options import options
from eda_core.messages.values import AnyMessage
from eda_core.services.api import ServiceApi
from eda_core.services.batch import EventBatch


class CoroutineService(ServiceApi[Coroutine[Any, Any, None]]):
    """The base class of services whose methods are awaited."""

    async def stop(self, timeout: float | None = None) -> None:
        """Ask the service to stop. This returns at once; ``run`` returns when the service has stopped.

        Args:
            timeout: seconds, by default ``STOP_TIMEOUT``. Then unfinished messages are left to other workers.

        Raises:
            LocalError: the timeout is not a number.
            StateError: the service was not run yet.
        """
        self.running_driver().stop(timeout)

    async def call(
        self,
        command: str,
        message: Any,
        timeout: float = 30.0,
        conversation_id: str = "",
        *,
        headers: Mapping[str, Any] | None = None,
        expiration: float | None = None,
        priority: int | None = None,
    ) -> Any:
        """Send a command at once, and wait for its result.

        The result comes to this worker, and only as long as its link lasts. If a result must not be lost with a link or
        a worker, send the command by :meth:`send_command`.

        Args:
            command: ``service.Command``.
            timeout: how long to wait for the result, seconds.
            conversation_id: by default that of the message that is being handled, or else a new one.
            headers, expiration, priority: see :meth:`publish_event`.

        Returns:
            The payload of the result.

        Raises:
            CommandError: the result has the status ``error``. The exception has its payload.
            CommandTimeout: no result came in time. A result that comes later is dropped and logged.
            PublishError: no service receives the command, or this service has stopped.
            LocalError: the command cannot be sent. The text says why.
        """
        meta = options(headers, expiration, priority)
        driver, within = self.running_driver(), self.handled_delivery()
        machine = driver.machine
        call = partial(
            machine.call, command, timeout=timeout, conversation_id=conversation_id, within=within, meta=meta
        )
        return await driver.request(_copied_if_it_waits(call, message), machine.forget_call)

    def running_driver(self) -> CoroutineDriver:
        return cast(CoroutineDriver, super().running_driver())

    async def publish_message(
        self, message: AnyMessage, *, mandatory: bool, immediate: bool = False, timeout: float | None = None
    ) -> None:
        driver, within = self.running_driver(), self.handled_delivery()
        publish = partial(driver.machine.publish, within=within, mandatory=mandatory, immediate=immediate)
        await driver.request(_copied_if_it_waits(publish, message), timeout=timeout)

    async def make_input(self, call: Callable[[Machine, float], list[Effect]], *, waits: bool = True) -> None:
        self.make_input_now(call, waits=waits)


def _copied_if_it_waits(make: Callable[..., list[Effect]], value: Any) -> Input:
    """Return the input that ``make`` makes with ``value``: with a copy, if the buffer was full at first.

    The machine writes a message when it accepts it. The caller may change the payload while it waits for space.
    """
    copied = False

    def attempt(**named: Any) -> list[Effect]:
        nonlocal value, copied
        try:
            return make(value, **named)
        except BufferFull:
            if not copied:
                value, copied = deepcopy(value), True
            raise

    return attempt


class CoroutineBatch(EventBatch):
    __doc__ = EventBatch.__doc__

    async def push(self, payload: Any, conversation_id: str, meta: dict[str, Any]) -> None:
        """Add the event that is being handled, with the arguments of its handler. Await the callback if it is full now.

        Raises:
            LocalError: ``meta`` is not the one that the handler was given.
        """
        if self._add(payload, conversation_id, meta):
            await self.expire()

    async def expire(self) -> None:
        """Await the callback with the events that there are, if any."""
        with self._taken() as events:
            if events:
                returned = self.callback(events)
                if isawaitable(returned):
                    await returned
