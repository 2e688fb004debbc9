"""What a publisher gives as properties and routing key is read as pamqp reads it, or it is Unreadable."""

from __future__ import annotations

import contextlib
import struct
import sys
from datetime import UTC, datetime
from decimal import Decimal, localcontext
from typing import Any

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from pamqp import base, body, commands, header, heartbeat
from pamqp import frame as pamqp_frame
from pamqp.commands import Basic

from eda_core.amqp import named, read_frame, read_header, read_method, read_properties, reading
from eda_core.amqp.writing import write_method
from eda_core.messages import Properties, Unreadable
from eda_core.testing import strategies
from eda_core.testing.conformance.unreadable import UNREADABLE
from eda_core.testing.wire import frames

HEADERS, TIMESTAMP, CONTENT_TYPE, CLUSTER_ID = b"\x20\0", b"\0\x40", b"\x80\0", b"\0\x04"


def table(*entries: bytes) -> bytes:
    data = b"".join(entries)
    return struct.pack(">I", len(data)) + data


def by_pamqp(data: bytes) -> Basic.Properties:
    """Raises whatever pamqp raises."""
    found = header.ContentHeader()
    found.unmarshal(struct.pack(">HHQ", 60, 0, 0) + data)
    return found.properties


def same(one: Basic.Properties, other: Basic.Properties) -> bool:
    return repr(dict(one)) == repr(dict(other))  # NaN is not equal to itself


def reason(data: bytes) -> str:
    found = read_properties(data)
    assert isinstance(found, Unreadable)
    return found.reason


# --- properties ---

_octets = st.binary(max_size=12)
_entries = st.lists(
    st.builds(
        lambda name, kind, rest: bytes((len(name),)) + name + kind + rest,
        st.binary(max_size=3),
        st.sampled_from([bytes((kind,)) for kind in b"tbBsuIilLfdDSTVxFA\0?"]),
        _octets | st.builds(table, _octets),
    ),
    max_size=3,
).map(lambda entries: table(*entries))
_any_properties = st.binary(max_size=60) | st.builds(
    lambda flags, parts: struct.pack(">H", flags) + b"".join(parts),
    st.integers(0, 0xFFFF) | st.sampled_from([0x2000, 0x8000, 0xA000, 0x0040, 0x2080]),
    st.lists(_octets | _entries | st.binary(max_size=5).map(lambda text: bytes((len(text),)) + text), max_size=4),
)


@given(_any_properties)
@example(HEADERS + table(b"\1fd\x7f\xf8" + bytes(6)))
@example(HEADERS + table(b"\1DD\xff\x80\0\0\0"))
def test_any_bytes_are_properties_or_unreadable(data: bytes) -> None:
    found = read_properties(data)
    if type(found) is Unreadable:
        assert found.reason
        assert len(found.reason) < 1500
    else:
        assert type(found) is Properties
        assert same(found, by_pamqp(data))


@given(strategies.properties())
def test_what_peers_send_is_read_as_pamqp_reads_it(given: Basic.Properties) -> None:
    data = frames.encode_properties(given)
    found = read_properties(data)
    assert type(found) is Properties
    assert same(found, by_pamqp(data))


@given(given=strategies.properties(), data=st.data())
def test_one_wrong_octet_raises_nothing(given: Basic.Properties, data: Any) -> None:
    octets = bytearray(frames.encode_properties(given))
    place = data.draw(st.integers(0, len(octets) - 1))
    octets[place] = data.draw(st.integers(0, 255))
    found = read_properties(bytes(octets))
    if type(found) is not Unreadable:
        assert same(found, by_pamqp(bytes(octets)))


@given(given=strategies.properties(), data=st.data())
def test_properties_cut_short_are_unreadable(given: Basic.Properties, data: Any) -> None:
    octets = frames.encode_properties(given)
    cut = octets[: data.draw(st.integers(0, len(octets) - 1))]
    assume(cut != b"\0\0")
    assert type(read_properties(cut)) is Unreadable


@pytest.mark.parametrize("kind", [kind for kind in UNREADABLE if "routing key" not in kind])
def test_what_is_readable_beside_an_unreadable_property_is_read(kind: str) -> None:
    put, words = UNREADABLE[kind]
    found = read_properties(frames.encode_properties(put.properties))
    assert type(found) is Unreadable
    assert words in found.reason
    assert (found.headers, found.delivery_mode) == ({"conversation_id": "c"}, 2)
    assert found.content_type in (None, "application/cbor")


