"""Brokers and networks that are silent, against each adapter: how soon that is noticed, and what is no silence."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any

import pytest
from pamqp.commands import Basic, Queue

from eda_core.testing import Broker
from eda_core.testing.conformance import Alarm, Begin, Check, Declare, Join, Seen, Start, Take, Worker
from eda_core.testing.conformance.running.brokers import Embedded
from eda_core.testing.conformance.running.runner import no_task_is_left
from eda_core.testing.conformance.script import Step, accept, equal, event
from eda_core.testing.live.proxy import DOWN, UP, Direction, Link
from eda_tools.broker import DEAD_LETTER_POLICY, EmbeddedBroker
from tests.conformance.test_conformance import ADAPTERS
from tests.conformance.test_cuts import Await, Player, Steps, every_adapter, play, relaying, until
from tests.support.vhosts import Victim

#: The class and the method of Queue.Bind, with which its frame begins.
QUEUE_BIND = Queue.Bind.index.to_bytes(4)
#: Short times for tests. There are no heartbeats, which would end the link as well.
QUICK: dict[str, Any] = {"HEARTBEAT": 0, "PROBE_INTERVAL": 0.2, "PROBE_TIMEOUT": 0.8}


@every_adapter
@pytest.mark.parametrize("directions", [(UP,), (DOWN,), (UP, DOWN)], ids=" ".join)
@pytest.mark.parametrize("which", [(0,), (1,), (0, 1)], ids=["consuming", "publishing", "both"])
def test_a_connection_that_is_silent_is_given_up(
    adapter: str, which: Sequence[int], directions: Sequence[Direction]
) -> None:
    def script(under_test: Embedded) -> Steps:
        worker, proxy = relaying(**QUICK), under_test.proxy
        yield Declare("tap", "events", "Relayed")
        yield Start(worker)
        yield event("Happened", 0)
        yield Take("tap")
        silent = [proxy.links[number] for number in which]
        for link in silent:
            link.freeze(*directions)
        yield Seen(worker, "ready", 2)
        for link in silent:
            link.cut()  # or the broker delivers to it
        yield event("Happened", 1)
        while (yield Take("tap")).payload != 1:  # the first one may come twice
            pass

    play(script, adapter)


def block(seconds: float) -> Callable[..., Generator[Step, None, Any]]:
    """A handler during which the event loop stands still."""

    def handler(payload: Any, _conversation: str, _meta: Any) -> Generator[Step, None, Any]:
        time.sleep(seconds)
        return
        yield

    return handler


@every_adapter
def test_a_blocked_event_loop_is_no_silence_of_the_broker(adapter: str) -> None:
    """The answer is in the socket, and is read only when the handler has ended."""

    def script(under_test: Embedded) -> Steps:
        worker = Worker("slow", events=["Happened"], handlers={"Happened": block(1.5)}, settings=QUICK)
        yield Start(worker)
        yield Await(lambda: asyncio.sleep(2 * QUICK["PROBE_INTERVAL"]))
        for number in range(3):
            yield event("Happened", number)
        yield Seen(worker, "Happened", 3)
        yield until(lambda: not broker.unacked("slow.events"))
        equal(under_test.proxy.accepted, 2, "connections")

    broker = Broker(policies=[DEAD_LETTER_POLICY])
    play(script, adapter, broker)


@every_adapter
def test_an_alarm_is_no_silence(adapter: str) -> None:
    def script(under_test: Embedded) -> Steps:
        worker = Worker("source", settings=QUICK)
        yield Declare("tap", "events", "Told")
        yield Start(worker)
        yield Alarm(True)
        yield Begin(worker, "publish_event", "Told", 1, "c")
        yield Await(lambda: asyncio.sleep(3 * (QUICK["PROBE_INTERVAL"] + QUICK["PROBE_TIMEOUT"])))
        yield Alarm(False)
        yield Join(worker)
        equal((yield Take("tap")).payload, 1, "what was published")
        equal(under_test.proxy.accepted, 2, "connections")

    play(script, adapter)


@every_adapter
def test_a_large_message_that_comes_slowly_is_no_silence(adapter: str) -> None:
    """It takes three times as long as an answer may take."""

    def script(under_test: Embedded) -> Steps:
        worker = Worker("reader", events=["Happened"], handlers={"Happened": accept}, settings=QUICK)
        yield Start(worker)
        under_test.proxy.rate = 400_000.0
        yield event("Happened", "x" * 1_000_000)
        yield Seen(worker, "Happened")
        equal(under_test.proxy.accepted, 2, "connections")

    play(script, adapter)


@every_adapter
def test_a_large_message_on_a_slow_network_gets_through_in_the_end(adapter: str) -> None:
    """The buffers of the system take it at once, so nobody sees that it goes on. Each link has more time for it."""

    def script(under_test: Embedded) -> Steps:
        worker = Worker("source", settings=QUICK)
        yield Declare("tap", "events", "Told")
        yield Start(worker)
        under_test.proxy.rate = 400_000.0
        yield Begin(worker, "publish_event", "Told", "x" * 1_000_000, "c")
        equal(len((yield Take("tap")).payload), 1_000_000, "characters")
        yield Join(worker)

    play(script, adapter)


def connected_to(port: int) -> bool:
    """Whether there is an open connection to a port of the loopback."""
    there = f"0100007F:{port:04X}"
    return any(line.split()[2:4] == [there, "01"] for line in Path("/proc/net/tcp").read_text().splitlines())


@every_adapter
@pytest.mark.rabbitmq
def test_a_service_leaves_a_node_that_stands_still_whatever_the_heartbeat(adapter: str, rabbit_victim: Victim) -> None:
    """The kernel still takes what is sent to a node that is stopped (SIGSTOP). Nobody waits for it to say goodbye.

    tests/core/machine/test_silence.py shows that it takes less than 10 seconds; here a busy machine may take longer.
    """
    node = rabbit_victim.node

    def script(under_test: Embedded) -> Steps:
        worker = relaying(HEARTBEAT=600, CLOSE_TIMEOUT=600.0)
        yield Declare("tap", "events", "Relayed")
        yield Start(worker)
        yield Await(lambda: asyncio.to_thread(node.pause))
        yield Begin(worker, "publish_event", "Relayed", 0, "c")
        yield Seen(worker, "ready", 2)
        yield until(lambda: not connected_to(node.port))
        equal((yield Take("tap")).payload, 0, "what nobody had confirmed")
        yield Join(worker)
        yield event("Happened", 1)
        equal((yield Take("tap")).payload, 1, "what the second broker has delivered")

    class Both(Embedded):
        """The embedded broker, which is the second URL of each service."""

        def urls(self, names: Sequence[str]) -> list[str]:
            return [rabbit_victim.url, *super().urls(names)]

    async def run() -> None:
        async with EmbeddedBroker() as embedded, Both(embedded) as under_test:
            await Player(under_test, ADAPTERS[adapter]).run(Check("stands still", "", lambda: script(under_test)))
        await no_task_is_left()

    try:
        asyncio.run(run())
    finally:
        node.resume()


class Twice(Embedded):
    """The broker under two URLs, as if it had two nodes."""

    def urls(self, names: Sequence[str]) -> list[str]:
        return [*super().urls(names), *super().urls(names)]


@every_adapter
def test_a_node_that_gives_nothing_to_do_is_checked_and_keeps_its_link(adapter: str) -> None:
    """It binds a queue again, each time on a channel of its own, which is closed then."""
    checks: list[int] = []

    def watch(link: Link, direction: Direction, data: bytes) -> bytes:
        if direction == UP and QUEUE_BIND in data:
            checks.append(int.from_bytes(data[data.index(QUEUE_BIND) - 6 :][:2]))
        return data

    def script(under_test: Embedded) -> Steps:
        worker, proxy = relaying(**QUICK), under_test.proxy
        yield Declare("tap", "events", "Relayed")
        yield Start(worker)
        proxy.watch = watch
        yield until(lambda: len(checks) >= 5)
        yield event("Happened", 0)
        yield Take("tap")
        equal(proxy.accepted, 2, "connections")
        equal(1 in checks, False, "a check on the channel that consumes")
        # Three of the service, one of the witness, and at most one check.
        yield until(lambda: sum(len(each.channels) for each in broker._engine.connections.values()) <= 5)

    broker = Broker(policies=[DEAD_LETTER_POLICY])
    asyncio.run(run_on(Twice, script, adapter, broker))


@every_adapter
def test_a_check_that_the_broker_refuses_costs_no_link(adapter: str) -> None:
    """It closes the channel of the check. Here the queue of the check is made one that does not exist."""
    refused: list[bytes] = []

    def watch(link: Link, direction: Direction, data: bytes) -> bytes:
        if direction == UP and QUEUE_BIND in data:
            refused.append(data)
            return data.replace(b"relay.events", b"relay.absent")
        return data

    def script(under_test: Embedded) -> Steps:
        worker, proxy = relaying(**QUICK), under_test.proxy
        yield Declare("tap", "events", "Relayed")
        yield Start(worker)
        proxy.watch = watch
        yield until(lambda: bool(refused))
        yield Await(lambda: asyncio.sleep(4 * QUICK["PROBE_INTERVAL"]))  # as long as two checks
        yield event("Happened", 0)
        yield Take("tap")
        equal(proxy.accepted, 2, "connections")
        equal(len(refused), 1, "checks")

    asyncio.run(run_on(Twice, script, adapter, Broker(policies=[DEAD_LETTER_POLICY])))


@every_adapter
def test_a_node_that_binds_no_more_is_left(adapter: str) -> None:
    """All else goes on: the channels answer, and nothing says that the node is cut off from its cluster."""
    kept: list[Link] = []

    def watch(link: Link, direction: Direction, data: bytes) -> bytes:
        return b"" if direction == UP and link in kept and QUEUE_BIND in data else data

    def script(under_test: Embedded) -> Steps:
        worker, proxy = relaying(**QUICK), under_test.proxy
        yield Declare("tap", "events", "Relayed")
        yield Start(worker)
        kept.extend(proxy.links)
        proxy.watch = watch
        yield Seen(worker, "ready", 2)
        yield event("Happened", 0)
        yield Take("tap")

    asyncio.run(run_on(Twice, script, adapter, Broker(policies=[DEAD_LETTER_POLICY])))


async def run_on(kind: type[Embedded], script: Callable[[Embedded], Steps], adapter: str, broker: Broker) -> None:
    async with EmbeddedBroker(broker=broker) as embedded, kind(embedded) as under_test:
        await Player(under_test, ADAPTERS[adapter]).run(Check("checks", "", lambda: script(under_test)))
    await no_task_is_left()


@every_adapter
def test_a_broker_that_answers_but_does_not_say_that_there_is_a_consumer_is_left(adapter: str) -> None:
    """A node of a cluster waits so for the leader of a queue that stands still. Nothing comes from the queue then."""
    kept: list[Link] = []
    method = Basic.Consume.index.to_bytes(4)

    def watch(link: Link, direction: Direction, data: bytes) -> bytes:
        if direction == DOWN or (kept and link not in kept) or method not in data:
            return data
        kept.append(link)
        at = data.index(method) - 7
        return data[:at] + data[at + 8 + int.from_bytes(data[at + 3 : at + 7]) :]

    def script(under_test: Embedded) -> Steps:
        worker, proxy = relaying(HEARTBEAT=0, PROBE_INTERVAL=0, CLOSE_TIMEOUT=0.5), under_test.proxy
        yield Declare("tap", "events", "Relayed")
        proxy.watch = watch
        yield Start(worker)
        yield Seen(worker, "ready", 2)
        yield event("Happened", 0)
        yield Take("tap")

    play(script, adapter)
    assert len(kept) == 1
