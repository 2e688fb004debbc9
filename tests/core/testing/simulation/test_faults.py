"""Each kind of fault does what it says, and services without a fault of their own survive it."""

from __future__ import annotations

from typing import Any

import pytest

from eda_core import CommandTimeout
from eda_core.testing.simulation import ALL, Deployed, Deviation, Fault, Simulation
from tests.core.testing.simulation.services import Billing, Shop


def run(*plan: Deviation, workers: int = 1, seconds: float = 0.0) -> Simulation:
    """One order, with these faults. Returns the simulation at its end, when all checks have passed."""
    with Simulation([Deployed(Billing, store=dict)], workers=workers, plan=plan) as sim, sim.explained():
        sim.publish_event("OrderPlaced", {"id": "o1", "seconds": seconds}, "c1")
        sim.finish()
        assert sim.stored(Billing, "o1") == "billed"
        sim.expect_event("InvoiceSent", {"id": "o1"})
    return sim


def test_without_faults_the_story_is_short() -> None:
    assert run().story.splitlines() == [
        "    0.008     test           publishes OrderPlaced {'id': 'o1', 'seconds': 0.0}",
        "    0.009     billing 1      handles OrderPlaced {'id': 'o1', 'seconds': 0.0}, publishes InvoiceSent",
    ]


@pytest.mark.parametrize(
    ("deviation", "told"),
    [
        (Deviation(Fault.DELAY, 0, 5), "OrderPlaced to billing 1 is delayed by 2 s"),
        (Deviation(Fault.DELAY, 2, 5), "the confirm of InvoiceSent is delayed by 2 s"),
        (Deviation(Fault.DUPLICATE, 0, 0), "OrderPlaced comes twice: test did not get the confirm, and sent it again"),
        (Deviation(Fault.KILL, 0, 0), "is killed while it handles OrderPlaced"),
        (Deviation(Fault.KILL, 1, 1), "is killed, and what it has just sent is lost"),
        (Deviation(Fault.DROP, 0, 0), "the connection of billing 1 breaks"),
        (Deviation(Fault.DROP, 1, 3), "which the broker notices 30 s later, and what it has just sent is lost"),
        (Deviation(Fault.DROP, 2, 4), "which billing 1 notices 1 s later"),
        (Deviation(Fault.SLOW, 0, 4), "takes 30 s before its work on OrderPlaced"),
        (Deviation(Fault.SLOW, 0, 7), "takes 90 s after its work on OrderPlaced"),
        (Deviation(Fault.RAISE, 0, 0), "a fault of the simulation, before the work"),
        (Deviation(Fault.RAISE, 0, 1), "a fault of the simulation, after the work"),
        (Deviation(Fault.RESTART, 2, 0), "is killed, and away for 2 s"),
        (Deviation(Fault.REFUSE, 0, 0), "InvoiceSent of billing 1 is refused for now"),
        (Deviation(Fault.ALARM, 0, 0), "is short of memory for 2 s"),
        (Deviation(Fault.ALARM, 0, 4), "is short of memory for 20 s"),
    ],
    ids=lambda value: f"{value.fault}-{value.after}-{value.how}" if isinstance(value, Deviation) else "",
)
def test_a_fault_strikes_and_is_survived(deviation: Deviation, told: str) -> None:
    sim = run(deviation)
    struck = [line for line in sim.story.splitlines() if "!!" in line or "fails to handle" in line]
    assert told in "\n".join(struck), sim.story


def test_a_worker_that_is_killed_is_started_anew_and_keeps_only_its_store() -> None:
    sim = run(Deviation(Fault.KILL, 1, 1))
    assert [line[14:] for line in sim.story.splitlines()][1:] == [
        "billing 1      handles OrderPlaced {'id': 'o1', 'seconds': 0.0}",
        "billing 1      is killed, and what it has just sent is lost",
        "billing 1      is started anew",
        "billing 1      handles OrderPlaced again {'id': 'o1', 'seconds': 0.0}, publishes InvoiceSent",
    ]


def test_another_worker_takes_over_from_one_that_is_killed() -> None:
    sim = run(Deviation(Fault.KILL, 0, 0), workers=2)
    assert "billing 2      handles OrderPlaced again" in sim.story


def test_a_handler_waits_longer_than_usual() -> None:
    for after in range(10):
        sim = run(Deviation(Fault.DELAY, after, 5), seconds=5.0)
        if "!! billing 1      waits 2 s longer than usual" in sim.story:
            assert "7.009     billing 1      has handled OrderPlaced" in sim.story
            return
    pytest.fail("no wait was longer")


def test_a_worker_is_killed_while_its_handler_waits() -> None:
    sim = run(Deviation(Fault.KILL, 0, 0), seconds=5.0)
    assert "is killed while it handles OrderPlaced" in sim.story


class Returns(Billing):
    """Notes what comes back."""

    async def handle_returned_message(self, key: str, payload: Any, envelope: dict[str, Any]) -> None:
        self.store["returned"] = key


def test_a_message_comes_back_to_a_service_that_handles_that() -> None:
    plan = [Deviation(Fault.RETURN, 0, 0)]
    with Simulation([Deployed(Returns, store=dict)], plan=tuple(plan)) as sim, sim.explained():
        sim.send_command("billing.Charge", {"amount": 5})
        sim.run()
        assert sim.stored(Returns, "returned") == "test.ChargeReturn"
        assert "test.ChargeReturn comes back to billing 1 as unroutable" in sim.story


def test_a_call_times_out_because_the_other_handler_is_slow() -> None:
    plan = (Deviation(Fault.TIMEOUT, 0, 0),)
    with Simulation([Deployed(Billing, store=dict), Shop], plan=plan) as sim, sim.explained():
        sim.publish_event("CartSent", {"amount": 5}, "c1")
        sim.finish()
        assert CommandTimeout.__name__ in sim.story
        sim.expect_event("CartCharged", {"charged": 5}, at_least=1)


def test_each_fault_can_be_switched_off() -> None:
    assert set(ALL) == set(Fault)
    assert len(ALL) == 11


def test_a_run_of_some_seconds_waits_at_its_end_for_a_handler_that_a_fault_made_slow() -> None:
    slow = Deviation(Fault.SLOW, 0, 7)
    with Simulation([Deployed(Billing, store=dict)], plan=(slow,)) as sim:
        sim.publish_event("OrderPlaced", {"id": "o1", "seconds": 0.0}, "c1")
        sim.run(seconds=60)
        assert sim.now < 61
        assert "takes 90 s after its work" in sim.story
        sim.finish()
        sim.expect_event("InvoiceSent", {"id": "o1"})