@pytest.mark.parametrize(
    ("data", "wanted"),
    [
        (CONTENT_TYPE + b"\2\xff\xfe", r"the property content_type is not UTF-8: b'\xff\xfe'"),
        (CLUSTER_ID + b"\2\xff\xfe", r"the property cluster_id is not UTF-8: b'\xff\xfe'"),
        (b"\0\x20\1\xff", r"the property type is not UTF-8: b'\xff'"),
        (TIMESTAMP + b"\xff" * 8, f"the property timestamp is the time {2**64 - 1}, after the year 9999"),
        (
            HEADERS + table(b"\1tT\x7f" + b"\xff" * 7),
            f"the property headers has a value that cannot be read: 't' is the time {2**63 - 1}, after the year 9999",
        ),
        (HEADERS + table(b"\1\xffV"), r"the property headers has a name that is not UTF-8: b'\xff'"),
        (
            HEADERS + table(b"\1tF" + table(b"\1\xffV")),
            "the property headers has a value that cannot be read: 't' holds a name that is not UTF-8",
        ),
        (HEADERS + table(b"\1t?"), "the property headers is malformed"),
        (
            HEADERS + table(b"\1tF" + table(b"\1bF" + table(b"\1aI\0\0\0"), b"\1xV")),
            "the property headers has a value that cannot be read: 't' does not end where it says",
        ),
        (
            HEADERS + table(b"\1tF" + table(b"\1bA" + table(b"I\0\0\0"), b"\1xV")),
            "the property headers has a value that cannot be read: 't' does not end where it says",
        ),
        (HEADERS + table(b"\1tI"), "the property headers is malformed"),
        (
            HEADERS + table(b"\1tA" + table(b"?")),
            "the property headers has a value that cannot be read: 't' cannot be decoded",
        ),
        (
            HEADERS + table(b"\1tF" + table(b"\1aS\0\0\0\x09b")),
            "the property headers has a value that cannot be read: 't' is cut off",
        ),
        (HEADERS + table(b"\1tI")[:-1], "the properties are malformed"),
        (CONTENT_TYPE + b"\5ab", "the properties are malformed"),
        (TIMESTAMP + b"\0", "the properties are malformed"),
        (b"\0\1", "the properties are malformed"),
        (b"\0\0more", "the properties are malformed"),
        (b"", "the properties are malformed"),
        (
            b"\xa0\0\1\xff" + table(b"\1\xffV"),
            r"the property content_type is not UTF-8: b'\xff'; the property headers has a name that is not UTF-8: "
            r"b'\xff'",
        ),
    ],
)
def test_reasons(data: bytes, wanted: str) -> None:
    assert reason(data) == wanted


def nested(kind: str, depth: int) -> bytes:
    value, name = b"V", b"\1k" if kind == "F" else b""
    for _ in range(depth):
        value = kind.encode() + table(name + value)
    return HEADERS + table(b"\1k" + value)


@pytest.mark.parametrize("kind", "FA")
def test_nesting_is_bounded(kind: str) -> None:
    deepest = read_properties(nested(kind, 99))
    assert type(deepest) is Properties
    assert same(deepest, by_pamqp(nested(kind, 99)))
    for depth in (100, 3000, 20_000):
        assert reason(nested(kind, depth)).endswith("'k' is nested deeper than 100 levels")


def test_no_depth_of_the_stack_raises() -> None:
    """A caller may be near Python's limit of calls itself."""
    data = nested("F", 90)

    def dig(levels: int) -> Basic.Properties | None:
        return read_properties(data) if not levels else dig(levels - 1)

    kinds = set()
    for levels in range(sys.getrecursionlimit() - 300, sys.getrecursionlimit(), 3):
        with contextlib.suppress(RecursionError):  # of dig itself
            kinds.add(type(dig(levels)))
    assert Properties in kinds
    assert Unreadable in kinds


def test_many_wrong_headers_make_one_short_reason() -> None:
    assert len(reason(HEADERS + table(*[b"\1\xffV"] * 40_000))) < 200


def test_the_decimal_context_of_the_program_does_not_matter() -> None:
    with localcontext(prec=1) as context:
        context.traps = dict.fromkeys(context.traps, True)
        found = read_properties(HEADERS + table(b"\1DD\3\xff\xff\xff\x85"))
    assert found.headers == {"D": Decimal("-0.123")}


def test_strings_that_are_not_utf_8_and_byte_arrays_are_bytes() -> None:
    found = read_properties(HEADERS + table(b"\1sS\0\0\0\1\xff", b"\1xx\0\0\0\1\xff"))
    assert found.headers == {"s": b"\xff", "x": bytearray(b"\xff")}
    assert type(found.headers["x"]) is bytearray


