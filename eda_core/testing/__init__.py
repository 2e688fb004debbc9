"""Tools to test services without a broker: a model of RabbitMQ, and what is built on it. Pure, like the core."""

from __future__ import annotations

from eda_core.testing.broker.arguments import Policy
from eda_core.testing.broker.model import Broker
from eda_core.testing.broker.queue import ConnectionId
from eda_core.testing.broker.state import Outgoing

__all__ = ["Broker", "ConnectionId", "Outgoing", "Policy"]
