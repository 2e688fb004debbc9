"""What a worker knows of the attempts at messages that will come back to it."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

from pamqp.commands import Basic

from eda_core.messages.headers import CONVERSATION_ID, DELIVERY_COUNT_HEADER


class AttemptMemory:
    """What this worker knows of the attempts at messages that will come back to it.

    ``redelivered`` says only that a message was handed out before: it may have failed, or its worker's connection may
    have been cut. Counting every redelivery as a failure makes the first error after a lost connection a dead letter,
    so a worker remembers what it gave back and what it lost. A redelivered message it knows nothing of is taken to have
    failed once, elsewhere. Bounded: the oldest entry goes first.

    Args:
        limit: entries to keep; at least as many as deliveries may be in flight.

    Attributes:
        known: for each message, how often it has failed and how often its link was lost.
    """

    __slots__ = ("_limit", "known")

    def __init__(self, limit: int = 4096) -> None:
        self._limit = limit
        self.known: dict[Hashable, tuple[int, int]] = {}

    def remember(self, key: Hashable, failures: int, *, lost: bool = False) -> None:
        """The message will be redelivered, having failed so often; because its link is ``lost``, or it failed."""
        losses = self.known.pop(key, (0, 0))[1]
        self.known[key] = (failures, losses + lost)
        if len(self.known) > self._limit:
            del self.known[next(iter(self.known))]

    def forget(self, key: Hashable) -> None:
        """The message is settled for good."""
        self.known.pop(key, None)

    def failures(self, key: Hashable) -> int:
        """How often the message is known to have failed."""
        return self.known.get(key, (0, 0))[0]

    def attempt(self, key: Hashable, headers: Mapping[str, Any]) -> int:
        """Which attempt this redelivery is, from 1. A quorum queue's count is the surest, lost links taken off.

        It counts redeliveries: on a first one, or standing still, it is a header that the message brought along from
        another queue (when it was moved by a shovel, say), and going by that a poison message would be tried for ever.
        """
        known = self.known.get(key)
        count = headers.get(DELIVERY_COUNT_HEADER)
        if type(count) is int and count > 0:
            failures, losses = known or (0, 0)
            return max(failures + 1, count + 1 - losses)
        return known[0] + 1 if known else 2


def fallback_key(routing_key: str, properties: Basic.Properties, body: bytes) -> Hashable:
    """What recognizes a message without a message id when it is redelivered: all that there is."""
    headers = properties.headers
    conversation = headers.get(CONVERSATION_ID) if type(headers) is dict else None
    if type(conversation) is not str:  # none, or of a type of its own, which may have no hash
        conversation = None
    return (routing_key, properties.correlation_id, conversation, hash(body))
