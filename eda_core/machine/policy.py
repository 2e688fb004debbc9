"""Policies as values: how often a failed message is tried again, and how long to wait after a lost link.

They answer questions. They do not know of any message or link.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from eda_core.checks import is_number
from eda_core.errors import LocalError
from eda_core.text import shortened

#: The longest delay, seconds. It becomes the TTL of a queue: milliseconds, which RabbitMQ stores in 32 bits.
_LONGEST_DELAY: Final = 4_000_000


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often a message is tried before it is dead-lettered, and how long it waits between two attempts.

    Attributes:
        attempts: the number of attempts in all, at least 1. By default there is one retry, at once.
        delays: the times before the second attempt, the third and so on, seconds. The last one is used for all further
            attempts, too. Without delays a failed message goes back to its queue at once.
        counted: whether a failed message is published again at the end of its queue, with a header that counts its
            failures, and not given back. So the count is right whichever worker fails, on a queue of any kind. The
            price is the place of the message in its queue, and permission to publish to the default exchange.
        max_losses: how often a message may come back without a failure, because its link or its worker was lost. A
            message that was lost more often is dead-lettered without an attempt, because it may be the cause. Only a
            quorum queue counts this for all workers (docs/architecture.rst, "Counting attempts"). The default is less
            than the delivery limit of RabbitMQ 4, which is 20, so that the service logs the reason.

    Raises:
        LocalError: ``attempts`` is not a whole number of at least 1, ``max_losses`` not one of at least 0, ``counted``
            neither true nor false, or a delay not a number of seconds from 0.001 to 4,000,000.
    """

    attempts: int = 2
    delays: tuple[float, ...] = ()
    max_losses: int = 10
    counted: bool = False

    def __post_init__(self) -> None:
        for name, lowest in (("attempts", 1), ("max_losses", 0)):
            value = getattr(self, name)
            if type(value) is not int or value < lowest:
                raise LocalError(f"RetryPolicy({name}={value!r})", hint=f"give a whole number of at least {lowest}")
        if type(self.delays) is not tuple or not all(
            is_number(delay) and 0.001 <= delay <= _LONGEST_DELAY for delay in self.delays
        ):
            raise LocalError(f"{self!r}", hint=f"give delays as a tuple of seconds from 0.001 to {_LONGEST_DELAY}")
        if type(self.counted) is not bool:
            raise LocalError(f"RetryPolicy(counted={self.counted!r})", hint="give True or False")

    def __repr__(self) -> str:
        counted = ", counted=True" if self.counted else ""
        return f"RetryPolicy(attempts={self.attempts}, delays={shortened(repr(self.delays), 60)}{counted})"

    @classmethod
    def backoff(cls, attempts: int = 6, *, base: float = 1.0, factor: float = 4.0, cap: float = 3600.0) -> RetryPolicy:
        """Make a policy whose delays grow: ``base``, ``base * factor``, ``base * factor ** 2`` and so on.

        A failed message is published again, to a retry queue of the service, from which it returns after the delay
        (docs/architecture.rst, "Delayed retries"). A header counts its attempts, so the count is right whichever worker
        fails. The order of messages changes.

        Args:
            cap: the longest delay, seconds.

        Raises:
            LocalError: as for :class:`RetryPolicy`.
        """
        cls(attempts)
        if not all(map(is_number, (base, factor, cap))):
            raise LocalError(f"RetryPolicy.backoff({base=}, {factor=}, {cap=})", hint="give numbers")
        delays, delay = [], min(base, cap)
        for _ in range(attempts - 1):
            delays.append(delay)
            delay = min(cap, delay * factor)
        return cls(attempts, tuple(delays))

    @property
    def republishes(self) -> bool:
        """Whether a failed message is published again, with a header that counts its failures."""
        return self.counted or bool(self.delays)

    def gives_up(self, attempt: int) -> bool:
        """Return whether a message is dead-lettered after its attempt number ``attempt``, from 1, has failed."""
        return attempt >= self.attempts

    def delay(self, attempt: int) -> float:
        """Return the seconds until the next attempt after attempt number ``attempt``, from 1; 0 means at once."""
        return self.delays[min(attempt, len(self.delays)) - 1] if self.delays else 0.0


@dataclass(frozen=True, slots=True)
class ReconnectPolicy:
    """When to connect again after a link could not be opened or was lost.

    In each round all URLs are tried, one directly after the other. Between two rounds there is a delay. It is drawn at
    random between 0 and a ceiling that doubles with each round ("full jitter"), so that the clients of a broker that
    has restarted do not all return at the same time.

    Attributes:
        base: the ceiling of the first delay, seconds.
        cap: the highest ceiling, seconds.
        stable_after: the count of failures begins anew after a link that lasted this long, seconds. So it does after a
            link on which a delivery was settled or a publish confirmed.
        initial_attempts: how many attempts to open the first link may fail before the service ends with an error;
            ``None`` for any number.

    Raises:
        LocalError: a value is not allowed. The text says which are.
    """

    base: float = 1.0
    cap: float = 10.0
    stable_after: float = 10.0
    initial_attempts: int | None = None

    def __post_init__(self) -> None:
        numbers = all(map(is_number, (self.base, self.cap, self.stable_after)))
        if not numbers or not 0 < self.base <= self.cap < float("inf") or not self.stable_after >= 0:
            raise LocalError(f"{self}", hint="give base > 0, base <= cap and stable_after >= 0, in seconds")
        attempts = self.initial_attempts
        if attempts is not None and (type(attempts) is not int or attempts < 1):
            raise LocalError(f"{self}", hint="give initial_attempts as a whole number from 1, or None")

    def delay(self, failures: int, urls: int, random: Callable[[], float]) -> float:
        """Return the seconds to wait after this many failures in a row, from 1, with this many URLs."""
        if failures % urls:
            return 0.0
        doublings = min(failures // urls - 1, 32)
        return random() * min(self.cap, self.base * 2.0**doublings)
