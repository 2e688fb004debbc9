"""Claim checks: which payloads are stored, and that only what was stored comes back."""

from __future__ import annotations

from hashlib import sha256
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eda_core.errors import LocalError, NotBegun, PayloadError, Reject
from eda_core.messages.codec import DEFAULT_LIMITS, Limits
from eda_core.messages.options import options
from eda_core.messages.values import Event
from eda_core.services.claims import ClaimCheck, claim_of, redeemed, stored
from eda_core.testing.strategies import payloads
from tests.core.services.claiming import Memory


def event(payload: object, meta: dict[str, Any] | None = None) -> Event:
    return Event("Happened", payload, "c", {"tenant": "a", **(meta or {})})


@given(payloads(), st.integers(0, 40))
def test_a_payload_comes_back_as_it_was(payload: Any, over: int) -> None:
    memory, sent = Memory(), event(payload)
    claims = ClaimCheck(memory, over)
    published = stored(claims, sent, DEFAULT_LIMITS)
    if not memory.bodies:
        assert published is sent
        return
    ((key, body),) = memory.bodies.items()
    assert len(body) > over
    assert (published.payload, published.meta) == (None, {"tenant": "a", "claim_check": key})
    assert claim_of(published) == key
    assert redeemed(published, key, memory.get(key), DEFAULT_LIMITS) == sent


def test_the_limit_is_the_largest_that_travels() -> None:
    memory = Memory()
    body = b"x" * 100  # with its head 102 bytes
    assert stored(ClaimCheck(memory, 102), event(body), DEFAULT_LIMITS).payload == body
    assert stored(ClaimCheck(memory, 101), event(body), DEFAULT_LIMITS).payload is None
    assert len(memory.bodies) == 1


def test_a_stored_payload_may_be_larger_than_a_message() -> None:
    memory, limits = Memory(), Limits(max_bytes=1000)
    published = stored(ClaimCheck(memory, 500), event("x" * 10_000), limits)
    key = claim_of(published)
    assert redeemed(published, key, memory.get(key), limits).payload == "x" * 10_000


def test_the_same_payload_is_stored_once_and_a_stored_one_not_again() -> None:
    memory = Memory()
    claims = ClaimCheck(memory, 0)
    first, second = (stored(claims, event("text"), DEFAULT_LIMITS) for _ in range(2))
    assert first == second
    assert stored(claims, first, DEFAULT_LIMITS) is first
    assert len(memory.bodies) == 1


def test_what_cannot_be_written_is_not_stored() -> None:
    memory = Memory()
    with pytest.raises(PayloadError):
        stored(ClaimCheck(memory, 0), event(object()), DEFAULT_LIMITS)
    assert memory.bodies == {}


@pytest.mark.parametrize("body", [b"another", b"", None, "text"])
def test_another_body_is_refused(body: Any) -> None:
    memory = Memory()
    published = stored(ClaimCheck(memory, 0), event("text"), DEFAULT_LIMITS)
    with pytest.raises(Reject, match="the store has another body under the key"):
        redeemed(published, claim_of(published), body, DEFAULT_LIMITS)


def test_a_body_that_is_no_payload_is_refused() -> None:
    body = b"\xff"
    with pytest.raises(Reject, match="cannot be read"):
        redeemed(event(None), sha256(body).hexdigest(), body, DEFAULT_LIMITS)


@pytest.mark.parametrize("key", [7, "../../etc/passwd", "AB" * 32, ["a"], None])
def test_a_key_of_a_peer_that_is_none_is_refused(key: object) -> None:
    with pytest.raises(Reject, match="the header claim_check is no key of a claim check"):
        claim_of(event(None, {"claim_check": key}))


def test_nobody_else_writes_the_header() -> None:
    with pytest.raises(LocalError, match="the toolkit or the broker writes it"):
        options({"claim_check": "a"})


@pytest.mark.parametrize("over", [-1, 1.5, True, "1"])
def test_a_wrong_limit_is_refused(over: Any) -> None:
    with pytest.raises(LocalError, match="over is "):
        ClaimCheck(Memory(), over)


def test_what_is_no_store_is_refused() -> None:
    with pytest.raises(LocalError, match="without a method put"):
        ClaimCheck(object())  # type: ignore[arg-type]  # that is what the test is about


def test_a_coroutine_function_in_a_plain_service_is_told() -> None:
    class Slow(Memory):
        async def put(self, key: str, body: bytes) -> None:  # type: ignore[override]  # likewise
            raise AssertionError

    with pytest.raises(NotBegun):
        stored(ClaimCheck(Slow(), 0), event("text"), DEFAULT_LIMITS)
