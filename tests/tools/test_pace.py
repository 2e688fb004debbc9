"""``--rate``: at most so many per second, also after a pause."""

from __future__ import annotations

import pytest

from eda_tools.bus.pace import Pace


def test_without_a_rate_nothing_waits() -> None:
    pace = Pace(None)
    assert [pace.wait(100.0) for _ in range(3)] == [0.0, 0.0, 0.0]


def test_the_first_is_due_at_once_and_the_others_one_after_the_other() -> None:
    pace = Pace(4.0)
    assert [pace.wait(100.0) for _ in range(4)] == pytest.approx([0.0, 0.25, 0.5, 0.75])


def test_what_a_pause_has_missed_is_not_made_up_for() -> None:
    """The broker took nothing for a minute: then 60 times as many per second would follow."""
    pace = Pace(4.0)
    assert pace.wait(100.0) == 0.0
    assert [pace.wait(160.0) for _ in range(3)] == pytest.approx([0.0, 0.25, 0.5])


def test_actions_that_take_time_are_not_delayed_further() -> None:
    pace = Pace(4.0)
    assert pace.wait(100.0) == 0.0
    assert pace.wait(100.2) == pytest.approx(0.05)
    assert pace.wait(100.3) == pytest.approx(0.2)
