"""Real brokers for tests, and what stands between them and the services: sockets, threads and processes.

The embedded broker in this process, private nodes of RabbitMQ, a small client of AMQP, and a proxy that cuts, freezes
and delays connections. With pytest, the fixtures ``eda_broker`` and ``eda_rabbitmq`` are shorter.
"""

from eda_core.testing.live.client import ChannelClosed, Client, ClientChannel, Received
from eda_core.testing.live.embedded import EmbeddedBroker, EmbeddedBrokerThread
from eda_core.testing.live.proxy import Proxy
from eda_core.testing.live.rabbitmq import RabbitNode, RabbitNodeError
from eda_core.testing.live.vhosts import RabbitVhost, VhostPool

__all__ = [
    "ChannelClosed",
    "Client",
    "ClientChannel",
    "EmbeddedBroker",
    "EmbeddedBrokerThread",
    "Proxy",
    "RabbitNode",
    "RabbitNodeError",
    "RabbitVhost",
    "Received",
    "VhostPool",
]
