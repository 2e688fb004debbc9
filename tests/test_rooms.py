"""Which package of the product may import which (docs/design.rst, "Rooms"), and that no imports form a circle.

Every import statement counts: in functions, and under TYPE_CHECKING as well.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Final

import pytest

ROOT = Path(__file__).parents[1]
#: Where the top-level packages lie, for each package.
SHELVES: Final = {
    "eda_core": ".",
    "eda_aio": "adapters",
    "eda_kombu": "adapters",
    "eda_logging": "adapters",
    "eda_models": "adapters",
    "eda_otel": "adapters",
    "eda_pika": "adapters",
    "eda_probe": "adapters",
    "eda_prometheus": "adapters",
    "eda_pytest": "tools",
    "eda_tools": "tools",
}

#: The modules at the top of eda_core, below all of its packages. Together they are the room "base".
BASE: Final = frozenset(f"eda_core.{name}" for name in ("_version", "checks", "criticality", "errors", "text", "urls"))

_BELOW_SERVICES: Final = frozenset(
    {"base", "eda_core.messages", "eda_core.amqp", "eda_core.machine", "eda_core.drivers", "eda_core.journal"}
)
#: What users of the core may import: the whole core, without its tools for tests.
_CORE: Final = _BELOW_SERVICES | {"eda_core.services", "eda_core"}
_TOOLS: Final = _CORE | {"eda_core.testing", "eda_aio"}

#: For each room, the other rooms that its modules may import from. A package that is not here has no room: name it here
#: first. "eda_core" and "eda_tools" are the modules at the top of these packages.
MAY_IMPORT: Final[dict[str, frozenset[str]]] = {
    "base": frozenset(),
    "eda_core.messages": frozenset({"base"}),
    "eda_core.amqp": frozenset({"base", "eda_core.messages"}),
    "eda_core.machine": frozenset({"base", "eda_core.messages"}),
    "eda_core.drivers": frozenset({"base", "eda_core.messages", "eda_core.amqp", "eda_core.machine"}),
    "eda_core.journal": frozenset({"base", "eda_core.messages", "eda_core.machine"}),
    "eda_core.services": _BELOW_SERVICES,
    "eda_core": _BELOW_SERVICES | {"eda_core.services"},
    "eda_core.testing": _CORE,
    "eda_aio": _CORE,
    "eda_kombu": _CORE,
    "eda_logging": _CORE,
    "eda_models": _CORE,
    "eda_otel": _CORE,
    "eda_pika": _CORE,
    "eda_probe": _CORE | {"eda_prometheus"},
    "eda_prometheus": _CORE,
    "eda_pytest": _CORE | {"eda_core.testing"},
    "eda_tools.cli": _TOOLS,
    "eda_tools.messages": _TOOLS | {"eda_tools.cli"},
    "eda_tools.bus": _TOOLS | {"eda_tools.cli", "eda_tools.messages"},
    "eda_tools.contracts": _TOOLS | {"eda_tools.cli", "eda_tools.messages", "eda_tools.running"},
    "eda_tools.creating": _TOOLS | {"eda_tools.cli"},
    "eda_tools.running": _TOOLS | {"eda_tools.cli", "eda_otel", "eda_probe"},
    "eda_tools.dead_letters": _TOOLS | {"eda_tools.cli", "eda_tools.messages", "eda_tools.bus"},
    "eda_tools.diagnosis": _TOOLS | {"eda_tools.cli", "eda_tools.messages", "eda_tools.bus"},
    "eda_tools.diagrams": _TOOLS | {"eda_tools.cli", "eda_tools.messages", "eda_tools.diagnosis"},
    "eda_tools": _TOOLS
    | {
        f"eda_tools.{room}"
        for room in (
            "cli",
            "messages",
            "bus",
            "contracts",
            "creating",
            "running",
            "dead_letters",
            "diagnosis",
            "diagrams",
        )
    },
}

#: A module, the line of an import statement, and the module that it imports.
Import = tuple[str, int, str]


@cache
def sources() -> Mapping[str, str]:
    """The text of each module of the product, by the module's name."""
    found = {}
    for package, shelf in SHELVES.items():
        for path in sorted((ROOT / shelf / package).rglob("*.py")):
            name = ".".join(path.relative_to(ROOT / shelf).with_suffix("").parts)
            found[name.removesuffix(".__init__")] = path.read_text("utf-8")
    return found


def room_of(module: str) -> str:
    """The room of a module, or of a name in it.

    Raises:
        LookupError: it is in no room of the table.
    """
    if module in BASE:
        return "base"
    for room in sorted(MAY_IMPORT, key=len, reverse=True):
        inside = module.startswith(f"{room}.") and room != "eda_core"
        if module == room or inside:
            return room
    raise LookupError(f"{module} is in no room of the table")


def imports(modules: Mapping[str, str], known: Collection[str]) -> Iterator[Import]:
    """What these modules import of the product.

    Args:
        known: the names of all modules. What a package gives is one of them, or a name of the package itself.
    """
    for name, source in modules.items():
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Import):
                targets = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, (
                    f"{name}, line {node.lineno}: write the import with the full name of its package"
                )
                inner = [f"{node.module}.{alias.name}" for alias in node.names]
                targets = [each if each in known else str(node.module) for each in inner]
            else:
                continue
            yield from (
                (name, node.lineno, each) for each in dict.fromkeys(targets) if each.partition(".")[0] in SHELVES
            )


