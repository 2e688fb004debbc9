"""``doctor``: each thing that can be wrong is found and told with what mends it, and running that mends it."""

from __future__ import annotations

import asyncio
import contextlib
import http.server
import shlex
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import aio_pika
import pytest
from aio_pika.abc import AbstractIncomingMessage

from eda_core.routing import EXCHANGES
from eda_tools.broker import EmbeddedBrokerThread
from eda_tools.doctor import TOOL
from eda_tools.findings import NOTE, PROBLEM, Finding, findings, shell
from eda_tools.survey import Binding, Exchange, Policy, Queue, Survey, bindings_of, exchange_of, policies_of, queue_of
from tests.support.rabbitmq import RabbitNode
from tests.support.services import BrokerUnderTest, Probe, asynchronous, peer, running
from tests.support.tools import run_here, run_tool
from tests.tools.messages import command, recording

DLX = Policy("DLX", r".*\.events|.*\.commands", {"dead-letter-exchange": "am-dlx"})


def healthy() -> Survey:
    """A broker as it should be, seen with the management API."""
    return Survey(
        "/",
        {name: Exchange(name, "topic", True, "") for name in (*EXCHANGES, "am-dlx")},
        {
            "a.events": Queue("a.events", 1, 0, "classic", arguments={}),
            "a.commands": Queue("a.commands", 2, 5, "classic", arguments={}),
            "a.events.retry.500": Queue("a.events.retry.500", 0, 1, "classic", arguments={}),
            "dead-letters": Queue("dead-letters", 0, 0, "classic", arguments={}),
            "amq.gen-1": Queue("amq.gen-1", 0, 0, "classic", durable=False, exclusive=True, arguments={}),
        },
        "am-dlx",
        bindings=[
            Binding("events", "a.events", "Ev"),
            Binding("commands", "a.commands", "a.Do"),
            Binding("configurations", "amq.gen-1", "Conf"),
            Binding("am-dlx", "dead-letters", "#"),
        ],
        policies=[DLX],
        operator_policies=[],
        version=(3, 10),
    )


def unmanaged() -> Survey:
    """The same by AMQP alone."""
    exchanges = {name: Exchange(name, wrong="") for name in (*EXCHANGES, "am-dlx")}
    return Survey("/", exchanges, {"a.events": Queue("a.events", 1, 0, "?", arguments={})}, "am-dlx", ["a"])


def only(survey: Survey, severity: str = PROBLEM) -> Finding:
    (found,) = (finding for finding in findings(survey) if finding.severity == severity)
    return found


def test_there_is_nothing_to_say_about_a_healthy_broker() -> None:
    assert findings(healthy()) == []
    (note,) = findings(unmanaged())
    assert (note.severity, note.check) == (NOTE, "not-checked")


def _wrong(name: str) -> Callable[[Survey], None]:
    def change(survey: Survey) -> None:
        survey.exchanges["events"] = exchange_of({"name": "events", "type": name, "durable": name != "topic"})

    return change


def _without(what: str, name: str) -> Callable[[Survey], None]:
    return lambda survey: getattr(survey, what).pop(name)


def _queue(**changed: Any) -> Callable[[Survey], None]:
    def change(survey: Survey) -> None:
        name = changed.get("name", "a.commands")
        survey.queues[name] = Queue(**{"name": name, "consumers": 1, "messages": 0, "type": "classic", **changed})

    return change


def _set(**changed: Any) -> Callable[[Survey], None]:
    def change(survey: Survey) -> None:
        for name, value in changed.items():
            setattr(survey, name, value)

    return change


SET_DLX = (
    r"rabbitmqctl set_policy -p / DLX '.*\.events|.*\.commands' "
    r"""'{"dead-letter-exchange":"am-dlx"}' --apply-to queues"""
)


