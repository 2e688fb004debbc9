"""What people do in a world: they set up the broker, send messages to the services, and stop services.

This module decides which of these steps are possible. It does not know what the services do then.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pamqp import commands

from eda_core.machine import link as life
from eda_core.messages.codec import CBOR, DEFAULT_LIMITS
from eda_core.messages.envelope import seal
from eda_core.messages.routing import CONFIGURATIONS
from eda_core.messages.values import AnyMessage
from eda_core.testing.broker.dead_letters import declarations, exchanges
from eda_core.testing.explorer.batches import Batches
from eda_core.testing.explorer.judge import DEAD, SINK, Judge
from eda_core.testing.explorer.machines import Machines
from eda_core.testing.explorer.network import Network
from eda_core.testing.explorer.scenario import Step
from eda_core.testing.explorer.state import Node, State


@dataclass(slots=True, eq=False)
class Operator:
    """The people around the services."""

    _state: State
    _judge: Judge
    _machines: Machines
    _network: Network
    _batches: Batches

    def steps(self, index: int, node: Node, usual: list[Step], other: list[Step]) -> None:
        """What can be done with a worker."""
        if node.machine.state in (life.STOPPED, life.CLOSING):
            return
        state = self._state
        if node.wants_configuration and not state.alarm:
            usual.append(("configuration comes", index))
        if not index and node.outside < len(state.scenario.outside) and state.may("outside"):
            other.append(("publishes outside", index))
        if node.stop_due is None and state.may("stop"):
            other.append(("stop", index))

    def set_up(self) -> None:
        """Declare what an operator declares once: dead letters, and a queue for messages to nobody."""
        sinks = self._state.scenario.sinks
        methods: list[Any] = [*exchanges(), *declarations(DEAD), commands.Queue.Declare(queue=SINK, durable=True)]
        methods += [commands.Queue.Bind(queue=SINK, exchange=x, routing_key=key) for x, key in sinks]
        self._network.operate((method, None, b"") for method in methods)

    def send(self, message: AnyMessage) -> None:
        """Somebody publishes a message to the services."""
        exchange, routing_key, properties, body = seal(message, CBOR, DEFAULT_LIMITS)
        if self._state.scenario.message_ids:
            properties.message_id = str(message.payload)
        if exchange != CONFIGURATIONS:  # the broker does not keep those for a service that is not there
            self._judge.promise(str(message.payload))
        method = commands.Basic.Publish(exchange=exchange, routing_key=routing_key)
        self._network.operate([(method, properties, body)])
        self._judge.lost()

    # -- steps --------------------------------------------------------------------------------------------------------

    def publishes_outside(self, index: int) -> None:
        """A service publishes or calls outside its handlers."""
        self._state.spend("outside")
        node = self._state.node(index)
        post = self._state.scenario.outside[node.outside]
        node.outside += 1
        self._machines.post(index, post, None, "")

    def stop(self, index: int) -> None:
        """A service is asked to stop."""
        self._state.spend("stop")
        node = self._state.node(index)
        node.stop_due = self._state.now + node.machine.config.stop_timeout
        self._machines.tell(index, "stop")
        if node.batch is not None:
            self._batches.hand_over(index, None)

    def configuration_comes(self, index: int) -> None:
        """Somebody sends the configuration that a service waits for."""
        self._state.node(index).wants_configuration = False
        if self._state.scenario.configuration is not None:
            self.send(self._state.scenario.configuration)
