"""What is known of a service: what it receives, and what it sends."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from eda_aio import Service
from eda_core.messages.values import AnyMessage, Command, Event
from eda_tools.cli.status import USAGE, ToolError
from eda_tools.contracts.facts import DECLARED, READ, SEEN, Contract, Handler, Received, Sent, contract_of
from eda_tools.contracts.source import Call, calls_of
from tests.tools.contracts import shop
from tests.tools.contracts.shop import Billing, ChargeCard, Charged, Listener, Mailer, Order, Orders, Prices, Strict

URLS = ["amqp://localhost/"]


def contract(kind: Any, *observed: AnyMessage) -> Contract:
    return contract_of(f"shop:{kind.__name__}", kind(URLS), observed)


def test_what_a_service_receives_is_known_by_its_subscriptions_and_handlers() -> None:
    assert contract(Orders).received == [
        Received("event", "OrderPlaced", (Handler("OrderPlaced", Order),)),
        Received("event", "shop.*", (Handler("Closed"),)),
        Received("result", "orders.ChargeReturn", (Handler("ChargeReturn", Charged),)),
        Received("configuration", "Prices", (Handler("Prices", Prices),)),
    ]
    assert contract(Billing).received == [
        Received("command", "billing.ChargeCard", (Handler("ChargeCard", ChargeCard, Charged),))
    ]
    assert contract(Listener).received == [Received("event", "#", own=True)]
    assert contract(Mailer).received == [
        Received("event", "OrderNoted", (Handler("OrderNoted", Strict),)),
        Received("command", "mailer.Send"),
    ]


def test_what_a_service_sends_is_known_by_what_it_declares_by_its_source_and_by_a_recording() -> None:
    seen = {"app_id": "orders"}
    observed = (
        Event("OrderLost", {}, "c", seen),
        Event("OrderNoted", {}, "c", seen),
        Event("Other", {}, "c", {"app_id": "other"}),
        Command("stamps.Stamp", {}, "c", "orders.StampReturn", "x", seen),
        Command("stamps.Print", {}, "c", "eda-reply.7", "x", seen),
    )
    assert contract(Orders, *observed).sent == [
        Sent("configuration", "OrdersConfigured", (), (), DECLARED),
        Sent("command", "billing.ChargeCard", (ChargeCard,), ("orders.ChargeReturn",), READ),
        Sent("event", "OrderNoted", (Order,), (), READ),
        Sent("event", "OrderCharged", (), (), READ),
        Sent("command", "stamps.Stamp", (), ("orders.StampReturn",), READ),
        Sent("event", "OrderLost", (), (), SEEN),
        Sent("command", "stamps.Print", (), (), SEEN),
    ]


def test_what_is_declared_goes_before_what_is_read() -> None:
    class Declaring(Orders):
        PUBLISHES = {"OrderNoted": Charged, "OrderCharged": None}  # noqa: RUF012
        SENDS = ("billing.ChargeCard", "stamps.Charge")
        CONFIGURES = ()

    assert contract(Declaring).sent[:4] == [
        Sent("event", "OrderNoted", (Charged, Order), (), DECLARED),
        Sent("event", "OrderCharged", (), (), DECLARED),
        Sent("command", "billing.ChargeCard", (ChargeCard,), ("orders.ChargeReturn",), DECLARED),
        Sent("command", "stamps.Charge", (), ("orders.ChargeReturn",), DECLARED),
    ]


def test_a_wrong_declaration_is_told() -> None:
    with pytest.raises(ToolError) as caught:
        contract(shop.Broken)
    assert caught.value.status == USAGE
    assert str(caught.value) == (
        "shop:Broken: PUBLISHES is 'OrderPlaced'; make it a dict with the type of each payload by its routing key, or "
        "a tuple of routing keys"
    )


def test_what_is_made_at_run_time_is_suspicious_unless_something_is_declared() -> None:
    class Declaring(Mailer):
        PUBLISHES = ("MailSent",)

    (doubt, other) = sorted(contract(Mailer).doubts)
    assert doubt.startswith("Mailer.on_OrderNoted(), line ")
    assert doubt.endswith(" sends an event whose name is made at run time; list what it may be in PUBLISHES")
    assert "there is no method on_Send()" in other
    assert contract(Declaring).doubts == [other]


def test_what_is_wrong_and_what_is_suspicious_is_what_the_service_says_itself() -> None:
    found = contract(Orders)
    assert found.faults == []
    assert [doubt.partition(":")[0] for doubt in found.doubts] == ["on_Closed() gets its payload as it comes"]


# Reading the source

OTHER = "Other"


class Names:
    EVENT = "Attribute"


class Sending(Service):
    PREFIX = "mine"

    def __init__(self, amqp_urls: Sequence[str]) -> None:
        super().__init__(amqp_urls, ["Asked"], [], "sending")
        self.name = "Instance"
        self.other = self

    async def on_Asked(self, payload: Order, conversation_id: str, meta: Any) -> None:
        mail = Charged("x")
        await self.publish_event(OTHER, mail, conversation_id)
        await self.publish_event(Names.EVENT, payload, conversation_id)
        await self.publish_event(f"{self.PREFIX}.{OTHER}", {"map": 1}, conversation_id)
        await self.publish_event(event=self.name, message=Charged("x"), conversation_id=conversation_id)
        await self.other.publish_configuration("Configured", [Charged("x")])
        twice = "once"
        twice = twice + OTHER
        await self.publish_event(twice, mail, conversation_id)
        once = "Once"
        await self.publish_event(once, mail, conversation_id)
        await self.publish_event(meta["name"] + "x", mail, conversation_id)
        await self.publish_event(f"{OTHER!r}", mail, conversation_id)
        await self.publish_event(self.nothing, payload.parts, conversation_id)  # type: ignore[attr-defined]
        await self.publish_event(str(self.published_messages), None, conversation_id)

        def later() -> None:
            self.call_later(5, lambda: None)

        later()
        await self.send_command("peer.Do", mail, conversation_id, meta["reply_to"], "x")
        await self.call("peer.Do", mail)
        await meta.call("none.Do", mail)

    @staticmethod
    async def elsewhere() -> None:
        await helper.publish_event("Static", None, "c")


class helper:
    """Its method has the name of one of a service."""

    @staticmethod
    async def publish_event(*_: Any) -> None: ...


def test_the_names_and_the_models_of_calls_are_read() -> None:
    found = list(calls_of(Sending(URLS)))
    assert [(each.kind, each.name, each.payload, each.reply_to) for each in found] == [
        ("event", "Other", Charged, ""),
        ("event", "Attribute", Order, ""),
        ("event", "mine.Other", None, ""),
        ("event", "Instance", Charged, ""),
        ("configuration", "Configured", None, ""),
        ("event", None, Charged, ""),
        ("event", "Once", Charged, ""),
        ("event", None, Charged, ""),
        ("event", None, Charged, ""),
        ("event", None, None, ""),
        ("event", None, None, ""),
        ("command", "peer.Do", Charged, None),
        ("command", "peer.Do", Charged, ""),
        ("event", "Static", None, ""),
    ]
    lines = Path(__file__).read_text("utf-8").splitlines()
    assert all("(" in lines[line_of(each) - 1] for each in found)
    assert "publish_event(OTHER" in lines[line_of(found[0]) - 1]


def line_of(call: Call) -> int:
    return int(call.place.rpartition(" ")[2])


def test_a_class_without_a_source_is_left_out() -> None:
    names: dict[str, Any] = {"Sending": Sending, "__name__": __name__}
    exec("class Made(Sending):\n    async def on_More(self, *_): await self.publish_event('More', 1, 'c')", names)
    assert len(list(calls_of(names["Made"](URLS)))) == 14
