"""Services on asyncio: the core decides, aiormq (the layer below aio-pika) carries."""
# ruff: noqa: E402 - what is missing is told before anything is imported that needs it

from eda_core.drivers.library import require

# For the private methods that transport.py replaces.
require("eda_aio", "aio", {"aiormq.connection": "7.2.4"})

from eda_aio.service import Service
from eda_core.machine.aggregator import RawEvent
from eda_core.messages.values import HEADER, JSON_MODEL
from eda_core.services.coroutines import CoroutineBatch as Batch

__all__ = ["HEADER", "JSON_MODEL", "Batch", "RawEvent", "Service"]
