"""Services on pika: the core decides, callbacks do the I/O."""
# ruff: noqa: E402 - the check comes before the imports that would fail

from eda_core.drivers.library import require

# connection.py and transport.py use private methods of pika, which another minor version may not have.
require("eda_pika", "pika", {"pika": "1.4.4"})

from eda_core.messages.values import HEADER, JSON_MODEL
from eda_core.services.batch import RawEvent
from eda_core.services.callbacks import CallbackBatch as Batch
from eda_core.services.eventail import ReconnectingSupervisor
from eda_pika.service import Service

__all__ = ["HEADER", "JSON_MODEL", "Batch", "RawEvent", "ReconnectingSupervisor", "Service"]
