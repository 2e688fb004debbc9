"""What goes wrong with the network and the broker of a world, as often as the scenario allows.

Handlers that fail are in :mod:`eda_core.testing.explorer.handlers`, publishes that the broker refuses and what comes
late in :mod:`eda_core.testing.explorer.network`. This module does not know what a
fault must not lead to.
"""

from __future__ import annotations

from dataclasses import dataclass

from eda_core.machine import link as life
from eda_core.machine.effects import CREDENTIALS
from eda_core.machine.identifiers import Epoch
from eda_core.testing.broker.queue import ConnectionId
from eda_core.testing.explorer.judge import Judge
from eda_core.testing.explorer.machines import Machines
from eda_core.testing.explorer.network import NUMBER, Network
from eda_core.testing.explorer.scenario import Step
from eda_core.testing.explorer.state import CONSUMING, Node, SimulatedLink, State


@dataclass(slots=True, eq=False)
class Faults:
    """Connections that fail, and a broker that is short of memory, cancels, closes and restarts."""

    _state: State
    _judge: Judge
    _machines: Machines
    _network: Network

    def link_steps(self, index: int, node: Node, link: SimulatedLink, other: list[Step]) -> None:
        """What can go wrong with a link."""
        epoch, may = link.epoch, self._state.may
        if link.connecting:
            other += [(kind, index, epoch) for kind in ("no link", "bad login") if may(kind.replace(" ", "_"))]
        elif link.connection and link.attended:
            if may("drop"):
                other += [("drop seen by the service", index, epoch), ("drop seen by the broker", index, epoch)]
            if node.machine.state is life.OPEN and may("cancel"):
                other.append(("consumer cancelled", index, epoch))
            if may("channel"):
                other.append(("channel closed", index, epoch))
            if link.silent:
                other.append(("speaks again", index, epoch))
            elif may("silence"):
                other.append(("falls silent", index, epoch))

    def worker_steps(self, index: int, node: Node, other: list[Step]) -> None:
        """What can go wrong with a worker."""
        if self._state.may("kill") and node.stop_due is None and not node.over:
            other.append(("kill", index))

    def broker_steps(self, usual: list[Step], other: list[Step]) -> None:
        """What can go wrong with the broker. That an alarm ends is usual."""
        if self._state.alarm:
            usual.append(("alarm ends", -1))
        elif self._state.may("alarm"):
            other.append(("alarm", -1))
        if self._state.may("restart"):
            other.append(("restart", -1))

    # -- steps: links -------------------------------------------------------------------------------------------------

    def no_link(self, index: int, epoch: Epoch) -> None:
        """The broker cannot be reached."""
        self._state.spend("no_link")
        self._machines.tell(index, "link_down", epoch, "connection refused")

    def bad_login(self, index: int, epoch: Epoch) -> None:
        """The broker refuses the credentials."""
        self._state.spend("bad_login")
        node = self._state.node(index)
        node.link(epoch).refused = True
        node.refused |= {node.url}
        self._machines.tell(index, "link_down", epoch, "access refused", refused=CREDENTIALS)

    def drop_seen_by_the_service(self, index: int, epoch: Epoch) -> None:
        """The service sees its connection end. What it has sent may still arrive; the broker sees the end later."""
        self._state.spend("drop")
        self._machines.tell(index, "link_down", epoch, "cut")

    def drop_seen_by_the_broker(self, index: int, epoch: Epoch) -> None:
        """The broker sees a connection end. What it has sent may still arrive; the service sees the end later."""
        self._state.spend("drop")
        self._network.disconnect(index, epoch)

    def consumer_cancelled(self, index: int, epoch: Epoch) -> None:
        """The broker cancels a consumer of the link."""
        state = self._state
        state.spend("cancel")
        connection = ConnectionId(state.nodes[index].links[epoch].connection)
        tags = [
            tag
            for name in state.broker.queue_names()
            for owner, _, tag in state.broker.consumers(name)
            if owner == connection
        ]
        if tags:
            cancel = state.own_broker().force_consumer_cancel
            self._network.route(cancel(connection, NUMBER[CONSUMING], tags[0], now=state.now))

    def channel_closed(self, index: int, epoch: Epoch) -> None:
        """The broker closes a channel of the link."""
        self._state.spend("channel")
        self._machines.tell(index, "channel_closed", epoch, "a precondition failed")

    def kill(self, index: int) -> None:
        """The process of a worker is killed, and a new one is started. The broker notices later."""
        self._state.spend("kill")
        self._judge.killed(index)
        self._state.new_worker(index)
        self._machines.tell(index, "start")

    def falls_silent(self, index: int, epoch: Epoch) -> None:
        """The broker stands still, or the network drops everything. No connection ends."""
        self._state.spend("silence")
        self._state.node(index).link(epoch).silent = True

    def speaks_again(self, index: int, epoch: Epoch) -> None:
        """What was on its way arrives after all."""
        self._state.node(index).link(epoch).silent = False

    # -- steps: the broker --------------------------------------------------------------------------------------------

    def alarm(self, _: int) -> None:
        """The broker is short of memory."""
        self._state.spend("alarm")
        self._state.alarm = True
        self._network.route(self._state.own_broker().set_alarm(True, now=self._state.now))

    def alarm_ends(self, _: int) -> None:
        """The broker has memory again."""
        self._state.alarm = False
        self._network.route(self._state.own_broker().set_alarm(False, now=self._state.now))

    def restart(self, _: int) -> None:
        """The broker is killed and starts again. No service has noticed yet."""
        state = self._state
        state.spend("restart")
        state.alarm = False
        state.own_broker().restart(now=state.now)
        for index in range(len(state.nodes)):
            node = state.node(index)
            node.unseen |= state.promised - node.seen  # the broker marks everything as redelivered
            for epoch, link in list(node.links.items()):
                if link.connection:
                    own = node.link(epoch)
                    own.break_off()
                    if not own.attended:
                        del node.links[epoch]
        self._judge.lost()
