"""Faults on RabbitMQ: a node that is killed, and messages that no client can read."""

from __future__ import annotations

import asyncio
import struct

import pytest
from pamqp import frame
from pamqp.commands import Basic

from eda_core.testing.live.client import Client
from eda_core.testing.wire import frames
from tests.adapters.pika.support import Listener, Probe, Relay, running
from tests.support.rabbitmq import RabbitNode
from tests.support.services import Peer, asynchronous, conversation, operate_dead_letters, peer, within
from tests.support.vhosts import Victim

pytestmark = pytest.mark.usefixtures("either_way")


class Threaded(Relay):
    HANDLER_THREADS = 4


@pytest.mark.rabbitmq
def test_nothing_is_lost_when_rabbitmq_is_killed(rabbit_victim: Victim) -> None:
    """SIGKILL in the middle of 500 events, each relayed within its handler; then the node starts again.

    The relay's handlers run in threads, those of the collector do not.
    """
    numbers, node, url = range(500), rabbit_victim.node, rabbit_victim.url

    async def scenario() -> None:
        source = Probe(url, name="source")
        relay = Threaded(url, ["Happened"], name="relay")
        collector = Listener(url, ["Relayed"], name="collector")

        def publish(some: range) -> None:
            for number in some:
                source.publish_event("Happened", number, conversation())

        async with running(source, relay, collector):
            await asyncio.to_thread(node.sync)
            await source.do(publish, numbers[:300])
            await relay.seen.count(150)
            await source.do(publish, numbers[300:])
            node.kill()
            assert len(collector.seen.all) < len(numbers), "killed too late to show anything"
            await asyncio.to_thread(node.start)
            await relay.has_all(numbers, 40)
            await collector.has_all(numbers, 40)
            assert not any(service.end.done() for service in (source, relay, collector))
            # Confirms and deliveries do not wait for on_ready, which is a job of its own.
            for service in (source, relay, collector):
                await service.ready.count(2)

    asyncio.run(within(scenario(), "the whole test", 100))


#: Headers whose one entry is a time beyond what Python's datetime can hold. pika dies of them (pika#1698).
POISON = b"\x20\x00" + struct.pack(">I", 11) + b"\x01tT" + b"\x7f" + b"\xff" * 7


async def _holds_one(client: Peer) -> None:
    while await client.waiting_in("dead-letters") != 1:
        await asyncio.sleep(0.01)


@pytest.mark.rabbitmq
def test_headers_that_crash_their_reader_are_dead_lettered(
    rabbitmq: RabbitNode, rabbit_url: str, rabbit_vhost: str
) -> None:
    @asynchronous
    async def scenario() -> None:
        service = Listener(rabbit_url, ["Happened"])
        async with running(service), peer(rabbit_url) as client:
            await operate_dead_letters(rabbitmq, rabbit_vhost, client)
            raw = await Client.connect(rabbit_url)
            assert (await raw.channel()).number == 1
            method = frame.marshal(Basic.Publish(0, "events", "Happened"), 1)
            header = frames.frame(frames.FRAME_HEADER, 1, struct.pack(">HHQ", 60, 0, 1) + POISON)
            raw.write(method + header + frames.frame(frames.FRAME_BODY, 1, b"1"))
            await within(_holds_one(client), "the dead letter")  # nobody looks into it: it crashes others, too
            await raw.close()
            await service.do(service.publish_event, "Happened", "fine", "c")
            await service.seen.count(1)
        assert (service.seen.all, service.ready.all) == (["fine"], [1]), "its link is the first one still"

    scenario()
