"""Which bindings a message matches. The naive way looks at each binding, with a pattern of its own."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from pamqp import commands

from eda_core.messages.routing import TopicPattern
from eda_core.testing.broker.bindings import Binding, Bindings
from eda_core.testing.broker.message import AmqpMessage
from eda_core.testing.broker.versions import VERSIONS

words = st.lists(st.sampled_from(["a", "b", "", "*", "#"]), max_size=5)
keys = words.map(".".join)
VERSION = VERSIONS["4.3"]


def binding(key: str, queue: str = "q") -> Binding:
    return Binding("x", "queue", queue, key, ("table", ()))


def message(*routing_keys: str) -> AmqpMessage:
    return AmqpMessage("x", routing_keys, commands.Basic.Properties(), b"")


@given(st.lists(st.tuples(st.sampled_from("+-"), keys)), st.lists(keys, min_size=1, max_size=3), st.booleans())
def test_topics_match_as_each_pattern_does(
    changes: list[tuple[str, str]], routing_keys: list[str], early: bool
) -> None:
    bindings = Bindings("topic", VERSION)
    if early:  # the index is there before the bindings are
        assert bindings.find(message("a")) == set()
    there = set()
    for what, key in changes:
        if what == "+":
            bindings.add(binding(key), {})
            there.add(key)
        elif key in there:
            bindings.remove(binding(key))
            there.remove(key)
    expected = {key for key in there if any(map(TopicPattern(key).matches, routing_keys))}
    assert {found.key for found in bindings.find(message(*routing_keys))} == expected
    assert {found.key for found in bindings.clone().find(message(*routing_keys))} == expected
    for key in there:  # and nothing is left when all are gone
        bindings.remove(binding(key))
    assert (len(bindings), bindings.find(message(*routing_keys))) == (0, set())


@given(st.sets(st.tuples(keys, st.sampled_from("pq"))), st.lists(keys, min_size=1, max_size=3))
def test_direct_keys_are_equal(there: set[tuple[str, str]], routing_keys: list[str]) -> None:
    bindings = Bindings("direct", VERSION)
    for key, queue in there:
        bindings.add(binding(key, queue), {})
    found = {(each.key, each.destination) for each in bindings.find(message(*routing_keys))}
    assert found == {(key, queue) for key, queue in there if key in routing_keys}


def test_many_wildcards_take_no_time() -> None:
    """With backtracking the time would grow exponentially with their number."""
    bindings = Bindings("topic", VERSION)
    bindings.add(binding("#.a." * 30 + "b"), {})
    assert bindings.find(message("a." * 60 + "c")) == set()
    assert len(bindings.find(message("a." * 60 + "b"))) == 1
