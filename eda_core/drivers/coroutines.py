"""A driver whose user code are coroutines, in whatever event loop.

There is no loop in here: an adapter says how to begin a task and how to wait, in objects like asyncio's futures.
"""

from __future__ import annotations

import itertools
from abc import abstractmethod
from collections.abc import Callable, Coroutine, Generator
from inspect import isawaitable
from typing import Any, Protocol

from eda_core.drivers.base import Driver, UserCode
from eda_core.drivers.handling import handling
from eda_core.errors import BufferFull, EdaError, PublishError
from eda_core.machine.calls import answer
from eda_core.machine.effects import Effect, PublishDone, Replied
from eda_core.machine.identifiers import DeliveryId
from eda_core.machine.machine import Machine
from eda_core.machine.outcomes import failure, outcome
from eda_core.messages.values import AnyMessage

Input = Callable[..., list[Effect]]

#: What ends a program, or a coroutine that nobody wants to the end of; never the outcome of a handler.
_EXITS = (GeneratorExit, KeyboardInterrupt, SystemExit)


class Future(Protocol):
    """What one coroutine waits for, as asyncio has it."""

    def done(self) -> bool:
        """Whether the wait is over."""

    def set_result(self, result: Any, /) -> None:
        """End the wait with a result."""

    def set_exception(self, error: Any, /) -> None:
        """End the wait with an exception."""

    def __await__(self) -> Generator[Any, None, Any]: ...


class CoroutineDriver(Driver):
    """Runs each handler, hook and timer in a task of its own, and lets callers wait for what they publish."""

    def __init__(self, service: UserCode, machine: Machine) -> None:
        super().__init__(service, machine)
        self._tickets = itertools.count(1)
        self._numbers = itertools.count()
        self._waiting: dict[int, Future] = {}
        self._for_space: dict[int, Future] = {}
        self._for_end: dict[int, Future] = {}

    # What an adapter fills in besides

    @abstractmethod
    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Begin to run it, in a task of its own."""

    @abstractmethod
    def future(self) -> Future:
        """A new one, for one coroutine to wait for."""

    @abstractmethod
    async def tear_down(self) -> None:
        """Cancel the tasks that are left and drop the links, if any; return when they are gone."""

    # The life of a service

    async def run(self) -> None:
        """From start to end. Being cancelled, it stops gracefully first.

        Raises:
            ServiceError: the service ended without being asked to.
        """
        try:
            self.tell(self.machine.start)
            try:
                await self._end()
            except GeneratorExit:  # the loop is gone, and nothing can be waited for
                raise
            except BaseException:
                self.stop()
                await self._end()
                raise
        finally:
            await self.tear_down()
        self.raise_end()

    async def _end(self) -> None:
        if not self.over:
            await self._wait(self._for_end)

    async def _wait(self, waiting: dict[int, Future]) -> None:
        """Until they are woken."""
        number = next(self._numbers)
        waiting[number] = future = self.future()
        try:
            await future
        finally:
            waiting.pop(number, None)

    def stopped(self, error: str | None) -> None:
        _wake(self._for_end)
        self.buffer_available()  # who waits for it hears that the service is over

    # User code

    def dispatch(self, delivery: DeliveryId, message: AnyMessage) -> None:
        self.spawn(self._handle(delivery, message))

    async def _handle(self, delivery: DeliveryId, message: AnyMessage) -> None:
        try:
            with handling(self.service, delivery):
                returned = self.service.handle(message)
                result = outcome(message, await returned if isawaitable(returned) else returned)
        except _EXITS:
            raise
        except BaseException as error:  # a handler may wait for what is cancelled
            if self.over:  # torn down: the message stays with the broker
                raise
            result = failure(error)
        self.handled(delivery, result)

    def call(self, effect: Effect | None, function: Callable[..., Any], *arguments: Any) -> None:
        if not self.over:
            self.spawn(self._call(effect, function, arguments))

    async def _call(self, effect: Effect | None, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        try:
            with handling(self.service, None):  # whatever has brought this about, be it a handler
                returned = function(*arguments)
                if isawaitable(returned):
                    await returned
        except _EXITS:
            raise
        except BaseException as error:  # it may wait for what is cancelled, too
            if self.over and not isinstance(error, Exception):  # torn down
                raise
            self.tell(self.machine.callback_failed, effect, failure(error))

    # Callers that wait

    async def request(self, make: Input, forget: Input | None = None) -> Any:
        """Make an input with a ticket, once there is space for it, and wait for what comes of it.

        Args:
            make: the input, but for ``now`` and ``ticket``.
            forget: the input that says, with the ticket, that nobody waits any more.

        Raises:
            LocalError: the machine refuses it.
            PublishError, CommandError, CommandTimeout: what came of it.
        """
        ticket = next(self._tickets)
        while (effects := self._unless_full(make, ticket)) is None:
            await self._wait(self._for_space)
        waiting = self._waiting[ticket] = self.future()
        self.feed(effects)
        try:
            return await waiting
        finally:
            if self._waiting.pop(ticket, None) is not None and forget is not None:  # cancelled
                self.tell(forget, ticket)

    def _unless_full(self, make: Input, ticket: int) -> list[Effect] | None:
        try:
            return make(now=self.now(), ticket=ticket)
        except BufferFull as full:
            if not full.temporary:
                raise
            return None

    def buffer_available(self) -> None:
        _wake(self._for_space)

    def publish_done(self, effect: PublishDone) -> None:
        waiting = self._waiting.pop(effect.ticket, None)
        if waiting is not None and not waiting.done():
            if effect.error is None:
                waiting.set_result(effect.returned)
            else:
                waiting.set_exception(PublishError(effect.error))

    def replied(self, effect: Replied) -> None:
        waiting = self._waiting.pop(effect.ticket, None)
        if waiting is not None and not waiting.done():
            try:
                waiting.set_result(answer(effect))
            except EdaError as error:
                waiting.set_exception(error)


def _wake(waiting: dict[int, Future]) -> None:
    for each in waiting.values():
        if not each.done():
            each.set_result(None)
    waiting.clear()
