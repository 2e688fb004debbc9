"""Jobs of a callback driver: in turns with the network, or in threads."""

from __future__ import annotations

from collections.abc import Callable

from eda_core.drivers.jobs import TURN, Jobs


class Loop:
    """A loop whose turns the test makes. Each job takes ``takes`` seconds."""

    def __init__(self, threads: int = 0, takes: float = 0.0) -> None:
        self.clock, self.takes = 100.0, takes
        self.ran: list[str] = []
        self.next: list[Callable[[], None]] = []
        self.jobs = Jobs(self.run, self.next.append, lambda: self.clock, threads)

    def run(self, job: Callable[[], None]) -> None:
        self.clock += self.takes
        job()

    def add(self, *names: str) -> None:
        for name in names:
            self.jobs.add(lambda name=name: self.ran.append(name))  # type: ignore[misc]

    def turn(self) -> None:
        (call,) = self.next
        self.next.clear()
        call()


def test_jobs_run_in_order_in_the_next_turn() -> None:
    loop = Loop()
    loop.add("a", "b")
    assert loop.ran == []
    loop.turn()
    assert (loop.ran, loop.next) == (["a", "b"], [])
    loop.add("c")
    loop.turn()
    assert loop.ran == ["a", "b", "c"]


def test_the_network_has_its_turn_between_jobs_that_take_long() -> None:
    loop = Loop(takes=TURN)
    loop.add("a", "b")
    loop.turn()
    assert (loop.ran, len(loop.next)) == (["a"], 1)
    loop.turn()
    assert (loop.ran, loop.next) == (["a", "b"], [])


def test_a_job_that_adds_another_one_waits_for_no_turn_of_its_own() -> None:
    loop = Loop()
    loop.jobs.add(lambda: loop.add("inner"))
    loop.turn()
    assert loop.ran == ["inner"]
    assert loop.next == []


def test_threads_run_jobs_until_the_end_and_the_loop_runs_none() -> None:
    loop = Loop(threads=2)
    loop.add("a", "b")
    loop.jobs.end()
    assert loop.next == []
    loop.jobs.serve()
    assert loop.ran == ["a", "b"]
    loop.jobs.serve()
