"""Services on pika: the core decides, callbacks on pika's own loop carry."""

from eda_pika.service import ReconnectingSupervisor, Service, Timer

__all__ = ["ReconnectingSupervisor", "Service", "Timer"]
