"""How the demo looks. Its lines are those of ``eda monitor``: coloured on a terminal, plain text elsewhere."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from eda_core import criticality
from eda_tools.cli.output import Output, OutputClosed
from eda_tools.messages.show import Line
from examples.conversations.tally import DeadLetter, Seen, Tally


def line(message: Seen, file: str, width: int) -> Text:
    """A message as a line for a screen of ``width`` columns."""
    bad = 0 <= message.level <= criticality.ERROR
    return Line(
        message.time,
        message.service,
        message.kind,
        message.name,
        message.conversation_id,
        message.text,
        message.status,
        label=file,
        bad=bad,
    ).drawn(width)


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


def results(tally: Tally) -> list[tuple[str, str, str, str]]:
    """What the pipeline has found: file, language, topics, and what was replaced how often."""
    found = []
    for file, payload in tally.results:
        topics, counts = _of(payload, "topics", list), _of(payload, "counts", dict)
        replaced = ", ".join(f"{count} {str(kind).lower()}" for kind, count in sorted(counts.items()) if count)
        found.append((file, str(payload.get("language", "")), ", ".join(map(_topic, topics)), replaced))
    return sorted(found)


def _of(payload: dict[str, Any], name: str, kind: type[Any]) -> Any:
    value = payload.get(name)
    return value if isinstance(value, kind) else kind()


def _topic(topic: object) -> str:
    return str(topic.get("name", "")) if isinstance(topic, dict) else str(topic)


def explanation(letter: DeadLetter) -> str:
    """Why a conversation was dead-lettered."""
    cause = f" ({letter.cause})" if letter.cause and letter.cause not in letter.text else ""
    source = f"{letter.source}: " if letter.source and letter.source not in letter.text else ""
    return f"dead letter {letter.file}: {source}{letter.text}{cause}"


def next_steps() -> list[tuple[str, list[str]]]:
    """What to do after the demo: sentences, and the commands that belong to each."""
    python, eda = _command("python"), _command("eda")
    url = "EDA_AMQP_URL=amqp://guest:guest@127.0.0.1/"
    return [
        (
            "See it on a broker that stays, each command in a terminal of its own:",
            [f"{eda} broker", f"{url} {eda} monitor", f"{url} {python} -m examples.conversations.demo"],
        ),
        (
            "Look at the dead letter, while that broker runs:",
            [f"{url} {eda} inspect_queue dead-letters"],
        ),
        (
            "Write a service of your own: docs/quickstart.rst. The tools are in docs/tools.rst.",
            [],
        ),
    ]


def _command(name: str) -> str:
    """How to start a command that stands beside this Python."""
    path = Path(sys.executable).parent / name
    found = shutil.which(name)
    if found is not None and Path(found).absolute() == path.absolute():
        return name
    return min(str(path), os.path.relpath(path), key=len)


class Report:
    """Writes what the demo sees to standard output. When nobody reads it any more, the demo goes on without it."""

    def __init__(self) -> None:
        self._output = Output("demo")
        self._gone = False

    def message(self, message: Seen, file: str) -> None:
        """Show a message of the conversation in ``file``."""
        self._print(line(message, file, self._output.out.width))

    def summary(self, tally: Tally) -> None:
        """Show what came out, the counts, the dead letters and what to do next."""
        table = Table(box=None, header_style="bold", pad_edge=False)
        for name in ("file", "language", "topics", "replaced"):
            table.add_column(name, overflow="fold")
        for result in results(tally):
            table.add_row(*map(Text, result))
        self._print("")
        self._print(table)
        self._print("")
        for label, value in rows(tally):
            self._print(f"{label:<18}{value:>6}")
        for letter in tally.dead_letters:
            self._paragraph(Text(explanation(letter), "bold red"))
        self._print("")
        self._print("Next steps:")
        for number, (sentence, commands) in enumerate(next_steps(), 1):
            self._paragraph(Text(f"{number}. {sentence}"))
            for command in commands:
                self._print(Text(f"     {command}", "cyan"))  # never broken, so that it can be copied

    def close(self) -> None:
        """Flush standard output."""
        self._output.close()

    def _paragraph(self, text: Text) -> None:
        self._print(Group(text))

    def _print(self, renderable: Any) -> None:
        if self._gone:
            return
        try:
            self._output.print(renderable)
            self._output.flush()
        except OutputClosed:
            self._gone = True
