"""What a test can do with a simulation, and what it is told when something does not hold."""

from __future__ import annotations

import asyncio
import socket
import sqlite3
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar

import pytest
from pamqp.commands import Basic

import eda_pika
from eda_aio import Service
from eda_core import Command, CommandError, CommandTimeout, Event, LocalError
from eda_core.testing.simulation import (
    NONE,
    Deployed,
    Deviation,
    Fault,
    OutsideError,
    Simulation,
    SimulationFailed,
    simulate,
)
from eda_kombu import Endpoint
from tests.core.testing.simulation.services import Billing, Shop

BILLING = Deployed(Billing, store=dict)


def handling(function: Any, *keys: str) -> type[Service]:
    """A service with one handler, for the event Done."""

    class One(Service):
        def __init__(self, urls: list[str]) -> None:
            super().__init__(urls, ["Done"], [], "one")

        async def on_Done(self, payload: Any, conversation_id: str, meta: dict[str, Any]) -> None:
            await function(self, payload)

    return One


# Sending and expecting


def test_a_command_is_called_and_answered() -> None:
    with Simulation([BILLING]) as sim:
        assert sim.call("billing.Charge", {"amount": 5}) == {"charged": 5}
        with pytest.raises(CommandError, match="negative"):
            sim.call("billing.Charge", {"amount": -5})
        sim.finish()


def test_a_call_that_nobody_answers_times_out() -> None:
    with Simulation([BILLING]) as sim:
        with pytest.raises(CommandTimeout, match="no result within 3 s"):
            sim.call("nobody.Charge", {}, timeout=3.0)
        with pytest.raises(SimulationFailed, match=r"nobody\.Charge of test is lost: no service receives it"):
            sim.finish()


def test_a_message_of_any_kind_is_published() -> None:
    with Simulation([BILLING, Shop]) as sim:
        sim.publish(Event("CartSent", {"amount": 5}, "c1", {"tenant": "t"}))
        sim.publish(Command("billing.Charge", {"amount": 6}, "c2", "elsewhere.Charged", "k1", {"tenant": "t"}))
        sim.finish()
        sim.expect_event("CartCharged", {"charged": 5})
        sim.expect_result("test.ChargeReturn", {"charged": 6})
        headers = [each.properties.headers or {} for each in sim.sent if each.sender == "test"]
        assert [each.get("tenant") for each in headers] == ["t", "t"]


class Telling(Service):
    """Publishes its dead letters itself."""

    DEAD_LETTER_EXCHANGE: ClassVar[str] = "am-dlx"

    def __init__(self, urls: list[str]) -> None:
        super().__init__(urls, ["Done"], ["telling.Do"], "telling")

    async def on_Done(self, payload: Any, conversation_id: str, meta: dict[str, Any]) -> None:
        raise KeyError("amount")

    async def on_Do(self, payload: Any, *arguments: Any) -> int:
        return len(payload)


def test_a_service_publishes_its_dead_letters_with_the_reason() -> None:
    with Simulation([Telling]) as sim:
        sim.publish_event("Done", {"a": 1})
        sim.publish_raw("events", "Done", Basic.Properties(headers={"conversation_id": "c1"}), b"\xff")
        sim.run()
        dead = sim.expect_dead_letter("Done", at_least=2)
        letters: list[Any] = [each.arrival.message for each in dead]
        assert {letter.reason for letter in letters} == {"given up"}
        assert {letter.meta["error_type"] for letter in letters} == {"InvalidEnvelope", "KeyError"}
        sim.finish()


@simulate(Telling, workers=2, runs=100)
def test_dead_letters_of_services_keep_the_rules_when_faults_strike(sim: Simulation) -> None:
    sim.publish_event("Done", {"a": 1})
    sim.send_command("telling.Do", 5)
    sim.run()
    sim.expect_dead_letter("Done")
    sim.expect_dead_letter("telling.Do")


def test_what_is_no_message_is_published_as_it_is() -> None:
    given = Basic.Properties(content_type="text/plain", headers={"conversation_id": "c1"})
    with Simulation([Shop]) as sim:
        sim.publish_raw("events", "CartSent", given, b"\xff")
        sim.run()
        (dead,) = sim.expect_dead_letter("CartSent", lambda letter: letter.message is None)
        assert (dead.body, given.message_id) == (b"\xff", None)
        sim.finish()


def test_a_fault_is_added_to_a_run() -> None:
    with Simulation([Deployed(Billing, store=dict)]) as sim:
        for _ in range(2):
            sim.add_fault(Deviation(Fault.DUPLICATE, 1, 0))
        for number in range(5):
            sim.publish_event("OrderPlaced", {"id": number})
        sim.finish()
        comes = [each.payload["id"] for each in sim.sent if each.copy]
        assert comes == [1, 3], "each lets one pass first"


