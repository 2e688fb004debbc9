"""What code and documents cite exists: documents and their sections, rules and invariants, names of code, paths.

A citation of a document has one form, in code, comments and documents alike: the path and, if it is about a section,
the title of that in quotation marks. Several sections of one document are listed::

    docs/architecture.rst, "Topology"
    docs/architecture.rst, "Envelope", "Receiving" and "Life of a service"

A rule of the design is cited as R1, an invariant as I1.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
import subprocess
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import pytest
from pamqp import commands

from tests.test_rooms import SHELVES as PACKAGES

ROOT: Final = Path(__file__).parents[1]
SHELVES: Final = ("adapters", "tools", ".")
#: Whoever cites one of these says which section.
IN_SECTIONS: Final = ("docs/architecture.rst", "docs/design.rst")
#: What a build writes.
BUILT: Final = ("docs/_build", "docs/_build/")
#: Files that tests make up.
MADE_UP: Final = {
    "tests/examples/test_conversations_end_to_end.py": {"notes.md"},
    "tests/examples/test_conversations_transcripts.py": {"notes.md", "readme.md"},
}

#: Modules whose names also begin routing keys (``service.Command``), methods of AMQP, other packages' names, arguments,
#: names of files (``rabbitmq.conf``), and attributes of spans (``eda.held``).
_WORDS: Final = ("connection", "eda", "eventail", "output", "rabbitmq", "service", "worker")

#: A line may end within a citation, and the next may begin with the mark of a comment.
_GAP: Final = r"(?:[ \t]|\n[ \t]*(?:#:?[ \t]*)?)+"
_SECTION: Final = rf'(?:,{_GAP}|{_GAP}and{_GAP})"[^"]+"'
_DOCUMENT: Final = re.compile(rf"(?P<path>(?:[\w.-]+/)*[\w.-]*\w\.(?:rst|md)\b)(?P<sections>(?:{_SECTION})*)")
_RULE: Final = re.compile(r"(?<![\w.-])[IR][1-9]\d?\b(?![.-]\w)")
_TITLE: Final = re.compile(r"^(?P<title>\S.*)\n(?P<rule>([=~^-])\3{2,})$", re.MULTILINE)
_ANCHOR: Final = re.compile(r"_`([^`]+)`")
_ROLE: Final = re.compile(r":(?:py:)?(?:mod|class|exc|func|meth|attr|data|obj):`(?:[^`<]*<)?~?([\w.]+)>?`")
_NAME: Final = re.compile(r"``(eda_(?:core|aio|kombu|pika|pytest|tools)(?:\.\w+)+)(?:\(\))?``")
#: ``module.name`` and ``Class.name``, but not names of files.
_SHORT: Final = re.compile(r"``(\w+)\.(?!(?:py|rst)``)(\w+(?:\.\w+)*)(?:\(\))?``")
_PATH: Final = re.compile(r"``((?:adapters|benchmarks|docs|eda_core|examples|tests|tools)/[\w./-]*)``")


@cache
def texts() -> dict[str, str]:
    """The text of every file under version control, by its path. This file is left out: it has wrong citations."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False, timeout=60)
    found = {}
    for name in filter(None, listed.stdout.decode().split("\0")):
        path = ROOT / name
        if path != Path(__file__) and path.is_file():
            try:
                found[name] = path.read_text("utf-8")
            except UnicodeDecodeError:
                continue
    return found


@cache
def titles(document: str) -> frozenset[str]:
    """The sections of a document, and the terms in it that have an anchor."""
    text = (ROOT / document).read_text("utf-8")
    return frozenset({match["title"] for match in _TITLE.finditer(text)} | set(_ANCHOR.findall(text)))


@cache
def rules() -> frozenset[str]:
    """R1 … and I1 …, as the documents have them."""
    found = (re.match(r"([RI]\d+): ", title) for document in IN_SECTIONS for title in titles(document))
    return frozenset(match[1] for match in found if match)


def flat(text: str) -> str:
    return re.sub(_GAP, " ", text)


def in_documents(path: str, text: str) -> Iterator[tuple[int, str]]:
    """Complaints about documents and sections, each with its place in the text."""
    for match in _DOCUMENT.finditer(text):
        cited = match["path"]
        places = [
            place for place in (cited, f"docs/{cited}", str(Path(path).parent / cited)) if (ROOT / place).is_file()
        ]
        sections = [flat(section) for section in re.findall(r'"([^"]+)"', match["sections"])]
        if not places:
            if cited not in MADE_UP.get(path, set()):
                yield match.start(), f"there is no {cited}"
        elif sections:
            yield from (
                (match.start(), f'{cited} has no section "{section}"')
                for section in sections
                if section not in titles(places[0])
            )
        elif cited in IN_SECTIONS and path.endswith(".py"):
            yield match.start(), f'{cited} is cited without a section; write: {cited}, "Section"'


