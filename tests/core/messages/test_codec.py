"""Payloads as bytes: what is accepted, what is refused and why, and that nothing else can happen.

How JSON is refused is in ``test_codec_json``.
"""

from __future__ import annotations

import collections
import dataclasses
import datetime
import decimal
import email.mime.text
import fractions
import ipaddress
import json
import math
import re
import uuid
from collections.abc import Callable
from typing import Any

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eda_core.errors import LocalError, PayloadError
from eda_core.messages import codec
from eda_core.messages.codec import CBOR, JSON, DecodeError, Limits, decode, encode, without_models_for
from eda_core.testing import strategies

BOTH = pytest.mark.parametrize("content_type", [CBOR, JSON])
#: What the decoder puts behind a body to see where it ends.
END = bytes([codec._END_CBOR])
MOMENT = datetime.datetime(2026, 7, 9, 12, 30, tzinfo=datetime.UTC)


def nested(value: object, levels: int) -> object:
    for _ in range(levels):
        value = [value]
    return value


def refusal(body: bytes, content_type: str | None = CBOR, limits: Limits = codec.DEFAULT_LIMITS) -> str:
    with pytest.raises(DecodeError) as caught:
        decode(body, content_type, limits)
    assert caught.value.__cause__ is None
    return str(caught.value)


# Round trips


@given(strategies.payloads(CBOR))
def test_what_cbor_writes_it_reads_back(payload: object) -> None:
    assert decode(encode(payload, CBOR), CBOR) == payload


@given(strategies.payloads(JSON))
def test_what_json_writes_it_reads_back(payload: object) -> None:
    body = encode(payload, JSON)
    assert decode(body, JSON) == payload
    assert json.loads(body) == payload


@given(strategies.json_payloads())
def test_both_content_types_carry_the_same(payload: object) -> None:
    assert decode(encode(payload), CBOR) == decode(encode(payload, JSON), JSON)


@pytest.mark.parametrize(
    "value",
    [
        MOMENT,
        datetime.datetime(1, 1, 1, tzinfo=datetime.timezone(datetime.timedelta(hours=23))),
        datetime.date(2026, 7, 9),
        decimal.Decimal("1.20"),
        decimal.Decimal("-Infinity"),
        fractions.Fraction(1, 3),
        uuid.UUID(int=7),
        ipaddress.ip_address("::1"),
        ipaddress.ip_network("10.0.0.0/8"),
        ipaddress.ip_interface("10.1.2.3/8"),
        2**80,
        -(2**80),
        1 + 2j,
        b"bytes",
        frozenset({"a"}),
        {(1, (2,)): "tuples as keys"},
        cbor2.undefined,
        cbor2.CBORSimpleValue(99),
        math.inf,
    ],
    ids=repr,
)
def test_cbor_carries_more_than_json(value: object) -> None:
    assert decode(encode(value), CBOR) == value


def test_sequences_become_lists() -> None:
    for value in ((1, 2), collections.deque([1, 2]), range(1, 3)):
        assert decode(encode(value), CBOR) == [1, 2]
    assert decode(encode((1, 2), JSON), JSON) == [1, 2]


def test_nan_is_cbor_but_not_json() -> None:
    assert math.isnan(decode(encode(math.nan), CBOR))
    for value in (math.nan, math.inf, -math.inf, [math.nan]):
        with pytest.raises(PayloadError, match="payload cannot be written as application/json"):
            encode(value, JSON)


def test_json_keeps_non_ascii_text_as_utf_8() -> None:
    assert encode("Où ?", JSON) == '"Où ?"'.encode()


# What encode refuses


@BOTH
@pytest.mark.parametrize(
    "payload",
    [object(), ..., datetime.time(1), datetime.datetime(2026, 1, 1), "\ud800", {"\ud800": 1}, {"a": [lambda: None]}],
    ids=lambda value: repr(value).partition(" at 0x")[0],
)
def test_values_without_a_form_are_a_payload_error(content_type: str, payload: object) -> None:
    with pytest.raises(PayloadError, match=f"^payload cannot be written as {content_type}: .*; send plain data$"):
        encode(payload, content_type)


