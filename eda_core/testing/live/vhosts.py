"""Vhosts of RabbitMQ nodes that tests share: an empty broker for each, as far as it can see."""

from __future__ import annotations

from dataclasses import dataclass

from eda_core.testing.broker.dead_letters import declarations
from eda_core.testing.live.client import Client
from eda_core.testing.live.rabbitmq import RabbitNode


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
class RabbitVhost:
    """A vhost of a node.

    Attributes:
        node: the node.
        vhost: the name of the vhost.
    """

    node: RabbitNode
    vhost: str

    @property
    def url(self) -> str:
        """The address of the vhost."""
        return self.node.vhost_url(self.vhost)


async def prepare_dead_letters(url: str) -> None:
    """Declare what the operator of a RabbitMQ declares for dead letters: an exchange, and a queue that is bound to it.

    Args:
        url: of a vhost that has the policy.

    Raises:
        ConnectionError: there is no broker, or it refuses.
    """
    client = await Client.connect(url, "operator")
    channel = await client.channel()
    for method in declarations():
        await channel.ask(method)
    await client.close()
