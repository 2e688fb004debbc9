"""``topology``: who publishes and who consumes, from all sources; and drawings that no name can break."""

from __future__ import annotations

import asyncio
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eda_tools.diagnosis.facts import Binding
from eda_tools.diagrams.dot import dot
from eda_tools.diagrams.drawing import svg, weight
from eda_tools.diagrams.page import page
from eda_tools.diagrams.routes import Consumer, Publisher, Route, Subscription, routes, subscriptions
from eda_tools.messages.delivery import fields
from eda_tools.topology import TOOL, flowchart
from tests.support.rabbitmq import RabbitNode
from tests.support.services import TIMEOUT, BrokerUnderTest, Probe, Record, asynchronous, program, running, within
from tests.support.tools import Ran, interrupted, on_terminal, run_here, run_tool, watching
from tests.tools.samples import command, event, message, recording, result

MESSAGES = (
    event("Received", 0.0, app_id="inbox", message_id="i-1"),
    command("worker.Do", 0.1, reply_to="desk.DoReturn", app_id="desk", message_id="d-1", cause="i-1"),
    result("desk.DoReturn", 0.2),
    message("configurations", "Limits", 0.3, app_id="operator"),
    message("logs", "desk.INFO", 0.4),
)


def recorded(*messages: Any) -> dict[str, list[dict[str, Any]]]:
    return {"conv": [fields(each) for each in messages]}


def told(found: list[Route]) -> list[tuple[str, str, list[tuple[str, bool]], list[tuple[str, bool]]]]:
    return [
        (
            route.exchange,
            route.key,
            [(each.service, each.inferred) for each in route.publishers.values()],
            [(each.service, each.inferred) for each in route.consumers.values()],
        )
        for route in found
    ]


# Putting it together


def test_a_recording_tells_who_publishes_and_hints_at_who_consumes() -> None:
    assert told(routes([], recorded(*MESSAGES))) == [
        ("events", "Received", [("inbox", False)], [("desk", True)]),
        ("commands", "desk.DoReturn", [("worker", True)], [("desk", True)]),
        ("commands", "worker.Do", [("desk", False)], [("worker", True)]),
        ("configurations", "Limits", [("operator", False)], []),
    ]


def test_bindings_tell_who_consumes_and_patterns_fall_to_the_keys_seen() -> None:
    bound = [
        Subscription("events", "Received", "desk.events", "desk", 2),
        Subscription("events", "Never", "old.events", "old", 0),
        Subscription("events", "#", "audit.events", "audit", 0),
        Subscription("events", "x.*", "audit.events", "audit", 0),
        Subscription("configurations", "Limits", "amq.gen-1", "desk", 1),
        Subscription("configurations", "Limits", "amq.gen-2", "desk", 1),
    ]
    found = routes(bound, recorded(*MESSAGES))
    assert told(found) == [
        ("events", "Never", [], [("old", False)]),
        ("events", "Received", [("inbox", False)], [("desk", False), ("audit", False)]),
        ("events", "x.*", [], [("audit", False)]),
        ("commands", "desk.DoReturn", [("worker", True)], [("desk", True)]),
        ("commands", "worker.Do", [("desk", False)], [("worker", True)]),
        ("configurations", "Limits", [("operator", False)], [("desk", False)]),
    ]
    assert found[1].consumers["desk"].workers == 2
    assert (found[5].consumers["desk"].queues, found[5].consumers["desk"].workers) == (["amq.gen-1", "amq.gen-2"], 2)


