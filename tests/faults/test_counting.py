"""The counts of the harness are those of what was observed."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from tests.faults.counting import Observed, Step, count, longest_silence, read_journal


def observed(**given: Any) -> Observed:
    """Two jobs that were handled and have arrived, apart from what is given."""
    usual: dict[str, Any] = {
        "handles": True,
        "sent": {1: 0.5, 2: 0.5},
        "resent": set(),
        "poison": set(),
        "steps": journal("R 0 0; B 1 1; D 1 1.5; B 2 2; D 2 2.5"),
        "witnessed": Counter({1: 1, 2: 1}),
        "dead": Counter(),
        "left": 0,
        "faults": [],
        "excused": [],
        "links": 0,
        "log_lines": 0,
        "statuses": [],
        "stops": [],
        "end": 10.0,
    }
    return Observed(**{**usual, **given})


def journal(*texts: str) -> list[Step]:
    """The journals of workers, with ``; `` between the lines."""
    return [step for number, text in enumerate(texts) for step in read_journal(number, text.replace("; ", "\n") + "\n")]


def test_nothing_happened() -> None:
    outcome = count(observed())
    assert (outcome.sent, outcome.handled, outcome.lost, outcome.doubled, outcome.again, outcome.dead) == (
        2,
        2,
        0,
        0,
        0,
        0,
    )
    assert (outcome.still, outcome.links, outcome.lines_per_link, outcome.stuck) == (0.0, 0, None, False)


def test_a_killed_writer_leaves_half_a_line() -> None:
    assert read_journal(3, "B 1 1.25\nD 1 1.") == [Step(3, "B", 1, 1.25)]


def test_what_never_arrived_is_lost_unless_it_is_elsewhere() -> None:
    assert count(observed(sent=dict.fromkeys(range(1, 5), 0.5))).lost == 2
    assert count(observed(sent=dict.fromkeys(range(1, 5), 0.5), left=1)).lost == 1
    assert count(observed(sent=dict.fromkeys(range(1, 5), 0.5), left=1, dead=Counter({4: 1}))).lost == 0
    assert count(observed(witnessed=Counter({1: 1}))).lost == 1
    assert count(observed(witnessed=Counter({1: 1}), excused=[(2.4, 3.0)])).lost == 0
    assert count(observed(witnessed=Counter({1: 1}), excused=[(2.6, 3.0)])).lost == 1


def test_a_job_that_had_nowhere_to_go_counts_if_it_went_somewhere() -> None:
    sent = {1: 0.5, 2: 5.5, 3: 5.6}
    assert (count(observed(sent=sent)).sent, count(observed(sent=sent)).lost) == (3, 1)
    outcome = count(observed(sent=sent, excused=[(5.0, 6.0)]))
    assert (outcome.sent, outcome.handled, outcome.lost) == (2, 2, 0)


def test_of_a_publisher_what_it_knows_as_confirmed_must_arrive() -> None:
    steps = journal("R 0 0; B 1 1; D 1 1.5; B 2 2; F 2 2.5; B 3 3; D 3 3.5; B 4 4")
    outcome = count(observed(handles=False, steps=steps, witnessed=Counter({1: 2, 2: 1}), links=5, log_lines=10))
    assert (outcome.sent, outcome.lost, outcome.doubled, outcome.failed, outcome.again) == (2, 1, 1, 1, 0)
    assert outcome.lines_per_link == 2.0


def test_doubled_by_the_harness_is_not_doubled_by_the_service() -> None:
    steps = journal("R 0 0; B 1 1; D 1 1.5; B 1 2; D 1 2.5; B 2 3; D 2 3", "B 2 4; D 2 5")
    doubled = count(observed(steps=steps, witnessed=Counter({1: 3, 2: 2})))
    assert (doubled.doubled, doubled.again) == (3, 2)
    doubled = count(observed(steps=steps, witnessed=Counter({1: 3, 2: 2}), resent={1}))
    assert (doubled.doubled, doubled.again) == (1, 1)


def test_poison_is_counted_apart_from_the_innocent() -> None:
    steps = journal("B 1 1; B 1 2; B 2 2; B 2 3; B 2 4; B 3 5; D 3 5.5")
    outcome = count(
        observed(
            sent=dict.fromkeys(range(1, 4), 0.5),
            poison={1, 2},
            steps=steps,
            dead=Counter([1, 3]),
            witnessed=Counter([3]),
        )
    )
    assert outcome.poison == {2: 1, 3: 1}
    assert (outcome.poison_alive, outcome.dead, outcome.lost, outcome.again) == (1, 1, 0, 0)


def test_links_are_counted_by_worker() -> None:
    outcome = count(observed(steps=journal("R 0 0; R 0 1; R 0 2; B 1 2; D 1 3", "R 0 1; R 0 2"), log_lines=9))
    assert (outcome.links, outcome.lines_per_link) == (3, 3.0)


def test_a_job_that_is_done_again_ends_no_silence() -> None:
    steps = journal("R 0 0; D 1 1.5; D 2 2.5; D 1 50")
    assert count(observed(steps=steps, faults=[(1.0, 1.0)], end=60.0)).still == 1.0


@pytest.mark.parametrize(
    ("times", "faults", "end", "silence"),
    [
        ([1, 2, 3, 9], [], None, 0),
        ([1, 2, 3, 9], [(3.5, 3.5)], None, 6),
        ([1, 2, 3, 9], [(3.5, 5.5)], None, 4),
        ([1, 2, 3, 9], [(3.5, 5.5), (5, 6), (4, 4.5)], None, 3.5),
        ([1, 5, 6, 7], [(5.5, 5.5)], None, 1),  # before the fault there was no work
        ([1, 2, 3], [(2.5, 2.5)], 10, 7),
        ([], [(2, 3)], 10, 7),
        ([1], [(2, 3)], None, 0),
        ([1, 9], [(2, 3), (7, 12)], None, 5),
    ],
)
def test_the_longest_silence(times: list[float], faults: list[Any], end: float | None, silence: float) -> None:
    assert longest_silence(times, faults, end) == pytest.approx(silence)


def test_those_who_stand_still_are_still_to_the_end() -> None:
    outcome = count(observed(sent=dict.fromkeys(range(1, 4), 0.5), faults=[(2.0, 2.2)], end=60.0, quiet=True))
    assert (outcome.still, outcome.stuck, outcome.lost) == (57.5, True, 1)


def test_statuses() -> None:
    outcome = count(observed(statuses=[0, 0, -9], stops=[0.2, 0.5, 15.0]))
    assert (outcome.statuses, outcome.longest_stop) == ({-9: 1, 0: 2}, 15.0)
    assert outcome.as_json()["statuses"] == {-9: 1, 0: 2}