def test_times_in_milliseconds_are_times() -> None:
    found = read_properties(TIMESTAMP + struct.pack(">Q", 1_700_000_000_000))
    assert found.timestamp == datetime.fromtimestamp(1_700_000_000, UTC)


# --- methods, headers and frames ---


#: pamqp warns of this one when it makes it.
_DEPRECATED = Basic.RecoverAsync.index


@given(st.sampled_from(sorted(commands.INDEX_MAPPING.keys() - {_DEPRECATED})), st.binary(max_size=40))
def test_any_payload_is_a_method_or_a_value_error(index: int, rest: bytes) -> None:
    payload = struct.pack(">I", index) + rest
    try:
        found = read_method(payload)
    except ValueError:
        return
    if not any(isinstance(value, bytes) for _, value in found):
        assert repr(dict(found)) == repr(dict(pamqp_frame._unmarshal_method_frame(payload)))


# --- Basic.Deliver and Basic.Ack, which are read by hand ---

#: Readers that are equal to the usual ones, but for what read_method() goes by: with these it reads nothing by hand.
GENERIC = dict(reading.READERS)


def outcomes(payload: bytes) -> list[Any]:
    """What the two ways make of a payload: the arguments, or None."""
    found: list[Any] = []
    for readers in (reading.READERS, GENERIC):
        try:
            method = read_method(payload, readers)
        except ValueError:
            found.append(None)
        else:
            found.append((type(method), [(name, type(value), value) for name, value in method]))
    return found


def check_alike(payload: bytes) -> None:
    """Both ways and pamqp make the same of a payload, but that pamqp takes much that is malformed."""
    by_hand, generic = outcomes(payload)
    assert by_hand == generic
    if by_hand is not None and not any(kind is bytes for _, kind, _ in by_hand[1]):
        assert [(name, value) for name, _, value in by_hand[1]] == list(pamqp_frame._unmarshal_method_frame(payload))


DELIVERIES = [
    Basic.Deliver("tag", 1, False, "events", "Happened"),
    Basic.Deliver("", 0, True, "", ""),
    Basic.Deliver("t" * 255, 2**63 - 1, True, "e" * 127, "k" * 255),
    Basic.Deliver("Täg", -1, False, "events", "Häppened"),
]
ACKS = [Basic.Ack(1, False), Basic.Ack(2**63 - 1, True), Basic.Ack(-1, False), Basic.Ack(0, True)]


@pytest.mark.parametrize("method", [*DELIVERIES, *ACKS])
def test_what_is_read_by_hand_is_what_pamqp_reads(method: base.Frame) -> None:
    payload = struct.pack(">I", method.index) + method.marshal()
    found = read_method(payload)
    assert type(found) is type(method)
    assert list(found) == list(method)
    check_alike(payload)


@pytest.mark.parametrize("method", [*DELIVERIES, *ACKS])
def test_what_is_cut_short_or_too_long_is_a_value_error(method: base.Frame) -> None:
    payload = struct.pack(">I", method.index) + method.marshal()
    for end in range(len(payload)):
        assert outcomes(payload[:end]) == [None, None], end
    for more in (b"\0", b"\xce", b"more", payload):
        assert outcomes(payload + more) == [None, None]


@pytest.mark.parametrize("method", [DELIVERIES[0], ACKS[0]])
def test_each_octet_may_be_any_other(method: base.Frame) -> None:
    payload = struct.pack(">I", method.index) + method.marshal()
    for place in range(4, len(payload)):
        for octet in (0, 1, 2, 3, 127, 128, 254, 255):
            check_alike(payload[:place] + bytes((octet,)) + payload[place + 1 :])


@given(st.sampled_from([Basic.Deliver.index, Basic.Ack.index]), st.binary(max_size=40))
def test_any_payload_is_read_alike(index: int, rest: bytes) -> None:
    check_alike(struct.pack(">I", index) + rest)


@given(_octets, st.integers(-(2**63), 2**63 - 1), st.integers(0, 255), _octets, _octets)
def test_any_delivery_is_read_alike(tag: bytes, number: int, bits: int, exchange: bytes, key: bytes) -> None:
    """Names that are not UTF-8 are bytes."""
    tag, exchange, key = (bytes((len(name),)) + name for name in (tag, exchange, key))
    check_alike(struct.pack(">I", Basic.Deliver.index) + tag + struct.pack(">qB", number, bits) + exchange + key)


