"""The pipeline of the demo as processes, on its own broker and on RabbitMQ; and what users get wrong."""

from __future__ import annotations

import asyncio
import contextlib
import re
import secrets
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import cbor2
import pytest

from eda_core.messages.headers import ORIGIN_ROUTING_KEY
from eda_tools.broker import EmbeddedBroker
from examples.conversations.transcripts import SHIPPED
from tests.support.rabbitmq import RabbitNode
from tests.support.services import (
    DEAD_LETTER_QUEUE,
    ROOT,
    asynchronous,
    environment,
    operate_dead_letters,
    peer,
    program,
    within,
)

DEMO = (sys.executable, "-m", "examples.conversations.demo")
POISON = "the card expires 13/27"


def run_demo(
    *arguments: object, url: str | None = None, program: Sequence[str] = DEMO
) -> subprocess.CompletedProcess[str]:
    command, pipe = [*program, *map(str, arguments)], subprocess.PIPE
    with subprocess.Popen(command, env=environment(url), cwd=ROOT, stdout=pipe, stderr=pipe, text=True) as demo:
        try:
            output, errors = demo.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            demo.terminate()  # killed at once, it could not end its workers
            output, errors = demo.communicate(timeout=60)
            pytest.fail(f"the demo did not end within 60 s: {output[-2000:]}\n{errors[-1000:]}")
        finally:
            demo.kill()
    return subprocess.CompletedProcess(command, demo.returncode, output, errors)


def table(output: str) -> dict[str, int]:
    """The table at the end of the demo's output."""
    rows = {}
    for line in output.split("\n\n")[-2].splitlines():
        label, _, number = line.rpartition(" ")
        if number.isdecimal():
            rows[label.strip()] = int(number)
    return rows


def write(directory: Path, **texts: str) -> Path:
    directory.mkdir(exist_ok=True)
    for name, text in texts.items():
        (directory / f"{name}.txt").write_text(text, encoding="utf-8")
    return directory


def refusal(done: subprocess.CompletedProcess[str]) -> str:
    """The one line that tells a user what is wrong."""
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert "Traceback" not in line
    return line


# --- runs ---


@pytest.mark.rabbitmq
@pytest.mark.parametrize("options", [("--fast",), ()], ids=["fast", "slow"])
def test_a_whole_run_on_rabbitmq_leaves_only_the_dead_letter(
    options: Sequence[str], rabbitmq: RabbitNode, rabbit_vhost: str, rabbit_url: str
) -> None:
    async def prepare() -> None:
        async with peer(rabbit_url) as client:
            await operate_dead_letters(rabbitmq, rabbit_vhost, client)

    async def collect() -> None:
        async with peer(rabbit_url) as client:
            (letter,) = await client.drain(DEAD_LETTER_QUEUE)
        assert letter.headers[ORIGIN_ROUTING_KEY] == "anonymizer.AnonymizeText"
        assert "13/27" in cbor2.loads(letter.body)["text"], "the poisoned command, whole"
        assert (letter.reply_to, letter.app_id) == ("archive.AnonymizeTextReturn", "archive")
        deaths = cast("list[dict[str, Any]]", letter.headers["x-death"])
        waits = [death for death in deaths if death["queue"] == "anonymizer.commands.retry.2000"]
        assert len(waits) == (0 if options else 1)
        (death,) = (death for death in deaths if death not in waits)
        assert (death["queue"], death["reason"], death["count"]) == ("anonymizer.commands", "rejected", 1)

    asyncio.run(within(prepare(), "the operator's preparations"))
    done = run_demo(*options, url=rabbit_url)
    assert (done.returncode, done.stderr) == (0, "")
    counted = table(done.stdout)
    assert counted.pop("messages") >= 74
    assert counted == {"conversations in": 13, "archived": 12, "dead-lettered": 1, "retries": 1}
    queues = rabbitmq.ctl("list_queues", "-p", rabbit_vhost, "name", "messages", "--no-table-headers")
    assert queues.split() == [DEAD_LETTER_QUEUE, "1"]
    asyncio.run(within(collect(), "the dead letter"))


