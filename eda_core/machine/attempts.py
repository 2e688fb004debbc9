"""Counts the attempts at messages that the broker delivers again.

It decides how often a redelivered message has failed, and how often it was lost with its link or its worker
(docs/architecture.rst, "Counting attempts"). It does not decide what follows from that.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from pamqp.commands import Basic

from eda_core.machine.policy import RetryPolicy
from eda_core.messages.headers import ACQUIRED_COUNT_HEADER, CONVERSATION_ID, DELIVERY_COUNT_HEADER


@dataclass(frozen=True, slots=True)
class History:
    """What happened to a message before its present delivery.

    Attributes:
        failures: how often it has failed.
        losses: how often it came back without a failure, because its link or its worker was lost, as far as the broker
            counts that.
        overruns: how often its link was lost in this worker while its handler took longer than the heartbeat.
    """

    failures: int = 0
    losses: int = 0
    overruns: int = 0


_UNKNOWN: Final = History()


class AttemptMemory:
    """Remembers how often messages failed on this worker, and how often their link was lost.

    The broker's flag ``redelivered`` only says that a message was delivered before. It does not say whether a handler
    failed, a link or a worker was lost, or nobody has read the message. So a worker remembers the messages that it gave
    back and those that were on a link that it lost.

    Args:
        limit: how many messages to remember, at least as many as may be in flight. Beyond it the oldest is forgotten.

    Attributes:
        known: what this worker knows of each message: its failures on all workers, and its losses here.
    """

    __slots__ = ("_limit", "known")

    def __init__(self, limit: int = 4096) -> None:
        self._limit = limit
        self.known: dict[Hashable, History] = {}

    def remember(self, key: Hashable, failures: int, *, lost: bool = False, overruns: int = 0) -> None:
        """Note that the broker will deliver a message again, because it failed or, if ``lost``, its link is lost.

        Args:
            failures: how often the message has failed in all.
            overruns: how often its link was lost in this worker while its handler took longer than the heartbeat.
        """
        before = self.known.pop(key, _UNKNOWN)
        self.known[key] = History(failures, before.losses + lost, max(before.overruns, overruns))
        if len(self.known) > self._limit:
            del self.known[next(iter(self.known))]

    def forget(self, key: Hashable) -> None:
        """Note that a message is acknowledged or dead-lettered, and will not come again."""
        self.known.pop(key, None)

    def history(self, key: Hashable, headers: Mapping[str, Any], policy: RetryPolicy, counted: int = 0) -> History:
        """Return what happened to a message that is redelivered.

        RabbitMQ 4.3 counts in a quorum queue how often a message was delivered before, and how often it was lost. The
        difference is the number of failures on all workers. Earlier versions only count how often it came back. Then
        those that this worker does not know as losses are failures, as far as the policy allows so many. Classic queues
        do not count. There the failures are those that this worker knows of: a message must not become a dead letter
        because another worker has ended.

        A header of the broker may come from another queue, for example when a shovel moved the message. Then it does
        not change, and a poison message would be tried for ever. So there are at least as many failures as this worker
        knows of.

        Args:
            counted: how many failures the header ``attempt`` of this toolkit says.
        """
        known = self.known.get(key, _UNKNOWN)
        failures, overruns = max(known.failures, counted), known.overruns
        acquired, returned = _count(headers, ACQUIRED_COUNT_HEADER), _count(headers, DELIVERY_COUNT_HEADER)
        returns = acquired or returned
        if not returns:
            return History(failures, 0, overruns)
        if policy.republishes:  # a failed message is published anew, and does not come back
            return History(failures, max(0, returns - (failures - counted)), overruns)
        if acquired:
            return History(max(failures, acquired - returned), returned, overruns)
        failures = max(failures, min(returns - known.losses, policy.attempts - 1))
        return History(failures, max(0, returns - failures), overruns)


def _count(headers: Mapping[str, Any], name: str) -> int:
    """Return a count of the broker's; 0 if the header has none."""
    count = headers.get(name)
    return count if type(count) is int and count > 0 else 0


def fallback_key(routing_key: str, properties: Basic.Properties, body: bytes) -> Hashable:
    """Return a key that identifies a message without a ``message_id`` when it is delivered again."""
    headers = properties.headers
    conversation = headers.get(CONVERSATION_ID) if type(headers) is dict else None
    if type(conversation) is not str:  # there is none, or it may have a type that cannot be hashed
        conversation = None
    return (routing_key, properties.correlation_id, conversation, hash(body))
