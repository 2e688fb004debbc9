"""The policies, as values with pure functions: what to do with a failed message, and with a lost link."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from pamqp.commands import Basic

from eda_core.errors import LocalError
from eda_core.values import is_number, shortened

#: RabbitMQ's count on quorum queues: 0 or absent on the first delivery (``FACTS.md``, "RabbitMQ").
DELIVERY_COUNT_HEADER: Final = "x-delivery-count"

#: A delay is a TTL of whole milliseconds, which RabbitMQ keeps in 32 bits.
_LONGEST_DELAY: Final = 4_000_000


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often a message is tried before it is dead-lettered, and how long it waits in between.

    Attributes:
        attempts: tries in all, at least 1. The default is the architecture's: one retry, at once.
        delays: seconds before the second, third … try; the last one also before any further. Without delays a failed
            message goes straight back to its queue.
    """

    attempts: int = 2
    delays: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if type(self.attempts) is not int or self.attempts < 1:
            raise LocalError(f"RetryPolicy(attempts={self.attempts!r})", hint="a message is tried at least once")
        if type(self.delays) is not tuple or not all(
            is_number(delay) and 0.001 <= delay <= _LONGEST_DELAY for delay in self.delays
        ):
            raise LocalError(f"{self!r}", hint=f"give seconds, up to {_LONGEST_DELAY}")

    def __repr__(self) -> str:
        return f"RetryPolicy(attempts={self.attempts}, delays={shortened(repr(self.delays), 60)})"

    @classmethod
    def backoff(cls, attempts: int = 6, *, base: float = 1.0, factor: float = 4.0, cap: float = 3600.0) -> RetryPolicy:
        """Delays that grow: ``base``, ``base * factor`` … up to ``cap``, seconds.

        A failed message is published again, by way of a queue of the service's own from which it returns when the delay
        is over. It counts its attempts in a header, so they are exact whoever fails, and the order of messages changes.

        Raises:
            LocalError: ``attempts`` is less than 1, or the delays are none that a queue can have.
        """
        cls(attempts)
        if not all(map(is_number, (base, factor, cap))):
            raise LocalError(f"RetryPolicy.backoff({base=}, {factor=}, {cap=})", hint="give numbers")
        delays, delay = [], min(base, cap)
        for _ in range(attempts - 1):
            delays.append(delay)
            delay = min(cap, delay * factor)
        return cls(attempts, tuple(delays))

    def gives_up(self, attempt: int) -> bool:
        """Whether a message whose ``attempt`` (from 1) failed goes to the dead letters."""
        return attempt >= self.attempts

    def delay(self, attempt: int) -> float:
        """Seconds until the next try of a message whose ``attempt`` (from 1) failed; 0 for at once."""
        return self.delays[min(attempt, len(self.delays)) - 1] if self.delays else 0.0


class AttemptMemory:
    """What this worker knows of the attempts at messages that will come back to it.

    ``redelivered`` says only that a message was handed out before: it may have failed, or its worker's connection may
    have been cut. Counting every redelivery as a failure makes the first error after a lost connection a dead letter,
    so a worker remembers what it gave back and what it lost. A redelivered message it knows nothing of is taken to have
    failed once, elsewhere. Bounded: the oldest entry goes first.

    Args:
        limit: entries to keep; at least as many as deliveries may be in flight.
    """

    __slots__ = ("_known", "_limit")

    def __init__(self, limit: int = 4096) -> None:
        self._limit = limit
        #: For each message, how often it has failed and how often its link was lost.
        self._known: dict[Hashable, tuple[int, int]] = {}

    def remember(self, key: Hashable, failures: int, *, lost: bool = False) -> None:
        """The message will be redelivered, having failed so often; because its link is ``lost``, or it failed."""
        losses = self._known.pop(key, (0, 0))[1]
        self._known[key] = (failures, losses + lost)
        if len(self._known) > self._limit:
            del self._known[next(iter(self._known))]

    def forget(self, key: Hashable) -> None:
        """The message is settled for good."""
        self._known.pop(key, None)

    def failures(self, key: Hashable) -> int:
        """How often the message is known to have failed."""
        return self._known.get(key, (0, 0))[0]

    def attempt(self, key: Hashable, headers: Mapping[str, Any]) -> int:
        """Which attempt this redelivery is, from 1. A quorum queue's count is the surest, lost links taken off.

        It counts redeliveries: on a first one, or standing still, it is a header that the message brought along from
        another queue (when it was moved by a shovel, say), and going by that a poison message would be tried for ever.
        """
        known = self._known.get(key)
        count = headers.get(DELIVERY_COUNT_HEADER)
        if type(count) is int and count > 0:
            failures, losses = known or (0, 0)
            return max(failures + 1, count + 1 - losses)
        return known[0] + 1 if known else 2


def message_key(routing_key: str, properties: Basic.Properties, body: bytes) -> Hashable:
    """What recognizes a message when it is redelivered: its id, or failing that all there is."""
    if properties.message_id:
        return properties.message_id
    headers = properties.headers
    conversation = headers.get("conversation_id") if type(headers) is dict else None
    if type(conversation) is not str:  # none, or of a type of its own, which may have no hash
        conversation = None
    return (routing_key, properties.correlation_id, conversation, hash(body))


@dataclass(frozen=True, slots=True)
class ReconnectPolicy:
    """When to try again after a link could not be opened or was lost.

    All URLs are tried in turn, one after the other at once; then comes a delay drawn evenly between nothing and a
    ceiling that doubles with each round ("full jitter": after a broker's restart its clients must not come back all
    together).

    Attributes:
        base: ceiling of the first delay, seconds.
        cap: ceiling of any delay, seconds.
        stable_after: a link that has lasted this long clears the count of failures, seconds.
    """

    base: float = 1.0
    cap: float = 30.0
    stable_after: float = 10.0

    def __post_init__(self) -> None:
        numbers = all(map(is_number, (self.base, self.cap, self.stable_after)))
        if not numbers or not 0 < self.base <= self.cap < float("inf") or not self.stable_after >= 0:
            raise LocalError(f"{self}", hint="stable_after is not negative, base is more than 0 and at most cap")

    def delay(self, failures: int, urls: int, random: Callable[[], float]) -> float:
        """Seconds to wait after this many failures in a row (from 1), with this many URLs."""
        if failures % urls:
            return 0.0
        doublings = min(failures // urls - 1, 32)
        return random() * min(self.cap, self.base * 2.0**doublings)
