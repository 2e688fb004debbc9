"""What the broker of a world sends, and those who use it beside the services."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pamqp import commands

from eda_core.machine.identifiers import Epoch
from eda_core.testing.broker.queue import ConnectionId
from eda_core.testing.broker.state import Outgoing
from eda_core.testing.explorer.model import Node, Violation
from eda_core.testing.explorer.state import CONSUMING, PUBLISHING, WorldState


class Network(WorldState):
    """The broker's side."""

    __slots__ = ()

    def _route(self, answers: Iterable[Outgoing]) -> None:
        """Put what the broker sends on its way."""
        owners = {
            link.connection: (index, epoch)
            for index, node in enumerate(self.nodes)
            for epoch, link in node.links.items()
            if link.connection
        }
        for out in answers:
            owner = owners.get(out.connection)
            if owner is None:
                continue  # an operator's, or just cut
            link = self._node(owner[0]).link(owner[1])
            method = out.method
            if isinstance(method, commands.Basic.Deliver):
                link.newest = method.delivery_tag or 0
                address = (method.exchange, method.routing_key)
                content = (link.newest, method.redelivered, *address, out.properties, out.body)
                link.answer(CONSUMING, ("deliver", *content))
                if not link.attended:
                    self._unseen(owner[0], link)
            elif isinstance(method, (commands.Channel.Close, commands.Connection.Close)):
                raise Violation("I2", f"the broker closes: {method.reply_text}")
            elif isinstance(method, commands.Basic.Cancel):
                link.answer(CONSUMING, ("cancelled", method.consumer_tag))
            elif isinstance(method, commands.Basic.Return):
                address = (method.exchange, method.routing_key)
                link.answer(PUBLISHING, ("returned", *address, out.properties, out.body, method.reply_text))
            elif isinstance(method, commands.Connection.Blocked):
                link.answer(PUBLISHING, ("blocked", method.reason))
            elif isinstance(method, commands.Connection.Unblocked):
                link.answer(PUBLISHING, ("unblocked",))

    def _disconnect(self, node: Node, epoch: Epoch) -> None:
        link = node.link(epoch)
        gone, link.connection = link.connection, 0
        link.lose_up()
        self._route(self._own_broker().disconnect(ConnectionId(gone), now=self.now))
        if not link.attended:
            del node.links[epoch]

    def _operate(self, methods: Iterable[tuple[Any, Any, bytes]]) -> None:
        broker = self._own_broker()
        operator = broker.connect()
        broker.receive(operator, 1, commands.Channel.Open(), now=self.now)
        for method, properties, body in methods:
            self._route(broker.receive(operator, 1, method, properties, body, now=self.now))
        broker.disconnect(operator, now=self.now)
