"""Decides what caused what in one conversation: messages in any order become trees of :class:`Step`. Draws nothing.

If a message has a ``causation_id``, the handler of the message with that ``message_id`` published it. This is known;
the edge is ``causation``. Some peers write none (``eventail``). Then the cause is inferred:

- ``correlation``: a result answers the command with its correlation id whose ``reply_to`` is the result's key.
- ``time``: any other message follows from the latest message before it that its publisher handles: a command or a
  result addressed to that service, or an event of another service. The publisher is the ``app_id``; if a command has
  none, the first word of its ``reply_to``; if a result has none, the service that it answers for.

A service logs what becomes of a message that its handler fails on. Such a record is no message of its own: it is a
:class:`Failure` of the message. So are the deaths in the headers of a dead letter.

Whatever the messages say, the result is a forest: an edge that would close a circle is left out.
"""

from __future__ import annotations

import bisect
import datetime
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from eda_core.criticality import EMERGENCY
from eda_core.messages.headers import CAUSATION_ID
from eda_core.testing.deaths import error_of, place_of_death
from eda_tools.diagnosis.facts import service_of

CAUSATION: Final = "causation"
CORRELATION: Final = "correlation"
TIME: Final = "time"

#: A handler failed.
FAILED: Final = "failed"
#: The service gave the message up. It does not always know whether that makes the message a dead letter.
GIVEN_UP: Final = "given up"
#: The message became a dead letter: its headers say so.
DEAD_LETTER: Final = "dead letter"

#: How many messages before a message are looked at to infer its cause by time.
_LOOK_BACK: Final = 500


@dataclass(frozen=True, slots=True)
class Failure:
    """That a service has failed on a message.

    Attributes:
        outcome: one of :data:`FAILED`, :data:`GIVEN_UP` and :data:`DEAD_LETTER`.
        text: what the service says, or the broker.
        service: the service; "" if unknown.
    """

    outcome: str
    text: str
    service: str = ""


@dataclass(slots=True, eq=False)
class Step:
    """One message of a conversation.

    Attributes:
        number: from 1, by the time at which it was received.
        fields: see :func:`eda_tools.messages.delivery.fields`.
        elapsed: seconds since the first message.
        service: the service that published it, "" if not known.
        service_inferred: whether ``service`` is not the ``app_id``, but implied by the architecture's names.
        cause: the message whose handler published it.
        edge: how ``cause`` is known: :data:`CAUSATION`, :data:`CORRELATION`, :data:`TIME`; "" without a cause.
        unseen: the id of the cause, if that is not among the messages.
        repeats: an earlier message with the same id: it was published or received again.
        effects: the messages whose ``cause`` this is.
        level: how many causes are above it.
        failures: by time.
    """

    number: int
    fields: Mapping[str, Any]
    elapsed: float
    service: str = ""
    service_inferred: bool = False
    cause: Step | None = None
    edge: str = ""
    unseen: str = ""
    repeats: Step | None = None
    effects: list[Step] = field(default_factory=list)
    level: int = 0
    failures: list[Failure] = field(default_factory=list)

    @property
    def kind(self) -> str:
        return str(self.fields["kind"])

    @property
    def name(self) -> str:
        return str(self.fields["name"])

    @property
    def inferred(self) -> bool:
        """Whether ``cause`` is only probable."""
        return self.edge in (CORRELATION, TIME)

    @property
    def addressee(self) -> str:
        """The service to which a command or a result is addressed; "" for other messages."""
        return self.name.partition(".")[0] if self.kind in ("command", "result") else ""

    def text(self, name: str) -> str:
        """A field if it is text, else ""."""
        return _text(self.fields.get(name))

    def property(self, name: str) -> str:
        """An AMQP property if it is text, else ""."""
        return _text(self.fields["properties"].get(name))


def build(messages: Iterable[Mapping[str, Any]]) -> list[Step]:
    """The messages of one conversation as steps, by time. Steps without a ``cause`` are the roots.

    Args:
        messages: the fields of each (:func:`eda_tools.messages.delivery.fields`), in any order.
    """
    everything = sorted(messages, key=_received)
    ordered = [fields for fields in everything if not tells_of_failure(fields)]
    steps = [
        Step(number, fields, (_received(fields) - _received(ordered[0])).total_seconds())
        for number, fields in enumerate(ordered, 1)
    ]
    for step in steps:
        _attribute(step)
        _bury(step)
    for fields in everything:
        if tells_of_failure(fields):
            _fail(steps, fields)
    links, by_id = _Links(), _by_id(steps)
    inferring = [step for step in steps if not _known(step, by_id, links)]
    _infer(inferring, steps, links)
    for step in steps:
        if step.cause is not None:
            step.cause.effects.append(step)
            if not step.service and step.cause.addressee:  # the service that was asked did it
                step.service, step.service_inferred = step.cause.addressee, True
    for step in walk(steps):
        step.level = 0 if step.cause is None else step.cause.level + 1
    return steps