def test_queues_belong_to_services_by_their_names_or_their_connections() -> None:
    def consumer(queue: str, connection: str) -> dict[str, Any]:
        return {"queue": {"name": queue}, "channel_details": {"connection_name": connection}}

    found = subscriptions(
        [
            Binding("events", "desk.events", "Ev"),
            Binding("events", "desk.events.retry.500", "Ev"),
            Binding("am-dlx", "dead-letters", "#"),
            Binding("events", "other", "#", to_queue=False),
            *(Binding("configurations", f"amq.gen-{number}", "Conf") for number in (1, 2, 3)),
            Binding("events", "archive", "#"),
        ],
        [
            consumer("desk.events", "1"),
            consumer("desk.events", "2"),
            consumer("amq.gen-1", "1"),
            consumer("amq.gen-2", "3"),
            {},
        ],
        [
            {"name": "1", "user_provided_name": "desk@host:1"},
            {"name": "2", "client_properties": {"connection_name": "desk@host:2"}},
            {"name": "3", "user_provided_name": "eda-monitor@host:3"},
            {},
        ],
    )
    assert [(each.exchange, each.queue, each.service, each.workers) for each in found] == [
        ("events", "desk.events", "desk", 2),
        ("configurations", "amq.gen-1", "desk", 1),
        ("configurations", "amq.gen-3", "(unnamed)", 0),
        ("events", "archive", "archive", 0),
    ]


# Drawing

HOSTILE = "]]></text><script>alert(1)</script>\"'&;%%\n\x1b[31m\x00end"

names = st.text() | st.sampled_from(["a", "b", "c", HOSTILE, "events", "commands"])
some_routes = st.lists(
    st.builds(
        lambda exchange, key, publishers, consumers, messages: Route(
            exchange,
            key,
            messages=messages,
            publishers={name: Publisher(name, 1, inferred) for name, inferred in publishers.items()},
            consumers={name: Consumer(name, [name], workers, workers is None) for name, workers in consumers.items()},
        ),
        st.sampled_from(["events", "commands", "configurations", "", HOSTILE]),
        names,
        st.dictionaries(names, st.booleans(), max_size=4),
        st.dictionaries(names, st.none() | st.integers(0, 2), max_size=4),
        st.integers(0, 5),
    ),
    max_size=8,
)


def boxes(drawing: ElementTree.Element) -> list[tuple[float, float, float, float]]:
    """Left, top, right and bottom of each box."""
    found = []
    for box in drawing.iter("{http://www.w3.org/2000/svg}rect"):
        x, y, width, height = (float(box.attrib[name]) for name in ("x", "y", "width", "height"))
        found.append((x, y, x + width, y + height))
    return found


@given(some_routes)
def test_drawings_are_well_formed_and_their_boxes_neither_overlap_nor_stick_out(found: list[Route]) -> None:
    drawing = ElementTree.fromstring("\n".join(svg(found)))
    width, height = float(drawing.attrib["width"]), float(drawing.attrib["height"])
    placed = boxes(drawing)
    services = {("left", name or "unknown") for route in found for name in route.publishers}
    services |= {("right", name) for route in found for name in route.consumers}
    assert len(placed) == len(found) + len(services)
    for number, (left, top, right, bottom) in enumerate(placed):
        assert left >= 0
        assert top >= 0
        assert right <= width
        assert bottom <= height
        for other in placed[:number]:
            assert right <= other[0] or left >= other[2] or bottom <= other[1] or top >= other[3]
    edges = sum(len(route.publishers) + len(route.consumers) for route in found)
    assert len(list(drawing.iter("{http://www.w3.org/2000/svg}path"))) == edges


def test_arrows_have_heads_and_are_thicker_for_more_messages() -> None:
    few, many = (
        Route("events", f"E{count}", messages=count, publishers={"a": Publisher("a", count)}) for count in (1, 100_000)
    )
    few.consumers["b"] = Consumer("b")
    drawing = ElementTree.fromstring("\n".join(svg([few, many])))
    paths = list(drawing.iter("{http://www.w3.org/2000/svg}path"))
    widths = [float(path.attrib["style"].removeprefix("stroke-width:")) for path in paths]
    assert widths == [1.3, 1.3, 4.8]
    for path in paths:
        _, curve, head = path.attrib["d"].split("M")
        end = re.findall(r"[\d.]+", curve)[-2:]
        start, tip, other = (each.split() for each in head.split("L"))
        assert tip == end, "the head is at the end of the curve"
        assert start[0] == other[0] < tip[0] or float(start[0]) < float(tip[0])
        assert float(start[1]) < float(tip[1]) < float(other[1])
    assert [weight(count) for count in (0, 1, 10**12)] == [1.3, 1.3, 5.0]


