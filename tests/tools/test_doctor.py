"""``doctor`` as a program: the lines that it prints mend what it finds, and it leaves nothing behind."""

from __future__ import annotations

import asyncio
import contextlib
import http.server
import json
import re
import shutil
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import aio_pika
import pytest
from aio_pika.abc import AbstractIncomingMessage
from pamqp import commands

from eda_core.messages.routing import EXCHANGES
from eda_core.testing.broker import Broker
from eda_tools.broker import EmbeddedBrokerThread
from eda_tools.doctor import TOOL
from tests.support.rabbitmq import RabbitNode
from tests.support.services import BrokerUnderTest, Probe, asynchronous, peer, running
from tests.support.tools import on_terminal, run_here, run_tool
from tests.tools.samples import command, recording

# As a program, by AMQP alone


@asynchronous
async def test_a_broker_that_nobody_has_used_yet(broker: BrokerUnderTest) -> None:
    ran = await run_tool("doctor", "-", "--json", url=broker.url)
    missing = [each["subjects"] for each in ran.objects if each["check"] == "exchange-missing"]
    assert missing == [["events"], ["commands"], ["configurations"], ["logs"]]
    assert ran.status == 1
    assert "problem(s); " in ran.line
    again = await run_tool("doctor", broker.url)
    assert " && rabbitmqctl import_definitions /tmp/" in again.out
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
        (["amqp://h/", "--class", "a=b"], 2, "argument --class: 'a=b' is not SERVICE=module:Class"),
        (["amqp://h/", "--class", "a=b:C"], 2, "--class needs --management: AMQP does not tell of bindings"),
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
    assert "refuses the user 'guest' or its password" in ran.line
    assert "wr0ng" not in ran.line


@asynchronous
async def test_a_user_who_may_not_declare_is_told_what_is_not_known(
    rabbitmq: RabbitNode, rabbit_url: str, rabbit_vhost: str
) -> None:
    user = f"reader-{rabbit_vhost}"
    async with running(Probe(rabbit_url, ["Ev"], [], "desk")):
        await asyncio.to_thread(rabbitmq.ctl, "add_user", user, "pass-w0rd")
        await asyncio.to_thread(rabbitmq.ctl, "set_permissions", "-p", rabbit_vhost, user, "^$", ".*", ".*")
        ran = await run_tool("doctor", rabbit_url.replace("guest:guest", f"{user}:pass-w0rd"), "--json")
    notes = [each["subjects"] for each in ran.objects if each["check"] == "exchange-unknown"]
    assert notes == [["events"], ["commands"], ["configurations"], ["logs"]]
    assert [each["check"] for each in ran.objects if each["severity"] == "problem"] == ["dead-letter-exchange-missing"]
    assert ran.status == 1
    assert "pass-w0rd" not in ran.out + ran.err


# With the management API


@pytest.fixture
def managed(rabbit_management: RabbitNode) -> Iterator[tuple[RabbitNode, str]]:
    """A node with the management plugin, and an empty virtual host there, whose name needs quoting."""
    rabbit_management.change_vhosts(add=["of doctor/1"])
    yield rabbit_management, "of doctor/1"
    rabbit_management.change_vhosts(delete=["of doctor/1"])


@asynchronous
async def test_a_worker_that_waits_and_a_binding_that_is_left(managed: tuple[RabbitNode, str], tmp_path: Path) -> None:
    """The worker is connected and waits for its configuration; its class does not handle all that is bound."""
    node, vhost = managed
    url = node.vhost_url(vhost)
    handlers = "    def on_Ev(self, *args): ...\n    def on_Do(self, *args): ...\n"
    (tmp_path / "mine.py").write_text(f"from eda_aio import Service\nclass Desk(Service):\n{handlers}")
    desk = Probe(url, ["Ev", "Old"], ["desk.Do"], "desk", ["Conf"])
    words = (url, "--management", node.management_url, "--json", "--class", "desk=mine:Desk")
    async with peer(url) as client:
        await client.channel.declare_exchange("am-dlx", "topic", durable=True)
        async with running(desk, ready=False):
            deadline = asyncio.get_running_loop().time() + 20
            found: dict[str, Any] = {}
            while "worker-waits" not in found:  # the API is some seconds behind
                assert asyncio.get_running_loop().time() < deadline, found
                ran = await run_tool("doctor", *words, cwd=tmp_path)
                found = {each["check"]: each for each in ran.objects}
            assert found["binding-unhandled"]["subjects"] == ["desk.events"]
            assert found["binding-unhandled"]["run"] == ["eda unbind desk Old --yes"]
            assert "queue-without-consumers" not in found
            assert "commands-unserved" not in found
    unbound = await run_tool("unbind", url, *found["binding-unhandled"]["run"][0].split()[2:])
    assert (unbound.status, unbound.out) == (0, "desk.events from events, key Old: is not bound now\n")
    ran = await run_tool("doctor", *words, cwd=tmp_path)
    assert "binding-unhandled" not in {each["check"] for each in ran.objects}


