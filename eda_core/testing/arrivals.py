"""What has arrived on the bus in a test, which of it answers an expectation, and how to tell that nothing does. Pure.

``eda_core.testing.live.bus`` watches the bus and waits.
"""

from __future__ import annotations

import difflib
import pprint
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from pamqp.commands import Basic

from eda_core.criticality import ERROR
from eda_core.messages.codec import DEFAULT_LIMITS, DecodeError, decode
from eda_core.messages.envelope import InvalidEnvelope, open_envelope
from eda_core.messages.routing import TopicPattern
from eda_core.messages.values import AnyMessage, LogRecord, kind_of
from eda_core.testing.deaths import place_of_death, published
from eda_core.text import shortened

#: The kinds of what arrives, as :attr:`Arrival.kind` has them.
KINDS: Final = ("event", "command", "result", "configuration", "log", "dead letter", "invalid")
#: What a message is to be like: some of its payload, or a function that says so.
Where = Mapping[str, Any] | Callable[[Any], object]

#: How many lines a report has of each part.
_MOST: Final = 40
_WIDTH: Final = 100


class NotArrived(AssertionError):
    """What a test expects has not arrived. The text shows what did."""


@dataclass(slots=True)
class DeadLetter:
    """A message that a queue has given up.

    Attributes:
        name: the routing key of its first publish.
        payload: what it says; ``None`` if that cannot be read.
        conversation_id: "" if it has none.
        reason: ``rejected``, ``expired``, ``maxlen`` or ``delivery_limit``; or ``given up``, if a service has published
            it itself. Then ``meta`` says why (``DEAD_LETTER_EXCHANGE``).
        queue: in which it died.
        message: the message; ``None`` if it is invalid.
        invalid: why it is invalid; "" if it is not.
        meta: its headers.
    """

    name: str
    payload: Any
    conversation_id: str
    reason: str
    queue: str
    message: AnyMessage | None
    invalid: str
    meta: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class Invalid:
    """A message on one of the exchanges of the architecture that is no valid message.

    Attributes:
        name: its routing key.
        payload: what it says; ``None`` if that cannot be read.
        conversation_id: "" if it has none.
        invalid: why it is invalid.
    """

    name: str
    payload: Any
    conversation_id: str
    invalid: str


@dataclass(slots=True)
class Arrival:
    """A message that has arrived.

    Attributes:
        kind: one of :data:`KINDS`.
        message: the message.
        sent: whether the test itself has published it.
        taken: whether it has answered an expectation.
    """

    kind: str
    message: AnyMessage | DeadLetter | Invalid
    sent: bool = False
    taken: bool = False


def arrival(exchange: str, key: str, properties: Basic.Properties, body: bytes, *, dead: bool, sent: bool) -> Arrival:
    """Read what has arrived.

    Args:
        dead: it comes from the dead-letter exchange.
        sent: the test itself has published it.
    """
    headers = properties.headers if isinstance(properties.headers, dict) else {}
    origin = published(headers, key) if dead else None
    exchange, key = (exchange, key) if origin is None else origin
    message, reason, conversation = None, "", ""
    try:
        message = open_envelope(exchange, key, properties, body, DEFAULT_LIMITS)
        payload, conversation = message.payload, message.conversation_id
    except InvalidEnvelope as error:
        payload, reason, conversation = _payload(properties, body), str(error), error.conversation_id
    if dead:
        death = place_of_death(headers)
        why, where = ("", "") if death is None else (death.reason, death.queue)
        letter = DeadLetter(key, payload, conversation, why, where, message, reason, dict(headers))
        return Arrival("dead letter", letter, sent)
    if message is None:
        return Arrival("invalid", Invalid(key, payload, conversation, reason), sent)
    return Arrival(kind_of(message), message, sent)


def _payload(properties: Basic.Properties, body: bytes) -> Any:
    try:
        return decode(body, properties.content_type, DEFAULT_LIMITS)
    except DecodeError:
        return None


