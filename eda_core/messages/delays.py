"""Delayed messages: the exchanges and queues of the broker in which a message waits before it is published.

There is one queue for each power of two: ``delay.0`` keeps a message for 1 s, ``delay.1`` for 2 s, ``delay.2`` for 4 s.
A message goes through those whose sum is its delay, the longest first. Nobody consumes them. Each has an exchange of
the same name, which puts a message into the queue or passes it to the next exchange; a header of the message says
which. A queue dead-letters its messages, when their time is over, to the next exchange. The last exchange is
``delay.end``. It puts them for 1 s more into a queue that dead-letters them to the exchange for which they are meant,
such as ``delay.to-events``. So they arrive there as if they were published only now: with their own routing key, which
no step changes, and from that exchange, by whose name consumers know what they get.

This module decides the names, the way of a message, and what is declared. It does not know when.
"""

from __future__ import annotations

import math
from typing import Any, Final

from pamqp import base
from pamqp.commands import Exchange, Queue

from eda_core.checks import is_number
from eda_core.errors import LocalError
from eda_core.messages.headers import ORIGIN_EXCHANGE, ORIGIN_ROUTING_KEY
from eda_core.messages.routing import COMMANDS, EVENTS

#: The key of ``meta`` for how long a message is to wait before it is published, whole seconds. It is no header.
DELAY: Final = "publish_delay"
#: The beginning of the names of headers that say in which queues it waits: ``delay_step_3`` whether in ``delay.3``.
DELAY_STEP: Final = "delay_step_"
#: How many queues there are.
STEPS: Final = 24
#: The longest delay, seconds: 194 days.
LONGEST_DELAY: Final = 2**STEPS
_STEPS: Final = tuple(f"delay.{step}" for step in range(STEPS))
_END: Final = "delay.end"
#: The last queues, by the exchange to which they dead-letter. The usual policy for dead letters must not match their
#: names, which would end with ".events".
_LAST: Final = {EVENTS: "delay.to-events", COMMANDS: "delay.to-commands"}
#: The names of the exchanges.
DELAY_EXCHANGES: Final = (*_STEPS, _END)
#: The names of the queues.
DELAY_QUEUES: Final = (*_STEPS, *_LAST.values())


def check_delay(delay: object) -> int:
    """Return the whole number of seconds for which a message waits: those of ``delay``, rounded up.

    Raises:
        LocalError: it is no number of seconds from 0 to :data:`LONGEST_DELAY`.
    """
    if not isinstance(delay, (int, float)) or not is_number(delay) or not 0 <= delay <= LONGEST_DELAY:
        hint = f"give seconds, from 0 to {LONGEST_DELAY}; keep what is due later in a database"
        raise LocalError(f"delay is {delay!r}", hint=hint)
    return math.ceil(delay)


def delayed(exchange: str, routing_key: str, seconds: int) -> tuple[str, dict[str, Any]]:
    """Return the exchange to which a message is published that is to wait, and the headers that it needs for its way.

    Args:
        exchange, routing_key: where it is to be published when its time is over.
        seconds: for how long it waits, 1 or more.
    """
    before = seconds - 1  # it waits for one second in the last queue
    headers: dict[str, Any] = {f"{DELAY_STEP}{step}": bool(before >> step & 1) for step in range(before.bit_length())}
    # These are also how tools know where a message was published, in spite of its deaths in the queues.
    headers[ORIGIN_EXCHANGE], headers[ORIGIN_ROUTING_KEY] = exchange, routing_key
    return _next(before.bit_length()), headers


def declarations() -> tuple[base.Frame, ...]:
    """Return the commands that declare the exchanges and the queues."""
    exchanges = (Exchange.Declare(exchange=name, exchange_type="headers", durable=True) for name in DELAY_EXCHANGES)
    ways = [*((name, 2**step, _next(step)) for step, name in enumerate(_STEPS))]
    ways += [(name, 1, goal) for goal, name in _LAST.items()]
    queues = (
        Queue.Declare(
            queue=name, durable=True, arguments={"x-message-ttl": 1000 * seconds, "x-dead-letter-exchange": following}
        )
        for name, seconds, following in ways
    )
    return (*exchanges, *queues)


def bindings() -> tuple[base.Frame, ...]:
    """Return the commands that bind the queues and the exchanges."""
    bound: list[base.Frame] = []
    for step, name in enumerate(_STEPS):
        waits, passes = (_matching(f"{DELAY_STEP}{step}", value) for value in (True, False))
        bound.append(Queue.Bind(queue=name, exchange=name, routing_key="", arguments=waits))
        bound.append(Exchange.Bind(destination=_next(step), source=name, routing_key="", arguments=passes))
    for goal, name in _LAST.items():
        meant = _matching(ORIGIN_EXCHANGE, goal)
        bound.append(Queue.Bind(queue=name, exchange=_END, routing_key="", arguments=meant))
    return tuple(bound)


def _matching(header: str, value: object) -> dict[str, Any]:
    """Return the arguments of a binding for messages with this header."""
    return {"x-match": "all", header: value}


def _next(step: int) -> str:
    return _STEPS[step - 1] if step else _END
