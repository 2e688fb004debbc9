"""The service in simulations, and in property tests."""

from __future__ import annotations

import sqlite3

from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from eda_core import Command, Event
from eda_core.messages import AnyMessage
from eda_core.testing.simulation import ALL, Deployed, Fault, Simulation, simulate
from eda_core.testing.strategies import Raw, ServiceMachine, malformed, services

from .stock import Stock, new_database, pens_taken

STOCK = Deployed(Stock, database=new_database)
#: What a column of sqlite3 can hold.
ORDER = st.fixed_dictionaries({"order": st.integers(1, 3), "pens": st.integers(0, 1000)})
PAYLOADS = {"OrderPlaced": ORDER, "Look": ORDER}


@simulate(STOCK, workers=2, runs=200)
def test_an_order_takes_its_pens_once_whatever_fails(sim: Simulation) -> None:
    sim.publish_event("OrderPlaced", {"order": 7, "pens": 3})
    sim.run()
    assert pens_taken(sim.stored(Stock)) == 3
    sim.expect_event("PensReserved", {"order": 7})


@simulate(STOCK, faults=ALL - {Fault.ALARM}, runs=20)
async def test_a_test_may_be_a_coroutine(sim: Simulation) -> None:
    sim.publish_event("OrderPlaced", {"order": 7, "pens": 3})
    sim.check_idempotent("OrderPlaced", times=2)


@settings(max_examples=50, phases=set(Phase) - {Phase.explain}, deadline=None)
@given(services(STOCK, payloads=PAYLOADS))
def test_every_message_is_handled(message: AnyMessage) -> None:
    assert isinstance(message, Command if message.name == "stock.Look" else Event)
    with Simulation([STOCK]) as sim, sim.explained():
        sim.publish(message)
        sim.finish()
        expected = 0 if isinstance(message, Command) else message.payload["pens"]
        assert pens_taken(sim.stored(Stock)) == expected


@settings(max_examples=20, phases=set(Phase) - {Phase.explain}, deadline=None)
@given(malformed(STOCK))
def test_what_is_no_message_is_dead_lettered(raw: Raw) -> None:
    with Simulation([STOCK]) as sim, sim.explained():
        sim.publish_raw(*raw)
        sim.run()
        sim.expect_dead_letter("#")
        sim.finish()


class StockMachine(ServiceMachine):
    """Orders, questions and faults in any order."""

    services = (STOCK,)
    payloads = PAYLOADS
    workers = 2

    def at_the_end(self) -> None:
        orders = {each.id: each.payload["pens"] for each in self.sim.sent if each.name == "OrderPlaced"}
        database: sqlite3.Connection = self.sim.stored(Stock)
        assert pens_taken(database) == sum(orders.values())


TestStock = StockMachine.TestCase
TestStock.settings = settings(TestStock.settings, max_examples=50, stateful_step_count=10, deadline=None)
