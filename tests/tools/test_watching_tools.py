"""monitor and logger, as processes, on both brokers: they show what is published and disturb nobody."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import cbor2
import pytest
from aiormq.exceptions import DeliveryError
from pamqp.commands import Basic, Queue

from eda_core import Limits
from eda_core.machine.topology import declarations, subscriptions
from eda_tools import logger, monitor
from eda_tools.bus import service
from eda_tools.cli import status as cli
from eda_tools.messages.delivery import Delivery, fields
from eda_tools.messages.recording import read_recording
from tests.support.services import (
    BrokerUnderTest,
    Peer,
    Probe,
    Program,
    asynchronous,
    peer,
    running,
    within,
)
from tests.support.tools import Ran, interrupted, on_terminal, run_here, run_tool, watching


async def publish(client: Peer, exchange: str, key: str, payload: Any, headers: Any = None, **properties: Any) -> None:
    """Publish as eventail does, except for what the test passes."""
    headers = {"conversation_id": "c"} if headers is None else headers
    body = payload if isinstance(payload, bytes) else cbor2.dumps(payload)
    await client.publish(
        exchange, key, body, headers=headers, content_type="application/cbor", delivery_mode=2, **properties
    )


async def finished(started: Program) -> Ran:
    """Wait for a tool that ends by itself."""
    status = await started.end()
    return Ran(status, "".join(f"{line}\n" for line in started.lines.all), started.errors)


class Notes:
    """Stands for the output of a tool."""

    def __init__(self) -> None:
        self.all: list[str] = []

    def note(self, text: str) -> None:
        self.all.append(text)


@pytest.mark.parametrize(("most", "size"), [(3, 10**6), (10**6, 30)], ids=["messages", "bytes"])
@asynchronous
async def test_what_comes_too_fast_is_dropped_and_counted(
    most: int, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "MOST_WAITING", most)
    monkeypatch.setattr(service, "MOST_BYTES", size)
    output: Any = Notes()
    watch = service.Watch(["amqp://127.0.0.1:1/"], "monitor", output, events=["#"])
    for number in range(10):
        body = b"%10d" % number
        await watch.handle(watch.read_delivery("events", "Counted", Basic.Properties(), body, Limits()))
    for number in (7, 8, 9):
        delivery = await watch.next()
        assert delivery is not None
        assert int(delivery.body) == number
    assert output.all == ["7 messages were missed: they came faster than they could be shown"]


def test_the_queues_of_a_watching_tool_are_bounded() -> None:
    """The broker drops the oldest messages of a tool that reads nothing, such as one that is stopped."""
    output: Any = Notes()
    watch = service.Watch(["amqp://127.0.0.1:1/"], "monitor", output, events=["#"], configurations=["#"])
    machine = watch.make_machine(random=lambda: 0.5, token="t", wall_offset=0.0)
    declared = declarations(subscriptions(machine.config), ())
    lengths = [each.arguments for each in declared if isinstance(each, Queue.Declare)]
    assert lengths == [{"x-max-length": service.MOST_WAITING}] * 2


# --- monitor ---


@asynchronous
async def test_everything_is_shown_even_what_is_invalid(broker: BrokerUnderTest) -> None:
    async with peer(broker.url) as client, watching("monitor", "--json", "-", url=broker.url) as started:
        await publish(client, "events", "Done", {"a": 1, "raw": b"\xff"}, timestamp=1_700_000_000)
        await publish(client, "commands", "echo.Echo", {}, reply_to="me.R", correlation_id="7")
        await publish(client, "commands", "me.R", "no", {"conversation_id": "c", "status": "error"}, correlation_id="7")
        await publish(client, "configurations", "Settings", [1], {})
        await publish(client, "events", "Broken", b"\xff")
        lines = await started.lines.count(5)
        shown = {line["name"]: line for line in map(json.loads, lines)}
        ran = await interrupted(started)
    assert (ran.status, len(ran.objects)) == (cli.INTERRUPTED, 5)
    assert ran.line == "monitor.py: watching events #, commands #, configurations #; Ctrl-C ends"
    kinds = {name: line["kind"] for name, line in shown.items()}
    assert kinds == {
        "Done": "event",
        "echo.Echo": "command",
        "me.R": "result",
        "Settings": "configuration",
        "Broken": "invalid",
    }
    assert shown["Done"]["payload"] == {"a": 1, "raw": "/w=="}
    assert shown["Done"]["properties"]["timestamp"] == "2023-11-14T22:13:20+00:00"
    assert (shown["echo.Echo"]["reply_to"], shown["me.R"]["status"]) == ("me.R", "error")
    assert shown["Broken"]["body"] == "/w=="
    assert shown["Broken"]["error"].startswith("malformed CBOR")


@asynchronous
async def test_subscriptions_count_and_text(broker: BrokerUnderTest) -> None:
    """Without --json, and with the URL after options that take any number of values."""
    words = ("--full", "--commands", "--events", "A.*", "B", "--count", "2", broker.url)
    async with peer(broker.url) as client, watching("monitor", *words) as started:
        await publish(client, "configurations", "Settings", 1)
        await publish(client, "commands", "B", 2, reply_to="me.R")
        await publish(client, "events", "A", 3)
        await publish(client, "events", "A.x", "\x1b[2J")
        await publish(client, "events", "B", {"a": 1})
        ran = await finished(started)
    assert (ran.status, ran.line) == (cli.DONE, "monitor.py: watching events A.* B; Ctrl-C ends")
    first, second, rest = ran.out.split("\n\n")
    assert first.splitlines()[0].startswith("event A.x  ")
    assert first.splitlines()[1] == "  conversation: c"
    assert first.splitlines()[-1] == '"\\u001b[2J"'
    assert second.splitlines()[-3:] == ["{", '  "a": 1', "}"]
    assert rest == ""


@asynchronous
async def test_a_message_is_one_line(broker: BrokerUnderTest) -> None:
    async with peer(broker.url) as client, watching("monitor", "--count", "3", broker.url) as started:
        await publish(client, "events", "Done", {"a": "\x1b[2J\n"}, {"conversation_id": "12345678-9"}, app_id="echo")
        await publish(client, "commands", "me.R", 1, {"conversation_id": "c", "status": "error"}, correlation_id="7")
        await publish(client, "configurations", "Settings", [1], {})
        ran = await finished(started)
    assert (ran.status, "\x1b" in ran.out) == (cli.DONE, False)
    lines = sorted(line.split("  ", 1)[1].split() for line in ran.out.splitlines())
    assert lines == [
        ["-", "config", "Settings", "[1]"],
        ["-", "result", "me.R", "c", "error", "1"],
        ["echo", "event", "Done", "12345678", '{"a":', '"\\u001b[2J\\n"}'],
    ]


@asynchronous
async def test_only_what_is_asked_for_is_shown_and_recorded(broker: BrokerUnderTest, tmp_path: Path) -> None:
    conditions = ("--where", "payload.n >= 2", "--conversation", "c", "--filter_fields", "client_id=123", "deep.x=y=z")
    options = ("--json", "--count", "2", "--record", str(tmp_path / "r.cbor"))
    right = {"n": 2, "client_id": 123, "deep": {"x": "y=z"}}
    async with peer(broker.url) as client, watching("monitor", *conditions, *options, broker.url) as started:
        for wrong in ({"n": 1}, {"client_id": 1234}, {"client_id": None}, {"deep": 1}):
            await publish(client, "events", "Wrong", {**right, **wrong})
        await publish(client, "events", "Wrong", right, {"conversation_id": "other"})
        await publish(client, "events", "Wrong", [1])
        await publish(client, "events", "Right", right, priority=3)
        await publish(client, "events", "Right", {**right, "client_id": "123"})
        ran = await finished(started)
    assert ran.status == cli.DONE
    assert [line["name"] for line in ran.objects] == ["Right"] * 2
    recorded = list(read_recording(str(tmp_path / "r.cbor")))
    assert [cbor2.loads(delivery.body)["client_id"] for delivery in recorded] == [123, "123"]
    assert (recorded[0].exchange, recorded[0].routing_key, recorded[0].properties.priority) == ("events", "Right", 3)
    assert recorded[0].received.isoformat() == ran.objects[0]["received"]


@pytest.mark.parametrize("form", ["", "--full", "--json"])
@asynchronous
async def test_payloads_are_saved(form: str, broker: BrokerUnderTest, tmp_path: Path) -> None:
    as_json = form == "--json"
    words = ("--count", "4", *form.split(), "--save")
    value = {"é": b"\xff"}
    async with peer(broker.url) as client, watching("monitor", *words, broker.url, cwd=tmp_path) as started:
        await publish(client, "events", "Done", value)
        await publish(client, "events", "Done", value)
        await publish(client, "commands", "me.R", value, {"conversation_id": "c/../d", "status": "success"})
        await publish(client, "events", "Broken", b"\xff", {})
        ran = await finished(started)
    assert ran.status == cli.DONE
    extension = "json" if as_json else "cbor"
    names = [f"Done.c.{extension}", f"Done.c.2.{extension}", f"me.R-result.c_.._d.{extension}", "Broken.na.bin"]
    assert {path.name for path in tmp_path.iterdir()} == set(names)
    for name in names[:3]:
        body = (tmp_path / name).read_bytes()
        assert (json.loads(body) if as_json else cbor2.loads(body)) == ({"é": "/w=="} if as_json else value)
    assert (tmp_path / "Broken.na.bin").read_bytes() == b"\xff"
    if as_json:
        assert sorted(line["saved"] for line in ran.objects) == sorted(names)
    else:
        assert ran.out.count("\n  payload saved as " if form else "  saved as ") == 4
        assert '"é"' not in ran.out


@asynchronous
async def test_it_comes_back_after_a_lost_connection(broker: BrokerUnderTest) -> None:
    async with watching("monitor", "--json", "--count", "2", broker.url) as started:
        async with peer(broker.url) as client:
            await publish(client, "events", "Before", 1)
            await started.lines.count(1)
        await broker.cut()
        await started.notes.until(lambda lines: "connected again" in lines[-1], "it is connected again")
        async with peer(broker.url) as client:
            await publish(client, "events", "After", 1)
            ran = await finished(started)
    assert ran.status == cli.DONE
    assert [line["name"] for line in ran.objects] == ["Before", "After"]
    lost, again = ran.err.splitlines()[1:]
    assert lost.startswith("monitor.py: no link to amqp://guest:***@")
    assert again == "monitor.py: connected again; what was published in between has not been seen"


@asynchronous
async def test_those_who_serve_are_not_disturbed(broker: BrokerUnderTest) -> None:
    """What a monitor shows also reaches its service, once, and the monitor leaves nothing behind."""
    service = Probe(broker.url, ["Done"], [], "quiet")
    service.handle = lambda message: service.seen.add(message.payload)  # type: ignore[method-assign]
    async with running(service), peer(broker.url) as client:
        async with watching("monitor", "--json", broker.url) as started:
            for number in range(300):
                await publish(client, "events", "Done", number)
            await started.lines.count(300)
            ran = await interrupted(started)
        assert [line["payload"] for line in ran.objects] == list(range(300))
        assert await service.seen.count(300) == list(range(300))
        ran = await run_tool("publish_event", broker.url, "Unheard", "--data", "1")
        assert ran.status == cli.FAILED


async def ended(capsys: pytest.CaptureFixture[str], *arguments: str) -> Ran:
    return await within(asyncio.to_thread(run_here, monitor.TOOL, capsys, *arguments), "the end of monitor")


@pytest.mark.parametrize(
    ("options", "status", "told"),
    [
        ("--timeout 3", cli.TIMED_OUT, "monitor: timed out after 3 s"),
        ("--idle-timeout 0.3", cli.DONE, ""),
        ("--idle-timeout 0.3 --count 2", cli.TIMED_OUT, "monitor: 0 of 2 came, then nothing for 0.3 s"),
    ],
)
@asynchronous
async def test_ends_by_time(
    options: str, status: int, told: str, broker: BrokerUnderTest, capsys: pytest.CaptureFixture[str]
) -> None:
    ran = await ended(capsys, broker.url, *options.split())
    assert (ran.status, ran.out) == (status, "")
    assert ran.err.splitlines()[1:] == [told][: len(told)]


@asynchronous
async def test_a_steady_stream_of_unwanted_messages_is_quiet(
    broker: BrokerUnderTest, capsys: pytest.CaptureFixture[str]
) -> None:
    over = asyncio.Event()
    async with peer(broker.url) as client:
        await client.channel.declare_exchange("events", "topic", durable=True)

        async def stream() -> None:
            while not over.is_set():
                with suppress(DeliveryError):  # RabbitMQ 4.3 refuses what finds the tool's queue being deleted
                    await publish(client, "events", "Unwanted", 1)

        streaming = asyncio.create_task(stream())
        ran = await ended(capsys, broker.url, "--where", "name == 'Wanted'", "--idle-timeout", "0.3")
        over.set()
        await streaming
    assert (ran.status, ran.out) == (cli.DONE, "")


@pytest.mark.parametrize(
    ("options", "status", "told"),
    [
        ("--where payload.x=1", cli.USAGE, "monitor: argument --where: column 10: = is not expected"),
        ("--filter_fields client_id", cli.USAGE, "monitor: argument --filter_fields: 'client_id' is not FIELD=VALUE"),
        ("--record /nowhere/r.cbor", cli.FAILED, "monitor: /nowhere/r.cbor: No such file or directory"),
    ],
)
def test_wrong_options(options: str, status: int, told: str, capsys: pytest.CaptureFixture[str]) -> None:
    ran = run_here(monitor.TOOL, capsys, "amqp://127.0.0.1:1/", *options.split())
    assert ran.status == status
    assert ran.line.startswith(told)


@asynchronous
async def test_a_payload_that_cannot_be_saved_ends_it(
    broker: BrokerUnderTest, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    async with peer(broker.url) as client:
        await client.channel.declare_exchange("events", "topic", durable=True)
        watcher = asyncio.create_task(ended(capsys, broker.url, "--save", str(tmp_path / "file"), "--timeout", "15"))
        while not watcher.done():  # until it has subscribed, nobody gets them
            with suppress(DeliveryError):  # RabbitMQ 4.3 refuses what finds the tool's queue being deleted
                await publish(client, "events", "Done", 1)
    ran = await watcher
    assert ran.status == cli.FAILED
    assert ran.err.splitlines()[-1].startswith(f"monitor: {tmp_path / 'file'}: ")


@asynchronous
async def test_a_star_within_a_word_is_warned_of(broker: BrokerUnderTest, capsys: pytest.CaptureFixture[str]) -> None:
    ran = await ended(capsys, broker.url, "--events", "*.x", "Transcript*", "#", "--idle-timeout", "0.1")
    assert ran.status == cli.DONE
    warning, _ = ran.err.splitlines()
    assert warning.startswith("monitor: in Transcript*, * and # stand for whole words only")


# --- rates ---


@asynchronous
async def test_rates_are_told_at_the_end_where_there_is_no_terminal(broker: BrokerUnderTest) -> None:
    async with peer(broker.url) as client:
        for options, count in ((("--json",), 3), ((), 2)):
            async with watching("monitor", "--stats", *options, "--count", str(count), broker.url) as started:
                for number in range(count):
                    await publish(client, "events", "Done" if number else "Begun", number)
                ran = await finished(started)
            assert ran.status == cli.DONE
            if options:
                told = [(line["kind"], line["name"], line["count"], line["bytes"]) for line in ran.objects]
                assert told == [("event", "Done", 2, 2), ("event", "Begun", 1, 1)]
            else:
                assert ran.out.count("│ event │") == 2
    async with watching("monitor", "--stats", broker.url) as started:
        ran = await interrupted(started)
    assert ran.status == cli.INTERRUPTED
    assert "per second" in ran.out


@asynchronous
async def test_rates_are_live_on_a_terminal(broker: BrokerUnderTest) -> None:
    command = (sys.executable, "-m", "eda_tools", "monitor", "-", "--stats", "--idle-timeout", "1")
    status, screen = await asyncio.to_thread(on_terminal, *command, url=broker.url)
    assert status == cli.DONE
    assert screen.count("per second") > 1  # drawn again
    assert screen.count("\x1b[?25l") == screen.count("\x1b[?25h") == 1  # the cursor is hidden, and shown again


# --- logger ---


def record(level: int, service: str = "echo", **fields: Any) -> bytes:
    """A log record as eventail writes it."""
    return json.dumps(
        {
            "version": "1.1",
            "host": f"{service}@h",
            "short_message": "short",
            "full_message": "",
            "timestamp": 1_700_000_000.25,
            "level": level,
            "_levelname": "EMERGENCY ALERT CRITICAL ERROR WARNING NOTICE INFO DEBUG".split()[level],
            "_conversation_id": "c",
            "_logical_service": service,
            "_worker_pid": 12,
            **fields,
        }
    ).encode()


Log = Callable[..., Awaitable[None]]


def logs(client: Peer) -> Log:
    async def log(key: str, body: bytes) -> None:
        await client.publish("logs", key, body)

    return log


@asynchronous
async def test_logs_are_laid_out(broker: BrokerUnderTest) -> None:
    async with peer(broker.url) as client, watching("logger", "--count", "4", broker.url) as started:
        log = logs(client)
        await log("echo.WARNING", record(4, _n=1, _deep={"x": "\x1b[2J"}, full_message="two\nlines\x07\n"))
        await log("echo.INFO", record(6, timestamp="long ago", _conversation_id="", _logical_service=""))
        await log("odd", b'{"short_message": "hello"}')
        await log("echo.ERROR", b"no JSON")
        ran = await finished(started)
    assert (ran.status, ran.line) == (cli.DONE, "logger.py: watching logs #; Ctrl-C ends")
    lines = ran.out.splitlines()
    assert "23" in lines[0].split()[0]
    assert lines[0].split(" ", 2)[2] == "WARNING   echo short"
    assert lines[1:7] == [
        "    conversation: c",
        "    from: echo@h pid 12",
        "    n: 1",
        r"    deep: {'x': '\x1b[2J'}",
        "    two",
        r"    lines\x07",
    ]
    assert lines[7].split(" ", 2)[2] == "INFO      echo short"
    assert lines[8] == "    from: echo@h pid 12"
    assert lines[9].split(" ", 2)[2] == "?         odd hello"
    assert lines[10].startswith("invalid echo.ERROR  ")


def shown(layout: logger.Layout, key: str, body: bytes) -> list[str]:
    return layout.text(fields(Delivery("logs", key, Basic.Properties(), body))).plain.splitlines()


def test_a_failure_is_shown_once() -> None:
    """As a service logs it: each attempt, then that it gives up, always with the traceback."""
    layout, trace = logger.Layout(), "Traceback (most recent call last):\n  File\nValueError: 13\n"
    common = {"full_message": trace, "_routing_key": "Boom"}
    first = shown(layout, "echo.ALERT", record(1, **common, _outcome="retry", _attempt=1))
    assert [line.strip() for line in first[1:]] == [
        "conversation: c",
        "from: echo@h pid 12",
        "routing_key: Boom",
        "outcome: retry",
        "attempt: 1",
        "Traceback (most recent call last):",
        "File",
        "ValueError: 13",
    ]
    again = shown(layout, "echo.ALERT", record(1, **common, _outcome="dead-letter", _attempt=2, _worker_pid=13))
    assert again[0] == first[0]
    time = first[0].partition(" ALERT")[0]
    rest = [f"    the rest is as at {time}"]
    assert again[1:] == ["    from: echo@h pid 13", "    outcome: dead-letter", "    attempt: 2", *rest]
    last = record(0, **common, _outcome="dead-letter", _attempt=1, short_message="giving up")
    assert shown(layout, "echo.EMERGENCY", last)[1:] == ["    outcome: dead-letter", *rest]


def test_only_the_same_message_of_the_same_conversation_and_service_is_left_out() -> None:
    layout = logger.Layout()
    for name, conversation, full in (("a", "1", "x"), ("b", "1", "x"), ("a", "2", "x"), ("a", "1", "y")):
        lines = shown(layout, "k", record(1, name, full_message=full, _conversation_id=conversation))
        assert lines[-1] == f"    {full}"
    assert shown(layout, "k", record(6, "a"))[1:] == shown(layout, "k", record(6, "a"))[1:]
    for number in range(1000):
        shown(layout, "k", record(1, "a", full_message=str(number)))
    assert len(layout._shown) == logger._REMEMBERED


@asynchronous
async def test_logs_are_selected(broker: BrokerUnderTest) -> None:
    options = ("--level", "warning", "--service", "tr*", "--count", "3", "--json")
    async with peer(broker.url) as client:
        async with watching("logger", *options, "--filter", "#", "x.y", "-", url=broker.url) as started:
            log = logs(client)
            await log("tr.INFO", record(6, "tr"))
            await log("other.ERROR", record(3, "other"))
            await log("tr.WARNING", record(4, "tr", short_message="1"))
            await log("tr.EMERGENCY", record(0, "tr", short_message="2"))
            await log("tr.DEBUG", b'{"short_message": "not"}')
            await log("tr.a.ERROR", b'{"short_message": "3"}')
            ran = await finished(started)
        assert ran.status == cli.DONE
        assert [line["short_message"] for line in ran.objects] == ["1", "2", "3"]
        assert ran.objects[0] == json.loads(record(4, "tr", short_message="1"))  # as it is

        async with watching("logger", "--filter", "a.*", "--json", "--count", "1", broker.url) as started:
            await log("b.ERROR", record(3))
            await log("a.ERROR", b"\xff")
            ran = await finished(started)
        assert ran.status == cli.DONE
        assert (ran.objects[0]["kind"], ran.objects[0]["body"]) == ("invalid", "/w==")


def test_levels_have_names_and_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    from eda_tools.logger import TOOL, _level

    assert [_level("Warning"), _level("7")] == [4, 7]
    ran = run_here(TOOL, capsys, "amqp://127.0.0.1:1/", "--level", "loud")
    assert ran.status == cli.USAGE
    assert ran.line.startswith("logger: argument --level: 'loud' is none of EMERGENCY, ALERT, ")


@asynchronous
async def test_logs_have_colours_on_a_terminal(broker: BrokerUnderTest) -> None:
    over = asyncio.Event()
    async with peer(broker.url) as client:
        await client.channel.declare_exchange("logs", "topic", durable=True)

        async def keep_logging() -> None:
            while not over.is_set():  # until it has subscribed, nobody gets them
                with suppress(DeliveryError):  # RabbitMQ 4.3 refuses what finds the tool's queue being deleted
                    await client.publish("logs", "echo.ERROR", record(3))

        logging = asyncio.create_task(keep_logging())
        command = (sys.executable, "-m", "eda_tools", "logger", "-", "--count", "1")
        status, screen = await asyncio.to_thread(on_terminal, *command, url=broker.url)
        over.set()
        await logging
    assert status == cli.DONE
    assert "\x1b[31mERROR    \x1b[0m\x1b[1m echo \x1b[0m\x1b[31mshort\x1b[0m" in screen
