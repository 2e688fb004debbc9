"""Services on pika: the core decides, callbacks carry."""
# ruff: noqa: E402 - what is missing is told before anything is imported that needs it

from eda_core.drivers.library import require

# For the private methods that connection.py and transport.py use.
require("eda_pika", "pika", {"pika": "1.4.4"})

from eda_core.machine.aggregator import RawEvent
from eda_core.messages.values import HEADER, JSON_MODEL
from eda_core.services.callbacks import CallbackBatch as Batch
from eda_pika.service import ReconnectingSupervisor, Service

__all__ = ["HEADER", "JSON_MODEL", "Batch", "RawEvent", "ReconnectingSupervisor", "Service"]
