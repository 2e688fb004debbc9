"""Workers in processes of their own that are asked to end, or killed, in the middle of their work."""

from __future__ import annotations

import asyncio
import re
import signal
from typing import Any

import cbor2
import pytest

from tests.adapters.aio.conftest import broker
from tests.support.jobs import jobs_left, numbers, send_jobs
from tests.support.services import BrokerUnderTest, Peer, Program, Record, asynchronous, peer, program

__all__ = ["broker"]

#: Modules and arguments of programs that handle jobs.
WORKERS = {
    "eda_aio": ("tests.adapters.aio.worker",),
    "native": ("tests.adapters.aio.worker", "native"),
    "eda_pika": ("tests.adapters.pika.worker",),
    "eda_pika, threads": ("tests.adapters.pika.worker", "3"),
    "custom": ("tests.adapters.aio.worker", "custom"),
}
#: Jobs that a worker has at a time (PREFETCH_COUNT), and more than that.
AT_A_TIME, JOBS = 5, 12

workers = pytest.mark.parametrize("worker", WORKERS.values(), ids=WORKERS.keys())


def published(done: Record[Any]) -> list[int]:
    return sorted(cbor2.loads(message.body) for message in done.all)


async def release_each(worker: Program, client: Peer) -> int:
    """Let jobs end one after the other, each when it has begun and those before it are done, until the worker ends.

    For each of them there is a new job: on a busy machine the worker may do many before its thread that hears of
    signals gets to run, and none of them may be the last one. Returns how many jobs there were in all.
    """
    released = 0

    def another_has_begun(_lines: list[str]) -> bool:
        return len(numbers(worker, "begun")) > released == len(numbers(worker, "done"))

    def goes_on(lines: list[str]) -> bool:
        return another_has_begun(lines) or worker.ended

    while True:
        await worker.lines.until(goes_on, "another job begins, or the worker ends")
        if worker.ended:
            return JOBS + released
        await send_jobs(client, range(JOBS + released, JOBS + released + 1), wait=True)
        worker.tell("")
        released += 1


@workers
@asynchronous
async def test_sigterm_in_the_middle_of_work(broker: BrokerUnderTest, worker: tuple[str, ...]) -> None:
    """Jobs that have begun are finished, published and acknowledged. The others are left to other workers."""
    async with peer(broker.url) as client, program("-m", *worker, url=broker.url) as run:
        await run.says("ready")
        done = await client.tap("events", "JobDone")
        await send_jobs(client, range(JOBS), wait=True)
        await run.says("begun 0")
        run.process.send_signal(signal.SIGTERM)
        releasing = asyncio.create_task(release_each(run, client))
        assert (await run.end(), run.errors) == (0, "")
        sent = await releasing
        finished = numbers(run, "done")
        assert finished == numbers(run, "begun")
        left = await jobs_left(client)
        assert sorted(left + finished) == list(range(sent)), "each job is either done or left, and none is both"
        assert len(left) >= JOBS - AT_A_TIME, "what had not begun was not begun"
        await done.count(len(finished))
    assert published(done) == finished


@workers
@asynchronous
async def test_a_stop_whose_time_is_over_names_what_has_not_ended(
    broker: BrokerUnderTest, worker: tuple[str, ...]
) -> None:
    """One line for all handlers, without tracebacks. The process ends as after any other stop."""
    settings = {"WORKER_STOP_TIMEOUT": "0.5"}
    async with peer(broker.url) as client, program("-m", *worker, url=broker.url, settings=settings) as run:
        await run.says("ready")
        await send_jobs(client, range(2), wait=True)
        at_once = 1 if worker == WORKERS["eda_pika"] else 2
        await run.lines.until(lambda _: len(numbers(run, "begun")) == at_once, "the jobs have begun")
        run.process.send_signal(signal.SIGTERM)
        assert (await run.end(), run.errors) == (0, "")
        assert await jobs_left(client) == [0, 1]
    (told,) = (line for line in run.lines.all if "the time of the stop is over" in line)
    many = r"2 handlers have not ended: Worker.on_Job after \d+\.\d s,"
    some = many if at_once > 1 else "Worker.on_Job has not ended"
    assert re.search(rf", and {some}.* after \d+\.\d s; the broker delivers unfinished messages again$", told), told
    assert not [line for line in run.lines.all if "Traceback" in line or "File " in line]


@workers
@asynchronous
async def test_another_worker_takes_over_from_one_that_was_killed(
    broker: BrokerUnderTest, worker: tuple[str, ...]
) -> None:
    async with peer(broker.url) as client:
        async with program("-m", *worker, url=broker.url) as victim:
            await victim.says("ready")
            done = await client.tap("events", "JobDone")
            await send_jobs(client, range(5), wait=False)
            await done.count(5)
            await send_jobs(client, range(5, 15), wait=True)
            await victim.says("begun 5")
            victim.process.kill()
            assert await victim.end() == -signal.SIGKILL
        async with program("-m", *worker, url=broker.url) as heir:
            await heir.says("ready")
            for _ in range(15):
                heir.tell("")
            await done.until(lambda _: set(published(done)) == set(range(15)), "every job done")
            heir.process.send_signal(signal.SIGTERM)
            assert (await heir.end(), heir.errors) == (0, "")
        assert numbers(victim, "done") == [0, 1, 2, 3, 4]
        assert set(numbers(heir, "done")) >= set(range(5, 15))
        assert await jobs_left(client) == []
