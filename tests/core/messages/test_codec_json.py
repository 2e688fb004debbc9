"""JSON that is refused: malformed text, and text that is nested too deep to be read safely."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eda_core.messages.codec import DEFAULT_LIMITS, JSON, DecodeError, Limits, decode


def refusal(body: bytes, limits: Limits = DEFAULT_LIMITS) -> str:
    with pytest.raises(DecodeError) as caught:
        decode(body, JSON, limits)
    return str(caught.value)


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"'a'",
        b"\xff",
        b"\xef\xbb\xbf1",
        '"é"'.encode("latin-1"),
        "1".encode("utf-16"),
        b"1" * 5000,
        b'"\x00"',
        b"][",
    ],
)
def test_malformed_json_is_refused(body: bytes) -> None:
    assert refusal(body).startswith("malformed JSON: ")


@pytest.mark.parametrize("body", [b"[" * 100_000, b'{"a":' * 100_000, b"]" * 50_000 + b"[" * 100_000])
def test_deep_json_is_refused_and_not_recursed_into(body: bytes) -> None:
    assert refusal(body) == "malformed JSON: nested deeper than 32 levels"


def test_json_that_closes_before_it_opens_is_not_deep() -> None:
    assert refusal(b"]" * 1000 + b"[" * 1000) == "malformed JSON: Expecting value: line 1 column 1 (char 0)"


def test_a_recursion_error_of_the_json_scanner_would_be_a_decode_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python builds differ in how deep it may go, so the counting before it is not the only guard."""

    def recurse(text: str) -> object:
        raise RecursionError("too deep")

    monkeypatch.setattr(json, "loads", recurse)
    assert refusal(b"[]") == "malformed JSON: too deep"


@pytest.mark.parametrize("text", ["[" * 40, '"[[', '\\"[[', '\\\\"]][['])
def test_brackets_in_strings_are_no_depth(text: str) -> None:
    """Escaped quotes do not end strings, escaped backslashes escape nothing."""
    body = json.dumps([text, {text: 1}]).encode()
    assert decode(body, JSON, Limits(max_depth=2)) == [text, {text: 1}]
    assert refusal(body, Limits(max_depth=1)) == "malformed JSON: nested deeper than 1 levels"


def naive_depth(value: object) -> int:
    if isinstance(value, dict):
        return 1 + max(map(naive_depth, value.values()), default=0)
    if isinstance(value, list):
        return 1 + max(map(naive_depth, value), default=0)
    return 0


bracketed = st.recursive(
    st.text(alphabet='[]{}"\\é', max_size=8) | st.integers(),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(alphabet='[]{}"\\', max_size=4), inner, max_size=3)
    ),
    max_leaves=30,
)


@given(bracketed, st.integers(1, 6), st.booleans())
def test_the_depth_of_json_is_that_of_its_values(payload: object, max_depth: int, ascii_only: bool) -> None:
    """Brackets within strings do not count, escaped quotes do not end strings."""
    body = json.dumps(payload, ensure_ascii=ascii_only).encode()
    limits = Limits(max_depth=max_depth)
    if naive_depth(json.loads(body)) > max_depth:
        assert refusal(body, limits) == f"malformed JSON: nested deeper than {max_depth} levels"
    else:
        assert decode(body, JSON, limits) == payload
