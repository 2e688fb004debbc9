"""Ten faults planted in services: a simulation finds each within its default runs, and tells a short story."""

from __future__ import annotations

import re
from typing import Any

import pytest

from eda_core.testing.simulation import NONE, Deployed, Simulation, simulate
from tests.core.testing.simulation.planted import PLANTED
from tests.core.testing.simulation.services import Billing


def failure_of(test: Any) -> BaseException:
    """Run a simulated test, and return what it raises."""
    with pytest.raises(AssertionError) as caught:
        test()
    return caught.value


def story_of(error: BaseException) -> tuple[int, str]:
    (note,) = [note for note in error.__notes__ if note.startswith("The story of this run")]
    first, _, story = note.partition("\n")
    (steps,) = re.findall(r"in (\d+) steps:", first)
    return int(steps), story


def test_ten_faults_are_planted() -> None:
    assert len(PLANTED) == 10


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_fault_is_found_and_told_in_a_short_story(name: str) -> None:
    error = failure_of(PLANTED[name])
    steps, story = story_of(error)
    assert len(story.splitlines()) == steps
    assert 3 <= steps <= 15
    words = EXPECTED[name]
    assert all(word in f"{error}\n{story}" for word in words), f"{error}\n{story}"


#: What the failure or the story has to say.
EXPECTED = {
    "acknowledged_before_the_work": ["!! early 1        is killed"],
    "state_written_twice": ["MoneyReceived"],
    "a_result_forgotten_in_one_branch": ["forgets.Charge of test got no result"],
    "a_publish_outside_of_the_handler": ["OrderAccepted", "!! outside 1      is killed"],
    "a_wrong_reply_key": ["asks.ChargeReturned of forgets 1 is lost: no service receives it"],
    "a_lost_update_between_two_workers": ["counter 1", "counter 2"],
    "a_handler_that_is_not_idempotent": ["OrderPlaced is not idempotent", "mails"],
    "a_timer_that_is_not_cancelled": ["OrderExpired"],
    "a_call_in_a_circle": ["a call in a circle", "left.Ask calls right.Ask calls left.Ask"],
    "a_poison_loop": ["a poison loop: Odd was delivered"],
}


def test_the_same_seed_tells_the_same_story_byte_for_byte() -> None:
    test = PLANTED["a_publish_outside_of_the_handler"]
    first, second = failure_of(test), failure_of(test)
    assert story_of(first) == story_of(second)


def test_services_without_a_fault_pass_all_runs() -> None:
    @simulate(Deployed(Billing, store=dict), workers=2, runs=200, seed=1)
    def billed(sim: Simulation) -> None:
        sim.publish_event("OrderPlaced", {"id": "o1", "seconds": 0.01})
        sim.send_command("billing.Charge", {"amount": 5})
        sim.run()
        assert sim.stored(Billing, "o1") == "billed"
        sim.expect_event("InvoiceSent", {"id": "o1"})
        sim.expect_result("test.ChargeReturn", {"charged": 5})

    billed()


def test_a_run_without_faults_is_enough_where_only_that_is_asked_for() -> None:
    seen = []

    @simulate(Deployed(Billing, store=dict), faults=NONE, seed=1)
    def once(sim: Simulation) -> None:
        seen.append(sim.plan)

    once()
    assert seen == [()]