@pytest.mark.parametrize(
    ("change", "check", "subjects", "text", "run"),
    [
        (
            _without("exchanges", "logs"),
            "exchange-missing",
            ("logs",),
            "there is no such exchange",
            ["rabbitmqadmin --vhost=/ declare exchange name=logs type=topic durable=true"],
        ),
        (
            _wrong("direct"),
            "exchange-wrong",
            ("events",),
            "it is of type direct, not topic",
            [
                "rabbitmqadmin --vhost=/ delete exchange name=events",
                "rabbitmqadmin --vhost=/ declare exchange name=events type=topic durable=true",
            ],
        ),
        (_wrong("topic"), "exchange-wrong", ("events",), "it is not durable", None),
        (
            _queue(name="a.events", consumers=0, messages=1),
            "queue-without-consumers",
            ("a.events",),
            "it has no consumers, and 1 message is in it",
            ["rabbitmqctl delete_queue -p / a.events --if-unused"],
        ),
        (
            _queue(consumers=0),
            "commands-unserved",
            ("a.commands",),
            "it has no consumers, and 0 messages are in it; nobody serves a.Do",
            ["rabbitmqctl delete_queue -p / a.commands --if-unused"],
        ),
        (
            _set(commands=["a.Do", "a.Other"]),
            "command-unserved",
            ("a.Other",),
            "nobody serves this command: no queue is bound for it on the exchange commands",
            [],
        ),
        (_set(services=["a", "gone"]), "service-missing", ("gone",), "it has no queue: neither gone.events nor", []),
        (_queue(durable=False), "queue-not-durable", ("a.commands",), "it is not durable", None),
        (
            _queue(name="b.events.retry.1000", consumers=0, messages=2),
            "retry-left-over",
            ("b.events.retry.1000",),
            "it is left over: b.events, whose retries wait in it, does not exist; 2 messages are in it",
            ["rabbitmqctl delete_queue -p / b.events.retry.1000 --if-unused"],
        ),
        (
            _set(policies=[]),
            "no-dead-letter-policy",
            ("a.commands", "a.events"),
            "there is no dead-letter policy",
            [SET_DLX],
        ),
        (
            _set(policies=[Policy("ttl", "^a\\.", {"message-ttl": 5}, 7, "all"), DLX]),
            "no-dead-letter-policy",
            ("a.commands", "a.events"),
            "there is no dead-letter policy",
            [
                r"rabbitmqctl set_policy -p / DLX-more '^(a\.commands|a\.events)$' "
                r"""'{"message-ttl":5,"dead-letter-exchange":"am-dlx"}' --apply-to queues --priority 8"""
            ],
        ),
        (
            _without("exchanges", "am-dlx"),
            "dead-letter-exchange-missing",
            ("am-dlx",),
            "there is no such exchange, where dead letters should go: they are lost",
            None,
        ),
        (
            lambda survey: survey.bindings.pop(),
            "dead-letter-queue-missing",
            ("am-dlx",),
            "no queue is bound to it, so dead letters are lost",
            [
                "rabbitmqadmin --vhost=/ declare queue name=dead-letters durable=true",
                "rabbitmqadmin --vhost=/ declare binding source=am-dlx destination=dead-letters 'routing_key=#'",
            ],
        ),
        (
            _queue(type="quorum"),
            "no-delivery-limit",
            ("a.commands",),
            "this quorum queue has no delivery limit",
            [
                r"rabbitmqctl set_policy -p / DLX-delivery-limit '^(a\.commands)$' "
                r"""'{"dead-letter-exchange":"am-dlx","delivery-limit":20}' --apply-to queues --priority 1"""
            ],
        ),
        (
            # Such a policy does not apply to classic queues at all.
            _set(policies=[Policy("DLX", "", {"dead-letter-exchange": "am-dlx", "delivery-limit": 3})]),
            "no-dead-letter-policy",
            ("a.commands", "a.events"),
            "there is no dead-letter policy",
            [SET_DLX.replace("/ DLX ", "/ DLX-2 ")],
        ),
    ],
)
def test_each_thing_that_is_wrong_is_found(
    change: Callable[[Survey], object], check: str, subjects: tuple[str, ...], text: str, run: list[str] | None
) -> None:
    survey = healthy()
    change(survey)
    found = only(survey)
    assert (found.check, found.subjects) == (check, subjects)
    assert found.text.startswith(text)
    assert run is None or list(found.run) == run
    assert found.run or found.advice


