"""Runs the commands of ``eda`` that are no tools for the bus: they need no broker, or start programs that do."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence

from eda_tools.cli.arguments import Parser
from eda_tools.cli.output import Output, OutputClosed
from eda_tools.cli.status import DONE, FAILED, ToolError


def run_command(
    parser: Parser, run: Callable[[argparse.Namespace, Output], int], argv: Sequence[str] | None, *, json: str = ""
) -> int:
    """Parse the arguments, and run a command. Returns the exit status.

    Args:
        json: the name of the argument that is ``"json"`` if the output is to be objects.
    """
    output = Output(parser.prog)
    try:
        args = parser.parse_args(argv)
        output.configure(json=getattr(args, json, "") == "json", color=getattr(args, "color", "auto"))
        return run(args, output)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else FAILED
    except OutputClosed:
        return DONE  # the reader has seen enough
    except ToolError as error:
        output.error(str(error))
        return error.status
    finally:
        output.close()
