"""The header ``deduplication_id`` (docs/architecture.rst, "Deduplication").

This module decides what identifies a message, and what identifies a publish of its handler. It does not know when a
message is handled, and what a receiver does with it.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Final

from pamqp.commands import Basic

from eda_core.messages.headers import DEDUPLICATION_ID

#: The longest identifier, in characters. A column of a database holds it.
MAX_CHARACTERS: Final = 255


def source_of(properties: Basic.Properties) -> str:
    """Return what identifies a received message; "" if nothing does.

    It is the header ``deduplication_id``, or else the ``message_id``. Two equal messages without both may be two, so
    the content of a message does not identify it.
    """
    headers = properties.headers
    found = headers.get(DEDUPLICATION_ID) if type(headers) is dict else None
    if type(found) is not str or not found:
        found = properties.message_id
    return fitting(found) if type(found) is str else ""


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
