"""publish_event, publish_configuration and send_command, in processes of their own and in this one, on both brokers."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import Any

import cbor2
import pytest

from eda_core import Command
from eda_tools import eda, logger, monitor, publish_configuration, publish_event, send_command
from eda_tools.broker import EmbeddedBrokerThread
from eda_tools.cli import status as cli
from tests.support.rabbitmq import free_port
from tests.support.services import (
    BrokerUnderTest,
    Probe,
    asynchronous,
    environment,
    peer,
    program,
    running,
    within,
)
from tests.support.tools import Ran, interrupted, on_terminal, run_here, run_tool

TOOLS = {
    tool.name: tool for tool in (module.TOOL for module in (logger, monitor, publish_event, publish_configuration))
}
TOOLS["send_command"] = send_command.TOOL


async def here(name: str, capsys: pytest.CaptureFixture[str], *arguments: str) -> Ran:
    """Run a tool in a thread, beside the peers of the test."""
    return await within(asyncio.to_thread(run_here, TOOLS[name], capsys, *arguments), f"the end of {name}")


def needed(name: str) -> tuple[str, ...]:
    """The arguments after the URL."""
    return () if name in ("logger", "monitor") else ("probe.Name", "--data", "{}")


def uuids(text: str) -> list[str]:
    return [str(uuid.UUID(line)) for line in text.splitlines()]


# --- publish_* ---


@asynchronous
async def test_an_event_is_published_from_a_file(broker: BrokerUnderTest, tmp_path: Path) -> None:
    value = {"é": [1, 2.5, None]}
    (tmp_path / "p.json").write_text(json.dumps(value))
    (tmp_path / "p.cbor").write_bytes(cbor2.dumps(value))
    async with peer(broker.url) as witness:
        events = await witness.tap("events", "Done")
        for path, content_type in (("p.json", "application/json"), ("p.cbor", "application/cbor")):
            ran = await run_tool("publish_event", broker.url, "Done", path, cwd=tmp_path)
            assert (ran.status, ran.err) == (cli.DONE, "")
            (conversation_id,) = uuids(ran.out)
            message = await events.next()
            assert (message.routing_key, message.content_type, message.delivery_mode) == ("Done", content_type, 2)
            assert message.headers["conversation_id"] == conversation_id
            read = json.loads if path == "p.json" else cbor2.loads
            assert read(message.body) == value


@asynchronous
async def test_a_configuration_is_published_from_the_command_line_and_standard_input(
    broker: BrokerUnderTest,
) -> None:
    async with peer(broker.url) as witness:
        configurations = await witness.tap("configurations")
        options = ("--json", "--conversation-id", "c é")
        ran = await run_tool("publish_configuration", "-", "Settings", "--data", "[1]", *options, url=broker.url)
        assert (ran.status, ran.err) == (cli.DONE, "")
        told = {"kind": "configuration", "name": "Settings", "conversation_id": "c é", "routed": True}
        assert ran.objects == [told]
        message = await configurations.next()
        assert (message.routing_key, message.headers["conversation_id"]) == ("Settings", "c é")
        assert json.loads(message.body) == [1]

        ran = await run_tool("publish_configuration", "-", "Settings", "-", url=broker.url, stdin=cbor2.dumps({"a": 1}))
        assert (ran.status, ran.err) == (cli.DONE, "")
        message = await configurations.next()
        assert (message.content_type, cbor2.loads(message.body)) == ("application/cbor", {"a": 1})


@pytest.mark.parametrize("name", ["publish_event", "publish_configuration"])
@asynchronous
async def test_that_nobody_gets_it_is_told(
    name: str, broker: BrokerUnderTest, capsys: pytest.CaptureFixture[str]
) -> None:
    ran = await here(name, capsys, broker.url, "Unheard", "--data", "{}")
    kind = name.partition("_")[2]
    told = f"{name}: no queue is bound for the {kind} Unheard: the broker took it, but nobody gets it"
    assert (ran.status, ran.line) == (cli.FAILED, told)
    uuids(ran.out)
    ran = await here(name, capsys, broker.url, "Unheard", "--data", "{}", "--count", "3", "--json")
    assert (ran.status, ran.line) == (cli.FAILED, f"{told} (3 of 3)")
    assert [line["routed"] for line in ran.objects] == [False] * 3


@asynchronous
async def test_many_are_published(broker: BrokerUnderTest, capsys: pytest.CaptureFixture[str]) -> None:
    async with peer(broker.url) as witness:
        events = await witness.tap("events")
        ran = await here("publish_event", capsys, broker.url, "Done", "--data", "{}", "--count", "450")
        assert (ran.status, ran.err) == (cli.DONE, "")
        got = [str(message.headers["conversation_id"]) for message in await events.count(450)]
        assert sorted(uuids(ran.out)) == sorted(got)
        assert len(set(got)) == 450


@asynchronous
async def test_some_that_nobody_gets_make_it_partly_done(
    broker: BrokerUnderTest, capsys: pytest.CaptureFixture[str]
) -> None:
    async with peer(broker.url) as witness:
        queue = await witness.channel.declare_queue()
        await witness.channel.declare_exchange("events", "topic", durable=True)
        await queue.bind("events", "Done")
        arguments = (broker.url, "Done", "--data", "{}", "--count", "12", "--rate", "20", "--json")
        begun = time.monotonic()
        publishing = asyncio.create_task(here("publish_event", capsys, *arguments))
        events = await witness.consume(queue.name)
        await events.next()
        await queue.delete(if_unused=False, if_empty=False)
        ran = await publishing
    assert time.monotonic() - begun >= 11 / 20
    assert ran.status == cli.PARTLY
    routed = [line["routed"] for line in ran.objects]
    assert routed == sorted(routed, reverse=True)
    assert ran.line.endswith(f"nobody gets it ({routed.count(False)} of 12)")


@asynchronous
async def test_many_have_a_progress_bar_on_a_terminal_and_nowhere_else() -> None:
    arguments = ("Done", "--data", "1", "--count", "20", "--rate", "100", "--json")
    with EmbeddedBrokerThread() as embedded:
        async with peer(embedded.url) as witness:
            await witness.tap("events")
            command = (sys.executable, "-m", "eda_tools.publish_event", embedded.url, *arguments)
            status, screen = await asyncio.to_thread(on_terminal, *command)
            assert status == cli.DONE
            assert " 0/20" in screen
            assert "20/20" in screen
            told = re.findall(r"\r\x1b\[2K(\{.*\})\n", screen)  # each takes the place of the bar, which goes below it
            assert len([json.loads(line) for line in told]) == 20
            assert screen.endswith("\x1b[2K")  # it is gone
            ran = await run_tool("publish_event", embedded.url, *arguments, "--color", "always")
    assert (ran.status, ran.err, len(ran.objects)) == (cli.DONE, "", 20)


@pytest.mark.parametrize(
    ("count", "options", "shown", "times"),
    [
        (21, (), "21 events Done are published, each in a conversation of its own\n", 1),
        (21, ("--conversation-id", "c \x1b[31m"), "21 events Done are published, in the conversation c \\x1b[31m\n", 1),
        (20, ("--conversation-id", "c"), "c\n", 20),
    ],
)
def test_a_terminal_gets_a_summary_of_many_and_a_pipe_gets_each(
    count: int, options: tuple[str, ...], shown: str, times: int
) -> None:
    with EmbeddedBrokerThread() as embedded:
        published = ("Done", "--data", "1", "--count", str(count), *options)
        command = (sys.executable, "-m", "eda_tools.publish_event", embedded.url, *published)
        _, screen = on_terminal(*command, env={"NO_COLOR": "1"})
        piped = subprocess.run(command, env=environment(embedded.url), capture_output=True, text=True, timeout=60)
    text = re.sub(r"\r|\x1b\[[0-9;?]*[A-Za-z]", "", screen)
    assert text.count(shown) == times, screen
    assert len(piped.stdout.splitlines()) == count


@asynchronous
async def test_it_tries_the_urls_in_turn(broker: BrokerUnderTest, capsys: pytest.CaptureFixture[str]) -> None:
    async with peer(broker.url) as witness:
        await witness.tap("events")
        urls = f"amqp://guest:sekret@127.0.0.1:{free_port()}/,{broker.url_with_password('sekret')},{broker.url}"
        ran = await here("publish_event", capsys, urls, "Done", "--data", "{}")
    assert (ran.status, ran.err) == (cli.DONE, "")


def test_nobody_reading_the_ids_is_no_error(broker: BrokerUnderTest) -> None:
    command = f"{sys.executable} -m eda_tools publish_event - Done --data '{{}}' --count 1000 --json"
    ran = subprocess.run(
        ["bash", "-c", f"{command} | head -1; exit ${{PIPESTATUS[0]}}"],
        env=environment(broker.url),
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert json.loads(ran.stdout)["name"] == "Done"
    told = "no queue is bound for the event Done: the broker took it, but nobody gets it (1000 of 1000)"
    assert (ran.returncode, ran.stderr) == (cli.FAILED, f"eda publish_event: {told}\n")


# --- what goes wrong before anything is sent ---


@pytest.mark.parametrize("name", TOOLS)
@asynchronous
async def test_refused_credentials_and_virtual_hosts(
    name: str, broker: BrokerUnderTest, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = broker.url_with_password("sekret")
    ran = await here(name, capsys, wrong, *needed(name))
    shown = broker.url_with_password("***")
    assert (ran.status, ran.out) == (cli.NO_CONNECTION, "")
    assert ran.line.startswith(
        f"{name}: no connection to {shown}: the broker refuses the user 'guest' or its password; "
    )
    assert "rabbitmqctl authenticate_user guest" in ran.line

    ran = await here(name, capsys, f"{broker.url.rpartition('/')[0]}/no%2Fvhost", *needed(name))
    assert (ran.status, ran.out) == (cli.NO_CONNECTION, "")
    assert ran.line.startswith(f"{name}: no connection to amqp://guest:***@")
    assert "vhost not found: 'no/vhost'" in ran.line


@pytest.mark.parametrize("name", ["monitor", "publish_event"])
@asynchronous
async def test_exchanges_of_another_type(
    name: str, broker: BrokerUnderTest, capsys: pytest.CaptureFixture[str]
) -> None:
    """A service would try again forever; a tool says what is wrong."""
    async with peer(broker.url) as client:
        await client.channel.declare_exchange("events", "fanout", durable=True)
        ran = await here(name, capsys, broker.url, *needed(name))
    assert (ran.status, ran.out) == (cli.FAILED, "")
    assert " refuses it: PRECONDITION_FAILED - " in ran.line
    assert "'events'" in ran.line
    assert "guest:***@" in ran.line


@asynchronous
async def test_what_answers_is_no_broker_or_has_no_address(capsys: pytest.CaptureFixture[str]) -> None:
    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        ran = await here("logger", capsys, f"amqp://127.0.0.1:{port}/")
        assert ran.status == cli.NO_CONNECTION
        assert ran.line.startswith(f"logger: no connection to amqp://127.0.0.1:{port}/: ")
        ran = await here("logger", capsys, f"amqps://127.0.0.1:{port}/")
        assert ran.status == cli.NO_CONNECTION
        assert "TLS failed: " in ran.line
    ran = await here("logger", capsys, "amqp://u:sekret@host.invalid/,amqp://h2.invalid/")
    assert ran.status == cli.NO_CONNECTION
    assert ran.line.startswith("logger: no connection to amqp://u:***@host.invalid/: the host name is unknown (")
    assert "; nor to amqp://h2.invalid/: the host name is unknown (" in ran.line


@asynchronous
async def test_a_broker_that_does_not_answer(capsys: pytest.CaptureFixture[str]) -> None:
    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async with await asyncio.start_server(listen, "127.0.0.1", 0) as server:
        url = f"amqp://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        ran = await here("monitor", capsys, url, "--timeout", "0.2")
    assert (ran.status, ran.line) == (cli.TIMED_OUT, f"monitor: connecting to {url}: timed out after 0.2 s")


@pytest.mark.parametrize("name", ["publish_event", "publish_configuration", "send_command"])
@pytest.mark.parametrize(
    ("file", "body", "status", "told"),
    [
        ("none.json", None, cli.FAILED, "none.json: No such file or directory"),
        ("bad.json", b'{"a": 1 2}', cli.FAILED, "bad.json:1:9: malformed JSON: "),
        ("bad.cbor", b"\xa1", cli.FAILED, "bad.cbor: malformed CBOR: "),
        ("bad.txt", b"{}", cli.USAGE, "bad.txt: the extension is neither .json nor .cbor"),
    ],
)
def test_payload_files_that_are_wrong(
    name: str,
    file: str,
    body: bytes | None,
    status: int,
    told: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    if body is not None:
        (tmp_path / file).write_bytes(body)
    ran = run_here(TOOLS[name], capsys, "amqp://127.0.0.1:1/", "a.B", file)  # without connecting
    assert (ran.status, ran.out) == (status, "")
    assert ran.line.startswith(f"{name}: {told}")


@asynchronous
async def test_waiting_for_standard_input_can_be_ended() -> None:
    command = ("-m", "eda_tools.publish_event", "amqp://127.0.0.1:1/", "Done", "-")
    async with program(*command, "--timeout", "0.2") as started:
        assert await started.end() == cli.TIMED_OUT
        assert started.errors == "publish_event.py: reading the payload: timed out after 0.2 s\n"


@pytest.mark.parametrize("name", ["", "x" * 256])
def test_names_that_cannot_be_sent(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    ran = run_here(publish_event.TOOL, capsys, "amqp://127.0.0.1:1/", name, "--data", "{}")
    assert ran.status == cli.USAGE
    assert ran.line.startswith("publish_event: the name ")


# --- send_command ---


class Echo(Probe):
    """Returns its payload in the way that the command names."""

    def __init__(self, url: str) -> None:
        super().__init__(url, [], ["echo.Echo", "echo.Mute", "echo.Babble", "echo.Forget"], "echo")
        self.commands: list[Command] = []

    async def handle(self, message: Any) -> bool:
        assert isinstance(message, Command)
        self.commands.append(message)
        self.seen.add(message.name)
        answer = message.reply_to, message.payload, message.conversation_id, message.correlation_id
        if message.name == "echo.Echo":
            await (self.return_error if message.payload == "fail" else self.return_success)(*answer)
        elif message.name == "echo.Forget":
            await self.return_success(message.reply_to, message.payload, "another", "8")
        elif message.name == "echo.Babble":  # a service in another language, and in trouble
            async with peer(self._eda_config.urls[0]) as babbler:
                await babbler.publish("commands", message.reply_to, b"\xff", headers=message.payload)
        await self.manual_ack(message.meta["delivery_tag"])
        return True  # or the service would warn of a command without an answer


@asynchronous
async def test_a_command_is_sent_and_its_result_shown(broker: BrokerUnderTest, tmp_path: Path) -> None:
    (tmp_path / "p.json").write_text('{"é": "\\u001b[31m"}')
    async with running(echo := Echo(broker.url)):
        ran = await run_tool("send_command", broker.url, "echo.Echo", "p.json", cwd=tmp_path)
        assert (ran.status, ran.err) == (cli.DONE, "")
        assert ran.out.startswith("result eda-send_command.")
        assert " success  " in ran.out.splitlines()[0]
        assert ran.out.endswith('{\n  "é": "\\u001b[31m"\n}\n')

        options = ("--json", "--conversation-id", "mine")
        ran = await run_tool("send_command", "-", "echo.Echo", "--data", '"fail"', *options, url=broker.url)
        assert (ran.status, ran.err) == (cli.ERROR_RESULT, "")
        (result,) = ran.objects
        assert (result["kind"], result["status"], result["payload"]) == ("result", "error", "fail")
        assert result["conversation_id"] == "mine"
    first, second = echo.commands
    assert first.payload == {"é": "\x1b[31m"}
    assert second.conversation_id == "mine"
    assert first.correlation_id not in ("", second.correlation_id)
    assert first.reply_to != second.reply_to


@asynchronous
async def test_a_command_for_nobody_ends_at_once(broker: BrokerUnderTest, capsys: pytest.CaptureFixture[str]) -> None:
    ran = await here("send_command", capsys, broker.url, "nobody.Here", "--data", "{}")
    told = "send_command: no service is bound to nobody.Here: nobody gets the command"
    assert (ran.status, ran.out, ran.line) == (cli.FAILED, "", told)


@asynchronous
async def test_a_service_that_is_not_there_is_told_of_although_a_monitor_gets_the_command(
    broker: BrokerUnderTest, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("-m", "eda_tools.send_command", broker.url, "echo.Mute", "--data", "{}")
    async with peer(broker.url) as monitor:
        await monitor.tap("commands")
        for told in (
            "there is no queue echo.commands: echo does not seem to run, and only a monitor gets the command",
            "no worker of echo consumes echo.commands now: the command waits there",
        ):
            async with program(*words) as started:
                assert await started.notes.next() == f"send_command.py: {told}"
                ran = await interrupted(started)
            assert (ran.status, ran.out) == (cli.INTERRUPTED, "")
            await monitor.channel.declare_queue("echo.commands", durable=True)
        monkeypatch.setattr(send_command, "_LOOK_AFTER", 0.0)
        async with running(Echo(broker.url)):
            ran = await here("send_command", capsys, broker.url, "echo.Echo", "--data", "{}")
    assert (ran.status, ran.err) == (cli.DONE, "")


@asynchronous
async def test_a_service_whose_queue_would_have_too_long_a_name(
    broker: BrokerUnderTest, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(send_command, "_LOOK_AFTER", 0.01)
    async with peer(broker.url) as monitor:
        await monitor.tap("commands")
        ran = await here("send_command", capsys, broker.url, "x" * 250 + ".A", "--data", "1", "--timeout", "2")
    assert ran.status == cli.TIMED_OUT
    assert ran.line.endswith("timed out after 2 s")


@asynchronous
async def test_a_result_that_does_not_come(broker: BrokerUnderTest, capsys: pytest.CaptureFixture[str]) -> None:
    async with running(echo := Echo(broker.url)):
        arguments = ("echo.Mute", "--data", "{}", "--conversation-id", "c")
        ran = await here("send_command", capsys, broker.url, *arguments, "--timeout", "0.8")
        told = "send_command: waiting for the result of echo.Mute (conversation c): timed out after 0.8 s"
        assert (ran.status, ran.out, ran.line) == (cli.TIMED_OUT, "", told)
        assert len(echo.commands) == 1

        async with program("-m", "eda_tools.send_command", broker.url, *arguments) as started:
            await echo.seen.count(2)
            ran = await interrupted(started)
        assert (ran.status, ran.out, ran.err) == (cli.INTERRUPTED, "", "")


@asynchronous
async def test_an_answer_that_is_no_result_is_shown(
    broker: BrokerUnderTest, capsys: pytest.CaptureFixture[str]
) -> None:
    async with running(Echo(broker.url)):
        headers = {"conversation_id": "c", "status": "success"}
        ran = await here("send_command", capsys, broker.url, "echo.Babble", "--data", json.dumps(headers), "--json")
        assert ran.status == cli.FAILED
        assert ran.objects[0]["body"] == "/w=="
        assert ran.line.startswith("send_command: what came back is not a result: malformed JSON")


@asynchronous
async def test_a_result_that_forgets_what_it_answers_is_shown_with_a_warning(
    broker: BrokerUnderTest, capsys: pytest.CaptureFixture[str]
) -> None:
    async with running(echo := Echo(broker.url)):
        ran = await here("send_command", capsys, broker.url, "echo.Forget", "--data", "1", "--conversation-id", "mine")
    assert (ran.status, ran.out.splitlines()[-1]) == (cli.DONE, "1")
    first, second = ran.err.splitlines()
    sent = echo.commands[0].correlation_id
    assert first == f"send_command: the result's correlation_id is '8', the command's was '{sent}'"
    assert second == "send_command: the result's conversation_id is 'another', the command's was 'mine'"


class Failing(Probe):
    """Logs, then fails or answers."""

    def __init__(self, url: str) -> None:
        super().__init__(url, [], ["failing.Do"], "failing")

    async def on_Do(
        self, payload: Any, conversation_id: str, reply_to: str, correlation_id: str, meta: dict[str, Any]
    ) -> None:
        await self.log(6, "working on it", conversation_id=conversation_id)
        await self.log(6, "something else", conversation_id="another")
        if payload == "fail":
            raise ZeroDivisionError("on purpose")
        await self.return_success(reply_to, payload, conversation_id, correlation_id)


@asynchronous
async def test_the_logs_of_the_conversation_are_shown(
    broker: BrokerUnderTest, capsys: pytest.CaptureFixture[str]
) -> None:
    async with running(Failing(broker.url)):
        ran = await here("send_command", capsys, broker.url, "failing.Do", "--data", "1", "--json")
        assert (ran.status, ran.objects[0]["payload"]) == (cli.DONE, 1)
        head, *rest = ran.err.splitlines()
        assert re.fullmatch(r"\d{4}-\S+ \S+ INFO      failing working on it", head)
        assert [line.split(":")[0] for line in rest] == ["    from"]
        ran = await here("send_command", capsys, broker.url, "failing.Do", "--data", "1", "--no-logs")
        assert (ran.status, ran.err) == (cli.DONE, "")


@asynchronous
async def test_a_command_that_is_given_up_ends_at_once(broker: BrokerUnderTest) -> None:
    async with running(Failing(broker.url)):
        ran = await run_tool("send_command", broker.url, "failing.Do", "--data", '"fail"', "--timeout", "20")
        assert (ran.status, ran.out) == (cli.FAILED, "")
        assert ran.err.count("Do: ZeroDivisionError: on purpose\n") == 2
        assert ran.err.count("Traceback (most recent call last)") == 1
        last = ran.err.splitlines()[-1]
        told = "send_command.py: failing.Do has failed. Its service says: giving up on failing.Do after 2 attempt(s): "
        assert last.startswith(told)


@asynchronous
async def test_what_is_said_of_an_older_conversation_ends_nothing(
    broker: BrokerUnderTest, capsys: pytest.CaptureFixture[str]
) -> None:
    """There, the service may have given up another command of that name."""
    async with running(Failing(broker.url)):
        words = ("failing.Do", "--data", '"fail"', "--conversation-id", "old", "--timeout", "2.5")
        ran = await here("send_command", capsys, broker.url, *words)
    assert ran.status == cli.TIMED_OUT
    assert " giving up on failing.Do " in ran.err


LAST_WORD = {
    "_conversation_id": "c",
    "_logical_service": "a",
    "_routing_key": "a.B",
    "level": 0,
    "_outcome": "dead-letter",
    "short_message": "no more",
}


@pytest.mark.parametrize(
    "different",
    [
        {},
        {"_conversation_id": "x"},
        {"_logical_service": "other"},
        {"_routing_key": "a.C"},
        {"level": 1},
        {"_outcome": "retry"},
    ],
)
@asynchronous
async def test_only_the_last_word_of_the_service_is_believed(
    different: dict[str, Any], broker: BrokerUnderTest, capsys: pytest.CaptureFixture[str]
) -> None:
    """Anybody may log anything."""
    async with running(echo := Echo(broker.url)), peer(broker.url) as client:
        words = ("echo.Mute", "--data", "1", "--timeout", "2.5")
        sending = asyncio.create_task(here("send_command", capsys, broker.url, *words))
        await echo.seen.count(1)
        sent = {"_conversation_id": echo.commands[0].conversation_id, "_logical_service": "echo"}
        record = {**LAST_WORD, **sent, "_routing_key": "echo.Mute", **different}
        await client.publish("logs", "echo.EMERGENCY", json.dumps(record).encode())
        ran = await sending
    if different:
        assert (ran.status, "timed out" in ran.err) == (cli.TIMED_OUT, True)
    else:
        told = "send_command: echo.Mute has failed. Its service says: no more"
        assert (ran.status, ran.err.splitlines()[-1]) == (cli.FAILED, told)


@asynchronous
async def test_a_result_comes_before_the_last_word(broker: BrokerUnderTest, capsys: pytest.CaptureFixture[str]) -> None:
    """A service may answer a command that it gives up."""
    async with running(echo := Echo(broker.url)), peer(broker.url) as client:
        words = ("echo.Mute", "--data", "1", "--timeout", "10")
        sending = asyncio.create_task(here("send_command", capsys, broker.url, *words))
        await echo.seen.count(1)
        command = echo.commands[0]
        sent = {"_conversation_id": command.conversation_id, "_logical_service": "echo", "_routing_key": "echo.Mute"}
        await client.publish("logs", "echo.EMERGENCY", json.dumps({**LAST_WORD, **sent}).encode())
        await echo.return_error(command.reply_to, "why", command.conversation_id, command.correlation_id)
        ran = await sending
    assert (ran.status, ran.out.splitlines()[-1]) == (cli.ERROR_RESULT, '"why"')


@asynchronous
async def test_a_command_without_a_service_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    ran = await here("send_command", capsys, "amqp://127.0.0.1:1/", "Echo", "--data", "{}")
    told = "send_command: the command 'Echo' names no service; write it as service.command"
    assert (ran.status, ran.line) == (cli.USAGE, told)


@asynchronous
async def test_nothing_is_left_behind(broker: BrokerUnderTest, capsys: pytest.CaptureFixture[str]) -> None:
    async with running(echo := Echo(broker.url)):
        await here("send_command", capsys, broker.url, "echo.Echo", "--data", "{}")
        reply_to = echo.commands[0].reply_to
        ran = await here("send_command", capsys, broker.url, reply_to, "--data", "{}")
    assert ran.line == f"send_command: no service is bound to {reply_to}: nobody gets the command"


# --- on a terminal ---


@asynchronous
async def test_results_and_errors_have_colours_on_a_terminal(broker: BrokerUnderTest) -> None:
    command = (sys.executable, "-m", "eda_tools", "send_command", "-")
    async with running(Echo(broker.url)):
        good = (*command, "echo.Echo", "--data", '{"a": [1, "x"]}')
        status, screen = await asyncio.to_thread(on_terminal, *good, url=broker.url)
        assert status == cli.DONE
        assert screen.startswith("\x1b[1;36mresult \x1b[0m")
        assert '\x1b[34m  "a"\x1b[0m: [\n    \x1b[36m1\x1b[0m,\n    \x1b[32m"x"\x1b[0m\n  ]' in screen
        status, screen = await asyncio.to_thread(on_terminal, *good, url=broker.url, env={"NO_COLOR": "1"})
        assert status == cli.DONE
        assert "\x1b" not in screen
        assert '{\n  "a": [\n    1,\n    "x"\n  ]\n}\n' in screen
        bad = (*command, "echo.Nobody", "--data", "{}")
        status, screen = await asyncio.to_thread(on_terminal, *bad, url=broker.url)
        assert status == cli.FAILED
        assert screen.startswith("\x1b[2meda send_command: \x1b[0m\x1b[1;31mno service is bound to echo.Nobody")


def test_eda_and_eventails_names_are_the_same_tools() -> None:
    assert {eda.load(name) for name in TOOLS} == set(TOOLS.values())
