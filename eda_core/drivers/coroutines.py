"""The base class of drivers that run user code as coroutines.

It decides what becomes of the result of a handler, and which caller waits for what. It knows no event loop: an adapter
says how to start a task, and gives objects like asyncio's futures.
"""

from __future__ import annotations

import itertools
from abc import abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Generator
from functools import partial
from inspect import isawaitable
from typing import Any, Protocol

from eda_core.checks import check_seconds
from eda_core.drivers.base import Driver, UserCode, name_of_hook
from eda_core.drivers.handling import handling
from eda_core.drivers.steps import Steps
from eda_core.errors import BufferFull, EdaError, PublishError, PublishRefused, PublishTimeout
from eda_core.machine.calls import answer
from eda_core.machine.effects import Effect, PublishDone, Replied
from eda_core.machine.identifiers import DeliveryId
from eda_core.machine.machine import Machine
from eda_core.machine.outcomes import failure
from eda_core.messages.headers import CLAIM_CHECK
from eda_core.messages.values import AnyMessage

Input = Callable[..., list[Effect]]

#: The exceptions that end a program. They are no outcome of a handler, and neither is the GeneratorExit of a coroutine
#: that is thrown away. No task raises them: an event loop would end in the middle of its turn, and report the task.
_EXITS = (KeyboardInterrupt, SystemExit)


class Future(Protocol):
    """An object that one coroutine awaits, such as asyncio's ``Future``."""

    def done(self) -> bool:
        """Return whether the wait has ended."""

    def set_result(self, result: Any, /) -> None:
        """End the wait with a result."""

    def set_exception(self, error: Any, /) -> None:
        """End the wait with an exception."""

    def __await__(self) -> Generator[Any, None, Any]: ...


