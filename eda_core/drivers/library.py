"""The client library below an adapter: whether the right one is installed, whether it has raised an error, and what
becomes of its logs and of our own.

This module knows no library: an adapter gives it the names.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterable, Mapping
from contextvars import ContextVar
from importlib import import_module
from typing import Any, Final

from eda_core.criticality import LOGGING_LEVELS

#: Python's ``logging.DEBUG``; the core does not import ``logging``.
_DEBUG: Final = 10

#: Whether the code that runs is the library's, at work for one of our links.
_at_work: ContextVar[bool] = ContextVar("eda_library_at_work", default=False)


def write_report(logger: Any, level: int, text: str, event: str) -> None:
    """Write a report of the machine to a logger of ``logging``, with the attribute ``eda_event`` (docs/log-events.rst).

    Args:
        level: a syslog severity, from 0 to 7.
    """
    logger.log(LOGGING_LEVELS[level], "%s", text, extra={"eda_event": event})


def require(package: str, extra: str, modules: Mapping[str, str]) -> None:
    """Check that the libraries are there that ``package`` needs.

    Args:
        package: one of ours.
        extra: the extra of eda-core that names the libraries.
        modules: for each library a module that has its ``__version__``, and the version that ``package`` was written
            for, as "1.4.2": later micro versions are accepted, other minor versions are not. "" accepts any version.

    Raises:
        ImportError: a library is missing or has another version. The text says what to do about it.
    """
    command = f"pip install 'eda-core[{extra}]'"
    for module, needed in modules.items():
        name = module.partition(".")[0]
        try:
            import_module(name)
            found = import_module(module)
        except ModuleNotFoundError as error:
            if not f"{module}.".startswith(f"{error.name}."):  # the library is there, and misses something itself
                raise
            raise ModuleNotFoundError(f"{package} needs {error.name}: {command}", name=error.name) from None
        if needed and not _fits(installed := found.__version__, needed):
            major, minor, _ = needed.split(".")
            raise ImportError(
                f"{package} needs {name} {major}.{minor}, from {needed} on, and {installed} is installed: {command}",
                name=name,
            )


def _fits(installed: str, needed: str) -> bool:
    have, want = ([int(number) for number in re.findall(r"\d+", text)[:3]] for text in (installed, needed))
    return have[:2] == want[:2] and have >= want


def misfit(installed: str, needed: str, used: Mapping[tuple[Any, str], str]) -> str:
    """Return why those parts of a library cannot be used that may change without notice; "" if they can be.

    Args:
        installed: the version of the library.
        needed: the version that the code was written for, see :func:`require`.
        used: the names of the parameters of each method that is used, with blanks between them. A method is given by a
            class and its name.
    """
    if not _fits(installed, needed):
        major, minor, _ = needed.split(".")
        return f"it is not {major}.{minor}, from {needed} on"
    for (owner, name), wanted in used.items():
        method = getattr(owner, name, None)
        if not callable(method):
            return f"{owner.__name__} has no method {name}"
        found = " ".join(inspect.signature(method).parameters)
        if found != wanted:
            return f"{owner.__name__}.{name} takes ({found}), and not ({wanted})"
    return ""


def raised_in(packages: Iterable[str], error: BaseException) -> bool:
    """Whether code of these packages, or of Python's library, raised the error.

    If not, user code has raised it: Python runs the handlers of signals within whatever waits, and some raise to end
    the wait (as Celery does with ``SoftTimeLimitExceeded``).
    """
    traceback = error.__traceback__
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    module = "" if traceback is None else str(traceback.tb_frame.f_globals.get("__name__"))
    return module.partition(".")[0] in {*packages, *sys.stdlib_module_names}


class library_at_work:
    """The code in the block, and in tasks that begin there, is the library's; or not, where it calls user code.

    It is no generator, because that would take twice the time, for each message.
    """

    __slots__ = ("_at_work", "_token")

    def __init__(self, at_work: bool = True) -> None:
        self._at_work = at_work

    def __enter__(self) -> None:
        self._token = _at_work.set(self._at_work)

    def __exit__(self, *error: object) -> None:
        _at_work.reset(self._token)


def quieten(loggers: Iterable[Any], own: Any) -> None:
    """Keep what a library logs about our links out of the user's log.

    The machine reports each lost link itself, in one line. Libraries add up to forty lines, tracebacks among them. Who
    sets the adapter's logger to DEBUG gets them, at that level, with the attribute ``eda_library``. What the library
    logs about other connections of the program is not touched.

    Args:
        loggers: the library's, of ``logging``.
        own: the adapter's.
    """

    def passes(record: Any) -> bool:
        if not _at_work.get():
            return True
        record.levelno, record.levelname = _DEBUG, "DEBUG"
        record.eda_library = True
        return bool(own.isEnabledFor(_DEBUG))

    for logger in loggers:
        logger.addFilter(passes)
