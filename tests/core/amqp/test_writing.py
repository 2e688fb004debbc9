"""What is written by hand is what pamqp writes. What pamqp refuses is refused, unless a docstring says otherwise."""

from __future__ import annotations

import struct
import time
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pamqp import body, commands, frame, header, heartbeat
from pamqp.commands import Basic

from eda_core.amqp import writing
from eda_core.amqp.reading import BODY, METHOD, read_properties
from eda_core.amqp.writing import write_ack, write_content, write_frame, write_message, write_method
from eda_core.messages import Properties

CHANNELS = st.sampled_from([1, 2, 255, 256, 65_535]) | st.integers(0, 65_535)


def by_pamqp(
    channel: int, exchange: str, key: str, properties: Basic.Properties, data: bytes, mandatory: bool, frame_max: int
) -> bytes:
    """A message as pamqp writes it: one frame for the method, one for the header, and the body in frames of a size."""
    step = frame_max - 8 if frame_max else max(len(data), 1)
    frames: list[Any] = [
        Basic.Publish(exchange=exchange, routing_key=key, mandatory=mandatory),
        header.ContentHeader(0, len(data), properties),
        *(body.ContentBody(data[at : at + step]) for at in range(0, len(data), step)),
    ]
    return b"".join(frame.marshal(each, channel) for each in frames)


def outcome(write: Callable[[], bytes]) -> bytes | None:
    """What is written; ``None`` if it is refused with one of the errors that the docstrings name."""
    try:
        return write()
    except (TypeError, ValueError, struct.error):
        return None


# --- frames ---


def test_frames_and_methods_are_those_of_pamqp() -> None:
    assert header.ProtocolHeader().marshal() == writing.PROTOCOL_HEADER
    assert heartbeat.Heartbeat().marshal() == writing.HEARTBEAT_FRAME
    assert write_frame(BODY, 513, b"body") == frame.marshal(body.ContentBody(b"body"), 513)
    method = commands.Queue.Declare(queue="q", durable=True)
    assert write_method(513, method) == frame.marshal(method, 513)
    assert write_frame(METHOD, 513, struct.pack(">I", method.index) + method.marshal()) == write_method(513, method)


def test_a_method_that_cannot_be_written_raises() -> None:
    with pytest.raises(TypeError, match="255 bytes"):
        write_method(1, Basic.Cancel("t" * 256))
    with pytest.raises(struct.error):
        write_method(65_536, Basic.RecoverOk())


# --- Basic.Ack ---


@pytest.mark.parametrize("multiple", [False, True])
@pytest.mark.parametrize("tag", [0, 1, 255, 2**32, 2**63 - 1, -1, -(2**63)])
def test_an_acknowledgement_is_that_of_pamqp(tag: int, multiple: bool) -> None:
    """Whatever tag was read, it can be acknowledged."""
    assert write_ack(513, tag, multiple) == frame.marshal(Basic.Ack(tag, multiple), 513)


@given(CHANNELS, st.integers(-(2**63), 2**63 - 1), st.booleans())
def test_any_acknowledgement_is_that_of_pamqp(channel: int, tag: int, multiple: bool) -> None:
    assert write_ack(channel, tag, multiple) == frame.marshal(Basic.Ack(tag, multiple), channel)


@pytest.mark.parametrize("tag", [2**63, -(2**63) - 1, 2**64, "1", None, 1.0])
def test_a_tag_that_pamqp_refuses_is_refused(tag: Any) -> None:
    assert outcome(lambda: frame.marshal(Basic.Ack(tag), 1)) is None
    with pytest.raises(struct.error):
        write_ack(1, tag)


@pytest.mark.parametrize("channel", [-1, 65_536])
def test_a_channel_that_pamqp_refuses_is_refused(channel: int) -> None:
    assert outcome(lambda: frame.marshal(Basic.Ack(1), channel)) is None
    assert outcome(lambda: write_ack(channel, 1)) is None
    assert outcome(lambda: write_message(channel, "", "", Properties(), b"")) is None
    assert outcome(lambda: b"".join(write_content(channel, b"\0\0", b"", 0))) is None


# --- Basic.Publish ---


@pytest.mark.parametrize("mandatory", [False, True])
@pytest.mark.parametrize("size", [0, 1, 91, 92, 93, 184, 185, 1000])
@pytest.mark.parametrize("frame_max", [0, 100, 131_072])
def test_a_message_is_that_of_pamqp(size: int, frame_max: int, mandatory: bool) -> None:
    """Frames of 100 bytes have room for 92 bytes of a body."""
    properties, data = Properties("text/plain", delivery_mode=2), bytes(range(256)) * 4
    wanted = by_pamqp(7, "events", "Happened", properties, data[:size], mandatory, frame_max)
    given = write_message(7, "events", "Happened", properties, data[:size], mandatory=mandatory, frame_max=frame_max)
    assert given == wanted


_names = st.text(max_size=8) | st.text(alphabet="é☃\U0001f600a", max_size=130) | st.just("n" * 255) | st.just("n" * 256)
_exchanges = st.text(alphabet="abcXYZ019-_.:@#,/+ ", max_size=127)


@given(CHANNELS, _exchanges, _names, st.booleans(), st.binary(max_size=500), st.sampled_from([0, 50, 4096]))
@example(1, "\ud800", "", False, b"", 0)
@example(1, "", "\ud800", False, b"", 0)
def test_any_message_is_that_of_pamqp(
    channel: int, exchange: str, key: str, mandatory: bool, data: bytes, frame_max: int
) -> None:
    properties = Properties("application/cbor", delivery_mode=2)
    wanted = outcome(lambda: by_pamqp(channel, exchange, key, properties, data, mandatory, frame_max))
    given = outcome(
        lambda: write_message(channel, exchange, key, properties, data, mandatory=mandatory, frame_max=frame_max)
    )
    assert given == wanted


