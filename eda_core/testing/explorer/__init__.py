"""Explores everything that can happen to services, the broker model and the network between them, in virtual time.

:func:`explore` goes through all states of a :class:`Scenario`, and raises :class:`Counterexample` with the shortest way
to one in which something does not hold. A test that draws at random takes the steps of a :class:`World` itself.
"""

from eda_core.testing.explorer.scenario import BOUNDED, Ask, Plan, Post, Scenario, Step, Violation
from eda_core.testing.explorer.search import Counterexample, Exploration, explore, tell
from eda_core.testing.explorer.world import World, describe

__all__ = [
    "BOUNDED",
    "Ask",
    "Counterexample",
    "Exploration",
    "Plan",
    "Post",
    "Scenario",
    "Step",
    "Violation",
    "World",
    "describe",
    "explore",
    "tell",
]
