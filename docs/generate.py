"""Writes the pages of the documentation that are read off the code. ``python docs/generate.py``, after changing it."""

from __future__ import annotations

import inspect
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from eda_core.machine import link

DOCS = Path(__file__).parent

LINK_HEAD = """\
.. Written by docs/generate.py from eda_core/machine/link.py. Change that, then run it.

==================
The life of a link
==================

A service keeps one link to its broker: whatever connections and channels its transport needs to consume, publish and
log. How the states of that link follow each other is one table, ``TABLE`` in ``eda_core/machine/link.py``; the machine
looks up what happens, goes to the state it finds, and then does what that state is for. Nothing else changes the state.

A report that names an earlier link never gets as far as the table: it is counted and dropped.
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
        + "A cell is the next state. A dot: nothing changes. A cross: a wrong local call, which raises ``StateError``\n"
        + "and changes nothing.\n\n"
        + _grid(rows)
        + _title("The same as a diagram")
        + ".. code-block:: mermaid\n\n"
        + picture
    )


def _cell(cell: str) -> str:
    return {link.IGNORE: "·", link.ILLEGAL: "✗"}.get(cell, cell)


#: Text by file name.
PAGES = {"link.rst": link_page}


def main() -> None:
    for name, text in PAGES.items():
        (DOCS / name).write_text(text(), "utf-8")
        print(DOCS / name)


if __name__ == "__main__":
    main()
