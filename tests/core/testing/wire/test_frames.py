"""The codec agrees with pamqp's as far as that goes: each reads what the other writes, with the same result."""

from __future__ import annotations

import contextlib
import copy
import datetime
import decimal
import math
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pamqp import base, commands, encode, header
from pamqp import frame as pamqp_frame

from eda_core.testing.wire import frames

names = st.text(alphabet="abcdefghijklmnopqrstuvwxyz.-_:#@", max_size=40)
keys = st.text(min_size=1, max_size=20)
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(width=32, allow_nan=False, allow_infinity=False)
    | st.text(max_size=50)
    | st.binary(max_size=20).map(bytearray)
    | st.datetimes(datetime.datetime(1970, 1, 1), datetime.datetime(2100, 1, 1)).map(
        lambda value: value.replace(tzinfo=datetime.UTC, microsecond=0)
    )
    | st.builds(
        lambda mantissa, places: decimal.Decimal(mantissa).scaleb(-places),
        st.integers(-(2**31), 2**31 - 1),
        st.integers(0, 20),
    )
)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4), max_leaves=12
)
tables = st.dictionaries(keys, values, max_size=6)
whole_properties = st.builds(
    commands.Basic.Properties,
    content_type=st.none() | names,
    headers=st.none() | tables,
    delivery_mode=st.sampled_from([None, 1, 2]),
    priority=st.none() | st.integers(0, 255),
    correlation_id=st.none() | st.text(max_size=60),
    expiration=st.none() | st.just("1000"),
    timestamp=st.none() | st.just(datetime.datetime(2026, 7, 9, 12, 30, tzinfo=datetime.UTC)),
    app_id=st.none() | names,
)
methods = st.one_of(
    st.builds(commands.Basic.Publish, exchange=names, routing_key=names, mandatory=st.booleans()),
    st.builds(
        commands.Basic.Deliver, names, st.integers(1, 2**63 - 1), st.booleans(), exchange=names, routing_key=names
    ),
    st.builds(
        commands.Queue.Declare,
        queue=names,
        passive=st.booleans(),
        durable=st.booleans(),
        exclusive=st.booleans(),
        auto_delete=st.booleans(),
        nowait=st.booleans(),
        arguments=tables,
    ),
    st.builds(commands.Connection.Start, server_properties=tables, mechanisms=names),
    st.builds(commands.Connection.Close, st.integers(0, 999), names, st.integers(0, 99), st.integers(0, 99)),
    st.builds(commands.Connection.Tune, st.integers(0, 65535), st.integers(0, 2**32 - 1), st.integers(0, 65535)),
    st.builds(commands.Basic.Nack, st.integers(0, 2**63 - 1), st.booleans(), st.booleans()),
)


def payload(data: bytes) -> bytes:
    return data[7:-1]


@given(methods)
def test_methods_are_read_as_pamqp_reads_them(method: base.Frame) -> None:
    data = pamqp_frame.marshal(method, 7)
    expected = pamqp_frame.unmarshal(data)[2]
    assert dict(frames.decode_method(payload(data))) == dict(expected)  # type: ignore[arg-type]


@given(methods)
def test_methods_are_written_as_pamqp_reads_them(method: base.Frame) -> None:
    size, channel, read = pamqp_frame.unmarshal(data := frames.encode_method(7, method))
    assert (size, channel) == (len(data), 7)
    assert dict(read) == dict(method)  # type: ignore[arg-type]


@given(whole_properties, st.integers(0, 2**64 - 1))
def test_properties_are_read_as_pamqp_reads_them(properties: commands.Basic.Properties, size: int) -> None:
    data = header.ContentHeader(0, size, properties).marshal()
    expected = header.ContentHeader()
    expected.unmarshal(data)
    read_size, read = frames.decode_content_header(data)
    assert read_size == size
    assert read == expected.properties
    assert frames.encode_properties(read) == data[12:]


