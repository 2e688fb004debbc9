"""``eda TOOL …``: all tools as subcommands. It loads only the tool that is asked for, and knows only their names."""

from __future__ import annotations

import argparse
import difflib
import importlib
import sys
from collections.abc import Sequence
from typing import Final

from eda_core._version import __version__
from eda_tools.cli.arguments import Parser, completion_option
from eda_tools.cli.catalogue import PROGRAMS, TOOLS
from eda_tools.cli.output import Output, OutputClosed
from eda_tools.cli.status import DONE, STATUSES, USAGE
from eda_tools.cli.tool import Tool

_ALL: Final = TOOLS | PROGRAMS


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command ``eda``. Returns the exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    name = arguments[0].replace("-", "_") if arguments else ""
    if name in _ALL:
        status: int = importlib.import_module(f"eda_tools.{name}").main(arguments[1:], prog=f"eda {name}")
        return status
    output = Output("eda")
    try:
        return _own(arguments)
    except OutputClosed:
        return DONE
    finally:
        output.close()


def load(name: str) -> Tool:
    """Load a tool by its name in :data:`~eda_tools.cli.catalogue.TOOLS`."""
    tool = importlib.import_module(f"eda_tools.{name}").TOOL
    assert isinstance(tool, Tool)
    return tool


def parser_of(name: str) -> argparse.ArgumentParser:
    """A parser of the arguments of a subcommand of any kind."""
    if name in TOOLS:
        return load(name).parser()
    made: argparse.ArgumentParser = importlib.import_module(f"eda_tools.{name}").parser()
    return made


def _own(arguments: list[str]) -> int:
    """Answer ``--help``, ``--version`` and ``--print-completion``, and report everything else as wrong usage."""
    parser = Parser(
        "eda",
        usage="eda [-h] [--version] [--print-completion SHELL] TOOL …",
        description="Tools for services on a bus of events and commands. 'eda TOOL --help' describes a tool.",
        epilog="\n".join(["tools:", *(f"  {name:<22} {what}" for name, what in _ALL.items()), "", STATUSES + "."]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"eda-core {__version__}")
    completion_option(parser)
    if any(argument.startswith("--print-completion") for argument in arguments):
        tools = parser.add_subparsers(metavar="TOOL")
        for name, what in TOOLS.items():
            load(name).arguments(tools.add_parser(name, help=what))
        for name, what in PROGRAMS.items():
            importlib.import_module(f"eda_tools.{name}").arguments(tools.add_parser(name, help=what))
    try:
        if not arguments:
            parser.print_help(sys.stderr)
            return USAGE
        _, unknown = parser.parse_known_args(arguments)
    except SystemExit as over:
        return over.code if isinstance(over.code, int) else USAGE
    sys.stderr.write(f"eda: there is no tool {unknown[0]!r}; {_suggestion(unknown[0])}\n")
    return USAGE


def _suggestion(word: str) -> str:
    """What to say to somebody who has misspelt the name of a tool."""
    parts = {part: name for name in _ALL for part in (*name.split("_"), name)}
    near = difflib.get_close_matches(word.lower().replace("-", "_"), parts, n=1)
    return f"did you mean {parts[near[0]]}?" if near else f"there are {', '.join(_ALL)}"


if __name__ == "__main__":
    sys.exit(main())
