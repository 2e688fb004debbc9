"""What authors of services subclass, whatever the adapter: handlers, publishing, batches, and eventail's names.

An adapter's ``Service`` derives from one of these. They know no event loop and no client library.
"""

from eda_core.services.api import ServiceApi
from eda_core.services.batch import EventBatch, RawEvent
from eda_core.services.callbacks import CallbackBatch, CallbackService
from eda_core.services.claims import ClaimCheck, ClaimStore
from eda_core.services.coroutines import CoroutineBatch, CoroutineService
from eda_core.services.endpoints import EndpointApi
from eda_core.services.eventail import EventailCoroutines, EventailNames, EventailService, time_to_stop
from eda_core.services.handlers import Handlers
from eda_core.services.inbox import Inbox, Once
from eda_core.services.log_bridge import LogBridge
from eda_core.services.stores import DatabaseStore, MemoryStore, Store

__all__ = [
    "CallbackBatch",
    "CallbackService",
    "ClaimCheck",
    "ClaimStore",
    "CoroutineBatch",
    "CoroutineService",
    "DatabaseStore",
    "EndpointApi",
    "EventBatch",
    "EventailCoroutines",
    "EventailNames",
    "EventailService",
    "Handlers",
    "Inbox",
    "LogBridge",
    "MemoryStore",
    "Once",
    "RawEvent",
    "ServiceApi",
    "Store",
    "time_to_stop",
]
