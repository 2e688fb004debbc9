"""Commands whose results a caller waits for (Enterprise Integration Patterns: Request-Reply, Correlation Identifier).

The results come to a queue of this worker, with a routing key of its own. (All workers share the queue of the service,
so another worker could get them there.) The queue is deleted with the link. A result that comes without a link is lost,
and its call times out (docs/architecture.rst, "Calls").

This module decides which calls have ended. It knows nothing of queues and links.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from eda_core.checks import check_seconds
from eda_core.errors import BufferFull, CommandError, CommandTimeout, PublishError
from eda_core.machine.effects import Publish, Replied
from eda_core.messages.routing import TopicPattern
from eda_core.messages.values import ERROR, Result

#: How many calls that have ended may be in the heap of deadlines before it is rebuilt.
_MOST_OVER: Final = 100


def reply_key(service: str, token: str, commands: Iterable[str]) -> str:
    """Return the routing key for the results of a worker's calls.

    None of the service's binding keys for commands matches it, so that the results do not come to the queue that all
    workers share as well. (The key ``#`` matches everything.)
    """
    key = f"{service}.{token}"
    return f"replies.{key}" if any(TopicPattern(pattern).matches(key) for pattern in commands) else key


@dataclass(slots=True, eq=False, repr=False)
class Call:
    """A command whose result a caller waits for.

    Attributes:
        due: when the wait ends, monotonic seconds.
        publish: the publish of the command.
    """

    ticket: int
    command: str
    due: float
    publish: Publish


class Calls:
    """The calls of one worker that have not ended.

    Attributes:
        key: the routing key of their results.
        subscribed: whether the queue for the results is wanted, because there was a call.
        late: how many results came for which nobody waited any more.
    """

    __slots__ = ("_by_correlation", "_due", "_held", "_limit", "key", "late", "subscribed")

    def __init__(self, key: str, limit: int) -> None:
        self.key: str = key
        self.subscribed: bool = False
        self.late: int = 0
        self._limit = limit
        #: Commands that wait until the queue for the results is bound.
        self._held: list[Publish] = []
        self._by_correlation: dict[str, Call] = {}
        self._due: list[tuple[float, str]] = []

    def __len__(self) -> int:
        return len(self._by_correlation)

    def check(self, timeout: float) -> None:
        """Raise ``LocalError`` if the timeout is wrong, or ``BufferFull`` if there are too many calls for one more."""
        check_seconds("timeout", timeout)
        if self.full():
            raise BufferFull(f"{len(self)} calls wait for results, which is the limit", hint="wait until some end")

    def full(self) -> bool:
        """Return whether there are as many calls as are allowed."""
        return len(self._by_correlation) >= self._limit

    def add(self, correlation_id: str, call: Call) -> None:
        """Wait for the result of a call."""
        self._by_correlation[correlation_id] = call
        heapq.heappush(self._due, (call.due, correlation_id))
        if len(self._due) > 2 * len(self._by_correlation) + _MOST_OVER:  # entries of ended calls remain in it
            self._due = [entry for entry in self._due if entry[1] in self._by_correlation]
            heapq.heapify(self._due)

    def hold(self, publish: Publish) -> None:
        """Keep a command until the queue for the results is bound."""
        self._held.append(publish)

    def release(self) -> list[Publish]:
        """Remove and return the commands that were kept: the queue for the results is bound now."""
        held, self._held = self._held, []
        return held

    def drop(self, publishes: Iterable[Publish]) -> list[Publish]:
        """Drop those of these commands that are kept. Their calls have ended. Returns the dropped ones."""
        unwanted = {publish.pid for publish in publishes}
        dropped = [publish for publish in self._held if publish.pid in unwanted]
        if dropped:
            self._held = [publish for publish in self._held if publish.pid not in unwanted]
        return dropped

    def take(self, correlation_id: str | None) -> Call | None:
        """Remove and return the call with this correlation id, which ends now; ``None`` if there is none."""
        return self._by_correlation.pop(correlation_id or "", None)

    def deadline(self) -> float | None:
        """Return when the next call is overdue, in monotonic seconds; ``None`` if there is no call."""
        while self._due and self._due[0][1] not in self._by_correlation:
            heapq.heappop(self._due)
        return self._due[0][0] if self._due else None

    def overdue(self, now: float) -> list[Call]:
        """Remove and return the calls whose time has passed."""
        found: list[Call] = []
        while (due := self.deadline()) is not None and due <= now:
            found.append(self._by_correlation.pop(self._due[0][1]))
        return found

    def held(self) -> list[Publish]:
        """Return the commands that are kept."""
        return self._held

    def abandon(self) -> list[Call]:
        """Remove and return all calls: the service has stopped."""
        calls = list(self._by_correlation.values())
        self._by_correlation.clear()
        self._held.clear()
        return calls


def answer(replied: Replied) -> Any:
    """Return the payload of the result with which a call has ended.

    Raises:
        CommandError: the result has the status ``error``.
        CommandTimeout: no result came in time.
        PublishError: no service receives the command, or this service has stopped.
    """
    result = replied.result
    if isinstance(result, Result):
        if result.status == ERROR:
            raise CommandError(replied.command, result.payload)
        return result.payload
    if replied.timed_out:
        raise CommandTimeout(f"{replied.command}: {replied.error}", hint="a result that comes later is dropped")
    raise PublishError(f"{replied.command}: {replied.error}")