@pytest.mark.parametrize("payload", [b"x", {1, 2}, MOMENT, {(1,): 2}, 10**5000], ids=type)
def test_values_that_json_has_no_form_for_are_a_payload_error(payload: object) -> None:
    with pytest.raises(PayloadError, match="payload cannot be written as application/json"):
        encode(payload, JSON)


@BOTH
@pytest.mark.parametrize("levels", [0, 1, 31])
@pytest.mark.parametrize("value", [re.compile("a"), cbor2.CBORTag(4711, 1), cbor2.CBORTag(28, [])], ids=repr)
def test_what_the_receiver_would_refuse_is_not_sent(content_type: str, levels: int, value: object) -> None:
    reasons = {
        CBOR: "payload would be refused by its receiver: ",
        JSON: "payload cannot be written as application/json",
    }
    with pytest.raises(PayloadError, match=f"^{reasons[content_type]}.*; send plain data$"):
        encode(nested(value, levels), content_type)


@BOTH
def test_depth_is_limited_on_both_sides(content_type: str) -> None:
    limits = Limits(max_depth=5)
    assert decode(encode(nested(1, 5), content_type, limits), content_type, limits) == nested(1, 5)
    with pytest.raises(
        PayloadError, match=r"^payload is nested deeper than 5 levels: payload\[0\]\[0\]\[0\]\[0\]\[0\]; flatten it$"
    ):
        encode(nested(1, 6), content_type, limits)
    body = encode(nested(1, 6), content_type)
    assert re.search("depth|nested deeper than 5 levels", refusal(body, content_type, limits))


@BOTH
def test_size_is_limited_on_both_sides(content_type: str) -> None:
    fits, too_long = "x" * 8, "x" * 9
    limits = Limits(max_bytes=len(encode(fits, content_type)))
    assert decode(encode(fits, content_type, limits), content_type, limits) == fits
    with pytest.raises(PayloadError) as caught:
        encode(too_long, content_type, limits)
    size = limits.max_bytes + 1
    assert str(caught.value) == (
        f"payload is {size} bytes as {content_type}, the limit is {size - 1}; send a reference to it instead"
    )
    assert (
        refusal(encode(too_long, content_type), content_type, limits)
        == f"body of {size} bytes, the limit is {size - 1}"
    )


@BOTH
@pytest.mark.parametrize("shape", [lambda inner: [inner], lambda inner: {"key": inner}, lambda inner: (inner, [])])
def test_every_container_counts_as_a_level(content_type: str, shape: Callable[[object], object]) -> None:
    payload: object = []
    for _ in range(32):
        payload = shape(payload)
    with pytest.raises(PayloadError, match="nested deeper than 32 levels"):
        encode(payload, content_type)


def test_containers_in_keys_and_sets_count_as_levels() -> None:
    deep: object = ()
    for _ in range(32):
        deep = (deep,)
    for payload in ({deep: 1}, {deep}):
        with pytest.raises(PayloadError, match="nested deeper than 32 levels"):
            encode(payload)


@BOTH
def test_a_cyclic_payload_is_refused_with_the_place_of_the_cycle(content_type: str) -> None:
    cycle: list[object] = []
    cycle.append({"again": cycle})
    with pytest.raises(
        PayloadError, match=r"^payload contains itself: payload\[0\]\.again is payload; send plain data$"
    ):
        encode(cycle, content_type)
    order: dict[str, Any] = {"items": [{"of": None}]}
    order["items"][0]["of"] = order["items"]
    with pytest.raises(PayloadError, match=r"contains itself: payload\.items\[0\]\.of is payload\.items; send"):
        encode(order, content_type)


@BOTH
def test_shared_values_are_counted_before_they_are_written(content_type: str) -> None:
    """2 to the power of 400 paths lead through this payload."""
    shared: object = []
    for _ in range(400):
        shared = [shared, shared]
    with pytest.raises(PayloadError, match=r"^payload is larger than 1000 bytes; send a reference to it instead$"):
        encode(shared, content_type, Limits(max_bytes=1000, max_depth=400))


