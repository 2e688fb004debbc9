"""The fixture eda_replay: a recording or a journal is a test of the handlers of a service."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.tools.samples import command, event, recording, result
from tests.tools.test_eda_pytest import run, server, user

__all__ = ["server", "user"]
pytest_plugins = ["pytester"]

SHOP = """
import datetime
import uuid

from eda_aio import Service

CURRENCY = "EUR"


class Shop(Service):
    def __init__(self, url):
        super().__init__(url, ["OrderPlaced", "AddressAsked"], ["shop.Charged"], "shop")
        self.orders = {}

    async def on_OrderPlaced(self, payload, conversation_id, meta):
        if payload["amount"] > 500:
            raise ValueError("over the limit")
        key = str(uuid.uuid4())
        self.orders[key] = payload
        await self.send_command("billing.Charge", payload, conversation_id, "shop.Charged", key)

    async def on_Charged(self, payload, conversation_id, status, correlation_id, meta):
        paid = {**self.orders.pop(correlation_id), "currency": CURRENCY, "id": str(uuid.uuid4())}
        paid["at"] = datetime.datetime.now(datetime.UTC).isoformat()
        await self.publish_event("OrderPaid", paid, conversation_id)

    async def on_AddressAsked(self, payload, conversation_id, meta):
        found = await self.call("people.Find", payload)
        await self.publish_event("AddressFound", found, conversation_id)
"""

TEST = """
from shop import Shop


def test_the_shop_does_as_it_did(eda_replay):
    eda_replay("calls.cbor", Shop)
"""

EXPECTED = """\
event OrderPlaced {"amount": 80}
  -> command billing.Charge {"amount": 80}

event OrderPlaced {"amount": 20}
  -> command billing.Charge {"amount": 20}

result shop.Charged success {"receipt": 1}
  -> event OrderPaid {"amount": 80, "at": "<time>", "currency": "EUR", "id": "<id 1>"}

event OrderPlaced {"amount": 900}
  -> dead letter OrderPlaced rejected in shop.events

result shop.Charged success {"receipt": 2}
  -> event OrderPaid {"amount": 20, "at": "<time>", "currency": "EUR", "id": "<id 2>"}

event AddressAsked {"name": "zoe"}
  -> command people.Find {"name": "zoe"}
  -> event AddressFound {"street": "Rue 1"}
"""


@pytest.fixture
def recorded(user: pytest.Pytester) -> pytest.Pytester:
    """A directory with a recording of a shop, the shop, and the test."""
    recording(
        Path(user.path) / "calls.cbor",
        event("OrderPlaced", 0.0, {"amount": 80}),
        command("billing.Charge", 0.1, {"amount": 80}, reply_to="shop.Charged", correlation="k1"),
        event("OrderPlaced", 0.2, {"amount": 20}),
        command("billing.Charge", 0.3, {"amount": 20}, reply_to="shop.Charged", correlation="k2"),
        result("shop.Charged", 0.4, {"receipt": 1}, correlation="k1"),
        event("OrderPlaced", 0.5, {"amount": 900}),
        result("shop.Charged", 0.6, {"receipt": 2}, correlation="k2"),
        event("SomethingElse", 0.7, {}),
        event("AddressAsked", 0.8, {"name": "zoe"}),
        command("people.Find", 0.9, {"name": "zoe"}, reply_to="shop.replies.1", correlation="k3"),
        result("shop.replies.1", 1.0, {"street": "Rue 1"}, correlation="k3"),
    )
    user.makepyfile(shop=SHOP, test_shop=TEST)
    return user


def test_a_recording_is_a_regression_test(recorded: pytest.Pytester) -> None:
    before = run(recorded, "test_shop.py")
    before.assert_outcomes(failed=1)
    before.stdout.fnmatch_lines(
        ["E*Differs: there is no *calls.cbor.shop.expected yet: write it by pytest --eda-update*"]
    )
    run(recorded, "test_shop.py", "--eda-update").assert_outcomes(passed=1)
    expectation = Path(recorded.path) / "calls.cbor.shop.expected"
    assert expectation.read_text("utf-8") == EXPECTED
    run(recorded, "test_shop.py").assert_outcomes(passed=1)

    recorded.makepyfile(shop=SHOP.replace('"EUR"', '"USD"'))
    changed = run(recorded, "test_shop.py")
    changed.assert_outcomes(failed=1)
    changed.stdout.fnmatch_lines(
        [
            "E*Differs: the service publishes other messages than expected:",
            "E*--- expected",
            "E*+++ published",
            '*-  -> event OrderPaid {"amount": 80, "at": "<time>", "currency": "EUR", "id": "<id 1>"}',
            '*+  -> event OrderPaid {"amount": 80, "at": "<time>", "currency": "USD", "id": "<id 1>"}',
            "E*if that is right, run pytest --eda-update, which writes calls.cbor.shop.expected",
        ]
    )
    assert expectation.read_text("utf-8") == EXPECTED
    run(recorded, "test_shop.py", "--eda-update").assert_outcomes(passed=1)
    run(recorded, "test_shop.py").assert_outcomes(passed=1)


def test_a_journal_is_a_regression_test(recorded: pytest.Pytester) -> None:
    recorded.makepyfile(
        test_record="""
        from shop import Shop


        def test_record(eda_broker, eda_bus, eda_service):
            with open("shop.journal", "w", encoding="utf-8") as file:
                shop = Shop(eda_broker.url)
                shop.keep_journal(lambda line: print(line, file=file))
                eda_service(shop)
                eda_bus.publish_event("OrderPlaced", {"amount": 80})
                command = eda_bus.expect_command("Charge")
                eda_bus.answer(command, {"receipt": 1})
                eda_bus.expect_event("OrderPaid")
                eda_bus.publish_event("OrderPlaced", {"amount": 900})
                eda_bus.expect_dead_letter("OrderPlaced")
                eda_service.stop()
        """,
        test_shop=TEST.replace("calls.cbor", "shop.journal"),
    )
    run(recorded, "test_record.py").assert_outcomes(passed=1)
    run(recorded, "test_shop.py", "--eda-update").assert_outcomes(passed=1)
    assert (
        (Path(recorded.path) / "shop.journal.shop.expected").read_text("utf-8")
        == """\
event OrderPlaced {"amount": 80}
  -> command billing.Charge {"amount": 80}

result shop.Charged success {"receipt": 1}
  -> event OrderPaid {"amount": 80, "at": "<time>", "currency": "EUR", "id": "<id 1>"}

event OrderPlaced {"amount": 900}
  -> dead letter OrderPlaced rejected in shop.events
"""
    )
    run(recorded, "test_shop.py").assert_outcomes(passed=1)


def test_what_is_no_recording_is_told(recorded: pytest.Pytester) -> None:
    (Path(recorded.path) / "calls.cbor").write_bytes(b"\x01")
    run(recorded, "test_shop.py").stdout.fnmatch_lines(
        ["E*RecordingError: message 1, at byte 0, is not one of a recording*"]
    )
