"""A link on the core's own AMQP, with a broker in the place of sockets: who sends what, when, and what is told."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from pamqp.commands import Basic, Channel, Connection, Exchange, Queue

from eda_core.amqp import Client
from eda_core.amqp.writing import write_method
from eda_core.drivers.amqp_link import CONNECTIONS, AmqpLink
from eda_core.drivers.link import MAX_UNSENT
from eda_core.machine.effects import (
    CONSUMING,
    LOGGING,
    PUBLISHING,
    Ack,
    Cancel,
    Close,
    Connect,
    Consume,
    Declare,
    Nack,
    OpenChannel,
    Probe,
    Publish,
    PublishLog,
)
from eda_core.machine.identifiers import Epoch, PublishId
from eda_core.messages.codec import Limits
from eda_core.messages.properties import Unreadable, persistent
from eda_core.testing.broker import Broker
from eda_core.testing.wire import Server
from tests.core.drivers.test_link import Inputs

EPOCH = Epoch(7)
PROPERTIES = persistent("application/cbor", {"conversation_id": "c"})
Told = tuple[Any, ...]


class Socket:
    """What a transport has for each connection, with the server at its other end."""

    client: Client

    def __init__(self, bench: Bench, name: str) -> None:
        self.bench, self.name = bench, name
        self.there = bench.server.accept(now=bench.inputs.clock)
        self.buffered = 0
        self.aborted = self.closed = False

    def send_soon(self) -> None:
        """The bench writes when it is its turn."""

    def unsent(self) -> int:
        return self.buffered

    def abort(self) -> None:
        self.aborted = True


class Bench(AmqpLink):
    """The link, and a broker."""

    def __init__(self, url: str = "amqp://guest:guest@broker/", heartbeat: int = 20, **settings: Any) -> None:
        self.inputs = Inputs(**settings)
        self.server = Server(Broker())
        self.dropped = self.armed = 0
        self.timers: list[tuple[float, Callable[[], None]]] = []  # those that are set
        super().__init__(Connect(EPOCH, url, "svc@host:1", heartbeat), self.inputs)

    def drop(self) -> None:
        self.dropped += 1

    def call_at(self, due: float, call: Callable[[], None]) -> Callable[[], object]:
        self.armed += 1
        self.timers.append((due, call))
        return lambda: self.timers.remove((due, call))

    @property
    def told(self) -> list[Told]:
        """What was told since the last look."""
        told, self.inputs.told = self.inputs.told, []
        assert all(each[1] == EPOCH for each in told)
        return [(each[0], *each[2:]) for each in told]

    def exchange(self) -> list[Told]:
        """Move bytes until neither side has more, and close the sockets that are to be closed."""
        now, moved = self.inputs.clock, True
        while moved:
            moved = False
            for name, wire in list(self.wires.items()):
                assert isinstance(wire, Socket)
                if wire.aborted or wire.client.should_close:
                    self.server.receive(wire.there, wire.client.data_to_send(), now=now)
                    self.server.lost(wire.there, now=now)
                    self.lost(name, "")
                    moved = True
                    continue
                data = wire.client.data_to_send()
                if data:
                    self.server.receive(wire.there, data, now=now)
                back = wire.there.data_to_send()
                if back:
                    self.take(name, back)
                moved = moved or bool(data or back)
        return self.told

    def open(self) -> Bench:
        for name in CONNECTIONS:
            self.connected(name, Socket(self, name))
        told = self.exchange()
        assert [each[0] for each in told] == ["link_up"]
        assert self.up
        return self

    def prepared(self) -> Bench:
        """It consumes a queue."""
        self.open()
        self.perform(Declare(EPOCH, (Exchange.Declare(exchange="events", exchange_type="topic"),)))
        binding = Queue.Bind(queue="q", exchange="events", routing_key="#")
        self.perform(Declare(EPOCH, (Queue.Declare(queue="q"), binding)))
        self.perform(Consume(EPOCH, "q", "tag"))
        assert [each[0] for each in self.exchange()] == ["declared", "declared"]
        return self


def publish(tag: int, key: str = "Told", exchange: str = "events", mandatory: bool = False) -> Publish:
    return Publish(PublishId(tag), exchange, key, PROPERTIES, b"body", mandatory=mandatory, epoch=EPOCH, tag=tag)


def names(told: list[Told]) -> list[str]:
    return [each[0] for each in told]


def test_it_opens_two_connections_and_three_channels() -> None:
    bench = Bench()
    bench.connected(CONSUMING, Socket(bench, CONSUMING))
    assert bench.exchange() == []
    bench.connected(PUBLISHING, Socket(bench, PUBLISHING))
    [(name, broker, library)] = bench.exchange()
    assert (name, broker[0], library) == ("link_up", "broker", ("library", bench.library))
    assert "RabbitMQ" in broker[1]
    assert [len(wire.client.channels) for wire in bench.wires.values()] == [1, 2]
    assert bench.armed == 2


def test_messages_come_and_go() -> None:
    bench = Bench().prepared()
    bench.perform(publish(1))
    bench.perform(publish(2, "nowhere", "", mandatory=True))
    told = bench.exchange()
    assert sorted(names(told)) == ["confirmed", "confirmed", "delivered", "returned"]
    assert ("confirmed", 1, ("multiple", False)) in told
    [delivered] = [each for each in told if each[0] == "delivered"]
    assert delivered[1:5] == (1, False, "events", "Told")
    assert delivered[6] == b"body"
    bench.perform(Nack(EPOCH, 1, True))
    [again] = bench.exchange()
    assert again[:3] == ("delivered", 2, True)
    bench.perform(Ack(EPOCH, 2, False))
    bench.perform(Cancel(EPOCH, "tag"))
    bench.perform(PublishLog(EPOCH, "events", "Logged", PROPERTIES, b""))
    assert bench.exchange() == []
    entries = bench.server.broker.queue("q").entries()
    assert [[*entry.message.routing_keys] for entry in entries] == [["Logged"]]


def test_a_declare_on_a_channel_of_its_own_closes_it() -> None:
    bench = Bench().open()
    bench.perform(Declare(EPOCH, (Queue.Declare(queue="more"),), "extra 1"))
    [(name, [reply], channel)] = bench.exchange()
    assert (name, reply.name, channel) == ("declared", "Queue.DeclareOk", ("channel", "extra 1"))
    assert len(bench.wires[CONSUMING].client.channels) == 1


def test_a_refused_declaration_is_named() -> None:
    bench = Bench().open()
    bench.perform(Declare(EPOCH, (Queue.Declare(queue="missing", passive=True),)))
    [(name, why, channel, declaration)] = bench.exchange()
    assert (name, channel) == ("channel_closed", ("channel", CONSUMING))
    assert "NOT_FOUND" in why
    assert declaration[1].queue == "missing"
    bench.perform(Ack(EPOCH, 1, False))  # its channel is gone, which was told
    bench.perform(Nack(EPOCH, 1, False))
    assert bench.exchange() == []


@pytest.mark.parametrize("channel", [PUBLISHING, LOGGING])
def test_a_channel_that_the_broker_closes_is_opened_again(channel: str) -> None:
    bench = Bench().open()
    log = PublishLog(EPOCH, "missing", "k", PROPERTIES, b"")
    lost = publish(1, exchange="missing") if channel == PUBLISHING else log
    bench.perform(lost)
    [(name, why, named)] = bench.exchange()
    assert (name, named) == ("channel_closed", ("channel", channel))
    assert "missing" in why
    bench.perform(lost)  # it is dropped, as all that was on its way
    assert bench.exchange() == []
    bench.perform(OpenChannel(EPOCH, channel))
    assert bench.exchange() == [("channel_opened", ("channel", channel))]
    bench.perform(publish(1, "nowhere", ""))
    assert ("confirmed", 1, ("multiple", False)) in bench.exchange()


@pytest.mark.parametrize("channel", [CONSUMING, PUBLISHING])
def test_a_probe_is_answered(channel: str) -> None:
    bench = Bench().open()
    before = bench.traffic(channel)
    bench.perform(Probe(EPOCH, channel))
    assert bench.exchange() == [("alive", ("channel", channel), ("answered", True))]
    assert bench.traffic(channel)[0] > before[0]


def test_an_alarm_is_told() -> None:
    bench = Bench().open()
    server = bench.server
    server.route(server.broker.set_alarm(True, now=0.0), now=0.0)
    bench.perform(publish(1, "nowhere", ""))
    assert bench.exchange() == [("blocked", "low on memory")]
    server.route(server.broker.set_alarm(False, now=0.0), now=0.0)
    assert names(bench.exchange()) == ["unblocked", "confirmed"]


def test_logs_are_dropped_when_too_much_waits() -> None:
    bench = Bench().open()
    wire = bench.wires[PUBLISHING]
    assert isinstance(wire, Socket)
    log = PublishLog(EPOCH, "", "nowhere", PROPERTIES, bytes(MAX_UNSENT))
    bench.perform(log)  # it waits in the protocol, although nothing was written to the socket yet
    waiting = wire.client.pending
    bench.perform(log)
    assert wire.client.pending == waiting > MAX_UNSENT
    bench.exchange()
    wire.buffered = MAX_UNSENT
    bench.perform(log)
    assert not wire.client.has_data


def test_it_closes_channels_first() -> None:
    bench = Bench().prepared()
    bench.perform(Close(EPOCH, "the service stops"))
    assert {wire.client.state for wire in bench.wires.values()} == {"open"}
    assert bench.exchange() == [("link_down", "closed", ("refused", ""))]
    assert bench.wires == {}
    assert (bench.deadline(), bench.dropped) == (None, 0)


def test_it_closes_by_force_if_the_broker_does_not_answer() -> None:
    bench = Bench(close_timeout=3.0).open()
    bench.perform(Close(EPOCH, "the service stops"))
    assert bench.deadline() == bench.inputs.clock + 3.0
    bench.tick()
    assert not any(wire.aborted for wire in bench.wires.values() if isinstance(wire, Socket))
    bench.inputs.clock += 3.0
    bench.tick()
    assert all(wire.aborted for wire in bench.wires.values() if isinstance(wire, Socket))
    bench.tick()
    assert bench.exchange() == [("link_down", "closed", ("refused", ""))]


def test_a_broker_that_does_not_answer_is_dropped_at_once() -> None:
    bench = Bench().open()
    bench.perform(Close(EPOCH, "silent", unresponsive=True))
    assert all(wire.aborted for wire in bench.wires.values() if isinstance(wire, Socket))


def test_a_close_while_nothing_is_connected_ends_at_once() -> None:
    bench = Bench()
    bench.perform(Close(EPOCH, "the service stops"))
    assert bench.told == [("link_down", "closed", ("refused", ""))]
    assert bench.dropped == 1


def test_a_lost_connection_takes_the_other_with_it() -> None:
    bench = Bench().open()
    bench.lost(PUBLISHING, "ConnectionResetError: reset")
    assert bench.told == [("link_down", "ConnectionResetError: reset", ("refused", ""))]
    [left] = bench.wires.values()
    assert isinstance(left, Socket)
    assert left.aborted
    assert bench.exchange() == []


def test_a_socket_that_cannot_be_opened_is_told_once() -> None:
    bench = Bench()
    bench.connected(CONSUMING, Socket(bench, CONSUMING))
    bench.fail("ConnectionRefusedError: no")
    bench.fail("ConnectionRefusedError: no again")
    assert bench.exchange() == [("link_down", "ConnectionRefusedError: no", ("refused", ""))]
    assert bench.dropped == 1


@pytest.mark.parametrize(
    ("url", "refused", "words"),
    [
        ("amqp://guest:wrong@broker/", "credentials", "the broker refuses the user 'guest'"),
        ("amqp://guest:guest@broker/none", "vhost", "vhost not found: 'none'"),
        (f"amqp://guest:guest@broker/{'n' * 100}", "vhost", f"vhost not found: '{'n' * 100}'"),
    ],
)
def test_a_refused_login_says_what_to_do(url: str, refused: str, words: str) -> None:
    bench = Bench(url)
    bench.connected(CONSUMING, Socket(bench, CONSUMING))
    [(name, why, what)] = bench.exchange()
    assert (name, what) == ("link_down", ("refused", refused))
    assert words in why


def test_a_refused_vhost_with_long_names_is_one() -> None:
    """RabbitMQ's text is longer than a line of a log is wide, and what was refused stands at its end."""
    bench = Bench(f"amqp://{'u' * 50}:secret@broker/{'v' * 50}")
    bench.connected(CONSUMING, Socket(bench, CONSUMING))
    bench.take(CONSUMING, write_method(0, Connection.Start(0, 9, {"product": "B"}, "PLAIN", "en_US")))
    text = f"NOT_ALLOWED - access to vhost '{'v' * 50}' refused for user '{'u' * 50}'"
    bench.take(CONSUMING, write_method(0, Connection.Close(530, text, 10, 40)))
    [(name, why, what)] = bench.told
    assert (name, what) == ("link_down", ("refused", "vhost"))
    assert why.startswith("vhost refused: ")


