"""Services on asyncio: the core decides, aiormq (the layer below aio-pika) does the I/O."""
# ruff: noqa: E402 - the check comes before the imports that would fail

from eda_core.drivers.library import require

# transport.py replaces private methods of aiormq, which another minor version may not have.
require("eda_aio", "aio", {"aiormq.connection": "7.2.4"})

from eda_aio.service import Service
from eda_core.messages.values import HEADER, JSON_MODEL
from eda_core.services.batch import RawEvent
from eda_core.services.coroutines import CoroutineBatch as Batch

__all__ = ["HEADER", "JSON_MODEL", "Batch", "RawEvent", "Service"]
