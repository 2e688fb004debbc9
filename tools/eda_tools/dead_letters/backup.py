"""What ``resurrect --backup FILE`` writes: a recording that is on the disk before a dead letter leaves its queue."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from eda_tools.cli.status import ToolError
from eda_tools.messages.recording import read_recording


class Backup:
    """Appends to a recording, and returns when the disk has it. A context manager.

    Raises:
        ToolError: the file cannot be written, or holds something else than a recording.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        try:
            self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            try:
                for _ in read_recording(path):
                    pass  # what was cut off would make everything behind it unreadable
                directory = os.open(Path(path).resolve().parent, os.O_RDONLY)
                try:
                    os.fsync(directory)  # the name, too, must outlast a crash
                finally:
                    os.close(directory)
            except BaseException:
                os.close(self._file)
                raise
        except OSError as error:
            raise ToolError(f"{path}: {error.strerror}") from None

    def write(self, messages: Sequence[bytes]) -> None:
        """Append messages (:func:`eda_tools.messages.recording.dumps`): all of them, or none.

        Raises as the constructor does.
        """
        items = b"".join(messages)
        try:
            end = os.fstat(self._file).st_size
            try:
                written = 0
                while written < len(items):
                    written += os.write(self._file, items[written:])
                os.fsync(self._file)
            except OSError:
                os.ftruncate(self._file, end)
                raise
        except OSError as error:
            raise ToolError(f"{self.path}: {error.strerror}") from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        os.close(self._file)
