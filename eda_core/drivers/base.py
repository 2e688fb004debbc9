"""What drivers have in common: one pump that performs effects in order, and one timer for all that is due.

An adapter fills in how to open a link, to run user code and to wait; nothing here does I/O.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Protocol, TypeVar

from eda_core.drivers.timers import Timers
from eda_core.errors import ServiceError, StateError
from eda_core.machine.effects import (
    BufferAvailable,
    Close,
    Connect,
    Dispatch,
    Effect,
    PublishDone,
    Ready,
    Replied,
    Report,
    Returned,
    Stopped,
    Unconfigured,
)
from eda_core.machine.identifiers import DeliveryId, Epoch
from eda_core.machine.link import CLOSING
from eda_core.machine.machine import Machine
from eda_core.machine.outcomes import Outcome
from eda_core.messages.values import AnyMessage

T = TypeVar("T")


class UserCode(Protocol):
    """What a driver calls of a service."""

    def handle(self, message: AnyMessage, /) -> Any:
        """Handle a message."""

    def handle_returned_message(self, key: str, payload: Any, envelope: dict[str, Any], /) -> Any:
        """A mandatory message came back."""

    def on_ready(self) -> Any:
        """The service consumes business messages."""

    def on_unconfigured(self) -> Any:
        """The service waits for its configuration."""


class LinkLike(Protocol):
    """An open, opening or closing link: takes the effects of its epoch, in order, and never raises."""

    def perform(self, effect: Any) -> None:
        """Perform an effect. A failure is reported to the machine."""


class Driver(ABC):
    """Carries between a machine and the world.

    Attributes:
        links: by epoch; an adapter may forget those that are closed.
        at_stop: called when the service is asked to stop, each under a key of its owner.
        over: the service has stopped; there is nothing more to do with this driver.
        error: why, if it was not asked to.
        at_end: called with its outcome and the time when the handler of this delivery ends.
    """

    def __init__(self, service: UserCode, machine: Machine) -> None:
        self.service = service
        self.machine = machine
        self.links: dict[Epoch, LinkLike] = {}
        self.at_stop: dict[object, Callable[[], Any]] = {}
        self.over: bool = False
        self.error: str | None = None
        self._timers = Timers()
        self._interrupted = False
        self.at_end: dict[DeliveryId | None, Callable[[Outcome, float], None]] = {}
        self._todo: deque[Effect] = deque()
        self._pumping = False
        self._armed: float | None = None
        self._disarm: Callable[[], object] = _nothing
        self._actions: dict[type, Callable[[Any], None]] = {
            Connect: self._connect,
            Dispatch: lambda effect: self.dispatch(effect.delivery, effect.message),
            Ready: lambda effect: self.call(effect, service.on_ready),
            Unconfigured: lambda effect: self.call(effect, service.on_unconfigured),
            Returned: self._returned,
            PublishDone: self.publish_done,
            Replied: self.replied,
            BufferAvailable: lambda effect: self.buffer_available(),
            Report: lambda effect: self.report(effect.level, effect.text),
            Stopped: self._stopped,
        }

    # What an adapter fills in. None of these raises.

    @abstractmethod
    def now(self) -> float:
        """Monotonic seconds."""

    @abstractmethod
    def arm(self, deadline: float) -> Callable[[], object]:
        """Call :meth:`tick` at ``deadline``; returns what takes that back, also if it has happened already."""

    @abstractmethod
    def open(self, effect: Connect) -> LinkLike:
        """Begin to open a link."""

    @abstractmethod
    def dispatch(self, delivery: DeliveryId, message: AnyMessage) -> None:
        """Run the handler and call :meth:`handled`."""

    @abstractmethod
    def call(self, effect: Effect | None, function: Callable[..., Any], *arguments: Any) -> None:
        """Run a hook (of ``effect``) or a timer's function; make the input ``callback_failed`` if it fails."""

    @abstractmethod
    def report(self, level: int, text: str) -> None:
        """Log locally."""

    def ask(self, call: Callable[[], T]) -> T:
        """Call it where the machine may be used, and return or raise what that does; here at once.

        A driver that is called from several threads overrides it. What it calls does not have to be safe with threads.

        Raises:
            StateError: the service has stopped, and nobody would call it.
        """
        return call()

    # What an adapter may fill in: callers that wait, and the end

    def publish_done(self, effect: PublishDone) -> None:  # noqa: B027 - optional
        """Tell the caller that waits with the effect's ticket."""

    def replied(self, effect: Replied) -> None:  # noqa: B027 - optional
        """Tell the caller; :func:`eda_core.machine.calls.answer` says what."""

    def buffer_available(self) -> None:  # noqa: B027 - optional
        """Let callers go on that found the buffer full."""

    def stopped(self, error: str | None) -> None:  # noqa: B027 - optional
        """The service is over."""

    # The pump

    def tell(self, method: Callable[..., list[Effect]], *arguments: Any, **named: Any) -> None:
        """Make an input to the machine, now, and perform its effects."""
        self.feed(method(*arguments, now=self.now(), **named))

    def make(self, call: Callable[[Machine, float], list[Effect]]) -> None:
        """Make the input that ``call`` makes of the machine and the time, and perform its effects."""
        self.feed(call(self.machine, self.now()))

    def handled(self, delivery: DeliveryId, outcome: Outcome) -> None:
        """The handler of a ``dispatch`` has come to its end."""
        at_end = self.at_end.pop(delivery, None)
        if at_end is not None:
            at_end(outcome, self.now())
        self.tell(self.machine.handled, delivery, outcome)

    def stop(self, timeout: float | None = None) -> None:
        """Ask the service to stop, within ``timeout`` seconds instead of the configured ones."""
        self.tell(self.machine.stop, timeout=timeout)
        for function in self.at_stop.values():
            self.call(None, function)

    def interrupt(self) -> None:
        """The process is asked to end, as by a signal: stop in good order; asked once more, at once."""
        self.stop(0.0 if self._interrupted else None)
        self._interrupted = True

    def call_later(self, delay: float, function: Callable[[], Any]) -> int:
        """Call it after ``delay`` seconds, outside any handler, unless the service stops before. Returns its number.

        Raises:
            StateError: the service has stopped.
        """
        if self.over:
            raise StateError("the service has stopped", hint="call this before")
        number = self._timers.add(self.now() + max(0.0, delay), function)
        self._rearm()
        return number

    def cancel_timer(self, number: int) -> None:
        """Do not call it, or not any more."""
        self._timers.cancel(number)

    def feed(self, effects: Iterable[Effect]) -> None:
        """Perform effects in order; those that their performance brings about come after them."""
        self._todo.extend(effects)
        if self._pumping:
            return
        self._pumping = True
        try:
            while self._todo:
                self._perform(self._todo.popleft())
        finally:
            self._pumping = False
        self._rearm()

    def tick(self) -> None:
        """The timer fired."""
        armed, self._armed = self._armed, None
        now = self.now() if armed is None else max(armed, self.now())  # timers of event loops may fire early
        closing = self.machine.state is CLOSING  # and takes no publishes any more
        for number in self._timers.due(now):
            if not closing:
                self.call(None, partial(self._timers.run, number))
        self.feed(self.machine.tick(now))

    def _rearm(self) -> None:
        deadline, due = self.machine.deadline(), self._timers.deadline()
        if deadline is None or (due is not None and due < deadline):
            deadline = due
        # A timer that fires early finds nothing to do and is armed anew; that is cheaper than to move it each time.
        if deadline is not None and not self.over and (self._armed is None or deadline < self._armed):
            self._disarm()
            self._armed = deadline
            self._disarm = self.arm(deadline)

    def _perform(self, effect: Effect) -> None:
        action = self._actions.get(type(effect))
        if action is not None:
            action(effect)
            return
        link = self.links.get(getattr(effect, "epoch", Epoch(0)))
        if link is not None:
            link.perform(effect)
        elif isinstance(effect, Close):  # nothing to close, but the machine waits to hear it
            self._todo.extend(self.machine.link_down(effect.epoch, "closed", self.now()))

    def _connect(self, effect: Connect) -> None:
        self.links[effect.epoch] = self.open(effect)

    def _returned(self, effect: Returned) -> None:
        service = self.service
        self.call(effect, service.handle_returned_message, effect.name, effect.payload, dict(effect.envelope))

    def raise_end(self) -> None:
        """At the end of a run.

        Raises:
            ServiceError: the service was not asked to stop.
        """
        if self.error is not None:
            raise ServiceError(self.error)

    def _stopped(self, effect: Stopped) -> None:
        self.over, self.error = True, effect.error
        self._timers.clear()
        self._disarm()
        self.stopped(effect.error)


def _nothing() -> None:
    """To take back what was never done."""
