"""The exceptions of simulations."""

from __future__ import annotations


class SimulationFailed(AssertionError):
    """Something does not hold in a run. The notes of the exception have the story of the run."""


class InjectedFailure(Exception):
    """A fault of the simulation: a handler fails with it, although its code has not raised anything."""


class Killed(BaseException):
    """Ends user code of a worker that is killed. User code must not handle it."""
