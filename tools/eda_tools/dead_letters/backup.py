"""Writes the recording of ``resurrect --backup FILE`` to the disk. It does not know what happens to the messages."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from eda_tools.cli.status import naming_file
from eda_tools.messages.recording import read_recording


class Backup:
    """Appends to a recording, and returns only when the disk has it. A context manager.

    Raises:
        ToolError: the file cannot be written, or it exists and is not a complete recording.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        with naming_file(path):
            self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            try:
                for _ in read_recording(path):
                    pass  # after an item that is cut off, nothing could be read
                directory = os.open(Path(path).resolve().parent, os.O_RDONLY)
                try:
                    os.fsync(directory)  # so that the new file's name, too, survives a crash
                finally:
                    os.close(directory)
            except BaseException:
                os.close(self._file)
                raise

    def write(self, messages: Sequence[bytes]) -> None:
        """Append messages (:func:`eda_tools.messages.recording.dumps`): all of them or none.

        Raises what the constructor raises.
        """
        items = b"".join(messages)
        with naming_file(self._path):
            end = os.fstat(self._file).st_size
            try:
                written = 0
                while written < len(items):
                    written += os.write(self._file, items[written:])
                os.fsync(self._file)
            except OSError:
                os.ftruncate(self._file, end)
                raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        os.close(self._file)
