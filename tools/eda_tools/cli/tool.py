"""What all tools have in common: arguments, exit statuses, and a ``main`` that turns whatever happens into a status.

A tool is a module with three things and a :class:`Tool` made of them::

    def arguments(parser: argparse.ArgumentParser) -> None:   # add its arguments; the common ones by url_argument(),
        ...                                                   # common_options() and so on, below

    async def run(args: argparse.Namespace, output: Output) -> int:
        ...                     # returns a status; raises ToolError("one clear line", STATUS) when it cannot go on

    TOOL = Tool("inspect_queue", "Show a queue without consuming it.", arguments, run)
    main = TOOL.main

    if __name__ == "__main__":
        sys.exit(main())

``args.urls`` is then a tuple of checked URLs; never print them but by :func:`eda_core.urls.redact`. On the first
SIGINT, SIGTERM or SIGHUP, and when ``--timeout`` is over, ``run`` is cancelled: it cleans up in ``finally``, and the
status is 130 or 124 whatever it then returns. A second signal ends the process at once. Say what is being waited for
in ``output.doing``: it becomes part of the line that tells of a time-out.

``EDA_DEBUG=1`` shows tracebacks and the libraries' logs.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import os
import signal
import sys
import threading
import traceback
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass

from eda_core._version import __version__
from eda_core.errors import EdaError, LocalError, ServiceError
from eda_core.urls import redact
from eda_tools.cli import names
from eda_tools.cli.arguments import (
    Parser,
    PrintCompletion,
    common_options,
    natural,
    positive,
    rate,
    seconds,
    url_argument,
)
from eda_tools.cli.output import Output, OutputClosed
from eda_tools.cli.status import (
    DONE,
    ERROR_RESULT,
    FAILED,
    INTERRUPTED,
    NO_CONNECTION,
    PARTLY,
    STATUSES,
    TIMED_OUT,
    USAGE,
    ToolError,
)
from eda_tools.cli.watchdog import ending_when_stuck

__all__ = [
    "DONE",
    "ERROR_RESULT",
    "FAILED",
    "INTERRUPTED",
    "NO_CONNECTION",
    "PARTLY",
    "STATUSES",
    "TIMED_OUT",
    "USAGE",
    "Output",
    "Tool",
    "ToolError",
    "common_options",
    "natural",
    "positive",
    "rate",
    "seconds",
    "url_argument",
]


@dataclass(frozen=True)
class Tool:
    """A command.

    Attributes:
        name: of its module, and in the connection's name on the broker.
        summary: one sentence for the help.
        arguments: adds its arguments to a parser.
        run: does its work and returns the exit status.
        epilog: more help, below.
    """

    name: str
    summary: str
    arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace, Output], Awaitable[int]]
    epilog: str = ""

    def parser(self, prog: str | None = None) -> Parser:
        parser = Parser(prog, description=self.summary, epilog=f"{self.epilog} {STATUSES}.".strip(), allow_abbrev=False)
        self.arguments(parser)
        parser.add_argument("--version", action="version", version=f"eda-core {__version__}")
        parser.add_argument(
            "--print-completion",
            action=PrintCompletion,
            choices=("bash", "zsh", "tcsh"),
            help="print a script that completes the command's words in this shell",
        )
        return parser

    def main(self, argv: Sequence[str] | None = None, prog: str | None = None) -> int:
        """The command: returns the exit status, never raises.

        Args:
            argv: by default ``sys.argv[1:]``.
            prog: how it was called, for messages.
        """
        parser = self.parser(prog)
        output = Output(parser.prog)
        try:
            try:
                args = parser.parse_args(argv)
            except SystemExit as over:
                return over.code if isinstance(over.code, int) else FAILED
            output.configure(json=getattr(args, "json", False), color=getattr(args, "color", "auto"))
            with _quiet_libraries(output), names.of_any_characters():
                return self._run(args, output)
        except KeyboardInterrupt:
            return INTERRUPTED
        finally:
            output.close()

    def _run(self, args: argparse.Namespace, output: Output) -> int:
        try:
            status = asyncio.run(_supervised(self.run(args, output), getattr(args, "timeout", None), output))
            output.flush()
            return status
        except OutputClosed:
            return DONE  # the reader has seen enough
        except BaseException as error:
            if isinstance(error, (KeyboardInterrupt, asyncio.CancelledError)):
                return INTERRUPTED
            return _told(error, output)


def _told(error: BaseException, output: Output) -> int:
    if os.environ.get("EDA_DEBUG"):
        sys.stderr.write(_redacted("".join(traceback.format_exception(error))) + "\n")
    text, status = _explained(error)
    output.error(text)
    return status


def _redacted(lines: str) -> str:
    """Without passwords; each line for itself, since what looks like one must not run through a whole traceback."""
    return "\n".join(map(redact, lines.splitlines()))


def _explained(error: BaseException) -> tuple[str, int]:
    if isinstance(error, ToolError):
        return str(error), error.status
    if isinstance(error, ServiceError):
        return str(error), NO_CONNECTION if "credentials" in str(error) else FAILED
    if isinstance(error, LocalError):
        return str(error), USAGE
    if isinstance(error, EdaError):
        return str(error), FAILED
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}", FAILED
    return f"unexpected {type(error).__name__}: {error} (EDA_DEBUG=1 shows where)", FAILED


@contextlib.contextmanager
def _stopping_on_signals(stop: Callable[[], None]) -> Iterator[None]:
    """In the block SIGINT, SIGTERM and SIGHUP call ``stop`` in the running loop, if it is that of the main thread."""
    loop, numbers = asyncio.get_running_loop(), [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
    if threading.current_thread() is not threading.main_thread():
        numbers.clear()
    for number in numbers:
        loop.add_signal_handler(number, stop)
    try:
        yield
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)


async def _supervised(work: Awaitable[int], timeout: float | None, output: Output) -> int:
    task = asyncio.ensure_future(work)
    interrupted = False

    def on_signal() -> None:
        nonlocal interrupted
        interrupted = True
        heard()
        task.cancel()

    with _stopping_on_signals(on_signal), ending_when_stuck(output, timeout) as heard:
        done, _ = await asyncio.wait((task,), timeout=timeout)
        heard()
        if not done:
            task.cancel()
            await asyncio.wait((task,))
    if not task.cancelled():
        error = task.exception()
        if error is not None:
            raise error
    if interrupted:
        return INTERRUPTED
    if not done:
        doing = f"{output.doing}: " if output.doing else ""
        raise ToolError(f"{doing}timed out after {timeout:g} s", TIMED_OUT)
    return INTERRUPTED if task.cancelled() else task.result()


class _Redacting(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return _redacted(super().format(record))


class _Notes(logging.Handler):
    def __init__(self, output: Output) -> None:
        super().__init__(logging.WARNING)
        self._output = output

    def emit(self, record: logging.LogRecord) -> None:
        self._output.note(record.getMessage())


@contextlib.contextmanager
def _quiet_libraries(output: Output) -> Iterator[None]:
    """What the adapter reports goes to standard error; of what the libraries log, users learn by status and line."""
    root, adapter, silent, notes = (
        logging.getLogger(),
        logging.getLogger("eda_aio"),
        logging.NullHandler(),
        _Notes(output),
    )
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
