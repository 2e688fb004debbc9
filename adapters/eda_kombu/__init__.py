"""Publishing on kombu, for programs without an event loop: the core decides, blocking calls carry."""

from eda_kombu.endpoint import Endpoint
from eda_kombu.errors import NotConfirmed, PartlyPublished, Unroutable

__all__ = ["Endpoint", "NotConfirmed", "PartlyPublished", "Unroutable"]
