"""Publishing on kombu, for programs without an event loop: the core decides, blocking calls carry."""
# ruff: noqa: E402 - what is missing is told before anything is imported that needs it

from eda_core.drivers.library import require

# py-amqp for the private methods that transport.py uses.
require("eda_kombu", "kombu", {"kombu": "", "amqp": "5.4.2"})

from eda_core.drivers.publish_call import NotConfirmed, PartlyPublished, Unroutable
from eda_core.messages.values import JSON_MODEL
from eda_kombu.endpoint import Endpoint

__all__ = ["JSON_MODEL", "Endpoint", "NotConfirmed", "PartlyPublished", "Unroutable"]
