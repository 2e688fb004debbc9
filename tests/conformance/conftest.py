"""Prints the results of the conformance checks as a table."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

#: Seconds and result by check, adapter and broker.
RESULTS: dict[tuple[str, str, str], tuple[str, float]] = {}


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """Note the result of a check."""
    began, outcome = time.monotonic(), "FAILED"
    try:
        yield
        outcome = "ok"
    finally:
        key = getattr(item, "callspec", None)
        if key is not None and {"check", "adapter", "broker"} <= key.params.keys():
            names = str(key.params["check"]), str(key.params["adapter"]), str(key.params["broker"])
            RESULTS[names] = outcome, time.monotonic() - began


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the table: check by adapter and broker, in seconds."""
    if not RESULTS:
        return
    columns = list(dict.fromkeys((adapter, broker) for _, adapter, broker in RESULTS))
    terminalreporter.section("conformance")
    width = max(len(check) for check, _, _ in RESULTS)
    terminalreporter.write_line(" " * width + "".join(f"{'/'.join(column):>20}" for column in columns))
    for check in dict.fromkeys(check for check, _, _ in RESULTS):
        cells = [RESULTS.get((check, *column)) for column in columns]
        texts = ("-" if cell is None else f"{cell[0]} {cell[1]:.1f}" for cell in cells)
        terminalreporter.write_line(f"{check:<{width}}" + "".join(f"{text:>20}" for text in texts))
