"""What the service has done before is a test of its handlers.

``stock.cbor`` is a recording of ``eda monitor --record``; ``record.py`` writes ``stock.journal``.
"""

from __future__ import annotations

import sqlite3
import subprocess
import sysconfig
from collections.abc import Callable
from pathlib import Path

import pytest

from eda_core.testing.live import Bus, EmbeddedBrokerThread

from .stock import Stock


@pytest.mark.parametrize("recording", ["stock.cbor", "stock.journal"])
def test_the_stock_does_as_it_did(
    database: sqlite3.Connection, eda_replay: Callable[..., None], recording: str
) -> None:
    eda_replay(recording, lambda url: Stock(url, database))


EDA = str(Path(sysconfig.get_path("scripts")) / "eda")
RECORDING = str(Path(__file__).with_name("stock.cbor"))


def test_a_dry_run_shows_what_would_be_sent() -> None:
    told = subprocess.run([EDA, "replay", "--dry-run", RECORDING], check=True, stdout=subprocess.PIPE, text=True).stdout
    assert told.splitlines()[-1].split() == ["all", "4", "0", "0"], told


def test_the_recording_is_sent_to_a_broker(eda_broker: EmbeddedBrokerThread, eda_bus: Bus) -> None:
    command = [EDA, "replay", "--speed", "0", "--where", "kind == 'event'", eda_broker.url, RECORDING]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    assert eda_bus.expect_event("OrderPlaced").payload == eda_bus.expect_event("PensReserved").payload
    assert len(eda_bus.arrivals()) == 2
