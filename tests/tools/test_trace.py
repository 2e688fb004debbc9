"""``trace`` as a program: its three forms, from a recording and by watching."""

from __future__ import annotations

import asyncio
import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from eda_core.testing.broker import Broker, Outgoing
from eda_tools.broker import EmbeddedBrokerThread
from eda_tools.messages.delivery import Delivery
from eda_tools.trace import TOOL
from tests.support.services import BrokerUnderTest, Probe, asynchronous, peer, running
from tests.support.tools import Ran, interrupted, on_terminal, run_here, run_tool, watching
from tests.tools.diagrams.test_conversation import INFERRED, KNOWN
from tests.tools.samples import event, message, recording

UUID = "5b01ee80-adc9-4a66-91b6-0b4c85c00ec%d"

# As a program


def test_a_recording_is_drawn_as_a_tree(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ran = run_here(TOOL, capsys, "--from", recording(tmp_path / "r.cbors", *KNOWN))
    assert ran == Ran(
        0,
        "conversation conv\n"
        '└── event Received  +0.000 s  by inbox  {"n": 1}\n'
        "    ├── command worker.Do  +0.100 s  by desk  null\n"
        "    │   └── result desk.DoReturn success  +0.200 s  by worker  null\n"
        "    │       └── event Done  +0.300 s  by desk  null\n"
        "    └── event Counted  +0.400 s  by counter  null\n",
        "",
    )


def test_inferred_edges_are_marked_in_all_three_outputs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = recording(tmp_path / "r.cbors", *INFERRED)
    assert run_here(TOOL, capsys, "--from", path, "conv").out == (
        "conversation conv\n"
        '└── event Received  +0.000 s  {"n": 1}\n'
        "    └── ~ command worker.Do  +0.100 s  by ~desk  (inferred by time)  null\n"
        "        └── ~ result desk.DoReturn success  +0.200 s  by ~worker  (inferred by correlation id)  null\n"
        "            └── ~ event Done  +0.300 s  by ~desk  (inferred by time)  null\n"
    )
    assert run_here(TOOL, capsys, "--from", path, "--mermaid").out.splitlines() == [
        "sequenceDiagram",
        "    participant p1 as unknown",
        "    participant p2 as desk",
        "    participant p3 as worker",
        "    participant p4 as (events)",
        "    p1->>p2: 1. event Received",
        "    p2-->>p3: 2. command worker.Do (after 1, inferred)",
        "    p3-->>p2: 3. result desk.DoReturn success (after 2, inferred)",
        "    p2-->>p4: 4. event Done (after 3, inferred)",
    ]
    found = run_here(TOOL, capsys, "--from", path, "--json").objects
    keys = ("number", "kind", "name", "service", "service_inferred", "cause", "edge", "inferred")
    assert [[each[key] for key in keys] for each in found] == [
        [1, "event", "Received", None, False, None, None, False],
        [2, "command", "worker.Do", "desk", True, 1, "time", True],
        [3, "result", "desk.DoReturn", "worker", True, 2, "correlation", True],
        [4, "event", "Done", "desk", True, 3, "time", True],
    ]
    assert found[0]["payload"] == {"n": 1}
    assert found[3]["elapsed"] == 0.3


def test_the_bytes_of_what_cannot_be_read_are_in_its_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    broken = event("Broken", 0)
    broken.body = b"\xff{"
    (found,) = run_here(TOOL, capsys, "--from", recording(tmp_path / "r.cbors", broken), "--json").objects
    assert (found["kind"], found["body"]) == ("invalid", "/3s=")


def test_a_diagram_that_pages_do_not_draw_is_told_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for count, told in (
        (600, ""),
        (2_000, r"trace: 120,729 characters and 2,000 arrows: pages draw no more than .*\n"),
    ):
        path = recording(tmp_path / f"{count}.cbors", *(event(f"Happened{n}", n) for n in range(count)))
        ran = run_here(TOOL, capsys, "--from", path, "--mermaid")
        assert ran.status == 0
        assert re.fullmatch(told, ran.err), ran.err


@asynchronous
async def test_several_conversations_are_listed(tmp_path: Path) -> None:
    path = recording(tmp_path / "r.cbors", *KNOWN, event("Other", 9, conversation="x\x1by"))
    ran = await run_tool("trace", "--from", path)
    assert (ran.status, ran.err) == (0, "")
    assert re.search(r"conv +│ 2026-05-01 .* │ 0.400 s │ 5 +│ event Received", ran.out)
    assert r"x\x1by" in ran.out
    named = recording(tmp_path / "ids.cbors", *(event("SomethingHappened", n, conversation=UUID % n) for n in (1, 2)))
    command = (sys.executable, "-m", "eda_tools.trace", "--from", named)
    _, sent = await asyncio.to_thread(on_terminal, *command, env={"COLUMNS": "80"})
    assert UUID % 1 in sent, "it cannot be copied"
    assert UUID % 2 in sent
    listed = await run_tool("trace", "--from", path, "--json")
    assert [(each["conversation_id"], each["messages"]) for each in listed.objects] == [("conv", 5), ("x\x1by", 1)]
    assert "5 words" not in ran.err


@pytest.mark.parametrize(
    ("words", "status", "line"),
    [
        (["--from", "{}", "nope"], 1, "{}: conversation nope is not in it; there are conv, other"),
        (["--from", "{}", "--mermaid"], 2, "{} has 2 conversations; name one to draw"),
        (["--from", "{}", "--mermaid", "--json"], 2, "--mermaid or --json, not both"),
        (["--from", "{}", "a", "b"], 2, "unrecognized arguments: b"),
        (["--from", "{}", "--count", "2"], 2, "--count and --idle-timeout are for watching, not for --from"),
        (["--from", "{}", "--where", "payload == 7"], 1, "{}: there is no such message in it"),
        (["--from", "{}", "--where", "payload ="], 2, "argument --where: column 9: = is not expected"),
        (["--from", "/nowhere/r"], 1, "/nowhere/r: No such file or directory"),
        (["amqp://h/"], 2, "give CONVERSATION_ID, or --from FILE"),
        (["conv"], 2, "no URL: give one or set EDA_AMQP_URL, or give --from FILE"),
        (
            ["http://u:secret@h/", "conv"],
            2,
            "argument amqp_url: broker URL 'http://u:***@h/': the scheme is not amqp or amqps; write it as",
        ),
        (["-", "conv"], 2, "argument amqp_url: the broker's URL is '-', but EDA_AMQP_URL is not set"),
        (
            ["amqp://guest:secret@127.0.0.1:1/", "conv"],
            4,
            "no connection to amqp://guest:***@127.0.0.1:1/: connection ref",
        ),
    ],
)
def test_what_cannot_be_drawn_is_told_in_one_line(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    status: int,
    line: str,
) -> None:
    monkeypatch.delenv("EDA_AMQP_URL", raising=False)
    path = recording(tmp_path / "r.cbors", KNOWN[0], event("Other", 1, conversation="other"))
    ran = run_here(TOOL, capsys, *(word.format(path) for word in words))
    assert (ran.status, ran.out) == (status, "")
    assert ran.line.startswith(f"trace: {line.format(path)}")


def test_a_recording_that_is_cut_off_is_drawn_so_far(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = Path(recording(tmp_path / "r.cbors", *KNOWN)).read_bytes()
    (tmp_path / "r.cbors").write_bytes(whole[:-3])
    ran = run_here(TOOL, capsys, "--from", str(tmp_path / "r.cbors"))
    assert ran.status == 3
    assert "event Done" in ran.out
    assert re.search(r"r\.cbors: cut off in message 5, which begins at byte \d+$", ran.line)
    (tmp_path / "r.cbors").write_bytes(b"\xff not CBOR")
    ran = run_here(TOOL, capsys, "--from", str(tmp_path / "r.cbors"))
    assert (ran.status, ran.out) == (1, "")
    assert "message 1, at byte 0, is not one of a recording" in ran.line
    (tmp_path / "r.cbors").write_bytes(b"")
    assert run_here(TOOL, capsys, "--from", str(tmp_path / "r.cbors")).line.endswith("there is no message in it")


def test_on_a_terminal_it_is_coloured_and_as_wide_as_it(tmp_path: Path) -> None:
    path = recording(tmp_path / "r.cbors", event("Received", 0, {"text": "x" * 500}))
    status, sent = on_terminal(sys.executable, "-m", "eda_tools.trace", "--from", path)
    assert status == 0
    assert "\x1b[1;32mevent" in sent
    assert max(len(re.sub(r"\x1b\[[\d;]*m", "", line)) for line in sent.splitlines()) <= 100
    status, plain = on_terminal(sys.executable, "-m", "eda_tools.trace", "--from", path, env={"NO_COLOR": "1"})
    assert "\x1b" not in plain


def test_each_message_of_a_deep_conversation_can_be_read_on_a_terminal(tmp_path: Path) -> None:
    deep = [
        event(f"Step{n:02}", n, app_id="svc", message_id=f"m{n}", cause=f"m{n - 1}" if n else None) for n in range(40)
    ]
    path = recording(tmp_path / "r.cbors", *deep)
    for columns in ("80", "120"):
        status, sent = on_terminal(
            sys.executable, "-m", "eda_tools.trace", "--from", path, env={"NO_COLOR": "1", "COLUMNS": columns}
        )
        assert status == 0
        assert re.findall(r"event (Step\d\d)  \+\d", sent) == [f"Step{n:02}" for n in range(40)]
        assert "(level 39)" in sent


def failed(level: int, outcome: str, text: str, at: float) -> Delivery:
    """What the service worker logs about the command worker.Do."""
    record = {
        "short_message": text,
        "level": level,
        "_outcome": outcome,
        "_routing_key": "worker.Do",
        "_logical_service": "worker",
        "_conversation_id": "conv",
    }
    return message("logs", "worker.ALERT", at, record)


def test_dead_letters_are_in_the_tree(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    logs = (
        failed(1, "retry", "worker.Do: ValueError: 13", 0.11),
        failed(1, "dead-letter", "worker.Do: ValueError: \x1b 13", 0.12),
        failed(0, "dead-letter", "giving up on worker.Do", 0.13),
    )
    dead = event("Lost", 0.5, cause="gone")
    assert dead.properties.headers is not None
    dead.properties.headers["x-death"] = [{"queue": "a.events", "reason": "expired", "exchange": "events", "count": 1}]
    path = recording(tmp_path / "r.cbors", *KNOWN[:2], *logs, dead)
    assert run_here(TOOL, capsys, "--from", path).out == (
        "conversation conv\n"
        '├── event Received  +0.000 s  by inbox  {"n": 1}\n'
        "│   └── command worker.Do  +0.100 s  by desk  null\n"
        "│       ├── ✗ failed  in worker  worker.Do: ValueError: 13\n"
        "│       ├── ✗ failed  in worker  worker.Do: ValueError: \\x1b 13\n"
        "│       └── ✗ given up  in worker  giving up on worker.Do\n"
        "└── event Lost  +0.500 s  (its cause gone was not seen)  null\n"
        "    └── ✗ dead letter  in a  expired in a.events\n"
    )
    found = run_here(TOOL, capsys, "--from", path, "--json").objects
    assert [len(each["failures"]) for each in found] == [0, 3, 1]
    assert found[1]["failures"][2] == {
        "outcome": "given up",
        "text": "giving up on worker.Do",
        "service": "worker",
    }


def test_the_beginning_of_an_id_is_enough(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = recording(tmp_path / "r", event("A", 0, conversation=UUID % 1), event("B", 1, conversation="other"))
    assert run_here(TOOL, capsys, "--from", path, UUID[:8]).out.startswith(f"conversation {UUID % 1}\n")
    assert run_here(TOOL, capsys, "--from", path, UUID[:7]).status == 1


# Live


class Failing(Probe):
    async def on_Received(self, payload: Any, conversation_id: str, meta: dict[str, Any]) -> None:
        raise ValueError("on purpose")


@asynchronous
async def test_a_dead_letter_is_drawn_live(broker: BrokerUnderTest) -> None:
    async with running(service := Failing(broker.url, ["Received"], [], "failing")):
        async with watching("trace", broker.url, "conv-1", "--idle-timeout", "5") as live:
            await service.publish_event("Received", 1, "conv-1")
            status = await live.end()
    assert status == 0, live.errors
    assert [line.partition("✗ ")[2].split("  ")[0] for line in live.lines.all[2:]] == [
        "failed",
        "failed",
        "given up",
    ]


class Desk(Probe):
    """A service that sends itself a command and publishes the result."""

    async def on_Received(self, payload: Any, conversation_id: str, meta: dict[str, Any]) -> None:
        await self.send_command("desk.Do", payload, conversation_id, "desk.DoReturn", "c-1")

    async def on_Do(
        self, payload: Any, conversation_id: str, reply_to: str, correlation_id: str, meta: dict[str, Any]
    ) -> None:
        await self.return_success(reply_to, payload, conversation_id, correlation_id)

    async def on_DoReturn(
        self, payload: Any, conversation_id: str, status: str, correlation_id: str, meta: dict[str, Any]
    ) -> None:
        self.seen.add(status)


TREE = re.compile(
    r"conversation conv-1\n"
    r'└── event Received  \+0\.000 s  by desk  \{"é": 1\}\n'
    r'    └── command desk\.Do  \+0\.\d{3} s  by desk  \{"é": 1\}\n'
    r'        └── result desk\.DoReturn success  \+0\.\d{3} s  by desk  \{"é": 1\}\n'
)


@asynchronous
async def test_a_conversation_is_drawn_live(broker: BrokerUnderTest) -> None:
    desk = Desk(broker.url, ["Received"], ["desk.Do", "desk.DoReturn"], "desk")
    async with running(desk):
        async with watching("trace", "-", "conv-1", "--count", "3", url=broker.url) as live:
            await desk.publish_event("Received", {"é": 2}, "another")
            await desk.publish_event("Received", {"é": 1}, "conv-1")
            status = await live.end()
    assert status == 0, live.errors
    assert TREE.fullmatch("".join(f"{line}\n" for line in live.lines.all)), live.lines.all
    assert live.errors == "trace.py: watching for messages of conversation conv-1; Ctrl-C ends\n"


@asynchronous
async def test_ctrl_c_draws_what_there_is() -> None:
    with EmbeddedBrokerThread() as embedded:
        desk = Desk(embedded.url, ["Received"], ["desk.Do", "desk.DoReturn"], "desk")
        async with running(desk):
            async with watching("trace", embedded.url, "conv-1") as live:
                await desk.publish_event("Received", {"é": 1}, "conv-1")
                await desk.seen.count(1)
                while not await asyncio.to_thread(_all_taken, embedded):
                    await asyncio.sleep(0.01)  # only the broker knows when
                ran = await interrupted(live)
    assert ran.status == 130
    assert TREE.fullmatch(ran.out), ran.out
    assert ran.line.endswith("Ctrl-C ends")


def _all_taken(embedded: EmbeddedBrokerThread) -> bool:
    """Whether every message is acknowledged."""
    left: list[object] = []

    def look(model: Broker, now: float) -> list[Outgoing]:
        for name in model.queue_names():
            left.extend([*model.messages(name), *model.unacked(name)])
        return []

    embedded.operate(look)
    return not left


@asynchronous
async def test_on_a_terminal_the_tree_grows_and_stays() -> None:
    with EmbeddedBrokerThread() as embedded:
        desk = Desk(embedded.url)
        async with running(desk):
            command = (sys.executable, "-m", "eda_tools.trace", "-", "conv-1", "--count", "2")
            shown = asyncio.create_task(asyncio.to_thread(on_terminal, *command, url=embedded.url))
            while not await asyncio.to_thread(_subscribed, embedded):
                await asyncio.sleep(0.01)  # only the terminal knows when, which is read to its end
            for name in ("First", "Second"):
                await desk.publish_event(name, 1, "conv-1")
            status, sent = await shown
    assert status == 0
    final = re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "", sent.replace("\r", "\n")).rpartition("conversation conv-1\n")[2]
    assert re.fullmatch(
        r"├── event First  \+0\.000 s  by probe  1\n└── event Second  \+\d\.\d{3} s  by probe  1\n", final
    ), sent


def _subscribed(embedded: EmbeddedBrokerThread) -> bool:
    """Whether somebody consumes everything."""
    found: list[object] = []

    def look(model: Broker, now: float) -> list[Outgoing]:
        for name in model.queue_names():
            found.extend(model.consumers(name))
        return []

    embedded.operate(look)
    return len(found) >= 4  # the logs, too


@asynchronous
async def test_it_survives_a_lost_connection(broker: BrokerUnderTest) -> None:
    desk = Desk(broker.url)
    later = ("--where", 'name =~ "^Later"', "--count", "2")
    async with running(desk):
        async with watching("trace", broker.url, "conv-1", "--json", *later) as live:
            await broker.cut()
            await live.notes.until(lambda lines: any("connected again" in line for line in lines), "reconnected")
            await desk.ready.count(2)
            for name in ("Later", "LaterStill"):
                await desk.publish_event(name, 2, "conv-1")
            status = await live.end()
    assert status == 0, live.errors
    assert [json.loads(line)["name"] for line in live.lines.all] == ["Later", "LaterStill"]


@asynchronous
async def test_it_ends_when_nothing_more_comes(broker: BrokerUnderTest) -> None:
    async with peer(broker.url) as client:
        async with watching("trace", broker.url, "conv-1", "--idle-timeout", "1") as live:
            await client.publish("events", "Broken", b"{", headers={"conversation_id": "conv-1"})
            status = await live.end()
    assert status == 0, live.errors
    assert re.fullmatch(
        r"conversation conv-1\n└── invalid Broken  \+0\.000 s  malformed JSON: .*", "\n".join(live.lines.all)
    )


@asynchronous
async def test_nothing_in_time(broker: BrokerUnderTest) -> None:
    idle, timed = await asyncio.gather(
        run_tool("trace", broker.url, "conv", "--idle-timeout", "0.2"),
        run_tool("trace", broker.url, "conv", "--timeout", "1"),
    )
    assert (idle.status, idle.out) == (124, "")
    assert idle.err.splitlines()[-1] == "trace.py: no message of conversation conv came within 0.2 s"
    assert (timed.status, timed.out) == (124, "")
    assert timed.err.splitlines()[-1].endswith("timed out after 1 s")


@asynchronous
async def test_refused_credentials(broker: BrokerUnderTest) -> None:
    ran = await run_tool("trace", broker.url_with_password("wr0ng"), "conv")
    assert (ran.status, ran.out) == (4, "")
    assert "refuses the user 'guest' or its password" in ran.line
    assert "wr0ng" not in ran.line
