"""Strategies for names, payloads and messages of any kind, and for what peers may send.

Each strategy is made once, because making one takes longer than drawing from it.
"""

from __future__ import annotations

import datetime
import decimal
from functools import cache
from typing import Any, Final

from hypothesis import strategies as st
from pamqp.commands import Basic

from eda_core.messages.codec import CBOR
from eda_core.messages.routing import MAX_NAME_BYTES
from eda_core.messages.values import AnyMessage, Command, Configuration, Event, Result

Strategy = st.SearchStrategy

#: Keys of ``meta`` that a publisher cannot use for headers of its own: properties, and headers of the toolkit.
RESERVED: Final = frozenset(
    "timestamp expiration user_id app_id delivery_tag message_id priority message_type content_encoding "
    "conversation_id status causation_id deduplication_id attempt origin_exchange origin_routing_key CC BCC".split()
)

#: The longest name of a header that pamqp writes without cutting it, in bytes.
_MAX_HEADER_NAME: Final = 128

# --- names -----------------------------------------------------------------------------------------------------------


@cache
def texts(min_size: int = 0, max_size: int = 40) -> Strategy[str]:
    """Any text that UTF-8 can encode, with control characters.

    Args:
        min_size, max_size: in characters.
    """
    return st.text(st.characters(exclude_categories=["Cs"]), min_size=min_size, max_size=max_size)


@cache
def words() -> Strategy[str]:
    """One word of a routing key: not empty, and without a dot."""
    return st.text(st.characters(exclude_categories=["Cs"], exclude_characters="."), min_size=1, max_size=15)


@cache
def names() -> Strategy[str]:
    """A name of a message: one to four words, and at most 255 bytes in UTF-8."""
    return st.lists(words(), min_size=1, max_size=4).map(".".join).filter(fits)


@cache
def service_names() -> Strategy[str]:
    """The name of a logical service."""
    return st.from_regex(r"[a-z][a-z0-9_-]{0,20}", fullmatch=True)


@cache
def event_names() -> Strategy[str]:
    """The name of an event as people choose it: ``TranscriptReady``."""
    return st.from_regex(r"([A-Z][a-z]{1,8}){1,3}", fullmatch=True)


@cache
def command_names() -> Strategy[str]:
    """The routing key of a command: ``service.CommandName``."""
    return st.builds("{}.{}".format, service_names(), event_names())


@cache
def conversation_ids() -> Strategy[str]:
    """Any text that is not empty. Many are random identifiers in the hexadecimal form that peers use."""
    return st.uuids().map(lambda value: value.hex) | texts(min_size=1)


@cache
def routing_keys() -> Strategy[str]:
    """Routing keys of a few short words, some of them empty, so that :func:`topic_patterns` often match."""
    return st.lists(st.sampled_from(["a", "b", "", "*", "#"]), max_size=7).map(".".join)


@cache
def topic_patterns() -> Strategy[str]:
    """Binding keys of a topic exchange, of the words of :func:`routing_keys` and many wildcards."""
    return st.lists(st.sampled_from(["a", "b", "", "*", "*", "#", "#"]), max_size=7).map(".".join)


def fits(text: str) -> bool:
    """Return whether AMQP 0-9-1 can carry a text as a short string."""
    return len(text.encode()) <= MAX_NAME_BYTES


# --- payloads --------------------------------------------------------------------------------------------------------


@cache
def json_payloads(max_leaves: int = 20) -> Strategy[Any]:
    """Values of the JSON data model, which every peer understands in either content type.

    Args:
        max_leaves: about how many values without parts one payload has at most.
    """
    scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts()
    return st.recursive(
        scalars,
        lambda inner: st.lists(inner, max_size=5) | st.dictionaries(texts(max_size=10), inner, max_size=5),
        max_leaves=max_leaves,
    )


@cache
def cbor_payloads(max_leaves: int = 20) -> Strategy[Any]:
    """What CBOR has in addition: bytes, infinities, times, dates, decimals, UUIDs, sets, and keys that are not text.

    There is no NaN, because it does not equal itself, and no tuple, because it is read as a list.

    Args:
        max_leaves: about how many values without parts one payload has at most.
    """
    keys = texts(max_size=10) | st.integers() | st.binary(max_size=10)
    scalars = st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(allow_nan=False),
        texts(),
        st.binary(max_size=40),
        st.datetimes(timezones=st.just(datetime.UTC)),
        st.dates(),
        st.decimals(allow_nan=False, allow_infinity=False, places=3),
        st.uuids(),
        st.sets(keys, max_size=4),
    )
    return st.recursive(
        scalars,
        lambda inner: st.lists(inner, max_size=5) | st.dictionaries(keys, inner, max_size=5),
        max_leaves=max_leaves,
    )


@cache
def payloads(content_type: str = CBOR) -> Strategy[Any]:
    """Payloads that are written in ``content_type`` and read as they were."""
    return cbor_payloads() if content_type == CBOR else json_payloads()


# --- messages --------------------------------------------------------------------------------------------------------


