"""A driver for programs without an event loop, which only publish: everything happens while a caller waits.

It knows no socket and no clock: an adapter fills in how to open a link and how to sleep, and brings the link.
"""

from __future__ import annotations

from abc import abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol

from eda_core.drivers.base import Driver, LinkLike
from eda_core.drivers.publish_call import PublishCall, PublishLimits
from eda_core.machine.effects import Effect, Publish, PublishDone, Ready
from eda_core.machine.identifiers import DeliveryId
from eda_core.machine.link import IDLE, OPEN
from eda_core.machine.machine import Machine
from eda_core.messages.values import AnyMessage

#: Seconds after which a wait is interrupted, for heartbeats and to see whether the call is to end.
LONGEST_WAIT = 0.5
#: Seconds that an attempt to connect has at least. 0 would mean no limit to many libraries.
SHORTEST_CONNECT = 0.01
#: How many log records are kept while a publish goes on.
KEPT_RECORDS = 1000

#: Arguments of the machine's ``log``.
Record = tuple[tuple[int, str, float], dict[str, Any]]


class _NoHandlers:
    """Takes the place of the user code: a program that only publishes has none."""

    def handle(self, message: AnyMessage, /) -> None:
        """Never called: nothing is subscribed to."""

    def handle_returned_message(self, key: str, payload: Any, envelope: dict[str, Any], /) -> None:
        """Never called: see :meth:`BlockingDriver.call`."""

    def on_ready(self) -> None:
        """Never called: see :meth:`BlockingDriver.call`."""

    def on_unconfigured(self) -> None:
        """Never called: no configuration is subscribed to."""


class BlockingLink(LinkLike, Protocol):
    """A link that works only while one of its methods runs. Failures of the network make none of them raise.

    Attributes:
        up: whether the link is open and can be read from.
    """

    up: bool

    def read(self, timeout: float) -> None:
        """Send what was held back; wait for something from the broker, for ``timeout`` seconds, and pass it in."""

    def look(self) -> None:
        """Send what was held back. If the last time is long ago, read what the broker has sent."""

    def abort(self) -> None:
        """Drop the connection without telling the machine."""


