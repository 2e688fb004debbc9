"""``trace``: who caused what, known or inferred and marked as such; drawn three ways, whatever the messages say."""

from __future__ import annotations

import asyncio
import json
import random
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eda_core.testing.broker import Broker, Outgoing
from eda_tools import mermaid
from eda_tools.broker import EmbeddedBrokerThread
from eda_tools.conversation import Step, build, walk
from eda_tools.delivery import Delivery, fields
from eda_tools.trace import TOOL, as_json, tree
from tests.support.services import BrokerUnderTest, Probe, asynchronous, peer, running
from tests.support.tools import Ran, interrupted, on_terminal, run_here, run_tool, watching
from tests.tools.messages import command, event, message, recording, result

# A conversation of services that write causation ids …
KNOWN = (
    event("Received", 0.0, {"n": 1}, app_id="inbox", message_id="i-1"),
    command("worker.Do", 0.1, reply_to="desk.DoReturn", app_id="desk", message_id="d-1", cause="i-1"),
    result("desk.DoReturn", 0.2, app_id="worker", message_id="w-1", cause="d-1"),
    event("Done", 0.3, app_id="desk", message_id="d-2", cause="w-1"),
    event("Counted", 0.4, app_id="counter", message_id="c-1", cause="i-1"),
)
# … and the same one of services that do not.
INFERRED = (
    event("Received", 0.0, {"n": 1}),
    command("worker.Do", 0.1, reply_to="desk.DoReturn"),
    result("desk.DoReturn", 0.2),
    event("Done", 0.3),
)


def built(*messages: Delivery) -> list[Step]:
    return build(map(fields, messages))


def edges(steps: list[Step]) -> list[tuple[str, str, str]]:
    return [(step.cause.name if step.cause else "", step.name, step.edge) for step in steps]


def told(steps: list[Step]) -> str:
    """The tree as plain text."""
    from rich.console import Console

    console = Console(width=1000, color_system=None, markup=False, highlight=False)
    with console.capture() as capture:
        console.print(tree(steps))
    return capture.get()


# What caused what


@given(st.randoms(use_true_random=False))
def test_known_causes_make_the_same_tree_in_any_order(source: random.Random) -> None:
    shuffled = list(KNOWN)
    source.shuffle(shuffled)
    steps = built(*shuffled)
    assert edges(steps) == [
        ("", "Received", ""),
        ("Received", "worker.Do", "causation"),
        ("worker.Do", "desk.DoReturn", "causation"),
        ("desk.DoReturn", "Done", "causation"),
        ("Received", "Counted", "causation"),
    ]
    assert [step.name for step in walk(steps)] == ["Received", "worker.Do", "desk.DoReturn", "Done", "Counted"]
    assert [step.level for step in steps] == [0, 1, 2, 3, 1]
    assert [step.elapsed for step in steps] == [0.0, 0.1, 0.2, 0.3, 0.4]


def test_causes_are_known_even_if_they_were_seen_later() -> None:
    late = message("events", "Received", 0.5, message_id="i-1")
    assert edges(built(KNOWN[1], late)) == [("Received", "worker.Do", "causation"), ("", "Received", "")]


def test_without_causation_ids_they_are_inferred_and_services_too() -> None:
    steps = built(*INFERRED)
    assert edges(steps) == [
        ("", "Received", ""),
        ("Received", "worker.Do", "time"),
        ("worker.Do", "desk.DoReturn", "correlation"),
        ("desk.DoReturn", "Done", "time"),
    ]
    assert [(step.service, step.service_inferred) for step in steps] == [
        ("", False),
        ("desk", True),
        ("worker", True),
        ("desk", True),
    ]
    assert [step.inferred for step in steps] == [False, True, True, True]


def test_results_find_their_own_command_among_several() -> None:
    steps = built(
        command("a.Do", 0, reply_to="desk.R", correlation="1"),
        command("b.Do", 1, reply_to="desk.R", correlation="2"),
        result("desk.R", 2, correlation="1"),
        result("desk.R", 3, correlation="2"),
        result("other.R", 4, correlation="1"),
    )
    assert edges(steps)[2:4] == [("a.Do", "desk.R", "correlation"), ("b.Do", "desk.R", "correlation")]
    assert steps[4].edge == "time"  # of another's command, which was not seen


def test_a_constant_correlation_id_means_the_latest_command_before() -> None:
    steps = built(
        *(command("a.Do", at, reply_to="desk.R", correlation="same") for at in (0, 2)),
        *(result("desk.R", at, correlation="same") for at in (1, 3)),
    )
    assert [(step.number, step.cause.number) for step in steps if step.cause and step.kind == "result"] == [
        (2, 1),
        (4, 3),
    ]


def test_by_time_a_service_acts_on_what_it_was_given_not_on_its_own_events_nor_on_others_commands() -> None:
    steps = built(
        event("Received", 0, app_id="inbox"),
        command("other.Do", 1, reply_to="third.R", app_id="third"),
        event("Stored", 2, app_id="desk"),
        event("Filed", 3, app_id="desk"),
    )
    assert edges(steps)[3] == ("Received", "Filed", "time")


def test_a_cause_that_was_not_seen_is_told() -> None:
    (step,) = built(event("Done", 0, cause="elsewhere-1"))
    assert (step.cause, step.unseen, step.edge) == (None, "elsewhere-1", "")
    assert "its cause elsewhere-1 was not seen" in told([step])
    assert as_json(step)["unseen_cause"] == "elsewhere-1"
    assert "(cause not seen)" in "\n".join(mermaid.sequence([step])).replace("#", "")


