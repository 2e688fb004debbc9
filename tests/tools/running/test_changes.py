"""Which Python files have changed."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from eda_tools.running import changes
from eda_tools.running.changes import Changes, differences, look
from tests.support.services import asynchronous, within


def write(path: Path, text: str = "") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_python_files_are_looked_at_and_what_is_no_source_is_left_out(tmp_path: Path) -> None:
    seen = ["a.py", "src/shop/b.py"]
    for name in (*seen, "a.txt", ".git/c.py", "__pycache__/d.py", "node_modules/e.py", "env/f.py", "env/pyvenv.cfg"):
        write(tmp_path / name)
    os.symlink(tmp_path / "nowhere", tmp_path / "gone.py")
    assert [os.path.relpath(path, tmp_path) for path in look([str(tmp_path)])] == seen


def test_what_is_changed_added_or_removed_is_told(tmp_path: Path) -> None:
    for name in "abc":
        write(tmp_path / f"{name}.py", "1")
    before = look([str(tmp_path)])
    assert differences(before, look([str(tmp_path)])) == []
    write(tmp_path / "a.py", "12")
    (tmp_path / "b.py").unlink()
    write(tmp_path / "d.py")
    os.utime(tmp_path / "c.py", ns=(0, 0))
    names = [Path(path).name for path in differences(before, look([str(tmp_path)]))]
    assert names == ["a.py", "b.py", "c.py", "d.py"]


@asynchronous
async def test_a_change_is_told_once_when_nothing_more_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changes, "INTERVAL", 0.0)
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "a.py")
    watched = Changes(["."])
    looks, usual = 0, changes.look

    def look(directories: list[str]) -> changes.State:
        nonlocal looks
        looks += 1
        if looks == 3:
            write(tmp_path / "a.py", "1")
        if looks == 4:
            write(tmp_path / "b.py")
        return usual(directories)

    monkeypatch.setattr(changes, "look", look)
    assert await within(watched.wait(), "a change") == ["a.py", "b.py"]
    assert looks == 5
    waiting = asyncio.create_task(watched.wait())
    write(tmp_path / "b.py", "2")
    assert await within(waiting, "another change") == ["b.py"]
