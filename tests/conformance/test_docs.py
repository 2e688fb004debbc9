"""The pages on embedding the core and on the life of a link say what the code does."""

from __future__ import annotations

import inspect
import re
import runpy
import textwrap
from pathlib import Path
from typing import Any, get_args

import pytest

from eda_core import Effect, Machine
from eda_core.amqp import states
from eda_core.machine import deliveries, link

ROOT = Path(__file__).parents[2]
EMBEDDING = (ROOT / "docs" / "embedding.rst").read_text("utf-8")
SOURCES = [
    (ROOT / name).read_text("utf-8")
    for name in (
        "examples/custom_transport.py",
        "examples/custom_service.py",
        "examples/blocking_transport.py",
        "eda_core/drivers/amqp_link.py",
        "eda_core/drivers/callbacks.py",
        "tests/conformance/test_cases.py",
    )
]


def _snippets() -> list[str]:
    """The blocks of Python in the page, without their indentation."""
    found = []
    for block in EMBEDDING.split(".. code-block:: python\n\n")[1:]:
        lines = []
        for line in block.splitlines():
            if line and not line.startswith("    "):
                break
            lines.append(line)
        found.append(textwrap.dedent("\n".join(lines)).strip("\n"))
    return found


def test_there_are_snippets() -> None:
    assert len(_snippets()) >= 10


@pytest.mark.parametrize("snippet", _snippets(), ids=lambda snippet: snippet.splitlines()[0][:40])
def test_a_snippet_is_in_the_examples(snippet: str) -> None:
    indented = [textwrap.indent(snippet, " " * width) for width in (0, 4, 8, 12)]
    assert any(text in source for source in SOURCES for text in indented), snippet


@pytest.mark.parametrize("effect", get_args(Effect), ids=lambda effect: effect.__name__)
def test_each_effect_is_explained(effect: type) -> None:
    assert f"\n``{effect.__name__}``" in EMBEDDING


@pytest.mark.parametrize("name", [name for name, _ in inspect.getmembers(Machine, callable) if name[0] != "_"])
def test_each_input_is_explained(name: str) -> None:
    assert f"``{name}``" in EMBEDDING


def test_the_page_on_the_link_is_up_to_date() -> None:
    """If it fails, run ``python docs/generate.py``."""
    generate: dict[str, Any] = runpy.run_path(str(ROOT / "docs" / "generate.py"))
    for name, text in generate["PAGES"].items():
        assert (ROOT / "docs" / name).read_text("utf-8") == text()


#: The modules with a table, by their pages.
TABLES: dict[str, Any] = {"link.rst": link, "deliveries.rst": deliveries, "amqp-client.rst": states}
#: Cells that are no state.
NO_STATES = {link.IGNORE, link.ILLEGAL, states.DISCARD, states.FAULT}


@pytest.mark.parametrize("table", [module.TABLE for module in TABLES.values()], ids=list(TABLES))
def test_the_diagram_has_each_transition(table: dict[str, dict[str, str]]) -> None:
    generate: dict[str, Any] = runpy.run_path(str(ROOT / "docs" / "generate.py"))
    drawn = {line.strip().partition(":")[0] for line in generate["diagram"](table, (), ()).splitlines()}
    for state, row in table.items():
        for cell in {*row.values()} - NO_STATES:
            assert f"{re.sub('[^a-z]+', '_', state)} --> {re.sub('[^a-z]+', '_', cell)}" in drawn


#: Constants that the tables' modules import.
IMPORTED = ("attempt", "events", "commands", "configurations", "deduplication_id")


@pytest.mark.parametrize("page", TABLES)
def test_each_state_and_input_is_explained(page: str) -> None:
    module = TABLES[page]
    text = (ROOT / "docs" / page).read_text("utf-8")
    for name, value in vars(module).items():
        if name.isupper() and isinstance(value, str) and value not in (*NO_STATES, *IMPORTED):
            explained = re.search(rf"^``{value}``\n    (.+)$", text, re.MULTILINE)
            assert explained, value
            assert "…" not in explained[1]
