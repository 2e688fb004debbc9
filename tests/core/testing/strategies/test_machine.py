"""A state machine over services: sends, time, faults; it finds what is wrong, and passes what is right."""

from __future__ import annotations

import socket
from typing import Any, ClassVar, TypedDict

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import invariant, rule, run_state_machine_as_test

import eda_aio
from eda_core.errors import LocalError
from eda_core.testing.simulation import ALL, NONE, Deployed, Fault
from eda_core.testing.strategies import ServiceMachine

SHORT = settings(
    max_examples=30,
    phases=[Phase.generate, Phase.shrink],
    stateful_step_count=12,
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
Meta = dict[str, Any]
IDS = st.sampled_from(["a", "b"])


class Order(TypedDict):
    id: str
    pens: int


class Stock(eda_aio.Service):
    """Takes pens once for each order, and answers how many are left."""

    def __init__(self, urls: list[str], store: dict[str, Any]) -> None:
        super().__init__(urls, ["OrderPlaced"], ["stock.Count"], "stock")
        self.store = store

    async def on_OrderPlaced(self, payload: Order, conversation_id: str, meta: Meta) -> None:
        if payload["id"] not in self.store:
            self.store[payload["id"]] = payload["pens"]
            self.store["taken"] = self.store.get("taken", 0) + payload["pens"]
        await self.publish_event("PensReserved", payload, conversation_id)

    async def on_Count(
        self, payload: None, conversation_id: str, reply_to: str, correlation_id: str, meta: Meta
    ) -> Any:
        return {"taken": self.store.get("taken", 0)}


class Forgetful(Stock):
    """Takes the pens of an order again when its message comes again."""

    async def on_OrderPlaced(self, payload: Order, conversation_id: str, meta: Meta) -> None:
        self.store[payload["id"]] = payload["pens"]
        self.store["taken"] = self.store.get("taken", 0) + payload["pens"]


class StockMachine(ServiceMachine):
    services = (Deployed(Stock, store=dict),)
    payloads: ClassVar = {"OrderPlaced": st.fixed_dictionaries({"id": IDS, "pens": st.integers(1, 3)})}
    workers = 2
    ends = 0
    steps = 0

    def after_each_step(self) -> None:
        type(self).steps += 1

    def at_the_end(self) -> None:
        type(self).ends += 1
        store = dict(self.sim.stored(Stock))
        assert store.pop("taken", 0) == sum(store.values())


def failure(machine: type[ServiceMachine], **changes: Any) -> BaseException:
    """Run a machine that fails, and return how."""
    with pytest.raises(Exception) as caught:  # noqa: PT011 - the test looks at it
        run_state_machine_as_test(machine, settings=settings(SHORT, max_examples=300, **changes))
    return caught.value


def story(error: BaseException) -> str:
    (told,) = [note for note in error.__notes__ if note.startswith("The story of this run")]
    return told


def test_a_right_service_passes_whatever_happens() -> None:
    run_state_machine_as_test(StockMachine, settings=SHORT)
    assert StockMachine.ends >= 30
    assert StockMachine.steps > 100


def test_a_duplicate_that_counts_twice_is_found_with_the_shortest_story() -> None:
    class Wrong(ServiceMachine):
        services = (Deployed(Forgetful, store=dict),)
        payloads: ClassVar = {"OrderPlaced": st.just({"id": "a", "pens": 1}), "Count": st.none()}
        conversations = st.just("c1")
        faults = (Fault.DUPLICATE,)

        def at_the_end(self) -> None:
            store = dict(self.sim.stored(Forgetful))
            assert store.pop("taken", 0) == sum(store.values())

    told = story(failure(Wrong)).splitlines()
    assert len(told) == 5
    assert "publishes OrderPlaced {'id': 'a', 'pens': 1}" in told[1]
    assert "OrderPlaced comes twice" in told[2]
    assert "handles OrderPlaced again" in told[4]


def test_rules_and_invariants_of_a_subclass_count() -> None:
    class More(ServiceMachine):
        services = (Deployed(Stock, store=dict),)
        payloads = StockMachine.payloads
        faults = NONE

        @rule(pens=st.integers(1, 9))
        def order(self, pens: int) -> None:
            self.sim.publish_event("OrderPlaced", {"id": "mine", "pens": pens})
            self.sim.run()

        @invariant()
        def few_pens_are_taken(self) -> None:
            assert self.sim.stored(Stock).get("mine", 0) < 5, "too many"

    error = failure(More)
    assert "too many" in str(error)
    assert "handles OrderPlaced {'id': 'mine', 'pens': 5}" in story(error)


def test_a_check_after_each_step_fails_at_that_step() -> None:
    class Early(StockMachine):
        faults = NONE

        def after_each_step(self) -> None:
            assert "taken" not in self.sim.stored(Stock), "taken now"

    error = failure(Early)
    assert "taken now" in str(error)
    assert story(error).splitlines()[-1].count("stock") == 1


class Failing(Stock):
    async def on_OrderPlaced(self, payload: Order, conversation_id: str, meta: Meta) -> None:
        raise ValueError("never")


def test_dead_letters_must_be_allowed() -> None:
    class Fails(ServiceMachine):
        services = (Deployed(Failing, store=dict),)
        payloads = StockMachine.payloads
        faults = NONE

    class Allows(Fails):
        dead_letters = ("Order*", "OrderPlaced")

    assert "OrderPlaced is a dead letter" in str(failure(Fails, phases=[Phase.generate]))
    run_state_machine_as_test(Allows, settings=SHORT)


def test_what_is_no_message_comes_as_well_and_is_dead_lettered() -> None:
    told: list[str] = []

    class Spoiled(StockMachine):
        send_malformed = True
        faults = ALL - {Fault.ALARM}

        def at_the_end(self) -> None:
            told.append(self.sim.story)

    run_state_machine_as_test(Spoiled, settings=SHORT)
    assert any("as it is" in each for each in told)


def test_a_service_without_an_end_needs_a_time() -> None:
    class Ticking(Stock):
        def on_ready(self) -> None:
            self.call_later(1.0, self.on_ready)

    class Ticks(ServiceMachine):
        services = (Deployed(Ticking, store=dict),)
        payloads = StockMachine.payloads
        quiet_within = 100.0

    run_state_machine_as_test(Ticks, settings=settings(SHORT, max_examples=3))


@pytest.mark.parametrize(
    ("given", "words"),
    [((), "which is no list of services"), (Deployed(Stock, store=dict), "set it in the class: services = [Billing]")],
)
def test_a_class_without_services_is_refused(given: Any, words: str) -> None:
    machine = type("Wrong", (ServiceMachine,), {"services": given})
    with pytest.raises(LocalError) as caught:
        machine()
    assert words in str(caught.value)
    assert "Wrong.services" in str(caught.value)


def test_payloads_that_no_service_gets_are_refused() -> None:
    machine = type("Wrong", (StockMachine,), {"payloads": {"OrderPlacd": int}})
    with pytest.raises(LocalError, match="do you mean 'OrderPlaced'"):
        machine()


def test_the_test_case_has_settings_that_suit_it_and_can_be_set() -> None:
    assert Phase.explain not in StockMachine.TestCase.settings.phases
    assert StockMachine.TestCase.settings.deadline is None

    @settings(max_examples=7)
    class Own(StockMachine):
        pass

    assert Own.TestCase.settings.max_examples == 7


def test_nothing_is_left_of_a_sequence() -> None:
    before = socket.socket.connect
    machine = StockMachine()
    assert socket.socket.connect is not before
    machine.teardown()
    assert socket.socket.connect is before
