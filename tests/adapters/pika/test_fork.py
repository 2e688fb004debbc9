"""Handlers that fork: the child does not touch what belongs to its parent."""

from __future__ import annotations

import pytest

from eda_tools.broker import EmbeddedBroker
from tests.support.services import asynchronous, peer, program

#: A service that handles one event of its own, and one more when that is through; a test adds what the first one does.
SERVICE = """
import logging, multiprocessing, os, sys, time
from eda_core import StateError
from eda_pika import Service

logging.basicConfig(stream=sys.stdout, level=logging.INFO, format="%(message)s")
reader, writer = os.pipe()

def say(line):
    os.write(1, f"{line}\\n".encode())

class Forking(Service):
    STOP_TIMEOUT = 5
    HANDLER_THREADS = int(sys.argv[1])

    def on_ready(self):
        say("ready")
        self.publish_event("Happened", 1, "c-1")

    def on_Happened(self, payload, conversation_id, meta):
        self.forks()
        self.publish_event("Over", 1, conversation_id)

    def on_Over(self, payload, conversation_id, meta):
        self.stop()
"""
RUN = """
Forking(os.environ["EDA_AMQP_URL"], ["Happened", "Over"], [], "svc").run()
say("over")
"""


#: The beginnings of the lines about the life of a service.
LIFE = ("started: ", "ready: ", "stopped: ")


async def ran(threads: int, forks: str) -> list[str]:
    """The lines of such a service. It ends well, on its first link."""
    async with EmbeddedBroker() as broker, peer(broker.url) as client:
        source = f"{SERVICE}{forks}{RUN}"
        async with program("-W", "ignore", "-c", source, str(threads), url=broker.url) as service:
            assert await service.end() == 0
        lines = [line for line in service.lines.all if not line.startswith(LIFE)]
        for beginning in LIFE:
            assert sum(line.startswith(beginning) for line in service.lines.all) == 1, "the life is in the log, once"
        assert (lines[0], lines[-1]) == ("ready", "over")
        assert lines.count("ready") == lines.count("over") == 1
        assert await client.waiting_in("svc.events") == 0
        return lines


IN_THREADS = pytest.mark.parametrize("threads", [0, 2])


@IN_THREADS
@asynchronous
async def test_a_child_that_is_terminated_ends_and_its_parent_does_not(threads: int) -> None:
    """multiprocessing terminates its children so. At first they have the parent's handlers of signals."""
    lines = await ran(
        threads,
        """
    def forks(self):
        child = multiprocessing.get_context("fork").Process(target=self.child)
        child.start()
        os.read(reader, 1)
        child.terminate()
        child.join()
        say(f"ended by {child.exitcode}")

    def child(self):
        os.write(writer, b"x")
        time.sleep(60)
""",
    )
    assert "ended by -15" in lines


@IN_THREADS
@asynchronous
async def test_a_child_that_is_terminated_at_once_ends_too(threads: int) -> None:
    """The signal may come before the child has handlers of its own."""
    lines = await ran(
        threads,
        """
    def forks(self):
        for _ in range(10):
            child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
            child.start()
            child.terminate()
            child.join()
            say(f"ended by {child.exitcode}")
""",
    )
    assert lines.count("ended by -15") == 10


@IN_THREADS
@asynchronous
async def test_a_child_that_asks_the_service_hears_that_it_is_none(threads: int) -> None:
    """What it publishes would be in its copy of the outbox, and would be lost with it."""
    lines = await ran(
        threads,
        """
    def forks(self):
        if child := os.fork():
            os.waitpid(child, 0)
            return
        for ask in (lambda: self.publish_event("Other", 1, "c-1"), lambda: self.call_later(0.0, print), self.stop):
            try:
                ask()
            except StateError as error:
                say(f"refused: {error}")
        os._exit(0)
""",
    )
    refused = "refused: this process is a fork of the service's process; publish by eda_kombu.Endpoint here"
    assert lines.count(refused) == 3


@pytest.mark.parametrize("end", ["return", "sys.exit(0)", "raise ValueError"])
@IN_THREADS
@asynchronous
async def test_a_child_that_comes_out_of_its_handler_ends_and_touches_nothing(threads: int, end: str) -> None:
    lines = await ran(
        threads,
        f"""
    def forks(self):
        if child := os.fork():
            os.waitpid(child, 0)
            say("waited")
        else:
            {end}
""",
    )
    assert "waited" in lines
