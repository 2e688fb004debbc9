"""Tools to test services without a broker: a model of RabbitMQ, and what is built on it. Pure, like the core."""

from __future__ import annotations

from eda_core.testing.broker import Broker, ConnectionId, Outgoing, Policy

__all__ = ["Broker", "ConnectionId", "Outgoing", "Policy"]
