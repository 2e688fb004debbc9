"""README.rst keeps its word: its service runs as pasted, its commands and paths exist."""

from __future__ import annotations

import importlib.util
import re
import signal
import textwrap
from pathlib import Path
from typing import Any

import pytest

from eda_tools.broker import EmbeddedBroker
from tests.support.services import ROOT, Probe, asynchronous, program, running

README = (ROOT / "README.rst").read_text(encoding="utf-8")
#: Named in the README, and not ours: the user's own file and directory.
THEIRS = {"greeter.py", "path/to/texts"}


def pasted_service(adapter: str = "eda_aio") -> str:
    """The first code block with a class on this adapter, as a reader would paste it."""
    blocks = re.findall(r"^\.\. code-block:: python\n\n((?:(?: {4}.*)?\n)+)", README, re.MULTILINE)
    (first, *_) = [block for block in map(textwrap.dedent, blocks) if "class " in block and adapter in block]
    return str(first).strip() + "\n"


class Caller(Probe):
    """Sends the command again while the greeter is not there yet."""

    def __init__(self, url: str) -> None:
        super().__init__(url, [], ["caller.GreetReturn"], "caller")

    async def greet(self) -> None:
        await self.send_command("greeter.Greet", {"name": "Ada"}, "a conversation", "caller.GreetReturn", "k")

    async def handle_returned_message(self, key: str, payload: Any, envelope: Any) -> None:
        self.call_later(0.05, self.greet)

    async def on_GreetReturn(
        self, payload: Any, conversation_id: str, status: str, correlation_id: str, meta: dict[str, Any]
    ) -> None:
        self.seen.add((payload, conversation_id, status, correlation_id))


@pytest.mark.parametrize("adapter", ["eda_aio", "eda_pika"])
@asynchronous
async def test_the_services_of_the_readme_run_as_pasted(tmp_path: Path, adapter: str) -> None:
    (tmp_path / "greeter.py").write_text(pasted_service(adapter), encoding="utf-8")
    async with EmbeddedBroker() as broker:
        caller = Caller(broker.url)
        async with program("greeter.py", url=broker.url, cwd=tmp_path) as greeter, running(caller):
            await caller.greet()
            assert await caller.seen.next() == ({"greeting": "Hello, Ada!"}, "a conversation", "success", "k")
            greeter.process.send_signal(signal.SIGTERM)
            assert (await greeter.end(), greeter.errors, greeter.lines.all) == (0, "", [])


def test_the_service_of_the_readme_has_fifteen_lines() -> None:
    lines = [line for line in pasted_service().splitlines() if line.strip()]
    assert len(lines) <= 15
    assert 'os.environ.get("EDA_AMQP_URL", "amqp://guest:guest@127.0.0.1:5672/")' in pasted_service()


def test_the_two_commands() -> None:
    text = " ".join(README.split())
    before = {text[: match.start()].rpartition(" && ")[2][-12:] for match in re.finditer(r"\bnox\b", text)}
    assert all(words.endswith(("python3 -m ", "pip install ")) for words in before), "nox is run as python3 -m nox"
    commands = set(re.findall(r"python3 -m nox(?: -\w+ \w+)*", text))
    assert commands == {"python3 -m nox -s demo", "python3 -m nox"}
    sessions = re.findall(r"^@nox\.session\ndef (\w+)", (ROOT / "noxfile.py").read_text(), re.MULTILINE)
    assert "demo" in sessions


def test_modules_exist() -> None:
    modules = set(re.findall(r"python3? -m ([\w.]+)", README)) - {"nox", "pip", "venv"}
    assert modules
    assert [module for module in sorted(modules) if importlib.util.find_spec(module) is None] == []


def named_paths() -> set[str]:
    """What stands in double backquotes and looks like a file or directory."""
    literals = re.findall(r"``([^`\s]+)``", README)
    return {text for text in literals if re.fullmatch(r"[\w./-]+(/[\w.-]*|\.(py|rst|toml|txt))", text)} - THEIRS


@pytest.mark.parametrize("path", sorted(named_paths()))
def test_paths_exist(path: str) -> None:
    """From the checkout, or from a directory that the README names."""
    bases = [ROOT, *(ROOT / directory for directory in named_paths() if directory.endswith("/"))]
    assert any((base / path).exists() for base in bases)
