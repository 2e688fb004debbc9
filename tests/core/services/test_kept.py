"""What an inbox keeps of a handler, and what is published again."""

from __future__ import annotations

import base64
import dataclasses
import datetime
from typing import Any

import cbor2
import pytest
from hypothesis import given

from eda_core.errors import LocalError, PayloadError
from eda_core.messages.codec import CBOR, DEFAULT_LIMITS, JSON, Limits
from eda_core.messages.envelope import seal
from eda_core.messages.values import AnyMessage, Command, Configuration, Event, Result
from eda_core.services.kept import Kept
from eda_core.testing.strategies import messages

HAPPENED = Event("Happened", 1, "c-1")
ASKED = Command("svc.Do", 1, "c-1", "caller.DoReturn", "k-1")


def kept(*published: AnyMessage, of: AnyMessage = HAPPENED) -> str:
    first = Kept(of, None, DEFAULT_LIMITS)
    assert first.first
    for message in published:
        first.add(message, True)
    return first.record()


def again(stored: str, of: AnyMessage = HAPPENED) -> list[tuple[AnyMessage, bool]]:
    second = Kept(of, stored, DEFAULT_LIMITS)
    assert not second.first
    return second.again()


def in_order(body: bytes) -> bytes:
    """The same payload, its sets and maps in one order: a set has none."""
    return cbor2.dumps(cbor2.loads(body), canonical=True)


@given(messages())
def test_a_message_is_published_again_as_it_was(message: AnyMessage) -> None:
    ((found, mandatory),) = again(kept(message))
    assert mandatory
    assert type(found) is type(message)
    for content_type in ("application/cbor",):
        one, other = (seal(each, content_type, DEFAULT_LIMITS) for each in (message, found))
        assert one[:2] == other[:2]
        assert in_order(one[3]) == in_order(other[3])
        assert one[2].marshal() == other[2].marshal()


def test_messages_of_each_kind_are_published_again_in_order() -> None:
    published: list[AnyMessage] = [
        Event("Told", {"n": [1, None, "é"]}, "c-1", {"priority": 3, "own": [1]}),
        Command("peer.Do", b"x", "c-2", "svc.DoReturn", ""),
        Result("other.Return", 1.5, "c-1", "error", "k-9"),
        Configuration("Settings", [], ""),
    ]
    assert [message for message, _ in again(kept(*published))] == published
    assert again(kept()) == []
    assert again("") == []


def test_the_answer_goes_to_whoever_asks_now() -> None:
    """A call that is made again has another correlation id, and perhaps comes from another worker."""
    answer = Result("caller.DoReturn", "done", "c-1", "success", "k-1")
    another = Result("caller.DoReturn", "later", "c-1", "success", "k-7")
    stored = kept(answer, another, of=ASKED)
    repeated = Command("svc.Do", 1, "c-1", "caller.t2", "k-2")
    assert [message for message, _ in again(stored, of=repeated)] == [
        Result("caller.t2", "done", "c-1", "success", "k-2"),
        another,
    ]
    assert [message for message, _ in again(stored, of=ASKED)] == [answer, another]
    assert [message for message, _ in again(stored)] == [answer, another]


def test_what_the_caller_changes_later_is_not_kept() -> None:
    payload = {"n": 1}
    first = Kept(HAPPENED, None, DEFAULT_LIMITS)
    first.add(Event("Told", payload, "c-1"), False)
    payload["n"] = 2
    assert again(first.record()) == [(Event("Told", {"n": 1}, "c-1"), False)]


def test_it_is_ascii_text() -> None:
    assert kept(Event("Gesagt", "Günther", "c-1")).isascii()


def test_what_cannot_be_kept_is_refused_when_it_is_published() -> None:
    with pytest.raises(PayloadError):
        Kept(HAPPENED, None, Limits(max_bytes=10)).add(Event("Told", "x" * 100, "c-1"), False)


LATER = base64.b64encode(cbor2.dumps([2, []])).decode()


@pytest.mark.parametrize(
    "stored", ["é", "AAAA", "no base64", LATER, base64.b64encode(cbor2.dumps([1, [[9]]])).decode()]
)
def test_a_text_that_was_changed_is_refused(stored: Any) -> None:
    with pytest.raises(LocalError, match=r"what the inbox keeps of Happened cannot be read: .*; the text in its store"):
        again(stored)


@dataclasses.dataclass
class Model:
    when: datetime.datetime


@pytest.mark.parametrize("content_type", [CBOR, JSON])
def test_a_model_is_published_again_as_it_was_written(content_type: str) -> None:
    message = Event("Told", [Model(datetime.datetime(2026, 7, 9, tzinfo=datetime.UTC))], "c-1")
    first = Kept(HAPPENED, None, DEFAULT_LIMITS, content_type)
    first.add(message, True)
    ((found, _),) = again(first.record())
    assert seal(found, content_type, DEFAULT_LIMITS)[3] == seal(message, content_type, DEFAULT_LIMITS)[3]
