"""The dashboard and the alerts ask for metrics that there are, with labels that these have."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from eda_core import HANDLER_BOUNDS, METERS, HandlerMetrics, Metrics
from eda_prometheus.collector import families

MONITORING = Path(__file__).parents[2] / "examples" / "monitoring"
DASHBOARD: dict[str, Any] = json.loads((MONITORING / "grafana.json").read_text("utf-8"))
ALERTS = (MONITORING / "alerts.yml").read_text("utf-8")
PAGE = (MONITORING.parents[1] / "docs" / "howto" / "metrics.rst").read_text("utf-8")
#: Labels that Prometheus adds.
_ADDED = {"instance", "job"}


def exported() -> dict[str, set[str]]:
    """The names of all samples, with the labels of each."""
    numbers: dict[str, Any] = {meter.attribute: 1 for meter in METERS}
    handlers = HandlerMetrics("event", "Happened", (1,) * (len(HANDLER_BOUNDS) + 1), 1.0, 0, 0)
    made = families("svc", Metrics(service="svc", handlers=(handlers,), **numbers))
    return {sample.name: {*sample.labels} for family in made for sample in family.samples}


def queries() -> Iterator[str]:
    for panel in DASHBOARD["panels"]:
        yield from (target["expr"] for target in panel["targets"])
    yield from (each["definition"] for each in DASHBOARD["templating"]["list"] if each["type"] == "query")
    yield from re.findall(r"^ +expr: (.+)$", ALERTS, re.MULTILINE)
    table = PAGE.partition("What to look at\n")[2].partition("How many messages wait")[0]
    yield from (" ".join(each.split()) for each in re.findall(r"``([^`]*eda_[^`]*)``", table))


@pytest.mark.parametrize("query", [*queries()])
def test_a_query_asks_for_what_there_is(query: str) -> None:
    known = exported()
    names = re.findall(r"\beda_[a-z_]+", query)
    assert names
    assert set(names) <= known.keys()
    grouped = {label.strip() for labels in re.findall(r"by \(([^)]*)\)", query) for label in labels.split(",")}
    grouped |= set(re.findall(r"\{(\w+)[=!~]", query))
    for name in names:
        assert grouped <= known[name] | _ADDED


@pytest.mark.parametrize("query", [*queries()])
def test_a_rate_is_of_a_counter_and_nothing_else_is(query: str) -> None:
    for function, name in re.findall(r"(\w*)\((eda_[a-z_]+)", query):
        is_counter = name.endswith(("_total", "_bucket", "_sum", "_count"))
        assert (function in ("rate", "increase")) == is_counter, (function, name)


@pytest.mark.parametrize("panel", DASHBOARD["panels"], ids=lambda panel: str(panel["title"]))
def test_a_panel_is_complete(panel: dict[str, Any]) -> None:
    assert panel.keys() >= {"id", "type", "title", "datasource", "gridPos", "fieldConfig", "options", "targets"}
    assert panel["type"] in ("stat", "timeseries")
    assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
    assert panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24
    letters = [target["refId"] for target in panel["targets"]]
    assert len(set(letters)) == len(letters) > 0
    for target in panel["targets"]:
        assert target["datasource"] == panel["datasource"]
        shown = set(re.findall(r"{{(\w+)}}", target["legendFormat"]))
        grouped = re.findall(r"by \(([^)]*)\)", target["expr"])
        assert shown <= {label.strip() for labels in grouped for label in labels.split(",")}


def test_panels_have_numbers_and_places_of_their_own() -> None:
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    for one, other in combinations((panel["gridPos"] for panel in panels), 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        below = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert beside or below


def test_every_variable_is_defined() -> None:
    text = json.dumps(DASHBOARD["panels"])
    used = set(re.findall(r"\$\{?([a-z]\w*)", text))
    assert used == {each["name"] for each in DASHBOARD["templating"]["list"]}


def test_the_dashboard_shows_most_of_what_is_counted() -> None:
    shown = {name for query in queries() for name in re.findall(r"\beda_[a-z_]+", query)}
    missing = exported().keys() - shown
    assert missing == {"eda_delivery_failures_total", "eda_links_opened_total"}, "others tell the same"


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed: apt-get install -y prometheus")
def test_prometheus_reads_the_alerts() -> None:
    done = subprocess.run(
        ["promtool", "check", "rules", MONITORING / "alerts.yml"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "6 rules found" in done.stdout
