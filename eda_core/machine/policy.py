"""The policies, as values with pure functions: what to do with a failed message, and with a lost link."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from eda_core.checks import is_number
from eda_core.errors import LocalError
from eda_core.text import shortened

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


@dataclass(frozen=True, slots=True)
class ReconnectPolicy:
    """When to try again after a link could not be opened or was lost.

    All URLs are tried in turn, one after the other at once; then comes a delay drawn evenly between nothing and a
    ceiling that doubles with each round ("full jitter": after a broker's restart its clients must not come back all
    together).

    Attributes:
        base: ceiling of the first delay, seconds.
        cap: ceiling of any delay, seconds.
        stable_after: a link that has lasted this long clears the count of failures, seconds. So does one on which a
            delivery was settled or a publish confirmed.
        initial_attempts: so many attempts to open the first link may fail before the service ends with an error.
            ``None`` for any number.
    """

    base: float = 1.0
    cap: float = 10.0
    stable_after: float = 10.0
    initial_attempts: int | None = None

    def __post_init__(self) -> None:
        numbers = all(map(is_number, (self.base, self.cap, self.stable_after)))
        if not numbers or not 0 < self.base <= self.cap < float("inf") or not self.stable_after >= 0:
            raise LocalError(f"{self}", hint="stable_after is not negative, base is more than 0 and at most cap")
        attempts = self.initial_attempts
        if attempts is not None and (type(attempts) is not int or attempts < 1):
            raise LocalError(f"{self}", hint="initial_attempts is a whole number, at least 1, or None")

    def delay(self, failures: int, urls: int, random: Callable[[], float]) -> float:
        """Seconds to wait after this many failures in a row (from 1), with this many URLs."""
        if failures % urls:
            return 0.0
        doublings = min(failures // urls - 1, 32)
        return random() * min(self.cap, self.base * 2.0**doublings)
