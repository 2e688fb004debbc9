"""Services whose handlers are coroutines, and their batches.

This module decides what their methods wait for. It knows no event loop.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Generator, Mapping
from copy import deepcopy
from dataclasses import replace
from inspect import isawaitable
from typing import Any, TypeVar, cast

from eda_core.checks import check_seconds
from eda_core.criticality import ERROR
from eda_core.drivers.base import not_redeemed
from eda_core.drivers.coroutines import CoroutineDriver, Input
from eda_core.drivers.handling import run_of
from eda_core.drivers.tracing import Noting, Sending, Tracing
from eda_core.errors import BufferFull
from eda_core.machine import events
from eda_core.machine.calls import answer
from eda_core.machine.effects import Effect, Replied
from eda_core.machine.machine import Machine
from eda_core.messages.options import options
from eda_core.messages.values import AnyMessage, Command
from eda_core.services.api import ServiceApi
from eda_core.services.asked import FINISHED, Asked
from eda_core.services.batch import EventBatch
from eda_core.services.claims import claim_of, redeemed

M = TypeVar("M", bound=AnyMessage)


class CoroutineService(ServiceApi[Coroutine[Any, Any, None]]):
    """The base class of services whose methods are awaited.

    The methods that publish, and ``call``, do nothing until they are awaited or made a task. A service does not run if
    a method of it has such a call as a statement of its own. If a handler, a hook, a timer or the callback of a batch
    ends and has forgotten an ``await`` in another way, it has failed: its message is dead-lettered. Elsewhere that is
    an error in the local log. ``log``, ``manual_ack``, ``manual_nack`` and ``stop`` have done their
    work when they return. To await these is good style, but no need.
    """

    _eda_awaits = True

    def stop(self, timeout: float | None = None) -> Coroutine[Any, Any, None]:
        """Ask the service to stop. This returns at once; ``run`` returns when the service has stopped.

        Args:
            timeout: seconds, by default ``STOP_TIMEOUT``. Then unfinished messages are left to other workers.

        Raises:
            LocalError: the timeout is not a number.
            StateError: the service was not run yet.
        """
        self.running_driver().stop(timeout)
        return FINISHED

    def wait_until_ready(self, timeout: float | None = None) -> Coroutine[Any, Any, None]:
        """Wait until the service receives its messages; not at all if it does so now.

        Begin ``run`` before, as a task: ``asyncio.create_task(service.run())``.

        Args:
            timeout: how long to wait, seconds; by default as long as it takes.

        Raises:
            NotReady: it is not ready within ``timeout``. The text says what is missing. It is a ``TimeoutError``.
            ServiceError, LocalError: what ``run`` raises, if it ends before.
            StateError: the service was not run yet, or was stopped before it was ready.
        """
        return Asked(self._eda_wait_until_ready(timeout), self._eda_forgotten())

    async def _eda_wait_until_ready(self, timeout: float | None) -> None:
        if timeout is not None:
            check_seconds("timeout", timeout)
        readiness = self._eda_readiness
        if self._eda_running is None:
            await _Turn()  # the task of run() may not have begun
        readiness.raise_end()
        driver = self.running_driver()
        waiting = driver.future()

        def tell(reason: Exception | None) -> None:
            if not waiting.done():  # it may be cancelled
                waiting.set_result(None) if reason is None else waiting.set_exception(reason)

        readiness.wait(tell)
        driver.tell_if_ready()
        timer = None
        if timeout is not None and not waiting.done():
            timer = driver.call_later(timeout, lambda: tell(driver.not_ready(timeout)))
        try:
            await waiting
        finally:
            readiness.forget(tell)
            if timer is not None:
                driver.cancel_timer(timer)

    def call(
        self,
        command: str,
        message: Any,
        timeout: float = 30.0,
        conversation_id: str = "",
        *,
        headers: Mapping[str, Any] | None = None,
        expiration: float | None = None,
        priority: int | None = None,
    ) -> Coroutine[Any, Any, Any]:
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
        work = self._eda_call if self._eda_tracing is None else self._eda_call_traced
        if self.CLAIM_CHECK is not None:
            stored = self._eda_call_stored(work, command, message, timeout, conversation_id, meta)
            return Asked(stored, self._eda_forgotten())
        return Asked(work(command, message, timeout, conversation_id, meta), self._eda_forgotten())

    async def _eda_call_stored(
        self,
        call: Callable[..., Any],
        command: str,
        message: Any,
        timeout: float,
        conversation_id: str,
        meta: dict[str, Any],
    ) -> Any:
        sent = await self._eda_stored(Command(command, message, conversation_id, "", "", meta))
        return await call(command, sent.payload, timeout, conversation_id, sent.meta)

    async def _eda_call_traced(
        self, command: str, message: Any, timeout: float, conversation_id: str, meta: dict[str, Any]
    ) -> Any:
        run = run_of(self)
        if not conversation_id and run is not None and run.message is not None:
            conversation_id = run.message.conversation_id
        tracing = cast(Tracing, self._eda_tracing)
        with tracing.calling(Command(command, None, conversation_id, "", "", meta)) as sending:
            meta = sending.message.meta
            return await self._eda_call(command, message, timeout, conversation_id, meta, sending)

    async def _eda_call(
        self,
        command: str,
        message: Any,
        timeout: float,
        conversation_id: str,
        meta: dict[str, Any],
        sending: Sending | None = None,
    ) -> Any:
        driver, within = self.running_driver(), self.handled_delivery()
        machine = driver.machine if sending is None else Noting(driver.machine, sending)

        def call(payload: Any, now: float, ticket: int) -> list[Effect]:
            return machine.call(
                command,
                payload,
                now,
                ticket=ticket,
                timeout=timeout,
                conversation_id=conversation_id,
                within=within,
                meta=meta,
            )

        answered = await driver.request(_copied_if_it_waits(call, message), driver.machine.forget_call)
        if type(answered) is Replied and answered.result is not None:
            answered = answer(replace(answered, result=await self._eda_redeemed(answered.result)))
        return answered

    def running_driver(self) -> CoroutineDriver:
        return cast(CoroutineDriver, super().running_driver())

    def publish_message(
        self, message: AnyMessage, *, mandatory: bool, immediate: bool = False, timeout: float | None = None
    ) -> Coroutine[Any, Any, None]:
        work = self._eda_publish if self._eda_tracing is None else self._eda_publish_traced
        if self.CLAIM_CHECK is not None:
            return Asked(self._eda_publish_stored(work, message, mandatory, immediate, timeout), self._eda_forgotten())
        return Asked(work(message, mandatory, immediate, timeout), self._eda_forgotten())

    async def _eda_publish_stored(self, publish: Callable[..., Any], message: AnyMessage, *how: Any) -> None:
        await publish(await self._eda_stored(message), *how)

    async def _eda_stored(self, message: M) -> M:
        """Store the payload of a message if it is too large. Return the message that is published."""
        claims = self.CLAIM_CHECK
        found = None if claims is None else claims.checked_in(message, self._eda_config.limits)
        if claims is None or found is None:
            return message
        message, key, body = found
        storing = claims.store.put(key, body)
        if isawaitable(storing):
            await storing
        return message

    async def _eda_redeemed(self, message: M) -> M:
        """Return a message with its payload."""
        key, claims = claim_of(message), self.CLAIM_CHECK
        if not key:
            return message
        if claims is None:
            raise not_redeemed(message)
        body = claims.store.get(key)
        if isawaitable(body):
            body = await body
        return redeemed(message, key, body, self._eda_config.limits)

    async def _eda_redeem_and_handle(self, message: AnyMessage) -> Any:
        message = await self._eda_redeemed(message)
        returned = self.handle(message)
        if isawaitable(returned):
            returned = await returned
        if self._eda_is_large(message, returned):
            await self.return_success(message.reply_to, returned, message.conversation_id, message.correlation_id)
            return None
        return returned

    async def _eda_publish_traced(
        self, message: AnyMessage, mandatory: bool, immediate: bool, timeout: float | None
    ) -> None:
        tracing = cast(Tracing, self._eda_tracing)
        with tracing.sending(message, held=self._eda_holds(immediate)) as sending:
            await self._eda_publish(sending.message, mandatory, immediate, timeout, sending)

    async def _eda_publish(
        self,
        message: AnyMessage,
        mandatory: bool,
        immediate: bool,
        timeout: float | None,
        sending: Sending | None = None,
    ) -> None:
        driver = self.running_driver()
        machine: Any = driver.machine if sending is None else Noting(driver.machine, sending)
        publish = self.publishing(message, mandatory=mandatory, immediate=immediate)

        def make(message: AnyMessage, now: float, ticket: int) -> list[Effect]:
            return publish(message, machine, now, ticket)

        await driver.request(_copied_if_it_waits(make, message), timeout=timeout)

    def make_input(
        self, call: Callable[[Machine, float], list[Effect]], *, waits: bool = True
    ) -> Coroutine[Any, Any, None]:
        self.make_input_now(call, waits=waits)
        return FINISHED

    def _eda_forgotten(self) -> Callable[[str], None]:
        """Return what to call if the user code that runs now does not await what it has called."""
        run = run_of(self)

        def forgotten(text: str) -> None:
            if run is not None and not run.over:
                run.not_awaited.append(text)
            elif self._eda_running is not None:
                self._eda_running.report(ERROR, text, events.NOT_AWAITED)

        return forgotten


class _Turn:
    """Lets other tasks go on once."""

    def __await__(self) -> Generator[None, Any, None]:
        yield


def _copied_if_it_waits(make: Callable[[Any, float, int], list[Effect]], value: Any) -> Input:
    """Return the input that ``make`` makes with ``value``: with a copy, if the buffer was full at first.

    The machine writes a message when it accepts it. The caller may change the payload while it waits for space.
    """
    copied = False

    def attempt(now: float, ticket: int) -> list[Effect]:
        nonlocal value, copied
        try:
            return make(value, now, ticket)
        except BufferFull:
            if not copied:
                value, copied = deepcopy(value), True
            raise

    return attempt


class CoroutineBatch(EventBatch):
    __doc__ = EventBatch.__doc__

    endpoint: CoroutineService

    def push(self, payload: Any, conversation_id: str, meta: dict[str, Any]) -> Coroutine[Any, Any, None]:
        """Add the event that is being handled, with the arguments of its handler. Await the callback if it is full now.

        Raises:
            LocalError: ``meta`` is not the one that the handler was given, or the event is settled or in another batch.
        """
        return Asked(self._push(payload, conversation_id, meta), self.endpoint._eda_forgotten())

    async def _push(self, payload: Any, conversation_id: str, meta: dict[str, Any]) -> None:
        if self._add(payload, conversation_id, meta):
            await self.expire()

    def expire(self) -> Coroutine[Any, Any, None]:
        """Await the callback with the events that there are, if any."""
        return Asked(self._expire(), self.endpoint._eda_forgotten())

    async def _expire(self) -> None:
        with self._taken() as events:
            if events:
                returned = self.callback(events)
                if isawaitable(returned):
                    await returned