@given(whole_properties)
def test_a_copy_of_properties_may_be_changed(properties: commands.Basic.Properties) -> None:
    _, read = frames.decode_content_header(header.ContentHeader(0, 0, properties).marshal())
    for changed in (copy.copy(read), copy.deepcopy(read)):
        assert changed == read
        changed.message_id = "changed"
        changed.headers = {**(changed.headers or {}), "x-death": [{"count": 1}]}
        assert type(changed) is commands.Basic.Properties
        written = frames.encode_content(1, changed, b"", 0)
        _, again = frames.decode_content_header(payload(written))
        assert again == changed


@pytest.mark.parametrize("value", [0.1, 1e300, b"\xff\xfe", 2**31, -(2**63), decimal.Decimal("1.20"), {"é": [None]}])
def test_values_that_pamqp_cannot_write_exactly(value: object) -> None:
    properties = commands.Basic.Properties(headers={"key": value})  # type: ignore[dict-item]
    _, read = frames.decode_content_header(payload(frames.encode_content(1, properties, b"", 0)))
    assert read.headers == {"key": value}


def test_values_keep_their_types_when_they_are_written_again() -> None:
    entries = [
        *(kind + bytes(size) for kind, size in ((b"b", 1), (b"B", 1), (b"s", 2), (b"u", 2), (b"I", 4), (b"i", 4))),
        *(b"l" + bytes(8), b"f" + bytes(4), b"d" + bytes(8), b"x\0\0\0\1\xff", b"T" + bytes(6) + b"\xff\xff"),
        b"T\0\0\1\x8b\xcf\xe5\x68\x7b",  # milliseconds
        b"A\0\0\0\5s\0\1b\1",
        b"F\0\0\0\5\1ku\0\1",
    ]
    table = b"".join(bytes((1, number)) + octets for number, octets in enumerate(entries, 65))
    data = struct.pack(">HHQHI", 60, 0, 0, 0x2000, len(table)) + table
    _, read = frames.decode_content_header(data)
    assert read.headers is not None
    again = copy.deepcopy(commands.Basic.Properties(headers={**read.headers}))
    assert frames.encode_properties(again)[6:] == table


def test_of_two_values_with_one_name_the_first_counts() -> None:
    table = b"\1kb\1\1kb\2"
    _, read = frames.decode_content_header(struct.pack(">HHQHI", 60, 0, 0, 0x2000, len(table)) + table)
    assert read.headers == {"k": 1}
    assert frames.encode_properties(read)[6:] == table  # what is passed on unchanged has both


@pytest.mark.parametrize("tag", [2**63, 2**64 - 1])
def test_tags_have_no_sign(tag: int) -> None:
    ack = frames.decode_method(payload(frames.encode_method(1, commands.Basic.Ack(tag))))
    assert isinstance(ack, commands.Basic.Ack)
    assert ack.delivery_tag == tag


def test_the_answer_to_an_opened_channel_holds_an_empty_string() -> None:
    assert frames.encode_method(7, commands.Channel.OpenOk()) == bytes.fromhex("01 0007 00000008 0014000b 00000000 ce")


def test_a_reply_text_is_cut_to_what_fits_a_short_string() -> None:
    close = commands.Channel.Close(404, "é" * 200, 50, 10)
    read = frames.decode_method(payload(frames.encode_method(1, close)))
    assert isinstance(read, commands.Channel.Close)
    assert read.reply_text == "é" * 127


@given(st.binary(max_size=60))
def test_any_payload_gives_a_method_or_a_wire_error(data: bytes) -> None:
    for index in (0x000A000B, 0x0032000A, 0x003C0028):
        with contextlib.suppress(frames.WireError):
            frames.decode_method(struct.pack(">I", index) + data)
    with contextlib.suppress(frames.WireError):
        frames.decode_content_header(b"\x00\x3c\x00\x00" + data)


def table_of(entry: bytes) -> bytes:
    inner = b"\x01k" + entry
    return struct.pack(">I", len(inner)) + inner


def deep(leaf: bytes, depth: int) -> bytes:
    """A value in arrays in each other."""
    for _ in range(depth):
        leaf = b"A" + struct.pack(">I", len(leaf)) + leaf
    return leaf


