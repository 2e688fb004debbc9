"""Services on asyncio: the core decides, aiormq (the layer below aio-pika) carries."""

from eda_aio.service import Service
from eda_core.batch import RawEvent
from eda_core.coroutines import Batch
from eda_core.values import HEADER, JSON_MODEL

__all__ = ["HEADER", "JSON_MODEL", "Batch", "RawEvent", "Service"]
