"""Starts workers, starts again what dies, and ends all in good order. It does not know what services do."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from eda_tools.cli.status import DONE, FAILED, INTERRUPTED, ToolError
from eda_tools.running.backoff import Backoff
from eda_tools.running.changes import Changes
from eda_tools.running.log import Log
from eda_tools.running.process import Process

#: What the supervisor calls itself in the log.
NAME: Final = "eda run"


@dataclass(frozen=True, slots=True)
class Worker:
    """One worker.

    Attributes:
        path: what it runs, ``module:name``.
        number: from 1.
        label: how it is called in the log.
    """

    path: str
    number: int
    label: str


def workers_of(services: Mapping[str, int]) -> list[Worker]:
    """The workers of services, each as ``module:name`` with the number of its workers."""
    names = [path.rpartition(":")[2] for path in services]
    made = []
    for path, count in services.items():
        name = path.rpartition(":")[2]
        short = name if names.count(name) == 1 else path
        made += [Worker(path, each, short if count == 1 else f"{short}.{each}") for each in range(1, count + 1)]
    return made


class Supervisor:
    """Runs workers until they have ended.

    Args:
        workers: at least one.
        log: where they and the supervisor write.
        level: what they log: a name of ``logging``.
        environment: more environment variables for them.
        backoff: makes the delays of each worker.
        changes: start all anew when there is a change; ``None``: do not look for changes.
        traces: the path of a file to which each worker appends its spans; "" if there are none.
        health: the address and the port at which the first worker tells how it does; ``None``: none does. Each further
            worker has the next port.
    """

    def __init__(
        self,
        workers: Sequence[Worker],
        log: Log,
        *,
        level: str = "INFO",
        environment: Mapping[str, str] = {},
        backoff: Callable[[], Backoff] = Backoff,
        changes: Changes | None = None,
        traces: str = "",
        health: tuple[str, int] | None = None,
    ) -> None:
        self._workers = workers
        self._log = log
        self._level = level
        self._environment = environment
        self._backoff = backoff
        self._changes = changes
        self._traces = traces
        self._health = health
        self._running: set[Process] = set()
        #: How often somebody has asked to end all.
        self._asked = 0
        #: Workers are not started again, because all end, or all are started anew.
        self._stopping = asyncio.Event()
        self._fault: ToolError | None = None
        #: A service cannot be loaded before something has changed.
        self._waits = False
        self._failed = False
        #: The services that were made at least once.
        self._proven: set[str] = set()
        for worker in workers:
            log.widen(worker.label)

    def stop(self) -> None:
        """Ask all workers to end; the second time at once."""
        self._asked += 1
        if self._asked == 1:
            self._note("stops; once more, and it stops at once")
        self._log.drop()
        self._end_workers()

    def _end_workers(self) -> None:
        self._stopping.set()
        for process in self._running:
            process.stop()

    async def run(self) -> int:
        """Run all until their end. Returns the exit status.

        Raises:
            ToolError: a service cannot be loaded.
        """
        await self._run_once()
        while self._changes is not None and not self._asked:
            self._stopping.clear()
            await self._run_once()
        if self._fault is not None:
            raise self._fault
        if self._asked > 1:
            return INTERRUPTED
        return FAILED if self._failed else DONE

    async def _run_once(self) -> None:
        """Run all workers until they have ended: by themselves, because they are asked to, or because of a change."""
        watching = asyncio.create_task(self._watch()) if self._changes is not None else None
        try:
            async with asyncio.TaskGroup() as group:
                for worker in self._workers:
                    group.create_task(self._keep(worker))
            if watching is not None and not self._stopping.is_set():
                if not self._waits:
                    self._note("all have ended; waits for a change")
                await self._stopping.wait()
            if watching is not None and not self._asked:
                await watching
        finally:
            if watching is not None:
                watching.cancel()

    async def _watch(self) -> None:
        assert self._changes is not None
        changed = await self._changes.wait()
        more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
        self._note(f"{', '.join(changed[:3])}{more} changed; starts all anew")
        self._waits = False
        self._end_workers()

    async def _keep(self, worker: Worker) -> None:
        """Run a worker, and start it again when it dies."""
        backoff = self._backoff()
        while not self._stopping.is_set():
            try:
                process, status = await self._run_one(worker)
            except OSError as error:  # the system has no more processes, memory or files
                await self._wait(worker, f"cannot be started: {error.strerror}", backoff.died(0.0))
                continue
            if process.fault is not None and (self._changes is not None or worker.path not in self._proven):
                self._cannot(worker, *process.fault)
                return
            what = _ending(status)
            if self._stopping.is_set():
                if status not in (0, -signal.SIGTERM):
                    self._failed = self._failed or self._asked > 0
                    self._note(f"{worker.label} {what}", worker)
                return
            if status == 0:
                self._note(f"{worker.label} has ended", worker)
                return
            if process.fault is not None:
                what = f"cannot be loaded any more: {process.fault[0]}"
            await self._wait(worker, what, backoff.died(process.ran))

    async def _wait(self, worker: Worker, what: str, delay: float) -> None:
        self._note(f"{worker.label} {what}; starts again in {delay:g} s", worker, level="ERROR")
        with suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), delay)

    async def _run_one(self, worker: Worker) -> tuple[Process, int]:
        async def say(fields: dict[str, Any]) -> None:
            if process.service is not None:
                fields = {"service": process.service, **fields}
            await self._log.add(_entry(worker, process.pid, fields))

        def killed(text: str) -> None:
            self._note(f"{worker.label} {text}", worker, level="ERROR")

        process = await Process.start(
            self._level, worker.path, self._watched(worker), environment=self._environment, say=say, killed=killed
        )
        self._running.add(process)
        if self._stopping.is_set():
            process.stop()
        try:
            status = await process.ended()
        finally:
            self._running.discard(process)
        if process.made:
            self._proven.add(worker.path)
        return process, status

    def _watched(self, worker: Worker) -> str:
        """How a worker is seen from outside, as an argument of its program."""
        watched: dict[str, tuple[str, str]] = {}
        if self._traces:
            watched["traces"] = self._traces, worker.label
        if self._health is not None:
            host, port = self._health
            watched["health"] = host, str(port + self._workers.index(worker))
        return json.dumps(watched)

    def _cannot(self, worker: Worker, text: str, status: int) -> None:
        """Take note that a service cannot be loaded, and that to try it again is of no use."""
        if self._changes is not None:
            self._waits = True
            self._note(f"{text}; waits for a change", worker, level="ERROR")
        elif self._fault is None:
            self._fault = ToolError(text, status)
            self._end_workers()

    def _note(self, text: str, worker: Worker | None = None, level: str = "INFO") -> None:
        fields: dict[str, Any] = {"level": level, "message": text}
        if worker is not None:
            fields |= {"program": worker.path, "worker": worker.number}
        self._log.put({"time": time.time(), "name": NAME, "label": NAME, **fields})


def _entry(worker: Worker, pid: int, fields: dict[str, Any]) -> dict[str, Any]:
    names = {"name": worker.path, "label": worker.label, "program": worker.path, "worker": worker.number, "pid": pid}
    return {"time": time.time(), **names, **fields}


def _ending(status: int) -> str:
    if status >= 0:
        return f"ended with status {status}"
    try:
        return f"was ended by {signal.Signals(-status).name}"
    except ValueError:
        return f"was ended by signal {-status}"
