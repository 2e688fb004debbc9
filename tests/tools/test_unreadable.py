"""Messages that no client can read: each tool shows or counts them, and goes on with what is behind them."""

from __future__ import annotations

import asyncio
import json
import struct
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from eda_core.criticality import NOTICE
from eda_core.messages import Unreadable, gelf_record
from eda_core.testing.broker.values import Opaque
from eda_core.testing.conformance import Put, event, message
from eda_core.testing.conformance.unreadable import UNREADABLE
from eda_tools.cli import status as cli
from eda_tools.inspect_queue import TOOL as INSPECT
from eda_tools.messages.delivery import fields
from eda_tools.messages.recording import read_recording
from eda_tools.resurrect import TOOL as RESURRECT
from eda_tools.trace import TOOL as TRACE
from tests.support.octets import octet_publisher
from tests.support.services import DEAD_LETTER_EXCHANGE, DEAD_LETTER_QUEUE, BrokerUnderTest, asynchronous
from tests.support.tools import Ran, interrupted, run_here, watching
from tests.tools.bench import EVENTS_QUEUE, Operator

#: Each one is in front of a good message.
MESSAGES = [put for kind, (unreadable, _) in UNREADABLE.items() for put in (unreadable, event("Good", kind))]
REASONS = [words for _, words in UNREADABLE.values()]
KINDS = len(UNREADABLE)
#: A queue whose messages die at once.
DYING = {"x-message-ttl": 0, "x-dead-letter-exchange": DEAD_LETTER_EXCHANGE}


async def put(url: str, *messages: Put) -> None:
    async with octet_publisher(url) as publisher:
        for each in messages:
            await publisher.put(each)


def check_shown(found: list[dict[str, Any]]) -> None:
    """The unreadable ones are shown as such, with what can be read; the good ones as usual."""
    assert [each["kind"] for each in found] == ["invalid", "event"] * KINDS
    assert [each["payload"] for each in found[1::2]] == list(UNREADABLE)
    for each, words in zip(found[::2], REASONS, strict=True):
        assert words in each["error"]
        assert each["conversation_id"] == "c"
        assert each["headers"]["conversation_id"] == "c"
        assert each["properties"]["delivery_mode"] == 2
        assert each["name"] == ("odd.��" if "routing key" in words else "Happened")


@pytest.fixture
def dead(broker: BrokerUnderTest, bench: Operator) -> list[str]:
    """Let all messages die. Returns their names."""
    bench.channel.queue_unbind(EVENTS_QUEUE, "events", "#")
    bench.channel.queue_declare("dying", durable=True, arguments=DYING)
    bench.channel.queue_bind("dying", "events", "#")
    asyncio.run(put(broker.url, *MESSAGES))
    bench.await_waiting(len(MESSAGES))
    bench.channel.queue_unbind("dying", "events", "#")
    bench.channel.queue_bind(EVENTS_QUEUE, "events", "Good")
    return [each.key for each in MESSAGES]