class CoroutineDriver(Driver):
    """Runs each handler, hook and timer in a task of its own, and lets callers wait for their publishes and calls."""

    def __init__(self, service: UserCode, machine: Machine) -> None:
        super().__init__(service, machine)
        self._tickets = itertools.count(1)
        self._waiting: dict[int, Future] = {}
        #: The inputs that wait for space, by ticket, in order. Too many calls keep no publish waiting.
        self._publishes_for_space: OrderedDict[int, Input] = OrderedDict()
        self._calls_for_space: OrderedDict[int, Input] = OrderedDict()
        self._for_end: list[Future] = []

    # An adapter also defines these

    @abstractmethod
    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Start a task that runs ``work``. As its last step, ``work`` calls :meth:`ending`, unless it never begins."""

    def ending(self) -> None:
        """Forget the task that calls this: it is about to end. (A callback of the task would cost a turn of a loop.)"""

    @abstractmethod
    def future(self) -> Future:
        """Return a new future."""

    @abstractmethod
    async def tear_down(self) -> None:
        """Cancel the tasks that are left, and drop the links that are left. Return when all have ended."""

    # The life of a service

    async def run(self) -> None:
        """Run the service until it has stopped. If this is cancelled, the service stops first.

        Raises:
            ServiceError: the service has stopped although nobody asked it to.
            KeyboardInterrupt, SystemExit: user code has raised it, which ends the service at once.
        """
        try:
            self.tell(self.machine.start)
            try:
                await self._end()
            except GeneratorExit:  # the event loop is gone, so nothing can be awaited
                raise
            except BaseException:
                self.stop()
                await self._end()
                if self.exit is None:
                    raise
        finally:
            await self.tear_down()
        self.raise_end()

    async def _end(self) -> None:
        if self.over:
            return
        self._for_end.append(future := self.future())
        try:
            await future
        finally:
            self._for_end.remove(future)

    def stopped(self, error: str | None) -> None:
        for each in self._for_end:
            if not each.done():
                each.set_result(None)
        self.buffer_available()  # callers that wait for space get an error: the service has stopped

    # User code

    def dispatch(self, delivery: DeliveryId, message: AnyMessage) -> None:
        self.spawn_handler(self._handle(delivery, message))

    def spawn_handler(self, work: Coroutine[Any, Any, None]) -> None:
        """Start a task that runs a handler. It may begin at once, while effects are performed."""
        self.spawn(work)

    async def _handle(self, delivery: DeliveryId, message: AnyMessage) -> None:
        returned, steps = None, Steps(self.now)
        try:
            with handling(self.service, delivery, message, watch=self) as run:
                try:
                    returned = steps.step(self.run_handler, message)
                    if isawaitable(returned):
                        returned = await steps.of(returned)
                    run.check_awaited()
                except GeneratorExit:
                    raise
                except _EXITS as error:
                    run.failed(error)
                    run.end_span()
                    self.break_off(error)
                    return
                except BaseException as error:  # also CancelledError: a handler may await something that is cancelled
                    if self.over:  # tear_down() has cancelled it; the broker delivers its message again
                        raise
                    run.failed(error)
            try:
                self.check_blocking(message, steps.longest, "run what takes long by asyncio.to_thread()")
                self.run_ended(run, returned, run.began)
            finally:
                if run.span is not None:
                    run.end_span()
        finally:
            self.ending()

    def ends_service(self, error: BaseException) -> bool:
        return isinstance(error, (*_EXITS, GeneratorExit))

    def call(self, effect: Effect | None, function: Callable[..., Any], *arguments: Any) -> None:
        if not self.over:
            self.spawn(self._call(effect, function, arguments))

    async def _call(self, effect: Effect | None, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        try:
            with handling(self.service, watch=self) as run:  # even if a handler has led to this call
                run.hook = name_of_hook(effect, function)
                returned = function(*arguments)
                if isawaitable(returned):
                    await returned
                run.check_awaited()
        except GeneratorExit:
            raise
        except _EXITS as error:
            self.break_off(error)
        except BaseException as error:  # also CancelledError, see _handle
            if self.over and not isinstance(error, Exception):  # tear_down() has cancelled it
                raise
            self.tell(self.machine.callback_failed, effect, failure(error))
        finally:
            self.ending()

    # Callers that wait

    async def request(self, make: Input, forget: Input | None = None, timeout: float | None = None) -> Any:
        """Make an input that has a ticket, as soon as there is space, and wait for its answer.

        Args:
            make: the input, without ``now`` and ``ticket``.
            forget: the input that ends the wait for a ticket. It is made if this coroutine is cancelled.
            timeout: how long to wait, seconds; ``None`` for as long as it takes.

        Returns:
            The payload of the result of a call, or the effect if that payload is in a store; ``None``, or why it was
            unroutable, for a publish.

        Raises:
            LocalError: the machine refuses the input, or the timeout is not a number of seconds.
            PublishError: the service has stopped, or no service receives the command.
            PublishTimeout: ``timeout`` has passed.
            CommandError: the result has the status ``error``.
            CommandTimeout: no result came in time.
        """
        if timeout is not None:
            check_seconds("timeout", timeout)
        ticket = next(self._tickets)
        for_space = self._publishes_for_space if forget is None else self._calls_for_space
        effects = self._unless_full(make, ticket)
        if effects is not None and len(effects) == 1:
            done = effects[0]
            if type(done) is PublishDone and done.ticket == ticket and done.error is None:
                return done.returned  # a handler publishes, and the machine holds it: there is nothing to wait for
        waiting = self._waiting[ticket] = self.future()
        if effects is None:
            for_space[ticket] = make
        else:
            self.feed(effects)
        timer = None if timeout is None else self.call_later(timeout, partial(self._expire, ticket, timeout))
        try:
            return await waiting
        finally:
            if timer is not None:
                self.cancel_timer(timer)
            cancelled = self._waiting.pop(ticket, None) is not None
            if cancelled and for_space.pop(ticket, None) is None and forget is not None:
                self.tell(forget, ticket)

    def _expire(self, ticket: int, timeout: float) -> None:
        """End the wait of a caller. Its publish goes on if the machine has accepted it."""
        waiting = self._waiting.get(ticket)
        if waiting is None or waiting.done():
            return
        accepted = ticket not in self._publishes_for_space
        hint = "it is still being sent and may arrive" if accepted else "it was not accepted: publish it again later"
        waiting.set_exception(PublishTimeout(f"no confirm within {timeout:g} s", hint=hint, may_arrive=accepted))

    def _unless_full(self, make: Input, ticket: int) -> list[Effect] | None:
        try:
            return make(now=self.now(), ticket=ticket)
        except BufferFull as full:
            if not full.temporary:
                raise
            return None

    def callers(self) -> int:
        return len(self._publishes_for_space) + len(self._calls_for_space)

    def buffer_available(self) -> None:
        self._fill(self._publishes_for_space)
        self._fill(self._calls_for_space)

    def _fill(self, for_space: OrderedDict[int, Input]) -> None:
        """Make the inputs that wait, in order, until there is no space. Their callers wait on for the answers."""
        while for_space:
            ticket, make = next(iter(for_space.items()))
            waiting = self._waiting[ticket]
            try:
                effects = [] if waiting.done() else self._unless_full(make, ticket)  # done: it is cancelled
            except Exception as error:
                effects = []
                del self._waiting[ticket]
                waiting.set_exception(error)
            if effects is None:
                return
            del for_space[ticket]
            self.feed(effects)

    def publish_done(self, effect: PublishDone) -> None:
        waiting = self._waiting.pop(effect.ticket, None)
        if waiting is not None and not waiting.done():
            if effect.error is None:
                waiting.set_result(effect.returned)
            else:
                waiting.set_exception((PublishRefused if effect.refused else PublishError)(effect.error))

    def replied(self, effect: Replied) -> None:
        waiting = self._waiting.pop(effect.ticket, None)
        if waiting is not None and not waiting.done():
            try:
                claimed = effect.result is not None and CLAIM_CHECK in effect.result.meta
                waiting.set_result(effect if claimed else answer(effect))
            except EdaError as error:
                waiting.set_exception(error)
