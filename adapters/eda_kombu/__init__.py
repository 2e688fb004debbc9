"""Publishing on kombu, for programs without an event loop: the core decides, blocking calls carry."""

from eda_core.drivers.publish_call import NotConfirmed, PartlyPublished, Unroutable
from eda_core.messages.values import JSON_MODEL
from eda_kombu.endpoint import Endpoint

__all__ = ["JSON_MODEL", "Endpoint", "NotConfirmed", "PartlyPublished", "Unroutable"]
