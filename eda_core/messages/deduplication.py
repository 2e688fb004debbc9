"""The header ``deduplication_id`` (docs/architecture.rst, "Deduplication").

This module decides what identifies a message, and what identifies a publish of its handler. It does not know when a
message is handled, and what a receiver does with it.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Final

#: The longest identifier, in characters. A column of a database holds it.
MAX_CHARACTERS: Final = 255


def source_of(deduplication_id: object, message_id: object) -> str:
    """Return what identifies a received message; "" if nothing does.

    Two equal messages without an identifier may be two, so the content of a message does not identify it.

    Args:
        deduplication_id: the header of this name, whatever a peer has written there; ``None`` if there is none.
        message_id: the property, which is used without the header.
    """
    for found in (deduplication_id, message_id):
        if type(found) is str and found:
            return fitting(found)
    return ""


def identifier(source: str, service: str, routing_key: str, number: int) -> str:
    """Return what identifies a publish of a handler.

    Args:
        source: what identifies the message that is handled.
        service: the logical service of the handler. Several services may handle the same event.
        number: how many publishes with this routing key the handler has made, this one included. Publishes with other
            routing keys do not count: then one that is made in some cases only does not change the others.
    """
    text = f"{source}/{service}/{routing_key}.{number}"
    return text if len(text) <= MAX_CHARACTERS else fitting(f"{_digest(source)}/{service}/{routing_key}.{number}")


def fitting(text: str) -> str:
    """Return the text, or a digest of it if it is too long for an identifier."""
    return text if len(text) <= MAX_CHARACTERS else _digest(text)


def _digest(text: str) -> str:
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
