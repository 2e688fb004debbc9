"""The network of a world: what is on its way between machines and broker arrives, and connections open and end.

What goes wrong with connections by itself is in :mod:`eda_core.testing.explorer.faults`. This module does not know what
the machines do with what they are told, and whether that is right.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from pamqp import commands

from eda_core.machine import effects as fx
from eda_core.machine import link as life
from eda_core.machine.identifiers import Epoch, delivery_id
from eda_core.testing.broker.queue import ConnectionId
from eda_core.testing.broker.state import Outgoing
from eda_core.testing.explorer.judge import Judge, has_space, reply_key
from eda_core.testing.explorer.machines import Machines
from eda_core.testing.explorer.scenario import Step, Violation
from eda_core.testing.explorer.snapshot import label_of, results_dropped
from eda_core.testing.explorer.state import (
    ALIVE,
    CONSUMING,
    PUBLISHING,
    RESULT,
    RUNS,
    Node,
    SimulatedLink,
    State,
    Unsettled,
)

#: The broker's number of each channel of a link.
NUMBER: Final = (1, 2)
#: What the machine calls it.
_NAMES: Final = (fx.CONSUMING, fx.PUBLISHING)


@dataclass(slots=True, eq=False)
class Network:
    """The links of a world, and the broker's side of them."""

    _state: State
    _judge: Judge
    _machines: Machines

    def steps(self, index: int, link: SimulatedLink, usual: list[Step], other: list[Step]) -> None:
        """What can happen on a link."""
        epoch = link.epoch
        if link.connecting:
            usual.append(("closed" if link.closing else "connect", index, epoch))
            return
        if link.silent and link.attended and link.connection:
            return
        for channel in (CONSUMING, PUBLISHING):
            if link.up[channel]:
                usual.append(("up", index, epoch, channel))
            if link.down[channel]:
                if link.attended:
                    usual.append(("down", index, epoch, channel))
                elif self._state.may("late"):
                    other.append(("late", index, epoch, channel))
        if not link.connection:
            usual.append(("loss noticed", index, epoch))
        elif not link.attended:
            usual.append(("dead link noticed", index, epoch))
        else:
            if link.closing and not any(link.up):
                usual.append(("closed", index, epoch))
            self._confirm_steps(index, link, usual, other)

    def _confirm_steps(self, index: int, link: SimulatedLink, usual: list[Step], other: list[Step]) -> None:
        epoch, refusal = link.epoch, self._state.may("refusal")
        if link.shut:
            return
        waiting = self._state.broker.unconfirmed(ConnectionId(link.connection), NUMBER[PUBLISHING])
        for place, tag in enumerate(waiting):
            usual.append(("confirm", index, epoch, tag, False, True))
            if place:
                other.append(("confirm", index, epoch, tag, True, True))
            if refusal:
                other.append(("confirm", index, epoch, tag, False, False))
                if place:
                    other.append(("confirm", index, epoch, tag, True, False))

    # -- for the other parts ------------------------------------------------------------------------------------------

    def route(self, answers: Iterable[Outgoing]) -> None:
        """Put what the broker sends on its way to the machines."""
        owners = {
            link.connection: (index, epoch)
            for index, node in enumerate(self._state.nodes)
            for epoch, link in node.links.items()
            if link.connection
        }
        for out in answers:
            owner = owners.get(out.connection)
            if owner is None:
                continue  # the connection of an operator, or one that was just cut
            link = self._state.node(owner[0]).link(owner[1])
            method = out.method
            if isinstance(method, commands.Basic.Deliver):
                link.newest = method.delivery_tag or 0
                address = (method.exchange, method.routing_key)
                content = (link.newest, method.redelivered, *address, out.properties, out.body)
                link.answer(CONSUMING, ("deliver", *content))
                if not link.attended:
                    self._judge.never_seen(owner[0], link)
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

    def disconnect(self, index: int, epoch: Epoch) -> None:
        """The broker sees a connection end."""
        node = self._state.node(index)
        link = node.link(epoch)
        gone = ConnectionId(link.break_off())
        self.route(self._state.own_broker().disconnect(gone, now=self._state.now))
        if not link.attended:
            del node.links[epoch]

    def operate(self, methods: Iterable[tuple[Any, Any, bytes]]) -> None:
        """Somebody who is no machine connects, sends methods with their properties and bodies, and goes."""
        broker, now = self._state.own_broker(), self._state.now
        connection = broker.connect()
        broker.receive(connection, 1, commands.Channel.Open(), now=now)
        for method, properties, body in methods:
            self.route(broker.receive(connection, 1, method, properties, body, now=now))
        broker.disconnect(connection, now=now)

    # -- steps: links -------------------------------------------------------------------------------------------------

    def connect(self, index: int, epoch: Epoch) -> None:
        """A link is complete: connected, with both channels open."""
        broker, link = self._state.own_broker(), self._state.node(index).link(epoch)
        now = self._state.now
        link.connecting = False
        connection = broker.connect()
        link.connection = connection
        for number in NUMBER:
            broker.receive(connection, number, commands.Channel.Open(), now=now)
        broker.receive(connection, NUMBER[PUBLISHING], commands.Confirm.Select(), now=now)
        self._machines.tell(index, "link_up", epoch)

    def loss_noticed(self, index: int, epoch: Epoch) -> None:
        """The service sees that its connection is gone."""
        self._machines.tell(index, "link_down", epoch, "cut")

    def dead_link_noticed(self, index: int, epoch: Epoch) -> None:
        """The broker sees that the service has given up a connection."""
        self.disconnect(index, epoch)

    def closed(self, index: int, epoch: Epoch) -> None:
        """A link that the machine closes is closed."""
        if self._state.nodes[index].links[epoch].connection:
            self.disconnect(index, epoch)
        self._machines.tell(index, "link_down", epoch, "closed")

    # -- steps: towards the broker ------------------------------------------------------------------------------------

    def up(self, index: int, epoch: Epoch, channel: int) -> None:
        """The broker receives what was sent first on a channel."""
        state = self._state
        link = state.node(index).link(epoch)
        kind, *content = link.take(channel, downwards=False)
        broker, connection, number = state.own_broker(), ConnectionId(link.connection), NUMBER[channel]
        if kind == "declare":
            replies = []
            declare = content[0]
            for method in declare.commands:
                for out in broker.receive(connection, number, method, now=state.now):
                    if isinstance(out.method, commands.Channel.Close):
                        self.route([out])
                    replies.append(out.method)
            link.answer(CONSUMING, ("declared", tuple(replies), declare.channel))
        elif kind == "open channel":
            for opening in (commands.Channel.Open(), commands.Confirm.Select()):
                broker.receive(connection, number, opening, now=state.now)
            link.shut = False
            link.answer(PUBLISHING, ("channel opened",))
        elif link.shut and channel == PUBLISHING:
            pass  # the broker discards it
        elif kind == "probe":  # the model of the broker does not know Channel.Flow
            link.answer(channel, ALIVE)
        elif kind == "publish" and label_of(content[3]) in state.scenario.untaken:
            # For what the broker still knows of the channel it makes no difference which side closes it.
            broker.receive(connection, number, commands.Channel.Close(403, "", 0, 0), now=state.now)
            link.shut = True
            link.answer(PUBLISHING, ("channel closed",))
        elif kind == "publish":
            _tag, method, properties, body = content
            self.route(broker.receive(connection, number, method, properties, body, now=state.now))
        else:
            method = content[0]
            self.route(broker.receive(connection, number, method, now=state.now))
            if isinstance(method, commands.Basic.Ack) and link.attended:
                self._judge.acknowledgement_arrives(state.node(index), method.delivery_tag or 0, method.multiple)
            self._judge.lost()

    def confirm(self, index: int, epoch: Epoch, tag: int, multiple: bool, ok: bool) -> None:
        """The broker confirms or refuses a publish. That is on its way then."""
        if not ok:
            self._state.spend("refusal")
        link, number = self._state.node(index).link(epoch), NUMBER[PUBLISHING]
        self._state.own_broker().confirm(ConnectionId(link.connection), number, tag=tag, multiple=multiple, ok=ok)
        link.answer(PUBLISHING, ("confirm", tag, multiple, ok))

    # -- steps: towards the machine -----------------------------------------------------------------------------------

    def down(self, index: int, epoch: Epoch, channel: int) -> None:
        """The machine is told of what the broker sent first on a channel."""
        node = self._state.node(index)
        link = node.link(epoch)
        kind, *content = link.take(channel, downwards=True)
        if kind == "alive":
            self._machines.tell(index, "alive", link.epoch, channel=_NAMES[channel], answered=True)
        else:
            _TELL[kind](self, index, node, link, *content)

    def late(self, index: int, epoch: Epoch, channel: int) -> None:
        """R4: the machine is told of what came on a link that it has given up, and ignores it."""
        self._state.spend("late")
        self.down(index, epoch, channel)

    def _tell_deliver(self, index: int, node: Node, link: SimulatedLink, *content: Any) -> None:
        tag, key, body = content[0], content[3], content[5]
        label = label_of(body)
        result = key == reply_key(index, node)
        if link.attended:
            link.told = tag
            adopter = None if result else self._judge.adopter(node, label, content[1])
            if adopter is None:
                node.unsettled[tag] = Unsettled(delivery_id(link.epoch, tag), tag, label, RESULT if result else RUNS)
            else:
                self._judge.adopted(node, adopter, tag)
        if link.attended and result:
            self._tell_result(index, node, link.epoch, label.partition("=")[0], content)
        else:
            self._machines.tell(index, "delivered", link.epoch, *content)
        served = node.machine.state in (life.OPEN, life.DRAINING) and has_space(node)  # else it waits for space
        begins = served and not self._judge.keeps_waiting(node, label)
        if link.attended and begins and tag in node.unsettled and node.unsettled[tag].id not in node.runs:
            raise Violation("I3", f"the delivery of {label} is ignored")

    def _tell_result(self, index: int, node: Node, epoch: Epoch, label: str, content: tuple[Any, ...]) -> None:
        expected = any(call.label == label for call in node.calls.values())
        before = results_dropped(node.machine)
        self._machines.tell(index, "delivered", epoch, *content)
        self._judge.result(node, label, results_dropped(node.machine) - before, expected)

    def _tell_declared(
        self, index: int, node: Node, link: SimulatedLink, replies: tuple[Any, ...], channel: str
    ) -> None:
        before = node.machine.state
        self._machines.tell(index, "declared", link.epoch, replies, channel=channel)
        if before not in life.SERVING and node.machine.state in life.SERVING:
            node.opened, node.silent = True, node.silent - {node.url}
        if before is not life.OPEN and node.machine.state is life.OPEN:
            node.refused = frozenset()
            self._judge.sent_again(node, node.links[link.epoch])

    def _tell_confirm(self, index: int, node: Node, link: SimulatedLink, tag: int, multiple: bool, ok: bool) -> None:
        tags = [each for each in link.sent if each <= tag] if multiple else [tag]
        for each in tags:
            key = link.sent.pop(each, None)
            if key is not None and key in node.unconfirmed:
                self._judge.answered(node, key, ok)
        self._machines.tell(index, "confirmed" if ok else "refused", link.epoch, tag, multiple=multiple)

    def _tell_channel_closed(self, index: int, node: Node, link: SimulatedLink) -> None:
        call = self._judge.channel_closed(node, link)
        link.sent.clear()
        link.last = 0
        self._machines.tell(index, "channel_closed", link.epoch, "ACCESS_REFUSED - no", channel=fx.PUBLISHING)
        if any(each.label == call for each in node.calls.values()):
            raise Violation("call", f"the broker does not take {call}, and its caller is not told")

    def _tell_channel_opened(self, index: int, node: Node, link: SimulatedLink) -> None:
        self._machines.tell(index, "channel_opened", link.epoch)

    def _tell_cancelled(self, index: int, node: Node, link: SimulatedLink, tag: str) -> None:
        self._machines.tell(index, "consumer_cancelled", link.epoch, tag)

    def _tell_returned(self, index: int, node: Node, link: SimulatedLink, *content: Any) -> None:
        self._machines.tell(index, "returned", link.epoch, *content)

    def _tell_blocked(self, index: int, node: Node, link: SimulatedLink, reason: str) -> None:
        link.blocked = link.attended
        self._machines.tell(index, "blocked", link.epoch, reason)

    def _tell_unblocked(self, index: int, node: Node, link: SimulatedLink) -> None:
        link.blocked = False
        self._machines.tell(index, "unblocked", link.epoch)


_TELL: Final[dict[str, Any]] = {
    "deliver": Network._tell_deliver,
    "declared": Network._tell_declared,
    "confirm": Network._tell_confirm,
    "cancelled": Network._tell_cancelled,
    "returned": Network._tell_returned,
    "channel closed": Network._tell_channel_closed,
    "channel opened": Network._tell_channel_opened,
    "blocked": Network._tell_blocked,
    "unblocked": Network._tell_unblocked,
}