def test_inspect_queue(
    broker: BrokerUnderTest, bench: Operator, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asyncio.run(put(broker.url, *MESSAGES))

    def inspected(*options: str) -> Ran:
        ran = run_here(INSPECT, capsys, *options, broker.url, EVENTS_QUEUE)
        assert ran.status == cli.DONE
        assert f"all {len(MESSAGES)} that were read are back" in ran.err
        bench.await_waiting(len(MESSAGES), queue=EVENTS_QUEUE)
        return ran

    check_shown(inspected("--json").objects)
    text = inspected().out
    assert all(words in text for words in REASONS)
    assert text.count("invalid ") == KINDS
    counted = {row["key"]: row["messages"] for row in inspected("--json", "--group-by", "key").objects}
    assert counted == {"events/Good": KINDS, "events/Happened": KINDS - 1, "events/odd.��": 1}
    inspected("--save", str(tmp_path))
    assert len(list(tmp_path.iterdir())) == len(MESSAGES)


def test_inspect_queue_shows_how_they_died(
    broker: BrokerUnderTest, dead: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    found = run_here(INSPECT, capsys, "--json", broker.url, DEAD_LETTER_QUEUE).objects
    check_shown(found)
    assert {(each["exchange"], each["death"]["queue"], each["death"]["reason"]) for each in found} == {
        ("events", "dying", "expired")
    }


def test_resurrect_leaves_them_and_sends_the_others(
    broker: BrokerUnderTest, bench: Operator, dead: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    ran = run_here(RESURRECT, capsys, "--json", broker.url, DEAD_LETTER_QUEUE)
    assert ran.status == cli.PARTLY
    *outcomes, total = ran.objects
    assert [(each["outcome"], each["name"]) for each in outcomes[1::2]] == [("replayed", "Good")] * KINDS
    for each, words in zip(outcomes[::2], REASONS, strict=True):
        assert each["outcome"] == "failed"
        assert words in each["reason"]
        assert each["reason"].endswith(": it cannot be sent as it was")
    assert total["total"] == {"replayed": KINDS, "skipped": 0, "failed": KINDS, "unread": 0}
    bench.await_waiting(KINDS)
    assert bench.names(EVENTS_QUEUE) == ["Good"] * KINDS
    again = run_here(RESURRECT, capsys, "--json", "--dry-run", broker.url, DEAD_LETTER_QUEUE)
    assert again.objects[-1]["total"] == {"replayed": 0, "skipped": 0, "failed": KINDS, "unread": 0}


def test_times_at_the_end_of_the_calendar_are_shown(
    broker: BrokerUnderTest, bench: Operator, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are dates in UTC, but not east of Greenwich. They can be read, unlike the others here."""
    last = Opaque(b"T" + struct.pack(">Q", 253_402_300_799_000))  # milliseconds
    deaths = [{"count": 1, "queue": "q", "reason": "rejected", "exchange": "events", "time": last}]
    asyncio.run(
        put(broker.url, message("events", "Odd", 1, {"conversation_id": "c", "x-death": deaths}), event("Good", 2))
    )
    monkeypatch.setenv("TZ", "JST-9")
    time.tzset()
    try:
        for options in ((), ("--json",), ("--group-by", "age"), ("--group-by", "key")):
            ran = run_here(INSPECT, capsys, *options, broker.url, EVENTS_QUEUE)
            assert (ran.status, "2 shown of 2" in ran.err) == (cli.DONE, True), ran.err
    finally:
        monkeypatch.undo()
        time.tzset()


@asynchronous
async def test_monitor_and_what_it_records(
    broker: BrokerUnderTest, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "recording"
    async with watching("monitor", "--json", "--record", str(path), "-", url=broker.url) as started:
        await put(broker.url, *MESSAGES)
        lines = await started.lines.count(len(MESSAGES))
        check_shown([json.loads(line) for line in lines])
        ran = await interrupted(started)
    assert ran.line == "monitor.py: watching events #, commands #, configurations #; Ctrl-C ends"  # no link was lost
    recorded = list(read_recording(str(path)))
    assert [isinstance(delivery.properties, Unreadable) for delivery in recorded] == [True, False] * KINDS
    check_shown([fields(delivery) for delivery in recorded])
    status = await asyncio.to_thread(TRACE.main, ["--from", str(path), "--json", "c"], prog="trace")
    assert status == cli.DONE
    check_shown([json.loads(line) for line in capsys.readouterr().out.splitlines()])


@asynchronous
async def test_logger(broker: BrokerUnderTest) -> None:
    record = gelf_record(service="a", hostname="h", pid=1, timestamp=1.0, level=NOTICE, short="hello")
    logs = [replace(put, exchange="logs", key="a.NOTICE", body=record) for put, words in UNREADABLE.values()]
    good = replace(event("Good", 1), exchange="logs", key="a.NOTICE", body=record)
    async with watching("logger", "--json", "-", url=broker.url) as started:
        await put(broker.url, *logs, good)
        lines = await started.lines.count(len(logs) + 1)
        ran = await interrupted(started)
    assert ran.err.count("\n") == 1, ran.err
    *shown, last = map(json.loads, lines)
    assert last["short_message"] == "hello"
    for each, words in zip(shown, REASONS, strict=True):
        assert each.get("short_message") == "hello" or words in each["error"], each
