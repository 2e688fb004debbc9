"""What the example services have in common and is not about services: the broker's address, output, arithmetic."""

from __future__ import annotations

import os
from math import isqrt


def broker_url() -> str:
    """``EDA_AMQP_URL``, or a broker on this machine as RabbitMQ and ``python -m eda_tools.broker`` set it up."""
    return os.environ.get("EDA_AMQP_URL", "amqp://guest:guest@127.0.0.1:5672/")


def say(text: str) -> None:
    """Print a line at once, also into a pipe."""
    print(text, flush=True)


def primes_between(low: int, high: int) -> list[int]:
    """The primes from ``low`` to ``high``, both included.

    Raises:
        ValueError: there is no such range, or it has more than a million numbers.
    """
    if type(low) is not int or type(high) is not int or not 0 <= low <= high < low + 1_000_000:
        raise ValueError(f"no range of at most a million numbers: {low!r} to {high!r}")
    return [number for number in range(max(low, 2), high + 1) if _is_prime(number)]


def _is_prime(number: int) -> bool:
    return all(number % divisor for divisor in range(2, isqrt(number) + 1))
