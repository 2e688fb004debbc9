"""Which Python files of a project have changed, for ``eda run --reload``. It looks at their time and size."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from typing import Final

#: Seconds between two looks.
INTERVAL: Final = 0.5
#: Directories that hold no source of a project.
_LEFT_OUT: Final = frozenset({"__pycache__", "node_modules", "site-packages"})

#: The time of the last change and the size of each file.
State = dict[str, tuple[int, int]]


def look(directories: Sequence[str]) -> State:
    """Return the state of all Python files in these directories and below.

    Hidden directories and virtual environments are left out.
    """
    found: State = {}
    for directory in directories:
        for place, inner, files in os.walk(directory):
            inner[:] = [name for name in inner if name[0] != "." and name not in _LEFT_OUT]
            if "pyvenv.cfg" in files:
                inner.clear()
                continue
            for name in files:
                if name.endswith(".py"):
                    path = os.path.join(place, name)
                    try:
                        known = os.stat(path)
                    except OSError:  # it was just removed
                        continue
                    found[path] = known.st_mtime_ns, known.st_size
    return found


def differences(before: State, after: State) -> list[str]:
    """Return the files that were changed, added or removed."""
    return sorted(path for path in before.keys() | after.keys() if before.get(path) != after.get(path))


class Changes:
    """Watches directories.

    Args:
        directories: the state that they have now is the one to begin with.
    """

    def __init__(self, directories: Sequence[str]) -> None:
        self._directories = directories
        self._known = look(directories)

    async def wait(self) -> list[str]:
        """Wait for a change, and until nothing more changes. Return the files, relative to the current directory."""
        now = self._known
        while True:
            await asyncio.sleep(INTERVAL)
            before, now = now, await asyncio.to_thread(look, self._directories)
            changed = differences(self._known, now)
            if changed and before == now:  # editors and version control write several files
                self._known = now
                return [os.path.relpath(path) for path in changed]
