"""Writes what tools show: data to standard output, everything else to standard error. It does not know what it shows.

- ``output.record(mapping)``: data, as one line of JSON. Values that JSON does not have are written as the table in
  ``docs/tools.rst`` says (bytes as base64, dates as ISO 8601 …), so any payload can be passed.
- ``output.print(renderable)``: data for people, as text or as anything of rich (``rich.text.Text``, tables). Plain
  strings are printed without markup. Pass what came from the network through :func:`safe` first.
- ``output.aside(text)``: a text of rich on standard error.
- ``output.note(text)``, ``output.error(text)``: a line ``prog: text`` on standard error, without passwords.
- ``output.progress(text, total)``: a progress bar on standard error if that is a terminal.
- ``output.drawable``: whether standard output is a terminal, where a drawing can be replaced by the next one.

When nobody reads standard output any more (``| head``), writing raises :class:`OutputClosed`, which ``Tool.main`` takes
for a successful end.
"""

from __future__ import annotations

import base64
import contextlib
import datetime
import json
import math
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, TextIO

from rich.console import Console
from rich.text import Text

from eda_core.urls import redact
from eda_tools.cli.status import ToolError

_ENCODER: Final = json.JSONEncoder(ensure_ascii=False, allow_nan=False)
#: Columns if standard output is not a terminal, so that lines are not broken.
_ENDLESS: Final = 10_000


class OutputClosed(Exception):
    """Nobody reads standard output any more."""


def safe(text: object) -> str:
    """``text`` with unprintable characters escaped (``\\x1b``), because they would control a terminal."""
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape", "replace").decode()
        for character in str(text)
    )


class Output:
    """The standard streams of one run.

    Attributes:
        prog: the name of the command, with which every line on standard error begins.
        json: whether data is written as JSON.
        doing: what the tool waits for; the line about a time-out begins with it.
    """

    def __init__(self, prog: str) -> None:
        self.prog = prog
        self.json: bool = False
        self.doing = ""
        for name in ("stdout", "stderr"):
            if getattr(sys, name) is None:  # the parent process has closed it
                setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115 - stays open until the process ends
        self._stdout = sys.stdout
        self._drawing = False
        for stream in (sys.stdout, sys.stderr):
            reconfigure = getattr(stream, "reconfigure", None)
            if reconfigure is not None:  # tests replace the streams by others
                reconfigure(errors="backslashreplace")
        self.out: Console
        self.err: Console
        self.configure()

    def configure(self, *, json: bool = False, color: str = "auto") -> None:
        """Apply ``--json`` and ``--color`` (auto, always, never)."""
        self.json = json
        if json:
            reconfigure = getattr(self._stdout, "reconfigure", None)
            if reconfigure is not None:
                reconfigure(encoding="utf-8", errors="backslashreplace")  # RFC 8259, section 8.1
        self.out = _console(sys.stdout, color)
        self.err = _console(sys.stderr, color)

    # Data

    def record(self, values: Mapping[str, Any]) -> None:
        """Write one JSON object in one line."""
        line = _ENCODER.encode(jsonable(values))
        if self._drawing:
            self._write(lambda: self.out.print(Text(line), soft_wrap=True))
        else:
            self._write(lambda: print(line, file=self._stdout))

    def print(self, renderable: Any = "") -> None:
        """Write ``renderable`` for people."""
        plain = Text(renderable) if isinstance(renderable, str) else renderable
        wrap = isinstance(plain, Text)
        self._write(lambda: self.out.print(plain, soft_wrap=wrap))

    def line(self, text: str) -> None:
        """Write a line as it is, with the codes of its colours. It takes a tenth of the time of :meth:`print`."""
        self._write(lambda: print(text, file=self._stdout))

    def flush(self) -> None:
        """Pass on what was written, for the readers of a pipe. Live tools call it whenever no more messages wait."""
        self._write(self._stdout.flush)

    def _write(self, action: Any) -> None:
        try:
            action()
        except BrokenPipeError:
            raise OutputClosed from None
        except OSError as error:
            raise ToolError(f"standard output: {error.strerror}") from None

    @property
    def drawable(self) -> bool:
        return self._stdout.isatty()  # rich takes --color always and FORCE_COLOR for a terminal as well

    # Everything else

    def note(self, text: str) -> None:
        """Write a line on standard error."""
        self._tell(text, "")

    def aside(self, text: Text) -> None:
        """Write a text on standard error that is about the work and no data."""
        with contextlib.suppress(OSError):
            self.err.print(text, soft_wrap=True)

    def error(self, text: str) -> None:
        """Write the line on standard error that says why the tool ends."""
        self._tell(text, "bold red")

    def _tell(self, text: str, style: str) -> None:
        line = Text().append(f"{self.prog}: ", style="dim").append(safe(redact(" ".join(text.split()))), style=style)
        with contextlib.suppress(OSError):
            self.err.print(line, soft_wrap=True)

    @contextlib.contextmanager
    def progress(self, text: str, total: int) -> Iterator[Callable[[int], None]]:
        """Show a progress bar while the block runs, if standard error is a terminal.

        Yields a function to call with how many of ``total`` are done.
        """
        if not sys.stderr.isatty():
            yield lambda done: None
            return
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        err = self.err
        if _one_screen(sys.stdout, sys.stderr):  # one console must write everything, or the bar would break lines
            self.err, self._drawing = self.out, True
        try:
            with Progress(*columns, console=self.err, transient=True) as bar:
                task = bar.add_task(safe(text), total=total)
                yield lambda done: bar.update(task, completed=done)
        finally:
            self.err, self._drawing = err, False

    def abandon(self) -> None:
        """Show the cursor of a terminal again, which bars and live tables hide. The process ends right after this."""
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                if stream.isatty():
                    os.write(stream.fileno(), b"\x1b[?25h")

    def close(self) -> None:
        """Flush the streams. If nobody reads one, replace it, or the interpreter would report an error when it ends."""
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except (OSError, ValueError):
                with contextlib.suppress(OSError, ValueError):
                    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


