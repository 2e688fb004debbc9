"""One method of a client on its way through the broker: what a function that carries it out needs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from pamqp import base, commands

from eda_core.testing.broker.engine import Engine
from eda_core.testing.broker.message import NOT_FOUND, RESOURCE_LOCKED, AmqpMessage, Refusal
from eda_core.testing.broker.queue import Queue
from eda_core.testing.broker.state import Channel, Connection, Outgoing, frame
from eda_core.testing.broker.topology import QUEUE, Topology

_NO_ROUTE: Final = 312


@dataclass(slots=True)
class Call:
    """One method of a client on an open channel, and what is needed to answer it.

    Attributes:
        properties, body: the content of the method, if it has one.
        fresh_name: makes a name that begins with its argument.
        auto_confirm: confirm publishes at once.
    """

    engine: Engine
    connection: Connection
    channel: Channel
    properties: commands.Basic.Properties | None
    body: bytes
    fresh_name: Callable[[str], str]
    auto_confirm: bool

    @property
    def topology(self) -> Topology:
        """What is declared in the virtual host of the connection."""
        return self.engine.topologies[self.connection.vhost]

    def reply(self, method: base.Frame, *, unless: bool = False) -> None:
        """Send a method back, ``unless`` the client wants no reply."""
        if not unless:
            self.engine.send(self.channel, method)

    def place(self, message: AmqpMessage, queues: Sequence[str], *, mandatory: bool) -> bool:
        """Put a message in queues, and send it back if it is ``mandatory`` and there is none of them.

        Args:
            queues: their names (see ``Engine.route``).

        Returns:
            Whether all of these queues took it.
        """
        routed, accepted = self.engine.place(self.connection.vhost, queues, message)
        self.engine.place_dead_letters()
        if mandatory and not routed:
            self.send_back(message)
        return accepted

    def send_back(self, message: AmqpMessage) -> None:
        """Send ``Basic.Return`` with a message that could not be routed."""
        method = frame(
            commands.Basic.Return,
            reply_code=_NO_ROUTE,
            reply_text="NO_ROUTE",
            exchange=message.exchange,
            routing_key=message.routing_keys[0],
        )
        self.engine.out.append(
            Outgoing(self.connection.id, self.channel.number, method, message.properties, message.body)
        )

    def queue(self, name: str) -> Queue:
        """The queue of this name.

        Raises:
            Refusal: 404, there is none; 405, it is exclusive to another connection.
        """
        queue = self.engine.queue(self.connection.vhost, name)
        self.demand_access(queue)
        return queue

    def demand_access(self, queue: Queue) -> None:
        """Check that the connection may use a queue.

        Raises:
            Refusal: 405. The queue is exclusive to another connection.
        """
        if queue.owner not in (None, self.connection.id):
            raise self.locked(queue)

    def locked(self, queue: Queue) -> Refusal:
        """The refusal of a queue that is exclusive to another connection."""
        explanation = (
            f"cannot obtain exclusive access to locked {self.word(queue)}. It could be originally declared on another "
            "connection or the exclusive property value does not match that of the original declaration."
        )
        return Refusal(RESOURCE_LOCKED, explanation)

    def word(self, queue: Queue) -> str:
        """How RabbitMQ words the queue in its texts."""
        return self.topology.word(QUEUE, queue.name)

    def named(self, name: str) -> str:
        """``name``; if it is empty, the queue that was declared last on the channel.

        Raises:
            Refusal: 404. ``name`` is empty, and no queue was declared on the channel.
        """
        if name:
            return name
        if not self.channel.last_queue:
            raise Refusal(NOT_FOUND, "no previously declared queue")
        return self.channel.last_queue