def tells_of_failure(fields: Mapping[str, Any]) -> bool:
    """Whether this is the log record of a service about a message that its handler has failed on."""
    record = fields.get("payload")
    return (
        fields["kind"] == "log" and isinstance(record, Mapping) and record.get("_outcome") in ("retry", "dead-letter")
    )


def _fail(steps: Sequence[Step], fields: Mapping[str, Any]) -> None:
    """Add what a record tells to the last message before it that has the routing key which it names.

    Messages and records come through different queues, so a record may have come before its message.
    """
    record = fields["payload"]
    named = [step for step in steps if step.name == record.get("_routing_key")]
    before = [step for step in named if _received(step.fields) <= _received(fields)]
    if named:
        gives_up = record.get("level") == EMERGENCY
        failure = Failure(
            GIVEN_UP if gives_up else FAILED,
            _text(record.get("short_message")),
            _text(record.get("_logical_service")),
        )
        (before[-1] if before else named[0]).failures.append(failure)


def _bury(step: Step) -> None:
    """Add the death of a message that was recorded as a dead letter."""
    headers = step.fields["headers"]
    death, error = place_of_death(headers), error_of(headers)
    if death is not None and death.queue and death.reason:
        text = f"{death.reason} in {death.queue}"
        if error is not None:
            text += f": {error.text}"
        step.failures.append(Failure(DEAD_LETTER, text, service_of(death.queue)))


def walk(steps: Sequence[Step]) -> Iterator[Step]:
    """All steps in the order of a tree: each after its cause."""
    waiting = [step for step in reversed(steps) if step.cause is None]
    while waiting:
        step = waiting.pop()
        yield step
        waiting.extend(reversed(step.effects))


class _Links:
    """The causes so far. It refuses one that would close a circle (union-find)."""

    def __init__(self) -> None:
        self._above: dict[int, int] = {}

    def add(self, step: Step, cause: Step, edge: str) -> bool:
        """Give ``step`` a cause. Returns whether that closes no circle."""
        if self._root(cause.number) == step.number:
            return False
        self._above[step.number] = cause.number
        step.cause, step.edge = cause, edge
        return True

    def _root(self, number: int) -> int:
        passed = []
        while number in self._above:
            passed.append(number)
            number = self._above[number]
        for each in passed[:-1]:
            self._above[each] = number
        return number


def _attribute(step: Step) -> None:
    """Find out who published the message, as far as its own properties tell."""
    step.service = step.property("app_id")
    if not step.service and step.kind == "command":
        step.service, step.service_inferred = step.text("reply_to").partition(".")[0], True


def _by_id(steps: Sequence[Step]) -> dict[str, Step]:
    by_id: dict[str, Step] = {}
    for step in steps:
        message_id = step.property("message_id")
        if message_id and by_id.setdefault(message_id, step) is not step:
            step.repeats = by_id[message_id]
    return by_id


def _known(step: Step, by_id: Mapping[str, Step], links: _Links) -> bool:
    """Set the cause if the message itself names it. Returns whether it does."""
    cause_id = _text(step.fields["headers"].get(CAUSATION_ID))
    if not cause_id:
        return False
    cause = by_id.get(cause_id)
    if cause is None:
        step.unseen = cause_id
    else:
        links.add(step, cause, CAUSATION)
    return True


def _infer(inferring: Sequence[Step], steps: Sequence[Step], links: _Links) -> None:
    commands: dict[tuple[str, str], list[Step]] = {}
    for step in steps:
        if step.kind == "command":
            commands.setdefault((step.text("correlation_id"), step.text("reply_to")), []).append(step)
    for step in inferring:
        if step.kind == "result" and _answered(step, commands, links):
            continue
        earlier = reversed(steps[max(0, step.number - 1 - _LOOK_BACK) : step.number - 1])
        cause = next((before for before in earlier if _could_cause(before, step)), None)
        if cause is not None:
            links.add(step, cause, TIME)


def _answered(result: Step, commands: Mapping[tuple[str, str], list[Step]], links: _Links) -> bool:
    """Find the command that a result answers: of those with its correlation id the latest before the result."""
    found = commands.get((result.text("correlation_id"), result.name), [])
    before = bisect.bisect(found, result.number, key=lambda command: command.number)
    if not found or not links.add(result, command := found[max(before - 1, 0)], CORRELATION):
        return False
    if not result.service:
        result.service, result.service_inferred = command.addressee, True
    return True


def _could_cause(before: Step, step: Step) -> bool:
    if not step.service:
        return True
    return before.addressee == step.service if before.addressee else before.service != step.service


def _received(fields: Mapping[str, Any]) -> datetime.datetime:
    received = fields["received"]
    assert isinstance(received, datetime.datetime)
    return received


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
