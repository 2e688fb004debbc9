"""Claim checks: payloads that are too large for the broker wait in a store, and their messages carry the key.

Source: Hohpe and Woolf, "Enterprise Integration Patterns", Claim Check. This module decides which payloads are stored,
and under which key. It does no I/O: the user's store does, and services call it.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Awaitable
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Final, Protocol, TypeVar

from eda_core.errors import LocalError, Reject
from eda_core.machine.outcomes import check_begun
from eda_core.messages.codec import CBOR, DecodeError, Limits, decode, encode
from eda_core.messages.headers import CLAIM_CHECK
from eda_core.messages.values import AnyMessage

M = TypeVar("M", bound=AnyMessage)

_KEY: Final = re.compile(r"[0-9a-f]{64}")


class ClaimStore(Protocol):
    """Where large payloads are. In services of coroutines each method may also return an awaitable.

    What it raises lets the publish or the handler fail.
    """

    def put(self, key: str, body: bytes, /) -> Awaitable[None] | None:
        """Store ``body``. It is durable when this returns. The same key always has the same body.

        Args:
            key: 64 hexadecimal digits.
        """

    def get(self, key: str, /) -> Awaitable[bytes] | bytes:
        """Return what was stored. It raises if there is nothing."""


@dataclass(frozen=True, slots=True)
class ClaimCheck:
    """Which payloads of a service are stored, and where.

    Attributes:
        store: the store. All services that get the messages need access to it.
        over: how large a payload may be, in bytes as CBOR, to travel in its message.

    Raises:
        LocalError: ``over`` is not a whole number of 0 or more, or the store has no method ``put`` or ``get``.
    """

    store: ClaimStore
    over: int = 1_000_000

    def __post_init__(self) -> None:
        if type(self.over) is not int or self.over < 0:
            raise LocalError(f"over is {self.over!r}", hint="give a whole number of bytes")
        for name in ("put", "get"):
            if not callable(getattr(self.store, name, None)):
                raise LocalError(f"the store is {self.store!r}, without a method {name}", hint="see ClaimStore")

    def checked_in(self, message: M, limits: Limits) -> tuple[M, str, bytes] | None:
        """Return the message that is published instead, and what is stored before: a key and a body.

        The key is that of the payload, so that a message that is published again stores nothing more.

        Returns:
            ``None`` if the message is published as it is.

        Raises:
            PayloadError: the payload cannot be written.
        """
        if CLAIM_CHECK in message.meta:  # an inbox publishes again what was stored before
            return None
        body = encode(message.payload, CBOR, _any_size(limits))
        if len(body) <= self.over:
            return None
        key = sha256(body).hexdigest()
        return replace(message, payload=None, meta={**message.meta, CLAIM_CHECK: key}), key, body


def stored(claims: ClaimCheck, message: M, limits: Limits) -> M:
    """Store the payload of a message if it is too large. Return the message that is published.

    Raises:
        PayloadError: the payload cannot be written.
        NotBegun: the method of the store is a coroutine function.
    """
    found = claims.checked_in(message, limits)
    if found is None:
        return message
    message, key, body = found
    check_begun(claims.store.put(key, body))
    return message


def claim_of(message: AnyMessage) -> str:
    """Return the key of the payload of a message; "" if the message has its payload itself.

    Raises:
        Reject: the key is none of a claim check.
    """
    key = message.meta.get(CLAIM_CHECK, "")
    if key != "" and not (isinstance(key, str) and _KEY.fullmatch(key)):
        raise Reject(f"the header {CLAIM_CHECK} is no key of a claim check")
    return str(key)


def redeemed(message: M, key: str, body: object, limits: Limits) -> M:
    """Return a message with its payload.

    Raises:
        Reject: ``body`` is not what was stored under ``key``, or cannot be read.
    """
    if type(body) is not bytes or sha256(body).hexdigest() != key:
        raise Reject(f"the store has another body under the key {key}")
    try:
        payload = decode(body, CBOR, _any_size(limits))
    except DecodeError as error:
        raise Reject(f"the body under the key {key} cannot be read: {error}") from None
    meta = {name: value for name, value in message.meta.items() if name != CLAIM_CHECK}
    return replace(message, payload=payload, meta=meta)


def _any_size(limits: Limits) -> Limits:
    return replace(limits, max_bytes=sys.maxsize)
