"""The node of RabbitMQ that our own tests run on: the package's, of any release that this machine has or can have.

The environment variable EDA_RABBITMQ chooses the server: a release (``4.3``), or the directory of its programs. By
default it is what is installed.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from eda_core.testing.live import rabbitmq as live
from eda_core.testing.live.rabbitmq import SERVER_DIRECTORIES, RabbitNodeError, free_port, version_of
from tests.support.rabbitmq_releases import SUITES, programs

__all__ = ["RabbitNode", "RabbitNodeError", "find_server", "free_port", "version_of"]


def find_server(choice: str | None = None) -> Path | None:
    """The ``rabbitmq-server`` script to run, or None where RabbitMQ is not installed.

    Args:
        choice: a release or the directory of its programs; by default what EDA_RABBITMQ says.

    Raises:
        RabbitNodeError: another release is installed than the chosen one.
        ReleaseError: the chosen release is to be prepared first.
    """
    chosen = choice or os.environ.get("EDA_RABBITMQ", "")
    if chosen in SUITES:
        return programs(chosen) / "rabbitmq-server"
    release = re.fullmatch(r"\d+\.\d+", chosen)
    for directory in SERVER_DIRECTORIES if release or not chosen else (chosen,):
        script = Path(directory, "rabbitmq-server")
        if os.access(script, os.X_OK):
            if release and _text(installed := version_of(script), 2) != chosen:
                raise RabbitNodeError(f"RabbitMQ {chosen} is asked for, and {_text(installed)} is installed")
            return script
    return None


def _text(version: tuple[int, ...], parts: int = 3) -> str:
    return ".".join(map(str, version[:parts]))


class RabbitNode(live.RabbitNode):
    """The same, of the server that :func:`find_server` of this module finds by default."""

    def __init__(
        self, server: Path | None = None, *, management: bool = False, peer: live.RabbitNode | None = None
    ) -> None:
        super().__init__(server or find_server(), management=management, peer=peer)
