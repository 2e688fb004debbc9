"""Messages and confirms come as ``eda_core.amqp.Client`` tells them, and all other frames come to the library as is."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pamqp.commands import Basic, Channel, Connection

from eda_core.amqp import Received
from eda_core.amqp.client import FRAME_MAX
from eda_core.amqp.message_reader import MessageReader
from eda_core.amqp.writing import HEARTBEAT_FRAME, write_content, write_frame, write_method
from eda_core.messages import Unreadable
from tests.core.amqp.pair import PROPERTIES, client_in, described, message, split

OURS, THEIRS = 1, 2
MAX_BODY = 1000
#: Frames that are the library's on any channel.
LEFT = [
    HEARTBEAT_FRAME,
    write_method(0, Connection.Blocked("low on memory")),
    write_method(OURS, Basic.CancelOk("t")),
    write_method(OURS, Basic.ConsumeOk("t")),
    write_method(OURS, Channel.FlowOk(True)),
]


def reader(*channels: int) -> MessageReader:
    made = MessageReader(MAX_BODY)
    for channel in channels:
        made.open(channel)
    return made


def returned(channel: int, body: bytes) -> bytes:
    method = write_method(channel, Basic.Return(312, "NO_ROUTE", "", "q"))
    return method + b"".join(write_content(channel, PROPERTIES.marshal(), body, 0))


def streams() -> st.SearchStrategy[list[bytes]]:
    """What comes on two channels, as whole messages and single frames."""
    channels = st.sampled_from([OURS, THEIRS])
    bodies = st.sampled_from([b"", b"1", b"x" * 300, b"x" * (MAX_BODY + 1)])
    return st.lists(
        st.one_of(
            st.builds(message, channels, bodies, st.integers(1, 9), st.sampled_from([0, 64])),
            st.builds(returned, channels, bodies),
            st.builds(lambda channel, tag: write_method(channel, Basic.Ack(tag, True)), channels, st.integers(1, 9)),
            st.builds(lambda channel, tag: write_method(channel, Basic.Nack(tag)), channels, st.integers(1, 9)),
            st.sampled_from(LEFT),
        ),
        max_size=8,
    )


def pieces(data: bytes, sizes: Iterable[int]) -> Iterator[bytes]:
    """The data in pieces of these sizes, and what is left."""
    for size in sizes:
        if data[:size]:
            yield data[:size]
        data = data[size:]
    if data:
        yield data


@given(stream=streams(), sizes=st.lists(st.integers(1, 40)))
def test_all_comes_in_order_however_it_is_cut(stream: list[bytes], sizes: list[int]) -> None:
    whole, client, made = b"".join(stream), client_in("open", (OURS,), max_body=MAX_BODY), reader(OURS)
    wanted: list[object] = []
    for each in stream:
        if each in LEFT or each[2] != OURS:
            wanted += split(each)
        else:
            wanted += map(described, client.receive(each, 0.0))
    got = [
        item if isinstance(item, bytes) else described(item)
        for piece in pieces(whole, sizes)
        for item in made.receive(piece)
    ]
    assert got == wanted


def test_a_body_that_is_too_large_is_dropped() -> None:
    [event] = reader(OURS).receive(message(OURS, b"x" * (MAX_BODY + 1)))
    assert isinstance(event, Received)
    assert event.body == b""
    assert isinstance(event.properties, Unreadable)
    assert "1001 bytes" in event.properties.reason


def test_a_channel_that_is_closed_between_two_items_is_the_librarys_from_then_on() -> None:
    made, frames = reader(OURS), message(OURS, b"2")
    close = write_method(OURS, Channel.Close(404, "NOT_FOUND", 0, 0))
    items = made.receive(message(OURS, b"1") + close + frames)
    first = next(items)
    assert isinstance(first, Received)
    assert next(items) == close
    made.close(OURS)
    assert list(items) == split(frames)
    made.open(OURS)
    made.close(THEIRS)
    assert [type(item) for item in made.receive(frames)] == [Received]


@pytest.mark.parametrize(
    "octets",
    [
        b"AMQP\x00\x00\x09\x01",
        b"\x09" + write_method(OURS, Basic.Ack(1))[1:],
        write_method(OURS, Basic.Ack(1))[:-1] + b"\x00",
    ],
    ids=["another protocol", "a kind of frame that is none", "a frame without its end"],
)
def test_behind_what_is_no_frame_the_library_gets_all_bytes(octets: bytes) -> None:
    made, ack = reader(OURS), write_method(OURS, Basic.Ack(1))
    items = list(made.receive(ack + octets + ack))
    assert isinstance(items[0], Received)
    assert items[1:] == [octets + ack]
    assert list(made.receive(ack)) == [ack]


DELIVERY, HEADER, BODY = split(message(OURS, b"1"))


@pytest.mark.parametrize(
    ("frames", "why"),
    [
        ((DELIVERY, DELIVERY), "in the middle of a message"),
        ((DELIVERY, write_method(OURS, Basic.Ack(1))), "in the middle of a message"),
        ((DELIVERY, BODY), "before its content header"),
        ((DELIVERY, HEADER, HEADER), "two content headers"),
        ((DELIVERY, HEADER, write_frame(3, OURS, b"12")), "longer than its content header says"),
        ((DELIVERY, write_frame(2, OURS, b"1")), "content header of 1 octets"),
        ((write_frame(1, OURS, DELIVERY[7:-2]),), "malformed method"),
        ((write_frame(1, OURS, write_method(OURS, Basic.Ack(1))[7:-2]),), "malformed method"),
    ],
)
def test_a_message_that_breaks_the_protocol_is_an_error(frames: tuple[bytes, ...], why: str) -> None:
    with pytest.raises(ValueError, match=f"the broker breaks the protocol: .*{why}"):
        list(reader(OURS).receive(b"".join(frames)))


@pytest.mark.parametrize("channel", [0, OURS])
def test_a_frame_that_is_larger_than_was_agreed_on_is_an_error(channel: int) -> None:
    """Nobody keeps the gigabytes that its first octets announce."""
    start = write_frame(3, channel, b"")[:3]
    assert list(reader(OURS).receive(start + FRAME_MAX.to_bytes(4) + b"x")) == []
    why = "the broker breaks the protocol: a frame of 131073 bytes, and 131072 were agreed on"
    with pytest.raises(ValueError, match=why):
        list(reader(OURS).receive(start + (FRAME_MAX + 1).to_bytes(4) + b"x"))


def test_parts_without_a_message_are_the_librarys() -> None:
    assert list(reader(OURS).receive(HEADER + BODY)) == [HEADER, BODY]


def test_whatever_comes_nothing_else_is_raised() -> None:
    """Spoiled messages: bytes changed, cut out and put in."""
    source = random.Random(7)
    stream = message(OURS, b"1" * 50, frame_max=20) + returned(OURS, b"") + write_method(OURS, Basic.Ack(1)) + LEFT[1]
    raised: list[str] = []
    for _ in range(2000):
        data = bytearray(stream)
        for _ in range(source.randint(1, 3)):
            at = source.randrange(len(data))
            data[at : at + source.choice((0, 1, 1, 1, 4))] = source.randbytes(source.choice((0, 1, 1, 4)))
        try:
            list(reader(OURS, THEIRS).receive(bytes(data)))
        except ValueError as error:
            raised.append(str(error))
    assert all(text.startswith("the broker breaks the protocol: ") for text in raised)
    assert 50 < len(raised) < 1950
