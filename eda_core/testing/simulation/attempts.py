"""Counts how often a message fails, and finds one that is dead-lettered too early, or tried too often.

That is the invariant I4 (docs/architecture.rst, "Invariants"). It looks at what handlers do and at what is sent to the
broker. It does not know how the machine counts.
"""

from __future__ import annotations

from collections import Counter

from eda_core.machine.config import Config
from eda_core.machine.effects import Effect, Nack, Publish
from eda_core.machine.identifiers import TAG_BITS, DeliveryId
from eda_core.messages.values import AnyMessage
from eda_core.testing.simulation.failures import SimulationFailed
from eda_core.testing.simulation.world import World


class Attempts:
    """The failures in one life of a worker.

    Args:
        world: has the failures of all workers.
        config: that of the service.
        worker: the name of the worker.
    """

    def __init__(self, world: World, config: Config, worker: str) -> None:
        self._world, self._config, self._worker = world, config, worker
        self._messages: dict[DeliveryId, tuple[str, str]] = {}
        self._counted: set[DeliveryId] = set()
        self._raised: set[DeliveryId] = set()
        self._here: Counter[str] = Counter()

    def begins(self, delivery: DeliveryId, message: AnyMessage) -> None:
        """A handler of a message begins."""
        identity = str(message.meta.get("message_id") or "")
        if identity:
            self._messages[delivery] = (identity, message.name)

    def raised(self, delivery: DeliveryId, *, permanent: bool) -> None:
        """A handler has raised an exception. If that is permanent, trying again would not help."""
        self._count(delivery)
        if not permanent:
            self._raised.add(delivery)

    def performs(self, effect: Effect) -> None:
        """The worker sends something to the broker."""
        if type(effect) is Nack:
            delivery = DeliveryId(effect.epoch << TAG_BITS | effect.tag)
            if effect.requeue:
                self._goes_back(delivery)
            elif delivery in self._raised:
                self._is_given_up(delivery)
        elif type(effect) is Publish and effect.delivery is not None:
            if not effect.exchange:
                self._goes_back(effect.delivery)  # as a copy
            elif effect.exchange == self._config.dead_letter_exchange and effect.delivery in self._raised:
                self._is_given_up(effect.delivery)

    def _count(self, delivery: DeliveryId) -> None:
        if delivery in self._messages and delivery not in self._counted:
            self._counted.add(delivery)
            identity, _ = self._messages[delivery]
            self._here[identity] += 1
            self._world.failures[identity, self._config.service] += 1

    def _goes_back(self, delivery: DeliveryId) -> None:
        """It is to be tried again. Once a fault has struck, nobody knows how often it may be."""
        self._count(delivery)
        if delivery in self._raised and not self._world.deviations.struck:
            identity, _ = self._messages[delivery]
            times = sum(each.id == identity and each.exchange != "" for each in self._world.bus.sent)
            if self._known(identity) >= self._config.retry.attempts * times:
                self._fail(delivery, "is tried again")

    def _is_given_up(self, delivery: DeliveryId) -> None:
        """It is dead-lettered. A quorum queue counts what this worker cannot know, so nothing is said of it."""
        if delivery in self._messages and self._config.queue_type != "quorum":
            identity, _ = self._messages[delivery]
            if self._known(identity) < self._config.retry.attempts:
                self._fail(delivery, "becomes a dead letter")

    def _known(self, identity: str) -> int:
        """How often a message has failed: here, or on all workers if the count travels with it."""
        policy = self._config.retry
        travels = policy.counted or policy.delays
        return self._world.failures[identity, self._config.service] if travels else self._here[identity]

    def _fail(self, delivery: DeliveryId, what: str) -> None:
        identity, name = self._messages[delivery]
        policy = self._config.retry
        text = f"I4: {name} {what} after {self._known(identity)} failed attempt(s); {self._worker} allows {policy!r}"
        self._world.fail(SimulationFailed(text))
