"""No adapter knows the name of an exchange: the effects that it performs name them."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from eda_core.messages.routing import EXCHANGES

ROOT = Path(__file__).parents[2]
SOURCES = [*sorted((ROOT / "adapters").rglob("*.py")), ROOT / "examples" / "custom_transport.py"]


def exchanges_named_in(source: str) -> set[str]:
    constants = (node.value for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Constant))
    return {value for value in constants if isinstance(value, str) and value in EXCHANGES}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_no_adapter_writes_the_name_of_an_exchange(path: Path) -> None:
    assert exchanges_named_in(path.read_text("utf-8")) == set()


def test_the_reader_sees_what_it_looks_for() -> None:
    assert exchanges_named_in('publish(body, exchange="logs")') == {"logs"}
