"""What pytest leaves in its temporary directory, by the options in ``pyproject.toml``."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]

#: A test that uses its directory before and after another session of the same user.
FIRST = """
import subprocess

def test_first(tmp_path):
    (tmp_path / "mine").write_text("x")
    subprocess.run({second!r}, check=True)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
"""
SECOND = """
def test_second(tmp_path):
    (tmp_path / "other").write_text("x")
"""
FAILING = """
def test_failing(tmp_path):
    (tmp_path / "evidence").write_text("x")
    assert False
"""


def command(file: Path) -> list[str]:
    options = ["-c", str(ROOT / "pyproject.toml"), "-p", "no:cacheprovider", "-p", "no:xdist", "-q"]
    return [sys.executable, "-m", "pytest", *options, str(file)]


def run(file: Path, root: Path) -> subprocess.CompletedProcess[str]:
    """A session whose temporary directories are below ``root``."""
    root.mkdir(exist_ok=True)
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    environment = {**inherited, "PYTEST_DEBUG_TEMPROOT": str(root)}
    return subprocess.run(command(file), env=environment, capture_output=True, text=True, check=False, timeout=60)


def left(root: Path, name: str) -> list[Path]:
    return [path for path in root.rglob(name) if not any(parent.is_symlink() for parent in path.parents)]


def test_a_session_that_ends_leaves_the_directories_of_one_that_runs(tmp_path: Path) -> None:
    first, second, root = tmp_path / "test_first.py", tmp_path / "test_second.py", tmp_path / "root"
    first.write_text(FIRST.format(second=command(second)))
    second.write_text(SECOND)
    done = run(first, root)
    assert done.returncode == 0, done.stdout
    assert left(root, "mine") == left(root, "other") == [], "what passed is removed"


def test_directories_of_failed_tests_stay_for_three_sessions(tmp_path: Path) -> None:
    """One can look at them, and disks do not fill up."""
    failing, root = tmp_path / "test_failing.py", tmp_path / "root"
    failing.write_text(FAILING)
    for expected in (1, 2, 3, 3):
        assert run(failing, root).returncode == 1
        assert len(left(root, "evidence")) == expected
