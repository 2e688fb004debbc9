"""A driver for programs without an event loop, that only publish: nothing happens but while a caller waits.

An adapter fills in how to open a link, how to let time pass, and how to drop the link. Like all of the core this does
no I/O itself.
"""

from __future__ import annotations

import struct
from abc import abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

from eda_core.drivers.base import Driver
from eda_core.drivers.publish_call import Patience, Waiting
from eda_core.machine import link
from eda_core.machine.effects import Effect, PublishDone, Ready
from eda_core.machine.identifiers import DeliveryId
from eda_core.machine.machine import Machine
from eda_core.messages.values import AnyMessage

#: What broken connections and broken bytes make Python raise; a client library has errors of its own besides. Where a
#: program waits in the library, anything else comes from a handler of signals that wants the wait to end, such as
#: Celery's SoftTimeLimitExceeded.
FAULTS: Final[tuple[type[Exception], ...]] = (
    *(OSError, struct.error, ArithmeticError, AssertionError, AttributeError, BufferError, EOFError, LookupError),
    *(MemoryError, NameError, RuntimeError, TypeError, ValueError),
)
#: Seconds until a wait looks up, for heartbeats and for who wants it to end.
LOOK_UP = 0.5
#: Seconds that an attempt to connect has at least; 0 would mean any time to many libraries.
SHORTEST = 0.01
#: Records that wait at most while a publish goes on.
KEPT_RECORDS = 1000

#: Arguments of the machine's ``log``.
Record = tuple[tuple[int, str, float], dict[str, Any]]


class _NoHandlers:
    """The user code of a program that only publishes: there is none."""

    def handle(self, message: AnyMessage, /) -> None:
        """Nothing is subscribed to."""

    def handle_returned_message(self, key: str, payload: Any, envelope: dict[str, Any], /) -> None:
        """The running call hears of it (:meth:`Waiting.returned`)."""

    def on_ready(self) -> None:
        """The running call hears of it (:meth:`Waiting.link_open`)."""

    def on_unconfigured(self) -> None:
        """No configuration is subscribed to."""


