"""The one log of all workers: what each writes, in the order in which it comes, as text or as JSON.

A thread writes it. So a terminal that is held (Ctrl-S), or a pipe that nobody reads, does not keep the supervisor from
its signals. While there is no room, no more is read from the workers, and they wait. When they are to stop, they must
not wait: then the oldest lines are dropped, and it says how many.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any, Final

from rich.color import ColorSystem
from rich.style import Style

from eda_tools.cli.output import Output, OutputClosed, safe
from eda_tools.cli.status import ToolError

#: How many entries may wait to be written.
ROOM: Final = 1_000
#: The colours of the services, in turn.
COLOURS: Final = ("cyan", "green", "magenta", "blue", "bright_cyan", "bright_green", "bright_magenta", "bright_blue")
_SYSTEMS: Final = {"256": ColorSystem.EIGHT_BIT, "truecolor": ColorSystem.TRUECOLOR}
_LEVELS: Final = {"WARNING": "yellow", "ERROR": "red", "CRITICAL": "bold red"}

Entry = Mapping[str, Any]


class Log:
    """The log, as a context manager, within an event loop.

    Args:
        output: where it is written; ``output.json`` says how.
        names: of the services, for the width and the colours.
        closed: is called in the loop when nobody reads the log any more.
    """

    def __init__(self, output: Output, names: Sequence[str], closed: Callable[[], None]) -> None:
        self._output = output
        self._colours = {name: COLOURS[index % len(COLOURS)] for index, name in enumerate(dict.fromkeys(names))}
        self._width = 0
        self._loop = asyncio.get_running_loop()
        self._closed = closed
        self._room = asyncio.Event()
        self._room.set()
        self._entries: deque[Entry | None] = deque()
        self._news = threading.Condition()
        self._dropping = False
        self._dropped = 0
        self._thread = threading.Thread(target=self._write_all, name="log", daemon=True)

    def widen(self, label: str) -> None:
        """Leave so much space for the names of the workers."""
        self._width = max(self._width, len(label))

    async def add(self, entry: Entry) -> None:
        """Write an entry, soon. Wait while there is no room.

        Args:
            entry: ``time`` (POSIX seconds), ``name`` (of the service), ``label`` (of the worker) and ``message``, and
                perhaps more.
        """
        while not self._room.is_set():
            await self._room.wait()
        self.put(entry)

    def put(self, entry: Entry) -> None:
        """Write an entry, soon."""
        with self._news:
            if self._dropping and len(self._entries) >= ROOM:
                self._entries.popleft()
                self._dropped += 1
            self._entries.append(entry)
            if len(self._entries) >= ROOM and not self._dropping:
                self._room.clear()
            self._news.notify()

    def drop(self) -> None:
        """From now on do not wait for room, but drop the oldest entries."""
        self._dropping = True
        self._room.set()

    def __enter__(self) -> Log:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def end(self, timeout: float) -> bool:
        """Write what there is, and end. Returns whether that was possible in so many seconds."""
        self._end()
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _end(self) -> None:
        with self._news:
            self._entries.append(None)
            self._news.notify()

    # In the thread

    def _write_all(self) -> None:
        try:
            while (entry := self._next()) is not None:
                self._write(entry)
                if not self._entries:
                    self._output.flush()
        except (OutputClosed, ToolError):
            self._tell(self._closed)
            while self._next() is not None:
                pass

    def _next(self) -> Entry | None:
        with self._news:
            while not self._entries:
                self._news.wait()
            entry = self._entries.popleft()
            dropped, self._dropped = self._dropped, 0
            if not self._room.is_set() and len(self._entries) <= ROOM // 2:
                self._tell(self._room.set)
        if dropped:
            self._output.note(f"{dropped} line(s) of the log were dropped, because nobody reads it")
        return entry

    def _tell(self, call: Callable[[], None]) -> None:
        with suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(call)

    def _write(self, entry: Entry) -> None:
        if self._output.json:
            self._output.record(as_json(entry))
            return
        for line in self._lines(entry):
            self._output.line(line)

    def _lines(self, entry: Entry) -> list[str]:
        level, logger = entry.get("level", ""), entry.get("logger", "")
        before = f"{level} {logger}: " if logger else ""
        text = f"{before}{entry['message']}"
        if entry.get("traceback"):
            text += f"\n{entry['traceback']}"
        clock = datetime.fromtimestamp(entry["time"]).strftime("%H:%M:%S")
        label = entry["label"].ljust(self._width)
        colour = self._colours.get(entry["name"], "bold")
        style = _LEVELS.get(level, "" if entry["name"] in self._colours else "bold")
        head = self._painted(f"{clock} ", "dim") + self._painted(f"{label} | ", colour)
        return [head + self._painted(safe(line.expandtabs()), style) for line in text.split("\n")]

    def _painted(self, text: str, style: str) -> str:
        """The text with the codes of its style, if there are colours."""
        system = self._output.out.color_system
        if not style or system is None:
            return text
        return Style.parse(style).render(text, color_system=_SYSTEMS.get(system, ColorSystem.STANDARD))


def as_json(entry: Entry) -> dict[str, Any]:
    """What ``--log-format json`` writes of an entry."""
    shown = {key: value for key, value in entry.items() if key not in ("label", "name")}
    return {**shown, "time": datetime.fromtimestamp(entry["time"]).astimezone().isoformat(timespec="milliseconds")}
