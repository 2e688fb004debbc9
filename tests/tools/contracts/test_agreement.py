"""Whether services agree."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest

from eda_aio import Service
from eda_core.messages.values import Command, Event, LogRecord, Result
from eda_tools.contracts.agreement import counted, findings
from eda_tools.contracts.facts import contract_of
from tests.tools.contracts.shop import Billing, Charged, Listener, Mailer, Order, Orders

URLS = ["amqp://localhost/"]


def found(*kinds: Any, external: tuple[str, ...] = ()) -> list[tuple[str, str, tuple[str, ...], str]]:
    contracts = [contract_of(kind.__name__, kind(URLS)) for kind in kinds]
    return [
        (each.severity, each.check, each.services, each.text)
        for each in findings(contracts, external)
        if each.check != "service"
    ]


def of(severity: str, *kinds: Any, external: tuple[str, ...] = ()) -> list[str]:
    return [text for level, _, _, text in found(*kinds, external=external) if level == severity]


def test_services_that_agree() -> None:
    assert of("problem", Orders, Billing, external=("stamps",)) == []
    assert of("warning", Orders, Billing, Listener, external=("stamps", "OrdersConfigured")) == []


def test_a_command_that_nobody_serves() -> None:
    text = "nobody serves stamps.Stamp of orders; there is no service stamps among those that are checked: add it, or "
    problems = [each for each in found(Orders, Billing) if each[0] == "problem"]
    assert problems == [("problem", "command-unserved", ("orders", "stamps"), f"{text}--external stamps")]
    assert of("problem", Orders, Billing, external=("stamps.*",)) == []


class Asking(Service):
    def __init__(self, urls: list[str]) -> None:
        super().__init__(urls, ["OrderNoted"], [], "asking")

    async def on_OrderNoted(self, payload: Order, conversation_id: str, meta: Any) -> None:
        await self.send_command("billing.ChrgeCard", {}, conversation_id, "asking.ChargeReturn", "x")
        await self.send_command("mailer.Send", {}, conversation_id, "elsewhere.Return", "x")


def test_a_command_that_its_service_does_not_take() -> None:
    assert of("problem", Asking, Billing, Mailer) == [
        "nobody serves billing.ChrgeCard of asking; add 'billing.ChrgeCard' to the command_routing_keys of billing, or "
        "correct the name",
        "the result of billing.ChrgeCard cannot come: asking does not subscribe to its reply_to 'asking.ChargeReturn'; "
        "add it to command_routing_keys, and define on_ChargeReturn()",
        "mailer subscribes to mailer.Send of asking, and has no method on_Send()",
    ]


class Own(Service):
    def __init__(self, urls: list[str]) -> None:
        super().__init__(urls, [], ["mailer.*"], "mailer")

    async def handle_command(
        self, command: str, payload: Any, conversation_id: str, reply_to: str, correlation_id: str, meta: Any
    ) -> None: ...


def test_a_service_that_finds_its_handlers_itself_serves_what_it_subscribes_to() -> None:
    assert [text for text in of("problem", Asking, Billing, Own) if "mailer" in text] == []


def test_payloads_that_do_not_fit() -> None:
    problems = [each for each in found(Orders, Billing, Mailer, external=("stamps",)) if each[0] == "problem"]
    assert {each[:3] for each in problems} == {("problem", "payload-type", ("orders", "mailer"))}
    beginning = "OrderNoted from orders does not fit mailer: payload."
    assert [text.removeprefix(beginning) for *_, text in problems] == [
        "customer: the sender does not have it",
        "number: integer is sent, and string is expected",
        *(f"{name}: the receiver does not allow it" for name in ("placed", "kind", "place", "counts", "parts")),
    ]


def test_each_type_that_is_sent_has_to_fit() -> None:
    class Two(Orders):
        PUBLISHES: ClassVar[Any] = {"OrderNoted": Charged}

    told = [text for text in of("problem", Two, Asking, external=("#",)) if "OrderNoted" in text]
    assert told == [
        "OrderNoted from orders does not fit asking: payload.number: the sender does not have it",
        "OrderNoted from orders does not fit asking: payload.placed: the sender does not have it",
    ]


def test_messages_of_a_recording_have_to_fit() -> None:
    contracts = [contract_of("Orders", Orders(URLS)), contract_of("Billing", Billing(URLS))]
    observed = (
        Command("billing.ChargeCard", {"order": 7}, "c", "x.Return", "", {"app_id": "web"}),
        Command("billing.ChargeCard", {"order": 8}, "c", "x.Return", "", {"app_id": "web"}),
        Command("billing.ChargeCard", {"order": 7, "cents": 5}, "c", "x.Return", "", {"app_id": "web"}),
        Event("OrderPlaced", {"number": "s3cret"}, "c"),
        Event("shop.Closed", {"number": "s3cret"}, "c"),
        Event("Other", {"number": "s3cret"}, "c"),
        Result("orders.ChargeReturn", {"reason": "x"}, "c", "error", ""),
        Result("orders.ChargeReturn", [], "c", "success", ""),
        LogRecord("orders.INFO", {}, ""),
    )
    found = [each for each in findings(contracts, ("#",), observed) if each.check == "observed-payload"]
    assert {(each.severity, each.services) for each in found} == {("problem", ("orders",)), ("problem", ("billing",))}
    assert [each.text.replace("in the recording does not fit", "->") for each in found] == [
        "OrderPlaced from somebody -> orders: payload.number: expected int, got str",
        "orders.ChargeReturn from somebody -> orders: payload: expected object, got array",
        "billing.ChargeCard from web -> billing: payload.cents: field required",
    ]


class Receipts(Service):
    SENDS: ClassVar[Any] = {"billing.ChargeCard": Order}

    def __init__(self, urls: list[str]) -> None:
        super().__init__(urls, [], ["receipts.ChargeCardReturn"], "receipts")

    async def on_ChargeCardReturn(
        self, payload: list[Charged], conversation_id: str, status: str, correlation_id: str, meta: Any
    ) -> None: ...


def test_commands_and_results_that_do_not_fit() -> None:
    assert of("problem", Receipts, Billing) == [
        "billing.ChargeCard from receipts does not fit billing: payload.order: the sender does not have it",
        "billing.ChargeCard from receipts does not fit billing: payload.cents: the sender does not have it",
        "receipts.ChargeCardReturn from billing does not fit receipts: payload: object is sent, and array is expected",
    ]


def test_events_that_nobody_hears_and_of_which_nobody_is_known_to_publish_them() -> None:
    assert of("warning", Orders, external=("stamps", "billing")) == [
        "nobody hears the configuration OrdersConfigured of orders",
        "nobody hears the event OrderNoted of orders",
        "nobody hears the event OrderCharged of orders",
    ]
    assert of("note", Orders, Mailer) == [
        "it is not known who publishes the event OrderPlaced that orders receives",
        "it is not known who publishes the configuration Prices that orders receives",
    ]
    assert of("note", Orders, Mailer, external=("#",)) == []


def test_faults_of_a_service_are_problems_and_doubts_are_warnings() -> None:
    class Wrong(Service):
        def __init__(self, urls: list[str]) -> None:
            super().__init__(urls, ["Odd", "Missing"], [], "wrong")

        async def on_Odd(self) -> None: ...

    told = list(findings([contract_of("Wrong", Wrong(URLS))], ("#",)))
    assert [(each.severity, each.services) for each in told] == [("problem", ("wrong",)), ("warning", ("wrong",))]
    assert told[0].text.startswith("on_Odd() cannot be called")


@pytest.mark.parametrize("kinds", [(Orders,), (Orders, Billing)])
def test_what_was_checked_is_counted(kinds: tuple[Any, ...]) -> None:
    contracts = [contract_of(kind.__name__, kind(URLS)) for kind in kinds]
    assert counted(contracts).startswith(f"{len(kinds)} service(s), {3 + len(kinds)} subscription(s) and 5 message(s)")
