"""The database of a test."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing

import pytest


@pytest.fixture
def database() -> Iterator[sqlite3.Connection]:
    """An empty database in memory. Ask for it before ``eda_service``, which is then stopped first."""
    from .stock import new_database

    with closing(new_database()) as database:
        yield database
