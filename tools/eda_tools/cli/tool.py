"""Runs a tool: parses its arguments, awaits its work, and turns whatever happens into an exit status.

It knows nothing of brokers and messages. A tool is a module with three things and a :class:`Tool` made of them::

    def arguments(parser: argparse.ArgumentParser) -> None:
        ...                     # adds its arguments; those that tools have in common are in eda_tools.cli.arguments

    async def run(args: argparse.Namespace, output: Output) -> int:
        ...                     # returns a status; raises ToolError("one clear line", STATUS) when it cannot go on

    TOOL = Tool("inspect_queue", "Show a queue without consuming it.", arguments, run)
    main = TOOL.main

    if __name__ == "__main__":
        sys.exit(main())

``args.urls`` is then a tuple of checked URLs. Show a URL only by :func:`eda_core.urls.redact`. The first SIGINT,
SIGTERM or SIGHUP, and the end of ``--timeout``, cancel ``run``: it cleans up in ``finally``, and the status is 130 or
124, whatever ``run`` then returns. A second signal ends the process at once. Say what ``run`` waits for in
``output.doing``: the line about a time-out begins with it.

``EDA_DEBUG=1`` shows tracebacks and the libraries' logs.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import os
import sys
import traceback
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass

from eda_core.errors import EdaError, LocalError, ServiceError
from eda_core.machine.events import STOPPED
from eda_core.urls import redact
from eda_tools.cli.arguments import Parser, completion_option, parser_of
from eda_tools.cli.output import Output, OutputClosed
from eda_tools.cli.signals import Ending
from eda_tools.cli.start import missing_library
from eda_tools.cli.status import DONE, FAILED, INTERRUPTED, NO_CONNECTION, STATUSES, TIMED_OUT, USAGE, ToolError


@dataclass(frozen=True)
class Tool:
    """A command.

    Attributes:
        name: the name of its module; also part of the connection's name on the broker.
        summary: one sentence for the help.
        arguments: adds its arguments to a parser.
        run: does the work and returns the exit status.
        epilog: a paragraph of the help, behind the arguments.
        examples: commands, for the help.
    """

    name: str
    summary: str
    arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace, Output], Awaitable[int]]
    epilog: str = ""
    examples: tuple[str, ...] = ()

    def parser(self, prog: str | None = None) -> Parser:
        """A parser of its arguments."""
        examples = "\n".join(f"  {each}" for each in self.examples)
        epilog = "\n\n".join(filter(None, (examples and f"examples:\n\n{examples}", self.epilog, f"{STATUSES}.")))
        parser = parser_of(prog, self.summary, epilog, self.arguments)
        completion_option(parser)
        return parser

    def main(self, argv: Sequence[str] | None = None, prog: str | None = None) -> int:
        """Run the command. Returns the exit status, never raises.

        Args:
            argv: the arguments, by default ``sys.argv[1:]``.
            prog: the name of the command in messages.
        """
        parser = self.parser(prog)
        output = Output(parser.prog)
        try:
            args = parser.parse_args(argv)
        except SystemExit as end:
            output.close()
            return end.code if isinstance(end.code, int) else FAILED
        output.configure(json=getattr(args, "json", False), color=getattr(args, "color", "auto"))
        with Ending(getattr(args, "timeout", None), output.abandon) as ending:
            try:
                with _quiet_libraries(output):
                    return self._run(args, output, ending)
            finally:
                output.close()

    def _run(self, args: argparse.Namespace, output: Output, ending: Ending) -> int:
        try:
            try:
                status = asyncio.run(ending.watched(self.run(args, output)))
            except asyncio.CancelledError:
                status = INTERRUPTED
            finally:
                ending.work_ended()
            if ending.status == TIMED_OUT:
                doing = f"{output.doing}: " if output.doing else ""
                raise ToolError(f"{doing}timed out after {args.timeout:g} s", TIMED_OUT)
            output.flush()
            return ending.status or status
        except OutputClosed:
            return DONE  # the reader has seen enough
        except KeyboardInterrupt:  # on Windows; elsewhere a signal cancels
            return INTERRUPTED
        except BaseException as error:
            return _report(error, output)


def _report(error: BaseException, output: Output) -> int:
    """Tell in one line why the tool ends. Returns the exit status."""
    if os.environ.get("EDA_DEBUG"):
        sys.stderr.write(_redacted("".join(traceback.format_exception(error))) + "\n")
    text, status = _explained(error)
    output.error(text)
    return status


def _redacted(lines: str) -> str:
    """``lines`` without passwords. Each line is taken alone: what looks like a URL must not extend over several."""
    return "\n".join(map(redact, lines.splitlines()))


def _explained(error: BaseException) -> tuple[str, int]:
    if isinstance(error, ToolError):
        return str(error), error.status
    if isinstance(error, ServiceError):
        return str(error), NO_CONNECTION if "refuses the credentials" in str(error) else FAILED
    if isinstance(error, LocalError):
        return str(error), USAGE
    if isinstance(error, EdaError):
        return str(error), FAILED
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}", FAILED
    unexpected = f"unexpected {type(error).__name__}: {error} (EDA_DEBUG=1 shows where)"
    return missing_library(error) or unexpected, FAILED


class _Redacting(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return _redacted(super().format(record))


class _Notes(logging.Handler):
    def __init__(self, output: Output) -> None:
        super().__init__(logging.WARNING)
        self._output = output

    def emit(self, record: logging.LogRecord) -> None:
        if getattr(record, "eda_event", "") != STOPPED:  # the tool says itself why it ends
            self._output.note(record.getMessage())


@contextlib.contextmanager
def _quiet_libraries(output: Output) -> Iterator[None]:
    """In the block, the adapter's warnings are notes on standard error, and other libraries log nothing there."""
    root, adapter = logging.getLogger(), logging.getLogger("eda_aio")
    silent, notes = logging.NullHandler(), _Notes(output)
    if os.environ.get("EDA_DEBUG"):
        shown = logging.StreamHandler(sys.stderr)
        shown.setFormatter(_Redacting(logging.BASIC_FORMAT))
        logging.basicConfig(handlers=[shown], level=logging.DEBUG)
    root.addHandler(silent)
    adapter.addHandler(notes)
    try:
        yield
    finally:
        root.removeHandler(silent)
        adapter.removeHandler(notes)