def in_rules(text: str) -> Iterator[tuple[int, str]]:
    for match in _RULE.finditer(text):
        if match[0] not in rules():
            yield match.start(), f"there is no {match[0]}"


def exists(name: str, module: ModuleType | None = None) -> bool:
    """Whether there is something of this name. It is a full name, or one of the citing module or of a class there."""
    parts = name.split(".")
    if parts[0].startswith("eda_") or parts[0] in ("examples", "tests"):
        for length in range(len(parts), 0, -1):
            try:
                found = importlib.import_module(".".join(parts[:length]))
            except ModuleNotFoundError:
                continue
            return _has(found, parts[length:])
        return False
    if module is None:
        return False
    classes = [value for value in vars(module).values() if inspect.isclass(value)]
    return any(_has(owner, parts) for owner in (module, *classes))


def _has(owner: Any, parts: list[str]) -> bool:
    for part in parts:
        spaces = (getattr(each, "__dict__", {}) for each in (owner, *getattr(owner, "__mro__", ())))
        if not hasattr(owner, part) and not any(part in space.get("__annotations__", {}) for space in spaces):
            return False
        owner = getattr(owner, part, None)
    return True


@cache
def owners() -> dict[str, list[Any]]:
    """The modules and classes of all packages by the last part of their names."""
    found: dict[str, list[Any]] = {}
    for package in map(importlib.import_module, PACKAGES):
        for info in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not info.name.endswith("__main__"):
                module = importlib.import_module(info.name)
                classes = [value for value in vars(module).values() if inspect.isclass(value)]
                ours = [each for each in classes if each.__module__ == info.name]
                for name, owner in ((info.name.rpartition(".")[2], module), *((each.__name__, each) for each in ours)):
                    found.setdefault(name, []).append(owner)
    return found


def is_method(owner: str, name: str) -> bool:
    """Whether it is a method of AMQP 0-9-1, such as ``Channel.Close``. pamqp has all of them."""
    return hasattr(getattr(commands, owner, None), name)


def module_of(path: str) -> ModuleType | None:
    """The module that a file holds."""
    for shelf in SHELVES:
        inside = Path(path).is_relative_to(shelf) and path.endswith(".py")
        if inside and (shelf != "." or path.startswith(("eda_core/", "examples/", "tests/"))):
            return importlib.import_module(
                ".".join(Path(path).relative_to(shelf).with_suffix("").parts).removesuffix(".__init__")
            )
    return None


def in_names(path: str, text: str) -> Iterator[tuple[int, str]]:
    """Complaints about names of code and about paths."""
    for match in _NAME.finditer(text):
        if not exists(match[1]):
            yield match.start(), f"there is no {match[1]}"
    for match in _SHORT.finditer(text):
        owner, name = match.groups()
        known = () if owner in _WORDS or is_method(owner, name) else owners().get(owner, ())
        if known and not any(_has(each, name.split(".")) for each in known):
            yield match.start(), f"there is no {owner}.{name}"
    for match in _PATH.finditer(text):
        if match[1] not in BUILT and not (ROOT / match[1]).exists():
            yield match.start(), f"there is no {match[1]}"
    roles = list(_ROLE.finditer(text))
    module = module_of(path) if roles else None
    for match in roles:
        if not exists(match[1], module):
            yield match.start(), f"there is no {match[1]}"


def complaints(path: str, text: str) -> list[str]:
    """What a file cites that is not there."""
    found = [*in_documents(path, text), *in_rules(text), *in_names(path, text)]
    return [f"{path}, line {text.count(chr(10), 0, place) + 1}: {complaint}" for place, complaint in sorted(found)]


def test_everything_that_is_cited_exists() -> None:
    if not texts():
        pytest.skip("not in a checkout")
    assert [complaint for path, text in texts().items() for complaint in complaints(path, text)] == []


def test_citations_are_found() -> None:
    """So many at least, or the test above looks at the wrong thing."""
    if not texts():
        pytest.skip("not in a checkout")
    code = [text for path, text in texts().items() if path.endswith(".py")]
    cited = [match for text in code for match in _DOCUMENT.finditer(text) if match["path"] in IN_SECTIONS]
    assert len(cited) >= 25
    assert len([match for text in code for match in _RULE.finditer(text)]) >= 100
    assert len([match for text in code for match in _ROLE.finditer(text)]) >= 50


