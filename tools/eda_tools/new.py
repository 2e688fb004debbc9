"""``eda new NAME``: write a small project, with a service, its tests, and what runs it.

This module has the command line and writes the files. :mod:`eda_tools.creating` has what is in them.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from eda_tools.cli.arguments import Parser, parser_of
from eda_tools.cli.command import run_command
from eda_tools.cli.output import Output
from eda_tools.cli.status import DONE, USAGE, ToolError, naming_file
from eda_tools.creating.names import Names
from eda_tools.creating.project import files

__all__ = ["arguments", "main", "parser"]

_EPILOG: Final = """\
The project has a service of eda_aio, tests with the plugin for pytest, a simulation, a noxfile, a Dockerfile, a compose
file with RabbitMQ, and a README that says how to go on.

Exit status: 0 written; 1 it cannot be written; 2 usage, the name cannot be taken, or the directory is not empty."""


def parser(prog: str | None = None) -> Parser:
    """A parser of the arguments of the command."""
    return parser_of(prog, "Write a small project with a service and its tests.", _EPILOG, arguments)


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument(
        "name", metavar="NAME", help="the name of the project, such as shop-orders; the service is then shop_orders"
    )
    parser.add_argument(
        "directory",
        metavar="DIRECTORY",
        nargs="?",
        help="where to write it; it must be empty, or not exist (default: NAME)",
    )


def main(argv: Sequence[str] | None = None, prog: str = "eda new") -> int:
    """Run the command (see ``--help``). Returns the exit status."""
    return run_command(parser(prog), _run, argv)


def _run(args: argparse.Namespace, output: Output) -> int:
    names = Names.of(args.name)
    directory = Path(args.directory or names.project)
    create(directory, names)
    output.print(f"{directory} is written. To go on, read {directory / 'README.rst'}:")
    output.print(f"  cd {directory} && pytest")
    return DONE


def create(directory: Path, names: Names) -> None:
    """Write the project.

    Raises:
        ToolError: something is there already, or it cannot be written.
    """
    with naming_file(directory):
        if directory.exists() and not directory.is_dir():
            raise ToolError(f"{directory} is a file; name a directory", USAGE)
        if directory.is_dir() and any(directory.iterdir()):
            raise ToolError(f"{directory} is not empty; name another directory: eda new {names.project} DIR", USAGE)
        for path, text in files(names).items():
            place = directory / path
            place.parent.mkdir(parents=True, exist_ok=True)
            with open(place, "x", encoding="utf-8", newline="\n") as file:
                file.write(text)


if __name__ == "__main__":
    sys.exit(main())