PRIVATE = "0123456789abcdef0123456789abcdef"


def test_our_tools_and_private_reply_keys_are_folded() -> None:
    uuid = "5b01ee80-adc9-4a66-91b6-0b4c85c00ec5"
    sent = (
        command("a.Do", 0.0, reply_to=f"eda-send_command.{PRIVATE}", app_id="eda-send_command", correlation="1"),
        result(f"eda-send_command.{PRIVATE}", 0.1, app_id="a", correlation="1"),
        command("a.Do", 1.0, reply_to=f"eda-send_command.{PRIVATE[::-1]}", app_id="eda-send_command", correlation="2"),
        result(f"eda-send_command.{PRIVATE[::-1]}", 1.1, app_id="a", correlation="2"),
        event("E", 2.0, app_id="eda-publish_event"),
        result(f"desk.{uuid}.DoReturn", 3.0, app_id="a", correlation="3"),
    )
    bound = [Subscription("commands", f"desk.{uuid}.DoReturn", "desk.commands", "desk", 1)]
    assert told(routes(bound, recorded(*sent))) == [
        ("events", "E", [("(tools)", False)], []),
        ("commands", "a.Do", [("(tools)", False)], [("a", True)]),
        ("commands", "desk.*.DoReturn", [("a", False)], [("desk", False)]),
        ("commands", "eda-send_command.*", [("a", False)], [("(tools)", True)]),
    ]
    assert next(route.messages for route in routes([], recorded(*sent)) if route.key == "a.Do") == 2


@given(some_routes)
def test_graphs_hold_no_text_that_graphviz_could_take_for_its_own(found: list[Route]) -> None:
    text = r'"(?:[^"\\\n]|\\\\|\\")*"'
    for line in list(dot(found))[2:-1]:
        assert re.fullmatch(
            rf" *subgraph cluster_\d+ {{| *label={text};| *}}| *k\d+ \[label={text}, style=rounded\];"
            rf"| *[pc]\d+ \[label={text}\];| *(?:p\d+ -> k\d+|k\d+ -> c\d+) \[color=\"#\w+\", penwidth=[\d.]+"
            r'(?:, style=dashed)?(?:, label="\d+")?\];',
            line,
        ), line


