"""Links from document to document, and to files of the checkout, lead somewhere. docs/index.rst leads to every page."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest

from tests.docs.blocks import ROOT

PAGES = [ROOT / "README.rst", ROOT / "CHANGELOG.rst"] + [
    path for path in sorted((ROOT / "docs").rglob("*.rst")) if "_build" not in path.parts
]
_LINK = re.compile(r"`[^`<]*<(?P<target>[^`>\s]+)>`_", re.DOTALL)
_TITLE = re.compile(r"^(?P<title>\S.*)\n([=~^\"-])\2{2,}$", re.MULTILINE)
_LABEL = re.compile(r"^\.\. _([^:]+):|_`([^`]+)`", re.MULTILINE)


def links(path: Path) -> list[str]:
    found = [match["target"] for match in _LINK.finditer(path.read_text("utf-8"))]
    return [target for target in found if "://" not in target and not target.startswith(("mailto:", "eda_"))]


@cache
def anchors(path: Path) -> frozenset[str]:
    """The anchors of a page: those of its titles, and of its labels."""
    text = path.read_text("utf-8")
    names = [match["title"] for match in _TITLE.finditer(text)] + [one or two for one, two in _LABEL.findall(text)]
    return frozenset(re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") for name in names)


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(path: Path) -> None:
    dead = []
    for target in links(path):
        file, _, anchor = target.partition("#")
        to = (path.parent / file).resolve() if file else path
        if not to.exists() or (anchor and anchor not in anchors(to)):
            dead.append(target)
    assert dead == []


def test_links_are_found() -> None:
    assert sum(len(links(path)) for path in PAGES) > 20


def test_each_page_is_linked_from_the_index() -> None:
    """Except for the pages of the reference, which docs/reference/index.rst lists."""
    index = ROOT / "docs" / "index.rst"
    linked = {(index.parent / target.partition("#")[0]).resolve() for target in links(index)}
    pages = [path for path in PAGES if path.parent != ROOT and path != index and path.parent.name != "reference"]
    assert [path.relative_to(ROOT).as_posix() for path in pages if path not in linked] == []
