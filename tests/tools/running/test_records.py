"""What a worker tells its supervisor."""

from __future__ import annotations

import os
import threading

import pytest

from eda_tools.running import records


def test_a_record_is_read_as_it_was_written(capfd: pytest.CaptureFixture[str]) -> None:
    records.write(records.LOG, {"message": "é\n\x1e", "odd": {1}})
    line = capfd.readouterr().err
    assert line.count("\n") == 1
    assert records.read(line) == (records.LOG, {"message": "é\n\x1e", "odd": "{1}"})


def test_a_long_record_is_written_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    before = os.dup(2)
    os.dup2(writing, 2)
    parts: list[bytes] = []
    reader = threading.Thread(target=lambda: parts.extend(iter(lambda: os.read(reading, 1 << 16), b"")))
    reader.start()
    try:
        records.write(records.LOG, {"message": "x" * 500_000})
    finally:
        os.dup2(before, 2)
        os.close(writing)
        reader.join()
        os.close(before)
        os.close(reading)
    assert records.read(b"".join(parts).decode()) == (records.LOG, {"message": "x" * 500_000})


@pytest.mark.parametrize(
    "line", ["", "text", '["log", {}]', "\x1e", "\x1e{", '\x1e["log"]', '\x1e["x", {}]', "\x1e[1, 2]"]
)
def test_other_lines_are_no_records(line: str) -> None:
    assert records.read(line) is None


def test_lines_are_put_together_and_long_ones_are_split() -> None:
    lines = records.Lines(longest=4)
    assert lines.add(b"on") == []
    assert lines.add(b"e\r\ntwo\n\nthr") == ["one", "two", ""]
    assert lines.add(b"ee and more") == ["thre", "e an", "d mo"]
    assert lines.end() == ["re"]
    assert lines.end() == []
    assert lines.add(b"\xff\n") == ["�"]
