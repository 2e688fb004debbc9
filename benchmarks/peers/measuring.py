"""One measurement: programs that run against a broker, watched from outside.

Time is counted by what stands in the broker's queues, processor time and memory by what Linux says of the processes.
The programs take no part in it, except that they tell how long their calls took.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cbor2
import pika

from benchmarks.peers.environments import CLIENTS, environ
from benchmarks.peers.programs.work import ANSWERED, Task, payload

ANSWERS = "bench.answers"
#: A measurement that takes so long has failed, seconds.
TIME_LIMIT = 300.0
BACKLOG = 100_000
#: The part of the messages that a program gets before it is measured: it imports and builds what it needs first.
WARM = 0.2


class MeasuringError(Exception):
    """A program ended, or did not do its work. The text has what it wrote."""


class Program:
    """A process of a client."""

    def __init__(self, client: str, task: Task, *, counting: bool = False) -> None:
        self.client = client
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed by end()
        self.process = subprocess.Popen(
            CLIENTS[client].command(task, counting=counting),
            env=environ(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )

    def check(self) -> None:
        """Raise MeasuringError if it has ended."""
        if self.process.poll() is not None:
            self._errors.seek(0)
            said = self._errors.read().decode(errors="replace").strip()[-2000:]
            raise MeasuringError(f"{self.client} ended with status {self.process.returncode}: {said}")

    def line(self) -> str:
        """The next line that it prints."""
        assert self.process.stdout is not None
        line: str = self.process.stdout.readline()
        if not line:
            self.process.wait()
            self.check()
        return line

    def go(self) -> None:
        """Let a program begin that has said that it is ready."""
        assert self.process.stdin is not None
        self.process.stdin.write("go\n")
        self.process.stdin.flush()

    def cpu(self) -> float:
        """Its processor time so far, user and system, seconds."""
        tasks = Path(f"/proc/{self.process.pid}/task").glob("*/schedstat")
        return sum(int(each.read_text("ascii").split()[0]) for each in tasks) / 1e9

    def resident(self) -> float:
        """Its memory, megabytes (of 1,000,000 bytes)."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text("ascii").split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 1e6

    def end(self) -> None:
        """Kill it: what it does at its end is not measured."""
        self.process.kill()
        self.process.communicate()
        self._errors.close()


@contextmanager
def programs(client: str, task: Task, number: int = 1, *, counting: bool = False) -> Iterator[list[Program]]:
    """Run so many processes of a client, which count their bytecodes if they are to."""
    running: list[Program] = []
    try:
        for _ in range(number):
            running.append(Program(client, task, counting=counting))
        yield running
    finally:
        for each in running:
            each.end()


