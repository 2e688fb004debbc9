"""What tests may mistreat: nodes of RabbitMQ, with a fresh vhost for each test."""

from __future__ import annotations

from eda_core.testing.live.vhosts import RabbitVhost as Victim
from eda_core.testing.live.vhosts import VhostPool
from tests.support.rabbitmq import RabbitNode

__all__ = ["RabbitNode", "VhostPool", "Victim", "Victims"]


class Victims:
    """What tests may mistreat, one after the other: a node that they share, for as long as it survives that.

    RabbitMQ that was killed takes all vhosts up again when it starts, and the more there are, the longer for each: with
    24 of them it took 8 s, with 72 15 s and with 144 47 s. So those that were used have to go.
    """

    def __init__(self) -> None:
        self._node: RabbitNode | None = None
        self._vhosts: VhostPool | None = None

    def take(self) -> Victim:
        """A vhost that nobody has used, on a node that runs and has no alarm: another one, if the last is past help."""
        if self._node is None or self._vhosts is None or self._node.alarmed or not self._node.answers():
            self.end()
            self._node = RabbitNode()
            self._node.start()
            self._vhosts = VhostPool(self._node, dead_letters=True)
        return Victim(self._node, self._vhosts.take())

    def give_back(self, victim: Victim) -> None:
        """Have the vhost deleted, unless its node is."""
        if victim.node is self._node and self._vhosts is not None:
            self._vhosts.give_back(victim.vhost)

    def end(self) -> None:
        """Stop the node."""
        node, self._node = self._node, None
        if node is not None:
            node.stop(grace=0.0)  # nobody asks for its data
