"""Publishing on kombu, for programs without an event loop: the core decides, blocking calls do the I/O."""
# ruff: noqa: E402 - the check comes before the imports that would fail

from eda_core.drivers.library import require

# transport.py uses private methods of py-amqp, which another minor version may not have.
require("eda_kombu", "kombu", {"kombu": "", "amqp": "5.4.2"})

from eda_core.drivers.publish_call import NotConfirmed, PartlyPublished, Unroutable
from eda_core.messages.values import JSON_MODEL
from eda_kombu.endpoint import Endpoint

__all__ = ["JSON_MODEL", "Endpoint", "NotConfirmed", "PartlyPublished", "Unroutable"]
