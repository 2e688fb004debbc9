"""Starts each command: until its modules are loaded, Ctrl-C ends it quietly; a library that is missing is named.

It knows the names of the commands and nothing of what they do. It loads nothing that takes time to load.
:mod:`eda_tools.cli.signals` handles signals while a tool works.
"""

import atexit
import importlib
import os
import signal
import sys
from collections.abc import Callable
from types import TracebackType

from eda_tools.cli.status import INTERRUPTED


def begin() -> None:
    """Prepare the process for a command. A program that only uses parts of this package never calls it."""
    sys.excepthook = _explain
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # otherwise it is ignored, as in background jobs
        signal.signal(signal.SIGINT, lambda *_: os._exit(INTERRUPTED))
        # When the tool has ended, its status is decided: Ctrl-C must not change it while the interpreter ends.
        atexit.register(signal.signal, signal.SIGINT, signal.SIG_IGN)


def missing_library(error: BaseException) -> str:
    """What to tell about a library of the extra ``tools`` that is not installed; "" if ``error`` is something else."""
    name = (error.name or "").partition(".")[0] if isinstance(error, ModuleNotFoundError) else ""
    if not name or name.startswith("eda_") or name in sys.stdlib_module_names:
        return ""
    return f"{name} is not installed; this installs it: pip install 'eda-core[tools]'"


def _explain(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    text = missing_library(error)
    if text:  # pip installs the commands without the extra, too
        name = os.path.basename(sys.argv[0])
        sys.stderr.write(f"{'eda' if name == '__main__.py' else name}: {text}\n")
    else:
        sys.__excepthook__(kind, error, traceback)


def _command(name: str) -> Callable[[], int]:
    def command() -> int:
        begin()
        status: int = importlib.import_module(f"eda_tools.{name}").main()
        return status

    return command


# The commands that an installation makes (``pyproject.toml``).
eda: Callable[[], int] = _command("eda")
logger: Callable[[], int] = _command("logger")
monitor: Callable[[], int] = _command("monitor")
publish_event: Callable[[], int] = _command("publish_event")
publish_configuration: Callable[[], int] = _command("publish_configuration")
send_command: Callable[[], int] = _command("send_command")
inspect_queue: Callable[[], int] = _command("inspect_queue")
resurrect: Callable[[], int] = _command("resurrect")
