"""The parts of a message, in order and out of order, and what is kept of them."""

from __future__ import annotations

import struct
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pamqp.commands import Basic

from eda_core.amqp.content import UNEXPECTED_FRAME, Content, Fault
from eda_core.messages import Unreadable

DELIVER = Basic.Deliver("tag", 1, False, "events", "Happened")
LIMIT = 1000


def header(size: int, properties: bytes = b"\x80\0\2ab", class_id: int = 60) -> bytes:
    return struct.pack(">HHQ", class_id, 0, size) + properties


def begun(size: int | None = None) -> Content:
    content = Content(7)
    content.method = DELIVER
    if size is not None:
        assert content.header(header(size), LIMIT) is (size == 0)
    return content


def is_empty(content: Content) -> bool:
    return values(content) == values(Content(7))


def values(content: Content) -> list[object]:
    return [getattr(content, name) for name in ("number", "method", "properties", "missing", "dropped", "body")]


@given(st.lists(st.binary(max_size=20), max_size=8))
def test_a_body_is_its_parts_joined(parts: list[bytes]) -> None:
    body = b"".join(parts)
    content = begun(len(body))
    ends = [content.part(each) for each in parts if content.missing]
    assert ends == [*[False] * (len(ends) - 1), True][-len(ends) :] if body else not ends
    method, properties, found = content.take()
    assert (method, found) == (DELIVER, body)
    assert type(found) is bytes
    assert isinstance(properties, Basic.Properties)
    assert properties.content_type == "ab"
    assert is_empty(content)


def test_a_body_in_one_part_is_not_copied() -> None:
    content, body = begun(4), bytes(4)
    assert content.part(body)
    assert content.take()[2] is body


@pytest.mark.parametrize("parts", [[LIMIT + 1], [1, LIMIT], [0, LIMIT, 0, 1], [1] * (LIMIT + 1)])
def test_a_body_that_is_too_large_is_counted_and_not_kept(parts: list[int]) -> None:
    content = begun(sum(parts))
    for size in parts[:-1]:
        assert not content.part(bytes(size))
        assert content.body == b""
    assert content.part(bytes(parts[-1]))
    method, properties, body = content.take()
    assert (method, body) == (DELIVER, b"")
    assert isinstance(properties, Unreadable)
    assert properties.reason == "the body has 1001 bytes, and 1000 are allowed"
    assert properties.content_type == "ab"
    assert is_empty(content), "the next body is kept"


def test_a_body_of_exactly_the_limit_is_kept() -> None:
    content = begun(LIMIT)
    assert content.part(bytes(LIMIT))
    assert content.take()[2] == bytes(LIMIT)


def test_the_size_of_a_body_may_be_any_number() -> None:
    content = begun(2**64 - 1)
    assert not content.part(bytes(100_000))
    assert content.missing == 2**64 - 1 - 100_000
    assert content.body == b""


def test_properties_that_cannot_be_read_are_told_with_the_size() -> None:
    content = begun()
    assert content.header(header(0, b"\x80\0\1\xff"), LIMIT)
    properties = content.take()[1]
    assert isinstance(properties, Unreadable)
    assert properties.reason == r"the property content_type is not UTF-8: b'\xff'"
    content.method = DELIVER
    content.header(header(LIMIT + 1, b"\x80\0\1\xff"), LIMIT)
    assert isinstance(content.properties, Unreadable)
    assert content.properties.reason.endswith("; the body has 1001 bytes, and 1000 are allowed")


@pytest.mark.parametrize(
    ("content", "payload", "text"),
    [
        (Content(7), header(1), "a content header on channel 7, where no message is due"),
        (begun(5), header(1), "two content headers for one message on channel 7"),
        (begun(), header(1, class_id=10), "content header of the class 10 on channel 7"),
        (begun(), header(1, b"")[:11], "content header of 11 octets on channel 7"),
    ],
)
def test_a_wrong_content_header_is_a_fault(content: Content, payload: bytes, text: str) -> None:
    with pytest.raises(Fault) as raised:
        content.header(payload, LIMIT)
    assert (str(raised.value), raised.value.code) == (text, UNEXPECTED_FRAME)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (Content(7), "a body on channel 7, where no message is due"),
        (begun(), "a body before its content header on channel 7"),
        (begun(4), "a body on channel 7 that is longer than its content header says"),
        (begun(0), "a body on channel 7 that is longer than its content header says"),
    ],
)
def test_a_wrong_body_is_a_fault(content: Content, text: str) -> None:
    with pytest.raises(Fault) as raised:
        content.part(b"12345")
    assert (str(raised.value), raised.value.code) == (text, UNEXPECTED_FRAME)


@pytest.mark.parametrize("size", [0, 1, 2])
def test_many_small_parts_take_no_more_memory_than_the_body(size: int) -> None:
    """Empty ones would take any number of bytes, if each were kept."""
    content = Content(7)
    content.method = DELIVER
    content.header(header(2**20), 2**20)
    payloads = [bytes((0x55, number % 256))[:size] for number in range(256)]
    tracemalloc.start()
    try:
        for turn in range(250_000):
            content.part(payloads[turn % 256])
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(content.body) == 250_000 * size
    assert kept < 1.5 * 250_000 * size + 10_000
