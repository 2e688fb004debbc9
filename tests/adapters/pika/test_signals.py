"""Signals that ask a worker to stop in the middle of its work. See also ``tests/conformance/test_processes.py``."""

from __future__ import annotations

import asyncio
import signal

import cbor2
import pytest

from eda_core import LocalError, StateError
from eda_pika import Service
from eda_tools.broker import EmbeddedBroker
from tests.support.jobs import jobs_left, numbers, send_jobs
from tests.support.services import asynchronous, peer, program

WORKER = ("-m", "tests.adapters.pika.worker")


@asynchronous
async def test_sigterm_lets_a_handler_that_blocks_the_loop_finish() -> None:
    """Messages that the service has taken are handled, too. What the broker still has is left."""
    async with EmbeddedBroker() as broker, peer(broker.url) as client, program(*WORKER, url=broker.url) as worker:
        await worker.says("ready")
        await send_jobs(client, range(1), wait=True)
        await send_jobs(client, range(1, 12), wait=False)
        await worker.says("begun 0")
        worker.process.send_signal(signal.SIGTERM)
        worker.tell("")
        assert (await worker.end(), worker.errors) == (0, "")
        assert "stopping" in worker.lines.all
        assert worker.lines.all[-1] == "restored"
        done = numbers(worker, "done")
        assert 0 in done
        assert sorted(await jobs_left(client) + done) == list(range(12)), "each job is either done or left"


@asynchronous
async def test_sigterm_lets_handlers_in_threads_finish_and_leaves_the_rest() -> None:
    async with EmbeddedBroker() as broker, peer(broker.url) as client, program(*WORKER, "5", url=broker.url) as worker:
        await worker.says("ready")
        await send_jobs(client, range(12), wait=True)
        await worker.lines.until(lambda _: len(numbers(worker, "begun")) == 5, "five jobs begun")
        worker.process.send_signal(signal.SIGTERM)
        await worker.says("stopping")
        for _ in range(5):
            worker.tell("")
        assert (await worker.end(), worker.errors) == (0, "")
        assert numbers(worker, "done") == numbers(worker, "begun")
        left = await jobs_left(client)
        assert (sorted(left + numbers(worker, "done")), len(left)) == (list(range(12)), 7)


@asynchronous
async def test_a_second_signal_leaves_unfinished_messages_to_other_workers() -> None:
    """The process ends, although threads of its handlers never do."""
    async with EmbeddedBroker() as broker, peer(broker.url) as client, program(*WORKER, "3", url=broker.url) as worker:
        await worker.says("ready")
        await send_jobs(client, range(3), wait=True)
        await worker.lines.until(lambda _: len(numbers(worker, "begun")) == 3, "three jobs begun")
        worker.process.send_signal(signal.SIGTERM)
        await worker.says("stopping")
        worker.process.send_signal(signal.SIGTERM)
        await worker.says("restored")
        assert await jobs_left(client) == [0, 1, 2]
        assert (await worker.end(), worker.errors) == (0, "")


@asynchronous
async def test_a_handler_that_blocks_the_loop_is_ended_when_the_time_is_over() -> None:
    """It is interrupted in a system call. What it has published is not sent. Its message goes to another worker."""
    async with EmbeddedBroker() as broker, peer(broker.url) as client:
        done = await client.tap("events", "JobDone")
        async with program(*WORKER, url=broker.url, settings={"WORKER_STOP_TIMEOUT": "0.2"}) as worker:
            await worker.says("ready")
            await send_jobs(client, range(3), wait=True)
            await worker.says("begun 0")
            worker.process.send_signal(signal.SIGTERM)
            await worker.says("restored")
            assert (await worker.end(), worker.errors) == (0, "")
        assert numbers(worker, "begun") == numbers(worker, "left") == [0]
        assert await jobs_left(client) == [0, 1, 2]
        assert done.all == []


@asynchronous
async def test_a_second_signal_ends_a_handler_that_blocks_the_loop() -> None:
    async with EmbeddedBroker() as broker, peer(broker.url) as client, program(*WORKER, url=broker.url) as worker:
        await worker.says("ready")
        await send_jobs(client, range(2), wait=True)
        await worker.says("begun 0")
        worker.process.send_signal(signal.SIGTERM)
        worker.process.send_signal(signal.SIGINT)
        await worker.says("restored")
        assert (await worker.end(), worker.errors) == (0, "")
        assert numbers(worker, "left") == [0]
        assert await jobs_left(client) == [0, 1]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP], ids=lambda number: number.name)
@asynchronous
async def test_the_other_signals_stop_a_worker_too(number: signal.Signals) -> None:
    async with EmbeddedBroker() as broker, program(*WORKER, url=broker.url) as worker:
        await worker.says("ready")
        worker.process.send_signal(number)
        assert (await worker.end(), worker.errors, worker.lines.all[-1]) == (0, "", "restored")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP], ids=lambda number: number.name)
