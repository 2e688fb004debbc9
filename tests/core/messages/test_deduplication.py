"""What identifies a message, and what its handler publishes, when it is handled again."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from eda_core.messages.deduplication import MAX_CHARACTERS, fitting, identifier, source_of


@pytest.mark.parametrize(
    ("header", "message_id", "source"),
    [
        (None, "m-1", "m-1"),
        ("a/svc/Told.1", "m-1", "a/svc/Told.1"),
        ("a/svc/Told.1", None, "a/svc/Told.1"),
        ("", "m-1", "m-1"),
        (7, "m-1", "m-1"),
        ({"a": 1}, "m-1", "m-1"),
        (None, None, ""),
        (None, "", ""),
        (None, b"\xff", ""),
    ],
)
def test_a_message_is_identified_by_the_header_or_else_by_its_id(
    header: object, message_id: object, source: str
) -> None:
    assert source_of(header, message_id) == source


def test_a_publish_is_identified_by_its_cause_its_service_its_name_and_its_number() -> None:
    assert identifier("m-1", "billing", "Charged", 2) == "m-1/billing/Charged.2"
    assert identifier("m-1", "billing", "archive.Store", 1) == "m-1/billing/archive.Store.1"


def test_identifiers_stay_short_however_long_a_conversation_is() -> None:
    seen: list[str] = []
    source = "8f3a6c1d22aa-1"
    for _ in range(1000):
        source = identifier(source, "transcriber", "archive.TranscribeAudioReturn", 1)
        seen.append(source)
    assert len(set(seen)) == len(seen)
    assert max(map(len, seen)) <= MAX_CHARACTERS
    assert seen[-1].endswith("/transcriber/archive.TranscribeAudioReturn.1"), "one sees where the last one came from"


LONG = st.text(max_size=300)


@given(LONG, LONG, LONG, st.integers(1, 10**9))
def test_identifiers_of_whatever_length_fit(source: str, service: str, name: str, number: int) -> None:
    found = identifier(source, service, name, number)
    assert 0 < len(found) <= MAX_CHARACTERS
    assert found == identifier(source, service, name, number)


@given(st.text(min_size=200), st.text(min_size=200))
def test_long_identifiers_of_different_things_differ(one: str, other: str) -> None:
    assume(one != other)
    assert identifier(one, "svc", "N", 1) != identifier(other, "svc", "N", 1)
    assert fitting(one) != fitting(other)


def test_a_long_id_of_a_peer_is_made_short() -> None:
    long = "é" * 10_000
    assert len(source_of(long, None)) == 32
    assert fitting("x" * MAX_CHARACTERS) == "x" * MAX_CHARACTERS
    assert len(fitting("\ud800" * (MAX_CHARACTERS + 1))) == 32