@pytest.mark.parametrize("exchange", ["<a>", "é", "n" * 128, "n" * 255, "*", "line\n"])
def test_exchanges_may_have_any_name_that_rabbitmq_allows(exchange: str) -> None:
    assert outcome(lambda: by_pamqp(1, exchange, "", Properties(), b"", False, 0)) is None
    given = write_message(1, exchange, "key", Properties(), b"")
    publish = Basic.Publish(routing_key="key")
    publish.unmarshal(given[11:])
    assert (publish.exchange, publish.routing_key) == (exchange, "key")


@pytest.mark.parametrize("name", [None, 1, b"bytes", "n" * 256, "\ud800", ["list"]])
def test_a_name_that_is_none_is_refused(name: Any) -> None:
    for exchange, key in ((name, "key"), ("events", name)):
        with pytest.raises((TypeError, ValueError)):
            write_message(1, exchange, key, Properties(), b"")


def test_names_that_are_equal_and_of_other_types_are_not_mixed_up() -> None:
    """What is written is remembered by the names."""

    class Name(str):
        __slots__ = ()

    plain = write_message(1, "events", "key", Properties(), b"")
    assert write_message(1, Name("events"), Name("key"), Properties(), b"") == plain
    assert write_message(True, "events", "key", Properties(), b"") == plain


@pytest.mark.parametrize("frame_max", [4096, 131_072])
def test_properties_have_to_fit_into_a_frame(frame_max: int) -> None:
    room = frame_max - 20 - len(Properties(headers={"k": ""}).marshal())
    fits, too_large = (Properties(headers={"k": "x" * size}) for size in (room, room + 1))
    data = write_message(1, "", "", fits, b"", frame_max=frame_max)
    assert len(data) == frame_max + len(write_message(1, "", "", Properties(), b"")) - 22
    text = f"properties of {frame_max - 19} bytes do not fit into a frame, which can have {frame_max - 20}"
    with pytest.raises(ValueError, match=text):
        write_message(1, "", "", too_large, b"", frame_max=frame_max)
    assert write_message(1, "", "", too_large, b"")


# --- properties ---

_short = st.none() | st.text(max_size=6) | st.just("s" * 255) | st.just("s" * 256) | st.just("é" * 128)
_integers = st.integers(-(2**63) - 1, 2**63) | st.sampled_from(
    [edge + by for edge in (0, 127, -128, 32_767, -32_768, 65_535, 2**31, -(2**31), 2**32, 2**63) for by in (-1, 0, 1)]
)
_times = st.datetimes(datetime(1970, 1, 1), datetime(9999, 12, 30), timezones=st.sampled_from([None, UTC]))
_values = st.recursive(
    st.none()
    | st.booleans()
    | _integers
    | st.text(max_size=5)
    | st.binary(max_size=5).map(bytearray)
    | _times
    | st.decimals(allow_nan=False, allow_infinity=False, places=3, min_value=-(2**31), max_value=2**31)
    | st.sampled_from([object(), 1j, (), {1}, Decimal("NaN"), Decimal("1E+400"), "\ud800"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
_properties: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {},
    optional={
        **{
            name: _short
            for name in Basic.Properties.attributes()
            if Basic.Properties.amqp_type(name) == "shortstr" and name != "cluster_id"
        },
        "headers": st.none() | st.dictionaries(st.text(max_size=6), _values, max_size=4),
        "delivery_mode": st.sampled_from([None, 1, 2]),
        "priority": st.none() | st.integers(-1, 256),
        "timestamp": st.none() | _times | st.just(datetime(1960, 1, 1, tzinfo=UTC)) | st.just(time.gmtime(10**9)),
    },
)


def in_order(value: Any) -> Any:
    """pamqp writes the names of a table in their order; ours are written in the order of the table."""
    if isinstance(value, dict):
        return {name: in_order(value[name]) for name in sorted(value)}
    return [in_order(each) for each in value] if isinstance(value, list) else value


@given(_properties)
@example({"headers": {"k": 2**63}})
@example({"priority": 256})
@example({"message_id": 5})
@example({"timestamp": 5})
@example({"headers": {"k": "\ud800"}})
def test_any_properties_are_written_as_pamqp_does(given: dict[str, Any]) -> None:
    """But for floats, for bytes, and for names of headers over 128 bytes (tests/core/messages/test_properties.py)."""
    given = {name: in_order(value) for name, value in given.items()}
    wanted = outcome(lambda: Basic.Properties(**given).marshal())
    assert outcome(lambda: Properties(**given).marshal()) == wanted


@given(_properties.map(lambda given: Properties(**given)), st.binary(max_size=30))
def test_any_message_is_read_as_it_was_written(properties: Properties, data: bytes) -> None:
    octets = outcome(properties.marshal)
    message = outcome(lambda: write_message(1, "events", "key", properties, data))
    if octets is None:
        assert message is None
        return
    publish, content = Basic.Publish(exchange="events", routing_key="key"), header.ContentHeader(0, len(data))
    wanted = frame.marshal(publish, 1) + b"".join(write_content(1, octets, data, 0))
    assert message == wanted
    content.unmarshal(struct.pack(">HHQ", 60, 0, len(data)) + octets)
    assert repr(dict(content.properties)) == repr(dict(read_properties(octets)))