@pytest.mark.parametrize(
    ("url", "words"),
    [
        (
            "amqp://broker/?auth_mechanism=external",
            "the broker does not offer the mechanism EXTERNAL; it offers PLAIN AMQPLAIN",
        ),
        (
            "amqp://a%00b@broker/",
            "the user or the password has a NUL in it; the mechanism PLAIN cannot express it",
        ),
    ],
)
def test_a_login_that_is_not_possible(url: str, words: str) -> None:
    bench = Bench(url)
    bench.connected(CONSUMING, Socket(bench, CONSUMING))
    assert bench.exchange() == [("link_down", words, ("refused", ""))]


def test_a_silent_broker_is_given_up() -> None:
    bench = Bench(heartbeat=10).open()
    bench.inputs.clock += 5.0
    bench.tick()
    assert all(wire.client.has_data for wire in bench.wires.values())  # a heartbeat
    bench.inputs.clock += 15.0
    bench.tick()
    assert bench.told == [("link_down", "the broker has been silent for 20.0 s", ("refused", ""))]


def unanswered(effect: Consume | Cancel) -> Bench:
    """A link without heartbeats, whose broker has not answered this."""
    bench = Bench(heartbeat=0, close_timeout=4.0).prepared()
    bench.perform(effect)
    return bench


