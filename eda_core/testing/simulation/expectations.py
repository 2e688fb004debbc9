"""How many messages a test expects, and what it is told if there are fewer or more.

What a single message is compared with is in :mod:`eda_core.testing.arrivals`.
"""

from __future__ import annotations

from collections.abc import Sequence

from eda_core.testing.arrivals import Expectation, report
from eda_core.testing.simulation.failures import SimulationFailed
from eda_core.testing.simulation.sent import Sent


def expect(expected: Expectation, at_least: int, at_most: int | None, sent: Sequence[Sent]) -> list[Sent]:
    """Return the messages that are expected. See :meth:`eda_core.testing.simulation.Simulation.expect_event`.

    Raises:
        SimulationFailed: there are too few or too many. The text shows what there is.
    """
    found = [each for each in sent if expected.met_by(each.arrival)]
    if len(found) < at_least:
        arrivals = [each.arrival for each in sent]
        if found or at_least > 1:
            after = f"as often as {at_least} times, only {len(found)} times"
        else:
            after = "in this run"
        raise SimulationFailed(report(expected, arrivals, after))
    if at_most is not None and len(found) > at_most:
        times = "".join(f"\n  {each.time:9.3f}  {each.sender}: {each.payload!r}" for each in found)
        raise SimulationFailed(f"at most {at_most} times {expected}, and it is there {len(found)} times:{times}")
    return found
