"""What links have in common: from an effect to its method, from a method of the broker to an input."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from pamqp import base
from pamqp.commands import Basic, Channel, Confirm, Connection, Exchange, Queue

from eda_core.amqp import Received
from eda_core.drivers.link import Link, broker_name, reason
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
    Effect,
    Nack,
    OpenChannel,
    Probe,
    Publish,
    PublishLog,
)
from eda_core.machine.identifiers import Epoch, PublishId
from tests.core.drivers.test_base import Carrier

EPOCH = Epoch(7)
PROPERTIES = Basic.Properties(headers={"conversation_id": "c-1"})
PUBLISH = Publish(PublishId(1), "events", "Told", PROPERTIES, b"", epoch=EPOCH, tag=1)
EFFECTS: dict[str, Effect] = {
    "declare": Declare(EPOCH, ()),
    "consume": Consume(EPOCH, "q", "events"),
    "cancel": Cancel(EPOCH, "events"),
    "open_channel": OpenChannel(EPOCH, PUBLISHING),
    "probe": Probe(EPOCH, PUBLISHING),
    "ack": Ack(EPOCH, 1, False),
    "nack": Nack(EPOCH, 1, False),
    "publish": PUBLISH,
    "log": PublishLog(EPOCH, "logs", "svc.INFO", PROPERTIES, b""),
}


class Inputs(Carrier):
    """Notes the inputs that it is to make, and makes none."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.told: list[tuple[Any, ...]] = []

    def tell(self, method: Any, *arguments: Any, **named: Any) -> None:
        self.told.append((method.__name__, *arguments, *named.items()))


def made(kind: type[Link] = Link) -> tuple[Link, list[tuple[Any, ...]]]:
    inputs = Inputs()
    return kind(Connect(EPOCH, "amqp://one/", "svc", 20), inputs), inputs.told


class Willing(Link):
    """Notes what it does."""

    def __init__(self, asked: Connect, driver: Inputs) -> None:
        self.done: list[str] = []
        self.full = False
        self.moved = (0, 0)
        super().__init__(asked, driver)

    def close(self) -> None:
        self.done.append("close")

    def close_channel(self, channel: str) -> None:
        self.done.append(f"close {channel}")

    def congested(self) -> bool:
        return self.full

    def traffic(self, channel: str) -> tuple[int, int]:
        return self.moved if channel == PUBLISHING else (0, 0)


for _name in EFFECTS:
    setattr(Willing, _name, lambda self, effect, name=_name: self.done.append(name))


def willing() -> tuple[Willing, list[tuple[Any, ...]]]:
    link, told = made(Willing)
    assert isinstance(link, Willing)
    return link, told


def test_each_effect_finds_its_method() -> None:
    link, told = willing()
    link.report_open()
    for effect in EFFECTS.values():
        link.perform(effect)
    assert link.done == [*EFFECTS]
    assert told == [("link_up", EPOCH, ("broker", ""), ("library", ""))]


def test_an_open_link_tells_what_is_at_its_ends() -> None:
    link, told = willing()
    Willing.library = "carrier 1.0"
    link.report_open({"product": "RabbitMQ", "version": b"4.3.6", "platform": 7})
    assert told == [("link_up", EPOCH, ("broker", "RabbitMQ 4.3.6"), ("library", "carrier 1.0"))]


@pytest.mark.parametrize(
    ("server", "name"),
    [
        ({}, ""),
        ({"product": "RabbitMQ"}, "RabbitMQ"),
        ({"product": 1, "version": None}, ""),
        ({"product": "two\nlines", "version": "1"}, "two"),
        ({"product": b"\xff"}, "\N{REPLACEMENT CHARACTER}"),
    ],
)
def test_the_name_of_a_broker_may_be_anything(server: dict[str, Any], name: str) -> None:
    assert broker_name(server) == name


def test_logs_alone_are_dropped_when_too_much_waits() -> None:
    link, told = willing()
    link.up = link.full = True
    for effect in EFFECTS.values():
        link.perform(effect)
    assert link.done == [name for name in EFFECTS if name != "log"]
    assert told == []


