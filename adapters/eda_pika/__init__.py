"""Services on pika: the core decides, callbacks carry."""

from eda_pika.service import ReconnectingSupervisor, Service

__all__ = ["ReconnectingSupervisor", "Service"]
