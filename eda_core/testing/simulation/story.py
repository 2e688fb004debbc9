"""The story of a run: one line for each step, with the virtual time, who acts, and what happens.

This module does not know what is worth a line.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from eda_core.text import one_line, shortened

#: How many steps may come again and again, how often they do at least, and in how many steps that is looked for.
_PERIOD: Final = 4
_OFTEN: Final = 3
_LONGEST: Final = 1000


@dataclass(slots=True)
class Line:
    """One step.

    Attributes:
        time: seconds from the start.
        who: the worker, "test" or "broker".
        fault: whether the simulation did it, to see what follows.
    """

    time: float
    who: str
    text: str
    fault: bool = False

    def __str__(self) -> str:
        return f"{self.time:9.3f}  {'!!' if self.fault else '  '} {self.who:<14} {self.text}"


class Story:
    """The lines of a run, in order."""

    def __init__(self) -> None:
        self.lines: list[Line] = []

    def tell(self, time: float, who: str, text: str, *, fault: bool = False) -> Line:
        """Add a line."""
        line = Line(time, who, text, fault)
        self.lines.append(line)
        return line

    def is_last(self, line: Line | None) -> bool:
        """Whether nothing was told since."""
        return line is not None and bool(self.lines) and self.lines[-1] is line

    def told(self) -> list[str]:
        """The lines as they are printed. What happens again and again is told once."""
        told: list[str] = []
        at, lines = 0, self.lines
        while at < len(lines):
            period, times = _repetition([(line.who, line.text) for line in lines[at : at + _LONGEST]])
            told += map(str, lines[at : at + period])
            if times > 1:
                last = lines[at + period * times - 1].time
                told.append(f"{last:9.3f}     … and so on, {times} times in all")
            at += period * times
        return told

    def __str__(self) -> str:
        return "\n".join(self.told())


def _repetition(steps: list[tuple[str, str]]) -> tuple[int, int]:
    """Return how many of these steps come again and again, and how often; 1 and 1 if none does."""
    for period in range(1, _PERIOD + 1):
        times = 1
        while steps[period * times : period * (times + 1)] == steps[:period]:
            times += 1
        if times >= _OFTEN:
            return period, times
    return 1, 1


def shown(value: Any, most: int = 60) -> str:
    """A payload on one line."""
    try:
        return shortened(one_line(repr(value)), most)
    except Exception:  # the __repr__ of a user's class may raise
        return f"a {type(value).__name__}"
