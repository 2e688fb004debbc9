"""An HTTP server that says whether a service is alive and ready, how it does, and what it has done."""

from eda_probe.server import HealthServer

__all__ = ["HealthServer"]