@BOTH
def test_shared_values_are_written_out(content_type: str) -> None:
    shared = ["x"]
    assert decode(encode([shared, shared], content_type), content_type) == [["x"], ["x"]]


@BOTH
def test_parts_of_any_kind_are_counted(content_type: str) -> None:
    for kind in (lambda inner: {"a": inner, "b": inner}, lambda inner: collections.UserList([inner] * 2).data):
        shared: object = {}
        for _ in range(12):
            shared = kind(shared)
        with pytest.raises(PayloadError, match=r"^payload is larger than 1000 bytes"):
            encode(shared, content_type, Limits(max_bytes=1000))


@pytest.mark.parametrize("content_type", ["text/plain", "", "application/CBOR"])
def test_encode_knows_two_content_types(content_type: str) -> None:
    with pytest.raises(LocalError) as caught:
        encode(1, content_type)
    assert str(caught.value) == (
        f"content type {content_type!r} is not supported; use application/cbor or application/json"
    )
    assert not isinstance(caught.value, PayloadError)


@pytest.mark.parametrize(("max_bytes", "max_depth"), [(0, 1), (-1, 32), (1, 0), (1, -1), (1, 401), ("1", 1), (1, 2.0)])
def test_limits_that_make_no_sense_are_refused(max_bytes: Any, max_depth: Any) -> None:
    with pytest.raises(LocalError, match="is not allowed; give max_bytes from 1, and max_depth from 1 to 400"):
        Limits(max_bytes, max_depth)


@BOTH
def test_the_widest_limits_work(content_type: str) -> None:
    """At 400 levels neither json nor cbor2 may meet a limit of its own, or the recursion limit."""
    limits = Limits(max_depth=400)
    payload = nested(1, 400)
    assert decode(encode(payload, content_type, limits), content_type, limits) == payload


@pytest.mark.parametrize(
    "leaf",
    [
        MOMENT,
        2**64,
        decimal.Decimal("1.5"),
        uuid.UUID(int=7),
        fractions.Fraction(1, 3),
        {1},
        collections.deque([1]),
        re.compile("a"),
    ],
    ids=repr,
)
def test_a_tagged_leaf_at_the_limit_of_depth_is_accepted_by_both_sides_or_neither(leaf: object) -> None:
    """Near the limit decode accepts what encode accepts."""
    for levels in range(28, 33):
        try:
            body = encode(nested(leaf, levels))
        except PayloadError:
            continue
        decode(body, CBOR)


def test_an_email_message_is_accepted_by_both_sides_or_neither() -> None:
    try:
        body = encode(email.mime.text.MIMEText("x"))
    except PayloadError:
        return
    decode(body, CBOR)


# What decode refuses


@pytest.mark.parametrize("content_type", [CBOR, JSON, None, "", "text/plain"])
def test_an_empty_body_is_none(content_type: str | None) -> None:
    assert decode(b"", content_type) is None


@pytest.mark.parametrize(
    "content_type",
    ["application/cbor", "Application/CBOR", "application/cbor; v=1", " application/cbor ;charset=binary"],
)
def test_parameters_and_case_of_the_content_type_do_not_matter(content_type: str) -> None:
    assert decode(b"\x81\x01", content_type) == [1]


@pytest.mark.parametrize("content_type", [None, "", "application/json", "application/JSON; charset=utf-8", ";", " "])
def test_json_is_also_what_no_content_type_means(content_type: str | None) -> None:
    assert decode(b"[1]", content_type) == [1]


@pytest.mark.parametrize("content_type", ["text/plain", "application/cbor-seq", "application/json2", "cbor"])
def test_other_content_types_are_refused(content_type: str) -> None:
    reason = f"content type {content_type!r} is neither application/cbor nor application/json"
    assert refusal(b"[1]", content_type) == reason


def test_a_content_type_that_is_no_text_is_refused() -> None:
    """pika gives what is not UTF-8 as bytes."""
    odd: Any = b"\xff"
    assert refusal(b"[1]", odd) == "content type b'\\xff' is neither application/cbor nor application/json"


def test_a_long_content_type_is_shortened_in_the_reason() -> None:
    assert len(refusal(b"[1]", "x" * 255)) < 150