def test_all_rules_and_invariants_are_in_the_documents() -> None:
    assert rules() == {f"R{number}" for number in range(1, 11)} | {f"I{number}" for number in range(1, 7)}


@pytest.mark.parametrize("document", IN_SECTIONS)
def test_each_section_has_an_anchor_that_stays(document: str) -> None:
    """A label of its own, which the title may change under. Of a rule and an invariant it is its number."""
    text = (ROOT / document).read_text("utf-8")
    labels = dict(re.findall(r"^\.\. _([\w-]+):\n\n(\S.*)\n[=-]{3,}$", text, re.MULTILINE))
    by_title = {title: label for label, title in labels.items()}
    _, *sections = (match["title"] for match in _TITLE.finditer(text) if match["rule"][0] == "=")
    assert [title for title in sections if title not in by_title] == []
    numbered = [title for title in titles(document) if re.match(r"[RI]\d+: ", title)]
    assert all(by_title[title] == title.partition(":")[0] for title in numbered)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ('(docs/nowhere.rst, "Topology")', "there is no docs/nowhere.rst"),
        ("see ``ARCHITECTURE.md``", "there is no ARCHITECTURE.md"),
        ("see FACTS.md", "there is no FACTS.md"),
        ('docs/architecture.rst, "Cookery"', 'docs/architecture.rst has no section "Cookery"'),
        ('docs/architecture.rst, "Topology" and "Cookery"', 'docs/architecture.rst has no section "Cookery"'),
        ('docs/design.rst, "Rules", "Poison\n    headers" and\n# "More"', 'docs/design.rst has no section "More"'),
        ("docs/design.rst", 'docs/design.rst is cited without a section; write: docs/design.rst, "Section"'),
        (
            '``docs/design.rst``, "Rules"',
            'docs/design.rst is cited without a section; write: docs/design.rst, "Section"',
        ),
        ("rule R11", "there is no R11"),
        ('Violation("I7", "it")', "there is no I7"),
        ("in ``eda_core.machine.nothing``", "there is no eda_core.machine.nothing"),
        ("``eda_core.Machine.no_input()``", "there is no eda_core.Machine.no_input"),
        ("``outbox.nothing``", "there is no outbox.nothing"),
        ("``Machine.no_input()``", "there is no Machine.no_input"),
        (":func:`eda_core.messages.codec.no_function`", "there is no eda_core.messages.codec.no_function"),
        (":meth:`~Machine.no_input`", "there is no Machine.no_input"),
        (":meth:`no_input`", "there is no no_input"),
        ("``tests/core/no_file.py``", "there is no tests/core/no_file.py"),
    ],
)
def test_a_wrong_citation_is_found(text: str, complaint: str) -> None:
    path = "eda_core/machine/machine.py"
    assert complaints(path, f"first line\n{text}") == [f"{path}, line 2: {complaint}"]


@pytest.mark.parametrize(
    "text",
    [
        'docs/architecture.rst, "Topology"',
        'docs/architecture.rst, "Life of\n    # a service"',
        'docs/architecture.rst, "Envelope", "Receiving" and "Life of a service"',
        'docs/design.rst, "Order of confirms"',
        "rules R1 to R10, I1, I6",
        "README.rst and CHANGELOG.rst, docs/tools.rst, embedding.rst",
        "``eda_core.Machine.publish``, ``eda_core.criticality.ERROR``, ``eda_tools.broker``",
        ":class:`Machine`, :meth:`tick`, :meth:`Machine.publish`, :mod:`eda_core.journal`, :attr:`eda_core.Event.name`",
        "``Machine.publish``, ``Event.name``, ``routing.EVENTS``, ``Channel.Close``, ``service.Command``",
        "``tests/core``, ``docs/conf.py``",
        "UTF-8, x-R2, I1.5, IR1",
    ],
)
def test_a_right_citation_is_not(text: str) -> None:
    assert complaints("eda_core/machine/machine.py", text) == []


def test_read_the_docs_installs_what_exists() -> None:
    settings = (ROOT / ".readthedocs.yaml").read_text("utf-8")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    (command,) = re.findall(r'pip install --group (\w+) "\.\[([\w,]+)\]"', settings)
    assert command[0] in project["dependency-groups"]
    assert set(command[1].split(",")) <= set(project["project"]["optional-dependencies"])
    assert (ROOT / re.findall(r"configuration: (\S+)", settings)[0]).is_file()