def test_a_graph_for_graphviz(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = recording(tmp_path / "r.cbors", *MESSAGES[:2])
    drawn = run_here(TOOL, capsys, "--from", path, "--dot").out
    assert drawn.splitlines()[2:] == [
        "    subgraph cluster_1 {",
        '        label="events";',
        '        k1 [label="Received", style=rounded];',
        "    }",
        "    subgraph cluster_2 {",
        '        label="commands";',
        '        k2 [label="worker.Do", style=rounded];',
        "    }",
        '    p1 [label="inbox"];',
        '    p2 [label="desk"];',
        '    c1 [label="desk"];',
        '    c2 [label="worker"];',
        '    p1 -> k1 [color="#1a7f4b", penwidth=1.3, label="1"];',
        '    k1 -> c1 [color="#1a7f4b", penwidth=1.3, style=dashed, label="1"];',
        '    p2 -> k2 [color="#1f5fbf", penwidth=1.3, label="1"];',
        '    k2 -> c2 [color="#1f5fbf", penwidth=1.3, style=dashed, label="1"];',
        "}",
    ]
    if shutil.which("dot") is not None:
        subprocess.run(["dot", "-Tsvg"], input=drawn, text=True, check=True, capture_output=True, timeout=60)


def test_on_a_narrow_screen_it_is_a_list(tmp_path: Path) -> None:
    name = "transcriber.TranscribeTheWholeRecordingOfTheCall"
    path = recording(tmp_path / "r", *MESSAGES, command(name, 1, reply_to="desk.R", app_id="desk"))
    command_line = (sys.executable, "-m", "eda_tools.topology", "--from", path)
    status, sent = on_terminal(*command_line, env={"NO_COLOR": "1", "COLUMNS": "60"})
    assert status == 0
    lines = sent.splitlines()
    assert max(map(len, lines)) <= 60
    assert lines[:4] == ["events", "  Received  1 message", "    from inbox", "    to desk ~"]
    assert [line for line in lines if not line.startswith(" ")] == ["events", "commands", "configurations"]
    assert name in sent


class _Reader(HTMLParser):
    """Collects the elements of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]


@given(some_routes, names)
def test_pages_need_nothing_from_elsewhere_and_names_add_nothing_to_them(found: list[Route], source: str) -> None:
    text = "\n".join(page(found, source))
    reader = _Reader()
    reader.feed(text)
    assert reader.tags.count("script") == 1
    assert not {"img", "link", "iframe", "object", "base", "form"} & set(reader.tags)
    assert not [name for name, _ in reader.attributes if name.startswith("on") or name in ("src", "href", "xlink:href")]
    assert not re.search(r"url\(|@import|https?://(?!www\.w3\.org/2000/svg\")", text)
    assert not re.search(r"[\x00-\x09\x0b-\x1f]", text)
    assert "default-src 'none'" in text


@given(some_routes)
def test_flowcharts_hold_no_text_that_mermaid_could_take_for_its_own(found: list[Route]) -> None:
    for line in flowchart(found):
        assert re.fullmatch(
            r'flowchart LR| *subgraph x\d+\["[^"\n]*"\]| *end'
            r'| *k\d+\(\["[^"\n]*"\]\)| *[pc]\d+\["[^"\n]*"\]| *(p\d+ -(-|\.-)> k\d+|k\d+ -(-|\.-)> c\d+)',
            line,
        ), line
        label = re.sub(r"#\d+;", "", "".join(re.findall(r'"(.*)"', line)))
        assert not re.search(r"[#;<>\"`{}\[\]%]", label)


def test_fifty_services_are_drawn_without_crossing_more_than_they_have_to() -> None:
    """A pipeline of fifty services, in any order, is drawn straight: each service beside the key that it publishes."""
    chain = [Route("events", f"E{n * 37 % 50:02}", messages=1) for n in range(50)]
    for n, route in enumerate(chain):
        route.publishers[f"s{n}"] = Publisher(f"s{n}", 1)
        route.consumers[f"s{(n + 1) % 50}"] = Consumer(f"s{(n + 1) % 50}")
    drawing = ElementTree.fromstring("\n".join(svg(chain)))
    curves = [path.attrib["d"] for path in drawing.iter("{http://www.w3.org/2000/svg}path")]
    ends = [re.findall(r"(\d+) (\d+)(?=C|$)", curve.split("M")[1]) for curve in curves]
    assert len(ends) == 100
    assert all(abs(int(first[1]) - int(last[1])) <= 2 for first, last in ends)


def test_keys_of_one_service_are_brought_together() -> None:
    """The keys of service n are n and n + 25, so their names do not bring them together."""
    found = [Route("events", f"E{n:02}", messages=1) for n in range(50)]
    for n, route in enumerate(found):
        route.publishers[f"s{n % 25}"] = Publisher(f"s{n % 25}", 1)
    drawing = ElementTree.fromstring("\n".join(svg(found)))
    places: dict[str, list[float]] = {}
    for path in drawing.iter("{http://www.w3.org/2000/svg}path"):
        places.setdefault(path.attrib["data-service"], []).append(float(path.attrib["d"].rpartition(" ")[2]))
    assert len(places) == 25
    assert {high - low for low, high in map(sorted, places.values())} == {26.0}


# As a program


def test_the_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ran = run_here(TOOL, capsys, "--from", recording(tmp_path / "r.cbors", *MESSAGES))
    assert (ran.status, ran.err) == (0, "")
    rows = [re.split(r" *│ *", line)[1:-1] for line in ran.out.splitlines() if line.startswith("│")]
    assert rows == [
        ["events", "Received", "inbox", "desk ~", "1"],
        ["commands", "desk.DoReturn", "worker ~", "desk ~", "1"],
        ["commands", "worker.Do", "desk", "worker ~", "1"],
        ["configurations", "Limits", "operator", "–", "1"],
    ]


def test_on_a_terminal_no_name_can_steer_it(tmp_path: Path) -> None:
    path = recording(tmp_path / "r.cbors", event(HOSTILE, 0, app_id="[red]inbox[/red]"))
    status, sent = on_terminal(sys.executable, "-m", "eda_tools.topology", "--from", path)
    assert status == 0
    plain = re.sub(r"\x1b\[[\d;]*m", "", sent)
    assert "\x1b" not in plain
    assert "[red]inbox[/red]" in plain
    assert max(map(len, plain.splitlines())) <= 100


def test_drawn_as_mermaid_as_json_and_as_a_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = recording(tmp_path / "r.cbors", *MESSAGES[:2])
    assert run_here(TOOL, capsys, "--from", path, "--mermaid").out.splitlines() == [
        "flowchart LR",
        '    subgraph x1["events"]',
        '        k1(["Received"])',
        "    end",
        '    subgraph x2["commands"]',
        '        k2(["worker.Do"])',
        "    end",
        '    p1["inbox"]',
        '    p2["desk"]',
        '    c1["desk"]',
        '    c2["worker"]',
        "    p1 --> k1",
        "    k1 -.-> c1",
        "    p2 --> k2",
        "    k2 -.-> c2",
    ]
    assert run_here(TOOL, capsys, "--from", path, "--json").objects[0] == {
        "exchange": "events",
        "key": "Received",
        "kinds": ["event"],
        "messages": 1,
        "publishers": [{"service": "inbox", "messages": 1, "inferred": False}],
        "consumers": [{"service": "desk", "queues": [], "workers": None, "inferred": True}],
    }
    ran = run_here(TOOL, capsys, "--from", path, "--html", str(tmp_path / "t.html"))
    assert ran == Ran(0, "", f"topology: drawn in {tmp_path}/t.html\n")
    printed = run_here(TOOL, capsys, "--from", path, "--html", "-").out
    assert printed == (tmp_path / "t.html").read_text()
    assert "<p>From the recording r.cbors. " in printed


def test_a_flowchart_that_pages_do_not_draw_is_told_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for count, told in (
        (500, ""),
        (501, r"topology: \d\d,\d{3} characters and 501 arrows: pages draw no more than .*\n"),
    ):
        path = recording(tmp_path / f"{count}.cbors", *(event(f"E{n}", n, app_id="a") for n in range(count)))
        ran = run_here(TOOL, capsys, "--from", path, "--mermaid")
        assert ran.status == 0
        assert re.fullmatch(told, ran.err), ran.err


@pytest.mark.parametrize(
    ("words", "status", "line"),
    [
        ([], 2, "give --management URL, --from FILE, or both"),
        (["--from", "{}", "--json", "--mermaid"], 2, "--json or a drawing, not both"),
        (["--from", "{}", "--html", "x", "--mermaid"], 2, "argument --mermaid: not allowed with argument --html"),
        (["--from", "/nowhere/r"], 1, "/nowhere/r: No such file or directory"),
        (["--from", "{}", "--html", "/nowhere/t.html"], 1, "/nowhere/t.html: No such file or directory"),
        (["--management", "http://127.0.0.1:1"], 4, "no connection to http://127.0.0.1:1: connection refused"),
        (["--management", "amqp://u:secret@h/"], 2, "argument --management: 'amqp://u:***@h/' is not a URL such as"),
        (["--from", "{}", "http://u:secret@h/"], 2, "argument amqp_url: broker URL 'http://u:***@h/': the scheme"),
    ],
)
def test_what_cannot_be_drawn_is_told_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], status: int, line: str
) -> None:
    path = recording(tmp_path / "r.cbors", *MESSAGES)
    ran = run_here(TOOL, capsys, *(word.format(path) for word in words))
    assert (ran.status, ran.out) == (status, "")
    assert ran.line.startswith(f"topology: {line}")


def test_a_recording_that_is_cut_off_is_drawn_so_far(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = Path(recording(tmp_path / "r.cbors", *MESSAGES))
    path.write_bytes(path.read_bytes()[:-3])
    ran = run_here(TOOL, capsys, "--from", str(path))
    assert ran.status == 3
    assert "operator" in ran.out
    assert "cut off in message 5" in ran.line
    path.write_bytes(b"")
    assert run_here(TOOL, capsys, "--from", str(path)).line.startswith("topology: there is nothing to draw")


@asynchronous
async def test_a_management_api_that_does_not_answer_holds_nobody_up() -> None:
    asked, gone = asyncio.Event(), Record[bytes]("clients gone")

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.set()
        gone.add(await reader.read())
        writer.close()

    quiet = await asyncio.start_server(listen, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{quiet.sockets[0].getsockname()[1]}"
    async with quiet:
        timed = await run_tool("topology", "--management", url, "--timeout", "0.3")
        assert (timed.status, timed.out) == (124, "")
        assert timed.line.endswith(": asking the management API at 127.0.0.1: timed out after 0.3 s")
        asked.clear()
        async with program("-m", "eda_tools.topology", "--management", url) as waiting:
            await within(asked.wait(), "the tool asks")
            assert await interrupted(waiting) == Ran(130, "", "")
        await gone.count(2)


class Desk(Probe):
    """A service that sends itself a command."""

    async def on_Received(self, payload: Any, conversation_id: str, meta: dict[str, Any]) -> None:
        await self.send_command("desk.Do", payload, conversation_id, "desk.DoReturn", "c-1")

    async def on_Do(self, *args: Any) -> None:
        """Done."""


@asynchronous
async def test_what_monitor_records_is_drawn(broker: BrokerUnderTest, tmp_path: Path) -> None:
    desk = Desk(broker.url, ["Received"], ["desk.Do"], "desk")
    async with running(desk):
        async with watching(
            "monitor", broker.url, "--record", "r.cbors", "--count", "2", "--json", cwd=tmp_path
        ) as monitor:
            await desk.publish_event("Received", 1, "conv")
            assert await monitor.end() == 0
    ran = await run_tool("topology", "--from", "r.cbors", "--json", cwd=tmp_path)
    assert (ran.status, ran.err) == (0, "")
    assert [(each["key"], each["publishers"][0]["service"], each["consumers"]) for each in ran.objects] == [
        ("Received", "desk", [{"service": "desk", "queues": [], "workers": None, "inferred": True}]),
        ("desk.Do", "desk", [{"service": "desk", "queues": [], "workers": None, "inferred": True}]),
    ]


@pytest.fixture
def managed_vhost(rabbit_management: RabbitNode) -> Iterator[str]:
    rabbit_management.change_vhosts(add=["of topology/1"])
    yield "of topology/1"
    rabbit_management.change_vhosts(delete=["of topology/1"])


@asynchronous
async def test_the_management_api_tells_who_consumes(rabbit_management: RabbitNode, managed_vhost: str) -> None:
    url = rabbit_management.vhost_url(managed_vhost)
    desk = Desk(url, ["Received", "Other"], ["desk.Do"], "desk", ["Limits"])
    asked = ("topology", url, "--management", rabbit_management.management_url)
    async with running(desk, ready=False):
        async with asyncio.timeout(TIMEOUT):
            while True:  # statistics are some seconds old
                ran = await run_tool(*asked, "--json")
                consumers = [consumer for route in ran.objects for consumer in route["consumers"]]
                if any(each["queues"][0].startswith("amq.") and each["service"] == "desk" for each in consumers):
                    break
        assert [(each["exchange"], each["key"], each["consumers"][0]["service"]) for each in ran.objects] == [
            ("events", "Other", "desk"),
            ("events", "Received", "desk"),
            ("commands", "desk.Do", "desk"),
            ("configurations", "Limits", "desk"),
        ]
        assert [each["consumers"][0]["workers"] for each in ran.objects] == [0, 0, 0, 1]  # not configured yet
        assert all(not each["publishers"] for each in ran.objects)
    wrong = await run_tool(*asked[:2], "--management", rabbit_management.management_url.replace("//", "//guest:wr0ng@"))
    assert (wrong.status, wrong.out) == (4, "")
    assert "refuses the user 'guest' or its password" in wrong.line
    missing = await run_tool(*asked, "--vhost", "nowhere")
    assert missing.status == 1
    assert missing.line.endswith("it does not tell of virtual host 'nowhere'; may this user see it?")