@pytest.mark.parametrize("tag", [25, 28, 29, 35, 36, 256])
@pytest.mark.parametrize("inner", [b"\x80", b"\x00", b"\x61a"], ids=["array", "number", "text"])
def test_tags_that_can_be_made_to_explode_are_refused(tag: int, inner: bytes) -> None:
    head = b"\xd8" + bytes([tag]) if tag < 256 else b"\xd9" + tag.to_bytes(2, "big")
    assert f"CBOR tag {tag} is refused" in refusal(head + inner)
    assert f"CBOR tag {tag} is refused" in refusal(b"\x81" + head + inner)


@pytest.mark.parametrize("tag", [6, 21, 24, 4711, 2**64 - 1])
def test_unknown_tags_are_refused(tag: int) -> None:
    assert f"CBOR tag {tag} is unknown" in refusal(cbor2.dumps(cbor2.CBORTag(tag, 1)))


def test_a_cycle_by_shared_references_is_refused() -> None:
    assert re.search("CBOR tag (28|29) is refused", refusal(bytes.fromhex("d81c81d81d00")))


@pytest.mark.parametrize("rest", [b"\x02", b"\x02\x03", b"\xff", b"\x41", b"\xf8", b"\x81\xf8", END, END + END])
@pytest.mark.parametrize("payload", [b"\x01", b"\x81\x01", b"\x9f\x01\xff"])
def test_trailing_bytes_are_refused_in_cbor(payload: bytes, rest: bytes) -> None:
    assert refusal(payload + rest) == f"malformed CBOR: {len(rest)} bytes after the end of the payload"


def test_trailing_text_is_refused_in_json() -> None:
    assert refusal(b"1 2", JSON).startswith("malformed JSON: Extra data")


@pytest.mark.parametrize(
    "payload",
    [END, cbor2.undefined, [cbor2.undefined] * 2, {"x": cbor2.undefined}, {END: 1}, END[0], -1.5e300, b"x" + END * 3],
)
def test_a_payload_may_hold_the_end_mark(payload: object) -> None:
    assert decode(encode(payload), CBOR) == payload


@pytest.mark.parametrize("body", [b"\xa2\x01\x01\x01\x02", b"\xa2\x61a\x01\x61a\x02", b"\xa2\x01\x01\xf5\x02"])
def test_duplicate_keys_are_refused_in_cbor(body: bytes) -> None:
    """So are 1 and true: they are the same key in Python, and one of the values would be lost."""
    assert "malformed CBOR" in refusal(body)


def test_of_duplicate_keys_in_json_the_last_one_counts() -> None:
    """RFC 8259 allows both; eventail does the same."""
    assert decode(b'{"a": 1, "a": 2}', JSON) == {"a": 2}


TRUNCATED = "81 a1fb 61ff 5b7fffffffffffffff 9bffffffffffffffff"
NONSENSE = "ff 1c c063616263 c11b7fffffffffffffff c5821b7fffffffffffffff01 d81e820100"
DEEP = [(head * 5000).hex() for head in (b"\x81", b"\xc1", b"\xd8\x1e")]


@pytest.mark.parametrize("body", [bytes.fromhex(text) for text in [*TRUNCATED.split(), *NONSENSE.split(), *DEEP]])
def test_malformed_cbor_is_refused(body: bytes) -> None:
    assert refusal(body).startswith("malformed CBOR: ")


@pytest.mark.parametrize("start", [b"\xa2", b"\xc0"], ids=["a key that is there twice", "a time that is none"])
def test_the_reason_does_not_hold_the_body(start: bytes) -> None:
    text = cbor2.dumps("x" * 100_000)
    reason = refusal(start + text + b"\x01" + text + b"\x02", CBOR)
    assert reason.startswith("malformed CBOR: error decoding ")
    assert reason.endswith("xxx…")
    assert len(reason) < 250


def test_whatever_the_cbor_library_raises_is_a_decode_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> object:
        raise MemoryError("no room")

    monkeypatch.setattr(cbor2, "CBORDecoder", broken)
    monkeypatch.setattr(cbor2, "loads", broken)
    assert refusal(b"\x80") == "malformed CBOR: no room"


