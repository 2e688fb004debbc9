"""The command ``python -m eda_core.journal``: reads a journal from a file, replays it, and prints what comes out.

This module decides the exit status. It does not know how a replay works.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable
from typing import Any

from pamqp import base
from pamqp.commands import Basic

from eda_core.journal.replaying import replay
from eda_core.journal.values import JournalError, restore
from eda_core.text import shortened


def _shown(value: Any) -> str:
    """``value`` in one line. (pamqp's classes have no ``repr``.)"""
    if isinstance(value, list):
        return f"[{', '.join(map(_shown, value))}]"
    if isinstance(value, (Basic.Properties, base.Frame)):
        return f"{value.name}({', '.join(f'{name}={field!r}' for name, field in value if field not in (None, ''))})"
    return shortened(repr(value), 200)


def main(arguments: list[str]) -> int:
    """The command.

    Returns:
        0 if the effects are those in the journal; 1 if they differ; 2 for a line that is not of a journal. (When a
        process is killed, the last line of its journal may be incomplete. What comes before such a line is replayed.)

    Raises:
        SystemExit: with status 0 after the help, with status 2 for a usage error.
    """
    parser = argparse.ArgumentParser(
        "python -m eda_core.journal",
        description="Give the inputs in a journal to a new machine, and compare its effects with those in the journal.",
        epilog="Exit status: 0 they are the same, 1 they differ, 2 usage, or FILE is no journal.",
    )
    parser.add_argument("command", choices=("replay", "show"), help="show also prints each input with its effects")
    parser.add_argument("file", metavar="FILE", help="a journal, as ServiceApi.keep_journal writes it")
    asked = parser.parse_args(arguments)
    try:
        with open(asked.file, encoding="utf-8") as file:
            return _replay_file(file, asked.file, show=asked.command == "show")
    except (OSError, UnicodeDecodeError) as error:
        print(f"{asked.file}: {error}", file=sys.stderr)
        return 2


def _replay_file(lines: Iterable[str], path: str, *, show: bool) -> int:
    inputs = produced = 0
    status = 0
    try:
        for number, entry, made in replay(lines):
            if show:
                given = [_shown(restore(item)) for item in entry["arguments"]]
                given += [f"{name}={_shown(restore(item))}" for name, item in entry["named"].items()]
                print(f"{number}: {entry['input']}({', '.join(given)}) -> {_shown(restore(made))}")
            recorded = entry.get("raised", entry.get("effects"))
            if made != recorded:
                print(f"line {number}: {entry['input']} gave other effects", file=sys.stderr)
                print(f"  recorded: {json.dumps(recorded)}\n  replayed: {json.dumps(made)}", file=sys.stderr)
                return 1
            inputs += 1
            produced += len(made) if isinstance(made, list) else 0
    except JournalError as error:
        print(f"{path}: {error}", file=sys.stderr)
        status = 2
    print(f"replayed {inputs} inputs to {produced} identical effects")
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
