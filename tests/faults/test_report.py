"""What the results of scenarios look like on the page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.faults.report import BEGIN, END, read, replaced, tables

OUTCOME = {"lost": 0, "doubled": 2, "still": 1.25, "stuck": False, "again": 3, "links": 1, "lines_per_link": 1.5}
EMPTY: dict[str, Any] = {"poison": {}, "poison_alive": 0, "held": []}


def results(directory: Path, name: str, release: str, **outcome: Any) -> Path:
    path = directory / f"{name}-{release}.json"
    scenario = {"title": f"the {name}", "outcomes": {"pika": {**OUTCOME, **EMPTY, **outcome}}}
    machine = {"processors": 2, "memory": "8 GiB", "python": "3.13.1"}
    about = {
        "rabbitmq": release,
        "date": "2026-01-02",
        "machine": machine,
        "kinds": {"pika": "eda_pika", "aio": "eda_aio"},
    }
    path.write_text(json.dumps({**about, "scenarios": {name: scenario}}))
    return path


def test_a_row_for_each_scenario_and_a_column_for_each_kind(tmp_path: Path) -> None:
    text = tables(read([results(tmp_path, "cuts", "4.3.6"), results(tmp_path, "alarm", "4.3.6", links=0, stuck=True)]))
    assert "   * - the cuts\n     - 4.3.6\n     - 0, 2, 1.2\n     - –\n" in text
    assert "   * - the alarm\n     - 4.3.6\n     - 0, 2, 1.2!\n" in text
    assert "   * - the cuts\n     - 4.3.6\n     - 3, 1.5\n" in text, "handled again, and lines of log"
    assert text.count("the alarm") == 1, "no link was lost in it"
    assert "*Poison*" not in text
    assert "*Held" not in text


def test_poison_and_what_a_process_holds(tmp_path: Path) -> None:
    held = [{"descriptors": 9, "threads": 1, "tasks": 4, "memory": memory} for memory in (40_960, 42_000)]
    path = results(tmp_path, "chaos", "3.10.8", poison={"1": 2, "2": 18}, poison_alive=1, held=held)
    text = tables(read([path]))
    assert "     - 1 times: 2, 2 times: 18; not dead-lettered: 1\n" in text
    assert "     - 9, 1, 4, 40 → 9, 1, 4, 41\n" in text


def test_the_last_file_counts(tmp_path: Path) -> None:
    (scenario,) = read([results(tmp_path, "cuts", "3.10.8"), results(tmp_path, "cuts", "4.3.6")])
    assert scenario["rabbitmq"] == "4.3.6"


def test_a_scenario_that_failed_is_no_result(tmp_path: Path) -> None:
    path = results(tmp_path, "cuts", "4.3.6")
    found = json.loads(path.read_text())
    found["scenarios"]["cuts"]["error"] = "StageError: no\nmore"
    path.write_text(json.dumps(found))
    with pytest.raises(ValueError, match="cuts has failed: StageError: no"):
        read([path])


def test_only_what_is_between_the_marks_is_replaced() -> None:
    page = f"before\n{BEGIN}\nold\n{END}after\n"
    assert replaced(page, "new") == f"before\n{BEGIN}\nnew\n{END}after\n"
    with pytest.raises(ValueError, match="has not both marks"):
        replaced("before\nafter\n", "new")
