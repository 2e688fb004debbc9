"""The core of the toolkit: it decides everything that a service does on the bus, and does no I/O.

Use it through an adapter, such as ``eda_aio``, or embed :class:`Machine` in your own transport (docs/embedding.rst).
"""

from eda_core import criticality
from eda_core._version import __version__
from eda_core.errors import (
    BufferFull,
    CommandError,
    CommandTimeout,
    EdaError,
    InvalidPayload,
    LocalError,
    NoHandler,
    NotAnswered,
    NotReady,
    PayloadError,
    PublishError,
    PublishRefused,
    PublishTimeout,
    Reject,
    ServiceError,
    StateError,
)
from eda_core.machine.aggregator import Aggregator
from eda_core.machine.calls import answer
from eda_core.machine.config import Config
from eda_core.machine.counts import HANDLER_BOUNDS
from eda_core.machine.deliveries import Read
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
    OpenChannel,
    Probe,
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
from eda_core.machine.health import Health, LastError, LinkHealth
from eda_core.machine.identifiers import DeliveryId, Epoch, PublishId
from eda_core.machine.machine import Machine
from eda_core.machine.metrics import METERS, HandlerMetrics, Meter, Metrics
from eda_core.machine.outbox import Confirms
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
from eda_core.services.batch import RawEvent
from eda_core.services.handlers import Handlers
from eda_core.urls import Address, check_urls, redact

__all__ = [
    "CBOR",
    "CONFIGURED",
    "DEFERRED",
    "DONE",
    "HANDLER_BOUNDS",
    "JSON",
    "METERS",
    "Ack",
    "Address",
    "Aggregator",
    "AnyMessage",
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
    "Confirms",
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
    "HandlerMetrics",
    "Handlers",
    "Health",
    "InvalidPayload",
    "LastError",
    "Limits",
    "LinkHealth",
    "LocalError",
    "LogRecord",
    "Machine",
    "Message",
    "Meter",
    "Metrics",
    "Nack",
    "NoHandler",
    "NotAnswered",
    "NotReady",
    "OpenChannel",
    "Outcome",
    "PayloadError",
    "Probe",
    "Publish",
    "PublishDone",
    "PublishError",
    "PublishId",
    "PublishLog",
    "PublishRefused",
    "PublishTimeout",
    "RawEvent",
    "Read",
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
    "answer",
    "check_urls",
    "criticality",
    "failure",
    "outcome",
    "redact",
]