@asynchronous
async def test_what_a_worker_inherits_as_ignored_stays_ignored(number: signal.Signals) -> None:
    """A job in the background, or under nohup, inherits that."""
    async with EmbeddedBroker() as broker, peer(broker.url) as client:
        async with program(*WORKER, url=broker.url, ignored={number}) as worker:
            await worker.says("ready")
            worker.process.send_signal(number)
            worker.process.send_signal(number)
            await send_jobs(client, range(1), wait=False)
            await worker.says("done 0")
            worker.process.send_signal(signal.SIGTERM)
            assert (await worker.end(), worker.errors, worker.lines.all[-1]) == (0, "", "restored")


#: A program with its own handler of SIGTERM; its argument is that of ``run``.
PROGRAM = """
import os, signal, sys, threading
from eda_pika import Service

def say(line):
    os.write(1, f"{line}\\n".encode())

class Hosted(Service):
    def on_ready(self):
        say("ready")

    def on_Stop(self, payload, conversation_id, meta):
        self.stop()

def handler(number, frame):
    say(f"the program's {signal.Signals(number).name}")

signal.signal(signal.SIGTERM, handler)
Hosted(os.environ["EDA_AMQP_URL"], ["Stop"], [], "hosted").run(signals=eval(sys.argv[1]))
say("restored" if signal.getsignal(signal.SIGTERM) is handler and signal.set_wakeup_fd(-1) == -1 else "not restored")
"""


@pytest.mark.parametrize("signals", ["None", "False"])
@asynchronous
async def test_the_programs_own_handler_is_left_alone(signals: str) -> None:
    async with EmbeddedBroker() as broker, peer(broker.url) as client:
        async with program("-c", PROGRAM, signals, url=broker.url) as service:
            await service.says("ready")
            service.process.send_signal(signal.SIGTERM)
            await service.says("the program's SIGTERM")
            headers = {"conversation_id": "c"}
            await client.publish("events", "Stop", cbor2.dumps(1), content_type="application/cbor", headers=headers)
            assert (await service.end(), service.errors) == (0, "")
        assert service.lines.all == ["ready", "the program's SIGTERM", "restored"]
        async with program("-c", PROGRAM, signals, url=broker.url) as service:
            await service.says("ready")
            service.process.send_signal(signal.SIGHUP)
            assert await service.end() == -signal.SIGHUP, "what the program leaves alone is not taken either"


@pytest.mark.parametrize("signals", ["True", "[signal.SIGTERM]"], ids=["all", "one"])
@asynchronous
async def test_on_request_a_signal_goes_to_the_service_and_to_the_program(signals: str) -> None:
    async with EmbeddedBroker() as broker, program("-c", PROGRAM, signals, url=broker.url) as service:
        await service.says("ready")
        service.process.send_signal(signal.SIGTERM)
        assert (await service.end(), service.errors) == (0, "")
        assert service.lines.all == ["ready", "the program's SIGTERM", "restored"]


@asynchronous
async def test_signals_that_cannot_be_handled_are_refused() -> None:
    class Never(Service):
        pass

    service = Never("amqp://127.0.0.1:1/", [], [], "never")
    with pytest.raises(LocalError, match=r"signals is 'SIGTERM'; give True, False, None, or signals"):
        service.run(signals="SIGTERM")  # type: ignore[arg-type]
    with pytest.raises(LocalError, match="asked for outside the main thread"):
        await asyncio.to_thread(service.run, signals=True)
    with pytest.raises(StateError, match="the service does not run"):
        service.stop()


@asynchronous
async def test_sigterm_ends_a_worker_that_has_no_broker() -> None:
    async with program(*WORKER, url="amqp://guest:secret@127.0.0.1:1/") as worker:
        await worker.lines.until(lambda lines: any("no link to" in line for line in lines), "a failed connection")
        worker.process.send_signal(signal.SIGTERM)
        assert (await worker.end(), worker.errors) == (0, "")
    assert not [line for line in worker.lines.all if "secret" in line]


BEGINNING = """
import os, sys
from eda_core.errors import BufferFull
from eda_pika import Service

class Beginning(Service):
    HANDLER_THREADS = int(sys.argv[1])

    def on_ready(self):
        os.write(1, b"ready\\n")
        while True:
            try:
                self.publish_event("Counted", 1, "c")
            except BufferFull:
                pass

Beginning(os.environ["EDA_AMQP_URL"], [], [], "svc").run()
"""


@asynchronous
async def test_a_signal_during_on_ready_is_no_error() -> None:
    """It publishes until the service does not accept that any more."""
    async with EmbeddedBroker() as broker, program("-c", BEGINNING, "3", url=broker.url) as service:
        await service.says("ready")
        for _ in range(2):
            service.process.send_signal(signal.SIGTERM)
        assert await service.end() == 0, service.errors
        assert "Traceback" not in service.errors
