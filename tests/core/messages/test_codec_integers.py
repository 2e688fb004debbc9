"""Integers of any length in payloads: the receiver reads all that the sender can write."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eda_core.errors import PayloadError
from eda_core.messages.codec import CBOR, DecodeError, decode, encode


@pytest.mark.parametrize("body", [b"\xc2\x59\x04\x01" + b"\1" * 1025, b"\xc3\x59\x04\x01" + b"\1" * 1025, b"\xc2\x61a"])
def test_an_integer_too_long_to_calculate_with_is_refused(body: bytes) -> None:
    with pytest.raises(DecodeError, match="byte string of at most 1024 bytes"):
        decode(body, CBOR)


@pytest.mark.parametrize("number", [1 << 8 * 1024, ~(1 << 8 * 1024), 1 << 8 * 70_000, ~(1 << 8 * 70_000)], ids=hash)
@pytest.mark.parametrize("inside", ["alone", "value", "key"])
def test_such_an_integer_is_not_sent_either(number: int, inside: str) -> None:
    payload = {"alone": number, "value": {"n": [number]}, "key": {number: 1}}[inside]
    with pytest.raises(PayloadError, match=r"would be refused by its receiver: .* of at most 1024 bytes"):
        encode(payload, CBOR)


@given(st.integers(-8 * 1024, 8 * 1024), st.binary(min_size=1, max_size=32))
def test_the_longest_integers_pass_in_a_long_body(power: int, more: bytes) -> None:
    """The body is made longer here: hypothesis 6.100 refuses tests whose smallest example is large."""
    payload = {"n": (1 << abs(power)) - 1 if power > 0 else -(1 << abs(power)), "more": more * 1024 + b"\xc2\x59"}
    assert decode(encode(payload, CBOR), CBOR) == payload
