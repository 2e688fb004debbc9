"""The business process of the archive, without any messaging: a message in, the next message out.

Any message may come twice, at any time. What a handler publishes is only sent once it has succeeded, and may have been
lost with the worker: so a redelivered message is recorded once, but always asks for its next message again. Whoever
gets that one twice treats it in the same way.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, TypedDict, TypeVar

from examples.conversations.store import ARCHIVED, FAILED, Conversation, Store

T = TypeVar("T")

ANONYMIZE: Final = "AnonymizeText"
TAG: Final = "TagTopics"


class Text(TypedDict):
    """The payload of both commands."""

    text: str


class Summary(TypedDict):
    """The payload of ``ConversationArchived``."""

    name: str | None
    language: str | None
    topics: list[dict[str, Any]] | None
    counts: dict[str, int] | None


class Failure(TypedDict):
    """The payload of ``ConversationFailed``."""

    name: str | None
    step: str | None
    reason: str | None


@dataclass(frozen=True, slots=True)
class NextCommand:
    """A command to send. Its result comes back as ``archive.<command>Return``."""

    service: str
    command: str
    payload: dict[str, Any]

    def correlation_id(self, conversation_id: str) -> str:
        """The same for each repetition of the command, for its results are the same too."""
        return f"{conversation_id}/{self.command}"


@dataclass(frozen=True, slots=True)
class NextEvent:
    """An event to publish."""

    event: str
    payload: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Nothing:
    """No message to send, and why; somebody should read about it."""

    reason: str


Next = NextCommand | NextEvent | Nothing


class Workflow:
    """Takes messages in, records what they say in the store, and returns what is to be sent next.

    Every method raises ValueError, before anything is recorded, for a payload that is not what the sender promised.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    def received(self, conversation_id: str, payload: object) -> Next:
        """The event ``ConversationReceived``."""
        name, text = field(payload, "name", str), field(payload, "text", str)
        self._store.record_received(conversation_id, name)
        return NextCommand("anonymizer", ANONYMIZE, {"text": text})

    def anonymized(self, conversation_id: str, payload: object) -> Next:
        """The result of ``AnonymizeText``."""
        text, counts = field(payload, "text", str), field(payload, "counts", dict)
        conversation = self._store.record_anonymized(conversation_id, text, counts)
        return NextCommand("tagger", TAG, {"text": conversation.anonymized})

    def tagged(self, conversation_id: str, payload: object) -> Next:
        """The result of ``TagTopics``."""
        language, topics = field(payload, "language", str), field(payload, "topics", list)
        conversation = self._store.record_topics(conversation_id, language, topics)
        if conversation.state != ARCHIVED:
            return Nothing(f"topics came before the rest of the conversation, which is {conversation.state}")
        return NextEvent("ConversationArchived", _summary(conversation))

    def failed(self, conversation_id: str, step: str, payload: object) -> Next:
        """A result of ``AnonymizeText`` or ``TagTopics`` whose status is ``error``."""
        reason = payload.get("reason") if isinstance(payload, dict) else None
        known = self._store.get(conversation_id)
        done = known is not None and (known.anonymized if step == ANONYMIZE else known.topics) is not None
        if done:
            return Nothing(f"{step} had succeeded before this error")
        conversation = self._store.record_failure(conversation_id, step, str(reason or "no reason given"))
        if conversation.state != FAILED:
            return Nothing(f"{step} has succeeded meanwhile")
        return NextEvent(
            "ConversationFailed",
            {"name": conversation.name, "step": conversation.failed_step, "reason": conversation.failure},
        )


def field(payload: object, name: str, kind: type[T]) -> T:
    """A field of a payload; ValueError if it is missing or of another type."""
    value = payload.get(name) if isinstance(payload, dict) else None
    if not isinstance(value, kind):
        raise ValueError(f"the payload has no field {name!r} of type {kind.__name__}")
    return value


def _summary(conversation: Conversation) -> dict[str, Any]:
    return {
        "name": conversation.name,
        "language": conversation.language,
        "topics": conversation.topics,
        "counts": conversation.counts,
    }
