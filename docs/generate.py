"""Writes the pages of the documentation that follow from the code. After changing it: ``python docs/generate.py``."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import re
import sys
from collections.abc import Iterator
from functools import cache, partial
from pathlib import Path
from types import ModuleType

sys.path.insert(0, str(Path(__file__).parents[1]))  # a checkout need not be installed
sys.path.insert(0, str(Path(__file__).parents[1] / "adapters"))

import eda_core.testing
from eda_core.machine import link

DOCS = Path(__file__).parent

LINK_HEAD = """\
.. Written by docs/generate.py from eda_core/machine/link.py. Change that, then run it.

==================
The life of a link
==================

A service has one link to its broker: the connections and channels with which it consumes, publishes and logs. One
table says how the states of that link follow each other: ``TABLE`` in ``eda_core/machine/link.py``. For each thing that
happens the machine looks up the next state, goes to it, and does what that state is for. Nothing else changes the
state.

A report about an earlier link is counted and ignored before it gets to the table.
"""


def meanings() -> dict[str, str]:
    """What the comment behind each state and input of ``eda_core.machine.link`` says."""
    found = re.findall(r'^[A-Z_]+: Final = "([a-z ]+)"  # (.+)$', inspect.getsource(link), re.MULTILINE)
    return dict(found)


def _title(text: str) -> str:
    return f"\n{text}\n{'=' * len(text)}\n\n"


def _list(names: tuple[str, ...]) -> str:
    known = meanings()
    return "".join(f"``{name}``\n    {known.get(name, 'over')}\n" for name in names)


def _grid(rows: list[list[str]]) -> str:
    """A simple table; the first row is its head."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    rule = "  ".join("=" * width for width in widths)
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([rule, lines[0], rule, *lines[1:], rule]) + "\n"


def diagram() -> str:
    """The transitions as a Mermaid state diagram: what is ignored or refused changes nothing and is left out."""
    lines = ["stateDiagram-v2", f"    [*] --> {link.IDLE}"]
    for state, row in link.TABLE.items():
        signals: dict[str, list[str]] = {}
        for signal, cell in row.items():
            if cell not in (link.IGNORE, link.ILLEGAL):
                signals.setdefault(cell, []).append(signal)
        lines += [f"    {state} --> {after}: {', '.join(names)}" for after, names in signals.items()]
    return "\n".join([*lines, f"    {link.STOPPED} --> [*]"]) + "\n"


def link_page() -> str:
    """The text of ``link.rst``."""
    rows = [["state", *link.INPUTS]]
    rows += [[state, *(_cell(link.TABLE[state][signal]) for signal in link.INPUTS)] for state in link.STATES]
    picture = "".join(f"    {line}\n" for line in diagram().splitlines())
    return (
        LINK_HEAD
        + _title("States")
        + _list(link.STATES)
        + _title("Inputs")
        + _list(link.INPUTS)
        + _title("The table")
        + "A cell is the next state. A dot means that nothing changes. A cross means a wrong call by the driver: it\n"
        + "raises ``StateError``, and nothing changes.\n\n"
        + _grid(rows)
        + _title("The same as a diagram")
        + ".. mermaid::\n\n"
        + picture
    )


def _cell(cell: str) -> str:
    return {link.IGNORE: "·", link.ILLEGAL: "✗"}.get(cell, cell)


# The reference

#: The packages whose names are public. The reference has a page for each.
PUBLIC = (
    "eda_core",
    "eda_core.messages",
    "eda_core.drivers",
    "eda_core.services",
    "eda_core.journal",
    "eda_core.testing",
    *(f"eda_core.testing.{part.name}" for part in pkgutil.iter_modules(eda_core.testing.__path__)),
    "eda_aio",
    "eda_kombu",
    "eda_pika",
)

REFERENCE_HEAD = """\
.. Written by docs/generate.py from the names that the packages export. Change those, then run it.

"""


def exported(package: str) -> list[str]:
    """The public names of a package: its ``__all__``. A single module without it exports its functions and classes."""
    module = importlib.import_module(package)
    if hasattr(module, "__all__") or hasattr(module, "__path__"):
        return list(getattr(module, "__all__", ()))
    return [name for name, value in vars(module).items() if name[0] != "_" and _defined_in(package, value)]


def _defined_in(module: str, value: object) -> bool:
    return (inspect.isclass(value) or inspect.isroutine(value)) and value.__module__ == module


