"""Services on aio-pika: the core decides, asyncio carries."""

from eda_aio.service import Service

__all__ = ["Service"]
