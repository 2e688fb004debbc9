"""replay: what it sends is what was recorded, in the order and at the pace of the recording."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from eda_aio import Service
from eda_core.messages import Unreadable
from eda_tools.messages.recording import dumps
from eda_tools.replay import TOOL
from tests.support.services import BrokerUnderTest
from tests.support.tools import Ran, run_here
from tests.tools.bench import COMMANDS_QUEUE, EVENTS_QUEUE, Operator, ran
from tests.tools.samples import command, event, recording, result

SHOP = (
    event("OrderPlaced", 0.0, {"amount": 80}, message_id="1"),
    command("a.Charge", 0.5, {"amount": 80}, reply_to="shop.R", message_id="2", cause="1"),
    result("shop.R", 0.75, {"receipt": 7}, message_id="3", cause="2"),
    event("OrderPlaced", 1.0, {"amount": 900}, message_id="4", conversation="another conversation"),
)


@pytest.fixture
def calls(tmp_path: Path) -> str:
    return recording(tmp_path / "calls.cbor", *SHOP)


def totals(done: Ran) -> tuple[int, int, int]:
    total = done.objects[-1]["total"]
    return total["replayed"], total["skipped"], total["failed"]


def test_what_is_sent_is_what_was_recorded(
    broker: BrokerUnderTest, bench: Operator, calls: str, capsys: pytest.CaptureFixture[str]
) -> None:
    done = run_here(TOOL, capsys, "--json", "--speed", "0", "--where", "kind != 'result'", broker.url, calls)
    assert (done.status, totals(done)) == (0, (3, 1, 0))
    events, commands = bench.drain(EVENTS_QUEUE), bench.drain(COMMANDS_QUEUE)
    assert [(each.routing_key, each.body, each.headers["conversation_id"]) for each in events] == [
        ("OrderPlaced", SHOP[0].body, "conv"),
        ("OrderPlaced", SHOP[3].body, "another conversation"),
    ]
    (sent,) = commands
    assert (sent.exchange, sent.routing_key, sent.headers["causation_id"]) == ("commands", "a.Charge", "1")
    assert (sent.properties["reply_to"], sent.properties["message_id"]) == ("shop.R", "2")


def test_the_pace_is_that_of_the_recording(
    broker: BrokerUnderTest, bench: Operator, calls: str, capsys: pytest.CaptureFixture[str]
) -> None:
    began = time.monotonic()
    done = run_here(TOOL, capsys, "--json", "--filter", "OrderPlaced", "--speed", "2", broker.url, calls)
    assert (done.status, totals(done)) == (0, (2, 2, 0))
    assert time.monotonic() - began >= 0.5
    began = time.monotonic()
    done = run_here(TOOL, capsys, "--json", "--speed", "0", "--rate", "5", "--initial", broker.url, calls)
    assert (done.status, totals(done)) == (0, (2, 2, 0))
    assert time.monotonic() - began >= 0.2


def test_a_dry_run_needs_no_broker(
    calls: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("EDA_AMQP_URL", raising=False)
    done = run_here(TOOL, capsys, "--dry-run", "--json", "--conversation", "another conv", calls)
    assert (done.status, totals(done)) == (0, (1, 3, 0))
    assert done.objects[0]["outcome"] == "would be replayed"
    done = run_here(TOOL, capsys, "--dry-run", "--count", "1", calls)
    assert done.status == 0
    assert "to events: " in done.out
    assert "would be replayed" in done.out
    done = run_here(TOOL, capsys, calls)
    assert done.status == 2
    assert "give the URL of the broker, set EDA_AMQP_URL, or use --dry-run" in done.err


def test_what_cannot_be_sent_is_told(
    broker: BrokerUnderTest, bench: Operator, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    unreadable = event("Odd", 0.0)
    unreadable.properties = Unreadable.of(unreadable.properties, "the property type is not UTF-8")
    elsewhere = event("Lost", 0.0)
    elsewhere.exchange = "nowhere"
    nobody = command("nobody.Do", 0.0, reply_to="a.R")
    path = recording(tmp_path / "odd", unreadable, elsewhere, nobody, event("Fine", 0.0))
    done = run_here(TOOL, capsys, "--json", broker.url, path)
    assert (done.status, totals(done)) == (3, (1, 0, 3))
    reasons = {each["name"]: each.get("reason") for each in done.objects[:-1]}
    assert reasons == {
        "Odd": "the property type is not UTF-8: it cannot be sent as it was",
        "Lost": "there is no exchange 'nowhere'",
        "nobody.Do": "no queue is bound for it",
        "Fine": None,
    }
    assert "3 of 4 could not be sent" in done.err


def test_a_journal_is_no_recording_and_it_is_said_what_it_is_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    journal = tmp_path / "billing.journal"
    service = Service("amqp://localhost/", ["OrderPlaced"], [], "billing")
    lines: list[str] = []
    service.keep_journal(lines.append)
    service.make_machine(random=lambda: 0.5, token="t", wall_offset=0.0)
    journal.write_text("\n".join(lines))
    done = run_here(TOOL, capsys, "--dry-run", str(journal))
    assert done.status == 1
    assert f"{journal}: it is the journal of a service, not a recording: 'python -m eda_core.journal' shows" in done.err


def test_a_backup_of_resurrect_is_sent_as_it_was_published(
    broker: BrokerUnderTest, bench: Operator, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bench.event("Died")
    bench.kill()
    backup = str(tmp_path / "before.cbor")
    assert ran("resurrect", "--backup", backup, broker.url, "dead-letters").status == 0
    bench.drain(EVENTS_QUEUE)
    done = run_here(TOOL, capsys, "--json", broker.url, backup)
    assert (done.status, totals(done)) == (0, (1, 0, 0))
    (sent,) = bench.drain(EVENTS_QUEUE)
    assert (sent.exchange, sent.routing_key) == ("events", "Died")
    assert [name for name in sent.headers if name.startswith("x-")] == []


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (b"", None),
        (b"\x01", "message 1, at byte 0, is not one of a recording"),
        (dumps(SHOP[0])[:-3], "cut off in message 1"),
    ],
)
def test_a_file_may_hold_anything(
    content: bytes, error: str | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    done = run_here(TOOL, capsys, "--dry-run", str(path))
    assert done.status == (0 if error is None else 1)
    assert error is None or error in done.err


def test_a_filter_has_names(calls: str, capsys: pytest.CaptureFixture[str]) -> None:
    done = run_here(TOOL, capsys, "--dry-run", calls, "--filter")
    assert (done.status, "--filter comes without a name" in done.err) == (2, True)


@pytest.mark.parametrize("speed", ["-1", "nan", "inf", "fast"])
def test_a_speed_is_a_number(speed: str, calls: str, capsys: pytest.CaptureFixture[str]) -> None:
    done = run_here(TOOL, capsys, "--dry-run", f"--speed={speed}", calls)
    assert done.status == 2
    assert f"'{speed}' is not a number, 0 or more" in done.err