@pytest.mark.parametrize(
    "change",
    [
        _queue(type="quorum", arguments={"x-delivery-limit": 5}),
        lambda survey: (_queue(type="quorum")(survey), _set(version=(4, 0))(survey)),
        lambda survey: (
            _queue(type="quorum")(survey),
            survey.operator_policies.append(Policy("o", "", {"delivery-limit": 9})),
        ),
        lambda survey: survey.policies.insert(0, Policy("streams", "", {"max-age": "1D"}, 9)),
        lambda survey: survey.policies.insert(0, Policy("exchanges", "", {"alternate-exchange": "x"}, 9, "exchanges")),
        _queue(consumers=None, messages=None),
        _set(policies=[], queues={}, bindings=[Binding("am-dlx", "dead-letters", "#")]),
    ],
)
def test_what_is_not_wrong_is_not_told(change: Callable[[Survey], object]) -> None:
    survey = healthy()
    change(survey)
    assert [finding for finding in findings(survey) if finding.severity == PROBLEM] == []


def test_without_management_what_is_not_known_is_not_judged() -> None:
    survey = unmanaged()
    survey.exchanges.pop("am-dlx")
    survey.exchanges["logs"] = Exchange("logs", wrong=None)
    survey.commands = ["b.Do", "a.Do"]
    survey.queues["b.commands"] = Queue("b.commands", 0, 0)
    assert [(finding.severity, finding.check) for finding in findings(survey)] == [
        (PROBLEM, "queue-without-consumers"),
        (PROBLEM, "command-unserved"),
        (PROBLEM, "command-unserved"),
        (PROBLEM, "dead-letter-exchange-missing"),
        (NOTE, "exchange-unknown"),
        (NOTE, "not-checked"),
    ]


def test_dead_letters_that_wait_are_a_note() -> None:
    survey = healthy()
    _queue(name="dead-letters", consumers=0, messages=3)(survey)
    assert only(survey, NOTE).run == (
        "eda inspect_queue - dead-letters --headers-only",
        "eda resurrect - dead-letters",
    )


@pytest.mark.parametrize("name", ["a b", "'; touch /tmp/x; '", "$(id)", "x\n\x1b[31m'é", "a\\b\x07"])
def test_commands_are_safe_to_paste(name: str) -> None:
    survey = healthy()
    _queue(name=f"{name}.events", consumers=0)(survey)
    (line,) = next(each for each in findings(survey) if each.check == "queue-without-consumers").run
    assert line.isprintable()
    said = subprocess.run(["bash", "-c", f'rabbitmqctl() {{ printf "%s|" "$@"; }}; {line}'], capture_output=True)
    assert said.stdout.decode() == f"delete_queue|-p|/|{name}.events|--if-unused|"
    assert shell("plain") == "plain"


# As a program, by AMQP alone


@asynchronous
async def test_a_broker_that_nobody_has_used_yet(broker: BrokerUnderTest) -> None:
    ran = await run_tool("doctor", "-", "--json", url=broker.url)
    missing = [each["subjects"] for each in ran.objects if each["check"] == "exchange-missing"]
    assert missing == [["events"], ["commands"], ["configurations"], ["logs"]]
    assert ran.status == 1
    assert "problem(s); " in ran.line
    again = await run_tool("doctor", broker.url)
    assert "$ rabbitmqadmin --vhost=" in again.out
    assert again.out.count("there is no such exchange") == len(missing) + (broker.node is not None)  # no am-dlx either


@asynchronous
async def test_a_broker_with_a_service(broker: BrokerUnderTest, tmp_path: Path) -> None:
    sent = recording(tmp_path / "r", command("gone.Do", 0, reply_to="desk.R"), command("desk.Do", 1, reply_to="desk.R"))
    desk = Probe(broker.url, ["Ev"], ["desk.Do"], "desk")
    async with peer(broker.url) as client:
        if broker.node is not None:
            await client.channel.declare_exchange("am-dlx", "topic", durable=True)
        async with running(desk):
            well = await run_tool("doctor", broker.url, "--service", "desk")
            wrong = await run_tool("doctor", "--service", "desk", "gone", "--from", sent, "--json", broker.url)
        assert (well.status, well.err) == (0, "doctor.py: nothing wrong; 5 exchanges and 2 queues looked at\n")
        assert well.out.startswith("note     not checked without --management: dead-letter policies")
        assert wrong.status == 1
        assert [(each["severity"], each["check"], each["subjects"]) for each in wrong.objects] == [
            ("problem", "service-missing", ["gone"]),
            ("problem", "command-unserved", ["gone.Do"]),
            ("note", "not-checked", []),
        ]
        stopped = await run_tool("doctor", broker.url, "--service", "desk")
        assert stopped.out.count("it has no consumers, and 0 messages are in it") == 2


