"""Any conversation with the server's side means the same, in whatever pieces the bytes come; and it can always end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import pytest
from hypothesis import assume, given
from hypothesis import event as note
from hypothesis import strategies as st
from pamqp.commands import Basic, Channel, Confirm, Connection, Exchange, Queue

from eda_core.amqp import Ended, Event, Opened, Received
from eda_core.amqp.states import CLOSED, CLOSING, OPEN
from eda_core.amqp.writing import write_content, write_method
from eda_core.errors import StateError
from eda_core.messages import Unreadable
from eda_core.testing import strategies
from eda_core.testing.wire import frames
from tests.core.amqp.pair import PROPERTIES, Pair, client_in, described, message, names, sent

QUEUES = ("one", "two")
SIZES = (0, 1, 200, 4087, 4088, 4089, 8176, 10_000)
MAX_BODY: Final = 9000
OPTIONS: dict[str, Any] = {"frame_max": 4096, "channel_max": 5, "max_body": MAX_BODY}


class Conversation:
    """What a user and a broker do, one step after the other; each step is a method, and gets a number to choose by."""

    def __init__(self, steps: Sequence[int]) -> None:
        self.pair = Pair(steps, **OPTIONS)
        self.client = self.pair.client
        self.told: list[tuple[Any, ...]] = []
        self.unsettled: list[tuple[int, int]] = []
        self.published = 0

    def play(self, actions: Sequence[tuple[str, int]]) -> list[tuple[Any, ...]]:
        for name, choice in actions:
            self.hear(getattr(self, name)(choice) or [])
        for _ in range(2):
            self.hear(self.pair.exchange())
            self.hear(self.client.close(self.pair.now))
        self.hear(self.client.lose("cut"))  # if an alarm keeps the server from reading Connection.Close
        return self.told

    def hear(self, events: list[Event]) -> None:
        self.told += [described(each) for each in events]
        for each in events:
            if isinstance(each, Received) and isinstance(each.method, (Basic.Deliver, Basic.GetOk)):
                self.unsettled.append((each.channel, each.method.delivery_tag or 0))

    def channel(self, choice: int) -> int | None:
        """A channel that is open."""
        numbers = [number for number in self.client.channels if self.client.is_open(number)]
        return numbers[choice % len(numbers)] if numbers else None

    def ask(self, choice: int, *methods: Any) -> None:
        number = self.channel(choice)
        for method in methods:
            if number is not None:
                self.client.send(number, method)

    # The user

    def open_channel(self, choice: int) -> None:
        if self.client.state is OPEN and len(self.client.channels) < OPTIONS["channel_max"]:
            number = self.client.open_channel()
            if choice % 2:
                self.client.send(number, Confirm.Select())

    def close_channel(self, choice: int) -> None:
        number = self.channel(choice)
        if number is not None:
            self.client.close_channel(number)

    def declare(self, choice: int) -> None:
        name = QUEUES[choice % 2]
        self.ask(choice, Queue.Declare(queue=name), Queue.Bind(queue=name, exchange="amq.topic", routing_key="#"))

    def delete(self, choice: int) -> None:
        """The broker cancels the consumers."""
        self.ask(choice, Queue.Delete(queue=QUEUES[choice % 2]))

    def consume(self, choice: int) -> None:
        self.ask(choice, Basic.Qos(prefetch_count=choice % 3), Basic.Consume(queue=QUEUES[choice % 2]))

    def get(self, choice: int) -> None:
        self.ask(choice, Basic.Get(queue=QUEUES[choice % 2]))

    def fail(self, choice: int) -> None:
        """The broker closes the channel."""
        wrong = [
            Queue.Declare(queue="nowhere", passive=True),
            Exchange.Delete(exchange="amq.topic"),
            Basic.Ack(999),
            Queue.Declare(queue="one", durable=True),
        ]
        self.ask(choice, wrong[choice % len(wrong)])

    def break_rules(self, choice: int) -> None:
        """The broker closes the connection."""
        if choice % 4 == 0:
            self.ask(choice, Channel.Open())

    def flow(self, choice: int) -> None:
        self.ask(choice, Channel.Flow(active=bool(choice % 2)))

    def publish(self, choice: int) -> None:
        number = self.channel(choice)
        if number is not None:
            exchange = ("", "amq.topic", "missing")[choice % 7 % 3 if choice % 7 < 6 else 2]
            self.published += 1
            body = bytes([self.published % 256]) * SIZES[choice % len(SIZES)]
            self.client.publish(
                number, exchange, ("one", "two", "nowhere")[choice % 3], PROPERTIES, body, choice % 2 > 0
            )

    def settle(self, choice: int) -> None:
        if self.unsettled:
            number, tag = self.unsettled.pop(choice % len(self.unsettled))
            if self.client.is_open(number):
                if choice % 3:
                    self.client.ack(number, tag, multiple=choice % 3 == 2)
                else:
                    self.client.send(number, Basic.Nack(tag, requeue=choice % 2 > 0))

    def update_secret(self, choice: int) -> None:
        if self.client.state is OPEN:
            self.client.update_secret("guest", "renewed")

    def close(self, choice: int) -> list[Event]:
        return self.client.close(self.pair.now) if choice % 4 == 0 else []

    # The broker and the network

    def exchange(self, choice: int) -> list[Event]:
        return self.pair.exchange()

    def alarm(self, choice: int) -> None:
        server = self.pair.server
        server.route(server.broker.set_alarm(bool(choice % 2), now=self.pair.now), now=self.pair.now)

    def shut_down(self, choice: int) -> None:
        if choice % 4 == 0:
            self.pair.server.shutdown(now=self.pair.now)

    def let_time_pass(self, choice: int) -> list[Event]:
        self.pair.now += choice % 15
        self.pair.server.tick(now=self.pair.now)
        return self.client.tick(self.pair.now)

    def lose(self, choice: int) -> list[Event]:
        if choice % 8:
            return []
        self.pair.server.lost(self.pair.there, now=self.pair.now)
        return self.client.lose("reset by peer")


ACTIONS = [
    *("open_channel", "close_channel", "declare", "delete", "consume", "get", "fail", "break_rules", "flow"),
    *("publish", "settle", "update_secret", "close", "exchange", "alarm", "shut_down", "let_time_pass", "lose"),
]
#: Most conversations are to come far.
BEGINNING = [("exchange", 0), ("open_channel", 1), ("declare", 0), ("consume", 0), ("exchange", 0)]
conversations = st.tuples(
    st.sampled_from([[], BEGINNING, BEGINNING, BEGINNING]),
    st.lists(st.tuples(st.sampled_from(ACTIONS) | st.sampled_from(["publish", "exchange"]), st.integers(0, 10**6))),
).map(lambda parts: [*parts[0], *parts[1]])


@given(conversations, st.lists(st.sampled_from([0, 1, 2, 3, 7, 100, 4096, 5000]), min_size=1, max_size=5))
def test_pieces_of_any_size_mean_the_same(actions: list[tuple[str, int]], steps: list[int]) -> None:
    told = Conversation([0]).play(actions)
    assert Conversation(steps).play(actions) == told
    assert Conversation([*[1] * 64, 1000]).play(actions) == told
    ends = [place for place, each in enumerate(told) if isinstance(each[0], Ended)]
    assert ends == [len(told) - 1], "there is one end, and it is the last event"
    assert sum(isinstance(each[0], Opened) for each in told) <= 1
    for each in told[:-1]:
        if isinstance(each[0], int):
            note(each[1])
            assert len(each[4]) <= MAX_BODY
            assert isinstance(each[3], tuple) or each[4] == b""
    note(f"end: {told[-1][0].reason[:30]}")
    assert not told[-1][0].reason.startswith("the broker breaks")


@given(strategies.properties(), st.sampled_from(SIZES))
def test_deliveries_of_any_form_mean_the_same_in_pieces(given: Basic.Properties, size: int) -> None:
    """The usual ones are read in one step, if they come in one piece. All others are read by their frames."""
    header = frames.encode_properties(given)
    assume(len(header) < 4000)
    same_in_pieces(delivery(header, bytes(size)))


@pytest.mark.parametrize("size", [0, 5])
def test_a_delivery_with_one_wrong_octet_means_the_same_in_pieces(size: int) -> None:
    octets = delivery(PROPERTIES.marshal(), bytes(size))
    for at, right in enumerate(octets):
        for wrong in {0, 1, 2, 3, 60, 255, right ^ 1, right ^ 128, min(right + 1, 255)} - {right}:
            same_in_pieces(octets[:at] + bytes((wrong,)) + octets[at + 1 :])


def delivery(header: bytes, body: bytes) -> bytes:
    method = write_method(1, Basic.Deliver("t", 7, False, "events", "Asked"))
    return method + b"".join(write_content(1, header, body, 4096))


def same_in_pieces(octets: bytes) -> None:
    octets += message(1, b"next")
    told = []
    for step in (len(octets), 1):
        client = client_in(OPEN, channels=(1, 2), **OPTIONS)
        pieces = [octets[at : at + step] for at in range(0, len(octets), step)]
        events = [event for piece in pieces for event in client.receive(piece, 0.0)]
        told.append(([described(event) for event in events], client.data_to_send()))
    assert repr(told[0]) == repr(told[1])  # a header may be NaN, which equals nothing


# --- single things ---


@pytest.mark.parametrize("frame_max", [4096, 131_072])
@pytest.mark.parametrize("size", [0, 1, 4087, 4088, 4089, 9999, 10_000, 10_001, 300_000])
@pytest.mark.parametrize("step", [0, 1000])
def test_bodies_of_any_size(frame_max: int, size: int, step: int) -> None:
    """One that is larger than allowed is told without its bytes, and the next message comes whole."""
    pair = Pair(step, frame_max=frame_max, max_body=10_000).open()
    client = pair.client
    channel = client.open_channel()
    pair.ask(channel, Queue.Declare(queue="q"), Basic.Consume(queue="q", consumer_tag="t"))
    body = bytes(range(256)) * (size // 256) + bytes(size % 256)
    client.publish(channel, "", "q", PROPERTIES, body)
    client.publish(channel, "", "q", PROPERTIES, b"next")
    first, second = (event for event in pair.exchange() if isinstance(event, Received))
    if size > 10_000:
        assert first.body == b""
        assert isinstance(first.properties, Unreadable)
        assert first.properties.reason == f"the body has {size} bytes, and 10000 are allowed"
        assert first.properties.headers == PROPERTIES.headers
    else:
        assert first.body == body
        assert dict(first.properties or {}) == dict(PROPERTIES)
    assert second.body == b"next"
    assert not isinstance(second.properties, Unreadable)


def test_messages_of_many_channels_arrive_side_by_side() -> None:
    """The frames of one message may stand between those of others."""
    numbers = range(1, 201)
    client = client_in(OPEN, numbers)
    bodies = {number: bytes((number,)) * (number * 50) for number in numbers}
    frames = {number: message(number, bodies[number], frame_max=1000) for number in numbers}
    events: list[Event] = []
    while any(frames.values()):
        for number, data in frames.items():
            end = 8 + int.from_bytes(data[3:7])
            events += client.receive(data[:end], 0.0)
            frames[number] = data[end:]
    assert {event.channel: event.body for event in events if isinstance(event, Received)} == bodies
    assert len(events) == 200


def test_all_channels_that_are_allowed_can_be_open() -> None:
    pair = Pair().open()
    client = pair.client
    assert [client.open_channel() for _ in range(2047)] == [*range(1, 2048)]
    with pytest.raises(StateError, match="channel 2048 is in use, or too high; use another number, from 1 to 2047"):
        client.open_channel()
    assert names(pair.exchange()) == ["Channel.OpenOk"] * 2047
    client.close_channel(1000)
    assert names(pair.exchange()) == ["Channel.CloseOk"]
    assert client.open_channel() == 1000
    assert len(client.channels) == 2047


@pytest.mark.parametrize("number", [0, -1, 2048, 65_536])
def test_a_channel_has_a_number_that_was_agreed_on(number: int) -> None:
    client = Pair().open().client
    with pytest.raises(StateError, match=f"channel {number} is in use, or too high"):
        client.open_channel(number)
    assert not client.has_data


@pytest.mark.parametrize("first", ["client", "server"])
@pytest.mark.parametrize("step", [0, 1])
def test_both_close_the_connection_at_once(first: str, step: int) -> None:
    pair = Pair(step).open()
    pair.client.open_channel()
    if first == "client":
        pair.client.close(0.0)
        pair.server.shutdown(now=0.0)
    else:
        pair.server.shutdown(now=0.0)
        pair.client.close(0.0)
    assert pair.exchange() == [Ended("")]
    assert (pair.client.state, pair.client.should_close, pair.there.should_close) == (CLOSED, True, True)


@pytest.mark.parametrize("lost", [True, False])
def test_the_broker_closes_while_the_client_closes_and_goes_away(lost: bool) -> None:
    """So does RabbitMQ, which may reset the socket then. Both have agreed on the end."""
    client = client_in(CLOSING)
    assert client.receive(write_method(0, Connection.Close(320, "shutdown", 0, 0)), 0.0) == []
    assert [method.name for method in sent(client)] == ["Connection.CloseOk"]
    assert (client.lose("reset by peer") if lost else client.tick(5.0)) == [Ended("")]


@pytest.mark.parametrize("rounds", [0, 1, 2, 3])
def test_the_client_closes_during_the_handshake(rounds: int) -> None:
    """It says nothing to the broker then: there is nothing to close yet. The driver closes the socket."""
    pair = Pair()
    client = pair.client
    for _ in range(rounds):
        pair.server.receive(pair.there, client.data_to_send(), now=0.0)
        client.receive(pair.there.data_to_send(), 0.0)
    if client.state is OPEN:
        assert client.close(0.0) == []
        assert pair.exchange() == [Ended("")]
    else:
        waiting = client.has_data
        assert client.close(0.0) == [Ended("")]
        assert client.has_data is waiting
    assert (client.state, client.should_close) == (CLOSED, True)
    assert client.close(0.0) == client.lose("") == client.receive(b"more", 0.0) == []


@pytest.mark.parametrize("step", [0, 1])
def test_what_is_late_for_a_channel_that_is_closed_is_dropped(step: int) -> None:
    """Also while the number is being opened again: what comes before Channel.OpenOk is about the earlier channel."""
    pair = Pair(step)
    client = client_in(OPEN)
    late = message(1, b"late" * 2000, frame_max=4096) + write_method(1, Basic.Ack(1))

    def receive(data: bytes) -> list[str]:
        return [name for piece in pair.pieces(data) for name in names(client.receive(piece, 0.0))]

    assert receive(write_method(1, Channel.Close(404, "NOT_FOUND", 0, 0)) + late) == ["Channel.Close"]
    assert [method.name for method in sent(client)] == ["Channel.CloseOk"]
    client.open_channel(1)
    assert receive(late + write_method(1, Channel.OpenOk()) + message(1, b"in time")) == [
        "Channel.OpenOk",
        "Basic.Deliver",
    ]


def test_a_channel_that_cannot_be_opened_is_closed() -> None:
    client = client_in(OPEN, ())
    client.open_channel(1)
    [event] = client.receive(write_method(1, Channel.Close(504, "CHANNEL_ERROR", 0, 0)), 0.0)
    assert names([event]) == ["Channel.Close"]
    assert not client.is_open(1)
    assert [method.name for method in sent(client)] == ["Channel.Open", "Channel.CloseOk"]


def test_a_channel_is_closed_before_it_is_open() -> None:
    pair = Pair().open()
    channel = pair.client.open_channel()
    pair.client.close_channel(channel)
    assert names(pair.exchange()) == ["Channel.CloseOk"]


def test_a_channel_that_nobody_has_closed_cannot_be_closed_by_an_answer() -> None:
    client = client_in(OPEN)
    assert client.receive(write_method(1, Channel.CloseOk()), 0.0) == [
        Ended("the broker breaks the protocol: Channel.CloseOk on channel 1, which was not closed")
    ]


def test_a_method_in_the_middle_of_a_message_is_a_fault() -> None:
    client = client_in(OPEN)
    delivery = write_method(1, Basic.Deliver("t", 1, False, "", "q"))
    assert client.receive(delivery + delivery, 0.0) == [
        Ended("the broker breaks the protocol: Basic.Deliver on channel 1 in the middle of a message")
    ]


def test_a_channel_is_closed_in_the_middle_of_a_message_by_the_user() -> None:
    client = client_in(OPEN)
    data = message(1, b"body" * 100, frame_max=100)
    assert client.receive(data[:200], 0.0) == []
    client.close_channel(1)
    assert client.receive(data[200:], 0.0) == []
    assert names(client.receive(write_method(1, Channel.CloseOk()), 0.0)) == ["Channel.CloseOk"]


def test_what_channel_flow_holds_is_forgotten_with_its_channel() -> None:
    client = client_in(OPEN)
    client.receive(write_method(1, Channel.Flow(False)), 0.0)
    client.publish(1, "", "q", PROPERTIES, b"held")
    client.close_channel(1)
    assert [method.name for method in sent(client)] == ["Channel.FlowOk", "Channel.Close"]
    client.receive(write_method(1, Channel.CloseOk()), 0.0)
    client.open_channel(1)
    client.receive(write_method(1, Channel.OpenOk()) + write_method(1, Channel.Flow(True)), 0.0)
    client.publish(1, "", "q", PROPERTIES, b"new")
    data = client.data_to_send()
    assert b"new" in data
    assert b"held" not in data


@pytest.mark.parametrize(
    ("proposed", "agreed"), [((0, 0), (131_072, 2047)), ((4096, 10), (4096, 10)), ((2**20, 9999), (131_072, 2047))]
)
def test_the_smaller_limits_count(proposed: tuple[int, int], agreed: tuple[int, int]) -> None:
    pair = Pair()
    pair.server.frame_max, pair.server.channel_max = proposed
    pair.open()
    assert (pair.client.frame_max, pair.client.channel_max) == agreed


def test_frames_that_are_too_small_are_not_agreed_on() -> None:
    pair = Pair()
    pair.server.frame_max = 100
    [end] = pair.exchange()
    assert end == Ended("the broker breaks the protocol: the broker asks for frames of 100 bytes, less than 4096")


def test_heartbeats_keep_both_sides_alive() -> None:
    pair = Pair(heartbeat=10).open()
    for _ in range(100):
        due = [pair.client.deadline(), pair.server.deadline()]
        pair.now = min(each for each in due if each is not None)
        pair.server.tick(now=pair.now)
        assert pair.client.tick(pair.now) == []
        assert pair.exchange() == []
    assert pair.now > 200
    assert pair.client.state is OPEN
    last: list[Event] = []
    while pair.client.state is OPEN:  # the network drops everything from now on
        pair.now = pair.client.deadline() or 0.0
        last = pair.client.tick(pair.now)
    assert last == [Ended("the broker has been silent for 20.0 s")]
