"""The names of the headers that the toolkit reads or writes.

Those of its own never begin with ``x-``: such names belong to the broker.
"""

from __future__ import annotations

from typing import Final

CONVERSATION_ID: Final = "conversation_id"
STATUS: Final = "status"
#: Header of ours: the ``message_id`` of the message whose handler published this one. Draws the tree of a conversation.
CAUSATION_ID: Final = "causation_id"

#: How many attempts a republished message has behind it.
ATTEMPT: Final = "attempt"
#: Where a message that was put straight into a queue was published first.
ORIGIN_EXCHANGE: Final = "origin_exchange"
ORIGIN_ROUTING_KEY: Final = "origin_routing_key"

#: RabbitMQ's count on quorum queues: 0 or absent on the first delivery (docs/design.rst, "Delivery counts").
DELIVERY_COUNT_HEADER: Final = "x-delivery-count"

#: By these the broker routes copies elsewhere, of the copy too; it closes the channel if they are no lists.
ROUTING: Final = ("CC", "BCC")