def wrong(found: Iterable[Import], known: Collection[str]) -> list[str]:
    """The imports that the table does not allow."""
    complaints = []
    for name, line, target in found:
        room = room_of(name)
        if target not in known:
            complaints.append(f"{name}, line {line}: there is no module {target}")
        elif room_of(target) not in {room, *MAY_IMPORT[room]}:
            complaints.append(f"{name}, line {line}: {room} may not import from {room_of(target)} ({target})")
    return complaints


def circle(found: Iterable[Import]) -> list[str]:
    """Modules that import each other in a circle, each the next one; empty if there is no circle."""
    graph: dict[str, set[str]] = {}
    for name, _, target in found:
        graph.setdefault(name, set()).add(target)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        around: list[str] = error.args[1]
        return around[::-1]
    return []


@cache
def product() -> tuple[Import, ...]:
    """All imports of the product."""
    return tuple(imports(sources(), sources()))


def test_every_module_has_a_room() -> None:
    assert all(map(room_of, sources()))


def test_every_import_goes_to_a_room_that_the_table_allows() -> None:
    assert wrong(product(), sources()) == []


def test_no_modules_import_each_other_in_a_circle() -> None:
    assert circle(product()) == []


def test_the_table_itself_has_no_circle() -> None:
    TopologicalSorter(MAY_IMPORT).prepare()


@pytest.mark.parametrize("room", [room for room in MAY_IMPORT if MAY_IMPORT[room] <= _BELOW_SERVICES])
def test_the_design_has_the_same_table(room: str) -> None:
    table = (ROOT / "docs" / "design.rst").read_text("utf-8").partition("may import from\n")[2].partition("\n\n")[0]
    short = room.removeprefix("eda_core.")
    (cell,) = re.findall(rf"^(?:{short}|``{short}``)  +(\S.*)$", table, re.MULTILINE)
    assert set(re.findall(r"\w+", cell)) == {each.removeprefix("eda_core.") for each in MAY_IMPORT[room]}


def test_every_package_is_read() -> None:
    assert {name.partition(".")[0] for name in sources()} == set(SHELVES)
    assert set(sources()) >= BASE
    assert ("eda_core.machine.machine", "eda_core.messages.envelope") in {(name, to) for name, _, to in product()}
    assert len(product()) > 300


@pytest.mark.parametrize(
    ("module", "statement", "room"),
    [
        ("eda_core.text", "from eda_core.messages import codec", "eda_core.messages"),
        ("eda_core.messages.codec", "from eda_core.machine.link import TABLE", "eda_core.machine"),
        ("eda_core.machine.link", "import eda_core.drivers.base", "eda_core.drivers"),
        ("eda_core.machine.link", "from eda_core import Machine", "eda_core"),
        ("eda_core.drivers.base", "def f():\n    from eda_core.services.api import ServiceApi", "eda_core.services"),
        ("eda_core.services.api", "from eda_core.testing.broker.model import Broker", "eda_core.testing"),
        ("eda_core", "from eda_core import testing", "eda_core.testing"),
        ("eda_core.testing", "import eda_aio", "eda_aio"),
        ("eda_aio", "from eda_pika import Service", "eda_pika"),
        ("eda_pika", "if TYPE_CHECKING:\n    import eda_tools.broker", "eda_tools"),
        ("eda_tools.cli.tool", "from eda_tools.bus import connect", "eda_tools.bus"),
        ("eda_tools.messages.where", "import eda_tools.monitor as m", "eda_tools"),
    ],
)
def test_a_planted_import_is_found(module: str, statement: str, room: str) -> None:
    text = sources()[module]
    line = text.count("\n") + statement.count("\n") + 1
    found = wrong(imports({module: f"{text}{statement}\n"}, sources()), sources())
    assert len(found) == 1
    assert found[0].startswith(f"{module}, line {line}: {room_of(module)} may not import from {room} (")


def test_an_import_of_a_module_that_is_not_there_is_found() -> None:
    planted = imports({"eda_core.text": "from eda_core.nothing import x\n"}, sources())
    assert wrong(planted, sources()) == ["eda_core.text, line 1: there is no module eda_core.nothing"]


def test_a_package_without_a_room_is_found() -> None:
    with pytest.raises(LookupError, match=r"eda_core\.kitchen is in no room"):
        room_of("eda_core.kitchen")


def test_a_planted_circle_is_found() -> None:
    texts = {
        "eda_core.text": "if TYPE_CHECKING:\n    from eda_core.urls import redact\n",
        "eda_core.urls": "from eda_core.checks import is_number\n",
        "eda_core.checks": "def f():\n    import eda_core.text\n",
        "eda_core.errors": "from eda_core.text import shortened\n",
    }
    assert sorted(set(circle(imports(texts, texts)))) == ["eda_core.checks", "eda_core.text", "eda_core.urls"]
    assert circle(imports(texts | {"eda_core.checks": ""}, texts)) == []
