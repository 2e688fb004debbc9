"""Cuts of every kind, against each adapter: of one connection, in the handshake, by a broker that is silent or refuses.

The scripts are like those of the conformance kit. They also reach into the proxy and the embedded broker, which authors
of adapters do not have.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Generator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import eda_pika
from eda_core.criticality import INFO
from eda_core.errors import LocalError
from eda_core.testing import Broker
from eda_core.testing.conformance import (
    Alarm,
    Begin,
    Call,
    Check,
    Count,
    Declare,
    Ended,
    Freeze,
    Join,
    Links,
    MakeSubject,
    Open,
    Seen,
    Start,
    Stop,
    Take,
    Worker,
)
from eda_core.testing.conformance.running.brokers import BrokerUnderTest, Embedded, Rabbit
from eda_core.testing.conformance.running.callbacks import MainThread, callback_subjects_of
from eda_core.testing.conformance.running.runner import Runner, no_task_is_left
from eda_core.testing.conformance.script import Hold, Step, accept, equal, event
from eda_core.testing.live.proxy import DOWN, Direction, Link, Proxy
from eda_core.testing.live.rabbitmq import RabbitNode
from eda_tools.broker import DEAD_LETTER_POLICY, EmbeddedBroker
from tests.conformance.test_conformance import ADAPTERS, IN_LOOP, THREADED
from tests.support.vhosts import Victim

Steps = Generator[Any, Any, None]

every_adapter = pytest.mark.parametrize("adapter", [name for name in ADAPTERS if name != THREADED])
#: Up to which frame of the broker a connection is cut: by then the service has logged in and opened its channels.
LAST_FRAME = 12


@dataclass(frozen=True, slots=True)
class Await:
    """A request of a script: wait for what this makes."""

    make: Callable[[], Awaitable[Any]]


class Player(Runner):
    """Runs scripts that may also ask for ``Await``."""

    def __init__(self, broker: BrokerUnderTest, make: MakeSubject) -> None:
        super().__init__(broker, make)
        self._actions[Await] = lambda asked: asked.make()


def until(condition: Callable[[], bool]) -> Await:
    """Wait until something holds that only asking can tell."""

    async def poll() -> None:
        while not condition():
            await asyncio.sleep(0.01)

    return Await(poll)


def logged(caplog: pytest.LogCaptureFixture, text: str) -> Await:
    """Wait until a line of the log has this text."""
    return until(lambda: any(text in record.getMessage() for record in caplog.records))


def play(script: Callable[[Embedded], Steps], adapter: str | MakeSubject, broker: Broker | None = None) -> None:
    """Run a script on the embedded broker."""
    make = ADAPTERS[adapter] if isinstance(adapter, str) else adapter

    async def run() -> None:
        async with EmbeddedBroker(broker=broker) as embedded, Embedded(embedded) as under_test:
            await Player(under_test, make).run(Check("cuts", "", lambda: script(under_test)))
        await no_task_is_left()

    asyncio.run(run())


def relay(payload: Any, conversation: str, _meta: Any) -> Generator[Step, None, Any]:
    yield Call("publish_event", "Relayed", payload, conversation)


def relay_later(payload: Any, conversation: str, _meta: Any) -> Generator[Step, None, Any]:
    yield Hold("gate")
    yield Call("publish_event", "Relayed", payload, conversation)


def relaying(**settings: Any) -> Worker:
    return Worker("relay", events=["Happened"], handlers={"Happened": relay}, settings=settings)


@every_adapter
@pytest.mark.parametrize("how", [Link.cut, Link.reset])
@pytest.mark.parametrize("which", [0, 1])
def test_when_one_of_two_connections_is_lost_both_are_made_anew(
    adapter: str, which: int, how: Callable[[Link], None], caplog: pytest.LogCaptureFixture
) -> None:
    """The end of the connection tells it: not a channel, a heartbeat or an answer that does not come."""

    def script(under_test: Embedded) -> Steps:
        worker, proxy = relaying(HEARTBEAT=0, PROBE_INTERVAL=0), under_test.proxy
        yield Declare("tap", "events", "Relayed")
        yield Start(worker)
        yield event("Happened", 0)
        yield Take("tap")
        old = list(proxy.links)
        equal(len(old), 2, "connections of a service")
        how(old[which])
        yield Seen(worker, "ready", 2)
        yield event("Happened", 1)
        while (yield Take("tap")).payload != 1:  # the first one may come twice
            pass
        yield until(lambda: len(proxy.links) == 2 and not set(old) & set(proxy.links))

    play(script, adapter)
    told = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert [text.startswith("no link to") and "channel" not in text for text in told] == [True], told


class Cutting:
    """Lets one frame of the broker more through on each connection than on the one before.

    Attributes:
        done: it lets everything through.
    """

    def __init__(self, proxy: Proxy) -> None:
        self.done = False
        self._left: dict[Link, tuple[int, bytes]] = {}
        proxy.watch = self.watch

    def watch(self, link: Link, direction: Direction, data: bytes) -> bytes:
        if direction != DOWN or self.done:
            return data
        allowed, rest = self._left.get(link, (len(self._left), b""))
        self.done = allowed > LAST_FRAME
        sent, rest = b"", rest + data
        while allowed and len(rest) >= (size := 8 + int.from_bytes(rest[3:7])):  # type, channel, size, payload, end
            sent, rest, allowed = sent + rest[:size], rest[size:], allowed - 1
        self._left[link] = allowed, rest
        link.ending = not allowed
        return sent


@every_adapter
def test_a_cut_at_any_step_of_the_handshake_is_a_lost_connection(adapter: str) -> None:
    """A broker that goes away after it was given the password has not refused it."""

    def script(under_test: Embedded) -> Steps:
        cutting = Cutting(under_test.proxy)
        worker = relaying()
        yield Declare("tap", "events", "Relayed")
        yield Start(worker, until=None)
        yield until(lambda: cutting.done)
        yield Seen(worker, "ready")
        yield event("Happened", 1)
        yield Take("tap")

    play(script, adapter)


def established(port: int) -> int:
    """How many connections to a port of 127.0.0.1 there are whose client has not closed them."""
    lines = (line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:])
    return sum(remote.endswith(f":{port:04X}") and state == "01" for _, _, remote, state, *_ in lines)


@every_adapter
@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="only Linux tells which connections there are")
def test_a_connection_in_which_nobody_answers_is_given_up_by_us(adapter: str) -> None:
    """There are no heartbeats: the service itself gives up the link, and does not wait for the peer to agree."""

    def script(under_test: Embedded) -> Steps:
        worker = relaying(CONFIRM_TIMEOUT=0.3, HEARTBEAT=0)
        yield Declare("tap", "events", "Relayed")
        yield Start(worker)
        yield event("Happened", 0)
        yield Take("tap")
        yield Freeze()
        yield Begin(worker, "publish_event", "Relayed", 1, "c")
        yield Seen(worker, "ready", 2)
        equal((yield Take("tap")).payload, 1, "what nobody had confirmed")
        yield Join(worker)
        yield until(lambda: established(under_test.proxy.port) == 2)

    play(script, adapter)


@every_adapter
@pytest.mark.parametrize("cleared", [True, False])
def test_a_stop_in_an_alarm(adapter: str, cleared: bool) -> None:
    """It waits for the end of the alarm, up to its deadline: then the message goes to another worker."""

    def script(under_test: Embedded) -> Steps:
        worker = Worker("relay", events=["Happened"], handlers={"Happened": relay_later})
        yield Declare("tap", "events", "Relayed")
        yield Start(worker)
        yield event("Happened", 1)
        yield Seen(worker, "Happened")
        yield Alarm(True)
        yield Begin(worker, "publish_event", "Before", 1, "c")  # the broker blocks a connection that publishes
        yield Open(worker, "gate")
        yield Stop(worker, timeout=20 if cleared else 0.5)
        if cleared:
            yield Alarm(False)
        equal((yield Ended(worker, seconds=15)), None, "the error it ends with")
        yield Alarm(False)
        if cleared:
            equal((yield Take("tap")).payload, 1, "what was published")
            equal((yield Count("relay.events")), 0, "messages that are left")
        else:
            equal((yield Take("relay.events")).redelivered, True, "that the message was delivered before")

    play(script, adapter)


ALARM = "the broker blocks publishing: low on memory"
ALARM_OVER = "the broker takes publishes again"


@pytest.mark.parametrize("adapter", [name for name in ADAPTERS if name not in IN_LOOP])  # its handler holds up the loop
@pytest.mark.parametrize("cleared", [True, False])
def test_an_alarm_that_begins_in_a_stop(adapter: str, cleared: bool, caplog: pytest.LogCaptureFixture) -> None:
    """The stop waits for its end. If that does not come in time, the log says what was not published."""

    told = partial(logged, caplog)

    def script(under_test: Embedded) -> Steps:
        worker = Worker("relay", events=["Happened"], handlers={"Happened": relay_later})
        yield Declare("tap", "events", "Relayed")
        yield Declare("outside", "events", "Told")
        yield Start(worker)
        yield event("Happened", 1)
        yield Seen(worker, "Happened")
        yield Stop(worker, timeout=60 if cleared else 1)
        yield Alarm(True)
        yield Begin(worker, "publish_event", "Told", 2, "c")
        yield told(ALARM)
        yield Open(worker, "gate")
        if cleared:
            yield Alarm(False)
            yield told(ALARM_OVER)
        equal((yield Ended(worker)), None, "the error it ends with")
        if cleared:
            equal((yield Take("tap")).payload, 1, "what the handler has published")
            equal((yield Take("outside")).payload, 2, "what was published outside handlers")
            equal((yield Count("relay.events")), 0, "messages that are left")
        else:
            yield told("1 publish(es) were never confirmed by the broker")
            yield Alarm(False)
            equal((yield Take("relay.events")).redelivered, True, "that the message was delivered before")

    caplog.set_level(logging.INFO)
    play(script, adapter)


def acknowledge_later(*_arguments: Any) -> Generator[Step, None, Any]:
    return True
    yield


@every_adapter
@pytest.mark.parametrize("cleared", [True, False])
def test_an_alarm_in_a_stop_that_waits_for_an_acknowledgement(
    adapter: str, cleared: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """No handler runs. The acknowledgement is sent on the connection that the broker still reads."""

    told = partial(logged, caplog)

    def script(under_test: Embedded) -> Steps:
        worker = Worker("slow", events=["Happened"], handlers={"Happened": acknowledge_later})
        yield Declare("outside", "events", "Told")
        yield Start(worker)
        yield event("Happened", 1)
        ((_, _, meta),) = yield Seen(worker, "Happened")
        yield Stop(worker, timeout=60 if cleared else 1)
        yield Alarm(True)
        yield Begin(worker, "publish_event", "Told", 2, "c")
        yield told(ALARM)
        yield Begin(worker, "manual_ack", meta["delivery_tag"])
        if cleared:
            yield Alarm(False)
            yield told(ALARM_OVER)
        equal((yield Ended(worker)), None, "the error it ends with")
        if cleared:
            equal((yield Take("outside")).payload, 2, "what was published outside handlers")
        else:
            yield told("1 publish(es) were never confirmed by the broker")
            yield Alarm(False)
        equal((yield Count("slow.events")), 0, "messages that are left")

    caplog.set_level(logging.INFO)
    play(script, adapter)


def test_an_alarm_in_a_stop_does_not_keep_a_handler_that_holds_up_the_loop(caplog: pytest.LogCaptureFixture) -> None:
    """In the main thread the stop ends it, and then the links, on one of which nothing can be sent."""

    def script(under_test: Embedded) -> Steps:
        handlers = {"Happened": acknowledge_later, "Held": relay_later}
        worker = Worker("slow", events=["Happened", "Held"], handlers=handlers, settings={"PREFETCH_COUNT": 1})
        yield Start(worker)
        yield event("Happened", 1)
        ((_, _, meta),) = yield Seen(worker, "Happened")
        yield event("Held", 2)
        yield Alarm(True)
        yield Begin(worker, "publish_event", "Told", 3, "c")
        yield until(lambda: any(ALARM in record.getMessage() for record in caplog.records))
        yield Begin(worker, "manual_ack", meta["delivery_tag"])
        yield Seen(worker, "Held")
        yield Stop(worker, timeout=0.5)
        equal((yield Ended(worker)), None, "the error it ends with")
        yield Alarm(False)
        left = yield Take("slow.events")
        equal((left.payload, left.redelivered), (2, True), "what goes to another worker")

    caplog.set_level(logging.INFO)
    main = MainThread()
    subjects = callback_subjects_of(eda_pika.Service, begin=main.begin)
    main.during(lambda: play(script, subjects))


def talk(*_arguments: Any) -> Generator[Step, None, Any]:
    yield Hold("gate")
    for number in range(100):
        yield Call("log", INFO, f"record {number}")


@every_adapter
def test_the_last_handlers_logs_do_not_hinder_a_stop(adapter: str, caplog: pytest.LogCaptureFixture) -> None:
    """They are sent before the link is closed, or dropped. The service ends without an error or a failure to tell."""

    def script(under_test: Embedded) -> Steps:
        worker = Worker("listener", events=["Happened"], handlers={"Happened": talk})
        yield Start(worker)
        for number in range(5):
            yield event("Happened", number)
        yield Seen(worker, "Happened")
        yield Stop(worker)
        yield Open(worker, "gate")
        equal((yield Ended(worker)), None, "the error it ends with")

    play(script, adapter)
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == []


@every_adapter
def test_one_confirm_may_be_of_several_publishes(adapter: str) -> None:
    """``basic.ack`` with ``multiple``: RabbitMQ sends it when it has much to confirm."""
    broker = Broker(auto_confirm=False, policies=[DEAD_LETTER_POLICY])

    def waiting() -> dict[tuple[Any, int], list[int]]:
        """The unconfirmed publishes, by connection and channel."""
        found = {}
        for connection in broker.connections():
            for channel in (1, 2, 3):
                try:
                    found[connection, channel] = broker.unconfirmed(connection, channel)
                except LocalError:  # there is no such channel
                    continue
        return {place: tags for place, tags in found.items() if tags}

    def script(under_test: Embedded) -> Steps:
        worker = Worker("source")
        yield Start(worker)
        for number in range(10):
            yield Begin(worker, "publish_event", "Happened", number, "c")
        yield until(lambda: [len(tags) for tags in waiting().values()] == [10])
        ((connection, channel), tags) = next(iter(waiting().items()))
        embedded = under_test.embedded

        def confirm(tag: int) -> Await:
            return Await(
                lambda: embedded.operate(
                    lambda broker, now: broker.confirm(connection, channel, tag=tag, multiple=True)
                )
            )

        yield confirm(tags[6])
        yield confirm(tags[9])
        yield Join(worker)
        equal(waiting(), {}, "publishes that wait")

    play(script, adapter, broker)


@every_adapter
def test_a_declaration_that_is_forbidden_is_no_wrong_password(adapter: str, rabbit_victim: Victim) -> None:
    """The service tries until it may declare its queue, and does not end as with refused credentials."""
    node, vhost, user = rabbit_victim.node, rabbit_victim.vhost, "declarer"

    def script(under_test: Rabbit) -> Steps:
        worker = Worker("listener", events=["Happened"], handlers={"Happened": accept})
        yield Await(lambda: asyncio.to_thread(grant, node, vhost, user, "^(events|commands|configurations|logs)$"))
        yield Start(worker, until=None)
        yield Links(5)  # at most two are opened in one attempt
        yield Await(lambda: asyncio.to_thread(grant, node, vhost, user, ".*"))
        yield Seen(worker, "ready")

    async def run() -> None:
        async with Rabbit(rabbit_victim) as under_test:
            under_test.user = user
            await Player(under_test, ADAPTERS[adapter]).run(Check("forbidden", "", lambda: script(under_test)))
        await no_task_is_left()

    node.ctl("add_user", user, "guest")
    try:
        asyncio.run(run())
    finally:
        node.ctl("delete_user", user)


def grant(node: RabbitNode, vhost: str, user: str, configure: str) -> None:
    """Let a user declare what fits a pattern."""
    node.ctl("set_permissions", "-p", vhost, user, configure, ".*", ".*")
