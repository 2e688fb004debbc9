"""Adapters stay thin: each has less than 450 lines of code, and less than 320 for each transport if it has several."""

from __future__ import annotations

import ast
import io
import tokenize
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ADAPTERS = [package.parent for package in sorted((ROOT / "adapters").glob("*/__init__.py"))]
#: What is no code: comments, and what tells lines apart.
LAYOUT = {
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENDMARKER,
}


def lines_of_code(source: str) -> int:
    """Lines that are neither empty nor comments nor docstrings."""
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in LAYOUT:
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            first = node.body[0] if node.body else None
            if (
                isinstance(first, ast.Expr)
                and isinstance(first.value, ast.Constant)
                and isinstance(first.value.value, str)
            ):
                lines.difference_update(range(first.lineno, (first.end_lineno or first.lineno) + 1))
    return len(lines)


def test_lines_of_code_are_counted() -> None:
    source = (
        '"""A module."""\n\nimport os  # why\n\n# nothing\ndef f():\n    """It."""\n    return (\n        os\n    )\n'
    )
    assert lines_of_code(source) == 5
    assert lines_of_code('x = """a\n\nb"""\n') == 3, "a text that is no docstring is code"


#: The files of the transports of an adapter that has several. fast.py is the second one of eda_pika; the first one is
#: counted with the rest.
TRANSPORTS = {"eda_aio": [{"connection.py", "transport.py"}, {"native.py"}], "eda_pika": [{"fast.py"}]}


@pytest.mark.parametrize("package", ADAPTERS, ids=lambda package: package.name)
def test_an_adapter_has_less_than_450_lines_of_code(package: Path) -> None:
    """It only carries. If it grows beyond that it decides: look for what belongs to the core."""
    counted = {path.name: lines_of_code(path.read_text("utf-8")) for path in package.rglob("*.py")}
    for transport in TRANSPORTS.get(package.name, []):
        assert sum(counted.pop(name) for name in transport) < 320, counted
    assert sum(counted.values()) < (200 if len(TRANSPORTS.get(package.name, [])) > 1 else 450), counted


def test_each_adapter_is_counted() -> None:
    assert {package.name for package in ADAPTERS} >= {"eda_aio", "eda_kombu", "eda_pika"}
