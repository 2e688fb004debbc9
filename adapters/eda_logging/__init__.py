"""Python's ``logging`` on the bus: a handler that sends records as logs of a service."""

from eda_logging.handler import BusHandler

__all__ = ["BusHandler"]