def test_another_directory(tmp_path: Path) -> None:
    texts = write(tmp_path / "texts", good="Hello, my bill is wrong.", bad=POISON, empty="", été="La facture est là.")
    (texts / "notes.md").write_text("no transcript")
    done = run_demo("--fast", texts)
    assert (done.returncode, done.stderr) == (0, "")
    counted = table(done.stdout)
    assert counted.pop("messages") >= 20
    assert counted == {"conversations in": 4, "archived": 3, "dead-lettered": 1, "retries": 1}
    assert done.stdout.split("\n\n")[-2].splitlines()[-1].startswith("dead letter bad.txt: ")
    assert "été.txt" in done.stdout


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_an_interrupted_run_leaves_no_process(tmp_path: Path, number: signal.Signals) -> None:
    texts = write(tmp_path / "texts", **{f"call{count}": "Hello, my bill is wrong." for count in range(500)})
    mark = f"EDA_TEST_MARK={secrets.token_hex(8)}"
    env = environment() | dict([mark.split("=")])
    demo = subprocess.Popen(
        [*DEMO, str(texts)], env=env, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert demo.stdout is not None
        assert "ConversationReceived" in demo.stdout.readline(), "it has begun"
        assert len(processes(mark)) > 6
        demo.send_signal(number)
        _, errors = demo.communicate(timeout=40)
    finally:
        demo.kill()
        demo.communicate()
    assert (demo.returncode, errors) == (130, "demo: interrupted\n")
    assert processes(mark) == []


def processes(mark: str) -> list[int]:
    """The processes with this in their environment (Linux)."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if mark.encode() in (entry / "environ").read_bytes().split(b"\0"):
                found.append(int(entry.name))
    return found


# --- what users get wrong ---


def a_loop(path: Path) -> None:
    path.symlink_to(path.name)


def nothing(path: Path) -> None:
    path.symlink_to("removed")


def binary(path: Path) -> None:
    path.write_bytes(b"\x81\x8d\x8f")


@pytest.mark.parametrize(
    ("spoil", "problem"),
    [(a_loop, "cannot be read"), (nothing, "cannot be read"), (binary, "neither UTF-8 nor cp1252")],
)
def test_a_file_that_cannot_be_read(tmp_path: Path, spoil: Callable[[Path], None], problem: str) -> None:
    texts = write(tmp_path / "texts", good="Hello")
    spoil(texts / "bad.txt")
    line = refusal(run_demo(texts))
    assert line.startswith(f"{texts}/bad.txt: ")
    assert problem in line


#: The demo, run by root as the user nobody: root may read anything, and nobody may not read root's Python.
DEMO_OF_NOBODY = """
import os, sys
from examples.conversations.demo import main
if os.geteuid() == 0:
    os.seteuid(65534)
sys.exit(main())
"""


def test_a_file_without_permission() -> None:
    with tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(0o755)
        texts = write(Path(directory, "texts"), good="Hello", bad="secret")
        (texts / "bad.txt").chmod(0)
        done = run_demo(texts, program=(sys.executable, "-c", DEMO_OF_NOBODY))
        assert refusal(done).startswith(f"{texts}/bad.txt: cannot be read (Permission denied)")


@pytest.mark.parametrize("kind", ["a file", "only a directory named like a transcript"])
def test_a_directory_without_transcripts(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "texts"
    if kind == "a file":
        path.write_text("Hello")
        assert "is not a directory" in refusal(run_demo(path))
    else:
        (path / "x.txt").mkdir(parents=True)
        assert "holds no *.txt file" in refusal(run_demo(path))


@pytest.mark.rabbitmq
def test_the_password_is_never_printed(
    tmp_path: Path, rabbitmq: RabbitNode, rabbit_url: str, rabbit_vhost: str
) -> None:
    """Neither when all goes well nor when it is wrong."""
    password, texts = f"hunter{secrets.token_hex(4)}", write(tmp_path / "texts", good="Hello", bad=POISON)
    rabbitmq.ctl("add_user", "demo", password)
    try:
        rabbitmq.ctl("set_permissions", "-p", rabbit_vhost, "demo", ".*", ".*", ".*")
        url = rabbit_url.replace("guest:guest@", f"demo:{password}@")
        good = run_demo(texts, url=url)
        assert good.returncode == 0
        assert password not in good.stdout + good.stderr
        wrong = run_demo(texts, url=url.replace(password, f"{password}wrong"))
        assert (wrong.returncode, wrong.stdout) == (1, "")
        assert wrong.stderr.count("\n") == 1
        assert password not in wrong.stderr
    finally:
        rabbitmq.ctl("delete_user", "demo")


@pytest.mark.rabbitmq
def test_a_bus_with_a_consumer_of_the_same_name_is_left_alone(tmp_path: Path, rabbit_url: str) -> None:
    texts = write(tmp_path / "texts", good="Hello")

    async def scenario() -> None:
        async with peer(rabbit_url) as client:
            await client.channel.declare_queue("tagger.commands", durable=True)
            await client.consume("tagger.commands")
            done = await asyncio.to_thread(run_demo, texts, url=rabbit_url)
            assert (done.returncode, done.stdout) == (1, "")
            assert "has consumers on tagger.commands" in done.stderr
            assert await client.waiting_in("tagger.commands") == 0

    asyncio.run(within(scenario(), "the refusal"))


# --- the services without the demo ---


@asynchronous
async def test_eda_run_runs_the_services_as_the_readme_says(tmp_path: Path) -> None:
    readme = (ROOT / "examples/conversations/README.rst").read_text("utf-8")
    services = sorted(set(re.findall(r"examples\.conversations\.\w+:\w+", readme)))
    assert len(services) == 3
    settings = {"ARCHIVE_STATE": str(tmp_path / "state")}
    async with EmbeddedBroker() as broker, peer(broker.url) as client:
        archived = await client.tap("events", "ConversationArchived")
        dead = await client.consume(DEAD_LETTER_QUEUE)
        command = ("-m", "eda_tools", "run", "--workers", "3", *services, "--log-format", "json")
        async with program(*command, url=broker.url, settings=settings) as run:
            await run.lines.until(
                lambda lines: sum('"ready: ' in line for line in lines) == 9, "nine workers are ready"
            )
            collector = "examples.conversations.collector"
            async with program("-m", collector, str(SHIPPED), url=broker.url) as sender:
                assert await sender.end() == 0
            await archived.count(12)
            await dead.count(1)
            run.process.send_signal(signal.SIGTERM)
            assert await run.end() == 0
        assert run.errors == ""
        assert len({each.headers["conversation_id"] for each in archived.all}) == 12
