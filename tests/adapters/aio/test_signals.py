"""Signals: a worker that is asked to stop in the middle of its work; and several services in one loop."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import cbor2
import pytest

from eda_aio import Service
from eda_core import LocalError, StateError
from tests.support.jobs import jobs_left, numbers, send_jobs
from tests.support.services import (
    BrokerUnderTest,
    Probe,
    Record,
    asynchronous,
    conversation,
    peer,
    program,
    running,
    within,
)

WORKER = ("-m", "tests.adapters.aio.worker")


# --- SIGTERM and the like ---


@asynchronous
async def test_sigterm_lets_running_handlers_finish_and_leaves_the_rest(broker: BrokerUnderTest) -> None:
    async with peer(broker.url) as client, program(*WORKER, url=broker.url) as worker:
        await worker.says("ready")
        done = await client.tap("events", "JobDone")
        await send_jobs(client, range(12), wait=True)
        await worker.lines.until(lambda _: len(numbers(worker, "begun")) == 5, "five jobs begun")
        worker.process.send_signal(signal.SIGTERM)
        await worker.says("stopping")
        worker.tell("finish")
        assert (await worker.end(), worker.errors) == (0, "")
        assert numbers(worker, "done") == numbers(worker, "begun")
        left = await jobs_left(client)
        assert sorted(left + numbers(worker, "done")) == list(range(12)), "each job is either done or left"
        assert len(left) == 7
        await done.count(5)
    assert sorted(cbor2.loads(message.body) for message in done.all) == numbers(worker, "done")


@asynchronous
async def test_a_second_signal_leaves_unfinished_messages_to_other_workers(broker: BrokerUnderTest) -> None:
    async with peer(broker.url) as client, program(*WORKER, url=broker.url) as worker:
        await worker.says("ready")
        await send_jobs(client, range(3), wait=True)
        await worker.lines.until(lambda _: len(numbers(worker, "begun")) == 3, "three jobs begun")
        worker.process.send_signal(signal.SIGTERM)
        await worker.says("stopping")
        worker.process.send_signal(signal.SIGTERM)
        assert (await worker.end(), worker.errors) == (0, "")
        assert await jobs_left(client) == [0, 1, 2]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP], ids=lambda number: number.name)
@asynchronous
async def test_the_other_signals_stop_a_worker_too(broker: BrokerUnderTest, number: signal.Signals) -> None:
    async with program(*WORKER, url=broker.url) as worker:
        await worker.says("ready")
        worker.process.send_signal(number)
        assert (await worker.end(), worker.errors, worker.lines.all[-1]) == (0, "", "restored")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP], ids=lambda number: number.name)
@asynchronous
async def test_what_a_worker_inherits_as_ignored_stays_ignored(broker: BrokerUnderTest, number: signal.Signals) -> None:
    """A job in the background, or under nohup, inherits that."""
    async with peer(broker.url) as client, program(*WORKER, url=broker.url, ignored={number}) as worker:
        await worker.says("ready")
        worker.process.send_signal(number)
        worker.process.send_signal(number)
        await send_jobs(client, range(1), wait=False)
        await worker.says("done 0")
        worker.process.send_signal(signal.SIGTERM)
        assert (await worker.end(), worker.errors, worker.lines.all[-1]) == (0, "", "restored")


@asynchronous
async def test_sigterm_ends_a_worker_that_has_no_broker() -> None:
    async with program(*WORKER, url="amqp://guest:secret@127.0.0.1:1/") as worker:
        await worker.lines.until(lambda lines: any("no link to" in line for line in lines), "a failed connection")
        worker.process.send_signal(signal.SIGTERM)
        assert (await worker.end(), worker.errors) == (0, "")
    assert not [line for line in worker.lines.all if "secret" in line]


# --- in one process ---


class Slow(Probe):
    def __init__(self, url: str, name: str) -> None:
        super().__init__(url, [f"Happened.{name}"], name=name)
        self.gate = asyncio.Event()

    async def handle_event(self, event: str, payload: Any, conversation_id: str, meta: Any) -> None:
        self.seen.add("begun")
        await self.gate.wait()
        self.seen.add("done")


def kill_this_process(number: signal.Signals) -> None:
    """Send this process a signal, after checking that it has a handler."""
    assert signal.getsignal(number) not in (signal.SIG_DFL, signal.SIG_IGN, signal.default_int_handler)
    os.kill(os.getpid(), number)


@asynchronous
async def test_a_signal_stops_every_service_of_the_loop(broker: BrokerUnderTest) -> None:
    one, two = Slow(broker.url, "one"), Slow(broker.url, "two")
    async with running(one, two) as runs:
        for service in (one, two):
            await service.publish_event(f"Happened.{service.logical_service}", 1, conversation())
            await service.seen.count(1)
        kill_this_process(signal.SIGTERM)
        one.gate.set()
        await within(runs[0], "the end of the first")
        assert not runs[1].done(), "the second still has a handler to finish"
        two.gate.set()
        await within(runs[1], "the end of the second")
    assert one.seen.all == two.seen.all == ["begun", "done"]
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL, "as before"


@asynchronous
async def test_a_service_that_has_ended_leaves_signals_to_the_others(broker: BrokerUnderTest) -> None:
    one, two = Probe(broker.url, name="one"), Probe(broker.url, name="two")
    async with running(one, two) as runs:
        await one.stop()
        await within(runs[0], "the end of the first")
        kill_this_process(signal.SIGTERM)
        await within(runs[1], "the end of the second")


@contextmanager
def handled_by(handler: Callable[[int, Any], Any]) -> Iterator[None]:
    """The program's own handler of SIGTERM."""
    before = signal.signal(signal.SIGTERM, handler)
    try:
        yield
        assert signal.getsignal(signal.SIGTERM) == handler, "as before"
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize("signals", [None, False])
@asynchronous
async def test_the_programs_own_handler_is_left_alone(broker: BrokerUnderTest, signals: bool | None) -> None:
    heard: Record[int] = Record("signals")
    others = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGHUP)]
    with handled_by(lambda number, frame: heard.add(number)):
        service = Probe(broker.url)
        run = asyncio.create_task(service.run(signals=signals))
        await service.ready.count(1)
        kill_this_process(signal.SIGTERM)
        await heard.count(1)
        assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGHUP)] == others
        await service.publish_event("Other", 1, "c")
        assert not run.done()
        await service.stop()
        await within(run, "the end of the service")


