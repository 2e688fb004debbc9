"""Services whose handlers are plain functions, and their batches.

This module decides when their methods return. It does not know in which thread the handlers run.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from queue import Empty, SimpleQueue
from typing import Any

from eda_core.checks import check_seconds
from eda_core.drivers.base import Driver
from eda_core.errors import NotReady, StateError
from eda_core.machine.effects import Effect
from eda_core.machine.machine import Machine
from eda_core.machine.outcomes import check_begun
from eda_core.messages.values import AnyMessage
from eda_core.services.api import ServiceApi
from eda_core.services.batch import EventBatch
from eda_core.services.claims import claim_of, redeemed

#: Whether the code that runs waits until its service is ready. Each thread has a context of its own.
_waits: ContextVar[bool] = ContextVar("eda_waits", default=False)


class CallbackService(ServiceApi[None]):
    """The base class of services whose methods return as soon as the machine has accepted what they ask for."""

    def wait_until_ready(self, timeout: float | None = None) -> None:
        """Wait until the service receives its messages; not at all if it does so now.

        Call it in another thread than that of ``run``, which it would keep from its work.

        Args:
            timeout: how long to wait, seconds; by default as long as it takes, and also until ``run`` is called.

        Raises:
            NotReady: it is not ready within ``timeout``. The text says what is missing. It is a ``TimeoutError``.
            ServiceError, LocalError: what ``run`` raises, if it ends before.
            StateError: the service was stopped before it was ready, or this is the thread of ``run``.
        """
        if timeout is not None:
            check_seconds("timeout", timeout)
        readiness, told = self._eda_readiness, SimpleQueue[Exception | None]()
        readiness.wait(told.put)
        try:
            driver = self._eda_running
            if driver is not None:
                self._eda_tell_if_ready(driver, told)
            reason = told.get(timeout=timeout)
        except Empty:
            driver = self._eda_running
            if driver is None:
                raise NotReady(f"not ready within {timeout:g} s: it was not run yet", hint="call run()") from None
            raise driver.not_ready(timeout or 0.0) from None
        finally:
            readiness.forget(told.put)
        if reason is not None:
            raise reason

    def _eda_tell_if_ready(self, driver: Driver, told: SimpleQueue[Exception | None]) -> None:
        """Let ``told`` be told if the service is ready now. Raise ``StateError`` if it can never be."""
        in_this_thread = False

        def tell() -> None:
            nonlocal in_this_thread
            in_this_thread = _waits.get()
            driver.tell_if_ready()

        token = _waits.set(True)
        try:
            driver.ask(tell)
        except StateError:  # the service has stopped, or this is a fork of its process, which nobody tells anything
            if told.empty():
                raise
        finally:
            _waits.reset(token)
        if in_this_thread and told.empty():
            raise StateError(
                "wait_until_ready() would keep the thread of run() from its work for ever",
                hint="call it in another thread; on_ready is called when the service is ready",
            )

    def _eda_redeem_and_handle(self, message: AnyMessage) -> Any:
        key, claims = claim_of(message), self.CLAIM_CHECK
        if key and claims is not None:
            body = claims.store.get(key)
            check_begun(body)
            message = redeemed(message, key, body, self._eda_config.limits)
        returned = self.handle(message)
        if self._eda_is_large(message, returned):
            self.return_success(message.reply_to, returned, message.conversation_id, message.correlation_id)
            return None
        return returned

    def make_input(self, call: Callable[[Machine, float], list[Effect]], *, waits: bool = True) -> None:
        self.make_input_now(call, waits=waits)


class CallbackBatch(EventBatch):
    __doc__ = EventBatch.__doc__

    def push(self, payload: Any, conversation_id: str, meta: dict[str, Any]) -> None:
        """Add the event that is being handled, with the arguments of its handler. Call the callback if it is full now.

        Raises:
            LocalError: ``meta`` is not the one that the handler was given, or the event is settled or in another batch.
        """
        if self._add(payload, conversation_id, meta):
            self.expire()

    def expire(self) -> None:
        """Call the callback with the events that there are, if any."""
        with self._taken() as events:
            if events:
                check_begun(self.callback(events))