def test_names_that_are_not_utf_8_are_bytes() -> None:
    payload = struct.pack(">I", Basic.Deliver.index) + b"\1\xff" + bytes(9) + b"\1\xfe" + b"\1\xfd"
    found: Any = read_method(payload)
    assert [found.consumer_tag, found.exchange, found.routing_key] == [b"\xff", b"\xfe", b"\xfd"]
    check_alike(payload)


@pytest.mark.parametrize("size", [4, 5, 2**32 - 1])
def test_a_long_string_that_is_cut_off_is_a_value_error(size: int) -> None:
    secure = struct.pack(">I", commands.Connection.Secure.index)
    assert dict(read_method(secure + struct.pack(">I", 3) + b"abc")) == {"challenge": "abc"}
    with pytest.raises(ValueError, match="malformed method"):
        read_method(secure + struct.pack(">I", size) + b"abc")


def test_a_deprecated_method_is_read_without_a_warning() -> None:
    found = read_method(struct.pack(">IB", _DEPRECATED, 1))
    assert isinstance(found, Basic.RecoverAsync)
    assert found.requeue is True


@given(st.binary(max_size=40))
def test_any_bytes_are_a_frame_or_a_value_error(data: bytes) -> None:
    for whole in (data, data + b"\xce", struct.pack(">BHI", len(data) % 10, 1, len(data)) + data + b"\xce"):
        with contextlib.suppress(ValueError):
            channel, _ = read_frame(whole)
            assert 0 <= channel < 65536


@pytest.mark.parametrize(
    "given",
    [
        Basic.Deliver("tag", 5, True, "events", "Häppened"),
        commands.Queue.DeclareOk("queue", 2**32 - 1, 7),
        commands.Connection.Start(0, 9, {"product": "RabbitMQ", "capabilities": {"a": True}}, "PLAIN", "en_US"),
        commands.Connection.Close(320, "CONNECTION_FORCED", 0, 0),
        body.ContentBody(b"body"),
        heartbeat.Heartbeat(),
    ],
    ids=lambda value: value.name,
)
def test_frames_are_read_as_pamqp_reads_them(given: Any) -> None:
    channel, found = read_frame(pamqp_frame.marshal(given, 0 if given.name == "Heartbeat" else 513))
    assert type(found) is type(given)
    assert channel == (0 if given.name == "Heartbeat" else 513)
    assert getattr(found, "value", None) == getattr(given, "value", None)
    if isinstance(found, base.Frame):
        assert isinstance(given, base.Frame)
        assert dict(found) == dict(given)


def test_a_content_header_has_the_size_of_the_body() -> None:
    found = read_header(struct.pack(">HHQ", 60, 0, 2**40) + CONTENT_TYPE + b"\2ab")
    assert [found.class_id, found.weight, found.body_size] == [60, 0, 2**40]
    assert dict(found.properties) == dict(Basic.Properties(content_type="ab"))


@pytest.mark.parametrize("payload", [b"", bytes(11), struct.pack(">HHQ", 50, 0, 0) + b"\0\0"])
def test_what_is_no_content_header_is_a_value_error(payload: bytes) -> None:
    with pytest.raises(ValueError, match="content header"):
        read_header(payload)


def test_the_header_of_a_message_is_a_frame() -> None:
    channel, found = read_frame(pamqp_frame.marshal(header.ContentHeader(0, 7, Basic.Properties(app_id="a")), 3))
    assert isinstance(found, header.ContentHeader)
    assert (channel, found.body_size, found.properties.app_id) == (3, 7, "a")


@pytest.mark.parametrize(
    ("data", "wanted"),
    [
        (b"\x03\0\1\0\0\0\1xx", "a frame does not end with the octet for that"),
        (b"\xce" * 7, "a frame does not end with the octet for that"),
        (b"\x09\0\1\0\0\0\1x\xce", "unknown frame type 9"),
        (b"\x01\0\1\0\0\0\4\0\x3c\xff\xff\xce", r"malformed method b'\\x00<\\xff\\xff'"),
        (b"\x01\0\1\0\0\0\5\0\x3c\0\x50\0\xce", "malformed method"),
        (b"\x01\0\1\0\0\0\5\0\x0a\0\x33\0\xce", "octets after the last argument of Connection.CloseOk"),
    ],
)
def test_what_is_no_frame_is_a_value_error(data: bytes, wanted: str) -> None:
    with pytest.raises(ValueError, match=wanted):
        read_frame(data)


# --- deliveries ---

DELIVER = write_method(1, Basic.Deliver("tag", 7, False, "events", "Asked"))
CONTENT = struct.pack(">BHIHHQ", 2, 1, 14, 60, 0, 5) + b"\0\0\xce"


