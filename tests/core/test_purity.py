"""The core does no I/O and has no clock and no source of chance. The tests run it and read its source to show that."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2] / "eda_core"
SOURCES = {
    ".".join(path.relative_to(ROOT.parent).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(ROOT.rglob("*.py"))
}
#: What runs real brokers and real services in tests: sockets, threads, processes. It is loaded only by who asks for it.
LIVE = ("eda_core.testing.live", "eda_core.testing.conformance.running")
PURE = {name: path for name, path in SOURCES.items() if not name.startswith(LIVE)}
CORE = [name for name in SOURCES if not name.startswith("eda_core.testing")]

IO = frozenset("socket select selectors asyncio threading ssl subprocess multiprocessing concurrent signal os".split())
LIBRARIES = frozenset("pika aio_pika aiormq kombu amqp".split())
CLOCKS = frozenset("time logging sched calendar".split())
CHANCE = frozenset("random secrets uuid".split())
FORBIDDEN = IO | LIBRARIES | CLOCKS | CHANCE
#: A fresh interpreter loads these in any case. Only the source tells whether the core uses them.
ALWAYS_THERE = frozenset({"os"})

#: The methods of datetime and date that read the clock.
CLOCK_CALLS = frozenset("now utcnow today".split())
#: The built-in functions that do I/O, or that load a module although no import statement names it.
IO_CALLS = frozenset("open print input breakpoint __import__ exec eval".split())
#: The functions of ``python -m eda_core.journal``, which reads a file and prints.
COMMANDS = {"eda_core.journal.__main__": {"main", "_replay_file"}}
#: What loads hypothesis, which does I/O. The simulation is also a loop of asyncio: one without I/O and without a clock.
WITH_HYPOTHESIS = ("eda_core.testing.strategies", "eda_core.testing.simulation")
#: The modules that may import what others may not, and what that is.
MAY_IMPORT = {
    "eda_core.testing.simulation.loop": {"asyncio"},
    "eda_core.testing.simulation.drivers": {"asyncio"},
    "eda_core.testing.simulation.outside": {"socket", "subprocess", "threading", "time"},  # to replace what reaches out
}

PROBE = """
import sys, json
sys.path[:0], modules, forbidden = (json.loads(text) for text in sys.argv[1:])
import pamqp.commands, pamqp.frame, pamqp.header, pamqp.body, cbor2
known = set(sys.modules)
guilty = {}
for module in modules:
    __import__(module)
    loaded = set(sys.modules) - known
    known |= loaded
    found = sorted(name for name in loaded if name.partition(".")[0] in forbidden)
    if found:
        guilty[module] = found
print(json.dumps(guilty))
"""


def loaded_by(*modules: str) -> dict[str, list[str]]:
    """The forbidden modules that each module loads, imported in this order in a fresh interpreter."""
    # -I and -S: only the modules may load anything. (A coverage hook in site-packages does so, too.)
    command = [sys.executable, "-I", "-S", "-c", PROBE]
    arguments = [json.dumps(sys.path), json.dumps(modules), json.dumps(sorted(FORBIDDEN - ALWAYS_THERE))]
    run = subprocess.run([*command, *arguments], capture_output=True, text=True, check=True, timeout=60)
    found: dict[str, list[str]] = json.loads(run.stdout)
    return found


def test_importing_the_core_loads_nothing_that_does_io() -> None:
    assert loaded_by("eda_core") == {}


def test_no_module_of_the_core_loads_anything_that_does_io() -> None:
    assert loaded_by(*CORE) == {}


def test_the_test_tools_load_nothing_that_does_io_either() -> None:
    """Those that load hypothesis do, because hypothesis does."""
    assert loaded_by("eda_core.testing") == {}
    pure = [name for name in PURE if name not in CORE and not name.startswith(WITH_HYPOTHESIS)]
    assert loaded_by(*pure) == {}


def test_what_runs_real_brokers_needs_no_client_library() -> None:
    live = [name for name in SOURCES if name.startswith(LIVE)]
    loaded = loaded_by(*sorted(live))
    assert {*LIBRARIES} & {name.partition(".")[0] for names in loaded.values() for name in names} == set()
    assert any("asyncio" in names for names in loaded.values())


def test_importing_the_core_loads_none_of_its_test_tools() -> None:
    program = "import sys, eda_core; print(*[name for name in sys.modules if name.startswith('eda_core.testing')])"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert run.stdout.split() == []


def test_the_probe_sees_what_it_looks_for() -> None:
    assert loaded_by("json", "asyncio")["asyncio"]


def imports(tree: ast.AST) -> Iterator[str]:
    typing_only = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for statement in node.body
        for inner in ast.walk(statement)
    }
    for node in ast.walk(tree):
        if node in typing_only:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports would hide from this test"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def calls(tree: ast.AST) -> Iterator[ast.expr]:
    return (node.func for node in ast.walk(tree) if isinstance(node, ast.Call))


def offences(source: str) -> set[str]:
    """The imports and calls in ``source`` that the core must not have."""
    tree = ast.parse(source)
    found = {name for name in imports(tree) if name.partition(".")[0] in FORBIDDEN}
    for function in calls(tree):
        text = ast.unparse(function)
        # A driver's own now() is abstract: who embeds the driver brings the clock.
        if text in IO_CALLS or (text != "self.now" and text.rpartition(".")[2] in CLOCK_CALLS and "." in text):
            found.add(text)
    return found


def without(functions: set[str], source: str) -> str:
    """The source without these functions of the module. All of them must be in it."""
    tree = ast.parse(source)
    kept = [node for node in tree.body if not isinstance(node, ast.FunctionDef) or node.name not in functions]
    assert len(tree.body) - len(kept) == len(functions)
    tree.body = kept
    return ast.unparse(tree)


@pytest.mark.parametrize("module", PURE)
def test_no_source_imports_or_calls_io_a_clock_or_chance(module: str) -> None:
    found = offences(without(COMMANDS.get(module, set()), SOURCES[module].read_text("utf-8")))
    assert {name for name in found if name.partition(".")[0] not in MAY_IMPORT.get(module, set())} == set()


@pytest.mark.parametrize(("module", "functions"), COMMANDS.items())
def test_nothing_imports_the_functions_of_a_command(module: str, functions: set[str]) -> None:
    names = {f"{module}.{function}" for function in functions}
    assert not any(names & set(imports(ast.parse(path.read_text("utf-8")))) for path in SOURCES.values())


@pytest.mark.parametrize(
    "source",
    [
        "import time",
        "import os.path",
        "from os import urandom",
        "def f():\n    import random as r",
        "from asyncio import sleep",
        "import datetime\ndatetime.datetime.now(datetime.UTC)",
        "from datetime import date\ndate.today()",
        "self.clock.now()",
        "open('x')",
        "__import__('time')",
    ],
)
def test_the_reader_sees_what_it_looks_for(source: str) -> None:
    assert offences(source)


@pytest.mark.parametrize("module", SOURCES)
def test_no_source_needs_more_than_the_declared_dependencies(module: str) -> None:
    ours = {"eda_core", "pamqp", "cbor2"}
    if module.startswith("eda_core.testing"):
        ours.add("hypothesis")
    used = {name.partition(".")[0] for name in imports(ast.parse(SOURCES[module].read_text("utf-8")))}
    assert used - sys.stdlib_module_names <= ours


def test_the_core_does_not_use_its_own_test_tools() -> None:
    users = [
        module
        for module in CORE
        if any(name.startswith("eda_core.testing") for name in imports(ast.parse(SOURCES[module].read_text("utf-8"))))
    ]
    assert users == []
