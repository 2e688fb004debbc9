"""A stop interrupts handlers in the main thread at its deadline, and never our own code. Each service is a process."""

from __future__ import annotations

import signal

import pytest

from eda_tools.broker import EmbeddedBroker
from tests.support.services import asynchronous, peer, program

#: A service on the broker at EDA_AMQP_URL that is its own source of work; a test adds what it does.
SERVICE = """
import logging, os, signal, subprocess, sys, threading, time
from eda_pika import Service

logging.basicConfig(stream=sys.stdout, level=logging.INFO, format="%(message)s")

def say(line):
    os.write(1, f"{line}\\n".encode())

class Probe(Service):
    STOP_TIMEOUT = 0.1

    def on_ready(self):
        self.publish_event("Happened", 1, "c-1")

def run(kind):
    Probe.service = kind(os.environ["EDA_AMQP_URL"], ["Happened"], [], "svc")
    Probe.service.run()
    say("over")
"""


async def ran(rest: str, *signals: signal.Signals) -> tuple[int, list[str], str, list[int]]:
    """Send such a program these signals when it has said "begun": its status, lines, errors, and what is left."""
    async with EmbeddedBroker() as broker, peer(broker.url) as client:
        async with program("-c", SERVICE + rest, url=broker.url) as service:
            await service.says("begun")
            for number in signals:
                service.process.send_signal(number)
            status = await service.end()
        left = await client.drain("svc.events")
        return status, service.lines.all, service.errors, [len(message.body) for message in left]


@pytest.mark.parametrize(
    "waiting",
    [
        "time.sleep(60)",
        "threading.Event().wait()",
        "subprocess.run(['sleep', '60'])",
        "while True: pass",
    ],
    ids=["a sleep", "a wait", "a process", "a loop"],
)
@asynchronous
async def test_whatever_a_handler_waits_for(waiting: str) -> None:
    status, lines, errors, left = await ran(
        f"""
class Endless(Probe):
    def on_Happened(self, payload, conversation_id, meta):
        say("begun")
        {waiting}

run(Endless)
""",
        signal.SIGTERM,
    )
    assert (status, lines[-1], errors, len(left)) == (0, "over", "", 1)


@asynchronous
async def test_hooks_and_timers_too() -> None:
    status, lines, errors, _ = await ran(
        """
class Endless(Probe):
    def on_ready(self):
        self.call_later(0.0, self.endless)

    def endless(self):
        say("begun")
        time.sleep(60)

run(Endless)
""",
        signal.SIGTERM,
    )
    assert (status, lines[-1], errors) == (0, "over", "")


@asynchronous
async def test_a_signal_is_heard_after_a_stop_without_end() -> None:
    status, lines, errors, left = await ran(
        """
class Patient(Probe):
    def on_Happened(self, payload, conversation_id, meta):
        asking = threading.Thread(target=self.stop, args=(float("inf"),))
        asking.start()
        asking.join()
        say("begun")
        time.sleep(60)

run(Patient)
""",
        signal.SIGTERM,
    )
    assert (status, lines[-1], errors, len(left)) == (0, "over", "", 1)


@asynchronous
async def test_what_is_ours_is_not_interrupted() -> None:
    """A handler that only publishes spends its time in the core, which must not be interrupted in the middle."""
    status, lines, errors, left = await ran(
        """
import eda_core.machine.machine
from eda_core.errors import Abandoned, BufferFull

inside, publish = [], eda_core.machine.machine.Machine.publish

def watched(*arguments, **named):
    try:
        return publish(*arguments, **named)
    except Abandoned:
        inside.append("interrupted")
        raise

eda_core.machine.machine.Machine.publish = watched

class Busy(Probe):
    def on_Happened(self, payload, conversation_id, meta):
        say("begun")
        while True:
            try:
                self.publish_event("Other", 1, "c-1")
            except BufferFull:
                pass

run(Busy)
say(inside)
""",
        signal.SIGTERM,
    )
    assert (status, lines[-2:], errors, len(left)) == (0, ["over", "[]"], "", 1)


@asynchronous
async def test_a_handler_may_clean_up_and_publish_while_it_is_ended() -> None:
    """What it publishes then is held, and is not sent, like all that an unfinished handler has published."""
    status, lines, errors, left = await ran(
        """
class Careful(Probe):
    def on_Happened(self, payload, conversation_id, meta):
        try:
            say("begun")
            time.sleep(60)
        except Exception:
            say("no Exception")
        finally:
            self.publish_event("Other", 1, conversation_id)
            say("cleaned up")

run(Careful)
""",
        signal.SIGTERM,
    )
    assert (status, lines[-1], errors, len(left)) == (0, "over", "", 1)
    assert "cleaned up" in lines
    assert "no Exception" not in lines


@asynchronous
async def test_signals_that_the_user_has_taken_are_left_alone() -> None:
    """SIGHUP is still ours: it can interrupt the handler."""
    status, lines, errors, left = await ran(
        """
class Own(Probe):
    def on_ready(self):
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self.taken)
        super().on_ready()

    def taken(self, number, frame):
        say(f"the user's {signal.Signals(number).name}")
        threading.Thread(target=self.stop).start()

    def on_Happened(self, payload, conversation_id, meta):
        say("begun")
        time.sleep(60)

run(Own)
""",
        signal.SIGTERM,
    )
    assert (status, lines[-1], errors, len(left)) == (0, "over", "", 1)
    assert [line for line in lines if "user's" in line] == ["the user's SIGTERM"]


@asynchronous
async def test_a_handler_that_asks_for_the_stop_itself_is_not_interrupted() -> None:
    """It has asked for the stop, so it may end before the stop begins."""
    status, lines, errors, left = await ran("""
class Last(Probe):
    def on_Happened(self, payload, conversation_id, meta):
        self.stop(0.0)
        say("begun")
        time.sleep(0.2)
        say("finished")

run(Last)
""")
    assert (status, lines[-1], errors, left) == (0, "over", "", [])
    assert "finished" in lines
