"""Services on pika: the core decides, callbacks carry."""

from eda_pika.batch import Batch
from eda_pika.service import ReconnectingSupervisor, Service

__all__ = ["Batch", "ReconnectingSupervisor", "Service"]
