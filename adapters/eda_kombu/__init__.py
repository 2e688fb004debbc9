"""Publishing on kombu, for programs without an event loop: the core decides, blocking calls carry."""

from eda_core.waiting import NotConfirmed, PartlyPublished, Unroutable
from eda_kombu.endpoint import Endpoint

__all__ = ["Endpoint", "NotConfirmed", "PartlyPublished", "Unroutable"]