class BlockingDriver(Driver):
    """Runs from the first publish until it is closed or until a publish fails. One call at a time.

    Args:
        records: log records of callers that do not wait for the running call.

    Attributes:
        link: the last link, open or not; a link of the adapter sets it when it is made.
        publish_call: the running call, or the last one. The transport tells it what happens to messages and links.
        graceful: whether links are closed in good order, not by force.
        aborted: set it from another thread, or in a handler of signals, to end the running call.
    """

    def __init__(self, machine: Machine, records: deque[Record]) -> None:
        super().__init__(_NoHandlers(), machine)
        self._records = records
        self.link: BlockingLink | None = None
        self.publish_call: PublishCall = PublishCall(PublishLimits(), self.now())
        self.graceful: bool = False
        self.aborted: bool = False
        self._used_at = self._next_look = self.now()

    # An adapter also defines this

    @abstractmethod
    def sleep(self, seconds: float) -> None:
        """Wait for so many seconds. It must not raise."""

    # What a caller does

    def begin(self) -> None:
        """Start the machine, unless it is started already."""
        if self.machine.state is IDLE:
            self.tell(self.machine.start)

    def publish(self, messages: Iterable[AnyMessage], mandatory: bool, limits: PublishLimits) -> PublishCall:
        """Publish, with at most the configured ``window`` in flight, and wait for the confirms.

        After the first message that fails it takes no more from the iterable. The time that the iterable itself takes
        does not count.

        Returns:
            The call. Every message that it has taken is confirmed or failed.
        """
        self._look()  # the link may have been lost since the last call, which is no failure of this one
        call, before = PublishCall(limits, self.now()), self.machine.published
        self.publish_call = call
        window, source, more = self.machine.config.window, iter(messages), True
        while more:
            more = self._take(call, source, mandatory)
            if len(call.unconfirmed) >= window:
                self._wait(window // 2)
            if call.failed or not more:
                self._wait(0)
                more = False
        if self.tracing is not None and self.machine.published > before:
            call.message_id = self.machine.last_message_id
        self._used_at = self.now()
        return call

    def log(self) -> None:
        """Send the log records that wait. Without a link, try once to get one, unless the last attempt was just now."""
        self.take_records()
        self.begin()
        self.tick_if_due()
        self.look()
        self._used_at = self.now()

    def is_fit(self) -> bool:
        """Return whether it can be used again: not after a pause as long as the heartbeat, which ends the link."""
        is_open = self.machine.state is OPEN
        return not self.over and not (is_open and 0 < self.machine.config.heartbeat <= self.now() - self._used_at)

    def close(self, timeout: float) -> None:
        """Close in good order, within ``timeout`` seconds and the time that the link takes to close."""
        self.graceful = True
        self.take_records()
        self.tell(self.machine.stop, timeout=timeout)
        while not self.over:
            self._step(self.now() + LONGEST_WAIT)

    def drop(self) -> None:
        """End at once. Unconfirmed messages fail."""
        self._todo.clear()  # the effects of a call that was interrupted
        self.tell(self.machine.stop, timeout=0.0)
        self.tell(self.machine.tick)
        self.abort()

    def connect_timeout(self) -> float:
        """Seconds for an attempt to connect: those of the configuration, or what is left to the running call."""
        most, deadline = self.machine.config.connect_timeout, self.publish_call.deadline()
        if not self.publish_call.unconfirmed or deadline is None:
            return most
        return max(SHORTEST_CONNECT, min(most, deadline - self.now()))

    def pause(self, seconds: float) -> None:
        """Wait for something from the broker and pass it in. Return after ``seconds``; at once if they are negative."""
        if self.link is not None and self.link.up:
            self.link.read(seconds)
        elif seconds > 0:
            self.sleep(seconds)

    def look(self) -> None:
        """Send what was held back to be sent with more. If the last time is long ago, read what the broker has sent."""
        if self.link is not None and self.link.up:
            self.link.look()

    def abort(self) -> None:
        """Drop the link, if there is one, without telling the machine."""
        if self.link is not None:
            self.link.abort()

    def take_records(self) -> None:
        """Log the records that wait now, not those that come meanwhile: others may log faster than we can send."""
        for _ in range(len(self._records)):
            arguments, named = self._records.popleft()
            self.feed(self.machine.log(*arguments, **named))

    def tick_if_due(self) -> None:
        """Do what is due, without waiting.

        If something else becomes due by that, the next call does it: the caller checks its limits before.
        """
        due = self.machine.deadline()
        if not self.over and due is not None and due <= self.now():
            self.tick()

    def _take(self, call: PublishCall, source: Iterator[AnyMessage], mandatory: bool) -> bool:
        """Publish the next message. Returns false if there is none."""
        try:
            message = next(source)
            looked = self._look()  # before there is more to send: the iterable may have taken long
            effects = self.machine.publish(
                message, self.now(), mandatory=mandatory, asks_return=True, ticket=call.taken
            )
        except StopIteration:
            call.restart_timeout(self.now())
            return False
        except Exception as error:  # the iterable raised it, or the message cannot be sent
            call.restart_timeout(self.now())
            call.not_accepted(error)
            return True
        call.accepted(self.now())
        self.feed(effects)
        self.begin()
        if looked:
            self._attend(0.0)
        return True

    def _look(self) -> bool:
        """Read what the broker has sent, if the last time is long ago. Returns whether it was."""
        if self.now() < self._next_look:
            return False
        before = -1
        self.take_records()
        while before != len(self.publish_call.unconfirmed):
            before = len(self.publish_call.unconfirmed)
            self.pause(-1.0)
        self._next_look = self.now() + LONGEST_WAIT
        return True

    def _wait(self, most: int) -> None:
        """Wait until at most ``most`` messages are unconfirmed, or the call has given up."""
        while len(self.publish_call.unconfirmed) > most and self._attend(LONGEST_WAIT):
            pass

    def _attend(self, seconds: float) -> bool:
        """Wait for something to happen, for at most so many seconds. Returns false if the call has given up."""
        call = self.publish_call
        reason = "the endpoint was closed" if self.aborted else call.exceeded_limit(self.now())
        if reason:
            call.give_up(reason)
            self.drop()
            return False
        limit, deadline = self.now() + seconds, call.deadline()
        self._step(limit if deadline is None else min(limit, deadline))
        return True

    def _step(self, until: float) -> None:
        self.take_records()
        due = self.machine.deadline()
        self.pause((until if due is None else min(until, due)) - self.now())
        self._next_look = self.now() + LONGEST_WAIT
        self.tick_if_due()

    # The driver's part

    def look_at_deadline(self) -> None:
        """Set no timer: a caller that waits looks at the machine's deadline."""

    def arm(self, deadline: float) -> Callable[[], object]:
        """Never called: there is no timer."""
        raise NotImplementedError("a blocking driver has no timer")

    def dispatch(self, delivery: DeliveryId, message: AnyMessage) -> None:
        """Never called: nothing is subscribed to."""
        raise NotImplementedError("a blocking driver only publishes")

    def call(self, effect: Effect | None, function: Callable[..., Any], *arguments: Any) -> None:
        """Call nothing: there are no hooks. ``Ready`` means that there is a link."""
        if isinstance(effect, Ready):
            self.publish_call.link_open()

    def _perform(self, effect: Effect) -> None:
        if isinstance(effect, Publish) and effect.ticket is not None:
            self.publish_call.sent(effect.ticket)
        super()._perform(effect)

    def publish_done(self, effect: PublishDone) -> None:
        self.publish_call.done(effect, self.now())
