"""Services on pika: the core decides, callbacks carry."""

from eda_core.messages.values import HEADER, JSON_MODEL
from eda_core.services.batch import RawEvent
from eda_core.services.callbacks import Batch
from eda_pika.service import ReconnectingSupervisor, Service

__all__ = ["HEADER", "JSON_MODEL", "Batch", "RawEvent", "ReconnectingSupervisor", "Service"]