class BlockingDriver(Driver):
    """From a first publish until a close, or until a publish fails. One call at a time.

    Args:
        records: what other callers want to be logged, who do not wait for the running one.

    Attributes:
        waiting: the running call, or the last one.
        graceful: a link is to be closed in good order, not by force.
        aborted: somebody wants the running call to end.
    """

    def __init__(self, machine: Machine, records: deque[Record]) -> None:
        super().__init__(_NoHandlers(), machine)
        self._records = records
        self.waiting: Waiting = Waiting(Patience(), self.now())
        self.graceful: bool = False
        self.aborted: bool = False
        self._used = self._next_look = self.now()

    # What an adapter fills in besides. None of these raises.

    @abstractmethod
    def pause(self, seconds: float) -> None:
        """Take in what the broker sends; return with the first of it, or when the time has passed (at once if < 0)."""

    @abstractmethod
    def look(self) -> None:
        """Send what waits for more to go with it; take in what the broker has sent if that was not done for a while."""

    @abstractmethod
    def abort(self) -> None:
        """Drop the link, if there is one, and tell nobody."""

    # What a caller does

    def begin(self) -> None:
        """Start the machine, the first time."""
        if self.machine.state is link.IDLE:
            self.tell(self.machine.start)

    def publish(self, messages: Iterable[AnyMessage], mandatory: bool, patience: Patience) -> Waiting:
        """Publish, with at most the configuration's ``window`` in flight, and wait for the confirms.

        After the first message that fails no more are taken. The time that the iterable takes does not count.
        """
        self._look()  # the link may have been lost since the last call, which is no failure of this one
        call = self.waiting = Waiting(patience, self.now())
        window, source, more = self.machine.config.window, iter(messages), True
        while more:
            more = self._take(call, source, mandatory)
            if len(call.open) >= window:
                self._wait(window // 2)
            if call.failed or not more:
                self._wait(0)
                more = more and not call.failed  # a message that came back may have been sent again
        self._used = self.now()
        return call

    def log(self) -> None:
        """Log what waits for it; without a link one attempt is made to get one, unless the last was a moment ago."""
        self.take_records()
        self.begin()
        self.tick_if_due()
        self.look()
        self._used = self.now()

    def is_fit(self) -> bool:
        """Whether it can be used once more: after a pause the broker takes us for dead, and the other way round."""
        is_open = self.machine.state is link.OPEN
        return not self.over and not (is_open and 0 < self.machine.config.heartbeat <= self.now() - self._used)

    def close(self, timeout: float) -> None:
        """Close in good order, within ``timeout`` seconds and what a link takes to close."""
        self.graceful = True
        self.take_records()
        self.tell(self.machine.stop, timeout=timeout)
        while not self.over:
            self._step(self.now() + LOOK_UP)

    def drop(self) -> None:
        """End it at once. What is not confirmed never will be."""
        self._todo.clear()  # of a call that was interrupted
        self.tell(self.machine.stop, timeout=0.0)
        self.tell(self.machine.tick)
        self.abort()

    def connect_timeout(self) -> float:
        """Seconds for an attempt to connect: the configured ones, or what the running call has left."""
        most, deadline = self.machine.config.connect_timeout, self.waiting.deadline()
        if not self.waiting.open or deadline is None:
            return most
        return max(SHORTEST, min(most, deadline - self.now()))

    def take_records(self) -> None:
        """Log what waits for it now; others may write faster than it can be sent."""
        for _ in range(len(self._records)):
            arguments, named = self._records.popleft()
            self.feed(self.machine.log(*arguments, **named))

    def tick_if_due(self) -> None:
        """Let happen what is due, without waiting. What is due because of that has to wait for the next time: a caller
        first looks whether there is hope."""
        due = self.machine.deadline()
        if not self.over and due is not None and due <= self.now():
            self.tick()

    def _take(self, call: Waiting, source: Iterator[AnyMessage], mandatory: bool) -> bool:
        """Publish the next message, if there is one."""
        try:
            message = next(source)
            looked = self._look()  # before there is more to send: the iterable may have taken its time
            effects = self.machine.publish(message, self.now(), mandatory=mandatory, ticket=call.taken)
        except StopIteration:
            call.resumed(self.now())
            return False
        except Exception as error:  # of the iterable, or because the message cannot be sent
            call.resumed(self.now())
            call.wrong(error)
            return True
        call.accepted(self.now())
        self.feed(effects)
        self.begin()
        if looked:
            self._attend(0.0)
        return True

    def _look(self) -> bool:
        """Take in what the broker has sent, if that was not done for a while."""
        if self.now() < self._next_look:
            return False
        before = -1
        self.take_records()
        while before != len(self.waiting.open):
            before = len(self.waiting.open)
            self.pause(-1.0)
        self._next_look = self.now() + LOOK_UP
        return True

    def _wait(self, most: int) -> None:
        """Until at most so many are open, or there is no hope."""
        while len(self.waiting.open) > most and self._attend(LOOK_UP):
            pass

    def _attend(self, seconds: float) -> bool:
        """Let happen what does within so many seconds; false if there was no hope, and all is dropped."""
        call = self.waiting
        if self.aborted:
            call.give_up("the endpoint was closed")
        if self.aborted or call.hopeless(self.now()):
            self.drop()
            return False
        limit, deadline = self.now() + seconds, call.deadline()
        self._step(limit if deadline is None else min(limit, deadline))
        return True

    def _step(self, until: float) -> None:
        self.take_records()
        due = self.machine.deadline()
        self.pause((until if due is None else min(until, due)) - self.now())
        self._next_look = self.now() + LOOK_UP
        self.tick_if_due()

    # The driver's part

    def arm(self, deadline: float) -> Callable[[], object]:
        """Nothing: who waits looks at the machine's deadline."""
        return lambda: None

    def dispatch(self, delivery: DeliveryId, message: AnyMessage) -> None:
        """Nothing is subscribed to."""
        raise NotImplementedError("a blocking driver only publishes")

    def call(self, effect: Effect | None, function: Callable[..., Any], *arguments: Any) -> None:
        """There are no hooks; that the machine is ready says that there is a link."""
        if isinstance(effect, Ready):
            self.waiting.link_open()

    def publish_done(self, effect: PublishDone) -> None:
        self.waiting.settled(effect.ticket, effect.error, self.now())