@dataclass(frozen=True, slots=True)
class Expectation:
    """What a test expects.

    Attributes:
        kind: one of :data:`KINDS`.
        name: the name of the message, with ``*`` for one word and ``#`` for any number. The last word is enough for a
            command, a result and a log.
        where: a part of the payload, or a function of the message; ``None`` if it does not matter.
        conversation_id: of the message; ``None`` if it does not matter.
        correlation_id: of the message; ``None`` if it does not matter.
    """

    kind: str
    name: str
    where: Where | None = None
    conversation_id: str | None = None
    correlation_id: str | None = None

    def met_by(self, found: Arrival) -> bool:
        """Whether the message is what is expected. What the test itself has sent is not, unless it is a dead letter."""
        return self.named(found) and not found.taken and self._fits(found.message)

    def named(self, found: Arrival) -> bool:
        """Whether it is of the kind and the name that are expected."""
        if found.kind != self.kind or (found.sent and self.kind != "dead letter"):
            return False
        name = found.message.name
        if "*" in self.name or "#" in self.name:
            return TopicPattern(self.name).matches(name)
        return name == self.name or (self.kind in ("command", "result", "log") and _last(name) == self.name)

    def _fits(self, message: Any) -> bool:
        if self.conversation_id is not None and message.conversation_id != self.conversation_id:
            return False
        if self.correlation_id is not None and getattr(message, "correlation_id", None) != self.correlation_id:
            return False
        if self.where is None:
            return True
        return bool(self.where(message)) if callable(self.where) else _contains(message.payload, self.where)

    def __str__(self) -> str:
        parts = [f"{self.kind} {self.name}"]
        if callable(self.where):
            parts.append(f"that meets {getattr(self.where, '__qualname__', self.where)}")
        elif self.where is not None:
            parts.append(f"with {_flat(self.where)}")
        if self.conversation_id is not None:
            parts.append(f"in the conversation {self.conversation_id}")
        if self.correlation_id is not None:
            parts.append(f"with the correlation id {self.correlation_id}")
        return " ".join(parts)


def _last(name: str) -> str:
    return name.rpartition(".")[2]


def _contains(payload: Any, part: Any) -> bool:
    """Whether a payload has everything that ``part`` has. A map may have more keys; all other values are compared."""
    if isinstance(part, Mapping):
        return isinstance(payload, Mapping) and all(
            key in payload and _contains(payload[key], value) for key, value in part.items()
        )
    return bool(payload == part)


def report(expected: Expectation, arrivals: Sequence[Arrival], after: str) -> str:
    """Say that something has not arrived, and show what did.

    Args:
        after: how long was waited, or what has ended the wait.
    """
    lines = [f"no {expected} {after}"]
    nearest = [found for found in arrivals if expected.named(found)]
    for found in nearest[-3:]:
        taken = ", which another expectation has taken" if found.taken else ""
        lines += ["", f"of this name there is, in the conversation {found.message.conversation_id or '-'}{taken}:"]
        lines += [f"  {line}" for line in _difference(expected.where, found.message)]
    lines += ["", "what has arrived, in order:" if arrivals else "nothing has arrived"]
    if len(arrivals) > _MOST:
        lines.append(f"  … and {len(arrivals) - _MOST} before")
    lines += [f"  {_line(found)}" for found in arrivals[-_MOST:]]
    lines += list(_errors(arrivals))
    return "\n".join(lines)


def _difference(where: Where | None, message: Any) -> list[str]:
    """What is expected of the payload and what it is, as a diff."""
    got = pprint.pformat(message.payload, width=_WIDTH, sort_dicts=True).splitlines()
    if where is None or callable(where):
        return got[:_MOST]
    wanted = pprint.pformat(_merged(message.payload, where), width=_WIDTH, sort_dicts=True).splitlines()
    if len(wanted) == len(got) == 1:  # one key in each line shows better what differs
        wanted, got = (
            pprint.pformat(value, width=1, sort_dicts=True).splitlines()
            for value in (_merged(message.payload, where), message.payload)
        )
    lines = [line for line in difflib.ndiff(wanted, got) if not line.startswith("?")]
    return ["- expected, + arrived", *lines][:_MOST]


def _merged(payload: Any, part: Any) -> Any:
    if isinstance(part, Mapping) and isinstance(payload, Mapping):
        return {**payload, **{key: _merged(payload.get(key), value) for key, value in part.items()}}
    return part


def _line(found: Arrival) -> str:
    message = found.message
    what = f"{found.kind} {shortened(message.name, 60)}"
    if isinstance(message, DeadLetter):
        what += f" ({message.reason} in {message.queue})"
    who = "the test sent " if found.sent and found.kind != "dead letter" else ""
    conversation = f" [{shortened(message.conversation_id, 40)}]" if message.conversation_id else ""
    return f"{who}{what}{conversation} {_flat(_shown(message))}"


def _shown(message: Any) -> Any:
    payload = message.payload
    if isinstance(message, LogRecord) and isinstance(payload, Mapping):
        return payload.get("short_message", payload)
    return payload


def _flat(value: Any) -> str:
    return shortened(" ".join(repr(value).split()), 160)


def _errors(arrivals: Sequence[Arrival]) -> Iterator[str]:
    """The last records that services have logged about errors, whole: they have the tracebacks of handlers."""
    records = [
        found.message.payload
        for found in arrivals
        if found.kind == "log" and isinstance(found.message.payload, Mapping)
    ]
    errors = [record for record in records if isinstance(level := record.get("level"), int) and level <= ERROR]
    keys = ("_logical_service", "short_message", "full_message")
    told = list(dict.fromkeys(tuple(str(record.get(key, "")) for key in keys) for record in errors))
    for service, short, full in told[-3:]:
        yield from ("", f"{service} has logged: {short}")
        yield from (f"  {line}" for line in full.splitlines()[-_MOST:])
