"""A test that fails: hypothesis finds the fault of the service, and the simulation tells the story."""

from __future__ import annotations

from eda_core.testing.simulation import Deployed, Simulation, simulate

from .stock import ForgetfulStock, new_database, pens_taken


@simulate(Deployed(ForgetfulStock, database=new_database), workers=2)
def test_an_order_takes_its_pens_once(sim: Simulation) -> None:
    sim.publish_event("OrderPlaced", {"order": 7, "pens": 3})
    sim.run()
    assert pens_taken(sim.stored(ForgetfulStock)) == 3
