"""What travels on the bus: messages as values, and how they are written and read.

For peers that speak the protocol without a machine, and for tools. It knows nothing of services and links.
"""

from eda_core.messages import headers
from eda_core.messages.codec import CBOR, JSON, DecodeError, Limits, decode, encode
from eda_core.messages.envelope import InvalidEnvelope, open_envelope, seal
from eda_core.messages.gelf import record as gelf_record
from eda_core.messages.gelf import routing_key as log_routing_key
from eda_core.messages.properties import Properties, Unreadable
from eda_core.messages.routing import (
    COMMANDS,
    CONFIGURATIONS,
    EVENTS,
    EXCHANGES,
    LOGS,
    TopicPattern,
    check_name,
    queue_name,
)
from eda_core.messages.values import (
    ERROR,
    HEADER,
    JSON_MODEL,
    SUCCESS,
    AnyMessage,
    Command,
    Configuration,
    Event,
    LogRecord,
    Message,
    Result,
)

__all__ = [
    "CBOR",
    "COMMANDS",
    "CONFIGURATIONS",
    "ERROR",
    "EVENTS",
    "EXCHANGES",
    "HEADER",
    "JSON",
    "JSON_MODEL",
    "LOGS",
    "SUCCESS",
    "AnyMessage",
    "Command",
    "Configuration",
    "DecodeError",
    "Event",
    "InvalidEnvelope",
    "Limits",
    "LogRecord",
    "Message",
    "Properties",
    "Result",
    "TopicPattern",
    "Unreadable",
    "check_name",
    "decode",
    "encode",
    "gelf_record",
    "headers",
    "log_routing_key",
    "open_envelope",
    "queue_name",
    "seal",
]