@asynchronous
async def test_what_is_told_to_run_mends_it(managed: tuple[RabbitNode, str], tmp_path: Path) -> None:
    node, vhost = managed
    url = node.vhost_url(vhost)
    async with await aio_pika.connect(url) as connection:
        await _spoil(await connection.channel())
        ran = await run_tool("doctor", url, "--management", node.management_url, "--json")
        assert ran.status == 1
        unlimited = (
            [] if await asyncio.to_thread(_has_a_default_limit, node) else [("no-delivery-limit", ["desk.events"])]
        )
        assert [(each["check"], each["subjects"]) for each in ran.objects] == [
            ("no-dead-letter-policy", ["desk.commands", "desk.events", "left.events"]),
            ("dead-letter-exchange-missing", ["am-dlx"]),
            ("exchange-wrong", ["events"]),
            ("exchange-missing", ["configurations"]),
            ("exchange-missing", ["logs"]),
            ("queue-without-consumers", ["left.events"]),
            *unlimited,
            ("retry-left-over", ["gone.events.retry.500"]),
        ]
        for check in ran.objects:
            for line in check["run"]:
                await asyncio.to_thread(_mend, node, line, tmp_path / "definitions")
        again = await run_tool("doctor", url, "--management", node.management_url)
        assert (again.status, again.out) == (0, ""), again
        assert again.err == "doctor.py: nothing wrong; 12 exchanges and 3 queues looked at\n"


def _has_a_default_limit(node: RabbitNode) -> bool:
    """From RabbitMQ 4.0 on quorum queues give up a message after 20 deliveries."""
    return int(node.ctl("version").partition(".")[0]) >= 4


async def _spoil(channel: Any) -> None:
    """An events exchange of the wrong type, and a queue for each check."""
    await channel.declare_exchange("events", "fanout", durable=True)
    await channel.declare_exchange("commands", "topic", durable=True)
    for name in ("left.events", "desk.events", "desk.commands", "gone.events.retry.500"):
        quorum = {"x-queue-type": "quorum"} if name == "desk.events" else None
        queue = await channel.declare_queue(name, durable=True, arguments=quorum)
        if name.startswith("desk"):
            await queue.consume(_take)


async def _take(message: AbstractIncomingMessage) -> None:
    """A consumer that gets no messages."""


def _mend(node: RabbitNode, line: str, file: Path) -> None:
    """Run a line as an operator on the broker's host would; ``file`` is for what it writes."""
    if line.startswith("rabbitmqadmin ") and shutil.which("rabbitmqadmin") is None:
        pytest.skip("rabbitmqadmin is not installed")
    if line.startswith("rabbitmqadmin ") and "||" not in line:
        # For RabbitMQ 4 only version 2 is told. The machine that runs the tests may have version 1, of RabbitMQ 3.
        line += f" || {line.replace('--name=', 'name=')}"
    node.shell(line.replace("/tmp/eda-definitions.json", str(file)))


@asynchronous
async def test_credentials_of_the_management_api(rabbit_management: RabbitNode) -> None:
    bad = rabbit_management.management_url.replace("//", "//guest:wr0ng@")
    with_port = ("--management", rabbit_management.management_url)
    refused, taken = await asyncio.gather(
        run_tool("doctor", rabbit_management.url, "--management", bad),
        run_tool("doctor", rabbit_management.url, *with_port, "--json"),
    )
    assert (refused.status, refused.out) == (4, "")
    assert "refuses the user 'guest' or its password" in refused.line
    assert "wr0ng" not in refused.line
    assert taken.status == 1  # of amqp_url


class _Api(http.server.BaseHTTPRequestHandler):
    """Answers from ``answers`` by path, and records the requests."""

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
        ((200, b"<html>"), 1, "the answer for /api/overview is not that of a management API"),
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


def test_a_user_who_may_not_read_policies_is_told_so(capsys: pytest.CaptureFixture[str]) -> None:
    queue = {"name": "desk.events", "type": "quorum", "effective_policy_definition": {"delivery-limit": 3}}
    rows = [{"name": name, "type": "topic", "durable": True} for name in EXCHANGES]
    answers: dict[str, object] = {
        "overview": {"rabbitmq_version": "3.13.7"},
        "exchanges/%2F": rows,
        "queues/%2F": [queue],
        "bindings/%2F": [{"source": "events", "destination": "desk.events", "destination_type": "queue"}],
    }
    forbidden = {"policies/%2F": (403, b"{}"), "operator-policies/%2F": (403, b"{}")}
    told = {path: (200, json.dumps(answer).encode()) for path, answer in answers.items()}
    broker = Broker()
    operator = broker.connect()
    for method in (commands.Channel.Open(), commands.Queue.Declare(queue="desk.events", durable=True)):
        broker.receive(operator, 1, method, now=0.0)
    with EmbeddedBrokerThread(broker=broker) as embedded, _api(**told, **forbidden) as (url, _):
        ran = run_here(TOOL, capsys, embedded.url, "--management", url, "--json")
    assert [(each["severity"], each["check"]) for each in ran.objects] == [
        ("problem", "no-dead-letter-policy"),
        ("problem", "dead-letter-exchange-missing"),
        ("problem", "queue-without-consumers"),
        ("note", "not-checked"),
    ]
    assert '{"delivery-limit":3,"dead-letter-exchange":"am-dlx"}' in ran.objects[0]["run"][0]
    assert "this user may not read policies" in ran.objects[3]["text"]


def test_on_a_terminal_only_loss_is_red() -> None:
    with EmbeddedBrokerThread(dead_letters=False) as embedded:
        status, sent = on_terminal(sys.executable, "-m", "eda_tools.doctor", embedded.url)
        assert status == 1
        assert sent.count("\x1b[1;31mproblem") == 1
        assert "\x1b[1;31mMessages are lost\x1b[0m\n\x1b[1;31mproblem" in sent
        assert "\x1b[33mSomething does not work\x1b[0m\n\x1b[33mproblem" in sent
        status, sent = on_terminal(sys.executable, "-m", "eda_tools.doctor", embedded.url, env={"NO_COLOR": "1"})
    assert "\x1b" not in sent
    assert re.search(r"^problem +events: there is no such exchange$", sent, re.MULTILINE)
