"""Handlers that are too slow for RabbitMQ: beyond its ``consumer_timeout``, or beyond the heartbeat."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

import eda_pika
from eda_core.testing.conformance import (
    DEAD_LETTERS,
    Call,
    Check,
    Count,
    Declare,
    Hold,
    MakeSubject,
    Notes,
    Open,
    Script,
    Seen,
    Start,
    Take,
    Worker,
    check_of,
    equal,
    event,
)
from eda_core.testing.conformance.running.brokers import Rabbit
from eda_core.testing.conformance.running.callbacks import callback_subjects_of
from tests.conformance.test_conformance import ADAPTERS, IN_LOOP, THREADED
from tests.conformance.test_cuts import Await, Player, Steps
from tests.support.vhosts import Victim

#: Milliseconds. RabbitMQ looks at the channels at each tick, by default every minute. On a busy machine several seconds
#: may pass between the last delivery and its acknowledgement.
TIMEOUT, TICK = 8_000, 1_000
DEFAULT_TIMEOUT, DEFAULT_TICK = 1_800_000, 60_000


def set_timeout(victim: Victim, timeout: int, tick: int) -> None:
    """Set the time-outs of channels that are opened from now on."""
    settings = (("consumer_timeout", timeout), ("channel_tick_interval", tick))
    victim.node.eval(" ".join(f"application:set_env(rabbit, {name}, {value})," for name, value in settings) + " ok.")


@pytest.fixture
def impatient(rabbit_victim: Victim) -> Iterator[Victim]:
    """A broker that does not wait long for acknowledgements; from RabbitMQ 4.3 on only its quorum queues do not."""
    set_timeout(rabbit_victim, TIMEOUT, TICK)
    if rabbit_victim.node.version >= (4, 3):
        rabbit_victim.node.ctl("update_vhost_metadata", rabbit_victim.vhost, "--default-queue-type", "quorum")
    yield rabbit_victim
    set_timeout(rabbit_victim, DEFAULT_TIMEOUT, DEFAULT_TICK)


def run(check: Check, victim: Victim, subjects: MakeSubject) -> None:
    async def play() -> None:
        async with Rabbit(victim) as broker:
            await Player(broker, subjects).run(check)

    asyncio.run(play())


async def delivered_again(victim: Victim) -> None:
    """Wait until the message is with the one consumer that there is, and not with that of a channel that has ended."""
    columns = ("vhost", "consumer_count", "messages_unacknowledged")
    while True:
        table = await asyncio.to_thread(victim.node.ctl, "list_channels", *columns, "--no-table-headers")
        rows = [line.split() for line in table.splitlines()]
        if [row[2] for row in rows if row[:1] == [victim.vhost] and row[1] != "0"] == ["1"]:
            return


def a_handler_that_is_slower_than_the_broker_waits(victim: Victim) -> Steps:
    """The broker takes the message back twice while it runs. It runs once, and its result counts."""

    def slow(payload: Any, conversation: str, _meta: Any) -> Any:
        yield Call("publish_event", "Relayed", payload, conversation)
        yield Hold("gate")

    service = Worker("service", events=["Happened"], handlers={"Happened": slow})
    yield Declare("tap", "events", "Relayed")
    yield Start(service)
    yield event("Happened", 1, message_id="m")
    yield Seen(service, "ready", 3)
    yield Await(lambda: delivered_again(victim))
    yield Open(service, "gate")
    equal((yield Take("tap")).payload, 1, "what it published")
    equal((yield Notes(service)).count("Happened"), 1, "handlers that began")


@pytest.mark.parametrize("adapter", [name for name in ADAPTERS if name not in IN_LOOP])
def test_a_handler_that_is_slower_than_the_broker_waits(adapter: str, impatient: Victim) -> None:
    check = Check("slow handler", "", lambda: a_handler_that_is_slower_than_the_broker_waits(impatient))
    run(check, impatient, ADAPTERS[adapter])


def a_handler_that_never_ends() -> Script:
    """Its message is dead-lettered, and others are handled meanwhile."""

    def hang(payload: Any, conversation: str, _meta: Any) -> Any:
        if payload == "hang":
            yield Hold("gate")

    settings = {"HEARTBEAT": 1}
    service = Worker("service", events=["Happened"], handlers={"Happened": hang}, settings=settings)
    yield Start(service)
    yield event("Happened", "hang", message_id="m")
    yield Seen(service, "ready", 2)
    yield event("Happened", "other")
    yield Seen(service, "Happened", 2)
    taken = yield Take(DEAD_LETTERS)
    equal(taken.payload, "hang", "the dead letter")
    equal((yield Notes(service)).count("Happened"), 2, "handlers that began")
    yield Open(service, "gate")


@pytest.mark.parametrize("adapter", ["eda_aio", THREADED])
def test_a_handler_that_never_ends(adapter: str, impatient: Victim) -> None:
    run(check_of(a_handler_that_never_ends), impatient, ADAPTERS[adapter])


def a_handler_that_keeps_the_process_from_its_heartbeats() -> Script:
    """It ends each time, but the broker has lost the connection by then. In the end its message is a dead letter."""
    runs: list[Any] = []

    def block(payload: Any, conversation: str, _meta: Any) -> Any:
        if payload == "block":
            runs.append(payload)
            yield Hold(f"gate {len(runs)}")

    settings = {"HEARTBEAT": 1, "PREFETCH_COUNT": 1}
    service = Worker("service", events=["Happened"], handlers={"Happened": block}, settings=settings)
    yield Start(service)
    yield event("Happened", "block", message_id="m")
    for number in (1, 2, 3):
        yield Seen(service, "Happened", number)
        yield Count("service.events", until=1)  # the broker has taken it back
        yield Open(service, f"gate {number}")
    equal((yield Take(DEAD_LETTERS)).payload, "block", "the dead letter")
    yield event("Happened", "other")
    yield Seen(service, "Happened", 4)


def test_a_handler_that_keeps_the_process_from_its_heartbeats(rabbit_victim: Victim) -> None:
    check = check_of(a_handler_that_keeps_the_process_from_its_heartbeats)
    run(check, rabbit_victim, callback_subjects_of(eda_pika.Service))
