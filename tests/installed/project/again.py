"""What a publisher does that did not get the confirm."""

from __future__ import annotations

from eda_core import Event, Limits
from eda_core.messages import CBOR, seal
from eda_core.testing.live import Bus


def publish_twice(bus: Bus, event: Event) -> None:
    """Publish an event twice, with the same ``message_id``."""
    for _ in range(2):
        exchange, key, properties, body = seal(event, CBOR, Limits())
        properties.message_id = event.meta["message_id"]
        bus.publish_raw(exchange, key, properties, body)