@asynchronous
async def test_an_exchange_of_another_type_is_found_and_nothing_is_left_behind(broker: BrokerUnderTest) -> None:
    async with await aio_pika.connect(broker.url) as connection:
        operator = await connection.channel()
        await operator.declare_exchange("events", "direct", durable=True)
        await operator.declare_exchange("logs", "topic", durable=False)
        ran = await run_tool("doctor", broker.url, "--json", "--dead-letter-exchange", "elsewhere")
        wrong = [each for each in ran.objects if each["check"] == "exchange-wrong"]
        assert [each["subjects"] for each in wrong] == [["events"], ["logs"]]
        assert "current is 'direct'" in wrong[0]["text"]
        assert "'durable'" in wrong[1]["text"]
        for name in ("commands", "configurations", "elsewhere"):
            channel = await connection.channel()
            with pytest.raises(aio_pika.exceptions.ChannelNotFoundEntity):
                await channel.declare_exchange(name, passive=True)


@pytest.mark.parametrize(
    ("words", "status", "line"),
    [
        (["amqp://guest:secret@127.0.0.1:1/"], 4, "no connection to amqp://guest:***@127.0.0.1:1/: connection refused"),
        (["-"], 2, "argument amqp_url: the broker's URL is '-', but EDA_AMQP_URL is not set"),
        (["amqp://h/", "--management", "-"], 2, "argument --management: the URL is '-', but EDA_MANAGEMENT_URL is not"),
        (["amqp://h/", "--management", "http://u:secret@"], 2, "argument --management: 'http://u:***@' is not a URL"),
        (["amqp://h/", "--from", "/nowhere/r"], 1, "/nowhere/r: No such file or directory"),
    ],
)
def test_what_cannot_be_checked_is_told_in_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, words: list[str], status: int, line: str
) -> None:
    monkeypatch.delenv("EDA_AMQP_URL", raising=False)
    monkeypatch.delenv("EDA_MANAGEMENT_URL", raising=False)
    ran = run_here(TOOL, capsys, *words)
    assert (ran.status, ran.out) == (status, "")
    assert ran.line.startswith(f"doctor: {line}")


@asynchronous
async def test_refused_credentials(broker: BrokerUnderTest) -> None:
    ran = await run_tool("doctor", broker.url_with_password("wr0ng"))
    assert (ran.status, ran.out) == (4, "")
    assert "refuses the user name or the password" in ran.line
    assert "wr0ng" not in ran.line


# With the management API


@pytest.fixture
def managed(rabbit_management: RabbitNode) -> Iterator[tuple[RabbitNode, str]]:
    """A node with the management plugin, and an empty virtual host there, whose name needs quoting."""
    rabbit_management.change_vhosts(add=["of doctor/1"])
    yield rabbit_management, "of doctor/1"
    rabbit_management.change_vhosts(delete=["of doctor/1"])


@asynchronous
async def test_what_is_told_to_run_mends_it(managed: tuple[RabbitNode, str], tmp_path: Path) -> None:
    node, vhost = managed
    url = node.vhost_url(vhost)
    async with await aio_pika.connect(url) as connection:
        await _spoil(await connection.channel())
        ran = await run_tool("doctor", url, "--management", node.management_url, "--json")
        assert ran.status == 1
        assert [(each["check"], each["subjects"]) for each in ran.objects] == [
            ("exchange-wrong", ["events"]),
            ("exchange-missing", ["configurations"]),
            ("exchange-missing", ["logs"]),
            ("queue-without-consumers", ["left.events"]),
            ("no-dead-letter-policy", ["desk.commands", "desk.events", "left.events"]),
            ("dead-letter-exchange-missing", ["am-dlx"]),
            ("no-delivery-limit", ["desk.events"]),
            ("retry-left-over", ["gone.events.retry.500"]),
        ]
        for finding in ran.objects:
            for line in finding["run"]:
                await asyncio.to_thread(_mend, node, line)
        again = await run_tool("doctor", url, "--management", node.management_url)
        assert (again.status, again.out) == (0, ""), again
        assert again.err == "doctor.py: nothing wrong; 12 exchanges and 3 queues looked at\n"


