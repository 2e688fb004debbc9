"""Real brokers for tests, and what stands between them and the services: sockets, threads and processes.

The embedded broker in this process, private nodes of RabbitMQ, a proxy that cuts, freezes and delays connections, a
``Bus`` that publishes and watches, and a ``ServiceRunner``. With pytest, the fixtures ``eda_broker``, ``eda_rabbitmq``,
``eda_bus`` and ``eda_service`` are shorter.
"""

from eda_core.testing.arrivals import Arrival, DeadLetter, Invalid, NotArrived
from eda_core.testing.live.bus import AsyncBus, Bus, ServiceDied
from eda_core.testing.live.client import ChannelClosed, Client, ClientChannel, Received
from eda_core.testing.live.embedded import EmbeddedBroker, EmbeddedBrokerThread
from eda_core.testing.live.proxy import Proxy
from eda_core.testing.live.rabbitmq import RabbitNode, RabbitNodeError
from eda_core.testing.live.replaying import Differs, read_messages, replay
from eda_core.testing.live.services import AnyService, ServiceRunner
from eda_core.testing.live.vhosts import RabbitVhost, VhostPool, prepare_dead_letters

__all__ = [
    "AnyService",
    "Arrival",
    "AsyncBus",
    "Bus",
    "ChannelClosed",
    "Client",
    "ClientChannel",
    "DeadLetter",
    "Differs",
    "EmbeddedBroker",
    "EmbeddedBrokerThread",
    "Invalid",
    "NotArrived",
    "Proxy",
    "RabbitNode",
    "RabbitNodeError",
    "RabbitVhost",
    "Received",
    "ServiceDied",
    "ServiceRunner",
    "VhostPool",
    "prepare_dead_letters",
    "read_messages",
    "replay",
]
