"""Record what the service does: ``python -m project.record FILE``."""

from __future__ import annotations

import sys
from contextlib import closing
from pathlib import Path

from eda_core.testing.live import Bus, EmbeddedBrokerThread, ServiceRunner

from .stock import Stock, new_database


def record(path: Path) -> None:
    """Run the service on an order and a question, and write its journal."""
    with (
        closing(new_database()) as database,
        EmbeddedBrokerThread() as broker,
        Bus(broker.url) as bus,
        path.open("w") as file,
    ):
        stock = Stock(broker.url, database)
        stock.keep_journal(lambda line: print(line, file=file))
        runner = ServiceRunner()
        runner(stock)
        bus.publish_event("OrderPlaced", {"order": 7, "pens": 3})
        bus.expect_event("PensReserved")
        bus.call("stock.Look", {"order": 7, "pens": 0})
        runner.stop()


if __name__ == "__main__":
    record(Path(sys.argv[1]))
