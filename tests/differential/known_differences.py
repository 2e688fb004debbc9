"""What is knowingly different between the model and RabbitMQ, and what RabbitMQ leaves to chance: a function for each.

Each makes alike what may differ in what was observed; all else must agree. Two more are elsewhere, for what cannot be
made alike: ``Client`` drops what comes on a channel after its Close, and ``Comparison`` ends a sequence where the next
step is chance. ``docs/broker-model.rst`` has the whole table; what is in it and not seen here is shown by
``test_known_differences.py``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import datetime
from typing import Any

_INTEGER_TYPES = re.compile(r"\b(signedint|unsignedint|short|unsignedshort|byte|unsignedbyte|long)\b")
_SERVER_NAMES = re.compile(r"amq\.gen-[\w-]+")


def any_integer_type(text: str) -> str:
    """Error texts name the type of an argument; an integer loses its width when the model decodes it."""
    return _INTEGER_TYPES.sub("integer", text)


def any_server_name(text: str) -> str:
    """The name of a queue that the server made up and then refused: the client sees it in the error only."""
    return _SERVER_NAMES.sub("amq.gen-", text)


def any_time_of_death(key: str, value: Any) -> Any:
    """The time in x-death: the model's clock is virtual."""
    return "a time" if key == "time" and isinstance(value, datetime) else value


def in_any_order(lines: Iterable[str]) -> list[str]:
    """Confirms of one channel, and consumers that are told that their queues are gone: which is first is chance."""
    return sorted(lines)


def without_octets(code: int, text: str) -> str:
    """After the name of a framing error RabbitMQ shows the octets, as Erlang terms; the model says what is wrong."""
    return text.partition(" - ")[0] if code in (501, 541) or "octets" in text or " channel " in text else text
