"""The names of the headers that the toolkit reads or writes. This module does not know what they contain.

The toolkit's own never begin with ``x-``: such names belong to the broker (docs/architecture.rst, "Properties and
headers").
"""

from __future__ import annotations

from typing import Final

#: The ``conversation_id`` of a message.
CONVERSATION_ID: Final = "conversation_id"
#: The ``status`` of a result.
STATUS: Final = "status"
#: The ``message_id`` of the message whose handler published this one. Tools draw the tree of a conversation from it.
CAUSATION_ID: Final = "causation_id"
#: Identifies what a handler has published. It is the same each time the same message is handled again.
DEDUPLICATION_ID: Final = "deduplication_id"

#: The key under which the payload of a message is in a store (docs/howto/large-payloads.rst).
CLAIM_CHECK: Final = "claim_check"

#: How many attempts at a message failed before its delayed retry was published.
ATTEMPT: Final = "attempt"
#: The exchange to which a message was published first, if it was later put straight into a queue.
ORIGIN_EXCHANGE: Final = "origin_exchange"
#: The routing key with which it was published first.
ORIGIN_ROUTING_KEY: Final = "origin_routing_key"

# Of dead letters that a service has published itself (docs/operating/dead-letters.rst, "The reason in the message")

#: The name of the type of the exception. It is absent if there was none.
ERROR_TYPE: Final = "error_type"
#: What the exception says, or why the message was given up without one.
ERROR_MESSAGE: Final = "error_message"
#: The traceback, of which the end is kept. It is absent if there is none, or if it does not fit.
ERROR_TRACEBACK: Final = "error_traceback"
#: The service that has given the message up, and its queue.
ERROR_SERVICE: Final = "error_service"
ERROR_QUEUE: Final = "error_queue"
#: How often the service has tried it.
ERROR_ATTEMPTS: Final = "error_attempts"
#: When it was given up, in UTC, by ISO 8601.
ERROR_TIME: Final = "error_time"
ERRORS: Final = (*(ERROR_TYPE, ERROR_MESSAGE, ERROR_TRACEBACK, ERROR_SERVICE, ERROR_QUEUE, ERROR_ATTEMPTS, ERROR_TIME),)

#: How often the message came back to a quorum queue; from RabbitMQ 4.3 on, without those times when a consumer gave it
#: back. It may be 0 or absent (docs/design.rst, "Delivery counts" and "Acquired count").
DELIVERY_COUNT_HEADER: Final = "x-delivery-count"
#: How often a quorum queue delivered the message before. RabbitMQ writes it from version 4.3 on (docs/design.rst,
#: "Acquired count").
ACQUIRED_COUNT_HEADER: Final = "x-acquired-count"

#: RabbitMQ also routes a message by these. It would do so with a copy too, and it closes the channel if they are no
#: lists.
ROUTING: Final = ("CC", "BCC")
