"""``eda asyncapi MODULE:NAME …``: write an AsyncAPI document of what services receive and send.

This module has the command line. :mod:`eda_tools.contracts` reads the services and makes the document.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from eda_tools.cli.arguments import Parser, parser_of
from eda_tools.cli.command import run_command
from eda_tools.cli.output import Output
from eda_tools.cli.status import DONE, naming_file
from eda_tools.contracts.document import document
from eda_tools.contracts.reading import read_contracts, read_recorded, service_arguments

__all__ = ["arguments", "main", "parser"]

_EPILOG: Final = """\
examples:

  eda asyncapi shop.orders:Orders
  eda asyncapi shop.orders:Orders shop.billing:Billing --title Shop -o asyncapi.json

Exit status: 0 the document is written; 1 a service raises an error when it is loaded; 2 usage, or there is no such
service."""


def parser(prog: str | None = None) -> Parser:
    """A parser of the arguments of the command."""
    summary = "Write an AsyncAPI 3.0 document, as JSON, of what services receive, answer and send."
    return parser_of(prog, summary, _EPILOG, arguments)


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    service_arguments(parser)
    parser.add_argument("--title", help="the title of the document (default: the names of the services)")
    parser.add_argument(
        "--document-version",
        default="0.0.0",
        metavar="VERSION",
        help="the version of the document (default: %(default)s)",
    )
    parser.add_argument("-o", "--output", metavar="FILE", help="where to write it (default: standard output)")


def main(argv: Sequence[str] | None = None, prog: str = "eda asyncapi") -> int:
    """Run the command (see ``--help``). Returns the exit status."""
    return run_command(parser(prog), _run, argv)


def _run(args: argparse.Namespace, output: Output) -> int:
    contracts = read_contracts(args.services, read_recorded(args.observed))
    for contract in contracts:
        for text in (*contract.faults, *contract.doubts):
            output.note(f"{contract.path}: {text}")
    title = args.title or ", ".join(dict.fromkeys(each.service for each in contracts))
    found = document(contracts, title, args.document_version, output.note)
    text = json.dumps(found, indent=2, ensure_ascii=False) + "\n"
    if args.output is None:
        sys.stdout.write(text)
    else:
        with naming_file(args.output):
            Path(args.output).write_text(text, encoding="utf-8")
    return DONE


if __name__ == "__main__":
    sys.exit(main())
