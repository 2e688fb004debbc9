"""The protocol core of the event-driven architecture: decides everything, does no I/O.

Use it through an adapter (``eda_aio``), or embed :class:`Machine` in a transport of your own.
"""

from eda_core import criticality
from eda_core._version import __version__
from eda_core.errors import (
    BufferFull,
    CommandError,
    CommandTimeout,
    EdaError,
    LocalError,
    NoHandler,
    PayloadError,
    PublishError,
    Reject,
    ServiceError,
    StateError,
)
from eda_core.machine.aggregator import Batch, RawEvent
from eda_core.machine.config import Config
from eda_core.machine.effects import (
    Ack,
    BufferAvailable,
    Cancel,
    Close,
    Connect,
    Consume,
    Declare,
    Dispatch,
    Effect,
    Nack,
    Publish,
    PublishDone,
    PublishLog,
    Ready,
    Replied,
    Report,
    Returned,
    Stopped,
    Unconfigured,
)
from eda_core.machine.identifiers import DeliveryId, Epoch, PublishId
from eda_core.machine.machine import Machine
from eda_core.machine.outcomes import (
    CONFIGURED,
    DEFERRED,
    DONE,
    Configured,
    Deferred,
    Done,
    Failed,
    Outcome,
    failure,
    outcome,
)
from eda_core.machine.policy import ReconnectPolicy, RetryPolicy
from eda_core.messages.codec import CBOR, JSON, Limits
from eda_core.messages.routing import TopicPattern
from eda_core.messages.values import AnyMessage, Command, Configuration, Event, LogRecord, Message, Result
from eda_core.services.handlers import Handlers

__all__ = [
    "CBOR",
    "CONFIGURED",
    "DEFERRED",
    "DONE",
    "JSON",
    "Ack",
    "AnyMessage",
    "Batch",
    "BufferAvailable",
    "BufferFull",
    "Cancel",
    "Close",
    "Command",
    "CommandError",
    "CommandTimeout",
    "Config",
    "Configuration",
    "Configured",
    "Connect",
    "Consume",
    "Declare",
    "Deferred",
    "DeliveryId",
    "Dispatch",
    "Done",
    "EdaError",
    "Effect",
    "Epoch",
    "Event",
    "Failed",
    "Handlers",
    "Limits",
    "LocalError",
    "LogRecord",
    "Machine",
    "Message",
    "Nack",
    "NoHandler",
    "Outcome",
    "PayloadError",
    "Publish",
    "PublishDone",
    "PublishError",
    "PublishId",
    "PublishLog",
    "RawEvent",
    "Ready",
    "ReconnectPolicy",
    "Reject",
    "Replied",
    "Report",
    "Result",
    "RetryPolicy",
    "Returned",
    "ServiceError",
    "StateError",
    "Stopped",
    "TopicPattern",
    "Unconfigured",
    "__version__",
    "criticality",
    "failure",
    "outcome",
]
