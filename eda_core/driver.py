"""What drivers have in common: one pump that performs effects in order, and one timer at the machine's deadline.

An adapter fills in how to open a link, to run user code and to wait; nothing here does I/O.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from eda_core.effects import (
    Close,
    Connect,
    Dispatch,
    Effect,
    Ready,
    Replied,
    Report,
    Returned,
    Room,
    Settled,
    Stopped,
    Unconfigured,
)
from eda_core.handlers import Handlers
from eda_core.machine import Machine
from eda_core.values import AnyMessage, DeliveryId, Epoch, Outcome


class LinkLike(Protocol):
    """An open, opening or closing link: takes the effects of its epoch, in order, and never raises."""

    def perform(self, effect: Any) -> None: ...


class Driver(ABC):
    """Carries between a machine and the world.

    Attributes:
        links: by epoch; an adapter may forget those that are closed.
        at_stop: called when the service is asked to stop, each under a key of its owner.
        at_end: called with its outcome and the time when the handler of this delivery ends.
    """

    def __init__(self, service: Handlers, machine: Machine) -> None:
        self.service = service
        self.machine = machine
        self.links: dict[Epoch, LinkLike] = {}
        self.at_stop: dict[object, Callable[[], Any]] = {}
        self.at_end: dict[DeliveryId | None, Callable[[Outcome, float], None]] = {}
        self._todo: deque[Effect] = deque()
        self._pumping = False
        self._armed: float | None = None
        self._actions: dict[type, Callable[[Any], None]] = {
            Connect: self._connect,
            Dispatch: lambda effect: self.dispatch(effect.delivery, effect.message),
            Ready: lambda effect: self.call(effect, service.on_ready),
            Unconfigured: lambda effect: self.call(effect, service.on_unconfigured),
            Returned: self._returned,
            Settled: lambda effect: self.settled(effect.ticket, effect.error),
            Replied: self.replied,
            Room: lambda effect: self.room(),
            Report: lambda effect: self.report(effect.level, effect.text),
            Stopped: lambda effect: self.stopped(effect.error),
        }

    # What an adapter fills in. None of these raises.

    @abstractmethod
    def now(self) -> float:
        """Monotonic seconds."""

    @abstractmethod
    def arm(self, deadline: float) -> None:
        """Call :meth:`tick` at ``deadline``, and not at the earlier one any more."""

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
    def settled(self, ticket: int, error: str | None) -> None:
        """Tell the caller that waits with ``ticket``."""

    def replied(self, effect: Replied) -> None:  # noqa: B027 - optional
        """Tell the caller; :func:`eda_core.calls.answer` says what. Only adapters that make calls fill it in."""

    @abstractmethod
    def room(self) -> None:
        """Let callers go on that found the buffer full."""

    @abstractmethod
    def report(self, level: int, text: str) -> None:
        """Log locally."""

    @abstractmethod
    def stopped(self, error: str | None) -> None:
        """The service is over."""

    # The pump

    def tell(self, method: Callable[..., list[Effect]], *arguments: Any, **named: Any) -> None:
        """Make an input to the machine, now, and perform its effects."""
        self.feed(method(*arguments, now=self.now(), **named))

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
        deadline = self.machine.deadline()
        # A timer that fires early finds nothing to do and is armed anew; that is cheaper than to move it each time.
        if deadline is not None and (self._armed is None or deadline < self._armed):
            self._armed = deadline
            self.arm(deadline)

    def tick(self) -> None:
        """The timer fired."""
        armed, self._armed = self._armed, None
        now = self.now()
        self.feed(self.machine.tick(now if armed is None else max(armed, now)))  # timers of event loops may fire early

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
