"""Services on asyncio: the core decides, aiormq (the layer below aio-pika) or the core's own AMQP does the I/O."""

from eda_aio.service import Service
from eda_core.messages.values import HEADER, JSON_MODEL
from eda_core.services.batch import RawEvent
from eda_core.services.coroutines import CoroutineBatch as Batch

__all__ = ["HEADER", "JSON_MODEL", "Batch", "RawEvent", "Service"]
