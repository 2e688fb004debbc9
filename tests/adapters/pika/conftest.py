"""The two ways in which messages are read and written."""

from __future__ import annotations

import pytest

import eda_pika


@pytest.fixture(params=[False, True], ids=["direct", "pika only"])
def either_way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs a test twice: with messages that the core reads and writes, and with all by pika."""
    monkeypatch.setattr(eda_pika.Service, "PIKA_ONLY", request.param)
