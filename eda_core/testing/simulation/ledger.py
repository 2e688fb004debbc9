"""Notes what becomes of each message, and finds what is lost (docs/architecture.rst, "Invariants").

It is told by the broker and by the workers. It does not know how they work.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Container, Mapping
from typing import Final

from eda_core.messages.headers import CAUSATION_ID
from eda_core.testing.simulation.failures import SimulationFailed
from eda_core.testing.simulation.sent import Sent

#: How often a message may be delivered beyond the attempts of the policies. A few faults lead to less.
_MOST: Final = 30
_NEVER_ENDED: Final = "before its handler had ended, and the handler never ended"


def is_of_service(queue: str) -> bool:
    """Whether a queue is one in which a message waits for a handler."""
    return queue.endswith((".events", ".commands"))


class Ledger:
    """What became of the messages, by their ids.

    Args:
        name_of: returns the name of a message.
        fail: is called with a failure that must not wait for the end.

    Attributes:
        attempts: the most attempts that a policy of a service allows.
        early: the messages that were acknowledged before any handler of them had succeeded.
    """

    def __init__(self, name_of: Callable[[str], str], fail: Callable[[BaseException], None]) -> None:
        self._name_of, self._fail = name_of, fail
        self._succeeded: set[tuple[str, str]] = set()
        self._failed: set[tuple[str, str]] = set()
        self._begun: set[str] = set()
        self._deliveries: Counter[tuple[str, str]] = Counter()
        self.attempts: int = 1
        self.early: dict[tuple[str, str], None] = {}

    def delivered(self, message: str, queue: str) -> None:
        """The broker delivers a message."""
        if message and is_of_service(queue):
            self._deliveries[message, queue] += 1
            count = self._deliveries[message, queue]
            if count > self.attempts + _MOST:
                text = f"a poison loop: {self._name_of(message)} was delivered {count} times from {queue}"
                self._fail(SimulationFailed(text))

    def begins(self, message: str) -> bool:
        """A handler of a message begins. Returns whether one has begun before."""
        before = message in self._begun
        if message:
            self._begun.add(message)
        return before

    def acknowledged(self, message: str, queue: str) -> None:
        """The broker has got the acknowledgement of a message."""
        key = (message, queue)
        if message and is_of_service(queue) and key not in self._succeeded:
            self.early[key] = None

    def ended(self, message: str, service: str, *, failed: bool) -> None:
        """A handler of a message has ended."""
        for queue in (f"{service}.events", f"{service}.commands"):
            key = (message, queue)
            if failed:
                self._failed.add(key)
            else:
                self._succeeded.add(key)
                self.early.pop(key, None)

    def lost(self, kept: Container[str]) -> list[str]:
        """Say which messages were acknowledged although no handler of them has succeeded.

        Args:
            kept: the ids of the messages that are still in a queue, dead letters among them.
        """
        return [
            f"{self._name_of(message)} is lost: {queue.rpartition('.')[0]} acknowledged it "
            + ("although its handler failed" if (message, queue) in self._failed else _NEVER_ENDED)
            for message, queue in self.early
            if message not in kept
        ]


def unanswered(sent: list[Sent], dead: set[str]) -> list[str]:
    """Say which commands have got neither a result nor become a dead letter.

    Args:
        dead: the ids of the dead letters.
    """
    results = {(each.name, each.properties.correlation_id) for each in sent if each.kind == "result"}
    found = []
    for each in sent:
        if each.copy or each.returned or each.kind != "command" or each.id in dead:
            continue
        if (each.properties.reply_to, each.properties.correlation_id) not in results:
            found.append(f"the command {each.name} of {each.sender} got no result, and is no dead letter")
    return found


def circle(sent: list[Sent], by_id: Mapping[str, Sent], command: str) -> str:
    """Say which unanswered command was sent while one with the name ``command`` was handled, to a service that waits.

    Returns:
        "" if there is none.
    """
    for each in reversed(sent):
        names = [each.name]
        cause = each
        while (cause_id := str((cause.properties.headers or {}).get(CAUSATION_ID) or "")) in by_id:
            cause = by_id[cause_id]
            names.append(cause.name)
        services = [name.rpartition(".")[0] for name in names]
        if each.kind == "command" and command in names[1:] and services[0] in services[1:]:
            return f"{each.name}, sent meanwhile, waits for {services[0]}: {' calls '.join(reversed(names))}"
    return ""


def unroutable(sent: list[Sent], handles_returns: Callable[[str], bool]) -> list[str]:
    """Say which commands and results came back to services that do not handle that."""
    return [
        f"the {each.kind} {each.name} of {each.sender} is lost: no service receives it"
        for each in sent
        if each.returned and not handles_returns(each.sender)
    ]