class _Console(Console):
    def on_broken_pipe(self) -> None:
        raise


def _one_screen(one: TextIO, other: TextIO) -> bool:
    """Whether both streams are the same terminal."""
    return one.isatty() and other.isatty() and os.fstat(one.fileno()).st_rdev == os.fstat(other.fileno()).st_rdev


def _console(stream: TextIO, color: str) -> Console:
    terminal = stream.isatty()
    wanted = terminal and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    if color != "auto":
        wanted = color == "always"
    console = _Console(
        file=stream,
        force_terminal=True if wanted else None,
        color_system=("auto" if terminal else "256") if wanted else None,
        width=None if terminal else _ENDLESS,
        markup=False,
        highlight=False,
        emoji=False,
    )
    if wanted and console.no_color:  # --color always overrides NO_COLOR
        console.no_color = False
    return console


def jsonable(value: Any) -> Any:
    """``value`` with everything replaced that JSON does not have, as ``docs/tools.rst`` says."""
    kind = type(value)
    if kind is str or kind is int or kind is bool or value is None:
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, (bytes, bytearray, memoryview)):
        return base64.b64encode(value).decode()
    if isinstance(value, (datetime.datetime, datetime.date, datetime.time)):
        return value.isoformat()
    if isinstance(value, Mapping):
        return _object(value)
    if isinstance(value, (list, tuple, set, frozenset)):
        return [jsonable(item) for item in value]
    return str(value)


def _object(value: Mapping[Any, Any]) -> Any:
    made = {key if type(key) is str else _key(key): jsonable(item) for key, item in value.items()}
    if len(made) == len(value):
        return made
    return [[jsonable(key), jsonable(item)] for key, item in value.items()]  # CBOR maps may have both 1 and "1"


def _key(key: Any) -> str:
    plain = jsonable(key)
    return plain if isinstance(plain, str) else json.dumps(plain, ensure_ascii=False)
