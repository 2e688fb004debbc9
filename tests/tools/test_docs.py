"""The documentation of the tools has every option, status, field and key."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from eda_tools import eda
from eda_tools.broker import EmbeddedBrokerThread
from eda_tools.cli import status as cli
from eda_tools.cli.catalogue import TOOLS
from eda_tools.messages.delivery import FIELDS, fields
from eda_tools.messages.rates import Statistics
from tests.support.services import DEAD_LETTER_QUEUE, ROOT
from tests.support.tools import run_here
from tests.tools.bench import operator
from tests.tools.samples import command, event, recording, result

DOCS = "".join(path.read_text("utf-8") for path in sorted((ROOT / "docs").glob("tools*.rst")))
EVERYTHING = "".join(path.read_text("utf-8") for path in (ROOT / "docs").rglob("*.rst"))


@pytest.mark.parametrize("name", [*TOOLS, "new", "run"])
def test_the_docs_have_every_tool_and_option(name: str) -> None:
    docs = DOCS if name in TOOLS else EVERYTHING
    assert f"``{name}``" in DOCS, f"docs/tools.rst does not have ``{name}``"
    parser = eda.parser_of(name)
    options = {option for action in parser._actions for option in action.option_strings if option.startswith("--")}
    assert {option for option in options - {"--help", "--version"} if option not in docs} == set()


def test_the_docs_have_every_status_and_field() -> None:
    statuses = [value for value in vars(cli).values() if type(value) is int]
    assert len(statuses) > 5
    for status in statuses:
        assert re.search(rf"^{status}  +\S", DOCS, re.MULTILINE), f"docs/tools.rst does not have status {status}"
    for field in FIELDS:
        assert DOCS.count(f"``{field}``") >= 2, f"docs/tools.rst does not have {field} in both tables"


def objects(capsys: pytest.CaptureFixture[str], path: str, other: str) -> Iterator[dict[str, Any]]:
    """The objects that --json writes, of every kind."""

    def told(name: str, *arguments: str) -> list[dict[str, Any]]:
        found = run_here(eda.load(name), capsys, *arguments, "--json").objects
        assert found, f"{name} {arguments}"
        return found

    yield from told("trace", "--from", path)
    yield from told("trace", "--from", other)
    yield from told("topology", "--from", path)
    rates = Statistics()
    rates.add(fields(event("Done", 0.0)))
    yield from rates.rows()
    with EmbeddedBrokerThread() as broker, operator(broker.url) as bench:
        bench.operate()
        bench.event("Done")
        bench.event("Broken", b"{")
        bench.kill()
        yield from told("doctor", broker.url)
        yield from told("unbind", broker.url, "a", "Done")
        yield from told("publish_event", broker.url, "Done", "--data", "1")
        yield from told("inspect_queue", broker.url, DEAD_LETTER_QUEUE)
        yield from told("inspect_queue", "--save", str(Path(path).parent), broker.url, DEAD_LETTER_QUEUE)
        for by in ("key", "reason", "age"):
            yield from told("inspect_queue", "--group-by", by, broker.url, DEAD_LETTER_QUEUE)
        bench.publish("", DEAD_LETTER_QUEUE)
        yield from told("resurrect", broker.url, DEAD_LETTER_QUEUE)


def test_the_docs_have_every_key_of_json_lines(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    dead = event("Dead", 0.5)
    dead.properties.headers = {**dead.headers, "x-death": [{"queue": "a.events", "reason": "expired"}]}
    conversation = dead, event("Done", 0.0), command("a.Do", 1.0, reply_to="b.R"), result("b.R", 2.0)
    path = recording(tmp_path / "one", *conversation)
    other = recording(tmp_path / "two", *conversation, event("Done", 3.0, conversation="another"))
    names = {name for told in objects(capsys, path, other) for name in (*told, *_inner(told))}
    assert {name for name in names if f"``{name}``" not in DOCS} == set()


def _inner(told: dict[str, Any]) -> Iterator[str]:
    """The keys of objects within objects, except the message's own."""
    for name, value in told.items():
        for each in value if isinstance(value, list) else [value]:
            if isinstance(each, dict) and name not in ("payload", "headers", "properties"):
                yield from each
