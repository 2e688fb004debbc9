"""Stores of large payloads, for tests of services."""

from __future__ import annotations

from hashlib import sha256
from typing import Any

from pamqp.commands import Basic

from eda_core.machine.effects import Publish
from eda_core.messages.codec import CBOR, encode

#: What is larger than the limit of the tests, 50 bytes as CBOR, and what is not.
LARGE, SMALL = "x" * 100, "small"
OVER = 50


class Memory:
    """A store in the memory."""

    def __init__(self) -> None:
        self.bodies: dict[str, bytes] = {}

    def put(self, key: str, body: bytes) -> None:
        self.bodies[key] = body

    def get(self, key: str) -> bytes:
        return self.bodies[key]


def put(memory: Memory, payload: Any) -> str:
    """Store a payload as another service would. Returns the key."""
    body = encode(payload, CBOR)
    key = sha256(body).hexdigest()
    memory.bodies[key] = body
    return key


def key_of(publish: Publish) -> object:
    """The key in the headers of a publish; ``None`` if it has its payload itself."""
    return (publish.properties.headers or {}).get("claim_check")


def properties(key: str, **given: Any) -> Basic.Properties:
    """The properties of a message whose payload is in a store; of one that has it itself if there is no key."""
    headers: dict[str, Any] = {"conversation_id": "c-1", **({"claim_check": key} if key else {})}
    return Basic.Properties(headers=headers, content_type="application/json", **given)