def test_there_is_a_method_for_each_effect_that_touches_a_link() -> None:
    assert {*made()[0].actions} == {type(effect) for effect in EFFECTS.values()}


@pytest.mark.parametrize("when", ["before it is up", "while it closes"])
def test_nothing_but_a_close_is_performed_on_a_link_that_is_not_open(when: str) -> None:
    link, told = willing()
    link.up = link.closing = when == "while it closes"
    for effect in EFFECTS.values():
        link.perform(effect)
    assert (link.done, told) == ([], [])
    link.perform(Close(EPOCH, "over", unresponsive=True))
    assert (link.done, link.unresponsive) == (["close"], True)


@pytest.mark.parametrize("name", [*EFFECTS, "close"])
def test_what_a_transport_cannot_do_is_reported(name: str) -> None:
    link, told = made()
    link.up = True
    effect = EFFECTS.get(name, Close(EPOCH, "over"))
    link.perform(effect)
    assert told == [("effect_failed", effect, "NotImplementedError()")]


@pytest.mark.parametrize(("heartbeat", "consuming"), [(20, 40_000), (0, 0)])
def test_the_system_ends_a_connection_on_which_nothing_is_acknowledged_unless_it_publishes(
    heartbeat: int, consuming: int
) -> None:
    link = Link(Connect(EPOCH, "amqp://one/", "svc", heartbeat), Inputs())
    has, has_not = SimpleNamespace(TCP_USER_TIMEOUT=18), SimpleNamespace()
    assert link.socket_options(has, CONSUMING) == {"TCP_USER_TIMEOUT": consuming}
    assert link.socket_options(has, PUBLISHING) == {"TCP_USER_TIMEOUT": 0}
    assert link.socket_options(has_not, CONSUMING) == {}


def test_a_failure_on_a_link_that_is_given_up_is_no_news() -> None:
    link, told = made()
    link.closing = True
    link.report_failure(PUBLISH, OSError("gone"))
    assert told == []


@pytest.mark.parametrize(
    ("method", "told"),
    [
        (
            Basic.Deliver("tag", 5, True, "events", "Happened"),
            ("delivered", EPOCH, 5, True, "events", "Happened", PROPERTIES, b"body"),
        ),
        (
            Basic.Return(312, "NO_ROUTE", "events", "Told"),
            ("returned", EPOCH, "events", "Told", PROPERTIES, b"body", "NO_ROUTE"),
        ),
        (Basic.Ack(3, True), ("confirmed", EPOCH, 3, ("multiple", True))),
        (Basic.Nack(4, False), ("refused", EPOCH, 4, ("multiple", False))),
        (Basic.Cancel("events"), ("consumer_cancelled", EPOCH, "events")),
        (Connection.Blocked("low on memory"), ("blocked", EPOCH, "low on memory")),
        (Connection.Unblocked(), ("unblocked", EPOCH)),
    ],
    ids=lambda value: value.name if isinstance(value, base.Frame) else "",
)
def test_each_method_of_the_broker_is_an_input(method: base.Frame, told: tuple[Any, ...]) -> None:
    link, inputs = made()
    content = (PROPERTIES, b"body") if method.name in ("Basic.Deliver", "Basic.Return") else ()
    link.receive(method.name, method, *content)
    assert inputs == [told]


@pytest.mark.parametrize("channel", [CONSUMING, PUBLISHING, LOGGING])
def test_a_channel_that_is_closed_or_open_is_an_input_with_its_name(channel: str) -> None:
    link, told = made()
    named = ("channel", channel)
    link.receive("Channel.Close", Channel.Close(404, "NOT_FOUND", 0, 0), channel)
    assert told == [("channel_closed", EPOCH, "NOT_FOUND", named)]
    told.clear()
    link.receive("Channel.OpenOk", Channel.OpenOk(), channel)
    if channel != LOGGING:
        assert told == []
    if channel == PUBLISHING:  # it is open for publishing when its confirms are on
        link.receive("Confirm.SelectOk", Confirm.SelectOk())
    assert told == ([] if channel == CONSUMING else [("channel_opened", EPOCH, named)])


