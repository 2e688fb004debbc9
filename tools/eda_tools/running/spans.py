"""The file to which workers append their spans (``eda run --traces``), and what is told if that is not possible."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from eda_core.services import ServiceApi
from eda_tools.cli.status import USAGE, ToolError


def check_file(file: str) -> str:
    """Return the absolute path of a file to which spans can be written.

    Raises:
        ToolError: they cannot. The text says why.
    """
    with _told(file):
        from eda_otel.files import FileExporter

        FileExporter(file).shutdown()
    return os.path.abspath(file)


def trace_into(file: str, worker: str, service: ServiceApi[Any]) -> None:
    """Let a service be traced, and append its spans to a file.

    Args:
        worker: the name of the worker in its spans.

    Raises:
        ToolError: this is not possible. The text says why.
    """
    with _told(file):
        from eda_otel.files import write_spans

        write_spans(service, file, worker)


@contextmanager
def _told(file: str) -> Iterator[None]:
    try:
        yield
    except ModuleNotFoundError as error:
        raise ToolError(str(error), USAGE) from None
    except OSError as error:
        raise ToolError(f"{file} cannot be written: {error.strerror}", USAGE) from None
