"""What an operator sets up once for dead letters (docs/architecture.rst, "Dead letters"), for tests on the model."""

from __future__ import annotations

from typing import Final

from pamqp import base, commands

from eda_core.messages.routing import EXCHANGES
from eda_core.testing.broker.arguments import Policy

#: The exchange of dead letters.
EXCHANGE: Final = "am-dlx"
#: The queue that all dead letters come to.
QUEUE: Final = "dead-letters"
#: The policy that makes the broker dead-letter what services reject.
POLICY: Final = Policy("DLX", r".*\.(events|commands)$", {"dead-letter-exchange": EXCHANGE})


def declarations(queue: str = QUEUE) -> list[base.Frame]:
    """The methods that declare the exchange, and a queue that all dead letters come to."""
    return [
        commands.Exchange.Declare(exchange=EXCHANGE, exchange_type="topic", durable=True),
        commands.Queue.Declare(queue=queue, durable=True),
        commands.Queue.Bind(queue=queue, exchange=EXCHANGE, routing_key="#"),
    ]


def exchanges() -> list[base.Frame]:
    """The methods that declare the exchanges of services, for tests that publish before any service runs."""
    return [commands.Exchange.Declare(exchange=name, exchange_type="topic", durable=True) for name in EXCHANGES]