@pytest.mark.parametrize("effect", [Consume(EPOCH, "q", "more"), Cancel(EPOCH, "tag")], ids=["consume", "cancel"])
def test_a_consumer_that_the_broker_says_nothing_about_has_failed(effect: Consume | Cancel) -> None:
    bench = unanswered(effect)
    bench.inputs.clock += 3.9
    bench.tick()
    assert bench.told == []
    bench.inputs.clock += 0.1
    assert bench.deadline() == bench.inputs.clock
    bench.tick()
    assert bench.inputs.told == [("effect_failed", effect, "TimeoutError: no answer")]
    assert bench.deadline() is None


def test_an_answer_in_time_is_noticed() -> None:
    bench = unanswered(Consume(EPOCH, "q", "more"))
    assert bench.exchange() == []
    assert bench.deadline() is None
    bench.inputs.clock += 100.0
    bench.tick()
    assert bench.told == []


def test_an_answer_that_nobody_waits_for_is_ignored() -> None:
    bench = Bench().prepared()
    bench.take(CONSUMING, write_method(1, Basic.ConsumeOk("other")))
    assert bench.exchange() == []


def test_an_answer_that_may_have_come_is_read_first() -> None:
    """The event loop was blocked for longer than the broker may take."""
    bench = unanswered(Consume(EPOCH, "q", "more"))
    bench.inputs.clock += 6.0
    bench.tick()
    assert bench.told == []
    assert bench.deadline() == bench.inputs.clock + 2.0
    assert bench.exchange() == []
    assert bench.deadline() is None


