"""The numbers of a machine on a bench, without those that are 0."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from eda_core.machine.metrics import HandlerMetrics, Metrics
from tests.core.kit import Bench

#: Numbers of what is open now, and of the links. The other ones are counts of messages.
STATE = ("in_flight", "running", "link_open", "ready", "connecting", "links_opened", "service", "handlers")


def metrics(bench: Bench) -> Metrics:
    return bench.machine.metrics(bench.now)


def counts(bench: Bench) -> dict[str, Any]:
    """The counts of messages that are not 0."""
    return {name: value for name, value in asdict(metrics(bench)).items() if value and name not in STATE}


def of_handlers(bench: Bench, name: str = "Happened") -> HandlerMetrics:
    return next(each for each in metrics(bench).handlers if each.name == name)