@pytest.mark.parametrize("channel", [CONSUMING, PUBLISHING])
def test_the_answer_to_a_probe_is_an_input_with_the_name_of_the_channel(channel: str) -> None:
    link, told = willing()
    link.up = True
    for _ in range(2):
        link.perform(Probe(EPOCH, channel))
        assert told == []
        link.receive("Channel.FlowOk", Channel.FlowOk(True), channel)
        assert told.pop() == ("alive", EPOCH, ("channel", channel), ("answered", True))
    assert link.done == ["probe", "probe"]


@pytest.mark.parametrize(
    ("before", "after", "alive"),
    [
        ((10, 500), (10, 500), False),
        ((10, 500), (10, 600), False),  # we have sent more
        ((10, 500), (11, 500), True),
        ((10, 500), (11, 600), True),
        ((10, 500), (10, 499), True),
    ],
    ids=["nothing", "we have sent", "received", "both have sent", "taken"],
)
def test_while_an_answer_is_awaited_each_further_probe_looks_for_bytes(
    before: tuple[int, int], after: tuple[int, int], alive: bool
) -> None:
    link, told = willing()
    link.up, link.moved = True, before
    link.perform(Probe(EPOCH, PUBLISHING))
    link.moved = after
    for expected in (alive, False):  # nothing moves between the second and the third
        link.perform(Probe(EPOCH, PUBLISHING))
        assert told == [("alive", EPOCH, ("channel", PUBLISHING))] * expected
        told.clear()
    link.perform(Probe(EPOCH, CONSUMING))
    assert link.done == ["probe"] * 2, "one for each channel"


def test_a_channel_that_is_opened_again_owes_no_answer() -> None:
    link, told = willing()
    link.up = True
    for _ in range(2):
        link.perform(Probe(EPOCH, PUBLISHING))
        link.report_channel_open(PUBLISHING)
    assert link.done == ["probe"] * 2
    assert {name for name, *_ in told} == {"channel_opened"}


def test_that_a_consumer_is_there_or_gone_is_no_news() -> None:
    link, told = made()
    link.receive("Basic.ConsumeOk", Basic.ConsumeOk("events"))
    link.receive("Basic.CancelOk", Basic.CancelOk("events"))
    assert told == []


@pytest.mark.parametrize("name", ["Basic.Recover", "Basic.Publish", ""])
def test_what_no_broker_sends_is_refused(name: str) -> None:
    link, told = made()
    with pytest.raises(ValueError, match=f"unexpected {name}"):
        link.receive(name, Basic.Recover())
    assert told == []


def test_the_replies_to_a_declare_are_one_input_each_time() -> None:
    link, told = willing()
    link.up = True
    for names in (["q1", "q2"], ["q3"]):
        asked = tuple(Queue.Declare(queue=name) for name in names)
        replies = [Queue.DeclareOk(name, 0, 0) for name in names]
        link.perform(Declare(EPOCH, asked))
        for reply in replies:
            assert told == []
            link.receive(reply.name, reply)
        assert told.pop() == ("declared", EPOCH, replies)


def test_a_channel_for_one_declare_is_closed_when_all_its_replies_have_come() -> None:
    link, told = willing()
    link.up = True
    bind = Queue.Bind(queue="q", exchange="events", routing_key="Told")
    for channel in ("binding 1", "binding 2"):
        link.perform(Declare(EPOCH, (bind, bind), channel))
    link.done.clear()
    for channel in ("binding 2", "binding 1", "binding 2"):
        assert told == [] == link.done
        link.receive("Queue.BindOk", Queue.BindOk(), channel)
    assert link.done == ["close binding 2"]
    assert [(name, epoch, len(replies), named) for name, epoch, replies, named in told] == [
        ("declared", EPOCH, 2, ("channel", "binding 2"))
    ]
    link.receive("Channel.OpenOk", Channel.OpenOk(), "binding 1")  # says nothing of the channel for publishing
    link.report_channel_closed("binding 1", "gone")
    named = ("channel", "binding 1"), ("declaration", bind)
    shown = "gone, in answer to Queue.Bind(queue='q', exchange='events', routing_key='Told')"
    assert told[1:] == [("channel_closed", EPOCH, shown, *named)]