def test_what_was_sent_can_be_expected_and_a_failure_shows_what_there_is() -> None:
    with Simulation([BILLING, Shop]) as sim:
        sim.publish_event("CartSent", {"amount": 5}, "c1")
        sim.run()
        (sent,) = sim.expect_command("billing.Charge", {"amount": 5})
        assert (sent.sender, sent.kind) == ("shop 1", "command")
        sim.expect_event("CartCharged", lambda message: message.payload["charged"] == 5, at_most=1)
        with pytest.raises(SimulationFailed, match=r"(?s)no event CartCharged with .*\+ \{'charged': 5\}"):
            sim.expect_event("CartCharged", {"charged": 6})
        with pytest.raises(SimulationFailed, match=r"(?s)no event CartSold in this run.*event CartCharged"):
            sim.expect_event("CartSold")
        with pytest.raises(SimulationFailed, match=r"at most 0 times event CartCharged, and it is there 1 times:"):
            sim.expect_event("CartCharged", at_least=0, at_most=0)
        sim.finish()


def test_a_store_is_found_by_its_service() -> None:
    with Simulation([Deployed(Billing, store=lambda: {"a": 1}), Shop]) as sim:
        assert sim.stored(Billing) == {"a": 1}
        assert sim.stored(Billing, "a") == 1
        with pytest.raises(LocalError, match="Shop is given nothing that outlives its workers"):
            sim.stored(Shop)
        with pytest.raises(LocalError, match="is not simulated"):
            sim.stored(Service)


def test_a_store_is_closed_at_the_end() -> None:
    with Simulation([Deployed(Billing, store=lambda: sqlite3.connect(":memory:"))]) as sim:
        store = sim.stored(Billing)
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        store.execute("SELECT 1")


def test_a_class_that_cannot_be_made_is_refused_with_what_to_do() -> None:
    with pytest.raises(LocalError, match=r"Deployed\(Archive, store=dict\)"):
        simulate(Billing)
    with pytest.raises(LocalError, match="give a function that makes it, such as store=dict"):
        Deployed(Billing, store={})  # type: ignore[arg-type]


# What is checked unasked


def test_a_dead_letter_has_to_be_expected() -> None:
    async def fails(service: Service, payload: Any) -> None:
        raise ValueError("never")

    with Simulation([handling(fails)]) as sim:
        sim.publish_event("Done", {"a": 1})
        with pytest.raises(SimulationFailed, match="Done is a dead letter"):
            sim.finish()
        (dead,) = sim.expect_dead_letter("Done", {"a": 1})
        assert dead.name == "Done"
        sim.finish()
        assert "fails to handle Done: ValueError: never" in sim.story
        with pytest.raises(AssertionError) as caught, sim.explained():
            raise AssertionError
        (note,) = [note for note in caught.value.__notes__ if note.startswith("The last handler that failed by itself")]
        assert 'raise ValueError("never")' in note


def test_work_without_an_end_is_found() -> None:
    async def waits(service: Service, payload: Any) -> None:
        await asyncio.Event().wait()

    with Simulation([handling(waits)]) as sim:
        sim.publish_event("Done", {})
        with pytest.raises(SimulationFailed, match="one 1 has not ended handling Done"):
            sim.finish()


def test_a_run_without_an_end_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    async def again(service: Service, payload: Any) -> None:
        await service.publish_event("Done", payload, "c1")

    monkeypatch.setattr("eda_core.testing.simulation.simulation.MOST_STEPS", 500)
    with Simulation([handling(again)]) as sim:
        sim.publish_event("Done", {})
        with pytest.raises(SimulationFailed, match="no end after 500 steps"):
            sim.run()
        sim.run(seconds=0.1)
        assert sim.story.splitlines()[-1].endswith("times in all")


def test_a_service_that_ends_by_itself_with_an_error_fails_the_run() -> None:
    async def ends(service: Service, payload: Any) -> None:
        raise SystemExit(3)

    with Simulation([handling(ends)]) as sim:
        sim.publish_event("Done", {})
        with pytest.raises(SystemExit):
            sim.finish()


def test_a_service_may_stop() -> None:
    async def stops(service: Service, payload: Any) -> None:
        await service.stop()

    with Simulation([handling(stops)]) as sim:
        sim.publish_event("Done", {})
        sim.finish()
        assert sim.story.splitlines()[-1].endswith("one 1          stops")


def test_invariants_are_checked_after_each_step_and_the_rest_at_the_end() -> None:
    seen: list[str] = []
    with Simulation([BILLING]) as sim:

        @sim.invariant
        def look() -> None:
            seen.append(sim.stored(Billing).get("o1", "open"))

        @sim.at_the_end
        def end() -> None:
            seen.append("end")

        sim.publish_event("OrderPlaced", {"id": "o1"})
        sim.finish()
    assert list(dict.fromkeys(seen)) == ["open", "billed", "end"]