# Any bytes


CONTENT_TYPES = st.sampled_from([CBOR, JSON, None, "application/cbor;x"])


@given(st.binary(max_size=200), CONTENT_TYPES)
def test_any_bytes_give_a_value_or_a_decode_error(body: bytes, content_type: str | None) -> None:
    value_or_reason(body, content_type)


@given(strategies.cbor_payloads(), st.data())
def test_damaged_cbor_gives_a_value_or_a_decode_error(payload: object, data: st.DataObject) -> None:
    body = bytearray(encode(payload))
    for _ in range(data.draw(st.integers(1, 3))):
        position = data.draw(st.integers(0, len(body)))
        body[position : position + data.draw(st.integers(0, 2))] = data.draw(
            st.binary(max_size=2)
            | st.sampled_from([b"\xc4\x82", b"\xd8\x1e", b"\xd9\x01\x02", b"\xbf", b"\x9f", b"\xff"])
        )
    value_or_reason(bytes(body), CBOR)


@given(st.text(alphabet='[]{}",:\\0123456789.eE+-truefalsn u', max_size=60))
def test_anything_like_json_gives_a_value_or_a_decode_error(text: str) -> None:
    value_or_reason(text.encode(), JSON)


def value_or_reason(body: bytes, content_type: str | None) -> None:
    try:
        decode(body, content_type)
    except DecodeError as error:
        reason = str(error)
    else:
        return
    assert 0 < len(reason) < 1000


def test_a_wide_payload_with_shared_parts_is_counted_as_it_is_written() -> None:
    leaf = ["x" * 100] * 10
    payload = {str(number): [leaf] for number in range(300)}
    assert decode(encode(payload, CBOR), CBOR) == payload
    with pytest.raises(PayloadError, match=r"^payload is larger than 200000 bytes"):
        encode(payload, CBOR, Limits(max_bytes=200_000))


def test_a_wide_payload_is_no_deeper_than_the_limit_either() -> None:
    payload = [nested(1, 4) for _ in range(300)]
    assert decode(encode(payload, CBOR, Limits(max_depth=5)), CBOR) == payload
    with pytest.raises(PayloadError, match=r"^payload is nested deeper than 4 levels"):
        encode(payload, CBOR, Limits(max_depth=4))


def test_a_wide_payload_of_plain_values_is_not_decoded_to_check_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codec, "decode", pytest.fail)
    payload = [{"numbers": [number, (number,)], number: None} for number in range(300)]
    assert cbor2.loads(encode(payload)) == [{"numbers": [number, [number]], number: None} for number in range(300)]


# Models


@dataclasses.dataclass
class Model:
    number: int
    when: object = None


@BOTH
def test_models_are_written_as_maps(content_type: str) -> None:
    payload = {"models": [Model(1), Model(2, MOMENT)]}
    when = MOMENT if content_type == CBOR else "2026-07-09T12:30:00Z"
    written = decode(encode(payload, content_type), content_type)
    assert written == {"models": [{"number": 1, "when": None}, {"number": 2, "when": when}]}
    assert without_models_for(payload, content_type) == written
    assert without_models_for(written, content_type) is written


@BOTH
def test_a_model_is_within_the_limits_of_payloads(content_type: str) -> None:
    with pytest.raises(PayloadError, match=r"payload is \d+ bytes as .*, the limit is 100"):
        encode(Model(1, "x" * 100), content_type, Limits(max_bytes=100))
    with pytest.raises(PayloadError, match=r"payload is nested deeper than 3 levels: payload\.when"):
        encode(Model(1, [[[1]]]), content_type, Limits(max_depth=3))


@BOTH
def test_a_model_with_a_value_that_cannot_be_written_is_refused(content_type: str) -> None:
    with pytest.raises(PayloadError, match=f"payload cannot be written as {content_type}: .*object.*; send plain data"):
        encode([Model(1, object())], content_type)
    with pytest.raises(PayloadError, match=rf"payload cannot be written as {content_type}: payload\.x\.when: "):
        encode({"x": Model(1, float("nan") if content_type == JSON else MOMENT.replace(tzinfo=None))}, content_type)
