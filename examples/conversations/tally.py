"""What the demo has seen of its run: pure bookkeeping over the messages on the bus."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from eda_core import Command, Configuration, Event, LogRecord, Result, criticality
from eda_tools.messages.show import compact, shortened

_KINDS: Final = {Event: "event", Command: "command", Result: "result", Configuration: "configuration", LogRecord: "log"}

#: Characters of a payload, where the screen has room for so many.
_LONGEST: Final = 200


@dataclass(frozen=True, slots=True)
class Seen:
    """A message, as far as the demo is concerned.

    Attributes:
        service: who published it, ``-`` if unknown.
        text: a log's short message; the beginning of the payload of another message, as JSON.
        status: a result's status.
        level: a log's criticality, else -1.
        outcome: what became of the message that a handler failed on, according to the log: ``retry`` or
            ``dead-letter``.
        source: the routing key of that message.
        cause: the last line of the log's traceback.
    """

    time: datetime.datetime
    service: str
    kind: str
    name: str
    conversation_id: str
    text: str = ""
    level: int = -1
    outcome: str = ""
    source: str = ""
    cause: str = ""
    status: str = ""
    payload: Any = None


def seen(message: Event | Command | Result | Configuration | LogRecord, now: datetime.datetime) -> Seen:
    """What is to be known of ``message``."""
    service, kind = one_line(message.meta.get("app_id")) or "-", _KINDS[type(message)]
    if isinstance(message, LogRecord):
        # Any program may log to the bus, so nothing is taken for granted.
        record: dict[str, Any] = message.payload if isinstance(message.payload, dict) else {}
        level = record.get("level")
        full = str(record.get("full_message") or "").strip().splitlines()
        return Seen(
            now,
            one_line(record.get("_logical_service")) or service,
            kind,
            one_line(message.name),
            str(record.get("_conversation_id") or ""),
            one_line(record.get("short_message")),
            level if isinstance(level, int) else -1,
            one_line(record.get("_outcome")),
            one_line(record.get("_routing_key")),
            one_line(full[-1]) if full else "",
        )
    status = one_line(message.status) if isinstance(message, Result) else ""
    name, text = one_line(message.name), shortened(compact(message.payload), _LONGEST)
    return Seen(now, service, kind, name, message.conversation_id, text, status=status, payload=message.payload)


def one_line(value: object) -> str:
    """``value`` as text that cannot break a line or command a terminal."""
    text = " ".join(str(value).split()) if value is not None else ""
    return "".join(character for character in text if character.isprintable())


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A conversation that ended in the dead letters, and why."""

    file: str
    source: str
    text: str
    cause: str


class Tally:
    """Follows the conversations of one run; those of others on the same bus are ignored.

    A conversation's first messages can arrive before the collector has told its id. They are kept until it has, or
    until it has told all.

    Args:
        show: called for each message of this run, with the file name of its conversation.
    """

    def __init__(self, show: Callable[[Seen, str], None]) -> None:
        self._show = show
        self._files: dict[str, str] = {}
        self._early: list[Seen] | None = []
        self._archived: dict[str, Any] = {}
        self._failed: set[str] = set()
        self._dead: dict[str, Seen] = {}
        self._causes: dict[str, str] = {}
        self.messages = 0
        self.retries = 0

    def expect(self, conversation_id: str, file: str) -> None:
        """A conversation belongs to this run."""
        self._files[conversation_id] = file
        early = self._early or []
        self._early = [message for message in early if message.conversation_id != conversation_id]
        for message in early:
            if message.conversation_id == conversation_id:
                self._count(message)

    def no_more(self) -> None:
        """All conversations of this run have been named."""
        self._early = None

    def see(self, message: Seen) -> bool:
        """Take in a message; whether it is one of this run, as far as is known by now."""
        if message.conversation_id in self._files:
            self._count(message)
            return True
        if self._early is not None:
            self._early.append(message)
        return False

    def _count(self, message: Seen) -> None:
        conversation_id = message.conversation_id
        if message.kind != "log":
            self.messages += 1
        elif message.level == criticality.ALERT:
            self._causes[conversation_id] = message.cause
            self.retries += message.outcome == "retry"
        elif message.level == criticality.EMERGENCY and message.outcome == "dead-letter":
            self._dead.setdefault(conversation_id, message)
        if message.kind == "event" and message.name == "ConversationArchived":
            self._archived[conversation_id] = message.payload
        elif message.kind == "event" and message.name == "ConversationFailed":
            self._failed.add(conversation_id)
        self._show(message, self._files[conversation_id])

    @property
    def conversations(self) -> int:
        return len(self._files)

    @property
    def archived(self) -> int:
        return len(self._archived)

    @property
    def failed(self) -> int:
        return len(self._failed - self._archived.keys())

    @property
    def results(self) -> list[tuple[str, dict[str, Any]]]:
        """The file and the payload of ``ConversationArchived`` of each archived conversation."""
        return [(self._files[key], found if isinstance(found, dict) else {}) for key, found in self._archived.items()]

    @property
    def dead_letters(self) -> list[DeadLetter]:
        """The conversations that came to nothing else than a dead letter."""
        return [
            DeadLetter(self._files[key], message.source, message.text, self._causes.get(key) or message.cause)
            for key, message in self._dead.items()
            if key not in self._archived and key not in self._failed
        ]

    @property
    def unfinished(self) -> list[str]:
        """The files whose conversation has come to no end yet."""
        ended = self._archived.keys() | self._failed | self._dead.keys()
        return [file for key, file in self._files.items() if key not in ended]
