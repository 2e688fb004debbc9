"""What a scenario has shown of one kind of service, from what was observed. Pure: observations in, numbers out."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from tests.faults.services.common import BEGUN, DONE, FAILED, READY

Interval = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Step:
    """One line of a journal."""

    worker: int
    what: str
    number: int
    time: float


def read_journal(worker: int, text: str) -> list[Step]:
    """The steps of a worker. A last line without an end is left out: its process was killed while it wrote it."""
    complete = text[: text.rfind("\n") + 1]
    lines = (line.split(" ") for line in complete.splitlines())
    return [Step(worker, what, int(number), float(time)) for what, number, time in lines]


@dataclass(frozen=True, slots=True)
class Observed:
    """All that was seen of one kind in a scenario. Times are monotonic seconds.

    Attributes:
        handles: it handles jobs; else it only publishes.
        sent: when the broker has confirmed each job to the harness; of a publisher, to itself (in ``steps``).
        resent: jobs that the harness has sent more than once, because it did not know whether they had arrived.
        poison: jobs whose handler raises an error.
        steps: the journals of all workers.
        witnessed: how often the broker has given a "done" to the harness, for each job.
        dead: how often a job was dead-lettered.
        left: jobs that are still in the service's queue at the end.
        faults: when nobody could be served; the same time twice for what lasts no time.
        excused: when messages that were published had nowhere to go, by the scenario's own doing.
        links: lost links of a publisher, which does not tell them.
        log_lines: lines that its workers have logged from the first fault on.
        statuses: how its workers have ended that were asked to.
        stops: how long that has taken, seconds.
        end: when all was over.
        quiet: nothing happened any more, and not everything was done.
        held: what a worker held (file descriptors and so on), early and late.
    """

    handles: bool
    sent: Mapping[int, float]
    resent: Collection[int]
    poison: Collection[int]
    steps: Sequence[Step]
    witnessed: Counter[int]
    dead: Counter[int]
    left: int
    faults: Sequence[Interval]
    excused: Sequence[Interval]
    links: int
    log_lines: int
    statuses: Sequence[int]
    stops: Sequence[float]
    end: float
    quiet: bool = False
    held: Sequence[Mapping[str, int]] = ()


@dataclass(frozen=True, slots=True)
class Outcome:
    """One cell of the table.

    Attributes:
        sent: jobs.
        handled: of them, those whose handler has ended without an error; of a publisher, those it knows as confirmed.
        lost: jobs that were sent, are neither dead-lettered nor left in the queue, and whose "done" never arrived.
        doubled: "done" messages beyond the first of each job.
        again: runs of handlers beyond the first of each job, poison aside.
        left: jobs that are still in the service's queue.
        dead: jobs that were dead-lettered though their handler does not fail.
        poison: how often poison jobs were begun: the number of jobs for each count.
        poison_alive: poison jobs that were not dead-lettered.
        failed: publishes that the caller was told to have failed.
        still: the longest time in which nothing was handled though it could have been, seconds.
        links: lost links.
        lines_per_link: lines of log for each of them; None if there were none.
        statuses: how often workers that were asked to stop have ended with which status.
        longest_stop: seconds.
        per_second: jobs that were done for each second from the first to the last.
        held: as observed.
        stuck: it stood still at the end, with work left.
    """

    sent: int
    handled: int
    lost: int
    doubled: int
    again: int
    left: int
    dead: int
    poison: dict[int, int]
    poison_alive: int
    failed: int
    still: float
    links: int
    lines_per_link: float | None
    statuses: dict[int, int] = field(default_factory=dict)
    longest_stop: float = 0.0
    stuck: bool = False
    per_second: float = 0.0
    held: list[dict[str, int]] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """For the file of results."""
        return asdict(self)


def count(seen: Observed) -> Outcome:
    """Count what was observed."""
    done = Counter(step.number for step in seen.steps if step.what == DONE)
    begun = Counter(step.number for step in seen.steps if step.what == BEGUN)
    gone = {number for number, time in seen.sent.items() if _within(time, seen.excused) and not begun[number]}
    sent = set(seen.sent) - gone if seen.handles else set(done)
    wanted = sent - set(seen.poison)
    excused = {step.number for step in seen.steps if step.what == DONE and _within(step.time, seen.excused)}
    missing = wanted - set(seen.witnessed) - set(seen.dead) - excused
    poison = Counter(begun[number] for number in seen.poison)
    links = _lost_links(seen.steps) if seen.handles else seen.links
    return Outcome(
        sent=len(sent),
        handled=len(sent & set(done)),
        lost=max(0, len(missing) - seen.left),
        doubled=_beyond_first(seen.witnessed, seen.resent),
        again=_beyond_first(begun, {*seen.resent, *seen.poison}) if seen.handles else 0,
        left=seen.left,
        dead=len(wanted & set(seen.dead)),
        poison=dict(sorted(poison.items())),
        poison_alive=len(set(seen.poison) - set(seen.dead)),
        failed=sum(step.what == FAILED for step in seen.steps),
        still=round(longest_silence(_done_times(seen.steps), seen.faults, seen.end if missing else None), 2),
        links=links,
        lines_per_link=round(seen.log_lines / links, 1) if links else None,
        statuses=dict(sorted(Counter(seen.statuses).items())),
        longest_stop=round(max(seen.stops, default=0.0), 2),
        stuck=seen.quiet,
        per_second=_per_second(_done_times(seen.steps)),
        held=[dict(each) for each in seen.held],
    )


def _done_times(steps: Iterable[Step]) -> list[float]:
    """When each job was done for the first time. A node that comes back may deliver one again when all is over."""
    first: dict[int, float] = {}
    for step in sorted((step for step in steps if step.what == DONE), key=lambda step: step.time):
        first.setdefault(step.number, step.time)
    return list(first.values())


def _per_second(times: Sequence[float]) -> float:
    return round((len(times) - 1) / (times[-1] - times[0]), 1) if len(times) > 1 else 0.0


def _lost_links(steps: Iterable[Step]) -> int:
    """How often workers were ready again."""
    ready = Counter(step.worker for step in steps if step.what == READY)
    return ready.total() - len(ready)


def _beyond_first(times: Counter[int], without: Collection[int]) -> int:
    return sum(count - 1 for number, count in times.items() if number not in without and count > 1)


def _within(time: float, intervals: Iterable[Interval]) -> bool:
    return any(begin <= time <= end for begin, end in intervals)


def longest_silence(times: Sequence[float], faults: Sequence[Interval], end: float | None) -> float:
    """The longest time in which nothing was done from the first fault on, the faults themselves not counted.

    Args:
        times: when something was done, in order.
        faults: those.
        end: up to when something should have been done; None if all was.
    """
    if not faults:
        return 0.0
    start = min(begin for begin, _ in faults)
    before = [time for time in times if time <= start][-1:]
    marks = [*(before or [start]), *(time for time in times if time > start), *([] if end is None else [end])]
    gaps = itertools.pairwise(marks)
    return max((last - first - _overlap(first, last, faults) for first, last in gaps), default=0.0)


def _overlap(first: float, last: float, faults: Iterable[Interval]) -> float:
    """How much of the time from ``first`` to ``last`` is covered by faults."""
    covered, reached = 0.0, first
    for begin, end in sorted(faults):
        begin, end = max(begin, reached), min(end, last)
        if end > begin:
            covered += end - begin
            reached = end
    return covered
