"""Whatever a broker sends: no exception, one end at most, nothing behind it, little memory, and work in proportion."""

from __future__ import annotations

import contextlib
import random
import struct
import sys
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pamqp.commands import Basic, Channel, Confirm, Connection, Queue

from eda_core.amqp import Client, Ended, Event, Received
from eda_core.amqp.states import CLOSED, CLOSING, GREETING, LOGGING_IN, OPEN, STATES
from eda_core.amqp.writing import write_content, write_frame, write_method
from eda_core.errors import StateError
from eda_core.messages import Unreadable
from tests.core.amqp.pair import PROPERTIES, Pair, client_in, message

FRAME_MAX: Final = 131_072
MAX_BODY: Final = 10_000
CHANNELS = (1, 2, 7)
#: How many conversations are spoiled in each run, and at night.
RUNS, MANY = 300, 20_000


class Watched:
    """A client, what it tells, and what must hold after each call."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.events: list[Event] = []
        self.ended = client.state is CLOSED

    def receive(self, data: bytes, now: float = 0.0) -> list[Event]:
        return self.hear(self.client.receive(data, now))

    def end(self) -> None:
        """Whatever has come, a user can go on, and there is an end."""
        client = self.client
        client.deadline()
        for number in client.channels:
            if client.is_open(number):
                client.publish(number, "", "q", PROPERTIES, b"")
                client.send(number, Basic.Qos())
                client.close_channel(number)
                break
        self.hear(client.tick(1.0))
        self.hear(client.close(1.0))
        self.hear(client.tick(1e6))
        self.hear(client.lose(""))
        assert (client.state, client.should_close, self.ended) == (CLOSED, True, True)

    def hear(self, events: list[Event]) -> list[Event]:
        for event in events:
            assert not self.ended, "there is nothing behind the end"
            self.ended = isinstance(event, Ended)
            if isinstance(event, Ended):
                assert len(event.reason.splitlines()) <= 1
                assert len(event.reason) <= 1100
            elif isinstance(event, Received):
                assert len(event.body) <= MAX_BODY
        self.events += events
        client = self.client
        assert client.should_close is (client.state is CLOSED)
        assert not client.should_close or self.ended
        assert kept(client) <= FRAME_MAX + 8 + MAX_BODY * len(CHANNELS)
        return events


def kept(client: Client) -> int:
    """How many bytes a client keeps of what it has received."""
    return len(client._rest) + sum(len(channel.body) for channel in client._channels.values())


def watched(state: str) -> Watched:
    return Watched(client_in(state, CHANNELS, max_body=MAX_BODY))


def pieces(data: bytes, sizes: Sequence[int]) -> Iterator[bytes]:
    for size in sizes:
        yield data[:size]
        data = data[size:]
    yield data


# --- any bytes ---

_numbers = st.sampled_from([0, 1, 2, 3, 7, 65_535])
_methods = st.sampled_from(
    [
        *(Connection.Start(0, 9, {}, "PLAIN", ""), Connection.Secure(""), Connection.Tune(0, 0, 0)),
        *(Connection.OpenOk(), Connection.Close(1, "", 0, 0), Connection.CloseOk(), Connection.Blocked("")),
        *(Channel.OpenOk(), Channel.Close(1, "", 0, 0), Channel.CloseOk(), Channel.Flow(False), Channel.Flow(True)),
        *(Basic.Deliver("t", 1, False, "", "q"), Basic.Return(312, "", "", "q"), Basic.Ack(1, True), Basic.Cancel("t")),
    ]
)
_contents = st.builds(
    lambda size, rest: struct.pack(">HHQ", 60, 0, size) + rest,
    st.sampled_from([0, 1, 5, MAX_BODY, MAX_BODY + 1, 2**63, 2**64 - 1]),
    st.sampled_from([b"\0\0", b"", PROPERTIES.marshal(), b"\x20\0\xff\xff\xff\xff"]) | st.binary(max_size=8),
)
_frames = st.one_of(
    st.builds(write_method, _numbers, _methods),
    st.builds(write_frame, st.just(2), _numbers, _contents),
    st.builds(write_frame, st.just(3), _numbers, st.sampled_from([b"", b"x", b"x" * 5, bytes(MAX_BODY)])),
    st.builds(write_frame, st.sampled_from([1, 1, 1, 2, 3, 8]), _numbers, st.binary(max_size=20)),
    st.builds(message, st.sampled_from(CHANNELS), st.binary(max_size=5)),
)
_streams = st.lists(_frames | _frames | _frames | st.binary(max_size=20), max_size=12).map(b"".join)


@settings(max_examples=300)
@given(st.sampled_from(STATES), _streams, st.lists(st.integers(0, 40), max_size=6))
def test_any_bytes_in_any_state(state: str, data: bytes, sizes: list[int]) -> None:
    fed, whole = watched(state), watched(state)
    for piece in pieces(data, sizes):
        fed.receive(piece)
    whole.receive(data)
    assert (fed.client.state, fed.client.data_to_send()) == (whole.client.state, whole.client.data_to_send())
    assert [type(each) for each in fed.events] == [type(each) for each in whole.events]
    fed.end()


# --- streams of a real server, spoiled ---


def recorded() -> list[tuple[bytes, Callable[[Client], list[Event] | None]]]:
    """What a server sends in a conversation, turn by turn, each with what the user does then."""

    def nothing(client: Client) -> None:
        pass

    def begin(client: Client) -> None:
        for number in CHANNELS:
            client.open_channel(number)

    def work(client: Client) -> None:
        client.send(1, Confirm.Select())
        client.send(1, Queue.Declare(queue="q"))
        client.send(2, Basic.Consume(queue="q", consumer_tag="tag"))
        for size in (0, 200, 5000, MAX_BODY + 1):
            client.publish(1, "", "q", PROPERTIES, b"\xce" * size)
        client.publish(1, "", "nowhere", PROPERTIES, b"returned", mandatory=True)

    def get(client: Client) -> None:
        client.ack(2, 3, multiple=True)
        client.send(2, Basic.Nack(4))
        client.send(7, Basic.Get(queue="q"))
        client.send(7, Queue.Declare(queue="nowhere", passive=True))
        client.close_channel(1)

    def leave(client: Client) -> list[Event]:
        return client.close(0.0)

    pair = Pair(max_body=MAX_BODY)
    turns: list[tuple[bytes, Callable[[Client], list[Event] | None]]] = []
    for act in (nothing, nothing, begin, work, get, leave, nothing):
        pair.server.receive(pair.there, pair.client.data_to_send(), now=0.0)
        data = pair.there.data_to_send()
        pair.client.receive(data, 0.0)
        act(pair.client)
        turns.append((data, act))
    assert pair.client.state is CLOSED
    assert all(data for data, _ in turns)
    return turns


TURNS = recorded()


def spoiled(data: bytes, chance: random.Random) -> bytes:
    """The same with something wrong with it."""
    at, size = chance.randrange(len(data)), chance.choice([1, 1, 1, 2, 4, 8, 50])
    begin, end = data[:at], data[at:]
    kind = chance.randrange(8)
    if kind == 0:
        return begin + bytes((end[0] ^ 1 << chance.randrange(8),)) + end[1:]
    if kind == 1:
        return begin + chance.randbytes(size) + end[size:]
    if kind == 2:
        return begin + end[size:]
    if kind == 3:
        return begin + chance.randbytes(size) + end
    if kind == 4:
        return begin + end[:size] * 2 + end[size:]
    if kind == 5:
        return begin + chance.choice([b"\0", b"\xff", b"\x7f", b"\x80"]) * size + end[size:]
    if kind == 6:
        return begin
    return begin + chance.choice([begin, end, write_method(0, Connection.CloseOk()), b"AMQP\0\0\x09\1"]) + end


def replay(seed: int) -> Watched:
    chance = random.Random(seed)
    fed = Watched(Client(now=0.0, max_body=MAX_BODY))
    wrong = {chance.randrange(len(TURNS)) for _ in range(chance.choice([1, 1, 2]))}
    step = chance.choice([0, 0, 13, 100])
    for number, (data, act) in enumerate(TURNS):
        octets = spoiled(data, chance) if number in wrong else data
        for at in range(0, len(octets), step or max(1, len(octets))):
            fed.receive(octets[at : at + step] if step else octets)
        with contextlib.suppress(StateError):  # what the user does is perhaps not possible any more
            fed.hear(act(fed.client) or [])
        fed.client.data_to_send()
    fed.end()
    return fed


def test_a_stream_that_is_not_spoiled_has_no_fault() -> None:
    fed = Watched(Client(now=0.0, max_body=MAX_BODY))
    for data, act in TURNS:
        fed.receive(data)
        fed.hear(act(fed.client) or [])
    assert fed.events[-1] == Ended("")
    fed.end()


def test_spoiled_streams_of_a_server(counted: Callable[[object], None]) -> None:
    broken = sum("breaks the protocol" in str(replay(seed).events[-1]) for seed in range(RUNS))
    counted(f"client fuzz: {broken} of {RUNS} spoiled streams break the protocol")
    assert RUNS // 10 < broken < RUNS


@pytest.mark.deep
def test_very_many_spoiled_streams_of_a_server() -> None:
    for seed in range(RUNS, MANY):
        replay(seed)


# --- hostile lengths ---


def long_table(size: int) -> bytes:
    return struct.pack(">I", size)


def nested(depth: int) -> bytes:
    """The octets of a table of tables."""
    value = b"\1kV"
    for _ in range(depth):
        value = b"\1kF" + long_table(len(value)) + value
    return long_table(len(value)) + value


def start(table: bytes) -> bytes:
    return write_frame(1, 0, struct.pack(">IBB", Connection.Start.index, 0, 9) + table + b"\0\0\0\5PLAIN\0\0\0\0")


@pytest.mark.parametrize("size", [FRAME_MAX + 1, 2**31, 2**32 - 1])
@pytest.mark.parametrize("kind", [1, 2, 3, 8])
def test_a_frame_that_is_too_large_is_refused_before_it_comes(kind: int, size: int) -> None:
    fed = watched(OPEN)
    [end] = fed.receive(struct.pack(">BHI", kind, 1, size))
    assert end == Ended(f"the broker breaks the protocol: a frame of {size} bytes, and 131072 were agreed on")
    assert fed.receive(bytes(100_000)) == []
    assert kept(fed.client) < 20
    fed.end()


def test_a_frame_of_the_largest_size_is_taken() -> None:
    fed = watched(OPEN)
    data = write_frame(3, 5, bytes(FRAME_MAX))
    assert fed.receive(data[:-1]) == []
    assert kept(fed.client) == len(data) - 1
    assert fed.receive(data[-1:]) == []
    assert kept(fed.client) == 0
    fed.end()


@pytest.mark.parametrize("size", [1, 5, 1000, 2**31 - 1, 2**31, 2**32 - 1])
def test_a_table_that_is_longer_than_its_frame_is_a_fault(size: int) -> None:
    fed = watched(GREETING)
    [end] = fed.receive(start(long_table(size)))
    assert "breaks the protocol: malformed method" in str(end)
    fed.end()


@pytest.mark.parametrize("depth", [101, 3_000, 9_000])
def test_a_table_that_is_too_deep_is_a_fault(depth: int) -> None:
    fed = watched(GREETING)
    [end] = fed.receive(start(nested(depth)))
    assert "breaks the protocol: malformed method" in str(end)
    fed.end()


@pytest.mark.parametrize("table", [long_table(2**32 - 1), nested(101), nested(9_000), long_table(3) + b"\1k?"])
def test_headers_of_a_message_are_no_fault_of_the_broker(table: bytes) -> None:
    """The publisher has made them. The next message is read."""
    fed = watched(OPEN)
    content = b"".join(write_content(1, b"\x20\0" + table, b"body", 0))
    delivery = write_method(1, Basic.Deliver("t", 1, False, "", "q"))
    [first, second] = fed.receive(delivery + content + message(1, b"next"))
    assert isinstance(first, Received)
    assert isinstance(first.properties, Unreadable)
    assert first.body == b"body"
    assert isinstance(second, Received)
    assert second.body == b"next"
    fed.end()


@pytest.mark.parametrize("size", [MAX_BODY + 1, 2**32, 2**63, 2**64 - 1])
def test_a_body_of_any_size_takes_no_room(size: int) -> None:
    fed = watched(OPEN)
    for number in CHANNELS:
        fed.receive(write_method(number, Basic.Deliver("t", 1, False, "", "q")))
        fed.receive(write_frame(2, number, struct.pack(">HHQH", 60, 0, size, 0)))
    sent, part = 0, min(size - 1, 100_000)
    while sent < 2_000_000 and sent + part < size:
        assert fed.receive(b"".join(write_frame(3, number, bytes(part)) for number in CHANNELS)) == []
        assert kept(fed.client) == 0
        sent += part
    assert fed.client.state is OPEN
    fed.end()


# --- memory ---


def flood(name: str) -> Iterator[bytes]:
    """What a hostile broker may send for ever, some 30 kB at a time."""
    chance = random.Random(name)
    if name == "parts of bodies":
        for number in CHANNELS:
            yield write_method(number, Basic.Deliver("t", 1, False, "", "q"))
            yield write_frame(2, number, struct.pack(">HHQH", 60, 0, MAX_BODY, 0))
        some = b"".join(write_frame(3, number, b"xy") for number in CHANNELS)
        empty = b"".join(write_frame(3, number, b"") for number in CHANNELS) * 1_000
        while True:
            yield some + empty
    if name == "heartbeats":
        while True:
            yield write_frame(8, 0, b"") * 3_000
    while True:
        if name == "names":
            names = [f"{chance.random()}" * 10 for _ in range(120)]  # in 20 steps more than KINDS
            yield b"".join(write_method(9, Basic.Deliver(key, 1, False, key[:120], key)) for key in names)
        elif name == "messages":
            yield b"".join(message(chance.choice(CHANNELS), chance.randbytes(500)) for _ in range(50))
        elif name == "headers":
            keys = [str(chance.random()) for _ in range(300)]
            table = b"".join(bytes((len(key),)) + key.encode() + b"V" for key in keys)
            content = b"".join(write_content(1, b"\x20\0" + long_table(len(table)) + table, b"", 0))
            yield (write_method(1, Basic.Deliver("t", 1, False, "", "q")) + content) * 5
        else:
            assert name == "garbage"
            yield chance.randbytes(30_000)


@pytest.mark.parametrize(
    ("name", "state"),
    [
        ("parts of bodies", OPEN),
        ("heartbeats", OPEN),
        ("heartbeats", LOGGING_IN),
        ("names", OPEN),
        ("messages", OPEN),
        ("headers", OPEN),
        ("garbage", GREETING),
        ("garbage", OPEN),
        ("messages", CLOSING),
    ],
)
def test_memory_is_bounded(name: str, state: str) -> None:
    """What is remembered by name (see ``lru_cache``) is bounded by its count and by the lengths of names."""
    client = client_in(state, CHANNELS, max_body=MAX_BODY)
    stream = flood(name)
    sizes, fed = [], 0
    tracemalloc.start()
    try:
        for _ in range(2):
            for _ in range(20):
                data = next(stream)
                client.receive(data, 0.0)
                client.data_to_send()
                fed += len(data)
            sizes.append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    assert fed > 500_000
    assert sizes[1] - sizes[0] < 100_000


# --- work ---


class Counting(bytearray):
    """A buffer that counts the bytes that are written to it, copied from it, and looked through."""

    counted = 0

    def __iadd__(self, data: Any) -> Counting:
        self.counted += len(data)
        super().__iadd__(data)
        return self

    def __add__(self, data: Any) -> bytearray:
        self.counted += len(self) + len(data)
        return super().__add__(data)

    def __bytes__(self) -> bytes:
        self.counted += len(self)
        return bytes(memoryview(self))

    def __getitem__(self, key: Any) -> Any:
        found = super().__getitem__(key)
        self.counted += len(found) if isinstance(key, slice) else 1
        return found

    def __contains__(self, data: Any) -> bool:
        self.counted += len(self)
        return super().__contains__(data)


def calls(work: Callable[[], object]) -> int:
    """How many calls of functions some work takes, those of built-in ones included."""
    count = 0

    def note(frame: Any, event: str, argument: Any) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        work()
    finally:
        sys.setprofile(before)
    return count


def octet_by_octet(client: Client, data: bytes) -> None:
    for octet in data:
        client.receive(bytes((octet,)), 0.0)


@pytest.mark.parametrize(
    ("state", "data"),
    [
        (OPEN, write_frame(3, 5, bytes(FRAME_MAX))),
        (OPEN, message(1, bytes(MAX_BODY), frame_max=4096) * 10),
        (OPEN, write_frame(8, 0, b"") * 2_000),
        (OPEN, b"\x09" * 7 + bytes(20_000)),
        (OPEN, b"\x09" * 7 + write_method(0, Connection.CloseOk())[:-1] * 2_000),
        (CLOSING, write_frame(3, 5, bytes(20_000))),
        (GREETING, start(nested(99))),
    ],
    ids=["frame", "messages", "heartbeats", "garbage", "nearly the end", "closing", "handshake"],
)
def test_the_work_is_in_proportion_to_the_bytes(state: str, data: bytes) -> None:
    client = client_in(state, CHANNELS, max_body=MAX_BODY)
    client._rest = buffer = Counting()
    used = calls(lambda: octet_by_octet(client, data))
    assert client._rest is buffer
    assert len(data) <= buffer.counted <= 50 * len(data), "seeking an end looks at the last eleven octets again"
    assert used <= 20 * len(data)


@pytest.mark.parametrize("size", [500, 1_000])
def test_twice_as_many_frames_in_one_piece_take_twice_the_calls(size: int) -> None:
    def take(count: int) -> int:
        client = client_in(OPEN, CHANNELS)
        data = message(1, b"body") * count
        return calls(lambda: client.receive(data, 0.0))

    take(size)  # what is remembered by name is known then
    assert take(2 * size) < 2.1 * take(size)