@pytest.mark.parametrize(
    "entry",
    [
        b"S\x00\x00\x01\x00abc",
        b"Zxyz",
        b"I\x00",
        b"A\x00\x00\x00\x03I\x00\x00",
        b"",
        b"F\xff\xff\xff\xff",
        b"d" + struct.pack(">d", math.nan),
        b"d" + struct.pack(">d", -math.inf),
        b"f" + struct.pack(">f", math.nan),
        *(deep(leaf, 150) for leaf in (b"Z", b"I\x00", b"d" + struct.pack(">d", math.nan), b"F\0\0\0\x02\x01kV")),
    ],
)
def test_poison_in_a_header_is_an_internal_error(entry: bytes) -> None:
    with pytest.raises(frames.WireError, match="INTERNAL_ERROR"):
        frames.decode_content_header(struct.pack(">HHQH", 60, 0, 0, 0x2000) + table_of(entry))


@pytest.mark.parametrize(
    "entry",
    [
        b"T" + b"\x7f" + b"\xff" * 7,
        b"F" + struct.pack(">I", 4) + b"\x02\xff\xfeV",
        *(
            deep(leaf, depth)
            for depth in (99, 100, 3000)
            for leaf in (b"V", b"d" + struct.pack(">d", 0.1), b"S\0\0\0\1\xff")
        ),
    ],
)
def test_what_python_cannot_hold_is_written_as_it_was(entry: bytes) -> None:
    """Also in a copy of the properties to which the broker adds a header."""
    flags_and_headers = b"\x20\0" + table_of(entry)
    _, read = frames.decode_content_header(struct.pack(">HHQ", 60, 0, 0) + flags_and_headers)
    assert frames.encode_properties(read) == flags_and_headers
    changed = copy.copy(read)
    changed.headers = {**(changed.headers or {}), "x": None}
    inner = b"\x01k" + entry + b"\x01xV"
    assert frames.encode_properties(changed) == b"\x20\0" + struct.pack(">I", len(inner)) + inner


def test_names_that_are_not_utf_8_are_written_as_they_were() -> None:
    """In properties, in the names of headers, and in what is published."""
    written = b"\xa0\x40\x02\xff\xfe" + struct.pack(">I", 4) + b"\x02\xff\xfeV" + b"\xff" * 8
    _, read = frames.decode_content_header(struct.pack(">HHQ", 60, 0, 0) + written)
    assert frames.encode_properties(copy.copy(read)) == written
    publish = b"\0\x3c\0\x28\0\0\1\xfe\3a.\xff\1"
    method = frames.decode_method(publish)
    assert payload(frames.encode_method(1, method)) == publish
    with pytest.raises(frames.WireError) as caught:
        frames.decode_method(b"\0\x32\0\x0a\0\0\2\xff\xfe\0" + struct.pack(">I", 0))
    assert (caught.value.code, caught.value.text) == (501, "FRAME_ERROR - Malformed UTF-8 in shortstr")


def test_an_unknown_method_is_not_implemented() -> None:
    with pytest.raises(frames.WireError) as caught:
        frames.decode_method(b"\x00\x3c\x03\xe7")
    assert (caught.value.code, caught.value.class_id, caught.value.method_id) == (540, 60, 999)


@pytest.mark.parametrize("frame_max", [4096, 131072, 0])
@pytest.mark.parametrize("size", [0, 1, 4088, 4089, 300_000])
def test_bodies_are_split_by_frame_max(frame_max: int, size: int) -> None:
    body = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    data = frames.encode_content(3, None, body, frame_max)
    joined = b""
    at = 0
    while at < len(data):
        _, channel, length = frames.HEADER.unpack_from(data, at)
        assert channel == 3
        assert not frame_max or length + frames.FRAME_OVERHEAD <= frame_max
        if at:
            joined += data[at + 7 : at + 7 + length]
        at += length + frames.FRAME_OVERHEAD
    assert joined == body


def test_pamqp_still_has_the_limits_this_codec_is_for() -> None:
    with pytest.raises(TypeError):
        encode.field_table({"key": b"\xff"})
