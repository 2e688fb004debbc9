"""How the demo looks: coloured with ``rich`` on a terminal, plain text elsewhere."""

from __future__ import annotations

import importlib.util
import os
import sys
from typing import Final, Protocol

from eda_core import criticality
from examples.conversations.tally import DeadLetter, Seen, Tally

_STYLES: Final = {"event": "green", "command": "cyan", "result": "blue", "log": "dim"}


class Report(Protocol):
    def message(self, message: Seen, file: str) -> None: ...

    def summary(self, tally: Tally) -> None: ...


def make_report() -> Report:
    """The report for this process's stdout."""
    if sys.stdout.isatty() and importlib.util.find_spec("rich") is not None:
        return _Rich()
    return _Plain()


def columns(message: Seen, file: str) -> list[str]:
    """The columns of a message's line, padded except for the last."""
    conversation = f"{message.conversation_id[:8]} {file}"
    cells = [
        message.time.strftime("%H:%M:%S.%f")[:-3],
        f"{message.service:<12}",
        f"{message.kind:<7}",
        f"{message.name:<30}",
        f"{conversation:<46}",
        message.text,
    ]
    return cells if message.text else [*cells[:4], conversation]


def rows(tally: Tally) -> list[tuple[str, int]]:
    """The lines of the table at the end."""
    table = [("conversations in", tally.conversations), ("archived", tally.archived)]
    if tally.failed:
        table.append(("failed", tally.failed))
    return [
        *table,
        ("dead-lettered", len(tally.dead_letters)),
        ("messages", tally.messages),
        ("retries", tally.retries),
    ]


def explanation(letter: DeadLetter) -> str:
    """Why a conversation was dead-lettered."""
    cause = f" ({letter.cause})" if letter.cause and letter.cause not in letter.text else ""
    source = f"{letter.source}: " if letter.source and letter.source not in letter.text else ""
    return f"dead letter {letter.file}: {source}{letter.text}{cause}"


class _Plain:
    def __init__(self) -> None:
        self._gone = False

    def message(self, message: Seen, file: str) -> None:
        self._print("  ".join(columns(message, file)))

    def summary(self, tally: Tally) -> None:
        self._print("")
        for label, value in rows(tally):
            self._print(f"{label:<18}{value:>6}")
        for letter in tally.dead_letters:
            self._print(explanation(letter))

    def _print(self, line: str) -> None:
        if self._gone:
            return
        try:
            print(line, flush=True)
        except BrokenPipeError:
            # Nobody reads any more (``| head``). The run goes on to its end; the interpreter must not flush to the pipe
            # again.
            self._gone = True
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class _Rich:
    def __init__(self) -> None:
        from rich.console import Console

        self._console = Console(highlight=False)

    def message(self, message: Seen, file: str) -> None:
        from rich.text import Text

        time, service, kind, *rest = columns(message, file)
        bad = 0 <= message.level <= criticality.ERROR or message.text == "error"
        style = "bold red" if bad else _STYLES.get(message.kind, "")
        line = Text("  ").join(
            [Text(time, "dim"), Text(service, "bold"), *(Text(cell, style) for cell in (kind, *rest))]
        )
        self._console.print(line, soft_wrap=True)

    def summary(self, tally: Tally) -> None:
        from rich.table import Table
        from rich.text import Text

        table = Table(show_header=False)
        table.add_column()
        table.add_column(justify="right")
        for label, value in rows(tally):
            table.add_row(label, str(value))
        self._console.print(table)
        for letter in tally.dead_letters:
            self._console.print(Text(explanation(letter), "bold red"))