def test_a_message_seen_twice_is_told() -> None:
    steps = built(KNOWN[0], event("Received", 1, message_id="i-1"))
    assert steps[1].repeats is steps[0]
    assert "(again: same id as 1)" in told(steps)


ids = st.sampled_from(["", "1", "2", "3", "4", "5", "6"])
any_messages = st.lists(
    st.builds(
        lambda make, name, at, message_id, cause, app: make(name, at, message_id=message_id, cause=cause, app_id=app),
        st.sampled_from(
            [
                event,
                lambda *args, **keys: command(*args, reply_to="b.R", **keys),
                lambda *args, **keys: result(*args, **keys),
            ]
        ),
        st.sampled_from(["a.X", "b.R", "c", "[red]x[/]", "\x1b[2Jend;%%"]),
        st.integers(0, 5),
        ids,
        ids,
        st.sampled_from(["a", "b", "", "<b>"]),
    ),
    min_size=1,
    max_size=12,
)


@given(any_messages)
def test_whatever_they_say_each_message_stands_once_in_a_forest(messages: list[Delivery]) -> None:
    steps = built(*messages)
    assert sorted(step.number for step in walk(steps)) == list(range(1, len(messages) + 1))
    for step in steps:
        assert step.level == (0 if step.cause is None else step.cause.level + 1)
        assert (step.cause is None) == (not step.edge)
        assert not step.inferred or step.cause is None or not step.fields["headers"].get("causation_id")
    assert told(steps).count("\n") == len(messages) + 1
    assert all(json.dumps(as_json(step), default=str) for step in steps)
    assert len(list(mermaid.sequence(steps))) > len(messages)


def test_long_chains_are_drawn_in_time_and_their_depth_is_told() -> None:
    chain = [event(f"E{n}", n, message_id=str(n), cause=str(n - 1), app_id="a") for n in range(3000)]
    steps = built(*reversed(chain))
    assert steps[-1].level == 2999
    assert "(level 2999) event E2999" in told(steps)
    circle = [event(f"E{n}", n, message_id=str(n), cause=str((n - 1) % 3000)) for n in range(3000)]
    assert sum(step.cause is None for step in built(*circle)) == 1


# Names from the network

HOSTILE = "end;\n%%{init: {}}%%<img src=x onerror=alert(1)>#35;\x1b[31m[bold]x[/bold]"


def test_names_cannot_steer_mermaid_a_terminal_or_markup() -> None:
    steps = built(
        event(HOSTILE, 0, {"x": HOSTILE}, app_id=HOSTILE, conversation=HOSTILE), event("Next", 1, app_id="end")
    )
    text = told(steps)
    assert "\x1b" not in text
    assert "[bold]x[/bold]" in text
    lines = list(mermaid.sequence(steps))
    assert len(lines) == 6
    for line in lines[1:]:
        label = re.sub(r"#\d+;", "", line.partition(" as " if " as " in line else ": ")[2])
        assert not re.search(r"[;%<>{}\[\]#:\"\n\x1b]|\bend\b", label), label
    assert "participant p3 as #101;nd" in lines[3] or "participant p2 as #101;nd" in lines[2]


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
        "    └── ~ command worker.Do  +0.100 s  by desk  (inferred by time)  null\n"
        "        └── ~ result desk.DoReturn success  +0.200 s  by worker  (inferred by correlation id)  null\n"
        "            └── ~ event Done  +0.300 s  by desk  (inferred by time)  null\n"
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


@asynchronous
async def test_several_conversations_are_listed(tmp_path: Path) -> None:
    path = recording(tmp_path / "r.cbors", *KNOWN, event("Other", 9, conversation="x\x1by"))
    ran = await run_tool("trace", "--from", path)
    assert (ran.status, ran.err) == (0, "")
    assert re.search(r"conv +│ 2026-05-01 .* │ 0.400 s │ 5 +│ event Received", ran.out)
    assert r"x\x1by" in ran.out
    listed = await run_tool("trace", "--from", path, "--json")
    assert [(each["conversation_id"], each["messages"]) for each in listed.objects] == [("conv", 5), ("x\x1by", 1)]
    assert "5 words" not in ran.err


@pytest.mark.parametrize(
    ("words", "status", "line"),
    [
        (["--from", "{}", "nope"], 1, "{}: conversation nope is not in it; there are conv, other"),
        (["--from", "{}", "--mermaid"], 2, "{} has 2 conversations; name one to draw"),
        (["--from", "{}", "--mermaid", "--json"], 2, "--mermaid or --json, not both"),
        (["--from", "{}", "a", "b"], 2, "with --from, give no more than a conversation"),
        (["--from", "{}", "--count", "2"], 2, "--count and --idle-timeout are for watching, not for --from"),
        (["--from", "{}", "--where", "payload == 7"], 1, "{}: there is no such message in it"),
        (["--from", "{}", "--where", "payload ="], 2, "argument --where: column 9: = is not expected"),
        (["--from", "/nowhere/r"], 1, "/nowhere/r: No such file or directory"),
        (["amqp://h/"], 2, "give amqp_url and CONVERSATION_ID, or --from FILE; these are 1 words"),
        (
            ["http://u:secret@h/", "conv"],
            2,
            "broker URL 'http://u:***@h/': the scheme is not amqp or amqps; write it as",
        ),
        (["-", "conv"], 2, "the broker's URL is '-', but EDA_AMQP_URL is not set"),
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


# Live


class Desk(Probe):
    """Asks itself, and reports."""

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
                    await asyncio.sleep(0.01)  # the tool tells nobody but the broker
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
    assert "refuses the user name or the password" in ran.line
    assert "wr0ng" not in ran.line