async def _spoil(channel: Any) -> None:
    """An events exchange of the wrong type, and queues for each of the findings."""
    await channel.declare_exchange("events", "fanout", durable=True)
    await channel.declare_exchange("commands", "topic", durable=True)
    for name in ("left.events", "desk.events", "desk.commands", "gone.events.retry.500"):
        quorum = {"x-queue-type": "quorum"} if name == "desk.events" else None
        queue = await channel.declare_queue(name, durable=True, arguments=quorum)
        if name.startswith("desk"):
            await queue.consume(_take)


async def _take(message: AbstractIncomingMessage) -> None:
    """A consumer that nothing comes to."""


def _mend(node: RabbitNode, line: str) -> None:
    """Run a line as an operator on the broker's host would."""
    program, *words = shlex.split(line)
    if program == "rabbitmqctl":
        node.ctl(*words)
    else:
        admin = shutil.which(program)
        if admin is None:
            pytest.skip(f"{program} is not installed")
        subprocess.run([admin, *words], check=True, capture_output=True, timeout=30)


@asynchronous
async def test_credentials_of_the_management_api(rabbit_management: RabbitNode) -> None:
    bad = rabbit_management.management_url.replace("//", "//guest:wr0ng@")
    with_port = ("--management", rabbit_management.management_url)
    refused, taken = await asyncio.gather(
        run_tool("doctor", rabbit_management.url, "--management", bad),
        run_tool("doctor", rabbit_management.url, *with_port, "--json"),
    )
    assert (refused.status, refused.out) == (4, "")
    assert "refuses the user name or the password" in refused.line
    assert "wr0ng" not in refused.line
    assert taken.status == 1  # of amqp_url


class _Api(http.server.BaseHTTPRequestHandler):
    """Answers from ``answers`` by path, and keeps what was asked."""

    answers: ClassVar[Mapping[str, tuple[int, bytes]]]
    asked: ClassVar[list[tuple[str, str | None]]]

    def do_GET(self) -> None:
        self.asked.append((self.path, self.headers["Authorization"]))
        status, body = self.answers.get(self.path, (404, b"{}"))
        self.send_response(status)
        if status == 302:
            self.send_header("Location", body.decode())
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


@contextlib.contextmanager
def _api(**answers: tuple[int, bytes]) -> Iterator[tuple[str, type[_Api]]]:
    class Api(_Api):
        pass

    Api.answers, Api.asked = {f"/api/{name}": answer for name, answer in answers.items()}, []
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Api) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}", Api
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize(
    ("answer", "status", "told"),
    [
        ((200, b"<html>"), 1, "what /api/overview answers is not that of a management API"),
        ((404, b""), 1, "HTTP status 404 for /api/overview; is it a management API?"),
        ((200, b"{}"), 1, "it does not tell of virtual host '/'; may this user see it?"),
    ],
)
def test_what_is_no_management_api(
    capsys: pytest.CaptureFixture[str], answer: tuple[int, bytes], status: int, told: str
) -> None:
    with EmbeddedBrokerThread() as embedded, _api(overview=answer) as (url, _):
        ran = run_here(TOOL, capsys, embedded.url, "--management", url)
    assert (ran.status, ran.out) == (status, "")
    assert ran.line == f"doctor: {url}: {told}"


def test_the_password_does_not_follow_a_redirection(capsys: pytest.CaptureFixture[str]) -> None:
    with _api() as (elsewhere, other), _api(overview=(302, f"{elsewhere}/x".encode())) as (url, asked):
        with EmbeddedBrokerThread() as embedded:
            ran = run_here(TOOL, capsys, embedded.url, "--management", url)
    assert ran.status == 1
    assert asked.asked == [("/api/overview", "Basic Z3Vlc3Q6Z3Vlc3Q=")]
    assert other.asked == [("/x", None)]


def test_rows_of_the_api_are_read_whatever_they_hold() -> None:
    assert bindings_of([{}, {"source": ""}, {"source": "events", "destination": "q"}]) == [
        Binding("events", "q", "", False)
    ]
    assert policies_of(None) is None
    assert policies_of([{"name": "p", "definition": [], "priority": None}]) == [Policy("p", "", {}, 0, "all")]
    assert queue_of({"name": "q", "arguments": {"x-queue-type": "quorum"}}).type == "quorum"