def test_a_handler_that_is_idempotent_passes() -> None:
    with Simulation([BILLING]) as sim:
        sim.publish_event("OrderPlaced", {"id": "o1"})
        sim.check_idempotent("OrderPlaced", times=2)
        with pytest.raises(SimulationFailed, match="there is no message OrderPaid"):
            sim.check_idempotent("OrderPaid")
        sim.finish()


# Callbacks, threads and endpoints


class Greeter(eda_pika.Service):
    """Handles in threads."""

    HANDLER_THREADS: ClassVar[int] = 3

    def __init__(self, urls: list[str], store: dict[Any, Any]) -> None:
        super().__init__(urls, ["Hello"], ["greeter.Greet"], "greeter")
        self.store = store

    def on_ready(self) -> None:
        self.call_later(1.0, self.tick)

    def tick(self) -> None:
        self.publish_event("Ticked", {}, "t")

    def on_Hello(self, payload: Any, conversation_id: str, meta: dict[str, Any]) -> None:
        self.store[payload["id"]] = len(self.store)
        self.publish_event("Hi", {"id": payload["id"]}, conversation_id)

    def on_Greet(
        self, payload: Any, conversation_id: str, reply_to: str, correlation_id: str, meta: dict[str, Any]
    ) -> Any:
        return {"greeting": payload["name"]}


class LoopGreeter(Greeter):
    """Handles in the thread of the network."""

    HANDLER_THREADS: ClassVar[int] = 0


@pytest.mark.parametrize("service", [Greeter, LoopGreeter])
def test_services_on_pika_and_endpoints_are_simulated(service: type[Greeter]) -> None:
    @simulate(Deployed(service, store=dict), workers=2, runs=100, seed=5)
    def greeted(sim: Simulation) -> None:
        with Endpoint(["amqp://a/"], "tester") as endpoint:
            endpoint.log(6, "begins")
            assert endpoint.publish_many(("Hello", {"id": number}, "c1") for number in range(3)) == 3
        sim.run()
        for number in range(3):
            sim.expect_event("Hi", {"id": number})
        sim.expect_event("Ticked", at_least=2)
        sim.expect_log("tester.INFO", {"short_message": "begins"}, at_least=0)
        assert sorted(sim.stored(service)) == [0, 1, 2]
        sim.send_command("greeter.Greet", {"name": "Ann"})

    greeted()


def test_threads_may_change_the_order_of_handlers() -> None:
    def order(threads: type[Greeter]) -> list[int]:
        plan = (Deviation(Fault.DELAY, 8, 1),)
        for after in range(60):
            plan = (Deviation(Fault.DELAY, after, 1),)
            with Simulation([Deployed(threads, store=dict)], plan=plan) as sim:
                for number in range(3):
                    sim.publish_event("Hello", {"id": number})
                sim.finish()
                found = list(sim.stored(threads))
                if found != [0, 1, 2]:
                    return found
        return [0, 1, 2]

    assert order(Greeter) != [0, 1, 2]
    assert order(LoopGreeter) == [0, 1, 2]


def test_an_endpoint_waits_in_virtual_time() -> None:
    with Simulation([Deployed(Greeter, store=dict)], plan=(Deviation(Fault.RESTART, 0, 0),)) as sim:
        with Endpoint(["amqp://a/"], "tester") as endpoint:
            endpoint.publish_event("Hello", {"id": 1}, "c1")
        assert 2.0 < sim.now < 20.0
        sim.finish()
        sim.expect_event("Hi")


# The test itself


def test_a_test_may_be_a_coroutine_function_and_take_fixtures(tmp_path: Any) -> None:
    seen = []

    @simulate(BILLING, faults=NONE, seed=1)
    async def billed(sim: Simulation, path: Any) -> None:
        sim.publish_event("OrderPlaced", {"id": "o1", "seconds": 3})
        async with asyncio.TaskGroup() as group:
            group.create_task(asyncio.sleep(5))
        assert sim.stored(Billing, "o1") == "billed"
        seen.append((round(sim.now), path))

    billed(path=tmp_path)
    assert seen == [(5, tmp_path)]


def test_the_clock_is_virtual_on_request() -> None:
    async def sleeps(service: Service, payload: Any) -> None:
        began = time.monotonic(), time.time()
        await asyncio.sleep(3600)
        await service.publish_event("Slept", {"for": time.monotonic() - began[0]}, "c1")
        await service.publish_event("SleptToo", {"for": round(time.time() - began[1])}, "c1")

    with Simulation([handling(sleeps)], virtual_clock=True) as sim:
        sim.publish_event("Done", {})
        time.sleep(60)
        assert sim.now > 60
        sim.finish()
        sim.expect_event("Slept", {"for": 3600.0})
        sim.expect_event("SleptToo", {"for": 3600})
    assert time.monotonic is not None
    before = time.monotonic()
    assert time.monotonic() - before < 60


