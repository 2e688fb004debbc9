"""Services on asyncio: the core decides, aiormq (the layer below aio-pika) carries."""

from eda_aio.batch import Batch
from eda_aio.service import Service

__all__ = ["Batch", "Service"]