class Bench:
    """Measures, on one broker. A context manager; it removes its queues at the end."""

    def __init__(self, url: str) -> None:
        self.url = url
        parameters = pika.URLParameters(url)
        parameters.heartbeat = 0  # nobody serves it while a program is waited for
        self._connection = pika.BlockingConnection(parameters)
        self._channel = self._connection.channel()
        self._queues: set[str] = set()
        for exchange in ("events", "commands"):
            self._channel.exchange_declare(exchange, "topic", durable=True)
        # In memory, for the time of a confirm to be short.
        self._channel.queue_declare(ANSWERS, exclusive=True)
        self._channel.queue_bind(ANSWERS, "events", ANSWERED)

    def __enter__(self) -> Bench:
        return self

    def __exit__(self, *_error: object) -> None:
        for queue in self._queues:
            self._channel.queue_delete(queue)
        self._connection.close()

    def task(self, work: str, **options: Any) -> Task:
        """One on this broker, whose queues are there."""
        task = Task(work, self.url, **options)
        events, commands = f"{task.service}.events", f"{task.service}.commands"
        if events not in self._queues:
            self._queues |= {events, commands}
            for queue in (events, commands):
                self._channel.queue_declare(queue, durable=True)
            for key in task.keys:
                self._channel.queue_bind(events, "events", key)
        return task

    def ready(self, queue: str) -> int:
        """How many messages wait in a queue."""
        return int(self._channel.queue_declare(queue, passive=True).method.message_count)

    def until(self, queue: str, reached: Callable[[int], bool], running: list[Program]) -> tuple[float, int]:
        """Wait for a number of messages in a queue.

        Returns:
            When it was reached, and the number.

        Raises:
            MeasuringError: one of the programs has ended, or nothing happens for long.
        """
        limit = time.perf_counter() + TIME_LIMIT
        while not reached(number := self.ready(queue)):
            for program in running:
                program.check()
            if time.perf_counter() > limit:
                raise MeasuringError(f"{running[0].client} stands still: {queue} has {number} messages")
            time.sleep(0.002)
        return time.perf_counter(), number

    def fill(self, task: Task, count: int, *, purge: bool = True) -> None:
        """Have so many messages in the queue of the service, of all its keys in turns, and none in that of answers."""
        queue = f"{task.service}.events"
        self._await_consumers(queue, 0, [])
        if purge:
            self._channel.queue_purge(queue)
        self._channel.queue_purge(ANSWERS)
        properties = pika.BasicProperties("application/cbor", headers={"conversation_id": "c"}, delivery_mode=2)
        body, keys = cbor2.dumps(payload(task.size)), task.keys
        for number in range(count - self.ready(queue)):
            self._channel.basic_publish("events", keys[number % len(keys)], body, properties)
        self.until(queue, lambda there: there >= count, [])

    def relay(self, client: str, *, count: int, workers: int = 1, **options: Any) -> dict[str, float]:
        """Messages per second, after the first ones, and the processor time for each, microseconds."""
        task = self.task("relay", **options)
        self.fill(task, count)
        with programs(client, task, workers) as running:
            begin, before = self.until(ANSWERS, lambda there: there >= count * WARM, running)
            worked = sum(each.cpu() for each in running)
            end, after = self.until(ANSWERS, lambda there: there >= count, running)
            return per_message(end - begin, sum(each.cpu() for each in running) - worked, after - before)

    def bytecodes(self, client: str, *, count: int) -> dict[str, float]:
        """The bytecodes of one relay, in all and by groups."""
        task = self.task("relay")
        self.fill(task, count)
        with programs(client, task, counting=True) as running:
            self.until(ANSWERS, lambda there: there >= count * WARM, running)
            running[0].process.send_signal(signal.SIGUSR1)
            before = self.ready(ANSWERS)
            _, after = self.until(ANSWERS, lambda there: there >= count, running)
            running[0].process.send_signal(signal.SIGUSR2)
            found = json.loads(running[0].line())
            return {"all": sum(found.values()) / (after - before)} | {
                name: found.get(name, 0) / (after - before) for name in ("wire", "machine", "service", "python")
            }

    def consume(self, client: str, *, count: int) -> dict[str, float]:
        """The same without publishing, as the queue gets empty."""
        task = self.task("consume")
        queue = f"{task.service}.events"
        self.fill(task, count)
        with programs(client, task) as running:
            begin, before = self.until(queue, lambda there: there <= count * (1 - WARM), running)
            worked = running[0].cpu()
            end, after = self.until(queue, lambda there: there == 0, running)
            return per_message(end - begin, running[0].cpu() - worked, before - after)

    def publish(self, client: str, *, count: int, size: int = 200) -> dict[str, float]:
        """Confirmed publishes per second, until the last one is in the queue."""
        task = self.task("publish", count=count, size=size)
        self._channel.queue_purge(ANSWERS)
        with programs(client, task) as running:
            (program,) = running
            program.line()
            begin, worked = time.perf_counter(), program.cpu()
            program.go()
            end, _ = self.until(ANSWERS, lambda there: there >= count, running)
            return per_message(end - begin, program.cpu() - worked, count)

    def call(self, client: str, *, count: int, flight: int) -> dict[str, float]:
        """Calls per second, how long they took, milliseconds, and the processor time of the caller."""
        server = self.task("serve")
        queue = f"{server.service}.commands"
        self._await_consumers(queue, 0, [])
        self._channel.queue_purge(queue)
        with programs(client, server) as serving:
            self._await_consumers(queue, 1, serving)
            with programs(client, self.task("ask", count=count, flight=flight)) as (program,):
                program.line()
                begin, worked = time.perf_counter(), program.cpu()
                program.go()
                took = json.loads(program.line())
                numbers = per_message(time.perf_counter() - begin, program.cpu() - worked, count)
                return numbers | {name: seconds * 1e3 for name, seconds in took.items()}

    def start(self, client: str) -> dict[str, float]:
        """Milliseconds from the start of a process until it consumes."""
        task = self.task("consume")
        queue = f"{task.service}.events"
        self._await_consumers(queue, 0, [])
        self._channel.queue_purge(queue)
        begin = time.perf_counter()
        with programs(client, task) as running:
            return {"ms": (self._await_consumers(queue, 1, running) - begin) * 1e3}

    def memory(self, client: str, *, count: int, backlog: int = BACKLOG) -> dict[str, float]:
        """Megabytes, after so many messages of a backlog are handled."""
        task = self.task("consume")
        self.fill(task, backlog, purge=False)
        with programs(client, task) as running:
            self.until(f"{task.service}.events", lambda there: there <= backlog - count, running)
            return {"MB": running[0].resident()}

    def _await_consumers(self, queue: str, number: int, running: list[Program]) -> float:
        """When a queue had so many. It gets back what a consumer left in the moment in which it has it no more."""
        limit = time.perf_counter() + TIME_LIMIT
        while (there := self._channel.queue_declare(queue, passive=True).method.consumer_count) != number:
            for program in running:
                program.check()
            if time.perf_counter() > limit:
                raise MeasuringError(f"{queue} has {there} consumers, and not {number}")
            time.sleep(0.001)
        return time.perf_counter()


def per_message(seconds: float, worked: float, count: int) -> dict[str, float]:
    """The rate per second, and the processor time in microseconds.

    Raises MeasuringError if there is nothing to divide by.
    """
    if not count:
        raise MeasuringError("all messages were handled before the measurement began; take more of them (--scale)")
    return {"rate": count / seconds, "cpu": worked / count * 1e6}
