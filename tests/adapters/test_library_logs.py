"""When a link is lost, the user's log gets one line of ours and none of the client library."""

from __future__ import annotations

import asyncio
import itertools
import re
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from eda_tools.broker import EmbeddedBroker
from tests.support.rabbitmq import free_port
from tests.support.services import Program, asynchronous, peer, program
from tests.support.vhosts import Victim

#: Programs that publish all the time. They say "ready": the services for each link, the endpoint for each message. The
#: argument sets up logging.
BEGIN = """
import asyncio, logging, os, signal, sys, time
from contextlib import suppress
from eda_core import ReconnectPolicy, StateError
exec(sys.argv[1])

def say(line):
    os.write(1, f"{line}\\n".encode())
"""
SERVICE = """
class Busy(Service):
    RECONNECT_POLICY = ReconnectPolicy(base=0.05, cap=0.2)
    STOP_TIMEOUT = 8  # the last handlers may take long on a busy machine
    PREFETCH_COUNT = 200
    HEARTBEAT = int(os.environ["EDA_TEST_HEARTBEAT"])
"""
AIO = f"""{BEGIN}
from eda_aio import Service
{SERVICE}
    async def on_ready(self):
        say("ready")
        for number in range(500):
            asyncio.create_task(self.publish(number))

    async def publish(self, number):
        try:
            await self.publish_event("Happened", "x" * 1000, "c")
            await self.log(6, "published")
        except Exception:
            pass

    async def on_Happened(self, payload, conversation_id, meta):
        await self.publish_event("Happened", payload, conversation_id)

asyncio.run(Busy(os.environ["EDA_AMQP_URL"], ["Happened"], [], "svc").run())
"""
PIKA = f"""{BEGIN}
from eda_pika import Service
{SERVICE}
    HANDLER_THREADS = int(os.environ.get("EDA_TEST_THREADS", "0"))

    def on_ready(self):
        say("ready")
        with suppress(StateError):  # it stops
            for number in range(100):
                self.publish_event("Happened", "x" * 1000, "c")

    def on_Happened(self, payload, conversation_id, meta):
        self.publish_event("Happened", payload, conversation_id)
        self.log(6, "published")

Busy(os.environ["EDA_AMQP_URL"], ["Happened"], [], "svc").run()
"""
KOMBU = f"""{BEGIN}
from eda_kombu import Endpoint

class Quick(Endpoint):
    RECONNECT_POLICY = ReconnectPolicy(base=0.05, cap=0.2)

over = []
signal.signal(signal.SIGTERM, lambda *_: over.append(1))
with Quick(os.environ["EDA_AMQP_URL"], "svc", confirm_timeout=1) as endpoint:
    while not over:
        with suppress(Exception):
            endpoint.publish_event("Happened", "x" * 1000, "c")
            endpoint.log(6, "published")
            say("ready")
"""
PROGRAMS = {"eda_aio": AIO, "eda_pika": PIKA, "eda_pika, threads": PIKA, "eda_kombu": KOMBU}
INFO, NOT_SET_UP = "logging.basicConfig(level=logging.INFO)", ""

each_adapter = pytest.mark.parametrize("adapter", PROGRAMS)
each_logging = pytest.mark.parametrize("logs", [INFO, NOT_SET_UP], ids=["INFO", "not set up"])

#: Lines that may be there: what the machine reports, by how Python's logging shows it.
OURS = {
    INFO: re.compile(r"(INFO|WARNING|ERROR|CRITICAL):eda_(aio|pika|kombu):\S"),
    NOT_SET_UP: re.compile(
        r"stopped: |no link to |the broker cancelled |\d+ publish\(es\) were never confirmed by the broker"
    ),
}


@asynccontextmanager
async def busy(adapter: str, url: str, logs: str, heartbeat: int = 20) -> AsyncIterator[Program]:
    """Run a program. A machine that is busy may miss a heartbeat of a second or two."""
    settings = {"EDA_TEST_THREADS": "3" if adapter.endswith("threads") else "0", "EDA_TEST_HEARTBEAT": f"{heartbeat}"}
    async with program("-c", PROGRAMS[adapter], logs, url=url, settings=settings) as run:
        yield run


async def recovers(run: Program, adapter: str) -> None:
    """Wait until it has lost its first link and publishes on another one."""
    await run.notes.until(lambda notes: any("no link to " in note for note in notes), "the loss")
    await run.says("ready", times=run.lines.all.count("ready") + 50 if adapter == "eda_kombu" else 2)


async def losses(run: Program, logs: str) -> list[str]:
    """End the program. Return its lines about links that were lost or could not be opened."""
    run.process.send_signal(signal.SIGTERM)
    assert await run.end() == 0, run.errors
    assert all(OURS[logs].match(note) for note in run.notes.all), run.errors
    return [note for note in run.notes.all if "no link to " in note]


async def delete_the_queue(broker: EmbeddedBroker) -> None:
    async with peer(broker.url) as client:
        await client.channel.queue_delete("svc.events")


async def delete_the_exchange(broker: EmbeddedBroker) -> None:
    async with peer(broker.url) as client:
        await client.channel.exchange_delete("events")


FAULTS: dict[str, Callable[[EmbeddedBroker], Awaitable[None]]] = {
    "a cut": EmbeddedBroker.cut,
    "a kill": EmbeddedBroker.kill,
    "a deleted queue": delete_the_queue,
    "a deleted exchange": delete_the_exchange,
}


