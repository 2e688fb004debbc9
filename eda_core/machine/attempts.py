"""Counts the attempts at messages that the broker delivers again.

It decides which attempt a redelivery is (docs/architecture.rst, "Counting attempts"). It does not know how many
attempts the retry policy allows.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

from pamqp.commands import Basic

from eda_core.messages.headers import CONVERSATION_ID, DELIVERY_COUNT_HEADER


class AttemptMemory:
    """Remembers how often messages failed on this worker, and how often their link was lost.

    The broker's flag ``redelivered`` only says that a message was delivered before. Then it failed, or the link to its
    worker was lost. If each redelivery counted as a failure, the first error after a lost link would make a dead
    letter. So a worker remembers which messages it gave back, and which were on a link that it lost. If it knows
    nothing of a redelivered message, it assumes that another worker failed once.

    Args:
        limit: how many messages to remember, at least as many as may be in flight. Beyond it the oldest is forgotten.

    Attributes:
        known: for each message, how often it has failed and how often its link was lost.
    """

    __slots__ = ("_limit", "known")

    def __init__(self, limit: int = 4096) -> None:
        self._limit = limit
        self.known: dict[Hashable, tuple[int, int]] = {}

    def remember(self, key: Hashable, failures: int, *, lost: bool = False) -> None:
        """Note that the broker will deliver a message again, because it failed or, if ``lost``, its link is lost."""
        losses = self.known.pop(key, (0, 0))[1]
        self.known[key] = (failures, losses + lost)
        if len(self.known) > self._limit:
            del self.known[next(iter(self.known))]

    def forget(self, key: Hashable) -> None:
        """Note that a message is acknowledged or dead-lettered, and will not come again."""
        self.known.pop(key, None)

    def failures(self, key: Hashable) -> int:
        """Return how often the message has failed, as far as this worker knows."""
        return self.known.get(key, (0, 0))[0]

    def attempt(self, key: Hashable, headers: Mapping[str, Any]) -> int:
        """Return which attempt at the message this redelivery is, from 1.

        The best source is the count of a quorum queue, less the number of lost links. But a message may bring this
        header along from another queue, for example when a shovel moved it. Then the header does not change, and a
        poison message would be tried for ever. So the result is at least one more than the known failures.
        """
        known = self.known.get(key)
        count = headers.get(DELIVERY_COUNT_HEADER)
        if type(count) is int and count > 0:
            failures, losses = known or (0, 0)
            return max(failures + 1, count + 1 - losses)
        return known[0] + 1 if known else 2


def fallback_key(routing_key: str, properties: Basic.Properties, body: bytes) -> Hashable:
    """Return a key that identifies a message without a ``message_id`` when it is delivered again."""
    headers = properties.headers
    conversation = headers.get(CONVERSATION_ID) if type(headers) is dict else None
    if type(conversation) is not str:  # there is none, or it may have a type that cannot be hashed
        conversation = None
    return (routing_key, properties.correlation_id, conversation, hash(body))
