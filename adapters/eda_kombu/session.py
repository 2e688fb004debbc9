"""One machine and the link it asks for, driven by blocking calls: nothing happens but while somebody waits."""

from __future__ import annotations

import logging
import random
import secrets
import time
from collections.abc import Callable, Iterable
from ssl import SSLContext
from typing import Any

from eda_core import AnyMessage, Config, Connect, DeliveryId, Effect, Handlers, Machine, Publish, Ready, criticality
from eda_core.driver import Driver
from eda_kombu.errors import NotConfirmed, Unroutable
from eda_kombu.transport import Link

LOGGER = logging.getLogger("eda_kombu")

#: Seconds until a wait looks up, for heartbeats and for who wants it to end.
_LOOK_UP = 0.5


class Session(Driver):
    """From a first publish until a close, or until a publish fails.

    Args:
        confirm_timeout: seconds without progress until publishing is given up; ``None`` for never.
        connection_max_retries: attempts to connect in a row, after the first; ``None`` for any number.

    Attributes:
        graceful: a link is closed in good order, not by force.
        aborted: somebody wants it to end.
    """

    def __init__(
        self, config: Config, confirm_timeout: float | None, connection_max_retries: int | None, ssl: SSLContext | None
    ) -> None:
        offset = time.time() - self.now()
        machine = Machine(config, random=random.random, token=secrets.token_hex(6), wall_offset=offset)
        super().__init__(Handlers(), machine)
        self.graceful: bool = False
        self.aborted: bool = False
        self._ssl = ssl
        self._confirm_timeout = confirm_timeout
        self._connection_max_retries = connection_max_retries
        self._link: Link | None = None
        self._over = False
        self._used = self._progress = self._refusals_until = self.now()
        # Of the running call
        self._max_retries: int | None = None
        self._failed_links = self._failures = 0
        self._trouble = ""
        #: What is not confirmed, with its message id once it was sent; and what has failed.
        self._open: dict[int, str | None] = {}
        self._failed: dict[int, Exception] = {}

    # What an endpoint does

    def publish(
        self, messages: Iterable[AnyMessage], mandatory: bool, max_retries: int | None
    ) -> tuple[int, dict[int, Exception]]:
        """Publish, with at most the configuration's ``window`` in flight, and wait for the confirms.

        Returns:
            How many messages were taken, and for each that is not confirmed its place and why.
        """
        self._max_retries, self._failed_links, self._failures, self._trouble = max_retries, 0, 0, ""
        self._open, self._failed = {}, {}
        window, source, taken, more = self.machine.config.window, iter(messages), 0, True
        while more:
            try:
                effects = self.machine.publish(next(source), self.now(), mandatory=mandatory, ticket=taken)
            except StopIteration:
                more = False
            except Exception as error:  # of the iterable, or because the message cannot be sent
                self._failed[taken] = error
                taken += 1
            else:
                self._open[taken] = None
                taken += 1
                self._progress = self.now()
                self.feed(effects)
                self._start()
            if len(self._open) >= window:
                self._wait(window // 2)
            if self._failed or not more:
                self._wait(0)
                more = more and not self._failed  # a message that came back may have been sent again
        return taken, self._failed

    def log(self, *arguments: Any, **fields: Any) -> None:
        """Log; without a link one attempt is made to get one, unless the last one was a moment ago."""
        self.tell(self.machine.log, *arguments, **fields)
        self._start()
        self._tick_if_due()
        if self._link is not None and self._link.is_open:
            self._link.flush()

    def is_fit(self) -> bool:
        """Whether it can be used once more: after a pause the broker takes us for dead, and the other way round."""
        pause, self._used = self.now() - self._used, self.now()
        heartbeat, link = self.machine.config.heartbeat, self._link
        return not (self._over or (link is not None and link.is_open and 0 < heartbeat <= pause))

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
        if self.machine.state == "idle":
            self.tell(self.machine.start)

    # Waiting

    def _wait(self, most: int) -> None:
        """Until at most so many are open, or there is no hope."""
        while len(self._open) > most:
            hopeless = self._hopeless()
            if hopeless:
                self._trouble = f"{hopeless} ({self._trouble})" if self._trouble else hopeless
                self.drop()
                return
            patience = self._confirm_timeout
            limit = self.now() + _LOOK_UP
            self._step(limit if patience is None else min(limit, self._progress + patience))

    def _step(self, until: float) -> None:
        """Let something happen, or the time pass."""
        due = self.machine.deadline()
        pause = (until if due is None else min(until, due)) - self.now()
        if self._link is not None and self._link.is_open:
            self._link.read(pause)
        elif pause > 0:
            time.sleep(pause)
        self._tick_if_due()

    def _tick_if_due(self) -> None:
        while not self._over and (due := self.machine.deadline()) is not None and due <= self.now():
            self.tick()

    def _hopeless(self) -> str:
        timeout, connects, retries = self._confirm_timeout, self._connection_max_retries, self._max_retries
        if self.aborted:
            return "the endpoint was closed"
        if timeout is not None and self.now() >= self._progress + timeout:
            return f"no confirm within {timeout:g} s"
        if connects is not None and self._failed_links > connects:
            return f"no connection after {connects} retries"
        return f"given up after {retries} retries" if retries is not None and self._failures > retries else ""

    # What a link tells

    def sending(self, effect: Publish) -> None:
        """It may arrive from now on; that it came back on an earlier link, unconfirmed, does not count."""
        if effect.ticket is not None:
            self._open[effect.ticket] = effect.properties.message_id
            self._failed.pop(effect.ticket, None)

    def failed(self, reason: str) -> None:
        """No link, or not any more."""
        self._failed_links += 1
        self._failures += 1
        self._trouble = reason

    def refused(self) -> None:
        """The broker does not take a message. It is sent again after a delay; more refusals until then count as one."""
        self._trouble = "the broker refuses it: is a queue full?"
        if self.now() >= self._refusals_until:
            self._refusals_until = self.now() + self.machine.config.retry_delay
            self._failures += 1

    def came_back(self, message_id: str | None, reason: str) -> None:
        """A message was returned; its confirm follows."""
        for ticket in (ticket for ticket, each in self._open.items() if each == message_id):
            self._failed[ticket] = Unroutable(f"the message came back: {reason}", hint="nobody subscribes to it")

    # The driver's part

    def now(self) -> float:
        return time.monotonic()

    def arm(self, deadline: float) -> None:
        """Nothing: who waits looks at the machine's deadline."""

    def open(self, effect: Connect) -> Link:
        self._link = Link(effect, self, self.machine.config.connect_timeout, self._ssl)
        self._link.open()
        return self._link

    def dispatch(self, delivery: DeliveryId, message: AnyMessage) -> None:
        raise NotImplementedError("an endpoint subscribes to nothing")

    def call(self, effect: Effect | None, function: Callable[..., Any], *arguments: Any) -> None:
        if isinstance(effect, Ready):
            self._failed_links = 0

    def settled(self, ticket: int, error: str | None) -> None:
        message_id = self._open.pop(ticket, None)
        self._progress = self.now()
        if error is not None:
            self._failed[ticket] = NotConfirmed(self._trouble or error, may_arrive=message_id is not None)

    def room(self) -> None:
        """Nothing: the window is smaller than the buffer."""

    def report(self, level: int, text: str) -> None:
        LOGGER.log(criticality.LOGGING_LEVELS[level], "%s", text)

    def stopped(self, error: str | None) -> None:
        self._over = True