def test_a_link_that_is_being_closed_waits_for_no_answer() -> None:
    bench = unanswered(Consume(EPOCH, "q", "more"))
    bench.perform(Close(EPOCH, "stop"))
    assert bench.deadline() == bench.inputs.clock + 4.0
    assert names(bench.exchange()) == ["link_down"]
    assert bench.deadline() is None


def test_what_comes_for_a_connection_that_is_gone_is_ignored() -> None:
    bench = Bench().open()
    bench.lost(CONSUMING, "cut")
    assert names(bench.exchange()) == ["link_down"]
    bench.take(CONSUMING, write_method(1, Basic.ConsumeOk("tag")))
    bench.lost(CONSUMING, "cut again")
    assert bench.exchange() == []


def test_a_channel_that_is_being_closed_is_not_closed_again() -> None:
    bench = Bench().open()
    [number] = bench.wires[CONSUMING].client.channels
    bench.wires[CONSUMING].client.close_channel(number)
    bench.perform(Close(EPOCH, "stop"))
    assert names(bench.exchange()) == ["link_down"]


def test_a_channel_for_declarations_that_the_broker_has_closed_is_not_closed_again() -> None:
    bench = Bench().open()
    client = bench.wires[CONSUMING].client
    bench.perform(Declare(EPOCH, (Queue.Declare(queue="more"),), "extra"))
    bench.take(CONSUMING, write_method(2, Channel.OpenOk()))
    bench.take(CONSUMING, write_method(2, Channel.Close(406, "PRECONDITION_FAILED", 50, 10)))
    assert names(bench.told) == ["channel_closed"]
    client.data_to_send()
    bench.close_channel("extra")
    assert not client.has_data


