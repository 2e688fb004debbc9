"""Vhosts of RabbitMQ nodes that tests share: an empty broker for each, as far as it can see."""

from __future__ import annotations

from dataclasses import dataclass

from tests.support.rabbitmq import RabbitNode


class VhostPool:
    """Fresh vhosts of one node. They are made and deleted by the batch, since every rabbitmqctl takes half a second.

    Args:
        dead_letters: they have the policy of ``set_dlx_policy``.
    """

    BATCH = 16

    def __init__(self, node: RabbitNode, *, dead_letters: bool = False) -> None:
        self._node = node
        self._dead_letters = dead_letters
        self._fresh: list[str] = []
        self._used: list[str] = []
        self._made = 0

    def take(self) -> str:
        """The name of a vhost that nobody has used."""
        if not self._fresh:
            # As many as there were before, since each costs the node something whether it is used or not.
            number = min(max(4, self._made), self.BATCH)
            names = [f"test-{self._made + each}" for each in range(number)]
            self._made += number
            self._node.change_vhosts(add=names, delete=self._used, dead_letters=self._dead_letters)
            self._used.clear()
            self._fresh = names[::-1]  # now that they are there: what fails here must not fail all that follow
        return self._fresh.pop()

    def give_back(self, name: str) -> None:
        """Have a vhost deleted, with what is in it and the connections to it, when the next batch is made."""
        self._used.append(name)


@dataclass(frozen=True, slots=True)
class Victim:
    """A vhost of a node that may be killed, frozen and alarmed.

    Attributes:
        node, vhost: those. The vhost has the dead-letter policy.
    """

    node: RabbitNode
    vhost: str

    @property
    def url(self) -> str:
        """The address of the vhost."""
        return self.node.vhost_url(self.vhost)


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
