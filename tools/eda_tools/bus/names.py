"""AMQP methods for queues and exchanges of any name. It decides nothing.

pamqp refuses most characters, and exchange names of more than 127 bytes. RabbitMQ accepts both, so a queue with an
unusual name would end a tool. Names must still fit into 255 bytes (:func:`eda_core.messages.routing.check_name`).
"""

from __future__ import annotations

from pamqp.commands import Exchange, Queue


class _AnyName:
    def validate(self) -> None:
        """Accept every name."""


class QueueDeclare(_AnyName, Queue.Declare):
    """``Queue.Declare``."""


class ExchangeDeclare(_AnyName, Exchange.Declare):
    """``Exchange.Declare``."""


class QueueUnbind(_AnyName, Queue.Unbind):
    """``Queue.Unbind``."""