@pytest.mark.parametrize("what", ["socket", "process"])
def test_a_handler_that_reaches_out_gets_a_plain_error(what: str) -> None:
    async def reaches(service: Service, payload: Any) -> None:
        if what == "socket":
            with socket.socket() as sock:
                sock.connect(("127.0.0.1", 1))
        else:
            subprocess.run(["true"], check=False)

    with Simulation([handling(reaches)]) as sim:
        sim.publish_event("Done", {})
        sim.run()
        assert OutsideError.__name__ in sim.story
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))


def test_other_threads_may_reach_out_meanwhile() -> None:
    def connects() -> int:
        with socket.create_server(("127.0.0.1", 0)) as server, socket.socket() as sock:
            sock.connect(server.getsockname())
            return int(sock.getpeername()[1])

    with Simulation([BILLING]), ThreadPoolExecutor(1) as pool:
        assert pool.submit(connects).result() > 0
        with pytest.raises(OutsideError, match="a socket is bound"), socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))


class Unready(Service):
    """Fails in its constructor, after its store was made."""

    def __init__(self, urls: list[str], store: sqlite3.Connection) -> None:
        raise ValueError("not today")


def test_a_service_that_cannot_start_fails_the_run_and_leaves_nothing_open() -> None:
    made: list[sqlite3.Connection] = []

    def make() -> sqlite3.Connection:
        made.append(sqlite3.connect(":memory:"))
        return made[-1]

    with pytest.raises(ValueError, match="not today"), Simulation([Deployed(Unready, store=make)]):
        pytest.fail("it has begun")
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        made[0].execute("SELECT 1")


def test_the_same_plan_tells_the_same_story() -> None:
    plan = (Deviation(Fault.KILL, 1, 1), Deviation(Fault.DROP, 9, 3), Deviation(Fault.RAISE, 0, 1))

    def story() -> str:
        with Simulation([BILLING, Shop], workers=2, plan=plan) as sim:
            sim.publish_event("CartSent", {"amount": 5}, "c1")
            sim.publish_event("OrderPlaced", {"id": "o1", "seconds": 0.01}, "c2")
            sim.finish()
            return sim.story

    assert story() == story()


class Pooled(Service):
    """Opens something before it runs, and closes it in the end."""

    def __init__(self, urls: list[str], log: list[str]) -> None:
        super().__init__(urls, ["Come"], [], "pooled")
        self.log_of_test = log
        self.pool: dict[str, int] = {}

    async def run(self, **options: Any) -> None:
        self.log_of_test.append("opens")
        await asyncio.sleep(0.5)
        self.pool["free"] = 1
        try:
            await super().run(signals=True)
        finally:
            self.log_of_test.append("closes")

    async def on_Come(self, payload: Any, conversation_id: str, meta: dict[str, Any]) -> None:
        await self.publish_event("Gone", {"free": self.pool["free"]}, conversation_id)
        if payload.get("last"):
            await self.stop()


def test_run_may_be_overridden_with_coroutines() -> None:
    pooled = Deployed(Pooled, log=list)
    with Simulation([pooled]) as sim:
        sim.publish_event("Come", {"last": True})
        sim.finish()
        sim.expect_event("Gone", {"free": 1})
        assert sim.stored(Pooled) == ["opens", "closes"]
    with Simulation([pooled], plan=(Deviation(Fault.KILL, 0, 0),)) as sim:
        sim.publish_event("Come", {})
        sim.finish()
        sim.expect_event("Gone", {"free": 1})
        assert sim.stored(Pooled) == ["opens", "closes", "opens"], "it was killed, and started anew"


def test_an_error_of_an_overridden_run_fails_the_run() -> None:
    class Broken(Pooled):
        async def run(self, **options: Any) -> None:
            raise OSError("no database")

    with pytest.raises(OSError, match="no database"), Simulation([Deployed(Broken, log=list)]):
        pass


def test_run_cannot_be_overridden_with_callbacks() -> None:
    class Shop(eda_pika.Service):
        def __init__(self, urls: list[str]) -> None:
            super().__init__(urls, ["Come"], [], "shop")

        def run(self, *, signals: Any = None) -> None:
            super().run(signals=False)

        def on_Come(self, payload: Any, conversation_id: str, meta: dict[str, Any]) -> None:
            self.publish_event("Gone", payload, conversation_id)

    class Simulated(Shop):
        run = eda_pika.Service.run

    with pytest.raises(LocalError, match=r"Shop overrides run\(\), which a simulation cannot call"), Simulation([Shop]):
        pass
    with Simulation([Simulated]) as sim:
        sim.publish_event("Come", {"n": 1})
        sim.finish()
        sim.expect_event("Gone", {"n": 1})
