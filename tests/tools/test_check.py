"""The command ``eda check``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from eda_tools import check as tool
from eda_tools import eda
from tests.tools.contracts.test_agreement import Receipts
from tests.tools.samples import command, recording
from tests.tools.test_asyncapi import SHOP, demo

__all__ = ["demo"]

ORDERS = [f"{SHOP}:Orders", f"{SHOP}:Billing"]


def test_services_that_agree(capsys: pytest.CaptureFixture[str]) -> None:
    assert eda.main(["check", *ORDERS, f"{SHOP}:Listener", "--external", "stamps", "OrdersConfigured"]) == 0
    captured = capsys.readouterr()
    assert captured.out.splitlines() == [
        "warning  on_Closed() gets its payload as it comes: the annotation of payload, 'Decimal', cannot be resolved "
        "(name 'Decimal' is not defined); import what it names at run time, and not under TYPE_CHECKING, or annotate "
        "with Any",
        "note     it is not known who publishes the event OrderPlaced that orders receives",
        "note     it is not known who publishes the configuration Prices that orders receives",
    ]
    assert captured.err == "eda check: nothing wrong; 3 service(s), 6 subscription(s) and 5 message(s) sent\n"


def test_problems_come_first_and_are_the_status(capsys: pytest.CaptureFixture[str]) -> None:
    assert tool.main(ORDERS) == 1
    captured = capsys.readouterr()
    severities = [line.partition(" ")[0] for line in captured.out.splitlines()]
    assert severities == ["problem", *["warning"] * 4, "note", "note"]
    assert captured.err.startswith("eda check: 1 problem(s); 2 service(s)")


def test_warnings_are_problems_if_that_is_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [f"{SHOP}:Billing", f"{SHOP}:Orders", "--external", "stamps"]
    assert tool.main(arguments) == 0
    assert tool.main([*arguments, "--strict"]) == 1
    assert "eda check: 4 problem(s)" in capsys.readouterr().err


def test_json_has_an_object_for_each_finding(capsys: pytest.CaptureFixture[str]) -> None:
    path = f"{Receipts.__module__}:Receipts"
    assert tool.main([path, f"{SHOP}:Billing", "--format", "json"]) == 1
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(each["severity"], each["check"], each["services"], each["name"]) for each in lines] == [
        ("problem", "payload-type", ["receipts", "billing"], "billing.ChargeCard"),
        ("problem", "payload-type", ["receipts", "billing"], "billing.ChargeCard"),
        ("problem", "result-type", ["billing", "receipts"], "receipts.ChargeCardReturn"),
    ]
    assert lines[0]["text"].endswith("payload.order: the sender does not have it")


def test_what_a_recording_shows_is_checked_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sent = command("billing.Refund", 0, {}, reply_to="billing.RefundReturn", app_id="billing")
    assert tool.main([f"{SHOP}:Billing", "--observed", recording(tmp_path / "r", sent)]) == 1
    captured = capsys.readouterr()
    assert "nobody serves billing.Refund of billing" in captured.out
    assert "does not subscribe to its reply_to 'billing.RefundReturn'" in captured.out
    assert captured.err.endswith("1 message(s) sent, 1 of them known from the recording only\n")


def test_the_services_of_the_demo_agree(demo: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert tool.main([*demo, "--strict", "--external", "ConversationArchived", "ConversationFailed"]) == 0
    assert capsys.readouterr().out == (
        "note     it is not known who publishes the event ConversationReceived that archive receives\n"
    )


@pytest.mark.parametrize(
    ("arguments", "status", "text"),
    [
        ([], 2, "the following arguments are required: MODULE:NAME"),
        ([f"{SHOP}:Nothing"], 2, f"{SHOP} has no Nothing"),
        (["tests.tools.contracts.raises:Service"], 1, "tests.tools.contracts.raises cannot be imported: LookupError"),
        (["--help"], 0, ""),
    ],
)
def test_what_cannot_be_read_is_told(
    arguments: list[str], status: int, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tool.main(arguments) == status
    assert text in capsys.readouterr().err
