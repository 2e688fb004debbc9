"""Commands whose results a caller waits for (Enterprise Integration Patterns: Request-Reply, Correlation Identifier).

The results come to a queue of this worker alone, bound to the commands exchange under a routing key of its own: all
workers share the service's queue, and another one would get them. The queue lives as long as the link. A result that
comes while there is none is lost, and its call times out: what must survive that is sent with ``send_command`` instead.

This module knows which calls wait and until when; it knows nothing of queues and links.
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

#: So many calls that are over may wait to be forgotten.
_MOST_OVER: Final = 100


def reply_key(service: str, token: str, commands: Iterable[str]) -> str:
    """The routing key of the results of a worker's calls, which its service's binding keys ``commands`` do not match.

    Else they would come to the queue that all workers share as well. (Nothing helps against ``#``.)
    """
    key = f"{service}.{token}"
    return f"replies.{key}" if any(TopicPattern(pattern).matches(key) for pattern in commands) else key


@dataclass(slots=True, eq=False, repr=False)
class Call:
    """A command whose result somebody waits for.

    Attributes:
        due: when to give up, monotonic seconds.
        publish: the command.
    """

    ticket: int
    command: str
    due: float
    publish: Publish


class Calls:
    """The calls of one worker that are not over.

    Attributes:
        key: the routing key of their results.
        subscribed: the queue of the results is wanted, since there was a call.
        late: how many results came that nobody waited for any more.
    """

    __slots__ = ("_by_correlation", "_due", "_held", "_limit", "key", "late", "subscribed")

    def __init__(self, key: str, limit: int) -> None:
        self.key: str = key
        self.subscribed: bool = False
        self.late: int = 0
        self._limit = limit
        #: Commands, until the queue of the results is bound.
        self._held: list[Publish] = []
        self._by_correlation: dict[str, Call] = {}
        self._due: list[tuple[float, str]] = []

    def __len__(self) -> int:
        return len(self._by_correlation)

    def check(self, timeout: float) -> None:
        """See that there may be one more call.

        Raises:
            LocalError: the time is not one.
            BufferFull: too many calls wait.
        """
        check_seconds("timeout", timeout)
        if self.full():
            raise BufferFull(f"{len(self)} calls wait for results", hint="wait for some of them")

    def full(self) -> bool:
        """Whether there may be no more calls."""
        return len(self._by_correlation) >= self._limit

    def add(self, correlation_id: str, call: Call) -> None:
        """Wait for the result of a call."""
        self._by_correlation[correlation_id] = call
        heapq.heappush(self._due, (call.due, correlation_id))
        if len(self._due) > 2 * len(self._by_correlation) + _MOST_OVER:  # behind one that takes its time
            self._due = [entry for entry in self._due if entry[1] in self._by_correlation]
            heapq.heapify(self._due)

    def hold(self, publish: Publish) -> None:
        """Keep a command until the queue of the results is bound."""
        self._held.append(publish)

    def release(self) -> list[Publish]:
        """The commands to send now that the queue of the results is bound."""
        held, self._held = self._held, []
        return held

    def drop(self, publishes: Iterable[Publish]) -> list[Publish]:
        """Drop those commands that are held, whose calls are over. Returns those."""
        unwanted = {publish.pid for publish in publishes}
        dropped = [publish for publish in self._held if publish.pid in unwanted]
        if dropped:
            self._held = [publish for publish in self._held if publish.pid not in unwanted]
        return dropped

    def take(self, correlation_id: str | None) -> Call | None:
        """The call with this correlation id, which is over now."""
        return self._by_correlation.pop(correlation_id or "", None)

    def deadline(self) -> float | None:
        """When the next one is overdue, monotonic seconds."""
        while self._due and self._due[0][1] not in self._by_correlation:
            heapq.heappop(self._due)
        return self._due[0][0] if self._due else None

    def overdue(self, now: float) -> list[Call]:
        """Those whose time is over."""
        found: list[Call] = []
        while (due := self.deadline()) is not None and due <= now:
            found.append(self._by_correlation.pop(self._due[0][1]))
        return found

    def lose_link(self) -> None:
        """The deliveries whose handlers called are gone: no acknowledgement waits for their commands any more."""
        for publish in self._held:
            publish.delivery = None

    def abandon(self) -> list[Call]:
        """Remove and return all calls: the service is over."""
        calls = list(self._by_correlation.values())
        self._by_correlation.clear()
        self._held.clear()
        return calls


def answer(replied: Replied) -> Any:
    """What a call has come to: the payload of its result.

    Raises:
        CommandError: the result is an error.
        CommandTimeout: none came in time.
        PublishError: no service is bound to the command, or this one stopped.
    """
    result = replied.result
    if isinstance(result, Result):
        if result.status == ERROR:
            raise CommandError(replied.command, result.payload)
        return result.payload
    if replied.timed_out:
        raise CommandTimeout(f"{replied.command}: {replied.error}", hint="a late result will be dropped")
    raise PublishError(f"{replied.command}: {replied.error}")
