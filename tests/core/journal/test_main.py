"""The command that replays and shows a journal."""

from __future__ import annotations

import runpy
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from eda_core.journal.__main__ import main
from tests.core.journal.journals import DAMAGES, a_life, changed, write


def test_the_command_replays_a_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As ``python -m eda_core.journal`` does it, which runs the module anew."""
    lines: list[str] = []
    a_life(lines)
    monkeypatch.setattr(sys, "argv", ["journal", "replay", write(tmp_path / "j", lines)])
    monkeypatch.delitem(sys.modules, "eda_core.journal.__main__")
    with pytest.raises(SystemExit) as ended:
        runpy.run_module("eda_core.journal", run_name="__main__", alter_sys=True)
    assert ended.value.code == 0
    assert f"replayed {len(lines) - 1} inputs" in capsys.readouterr().out


def test_show_prints_each_input(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines: list[str] = []
    a_life(lines)
    assert main(["show", write(tmp_path / "j", lines)]) == 0
    out = capsys.readouterr().out
    assert "\n2: start(now=0.5) -> [Connect(epoch=1, url='amqp://user:***@host/')]\n" in f"\n{out}"
    assert "Basic.Properties(content_type='application/cbor', headers={'conversation_id': 'c'}" in out
    assert "publish(<Command other.Do c>, 2.0, within=" in out
    assert " object at " not in out.replace("<object object at ", "")


def test_other_effects_are_pointed_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines: list[str] = []
    a_life(lines)
    lines[1] = changed(lines[1], effects=[])
    assert main(["replay", write(tmp_path / "j", lines)]) == 1
    assert "line 2: start gave other effects" in capsys.readouterr().err
    lines[1] = changed(lines[1], arguments=["a", "b", "c"])
    assert main(["replay", write(tmp_path / "j", lines)]) == 1
    assert 'replayed: "TypeError"' in capsys.readouterr().err


@pytest.mark.parametrize(("damage", "reason"), DAMAGES)
def test_a_damaged_journal_is_refused_with_the_line(
    damage: Callable[[list[str]], list[str]], reason: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines: list[str] = []
    a_life(lines)
    assert main(["replay", write(tmp_path / "j", damage(lines))]) == 2
    assert reason in capsys.readouterr().err


def test_of_a_journal_that_was_cut_the_rest_is_replayed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines: list[str] = []
    a_life(lines)
    lines[-1] = lines[-1][:-9]
    assert main(["replay", write(tmp_path / "j", lines)]) == 2
    told = capsys.readouterr()
    assert f"j: line {len(lines)} is not JSON" in told.err
    assert f"replayed {len(lines) - 2} inputs" in told.out


@pytest.mark.parametrize(("arguments", "status"), [([], 2), (["repeat", "x"], 2), (["--help"], 0)])
def test_the_usage_is_told(arguments: list[str], status: int, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == status
    told = capsys.readouterr()
    assert "usage: python -m eda_core.journal" in (told.err if status else told.out)


def test_a_missing_file_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["replay", "/nonexistent"]) == 2
    assert "/nonexistent: " in capsys.readouterr().err
