"""The clients of Node, where ``npm`` has installed them: nox -s clients."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture
def node_modules(tmp_path: Path) -> Path:
    """A directory in which programs of Node find their packages."""
    (tmp_path / "node_modules").symlink_to(os.environ["EDA_NODE_MODULES"])
    return tmp_path