def test_there_is_one_timer_which_ends_with_the_link() -> None:
    bench = Bench(heartbeat=10).open()
    [(due, call)] = bench.timers
    assert due == bench.deadline() == bench.inputs.clock + 5.0
    bench.inputs.clock = due
    call()
    assert all(wire.client.has_data for wire in bench.wires.values())  # a heartbeat
    [(again, _)] = bench.timers
    assert again == bench.deadline()
    bench.perform(Close(EPOCH, "the service stops"))
    bench.exchange()
    assert bench.timers == []


def test_what_nobody_asked_for_breaks_the_protocol() -> None:
    bench = Bench().open()
    bench.take(CONSUMING, write_method(1, Basic.GetEmpty()))
    assert bench.told == [("link_down", "the broker breaks the protocol: unexpected Basic.GetEmpty", ("refused", ""))]
    assert b"unexpected Basic.GetEmpty" in bench.wires[CONSUMING].client.data_to_send()  # in Connection.Close


def test_a_channel_that_cannot_be_opened_ends_the_link() -> None:
    bench = Bench()
    wire = Socket(bench, CONSUMING)
    bench.connected(CONSUMING, wire)
    bench.take(CONSUMING, write_method(0, Connection.Start(0, 9, {"product": "B"}, "PLAIN", "en_US")))
    bench.take(CONSUMING, write_method(0, Connection.Tune(10, 4096, 0)) + write_method(0, Connection.OpenOk()))
    bench.take(CONSUMING, write_method(1, Channel.Close(541, "INTERNAL_ERROR", 0, 0)))
    assert bench.told == [("link_down", "the broker does not open a channel: INTERNAL_ERROR", ("refused", ""))]


def test_a_body_over_the_limit_is_not_kept() -> None:
    bench = Bench(limits=Limits(max_bytes=100)).prepared()
    bench.perform(Publish(PublishId(1), "events", "Told", PROPERTIES, bytes(101), epoch=EPOCH, tag=1))
    [delivered] = [each for each in bench.exchange() if each[0] == "delivered"]
    assert (type(delivered[5]), delivered[6]) == (Unreadable, b"")
    assert delivered[5].reason == "the body has 101 bytes, and 100 are allowed"
