"""What is known to differ between the model and RabbitMQ, and what RabbitMQ does not define: a function for each.

Each function removes from an observation what may differ. Everything else has to agree. Two differences cannot be
removed so: ``Client`` drops what comes on a channel after its Close, and ``Comparison`` ends a sequence before a step
whose result RabbitMQ does not define. ``docs/broker-model.rst`` has the whole table; ``test_known_differences.py``
shows what is in it and not here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

_SERVER_NAMES = re.compile(r"amq\.gen-[\w-]+")


def any_server_name(text: str) -> str:
    """The name that the server gave to a queue which it refused then. The client sees it in the error only."""
    return _SERVER_NAMES.sub("amq.gen-", text)


def any_time_of_death(key: str, value: Any) -> Any:
    """The time in x-death. The clock of the model is virtual."""
    return "a time" if key == "time" and isinstance(value, datetime) else value


def on_one_line(text: str) -> str:
    """A text in which RabbitMQ writes an Erlang term on several lines, because it is long."""
    return re.sub(r"\n\s*", "", text)


def in_any_order(lines: Iterable[str]) -> list[str]:
    """Confirms of one channel, and cancels of consumers whose queues are gone, come in any order."""
    return sorted(lines)


def sender_of(headers: Mapping[str, Any]) -> str:
    """Who has sent a direct reply: the channel of a publisher, or a queue in which it died. They do not wait for one
    another, so the replies of each are in order, and not those of both.
    """
    deaths = headers.get("x-death") or [{}]
    return f" from {deaths[0]['queue']}" if "queue" in deaths[0] else ""


def without_octets(code: int, text: str) -> str:
    """After the name of a framing error RabbitMQ writes the octets, as Erlang terms; the model says what is wrong."""
    return text.partition(" - ")[0] if code in (501, 541) or "octets" in text or " channel " in text else text
