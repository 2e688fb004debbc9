"""Identifiers, messages and outcomes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eda_core.checks import check_seconds
from eda_core.errors import LocalError
from eda_core.machine.identifiers import TAG_BITS, TAG_MASK, Epoch, delivery_id
from eda_core.machine.outcomes import CONFIGURED, DEFERRED, DONE, Configured, Deferred, Done, Failed
from eda_core.messages.values import AnyMessage, Command, Configuration, Event, LogRecord, Message, Result
from eda_core.testing import strategies
from eda_core.text import shortened

epochs = st.integers(1, 2**15).map(Epoch)
tags = st.integers(1, TAG_MASK)


@given(epochs, tags)
def test_a_delivery_id_holds_its_epoch_and_its_tag(epoch: Epoch, tag: int) -> None:
    number = delivery_id(epoch, tag)
    assert (number >> TAG_BITS, number & TAG_MASK) == (epoch, tag)


@given(epochs, tags, epochs, tags)
def test_delivery_ids_are_in_the_order_of_links_then_of_deliveries(
    epoch: Epoch, tag: int, other_epoch: Epoch, other_tag: int
) -> None:
    one, other = delivery_id(epoch, tag), delivery_id(other_epoch, other_tag)
    assert (one < other) == ((epoch, tag) < (other_epoch, other_tag))
    assert (one == other) == ((epoch, tag) == (other_epoch, other_tag))


def test_a_delivery_id_of_the_first_thousands_of_links_fits_a_signed_64_bit_integer() -> None:
    """Handlers put it in logs and payloads, where peers read it."""
    assert delivery_id(Epoch(2**15 - 1), TAG_MASK) < 2**63


@given(strategies.messages())
def test_a_repr_tells_kind_name_and_conversation_but_not_the_payload(message: AnyMessage) -> None:
    message.payload = "Secret"
    conversation = shortened(message.conversation_id, 40) or "-"
    assert repr(message) == f"<{type(message).__name__} {shortened(message.name, 60)} {conversation}>"


@pytest.mark.parametrize(
    ("text", "width", "short"),
    [
        ("", 5, ""),
        ("abcde", 5, "abcde"),
        ("abcdef", 5, "abcd…"),
        ("ab\ncd", 5, "ab…"),
        ("\n", 5, "…"),
        ("abcde\n", 5, "abcd…"),
    ],
)
def test_a_long_or_broken_text_is_cut_to_one_line(text: str, width: int, short: str) -> None:
    assert shortened(text, width) == short


def test_a_repr_is_short_whatever_came_from_the_network() -> None:
    assert repr(Event("N" * 255, None, "c")).startswith("<Event NNNNN")
    assert len(repr(Event("N" * 255, None, "c" * 100_000))) < 120
    assert len(repr(Failed("reason " * 10_000))) < 300


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


@pytest.mark.parametrize(("constant", "kind"), [(DONE, Done), (DEFERRED, Deferred), (CONFIGURED, Configured)])
def test_outcomes_without_parts_are_equal_to_the_constants(constant: object, kind: type) -> None:
    assert constant == kind()
    assert {DONE, DEFERRED, CONFIGURED} - {constant} == {DONE, DEFERRED, CONFIGURED} - {kind()}


def test_a_failure_is_an_alert_that_may_be_tried_again_unless_it_says_otherwise() -> None:
    failed = Failed("no such customer")
    assert (failed.detail, failed.permanent, failed.level) == ("", False, 1)
    with pytest.raises(dataclasses.FrozenInstanceError):
        failed.permanent = True  # type: ignore[misc]


@pytest.mark.parametrize("level", [-1, 8, True, 1.0, "ALERT"])
def test_a_failure_has_a_level_of_the_log_bus(level: Any) -> None:
    with pytest.raises(LocalError, match="log level"):
        Failed("boom", level=level)


@pytest.mark.parametrize("value", [1, 0.001, 1e9])
def test_seconds_are_more_than_none(value: float) -> None:
    check_seconds("timeout", value)


@pytest.mark.parametrize("value", [0, -1.0, float("inf"), float("nan"), "5", None, True])
def test_what_are_no_seconds(value: object) -> None:
    with pytest.raises(LocalError) as caught:
        check_seconds("timeout", value)
    assert str(caught.value) == f"timeout is {value!r}; give seconds, more than 0"