@cache
def _bound(module: str) -> dict[str, tuple[str, str]]:
    """For each name at the top of a module, the module that it is imported from or defined in, and its name there."""
    found: dict[str, tuple[str, str]] = {}
    for node in _statements(ast.parse(_source(module)).body):
        if isinstance(node, ast.ImportFrom):
            found |= {alias.asname or alias.name: (str(node.module), alias.name) for alias in node.names}
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            found[node.name] = (module, node.name)
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found |= {target.id: (module, target.id) for target in targets if isinstance(target, ast.Name)}
    return found


def _statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """The statements that a module runs when it is imported, those in conditions and in try blocks too."""
    for node in body:
        yield node
        if isinstance(node, (ast.If, ast.Try, ast.With)):
            yield from _statements([child for child in ast.iter_child_nodes(node) if isinstance(child, ast.stmt)])


def _source(module: str) -> str:
    return Path(str(importlib.import_module(module).__file__)).read_text("utf-8")


def home(package: str, name: str) -> tuple[str, str]:
    """The module that defines what ``package`` exports as ``name``, and its name there: "" for a whole module."""
    module, inner = _bound(package)[name]
    if isinstance(getattr(importlib.import_module(package), name), ModuleType):
        return f"{module}.{inner}", ""
    # It may have come through other modules.
    return home(module, inner) if module != package and module.startswith("eda_") else (module, inner)


def documented_in(package: str, name: str) -> str:
    """The one page with the description: that of the innermost package that holds the definition and exports it."""
    origin = home(package, name)
    pages = [each for each in PUBLIC if any(home(each, other) == origin for other in exported(each))]
    holding = [each for each in pages if f"{origin[0]}.".startswith(f"{each}.")]
    return max(holding, key=len) if holding else pages[0]


def _entry(package: str, name: str) -> str:
    """The directive for one name."""
    value = getattr(importlib.import_module(package), name)
    if isinstance(value, ModuleType):
        return f".. automodule:: {value.__name__}\n   :members:\n   :undoc-members:\n\n"
    if inspect.isclass(value):
        kind = "exception" if issubclass(value, BaseException) else "class"
        # What a class inherits is listed with it, but for what Python's own classes have.
        members = "   :members:\n   :inherited-members: BaseException, Exception, OSError\n"
    else:
        kind, members = "function" if inspect.isroutine(value) else "data", ""
    return f".. auto{kind}:: {package}.{name}\n{members}\n"


def _sections(package: str) -> Iterator[str]:
    """The names of a package, by the modules that define them."""
    names = exported(package)
    elsewhere = [name for name in names if documented_in(package, name) != package]
    here: dict[str, list[str]] = {}
    for name in _bound(package):
        if name in names and name not in elsewhere:
            here.setdefault(home(package, name)[0], []).append(name)
    for module, group in here.items():
        if module != package:
            yield _title(module.rpartition(".")[2].strip("_").replace("_", " ").capitalize()).lstrip("\n")
            if home(package, group[0])[1]:  # else the module itself is exported, and its entry has its text
                yield f".. automodule:: {module}\n   :no-index:\n\n"
        yield from (_entry(package, name) for name in group)
    if elsewhere:
        yield _title("Described elsewhere").lstrip("\n")
        yield from (f"- :py:obj:`{name} <{documented_in(package, name)}.{name}>`\n" for name in elsewhere)


def _head(title: str) -> str:
    rule = "=" * len(title)
    return f"{REFERENCE_HEAD}{rule}\n{title}\n{rule}\n\n"


def reference_page(package: str) -> str:
    """The page of one package."""
    text = f"{_head(package)}.. automodule:: {package}\n\n{''.join(_sections(package))}"
    return text.rstrip("\n") + "\n"


def reference_index() -> str:
    """The list of the pages."""
    pages = "".join(f"   {package}\n" for package in PUBLIC)
    text = (
        "Every public name, by the package that exports it. A name that is not here is private, and may change at any\n"
        "time.\n\n.. toctree::\n   :maxdepth: 1\n\n"
    )
    return f"{_head('The reference')}{text}{pages}"


#: Text by file name.
PAGES = {
    "link.rst": link_page,
    "reference/index.rst": reference_index,
    **{f"reference/{package}.rst": partial(reference_page, package) for package in PUBLIC},
}


def main() -> None:
    (DOCS / "reference").mkdir(exist_ok=True)
    for name, text in PAGES.items():
        (DOCS / name).write_text(text(), "utf-8")
        print(DOCS / name)


if __name__ == "__main__":
    main()