@each_logging
@pytest.mark.parametrize(
    ("adapter", "fault"),
    [each for each in itertools.product(PROGRAMS, FAULTS) if each != ("eda_kombu", "a deleted queue")],
)
@asynchronous
async def test_a_lost_link_is_told_in_one_line(adapter: str, fault: str, logs: str) -> None:
    async with EmbeddedBroker() as broker, busy(adapter, broker.url, logs) as run:
        await run.says("ready")
        await FAULTS[fault](broker)
        await recovers(run, adapter)
        assert 1 <= len(await losses(run, logs)) <= 2, "another attempt may meet the same fault"


@each_logging
@each_adapter
@asynchronous
async def test_an_attempt_to_connect_is_told_in_one_line(adapter: str, logs: str) -> None:
    port = free_port()
    async with busy(adapter, f"amqp://127.0.0.1:{port}/", logs) as run:
        await run.notes.until(lambda notes: sum("no link to " in note for note in notes) >= 3, "attempts in vain")
        async with EmbeddedBroker(port=port):
            await run.says("ready")
            assert all("Connect" in line for line in await losses(run, logs)), run.errors


@each_adapter
@asynchronous
async def test_a_wrong_vhost_is_told_in_one_line_with_the_brokers_reason(adapter: str) -> None:
    async with EmbeddedBroker() as broker, busy(adapter, f"{broker.url}nowhere", INFO) as run:
        await run.notes.until(lambda notes: any("stopped: " in note for note in notes), "the end")
        told = [note for note in run.notes.all if OURS[INFO].match(note) and "never confirmed" not in note]
        assert all("stopped: " in line and "vhost not found: 'nowhere'" in line for line in told), run.errors
        assert adapter == "eda_kombu" or len(told) == 1, "an endpoint tries again for each message"


@pytest.mark.parametrize("adapter", ["eda_aio", "eda_pika", "eda_pika, threads"])
@asynchronous
async def test_a_frozen_broker_is_told_in_one_line(adapter: str) -> None:
    """(Publishes of eda_kombu fail after a time of their own.)"""
    async with program("-m", "eda_tools.broker", "--port", "0") as broker:
        url = (await broker.lines.next()).removeprefix("listening on ")
        async with busy(adapter, url, INFO, heartbeat=2) as run:
            await run.says("ready")
            broker.process.send_signal(signal.SIGSTOP)
            await run.notes.until(lambda notes: any("no link to " in note for note in notes), "the loss")
            broker.process.send_signal(signal.SIGCONT)
            await run.says("ready", times=2)
            lines = await losses(run, INFO)
            assert not [line for line in lines if "CancelledError" in line]


@each_adapter
@asynchronous
async def test_rabbitmq_that_dies_is_told_in_one_line(adapter: str, rabbit_victim: Victim) -> None:
    async with busy(adapter, rabbit_victim.url, INFO) as run:
        await run.says("ready")
        await asyncio.to_thread(rabbit_victim.node.sync)
        await asyncio.to_thread(rabbit_victim.node.kill)
        await run.notes.until(lambda notes: any("no link to " in note for note in notes), "the loss")
        assert await losses(run, INFO)
    await asyncio.to_thread(rabbit_victim.node.start)


#: What the libraries say is there for who wants it, and what they say about other connections of the program.
DEBUG = {
    "eda_aio": "logging.basicConfig(); logging.getLogger('eda_aio').setLevel(logging.DEBUG)",
    "eda_pika": "logging.basicConfig(); logging.getLogger('eda_pika').setLevel(logging.DEBUG)",
}


@pytest.mark.parametrize("adapter", DEBUG)
@asynchronous
async def test_who_debugs_the_adapter_reads_what_the_library_says(adapter: str) -> None:
    async with EmbeddedBroker() as broker, busy(adapter, broker.url, DEBUG[adapter]) as run:
        await run.says("ready")
        await broker.cut()
        await recovers(run, adapter)
        run.process.send_signal(signal.SIGTERM)
        assert await run.end() == 0
        library = {"eda_aio": "aiormq.connection", "eda_pika": "pika.adapters"}[adapter]
        told = [note for note in run.notes.all if note.startswith(f"DEBUG:{library}")]
        assert told, run.errors
        assert not [note for note in run.notes.all if note.startswith(("WARNING", "ERROR")) and library in note]


OTHER_AIO = """
import asyncio, logging, os
import aiormq
from eda_aio import Service
logging.basicConfig(level=logging.INFO)

class Mixed(Service):
    async def on_ready(self):
        try:
            await aiormq.connect("amqp://127.0.0.1:1/")
        except Exception:
            await self.stop()

asyncio.run(Mixed(os.environ["EDA_AMQP_URL"], [], [], "svc").run())
"""
OTHER_PIKA = """
import logging, os
import pika
from eda_pika import Service
logging.basicConfig(level=logging.INFO)

class Mixed(Service):
    def on_ready(self):
        try:
            pika.BlockingConnection(pika.ConnectionParameters("127.0.0.1", 1))
        except Exception:
            self.stop()

Mixed(os.environ["EDA_AMQP_URL"], [], [], "svc").run()
"""


@pytest.mark.parametrize(
    ("code", "line"),
    [
        (OTHER_AIO, "ERROR:aiormq.connection:error when creating transport"),
        (OTHER_PIKA, "ERROR:pika.adapters.blocking_connection:Connection workflow failed"),
    ],
    ids=["eda_aio", "eda_pika"],
)
@asynchronous
async def test_what_the_program_does_with_the_library_itself_is_logged_as_ever(code: str, line: str) -> None:
    async with EmbeddedBroker() as broker, program("-c", code, url=broker.url) as run:
        assert await run.end() == 0, run.errors
        assert [note for note in run.notes.all if note.startswith(line)], run.errors
