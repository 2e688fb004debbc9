"""Services with one planted fault each, and the test that a user would write for them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

from eda_aio import Service
from eda_core.testing.simulation import NONE, Deployed, Simulation
from eda_core.testing.simulation import simulate as simulate_anew

simulate = partial(simulate_anew, seed=13)
#: The tests of the planted faults, by name.
PLANTED: dict[str, Callable[[], None]] = {}


def planted(test: Callable[..., Any]) -> Callable[..., Any]:
    PLANTED[test.__name__] = test
    return test


class EarlyAck(Service):
    """Acknowledges its message by hand before it has done the work."""

    def __init__(self, urls: list[str], store: dict[str, int]) -> None:
        super().__init__(urls, ["OrderPlaced"], [], "early")
        self.store = store

    async def on_OrderPlaced(self, payload: Any, conversation_id: str, meta: dict[str, Any]) -> bool:
        self.call_later(0.0, partial(self.manual_ack, meta["delivery_tag"]))
        self.call_later(1.0, partial(self.work, payload))
        return True

    async def work(self, payload: Any) -> None:
        self.store[payload["id"]] = 1


@planted
@simulate(Deployed(EarlyAck, store=dict))
def acknowledged_before_the_work(sim: Simulation) -> None:
    sim.publish_event("OrderPlaced", {"id": "o1"})
    sim.run()
    assert sim.stored(EarlyAck, "o1")


class Twice(Service):
    """Writes its state again when its message is redelivered."""

    def __init__(self, urls: list[str], store: dict[str, int]) -> None:
        super().__init__(urls, ["MoneyReceived"], [], "twice")
        self.store = store

    async def on_MoneyReceived(self, payload: Any, conversation_id: str, meta: dict[str, Any]) -> None:
        account = payload["account"]
        self.store[account] = self.store.get(account, 0) + payload["amount"]
        await self.publish_event("BalanceChanged", {"account": account}, conversation_id)


@planted
@simulate(Deployed(Twice, store=dict))
def state_written_twice(sim: Simulation) -> None:
    sim.publish_event("MoneyReceived", {"account": "a", "amount": 5})

    @sim.invariant
    def never_too_much() -> None:
        assert sim.stored(Twice).get("a", 0) <= 5


class Forgets(Service):
    """Answers nothing in one branch."""

    def __init__(self, urls: list[str]) -> None:
        super().__init__(urls, [], ["forgets.Charge"], "forgets")

    async def on_Charge(
        self, payload: Any, conversation_id: str, reply_to: str, correlation_id: str, meta: dict[str, Any]
    ) -> Any:
        if payload["amount"] > 100:
            await self.publish_event("ApprovalNeeded", payload, conversation_id)
            return None
        return {"charged": payload["amount"]}


@planted
@simulate(Forgets, faults=NONE)
def a_result_forgotten_in_one_branch(sim: Simulation) -> None:
    sim.send_command("forgets.Charge", {"amount": 7})
    sim.send_command("forgets.Charge", {"amount": 700})


class Outside(Service):
    """Publishes from a timer, so that nothing brings the event back when the worker is killed."""

    def __init__(self, urls: list[str]) -> None:
        super().__init__(urls, ["OrderPlaced"], [], "outside")

    async def on_OrderPlaced(self, payload: Any, conversation_id: str, meta: dict[str, Any]) -> None:
        self.call_later(0.5, partial(self.publish_event, "OrderAccepted", payload, conversation_id))


@planted
@simulate(Outside)
def a_publish_outside_of_the_handler(sim: Simulation) -> None:
    sim.publish_event("OrderPlaced", {"id": 1})
    sim.run()
    sim.expect_event("OrderAccepted", {"id": 1})


class Asks(Service):
    """Asks for the result under a key that it does not subscribe to."""

    def __init__(self, urls: list[str]) -> None:
        super().__init__(urls, ["OrderPlaced"], ["asks.ChargeReturn"], "asks")

    async def on_OrderPlaced(self, payload: Any, conversation_id: str, meta: dict[str, Any]) -> None:
        await self.send_command("forgets.Charge", {"amount": 1}, conversation_id, "asks.ChargeReturned", "1")

    async def on_ChargeReturn(
        self, payload: Any, conversation_id: str, status: str, correlation_id: str, meta: dict[str, Any]
    ) -> None:
        await self.publish_event("OrderCharged", payload, conversation_id)


@planted
@simulate(Asks, Forgets)
def a_wrong_reply_key(sim: Simulation) -> None:
    sim.publish_event("OrderPlaced", {"id": 1})


class Counter(Service):
    """Reads, waits, and writes: another worker may have written meanwhile."""

    def __init__(self, urls: list[str], store: dict[str, int]) -> None:
        super().__init__(urls, ["Clicked"], [], "counter")
        self.store = store

    async def on_Clicked(self, payload: Any, conversation_id: str, meta: dict[str, Any]) -> None:
        seen = self.store.get("seen", 0)
        await asyncio.sleep(0.001)
        self.store["seen"] = seen + 1


@planted
@simulate(Deployed(Counter, store=dict), workers=2)
def a_lost_update_between_two_workers(sim: Simulation) -> None:
    for number in range(2):
        sim.publish_event("Clicked", {"number": number})
    sim.run()
    assert sim.stored(Counter, "seen") >= 2


class Mailer(Service):
    """Sends another mail for each delivery."""

    def __init__(self, urls: list[str], store: dict[str, Any]) -> None:
        super().__init__(urls, ["OrderPlaced"], [], "mailer")
        self.store = store

    async def on_OrderPlaced(self, payload: Any, conversation_id: str, meta: dict[str, Any]) -> None:
        mails = self.store.setdefault("mails", [])
        mails.append(f"thanks for {payload['id']}")


@planted
@simulate(Deployed(Mailer, store=dict), faults=NONE)
def a_handler_that_is_not_idempotent(sim: Simulation) -> None:
    sim.publish_event("OrderPlaced", {"id": 1})
    sim.check_idempotent("OrderPlaced")


class Deadline(Service):
    """Does not cancel its timer when the payment comes."""

    def __init__(self, urls: list[str]) -> None:
        super().__init__(urls, ["OrderPlaced", "OrderPaid"], [], "deadline")

    async def on_OrderPlaced(self, payload: Any, conversation_id: str, meta: dict[str, Any]) -> None:
        self.call_later(60.0, partial(self.publish_event, "OrderExpired", payload, conversation_id))

    async def on_OrderPaid(self, payload: Any, conversation_id: str, meta: dict[str, Any]) -> None:
        await self.publish_event("OrderDone", payload, conversation_id)


@planted
@simulate(Deadline)
def a_timer_that_is_not_cancelled(sim: Simulation) -> None:
    sim.publish_event("OrderPlaced", {"id": 1})
    sim.publish_event("OrderPaid", {"id": 1})
    sim.run()
    sim.expect_event("OrderExpired", at_least=0, at_most=0)


class Left(Service):
    """Calls the other service, which calls this one again."""

    PREFETCH_COUNT: ClassVar[int] = 1

    def __init__(self, urls: list[str]) -> None:
        super().__init__(urls, [], ["left.Ask"], "left")

    async def on_Ask(
        self, payload: Any, conversation_id: str, reply_to: str, correlation_id: str, meta: dict[str, Any]
    ) -> Any:
        return await self.call("right.Ask", payload)


class Right(Service):
    def __init__(self, urls: list[str]) -> None:
        super().__init__(urls, [], ["right.Ask"], "right")

    async def on_Ask(
        self, payload: Any, conversation_id: str, reply_to: str, correlation_id: str, meta: dict[str, Any]
    ) -> Any:
        return payload if payload["depth"] == 2 else await self.call("left.Ask", {"depth": payload["depth"] + 1})


@planted
@simulate(Left, Right)
def a_call_in_a_circle(sim: Simulation) -> None:
    sim.send_command("left.Ask", {"depth": 1})


class Poison(Service):
    """Gives a message back that it will never handle."""

    def __init__(self, urls: list[str]) -> None:
        super().__init__(urls, ["Odd"], [], "poison")

    async def on_Odd(self, payload: Any, conversation_id: str, meta: dict[str, Any]) -> bool:
        self.call_later(1.0, partial(self.manual_nack, meta["delivery_tag"], True))
        return True


@planted
@simulate(Poison)
def a_poison_loop(sim: Simulation) -> None:
    sim.publish_event("Odd", {})