@cache
def metas() -> Strategy[dict[str, Any]]:
    """``meta`` as a publish takes it: headers of the publisher's own, and properties."""
    placed = st.fixed_dictionaries(
        {},
        optional={
            "timestamp": _moments(),
            "expiration": st.integers(0, 2**32).map(str),
            "app_id": texts(min_size=1, max_size=20),
            "priority": st.integers(0, 255),
            "message_type": texts(min_size=1, max_size=20),
            "content_encoding": st.sampled_from(["utf-8", "binary"]),
        },
    )
    return st.builds(lambda headers, properties: {**headers, **properties}, own_headers(), placed)


@cache
def events(content_type: str = CBOR) -> Strategy[Event]:
    """Events ready to publish."""
    return st.builds(Event, event_names() | names(), payloads(content_type), conversation_ids(), metas())


@cache
def commands(content_type: str = CBOR) -> Strategy[Command]:
    """Commands ready to publish."""
    return st.builds(
        Command,
        command_names(),
        payloads(content_type),
        conversation_ids(),
        command_names() | names(),
        texts(),
        metas(),
    )


@cache
def results(content_type: str = CBOR) -> Strategy[Result]:
    """Results ready to publish."""
    return st.builds(
        Result,
        command_names() | names(),
        payloads(content_type),
        conversation_ids(),
        st.sampled_from(["success", "error"]),
        texts(),
        metas(),
    )


@cache
def configurations(content_type: str = CBOR) -> Strategy[Configuration]:
    """Configurations ready to publish; some without a conversation."""
    conversations = st.just("") | conversation_ids()
    return st.builds(Configuration, event_names() | names(), payloads(content_type), conversations, metas())


@cache
def messages(content_type: str = CBOR) -> Strategy[AnyMessage]:
    """Any message that a service can publish."""
    return st.one_of(events(content_type), commands(content_type), results(content_type), configurations(content_type))


@cache
def own_headers() -> Strategy[dict[str, Any]]:
    """Headers of the publisher's own."""
    return st.dictionaries(_header_names().filter(_is_own), _header_values(), max_size=4)


@cache
def _header_names() -> Strategy[str]:
    return texts(min_size=1, max_size=_MAX_HEADER_NAME // 4)


def _is_own(name: str) -> bool:
    return name not in RESERVED and not name.startswith("x-")


@cache
def _moments() -> Strategy[datetime.datetime]:
    """Times as they travel: in whole seconds, and before the year 2106, after which clients differ."""
    return st.integers(0, 2**32 - 1).map(lambda seconds: datetime.datetime.fromtimestamp(seconds, datetime.UTC))


@cache
def _header_values() -> Strategy[Any]:
    """Values that all client libraries write and read alike. (pamqp writes floats in single precision.)"""
    scalars = st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**63), 2**63 - 1),
        st.floats(width=32, allow_nan=False, allow_infinity=False),
        texts(),
        _moments(),
    )
    return st.recursive(
        scalars,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_header_names(), inner, max_size=3),
        max_leaves=6,
    )


# --- what peers send -------------------------------------------------------------------------------------------------


@cache
def field_tables() -> Strategy[dict[str, Any]]:
    """Any field table, as it is read from the wire. The headers that the toolkit knows have values of any type."""
    scalars = st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**63), 2**63 - 1),
        st.floats(),
        texts(),
        st.binary(min_size=1, max_size=10).map(lambda tail: b"\xff" + tail),  # not UTF-8, so it is read as bytes
        st.binary(max_size=10).map(bytearray),
        _moments(),
        st.builds(
            lambda mantissa, places: decimal.Decimal(mantissa).scaleb(-places),
            st.integers(-(2**31), 2**31 - 1),
            st.integers(0, 28),
        ),
    )
    values = st.recursive(
        scalars,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts(max_size=10), inner, max_size=3),
        max_leaves=6,
    )
    ours = st.fixed_dictionaries(
        {},
        optional={
            "conversation_id": values | texts(),
            "status": values | st.sampled_from(["success", "error", ""]),
            "attempt": values,
            "origin_exchange": values | st.sampled_from(["events", "commands"]),
            "origin_routing_key": values,
            "x-delivery-count": values,
        },
    )
    return st.builds(
        lambda some, other: {**some, **other}, st.dictionaries(texts(max_size=20), values, max_size=3), ours
    )


@cache
def properties() -> Strategy[Basic.Properties]:
    """Properties that a peer may send, valid or not."""
    short = st.none() | texts()
    return st.builds(
        Basic.Properties,
        content_type=st.sampled_from(["application/cbor", "application/json", None, "", "text/plain"]) | texts(),
        content_encoding=short,
        headers=st.none() | field_tables(),
        delivery_mode=st.sampled_from([None, 1, 2]),
        priority=st.none() | st.integers(0, 255),
        correlation_id=short,
        reply_to=short,
        expiration=short,
        message_id=short,
        timestamp=st.none() | _moments(),
        message_type=short,
        user_id=short,
        app_id=short,
    )
