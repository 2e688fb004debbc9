"""docs/headers.rst has a row for each header, property and argument on the wire that the code writes or reads."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from pamqp.commands import Basic

from eda_core.messages import headers
from eda_core.messages.delays import DELAY
from eda_core.messages.envelope import NOT_SENT, SENT
from tests.docs.blocks import ROOT

PAGE: Final = (ROOT / "docs" / "headers.rst").read_text("utf-8")
ARCHITECTURE: Final = (ROOT / "docs" / "architecture.rst").read_text("utf-8")
SOURCES: Final = [
    path
    for room in ("eda_core", "adapters", "tools")
    for path in sorted((ROOT / room).rglob("*.py"))
    if "testing" not in path.relative_to(ROOT).parts  # that room knows all of RabbitMQ's, to be like it
]


def rows(title: str) -> dict[str, bool]:
    """The names in the first column of the table under a title, and whether a handler finds them in ``meta``."""
    section = re.split(r"^=+\n", PAGE.partition(f"\n{title}\n=")[2], maxsplit=2, flags=re.MULTILINE)[1]
    cells = re.findall(r"^   \* - (.+)$", section, re.MULTILINE)
    return {name: bool(mark) for cell in cells for name, mark in re.findall(r"``([\w-]+)``( ✓)?", cell)}


PROPERTIES, OURS, BROKERS = rows("Properties"), rows("Headers"), rows("Headers of the broker")
ARGUMENTS, CONNECTION = rows("Arguments of queues and bindings"), rows("Properties of a connection")


def literals(path: Path) -> Iterator[str]:
    """The texts in the code of a module that are names of headers or arguments by their look."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and re.fullmatch(r"x-[a-z-]+", node.value):
            yield node.value


def used(path: Path, tables: str) -> Iterator[str]:
    """The texts that are keys of a table of such a name: ``headers["a"]``, ``headers.get("a")``, ``headers={…}``."""
    tree = ast.parse(path.read_text("utf-8"))
    constants = vars(headers) | {name: value for node in tree.body for name, value in constant(node)}
    for node in ast.walk(tree):
        keys: list[ast.expr | None] = []
        if isinstance(node, ast.Subscript) and named(node.value, tables):
            keys = [node.slice]
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and named(node.func.value, tables):
            keys = [*node.args[:1]] if node.func.attr in ("get", "pop", "setdefault") else []
        elif isinstance(node, (ast.Assign, ast.AnnAssign)) and isinstance(node.value, ast.Dict):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            keys = node.value.keys if any(named(each, tables) for each in targets) else []
        elif isinstance(node, ast.keyword) and node.arg and re.fullmatch(tables, node.arg):
            keys = node.value.keys if isinstance(node.value, ast.Dict) else []
        for key in keys:
            if isinstance(key, ast.Constant) and isinstance(key.value, str):
                yield key.value
            elif isinstance(key, ast.Name) and key.id.isupper():
                yield str(constants.get(key.id, key.id))


def constant(node: ast.stmt) -> Iterator[tuple[str, str]]:
    """The name and the value of a text that a statement gives a name: ``NAME: Final = "text"``."""
    if isinstance(node, (ast.Assign, ast.AnnAssign)) and isinstance(node.value, ast.Constant):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        yield from ((each.id, str(node.value.value)) for each in targets if isinstance(each, ast.Name))


def named(node: ast.expr, name: str) -> bool:
    """Whether an expression is the table: a name, an attribute, or one of them with "or" behind it."""
    if isinstance(node, ast.BoolOp):
        return named(node.values[0], name)
    found = node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
    return bool(re.fullmatch(name, found))


def test_the_page_has_the_properties_of_amqp() -> None:
    assert list(PROPERTIES) == ["type" if name == "message_type" else name for name in Basic.Properties.attributes()]


def test_the_page_has_the_headers_that_the_core_names() -> None:
    constants = {value for name, value in vars(headers).items() if name.isupper() and isinstance(value, str)}
    assert len(constants) > 5
    assert constants | {*headers.ROUTING} <= {*OURS, *BROKERS}
    assert {*OURS} <= constants, "a row is about a header that there is no longer"


def test_names_of_the_broker_begin_with_x() -> None:
    assert {name for name in (*BROKERS, *ARGUMENTS) if not name.startswith("x-")} == {*headers.ROUTING}
    assert not [name for name in OURS if name.startswith("x-")]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_a_header_that_the_code_names_has_a_row(path: Path) -> None:
    known = (*BROKERS, *ARGUMENTS)
    found = [name for name in literals(path) if not any(f"{each}-".startswith(f"{name}-") for each in known)]
    found += [name for name in used(path, ".*headers") if name not in {*OURS, *BROKERS}]
    found += [name for name in used(path, ".*client_properties") if name not in CONNECTION]
    assert found == [], "give it a row in docs/headers.rst"


def test_names_are_found_in_code(tmp_path: Path) -> None:
    file = tmp_path / "a.py"
    file.write_text(
        'headers = {"a": 1}\nheaders["b"] = headers.get("c")\nf(headers={"d": 1})\nx = (p.headers or {}).get("e")\n'
        'y = {"x-made-up": 2}\nz = own_headers.pop("g")\nother["h"] = 1\n'
        'NAME: Final = "i"\nheaders[NAME] = headers[STATUS] = headers[ELSEWHERE]\n'
    )
    assert sorted(used(file, ".*headers")) == ["ELSEWHERE", "a", "b", "c", "d", "e", "g", "i", "status"]
    assert list(literals(file)) == ["x-made-up"]


def test_the_page_has_what_the_messages_of_the_architecture_have() -> None:
    """tests/test_architecture.py shows that these examples have everything that is written, and nothing else."""
    examples = [
        json.loads(text)
        for text in re.findall(r"^\.\. code-block:: json\n\n((?:    .*\n)+)", ARCHITECTURE, re.MULTILINE)
    ]
    assert len(examples) == 8
    for example in examples:
        assert {*example["properties"]} <= {*PROPERTIES}
        assert {*example["headers"]} <= {*OURS}
    written = {name for example in examples for name in example["headers"]}
    assert written == {*OURS}, "each header that the toolkit writes is in an example"


def test_the_page_marks_what_a_handler_finds_in_meta() -> None:
    arguments = {"conversation_id", "status", "correlation_id", "reply_to"}
    internal = {"content_type", "headers", "delivery_mode", "cluster_id"}
    everything = PROPERTIES | OURS | BROKERS
    assert {name for name, marked in everything.items() if not marked} == arguments | internal
    keys = {"type" if name == "message_type" else name for name in (*SENT, *NOT_SENT)} - {"delivery_tag", DELAY}
    assert keys <= {*everything}, "a key of meta that the code treats in a way of its own has no row"


def test_the_page_has_what_the_tools_read_of_a_death() -> None:
    path = ROOT / "eda_core" / "testing" / "deaths.py"
    fields = [*used(path, "entry")]
    assert len(fields) > 5
    assert [name for name in fields if f"``{name}``" not in PAGE] == []
