"""The file to which workers append their spans."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from eda_aio import Service
from eda_tools.cli.status import USAGE, ToolError
from eda_tools.running.spans import check_file, trace_into


def service() -> Service:
    return Service("amqp://one/", [], [], "svc")


def test_a_file_is_made_and_keeps_what_is_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert check_file("spans") == str(tmp_path / "spans")
    (tmp_path / "spans").write_text("kept")
    check_file("spans")
    assert (tmp_path / "spans").read_text() == "kept"


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    file = str(tmp_path / "nowhere" / "spans")
    for attempt in (lambda: check_file(file), lambda: trace_into(file, "Service", service())):
        with pytest.raises(ToolError, match="nowhere/spans cannot be written: No such file") as caught:
            attempt()
        assert caught.value.status == USAGE


def test_without_the_library_for_traces_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [each for each in sys.modules if each.startswith("eda_otel")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "opentelemetry.trace", None)
    file = str(tmp_path / "spans")
    for attempt in (lambda: check_file(file), lambda: trace_into(file, "Service", service())):
        with pytest.raises(ToolError, match=r"eda_otel needs opentelemetry.*pip install 'eda-core\[otel\]'") as caught:
            attempt()
        assert caught.value.status == USAGE
