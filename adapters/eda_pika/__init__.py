"""Services on pika: the core decides, callbacks carry."""

from eda_core.batch import RawEvent
from eda_core.callbacks import Batch
from eda_core.values import HEADER, JSON_MODEL
from eda_pika.service import ReconnectingSupervisor, Service

__all__ = ["HEADER", "JSON_MODEL", "Batch", "RawEvent", "ReconnectingSupervisor", "Service"]
