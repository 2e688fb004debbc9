"""Tools to test services without a broker: a model of RabbitMQ, and what is built on it. Pure, like the core.

The model is here; the other parts have packages of their own: :mod:`eda_core.testing.wire` (AMQP 0-9-1 in front of the
model), :mod:`eda_core.testing.explorer`, :mod:`eda_core.testing.conformance` (checks for transports),
:mod:`eda_core.testing.simulation` (runs services) and :mod:`eda_core.testing.strategies` (for hypothesis).
"""

from eda_core.testing.broker import AmqpMessage, Binding, Broker, ConnectionId, Entry, Outgoing, Policy, Queue

__all__ = ["AmqpMessage", "Binding", "Broker", "ConnectionId", "Entry", "Outgoing", "Policy", "Queue"]
