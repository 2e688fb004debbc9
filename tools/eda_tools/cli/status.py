"""Exit statuses, which mean the same for all tools, and the exception that ends a tool with one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

DONE: Final = 0
FAILED: Final = 1
USAGE: Final = 2  # also: refused as unsafe
PARTLY: Final = 3
NO_CONNECTION: Final = 4  # also: refused credentials
ERROR_RESULT: Final = 5  # the command's result was an error
TIMED_OUT: Final = 124
INTERRUPTED: Final = 130

STATUSES: Final = (
    "Exit status: 0 done, 1 failed, 2 usage or refused as unsafe, 3 partly, 4 no connection or refused credentials, "
    "5 the command's result was an error, 124 time-out, 130 interrupted"
)


class ToolError(Exception):
    """Ends a tool.

    Args:
        text: one clear line without a final full stop. Passwords in URLs are removed when it is shown.
        status: the exit status.
    """

    def __init__(self, text: str, status: int = FAILED) -> None:
        super().__init__(text)
        self.status = status


@contextmanager
def naming_file(path: object) -> Iterator[None]:
    """In the block, an OSError becomes a :class:`ToolError` that names the file, by default ``path``."""
    try:
        yield
    except OSError as error:
        raise ToolError(f"{error.filename or path}: {error.strerror}") from None
