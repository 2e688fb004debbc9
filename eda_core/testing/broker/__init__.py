"""A model of RabbitMQ as a value: methods of AMQP 0-9-1 and the time go in, the methods that go back come out."""

from eda_core.testing.broker.arguments import Policy
from eda_core.testing.broker.bindings import Binding
from eda_core.testing.broker.message import AmqpMessage
from eda_core.testing.broker.model import Broker
from eda_core.testing.broker.queue import ConnectionId, Queue
from eda_core.testing.broker.ready import Entry
from eda_core.testing.broker.state import Outgoing

__all__ = ["AmqpMessage", "Binding", "Broker", "ConnectionId", "Entry", "Outgoing", "Policy", "Queue"]
