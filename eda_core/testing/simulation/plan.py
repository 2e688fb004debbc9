"""What goes wrong in one run, and where: a list of deviations that hypothesis draws and shrinks.

A run without deviations is the usual one: nothing fails, and everything takes its usual time. Each deviation counts the
places at which a fault of its kind could strike, and strikes at one of them. So hypothesis shrinks a failure to the
few faults that it needs, each at the earliest place. This module does not know what a fault does.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from hypothesis import strategies as st


class Fault(StrEnum):
    """What can go wrong. The first ones are the simplest: hypothesis tries to explain a failure by them."""

    #: Something comes late, so that other things overtake it: on a connection, a confirm, the end of a wait.
    DELAY = "delay"
    #: A message is delivered twice, because its publisher did not get the confirm and sent it again.
    DUPLICATE = "duplicate"
    #: A worker is killed between two effects and started anew. What it has in memory is lost.
    KILL = "kill"
    #: A connection is lost. Both sides notice, one of them perhaps late; what is on its way may be lost.
    DROP = "drop"
    #: A handler takes long, before or after its work.
    SLOW = "slow"
    #: A handler fails once, before or after its work.
    RAISE = "raise"
    #: The broker is killed and started again. It keeps what is durable.
    RESTART = "restart"
    #: The broker refuses a publish for now (``basic.nack``).
    REFUSE = "refuse"
    #: The broker returns a mandatory message as unroutable. Only services that define ``handle_returned_message`` get
    #: this, since the message is gone then.
    RETURN = "return"
    #: The broker is short of memory for a while, and takes no publishes.
    ALARM = "alarm"
    #: The handler of a command takes so long that the call that waits for its result times out.
    TIMEOUT = "timeout"


#: All faults.
ALL: Final = frozenset(Fault)
#: No faults: only the user's own code can go wrong.
NONE: Final[frozenset[Fault]] = frozenset()

#: The most deviations in one run.
_MOST: Final = 12
#: How many places for a fault a deviation lets pass at most; less for most deviations.
_FAR: Final = 300
_NEAR: Final = 25


@dataclass(frozen=True, slots=True)
class Deviation:
    """One fault.

    Attributes:
        fault: its kind.
        after: how many places at which it could strike it lets pass, counted from the last one of its kind.
        how: selects how it strikes: how long something takes, who notices first and the like.
    """

    fault: Fault
    after: int
    how: int


Plan = tuple[Deviation, ...]


def plans(faults: Iterable[Fault]) -> st.SearchStrategy[Plan]:
    """Plans with these faults. The simplest one is empty."""
    kinds = frozenset(faults)
    return st.lists(deviations(kinds), max_size=_MOST).map(tuple) if kinds else st.just(())


def deviations(faults: Iterable[Fault], places: Iterable[int] = (_NEAR, _FAR)) -> st.SearchStrategy[Deviation]:
    """Deviations of these kinds, of which there is at least one.

    Args:
        places: how many places they let pass at most; each of these numbers is taken as often.
    """
    chosen = frozenset(faults)
    kinds = [fault for fault in Fault if fault in chosen]
    after = st.one_of(*(st.integers(0, most) for most in places))
    return st.builds(Deviation, st.sampled_from(kinds), after, st.integers(0, 7))


class Deviations:
    """The deviations of one run that have not struck yet.

    Attributes:
        active: whether faults may strike.
        struck: how many have.
    """

    def __init__(self, plan: Plan) -> None:
        self.active: bool = False
        self.struck: int = 0
        self._waiting: dict[Fault, list[Deviation]] = {}
        for deviation in reversed(plan):
            self._waiting.setdefault(deviation.fault, []).append(deviation)
        self._left = {fault: waiting[-1].after for fault, waiting in self._waiting.items()}

    def add(self, deviation: Deviation) -> None:
        """Add a deviation, which comes after those of its kind that wait already."""
        waiting = self._waiting.setdefault(deviation.fault, [])
        waiting.insert(0, deviation)
        self._left.setdefault(deviation.fault, deviation.after)

    def at(self, fault: Fault) -> Deviation | None:
        """A fault of this kind could strike here. Returns the deviation if it does."""
        left = self._left.get(fault)
        if left is None or not self.active:
            return None
        if left:
            self._left[fault] = left - 1
            return None
        waiting = self._waiting[fault]
        struck = waiting.pop()
        if waiting:
            self._left[fault] = waiting[-1].after
        else:
            del self._left[fault]
        self.struck += 1
        return struck