@pytest.mark.parametrize("signals", [True, [signal.SIGTERM]], ids=["all", "one"])
@asynchronous
async def test_on_request_a_signal_goes_to_the_service_and_to_the_program(
    broker: BrokerUnderTest, signals: bool | list[int]
) -> None:
    heard: Record[int] = Record("signals")
    with handled_by(lambda number, frame: heard.add(number)):
        service = Probe(broker.url)
        run = asyncio.create_task(service.run(signals=signals))
        await service.ready.count(1)
        kill_this_process(signal.SIGTERM)
        await within(run, "the end of the service")
        assert heard.all == [signal.SIGTERM]


@asynchronous
async def test_a_handler_of_the_loop_is_called_too(broker: BrokerUnderTest) -> None:
    """When the service has ended, the handler works as before."""
    heard: Record[int] = Record("signals")
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, heard.add, 1)
    try:
        service = Probe(broker.url)
        run = asyncio.create_task(service.run(signals=True))
        await service.ready.count(1)
        kill_this_process(signal.SIGTERM)
        await within(run, "the end of the service")
        await heard.count(1)
        kill_this_process(signal.SIGTERM)
        await heard.count(2)
    finally:
        loop.remove_signal_handler(signal.SIGTERM)


@asynchronous
async def test_signals_that_cannot_be_handled_are_refused() -> None:
    service = Probe("amqp://127.0.0.1:1/")
    with pytest.raises(LocalError, match=r"signals is 'SIGTERM'; give True, False, None, or signals"):
        await service.run(signals="SIGTERM")  # type: ignore[arg-type]
    with pytest.raises(LocalError, match="asked for outside the main thread"):
        await asyncio.to_thread(asyncio.run, service.run(signals=True))
    with pytest.raises(StateError, match="the service does not run"):
        await service.stop()


@pytest.mark.parametrize("number_of_services", [1, 2])
@asynchronous
async def test_a_signal_wakes_the_loop_though_it_interrupts_nothing(
    broker: BrokerUnderTest, number_of_services: int
) -> None:
    """A signal that comes just before the loop waits does not interrupt the wait. Here another thread gets it."""
    services = [Probe(broker.url, name=f"probe-{number}") for number in range(number_of_services)]
    over = threading.Event()
    other = threading.Thread(target=over.wait)
    other.start()
    try:
        async with running(*services) as runs:
            if len(services) > 1:
                await services[0].stop()
                await within(runs[0], "the end of the first")
            begin = asyncio.get_running_loop().time()
            assert other.ident is not None
            signal.pthread_kill(other.ident, signal.SIGTERM)
            await within(runs[-1], "the end of the last")
            assert asyncio.get_running_loop().time() - begin < Probe.HEARTBEAT / 4, "not when the loop turned anyway"
    finally:
        over.set()
        other.join()
    assert signal.set_wakeup_fd(-1) == -1


FORKING = """
import asyncio, multiprocessing, os, time
from eda_aio import Service

class Forking(Service):
    async def on_ready(self):
        print("ready", flush=True)
        context = multiprocessing.get_context("fork")
        child = context.Process(target=time.sleep, args=(60,))
        child.start()
        child.terminate()
        await asyncio.to_thread(child.join)
        print("ended by", child.exitcode, flush=True)

asyncio.run(Forking(os.environ["EDA_AMQP_URL"], [], [], "svc").run())
"""


@asynchronous
async def test_a_child_process_that_is_terminated_ends_and_its_parent_does_not(broker: BrokerUnderTest) -> None:
    async with program("-W", "ignore", "-c", FORKING, url=broker.url) as service:
        await service.says("ended by -15")
        service.process.send_signal(signal.SIGTERM)
        assert (await service.end(), service.errors) == (0, "")


BEGINNING = """
import asyncio, os
from eda_aio import Service

class Beginning(Service):
    async def on_ready(self):
        print("ready", flush=True)
        for number in range(10**9):
            await self.publish_event("Counted", number, "c")

asyncio.run(Beginning(os.environ["EDA_AMQP_URL"], [], [], "svc").run())
"""


@asynchronous
async def test_a_signal_during_on_ready_is_no_error(broker: BrokerUnderTest) -> None:
    async with program("-c", BEGINNING, url=broker.url) as service:
        await service.says("ready")
        service.process.send_signal(signal.SIGTERM)
        assert await service.end() == 0, service.errors
        assert "Traceback" not in service.errors


def test_a_service_may_run_in_another_thread(broker: BrokerUnderTest) -> None:
    """Python handles signals in the main thread only; the program has to stop the service."""
    ended: list[str] = []

    class Brief(Service):
        async def on_ready(self) -> None:
            await self.stop()

    def work() -> None:
        asyncio.run(within(Brief(broker.url, [], [], "brief").run(), "the end of run()"))
        ended.append("well")

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(30)
    assert ended == ["well"]
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
