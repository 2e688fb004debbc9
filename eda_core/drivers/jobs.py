"""Runs the jobs of a callback driver, in threads or in turns with the network.

It decides how long jobs keep the network waiting. It starts no thread and knows no loop: an adapter does.
"""

from __future__ import annotations

from collections.abc import Callable
from queue import SimpleQueue
from typing import Final

#: Seconds for which jobs run before the network has its turn.
TURN: Final = 0.002


class Jobs:
    """The jobs that wait.

    Args:
        run: runs a job.
        soon: calls a function in the loop, when the network has had its turn.
        now: returns the time in monotonic seconds.
        threads: how many threads call :meth:`serve`. If there are none, jobs run in the loop.
    """

    def __init__(
        self,
        run: Callable[[Callable[[], None]], None],
        soon: Callable[[Callable[[], None]], object],
        now: Callable[[], float],
        threads: int,
    ) -> None:
        self._run, self._soon, self._now, self._threads = run, soon, now, threads
        self._waiting: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._working = False

    def add(self, job: Callable[[], None]) -> None:
        """Let a job run after those before it."""
        self._waiting.put(job)
        if not self._threads and not self._working:
            self._working = True
            self._soon(self._work)

    def serve(self) -> None:
        """Run jobs until :meth:`end`. A thread calls this."""
        while (job := self._waiting.get()) is not None:
            self._run(job)

    def end(self) -> None:
        """Let each thread end when it has run the jobs before this."""
        for _ in range(self._threads):
            self._waiting.put(None)

    def _work(self) -> None:
        until = self._now() + TURN
        while not self._waiting.empty():
            job = self._waiting.get()
            if job is not None:
                self._run(job)
            if self._now() >= until:
                break
        self._working = not self._waiting.empty()
        if self._working:
            self._soon(self._work)