def whole(method: bytes = DELIVER, header: bytes = CONTENT, body: bytes = b"\3\0\1\0\0\0\5hello\xce") -> bytes:
    return b"before" + method + header + body + b"behind"


def test_a_usual_delivery_is_read_in_one_step() -> None:
    data = whole()
    found = reading.read_delivery(data, 6, 14)
    assert found is not None
    method, properties, body, at = found
    assert (method.name, dict(method)["delivery_tag"], type(properties)) == ("Basic.Deliver", 7, Properties)
    assert (body, data[at:]) == (b"hello", b"behind")


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(whole(method=write_method(1, Basic.Ack(7))), id="another method"),
        pytest.param(whole(method=DELIVER[:-1] + b"\0"), id="the end of the method"),
        pytest.param(whole(method=b"\1\0\1\0\0\0\4\0\x3c\0\x3c\xce"), id="a method without arguments"),
        pytest.param(whole(header=b"\3" + CONTENT[1:]), id="no header"),
        pytest.param(whole(header=CONTENT[:2] + b"\2" + CONTENT[3:]), id="the header of another channel"),
        pytest.param(whole(header=CONTENT[:7] + b"\0\x3d" + CONTENT[9:]), id="another class"),
        pytest.param(whole(header=CONTENT[:-1] + b"\0"), id="the end of the header"),
        pytest.param(whole(header=CONTENT[:6] + b"\x0d" + CONTENT[7:-2] + b"\xce"), id="a header without flags"),
        pytest.param(whole(header=CONTENT[:18] + b"\0" + CONTENT[19:], body=b""), id="no body"),
        pytest.param(whole(header=CONTENT[:18] + b"\6" + CONTENT[19:]), id="a body in parts"),
        pytest.param(whole(body=b"\2\0\1\0\0\0\5hello\xce"), id="another frame for the body"),
        pytest.param(whole(body=b"\3\0\2\0\0\0\5hello\xce"), id="the body of another channel"),
        pytest.param(whole(body=b"\3\0\1\0\0\0\5hello\0"), id="the end of the body"),
    ],
)
def test_what_is_no_usual_delivery_is_left_to_its_frames(data: bytes) -> None:
    assert reading.read_delivery(data, 6, 100) is None


@pytest.mark.parametrize("limit", [4, 13])
def test_what_is_too_large_is_left_to_its_frames(limit: int) -> None:
    assert reading.read_delivery(whole(), 6, limit) is None


def test_what_is_not_all_there_is_left_to_its_frames() -> None:
    data = whole().removesuffix(b"behind")
    for end in range(6, len(data)):
        assert reading.read_delivery(data[:end], 6, 100) is None


# --- names ---


def deliver(exchange: bytes, key: bytes) -> base.Frame:
    arguments = b"".join(bytes((len(name),)) + name for name in (b"tag",)) + struct.pack(">QB", 1, 0)
    return read_method(
        struct.pack(">I", Basic.Deliver.index)
        + arguments
        + bytes((len(exchange),))
        + exchange
        + bytes((len(key),))
        + key
    )


def test_names_in_utf_8_are_text() -> None:
    given = Basic.Properties()
    exchange, key, properties = named(deliver(b"events", "Häppened".encode()), given)
    assert (exchange, key) == ("events", "Häppened")
    assert properties is given


def test_names_that_are_not_utf_8_make_a_message_unreadable() -> None:
    given = Basic.Properties(message_id="m", headers={"conversation_id": "c"})
    exchange, key, properties = named(deliver(b"events", b"odd.\xff"), given)
    assert (exchange, key) == ("events", "odd.\ufffd")
    assert isinstance(properties, Unreadable)
    assert properties.reason == r"the routing key is not UTF-8: b'odd.\xff'"
    assert dict(properties) == dict(given)
    _, _, properties = named(deliver(b"\xfe", b"odd.\xff"), read_properties(CONTENT_TYPE + b"\1\xff"))
    assert isinstance(properties, Unreadable)
    assert [part.split(" is ")[0] for part in properties.reason.split("; ")] == [
        "the property content_type",
        "the exchange",
        "the routing key",
    ]


def test_a_name_is_read_once_by_a_service_that_gets_1500_kinds_in_turns() -> None:
    kinds = [pamqp_frame.marshal(Basic.Deliver("c", 1, False, "events", f"Kind{n}"), 1) for n in range(1500)]
    reading._two_names.cache_clear()
    for octets in kinds * 3:
        read_method(octets[7:-1])
    assert reading._two_names.cache_info().misses == 1500
