"""AsyncAPI documents: valid by the schema of AsyncAPI 3.0.0, and what is in them."""

from __future__ import annotations

import gzip
import json
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import msgspec
import pytest
from jsonschema import Draft7Validator

from eda_aio import Service
from eda_core.services import ServiceApi
from eda_tools.contracts.document import document, identifier
from eda_tools.contracts.facts import contract_of
from tests.tools.contracts.shop import Billing, Charged, Listener, Mailer, Orders

URLS = ["amqp://localhost/"]


@cache
def validator() -> Draft7Validator:
    path = Path(__file__).parent / "asyncapi" / "3.0.0.json.gz"
    return Draft7Validator(json.loads(gzip.decompress(path.read_bytes())))


def wrong(found: dict[str, Any]) -> list[str]:
    """Why a document is no valid one, and which of its references lead nowhere."""
    errors = [f"{list(each.path)}: {each.message}" for each in validator().iter_errors(found)]
    return errors + [reference for reference in references(found) if not leads_somewhere(found, reference)]


def references(found: Any) -> list[str]:
    if isinstance(found, dict):
        own = [found["$ref"]] if isinstance(found.get("$ref"), str) else []
        return own + [each for value in found.values() for each in references(value)]
    return [each for value in found for each in references(value)] if isinstance(found, list) else []


def leads_somewhere(found: Any, reference: str) -> bool:
    for step in reference.removeprefix("#/").split("/"):
        found = found.get(step.replace("~1", "/").replace("~0", "~")) if isinstance(found, dict) else None
    return found is not None


def made(*kinds: Any, doubts: list[str] | None = None) -> Any:
    services: list[ServiceApi[Any]] = [kind(URLS) for kind in kinds]
    contracts = [contract_of(type(each).__name__, each) for each in services]
    return document(contracts, "Shop", "1.2.3", ([] if doubts is None else doubts).append)


KINDS = [(), (Orders,), (Billing,), (Listener,), (Mailer,), (Orders, Billing, Listener, Mailer)]


@pytest.mark.parametrize("kinds", KINDS, ids=lambda kinds: "-".join(kind.__name__ for kind in kinds) or "none")
def test_a_document_is_valid(kinds: tuple[Any, ...]) -> None:
    assert wrong(made(*kinds)) == []


def test_what_is_invalid_is_found() -> None:
    found = made(Orders)
    found["operations"]["odd"] = {"action": "shout", "channel": {"$ref": "#/channels/none"}}
    del found["info"]["version"]
    told = "\n".join(wrong(found))
    assert "'version' is a required property" in told
    assert "['operations', 'odd']" in told
    assert told.endswith("#/channels/none")


def test_the_document_has_what_each_service_does() -> None:
    found = made(Orders, Billing)
    assert found["info"] == {"title": "Shop", "version": "1.2.3"}
    assert {(each["title"], each["action"]) for each in found["operations"].values()} == {
        ("orders receives the event OrderPlaced", "receive"),
        ("orders receives the event shop.*", "receive"),
        ("orders receives the result orders.ChargeReturn", "receive"),
        ("orders receives the configuration Prices", "receive"),
        ("orders sends the command billing.ChargeCard", "send"),
        ("orders sends the command stamps.Stamp", "send"),
        ("orders sends the event OrderNoted", "send"),
        ("orders sends the event OrderCharged", "send"),
        ("orders sends the configuration OrdersConfigured", "send"),
        ("billing receives the command billing.ChargeCard", "receive"),
    }
    assert found["components"]["schemas"].keys() == {"Order", "Kind", "Point", "Charged", "Prices"}


