"""Deliveries that come to a service and are no messages: what a faulty peer may send.

This module spoils one thing of a valid message. It does not know what becomes of it: the core dead-letters it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import copy
from typing import Any, Final, NamedTuple

from hypothesis import strategies as st
from pamqp.commands import Basic

from eda_core.messages.codec import CBOR, DEFAULT_LIMITS
from eda_core.messages.envelope import InvalidEnvelope, open_envelope, seal
from eda_core.messages.headers import CONVERSATION_ID, STATUS
from eda_core.messages.values import AnyMessage, Configuration
from eda_core.testing.conformance.unreadable import UNREADABLE
from eda_core.testing.strategies.subscribed import Source, services
from eda_core.testing.strategies.values import texts

Strategy = st.SearchStrategy

#: A CBOR tag that nobody has registered, and a list around each value.
_UNKNOWN_TAG: Final = b"\xda\xff\xff\xff\xfe"
_LIST_OF_ONE: Final = b"\x81"


class Raw(NamedTuple):
    """What is published as it is: ``sim.publish_raw(*raw)`` in a simulation, ``eda_bus.publish_raw(*raw)`` on a broker.

    Attributes:
        exchange, routing_key, properties, body: as AMQP has them.
    """

    exchange: str
    routing_key: str
    properties: Basic.Properties
    body: bytes


Spoil = Callable[[Raw], Strategy[Raw]]


def malformed(
    *sources: Source, payloads: Mapping[str, Any] | None = None, content_type: str = CBOR, on_the_wire: bool = False
) -> Strategy[Raw]:
    """Deliveries that come to services and that are no messages: their envelope or their body cannot be read.

    The body is cut, too long, empty, too deep, or of random bytes; or its content type is unknown; or
    ``conversation_id`` is missing or no text; or what comes by the exchange ``commands`` is neither a command nor a
    result. The rest is as :func:`services` draws it. A service must handle none of it, dead-letter it, and go on.

    Args:
        sources, payloads, content_type: see :func:`services`.
        on_the_wire: whether to draw properties as well whose bytes AMQP clients cannot read. A simulation has no bytes;
            use this with a broker.

    Raises:
        LocalError: see :func:`services`.
    """
    messages = services(*sources, payloads=payloads, content_type=content_type)

    def spoiled(message: AnyMessage) -> Strategy[Raw]:
        raw = Raw(*seal(message, content_type, DEFAULT_LIMITS))
        ways: list[Spoil] = [_body, _content_type]
        if not isinstance(message, Configuration):
            ways.append(_conversation)
        if raw.exchange == "commands":
            ways.append(_kind)
        drawn = st.sampled_from(ways).flatmap(lambda way: way(raw)).filter(_is_malformed)
        return drawn | _unreadable(raw) if on_the_wire else drawn

    return messages.flatmap(spoiled)


def _is_malformed(raw: Raw) -> bool:
    try:
        open_envelope(raw.exchange, raw.routing_key, raw.properties, raw.body, DEFAULT_LIMITS)
    except InvalidEnvelope:
        return True
    return False


def _body(raw: Raw) -> Strategy[Raw]:
    """Spoil the body."""
    ways = [b"", raw.body[:-1], raw.body + b"}", _UNKNOWN_TAG + raw.body, b"[" * 40 + raw.body + b"]" * 40]
    ways += [_LIST_OF_ONE * 40 + raw.body, b"\xff" + raw.body]
    return (st.sampled_from(ways) | st.binary(max_size=40)).map(lambda body: raw._replace(body=body))


def _content_type(raw: Raw) -> Strategy[Raw]:
    """Give a content type that nobody knows."""
    return (st.just("text/plain") | texts(min_size=1)).map(lambda name: _with(raw, content_type=name))


def _conversation(raw: Raw) -> Strategy[Raw]:
    """Take ``conversation_id`` away, or make it something else than text."""
    others = {name: value for name, value in (raw.properties.headers or {}).items() if name != CONVERSATION_ID}
    wrong: Strategy[Any] = st.booleans() | st.floats(width=32) | st.just([]) | st.just({"id": "c"}) | st.just(b"\xff")
    given = st.just(others) | wrong.map(lambda value: {**others, CONVERSATION_ID: value})
    return st.just(_with(raw, headers=None)) | given.map(lambda headers: _with(raw, headers=headers))


def _kind(raw: Raw) -> Strategy[Raw]:
    """Make it neither a command nor a result."""
    others = {name: value for name, value in (raw.properties.headers or {}).items() if name != STATUS}
    given = st.just(others) | texts(max_size=10).map(lambda status: {**others, STATUS: status})
    return given.map(lambda headers: _with(raw, headers=headers, reply_to=None))


def _unreadable(raw: Raw) -> Strategy[Raw]:
    """Give it properties that no AMQP client reads."""
    puts = [put for put, reason in UNREADABLE.values() if not reason.startswith("routing key")]
    return st.sampled_from(puts).map(lambda put: raw._replace(properties=copy(put.properties)))


def _with(raw: Raw, **changes: Any) -> Raw:
    properties = copy(raw.properties)
    for name, value in changes.items():
        setattr(properties, name, value)
    return raw._replace(properties=properties)
