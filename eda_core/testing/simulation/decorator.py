"""The decorator that makes a test of simulations: hypothesis draws the faults of each run, and shrinks failures."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from functools import wraps
from typing import Any

import hypothesis
from hypothesis import HealthCheck, Phase, given, settings

from eda_core.testing.simulation.deployed import Deployed
from eda_core.testing.simulation.plan import ALL, Fault, Plan, plans
from eda_core.testing.simulation.simulation import Simulation

_PHASES = (Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink)


def simulate(
    *services: Deployed | Callable[..., Any],
    workers: int = 1,
    faults: Iterable[Fault] = ALL,
    runs: int = 500,
    seed: int | None = None,
    virtual_clock: bool = False,
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Make a test of a function that gets a :class:`Simulation` as its argument ``sim``.

    The function is called once for each run. The first run has no faults. When it has returned, everything that is
    still to happen happens, and what must hold at the end of every run is checked. hypothesis draws the faults of the
    runs, and shrinks a failure to the fewest and earliest faults that lead to it. It keeps them in its database, tries
    them first the next time, and prints a ``@reproduce_failure`` to put above this decorator.

    Args:
        services: the classes of services, from any adapter. Their constructors take the URLs of the broker; what else
            they take says :class:`Deployed`.
        workers: how many workers each service has.
        faults: what may go wrong, such as ``ALL - {Fault.ALARM}``, or ``NONE``.
        runs: how many runs.
        virtual_clock: whether ``time.time()`` and ``time.monotonic()`` return the virtual time and ``time.sleep()``
            lets it pass, in the test and in handlers. They are as always otherwise.
        seed: makes the same runs each time, and leaves hypothesis' database alone.
    """
    deployed = [Deployed.of(service) for service in services]
    chosen = frozenset(faults)

    def decorate(test: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(test)
        def run(*arguments: Any, sim: Simulation, **named: Any) -> None:
            __tracebackhide__ = True
            with sim, sim.explained():
                returned = test(*arguments, sim=sim, **named)
                if inspect.iscoroutine(returned):
                    sim.drive(returned)
                sim.finish()

        def simulation(plan: Plan) -> Simulation:
            return Simulation(deployed, workers=workers, plan=plan, virtual_clock=virtual_clock)

        checked = given(sim=plans(chosen).map(simulation))(run)
        database: dict[str, Any] = {}
        if seed is not None:
            checked, database = hypothesis.seed(seed)(checked), {"database": None}
        return settings(
            max_examples=runs,
            deadline=None,
            phases=_PHASES,
            print_blob=True,
            report_multiple_bugs=False,
            suppress_health_check=list(HealthCheck),
            **database,
        )(checked)

    return decorate
