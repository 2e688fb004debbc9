"""What a test expects of the messages of a run, and what it is told if they have not come.

It does not know how they came.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from eda_core.testing.simulation.failures import SimulationFailed
from eda_core.testing.simulation.sent import Sent
from eda_core.testing.simulation.story import shown

#: What a payload must have: these fields with these values, or what makes this function return true.
Where = Mapping[str, Any] | Callable[[Any], object] | None

#: How many messages a failure shows.
_SHOWN = 10


def matches(payload: Any, where: Where) -> bool:
    """Whether a payload is what is asked for. A mapping within a mapping is compared in the same way."""
    if where is None:
        return True
    if not isinstance(where, Mapping):
        return bool(where(payload))
    return isinstance(payload, Mapping) and all(
        name in payload and (matches(payload[name], value) if isinstance(value, Mapping) else payload[name] == value)
        for name, value in where.items()
    )


def expect(kind: str, name: str, where: Where, at_least: int, at_most: int | None, sent: Iterable[Sent]) -> list[Sent]:
    """Return the messages that match. See :meth:`eda_core.testing.simulation.Simulation.expect_event`.

    Raises:
        SimulationFailed: there are too few or too many. The text shows what there is.
    """
    several = list(sent)
    same = [each for each in several if each.name == name]
    found = [each for each in same if matches(each.payload, where)]
    if len(found) >= at_least and (at_most is None or len(found) <= at_most):
        return found
    wanted = f"at least {at_least}" if len(found) < at_least else f"at most {at_most}"
    condition = f" with {shown(where, 200)}" if isinstance(where, Mapping) else "" if where is None else " that match"
    text = f"expected {wanted} {kind} {name}{condition}, and there are {len(found)}"
    if len(found) < at_least and same:
        text += f"; these are called {name}:" + _listed(same)
    elif len(found) < at_least:
        others = sorted({each.name for each in several})
        text += f"; every {kind} that there is: {', '.join(others) or 'none'}"
    else:
        text += ":" + _listed(found)
    raise SimulationFailed(text)


def _listed(sent: list[Sent]) -> str:
    lines = [f"\n  {each.time:9.3f}  {each.sender}: {shown(each.payload, 200)}" for each in sent[:_SHOWN]]
    more = f"\n  and {len(sent) - _SHOWN} more" if len(sent) > _SHOWN else ""
    return "".join(lines) + more
