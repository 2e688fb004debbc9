"""``eda check MODULE:NAME …``: check, without a broker, whether services agree about their messages.

This module has the command line and shows what is found. :mod:`eda_tools.contracts` decides what is wrong.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Final

from rich.text import Text

from eda_tools.cli.arguments import Parser, color_option, parser_of
from eda_tools.cli.command import run_command
from eda_tools.cli.output import Output
from eda_tools.cli.status import DONE, FAILED
from eda_tools.contracts.agreement import NOTE, PROBLEM, WARNING, Finding, counted, findings
from eda_tools.contracts.reading import read_contracts, read_recorded, service_arguments

__all__ = ["arguments", "main", "parser"]

_STYLES: Final = {PROBLEM: "bold red", WARNING: "yellow", NOTE: "dim"}

_EPILOG: Final = """\
examples:

  eda check shop.orders:Orders shop.billing:Billing
  eda check shop.orders:Orders --external billing --strict
  eda check shop.orders:Orders shop.billing:Billing --format json

Exit status: 0 the services agree; 1 they do not, or a service raises an error when it is loaded; 2 usage, or there is
no such service."""


def parser(prog: str | None = None) -> Parser:
    """A parser of the arguments of the command."""
    return parser_of(
        prog,
        "Check whether services agree, without a broker: each command is served, each result comes back, payloads fit, "
        "and somebody hears each event.",
        _EPILOG,
        arguments,
    )


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    service_arguments(parser)
    parser.add_argument(
        "--external",
        nargs="*",
        action="extend",
        default=[],
        metavar="NAME",
        help="a service, command, event or configuration of others, or a pattern of such names: nothing is said if it "
        "is not among those that are checked",
    )
    parser.add_argument("--strict", action="store_true", help="warnings are problems, too")
    parser.add_argument(
        "--format",
        choices=("text", "json"),
        default="text",
        help="json: one object per line (default: %(default)s)",
    )
    color_option(parser)


def main(argv: Sequence[str] | None = None, prog: str = "eda check") -> int:
    """Run the command (see ``--help``). Returns the exit status."""
    return run_command(parser(prog), _run, argv, json="format")


def _run(args: argparse.Namespace, output: Output) -> int:
    observed = read_recorded(args.observed)
    contracts = read_contracts(args.services, observed)
    found = sorted(findings(contracts, args.external, observed), key=lambda each: list(_STYLES).index(each.severity))
    for each in found:
        if output.json:
            output.record(_as_json(each))
        else:
            output.print(Text.assemble((f"{each.severity:<8} ", _STYLES[each.severity]), each.text))
    failing = (PROBLEM, WARNING) if args.strict else (PROBLEM,)
    problems = sum(each.severity in failing for each in found)
    output.note(f"{f'{problems} problem(s)' if problems else 'nothing wrong'}; {counted(contracts)}")
    return FAILED if problems else DONE


def _as_json(found: Finding) -> dict[str, object]:
    return {
        "severity": found.severity,
        "check": found.check,
        "services": list(found.services),
        "name": found.name,
        "text": found.text,
    }


if __name__ == "__main__":
    sys.exit(main())
