"""Runs users' services against a model of the broker, in virtual time, with faults that hypothesis chooses.

:func:`simulate` makes a test of a function: it gets a :class:`Simulation`, in which service classes of any adapter run
unchanged. The module needs the extra ``testing``.
"""
# ruff: noqa: E402 - the check comes before the imports that would fail

from eda_core.drivers.library import require

require("eda_core.testing.simulation", "testing", {"hypothesis": ""})

from eda_core.testing.simulation.decorator import simulate
from eda_core.testing.simulation.deployed import Deployed
from eda_core.testing.simulation.failures import InjectedFailure, SimulationFailed
from eda_core.testing.simulation.loop import OutsideError
from eda_core.testing.simulation.plan import ALL, NONE, Deviation, Fault
from eda_core.testing.simulation.sent import Sent
from eda_core.testing.simulation.simulation import Simulation

__all__ = [
    "ALL",
    "NONE",
    "Deployed",
    "Deviation",
    "Fault",
    "InjectedFailure",
    "OutsideError",
    "Sent",
    "Simulation",
    "SimulationFailed",
    "simulate",
]
