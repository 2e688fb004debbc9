"""Names and the topic match, which is compared with an oracle that follows the specification."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator
from types import FrameType
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from eda_core.errors import LocalError
from eda_core.messages.routing import EXCHANGES, MAX_NAME_BYTES, TopicPattern, check_name, queue_name
from eda_core.testing import strategies


def split(key: str) -> list[str]:
    """Split a key as RabbitMQ does: an empty key has no words."""
    return key.split(".") if key else []


def oracle(pattern: list[str], words: list[str]) -> bool:
    if not pattern:
        return not words
    head, *tail = pattern
    if head == "#":
        return any(oracle(tail, words[skipped:]) for skipped in range(len(words) + 1))
    return bool(words) and head in ("*", words[0]) and oracle(tail, words[1:])


def keys_over(alphabet: str, longest: int) -> Iterator[str]:
    return (".".join(words) for length in range(longest + 1) for words in itertools.product(alphabet, repeat=length))


def test_the_match_equals_the_oracle_on_all_short_patterns_and_keys() -> None:
    keys = list(keys_over("ab", 4))
    pairs = 0
    for pattern in keys_over("ab*#", 4):
        compiled, words = TopicPattern(pattern), split(pattern)
        for key in keys:
            assert compiled.matches(key) == oracle(words, split(key)), (pattern, key)
            pairs += 1
    assert pairs == 341 * 31


@given(strategies.topic_patterns(), strategies.routing_keys())
@example(pattern="", key="")
@example(pattern="#", key="")
@example(pattern="*", key="")
@example(pattern="*", key=".")
@example(pattern="*.*", key=".")
@example(pattern=".", key=".")
@example(pattern="a..b", key="a..b")
@example(pattern="a.#", key="a.")
@example(pattern="#.", key="a")
@example(pattern="#.#.a.*.#", key="b.a.a")
def test_the_match_equals_the_oracle_with_empty_words_and_wildcards_in_keys(pattern: str, key: str) -> None:
    assert TopicPattern(pattern).matches(key) == oracle(split(pattern), split(key))


@given(st.text(), st.text())
def test_any_text_is_a_pattern_and_a_key(pattern: str, key: str) -> None:
    assert TopicPattern(pattern).matches(key) == oracle(split(pattern), split(key))


@given(strategies.names())
def test_a_name_without_wildcards_matches_itself_and_is_matched_by_a_lone_hash(name: str) -> None:
    assert TopicPattern("#").matches(name)
    assert TopicPattern(name).matches(name)


def steps_of(pattern: TopicPattern, key: str) -> int:
    """Return how many lines of code a match executes."""
    steps = 0

    def trace(_frame: FrameType, event: str, _argument: Any) -> Any:
        nonlocal steps
        steps += event == "line"
        return trace

    outer = sys.gettrace()
    sys.settrace(trace)
    try:
        pattern.matches(key)
    finally:
        sys.settrace(outer)
    return steps


@pytest.mark.parametrize("shape", ["#.a", "#", "#.*"])
def test_forty_hashes_take_steps_in_proportion_to_the_key(shape: str) -> None:
    """With backtracking the match would never end."""
    pattern = TopicPattern(".".join([shape] * 40) + ".z")
    short, long = (steps_of(pattern, ".".join(["a"] * length)) for length in (100, 400))
    assert short > 100
    assert long < 4.1 * short
    assert not pattern.matches(".".join(["a"] * 400))
    assert pattern.matches(".".join(["a"] * 400) + ".z")


def test_a_pattern_shows_what_it_was_made_from() -> None:
    assert repr(TopicPattern("a.#")) == "TopicPattern('a.#')"
    assert len(repr(TopicPattern("a." * 1000))) < 120
    assert TopicPattern("a.#").pattern == "a.#"


def test_the_names_of_the_architecture() -> None:
    assert EXCHANGES == ("events", "commands", "configurations", "logs")
    assert queue_name("transcriber", "events") == "transcriber.events"


@given(strategies.names())
def test_a_name_that_fits_comes_back(name: str) -> None:
    assert check_name("the name", name) is name


@pytest.mark.parametrize("name", ["a" * MAX_NAME_BYTES, "é" * (MAX_NAME_BYTES // 2), "a.b", " ", "\0"])
def test_names_at_the_limit_pass(name: str) -> None:
    assert check_name("the name", name) is name


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        (None, "the name must be str, not NoneType; pass text"),
        (b"Name", "the name must be str, not bytes; pass text"),
        ("", "the name is empty; give it a name"),
        ("a" * 256, "is 256 bytes long, AMQP 0-9-1 allows 255; shorten it"),
        ("é" * 128, "is 256 bytes long"),
        ("\ud800", r"the name '\ud800' is not valid Unicode: surrogates not allowed; remove surrogates"),
    ],
)
def test_names_that_cannot_travel_are_refused(name: object, reason: str) -> None:
    with pytest.raises(LocalError) as caught:
        check_name("the name", name)
    assert reason in str(caught.value)


def test_a_long_name_is_not_repeated_in_full() -> None:
    with pytest.raises(LocalError) as caught:
        check_name("the name", "a" * 100_000)
    assert len(str(caught.value)) < 200


def test_an_empty_name_passes_where_it_may() -> None:
    assert check_name("the key", "", empty=True) == ""
