"""Whose turn it is: the handlers of messages with the same key run one after the other (``Config.serialize_by``).

This module decides which delivery waits for which handler. It knows nothing of the space in the outbox and of the life
of a delivery: :mod:`eda_core.machine.deliveries` begins the handlers.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Container

from eda_core.machine.identifiers import DeliveryId
from eda_core.machine.in_flight import Delivery


class Turns:
    """Gives each key to one handler at a time.

    Args:
        name: the name of the header that has the key of a message. The handler of a message without it waits for no
            other one.
    """

    __slots__ = ("_keys", "_name", "_waiting")

    def __init__(self, name: str) -> None:
        self._name = name
        #: The key that each handler has, by the identifier that the handler knows.
        self._keys: dict[DeliveryId, str] = {}
        #: The deliveries that wait, in order, for each key that a handler has.
        self._waiting: dict[str, deque[Delivery]] = {}

    def take(self, delivery: Delivery) -> bool:
        """Return whether it is the turn of a delivery. If not, it waits, and :meth:`pass_on` returns it."""
        key = self._key(delivery)
        if not key:
            return True
        waiting = self._waiting.get(key)
        if waiting is not None:
            waiting.append(delivery)
            return False
        self._waiting[key] = deque()
        self._keys[delivery.run] = key
        return True

    def pass_on(self, run: DeliveryId) -> Delivery | None:
        """Note that a handler has ended. Returns the delivery whose turn it is now; ``None`` if none waits for it."""
        key = self._keys.pop(run, None)
        if key is None:
            return None
        waiting = self._waiting[key]
        if not waiting:
            del self._waiting[key]
            return None
        following = waiting.popleft()
        self._keys[following.run] = key
        return following

    def forget_waiting(self) -> None:
        """Forget the deliveries that wait: they are given back."""
        for waiting in self._waiting.values():
            waiting.clear()

    def lose_link(self, running: Container[DeliveryId]) -> None:
        """Forget the deliveries of a lost link. The handlers that still run keep their turns."""
        for run in [run for run in self._keys if run not in running]:
            del self._waiting[self._keys.pop(run)]
        self.forget_waiting()

    def _key(self, delivery: Delivery) -> str:
        value = (delivery.properties.headers or {}).get(self._name)
        # A table of AMQP cannot be a key; and 1 and True would be the same one.
        return "" if value is None or value == "" else repr(value)