@pytest.mark.parametrize(
    ("replies", "channel", "told"),
    [
        (0, CONSUMING, "gone, in answer to Queue.Bind(queue='q', exchange='events', routing_key='Told')"),
        (1, CONSUMING, "gone, in answer to Basic.Qos()"),
        (2, CONSUMING, "gone"),
        (0, PUBLISHING, "gone"),
    ],
)
def test_a_channel_that_the_broker_closes_names_the_declaration_that_is_not_answered(
    replies: int, channel: str, told: str
) -> None:
    link, inputs = willing()
    link.up = True
    asked = (Queue.Bind(queue="q", exchange="events", routing_key="Told"), Basic.Qos())
    link.perform(Declare(EPOCH, asked))
    for reply in (Queue.BindOk(), Basic.QosOk())[:replies]:
        link.receive(reply.name, reply)
    link.report_channel_closed(channel, "gone")
    named = [("channel", channel), *([("declaration", asked[replies])] if told != "gone" else [])]
    assert inputs[-1] == ("channel_closed", EPOCH, told, *named)


@pytest.mark.parametrize("reply", [Exchange.DeclareOk(), Queue.DeclareOk("q", 0, 0), Queue.BindOk(), Basic.QosOk()])
def test_each_kind_of_reply_is_one(reply: base.Frame) -> None:
    link, told = willing()
    link.up = True
    link.perform(Declare(EPOCH, (Basic.Qos(),)))
    link.receive(reply.name, reply)
    assert told == [("declared", EPOCH, [reply])]


def test_what_is_not_utf_8_becomes_text() -> None:
    link, told = made()
    hostile: Any = Basic.Deliver("tag", 5, True, "events", "Happened")
    hostile.exchange, hostile.routing_key = b"\xff", b"\xfe"
    link.receive("Basic.Deliver", hostile, PROPERTIES, b"")
    assert told[0][4:6] == ("\ufffd", "\ufffd")


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (OSError("refused"), "OSError: refused"),
        (ValueError("first\n  second"), "ValueError: first second"),
        (TimeoutError(), "TimeoutError()"),
    ],
    ids=["one line", "two lines", "no text"],
)
def test_a_reason_is_one_line_that_says_something(error: Exception, text: str) -> None:
    assert reason(error) == text


# --- what one read of a socket has brought ---


class Together(Inputs):
    """Notes when a block of inputs ends."""

    @contextmanager
    def together(self) -> Iterator[None]:
        try:
            yield
        finally:
            self.told.append(("the end",))


def test_all_of_a_read_is_told_together_and_in_order() -> None:
    inputs = Together()
    link, told = Link(Connect(EPOCH, "amqp://one/", "svc", 20), inputs), inputs.told
    items: list[Received | bytes] = [
        Received(1, Basic.Deliver("t", 5, True, "events", "Told"), PROPERTIES, b"1"),
        b"a frame",
        Received(2, Basic.Ack(3, True)),
    ]
    link.receive_all(items, lambda frame: told.append((frame,)))
    assert told == [
        ("delivered", EPOCH, 5, True, "events", "Told", PROPERTIES, b"1"),
        (b"a frame",),
        ("confirmed", EPOCH, 3, ("multiple", True)),
        ("the end",),
    ]


def test_what_the_library_raises_comes_out() -> None:
    inputs = Together()
    link = Link(Connect(EPOCH, "amqp://one/", "svc", 20), inputs)

    def refuse(frame: bytes) -> None:
        raise KeyError(frame)

    with pytest.raises(KeyError):
        link.receive_all([Received(2, Basic.Ack(1)), b"a frame", Received(2, Basic.Ack(2))], refuse)
    assert inputs.told == [("confirmed", EPOCH, 1, ("multiple", False)), ("the end",)]
