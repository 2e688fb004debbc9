"""One machine and the link it asks for, driven by blocking calls: nothing happens but while somebody waits."""

from __future__ import annotations

import logging
import random
import secrets
import time
from collections.abc import Callable, Iterable
from ssl import SSLContext
from typing import Any

from eda_core import AnyMessage, Config, Connect, DeliveryId, Effect, Handlers, Machine, Ready, criticality, link
from eda_core.driver import Driver
from eda_core.waiting import Patience, Waiting
from eda_kombu.transport import Link

LOGGER = logging.getLogger("eda_kombu")

#: Seconds until a wait looks up, for heartbeats and for who wants it to end.
_LOOK_UP = 0.5


class Session(Driver):
    """From a first publish until a close, or until a publish fails.

    Attributes:
        waiting: the running call, or the last one.
        graceful: a link is closed in good order, not by force.
        aborted: somebody wants it to end.
    """

    def __init__(self, config: Config, ssl: SSLContext | None) -> None:
        offset = time.time() - self.now()
        machine = Machine(config, random=random.random, token=secrets.token_hex(6), wall_offset=offset)
        super().__init__(Handlers(), machine)
        self.waiting: Waiting = Waiting(Patience(), self.now())
        self.graceful: bool = False
        self.aborted: bool = False
        self._ssl = ssl
        self._link: Link | None = None
        self._over = False
        self._used = self.now()

    # What an endpoint does

    def publish(self, messages: Iterable[AnyMessage], mandatory: bool, patience: Patience) -> Waiting:
        """Publish, with at most the configuration's ``window`` in flight, and wait for the confirms."""
        call = self.waiting = Waiting(patience, self.now())
        window, source, more = self.machine.config.window, iter(messages), True
        while more:
            try:
                effects = self.machine.publish(next(source), self.now(), mandatory=mandatory, ticket=call.taken)
            except StopIteration:
                more = False
            except Exception as error:  # of the iterable, or because the message cannot be sent
                call.wrong(error)
            else:
                call.accepted(self.now())
                self.feed(effects)
                self._start()
            if len(call.open) >= window:
                self._wait(window // 2)
            if call.failed or not more:
                self._wait(0)
                more = more and not call.failed  # a message that came back may have been sent again
        self._used = self.now()
        return call

    def log(self, *arguments: Any, **fields: Any) -> None:
        """Log; without a link one attempt is made to get one, unless the last one was a moment ago."""
        self.tell(self.machine.log, *arguments, **fields)
        self._start()
        self._tick_if_due()
        if self._link is not None and self._link.is_open:
            self._link.look()

    def is_fit(self) -> bool:
        """Whether it can be used once more: after a pause the broker takes us for dead, and the other way round."""
        pause, self._used = self.now() - self._used, self.now()
        is_open = self._link is not None and self._link.is_open
        return not self._over and not (is_open and 0 < self.machine.config.heartbeat <= pause)

    def close(self, timeout: float) -> None:
        """Close in good order, within ``timeout`` seconds and what a connection takes to close."""
        self.graceful = True
        self.tell(self.machine.stop, timeout=timeout)
        while not self._over:
            self._step(self.now() + _LOOK_UP)

    def drop(self) -> None:
        """End it at once. What is not confirmed never will be."""
        self._todo.clear()  # of a call that was interrupted
        self.tell(self.machine.stop, timeout=0.0)
        self.tell(self.machine.tick)
        if self._link is not None:
            self._link.abort()

    def _start(self) -> None:
        if self.machine.state is link.IDLE:
            self.tell(self.machine.start)

    # Waiting

    def _wait(self, most: int) -> None:
        """Until at most so many are open, or there is no hope."""
        call = self.waiting
        while len(call.open) > most:
            if self.aborted:
                call.give_up("the endpoint was closed")
            if self.aborted or call.hopeless(self.now()):
                self.drop()
                return
            self._step(min(self.now() + _LOOK_UP, call.deadline() or float("inf")))

    def _step(self, until: float) -> None:
        """Let something happen, or the time pass."""
        pause = min(until, self.machine.deadline() or until) - self.now()
        if self._link is not None and self._link.is_open:
            self._link.read(pause)
        elif pause > 0:
            time.sleep(pause)
        self._tick_if_due()

    def _tick_if_due(self) -> None:
        while not self._over and (due := self.machine.deadline()) is not None and due <= self.now():
            self.tick()

    # The driver's part

    def now(self) -> float:
        return time.monotonic()

    def arm(self, deadline: float) -> None:
        """Nothing: who waits looks at the machine's deadline."""

    def open(self, effect: Connect) -> Link:
        self.links.clear()  # there is one at a time
        timeout, call = self.machine.config.connect_timeout, self.waiting
        deadline = call.deadline() if call.open else None
        if deadline is not None:
            timeout = max(0.01, min(timeout, deadline - self.now()))
        self._link = Link(effect, self, timeout, self._ssl)
        self._link.open()
        return self._link

    def dispatch(self, delivery: DeliveryId, message: AnyMessage) -> None:
        raise NotImplementedError("an endpoint subscribes to nothing")

    def call(self, effect: Effect | None, function: Callable[..., Any], *arguments: Any) -> None:
        if isinstance(effect, Ready):
            self.waiting.link_open()

    def settled(self, ticket: int, error: str | None) -> None:
        self.waiting.settled(ticket, error, self.now())

    def room(self) -> None:
        """Nothing: the window is no larger than the buffer."""

    def report(self, level: int, text: str) -> None:
        LOGGER.log(criticality.LOGGING_LEVELS[level], "%s", text)

    def stopped(self, error: str | None) -> None:
        self._over = True
