"""README.rst keeps its word: its service runs as pasted, its commands and paths exist. tests/docs runs all its code."""

from __future__ import annotations

import importlib.util
import re
import signal
from pathlib import Path
from typing import Any

import pytest

from eda_tools.broker import EmbeddedBroker
from eda_tools.cli.catalogue import PROGRAMS, TOOLS
from tests.docs.blocks import ROOT, Block, read_page
from tests.support.services import Probe, asynchronous, program, running

PAGE = read_page(ROOT / "README.rst")
README = PAGE.text
#: Named in the README, and not ours: the user's own file.
THEIRS = {"greeter.py"}


def pasted_service(name: str = "README.rst") -> Block:
    """The first file that a reader pastes."""
    return next(block for block in read_page(ROOT / name).blocks if block.file.endswith("greeter.py"))


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


@pytest.mark.parametrize(
    ("page", "adapter"), [("README.rst", "eda_aio"), ("docs/howto/plain-functions.rst", "eda_pika")]
)
@asynchronous
async def test_the_services_run_as_pasted(tmp_path: Path, page: str, adapter: str) -> None:
    service = pasted_service(page)
    assert f"from {adapter} import" in service.text
    (tmp_path / "greeter.py").write_text(service.text, encoding="utf-8")
    async with EmbeddedBroker() as broker:
        caller = Caller(broker.url)
        async with program("greeter.py", url=broker.url, cwd=tmp_path) as greeter, running(caller):
            await caller.greet()
            assert await caller.seen.next() == ({"greeting": "Hello, Ada!"}, "a conversation", "success", "k")
            greeter.process.send_signal(signal.SIGTERM)
            assert (await greeter.end(), greeter.lines.all) == (0, [])
    life = [line.split(":")[:3] for line in greeter.errors.splitlines()]
    assert life == [["INFO", adapter, event] for event in ("started", "ready", "stopping", "stopped")]


def test_the_service_of_the_readme_has_fifteen_lines() -> None:
    lines = [line for line in pasted_service().text.splitlines() if line.strip()]
    assert len(lines) <= 15
    assert 'os.environ.get("EDA_AMQP_URL", "amqp://guest:guest@127.0.0.1:5672/")' in pasted_service().text


def test_the_service_of_the_readme_is_run() -> None:
    assert not pasted_service().not_run
    assert any(block.text.startswith("$ python greeter.py\n") and "background" in block.orders for block in PAGE.blocks)


def test_the_two_commands() -> None:
    text = " ".join(README.split())
    before = {text[: match.start()].rpartition(" && ")[2][-12:] for match in re.finditer(r"\bnox\b", text)}
    assert all(words.endswith(("python3 -m ", "pip install ")) for words in before), "nox is run as python3 -m nox"
    commands = set(re.findall(r"python3 -m nox(?: -\w+ \w+)*", text))
    assert commands == {"python3 -m nox -s demo", "python3 -m nox -s docs", "python3 -m nox"}
    sessions = re.findall(r"^@nox\.session\ndef (\w+)", (ROOT / "noxfile.py").read_text(), re.MULTILINE)
    assert {"demo", "docs"} <= {*sessions}


def test_an_environment_is_made_before_anything_is_installed() -> None:
    """Debian's pip refuses to install anything outside of one."""
    assert README.index("python3 -m venv") < README.index("pip install")


def test_tools_exist() -> None:
    tools = set(re.findall(r"\beda ([a-z_]+)", README))
    assert tools
    assert tools - {*TOOLS, *PROGRAMS} == set()


def test_modules_exist() -> None:
    modules = set(re.findall(r"python3? -m ([\w.]+)", README)) - {"nox", "pip", "venv"}
    assert [module for module in sorted(modules) if importlib.util.find_spec(module) is None] == []


def named_paths() -> set[str]:
    """What stands in double backquotes and looks like a file or directory."""
    literals = re.findall(r"``([^`\s]+)``", README)
    return {text for text in literals if re.fullmatch(r"[\w./-]+(/[\w.-]*|\.(py|rst|toml|txt))", text)} - THEIRS


@pytest.mark.parametrize("path", sorted(named_paths() - {"docs/_build/"}))
def test_paths_exist(path: str) -> None:
    """From the checkout, or from a directory that the README names."""
    bases: list[Any] = [ROOT, *(ROOT / directory for directory in named_paths() if directory.endswith("/"))]
    assert any((base / path).exists() for base in bases)
