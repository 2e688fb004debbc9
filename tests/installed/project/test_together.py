"""Services of two adapters and an endpoint of the third one, in one simulation."""

from __future__ import annotations

from eda_core.testing.simulation import Deployed, Simulation, simulate
from eda_kombu import Endpoint

from .shop import Shop
from .stock import Stock, new_database, pens_taken


@simulate(Deployed(Stock, database=new_database), Shop, workers=2, runs=50)
def test_each_cart_is_sold(sim: Simulation) -> None:
    with Endpoint("amqp://localhost/", "web") as endpoint:
        endpoint.publish_event("CartSent", {"order": 7, "pens": 3}, "c1")
    sim.run()
    assert pens_taken(sim.stored(Stock)) >= 3
    sim.expect_event("CartSold", {"order": 7})