def test_channels_and_operations_say_where_messages_are() -> None:
    found = made(Orders, Listener)
    channel = found["channels"]["events.OrderPlaced"]
    assert channel["address"] == "OrderPlaced"
    exchange = {"name": "events", "type": "topic", "durable": True, "autoDelete": False}
    assert channel["bindings"] == {"amqp": {"is": "routingKey", "exchange": exchange, "bindingVersion": "0.3.0"}}
    operations = found["operations"]
    queues = {name: each["x-queue"] for name, each in operations.items() if each["action"] == "receive"}
    shared = {"durable": True, "exclusive": False}
    assert queues == {
        "orders.receive.events.OrderPlaced": {**shared, "name": "orders.events"},
        "orders.receive.events.shop.any": {**shared, "name": "orders.events"},
        "orders.receive.commands.orders.ChargeReturn": {**shared, "name": "orders.commands"},
        "orders.receive.configurations.Prices": {"durable": False, "exclusive": True},
        "listener.receive.events.all": {"durable": False, "exclusive": True},
    }
    bindings = operations["orders.send.commands.billing.ChargeCard"]["bindings"]["amqp"]
    assert (bindings["mandatory"], bindings["deliveryMode"]) == (True, 2)
    assert operations["orders.send.events.OrderNoted"]["x-known"] == "read in the source"


def test_commands_have_replies_on_both_sides() -> None:
    found = made(Orders, Billing)
    served = found["operations"]["billing.receive.commands.billing.ChargeCard"]["reply"]
    assert served["address"]["location"] == "$message.header#/reply_to"
    (result,) = served["messages"]
    assert result["$ref"].endswith("/messages/result.billing.ChargeCard.Result")
    assert found["channels"]["commands.results-of.billing.ChargeCard"]["address"] is None
    message = found["components"]["messages"]["result.billing.ChargeCard.Result"]
    assert message["payload"] == {"$ref": "#/components/schemas/Charged"}
    assert message["headers"]["required"] == ["conversation_id", "status"]
    assert message["contentType"] == "application/json"
    sent = found["operations"]["orders.send.commands.billing.ChargeCard"]["reply"]
    assert sent == {"channel": {"$ref": "#/channels/commands.orders.ChargeReturn"}}


class Order(msgspec.Struct):
    """Not that of the shop."""

    other: int


class OtherOrders(Service):
    def __init__(self, urls: list[str]) -> None:
        super().__init__(urls, ["OrderPlaced"], [], "others")

    async def on_OrderPlaced(self, payload: Order, conversation_id: str, meta: Any) -> None: ...


def test_classes_of_the_same_name_stay_apart() -> None:
    found = made(Orders, OtherOrders)
    assert wrong(found) == []
    schemas, messages = found["components"]["schemas"], found["components"]["messages"]
    assert schemas["others.Order"]["properties"].keys() == {"other"}
    assert messages["event.OrderPlaced"]["payload"] == {"$ref": "#/components/schemas/Order"}
    assert messages["others.event.OrderPlaced"]["payload"] == {"$ref": "#/components/schemas/others.Order"}
    (reference,) = found["operations"]["others.receive.events.OrderPlaced"]["messages"]
    assert reference["$ref"].endswith("/others.event.OrderPlaced")


class TwoTypes(OtherOrders):
    PUBLISHES: ClassVar[Any] = {"Noted": Order}

    async def on_OrderPlaced(self, payload: Order, conversation_id: str, meta: Any) -> None:
        await self.publish_event("Noted", Charged("r"), conversation_id)


def test_a_message_may_have_one_of_several_types() -> None:
    found = made(TwoTypes)
    assert wrong(found) == []
    references = [{"$ref": "#/components/schemas/Order"}, {"$ref": "#/components/schemas/Charged"}]
    assert found["components"]["messages"]["event.Noted"]["payload"] == {"oneOf": references}


class Custom:
    pass


class Undescribed(msgspec.Struct):
    custom: Custom


class Odd(Service):
    def __init__(self, urls: list[str]) -> None:
        super().__init__(urls, ["Odd"], [], "odd")

    async def on_Odd(self, payload: Undescribed, conversation_id: str, meta: Any) -> None: ...


def test_what_has_no_schema_is_told() -> None:
    doubts: list[str] = []
    found = made(Odd, doubts=doubts)
    assert wrong(found) == []
    (doubt,) = doubts
    assert doubt.startswith("Odd: Odd has no schema: Undescribed cannot be described: ")
    assert "payload" not in found["components"]["messages"]["event.Odd"]


def test_names_of_a_document_have_no_wildcards() -> None:
    assert identifier("shop.*.#") == "shop.any.all"
    assert identifier("Été/x~y") == "_t__x_y"
