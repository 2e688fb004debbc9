"""Messages as values."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eda_core.machine.identifiers import TAG_MASK, Epoch
from eda_core.messages.values import AnyMessage, Command, Configuration, Event, LogRecord, Message, Result
from eda_core.testing import strategies
from eda_core.text import shortened

epochs = st.integers(1, 2**15).map(Epoch)
tags = st.integers(1, TAG_MASK)


@given(strategies.messages())
def test_a_repr_tells_kind_name_and_conversation_but_not_the_payload(message: AnyMessage) -> None:
    message.payload = "Secret"
    conversation = shortened(message.conversation_id, 40) or "-"
    assert repr(message) == f"<{type(message).__name__} {shortened(message.name, 60)} {conversation}>"


def test_a_repr_is_short_whatever_came_from_the_network() -> None:
    assert repr(Event("N" * 255, None, "c")).startswith("<Event NNNNN")
    assert len(repr(Event("N" * 255, None, "c" * 100_000))) < 120


@pytest.mark.parametrize(
    "make",
    [
        lambda: Event("Name", None, "c"),
        lambda: Command("s.Name", None, "c", "r", "id"),
        lambda: Result("s.Name", None, "c", "success", "id"),
        lambda: Configuration("Name", None, ""),
        lambda: LogRecord("s.INFO", {}, ""),
    ],
)
def test_each_message_has_a_meta_of_its_own(make: Callable[[], AnyMessage]) -> None:
    one, other = make(), make()
    assert one == other
    one.meta["key"] = "value"
    assert other.meta == {}
    assert one != other


def test_messages_of_different_kinds_differ() -> None:
    messages: list[Message] = [Event("Name", 1, "c"), Configuration("Name", 1, "c")]
    assert messages[0] != messages[1]


@pytest.mark.parametrize("kind", [Event, Command, Result, Configuration, LogRecord])
def test_messages_have_slots(kind: type[Message]) -> None:
    """A misspelt attribute is an error, and a message is small."""
    required = [field for field in dataclasses.fields(kind) if field.default_factory is dataclasses.MISSING]
    make: Callable[..., Message] = kind
    message = make(*["x"] * len(required))
    assert not hasattr(message, "__dict__")
