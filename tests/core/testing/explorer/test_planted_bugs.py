"""The explorer finds each planted bug, in the scenario that is there for it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from eda_core.testing.explorer.scenarios import SCENARIOS
from tests.core.testing.explorer.mutants import MUTANTS, Mutant

CORE = Path(__file__).parents[4] / "eda_core"
HUNT = Path(__file__).with_name("hunt.py")
#: Seconds. The slowest hunt takes a tenth of it on an idle machine.
TIMEOUT = 120


def plant(mutant: Mutant, directory: Path) -> None:
    """Copy the core with the bug in it."""
    copy = directory / "eda_core"
    shutil.copytree(CORE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    source = copy / f"{mutant.module}.py"
    text = source.read_text(encoding="utf-8")
    if text.count(mutant.before) != 1:
        pytest.fail(
            f"the planted bug {mutant.name!r} does not fit any more: eda_core/{mutant.module}.py holds "
            f"{text.count(mutant.before)} times, instead of once,\n{mutant.before}\n(see mutants.py)",
            pytrace=False,
        )
    source.write_text(text.replace(mutant.before, mutant.after), encoding="utf-8")


def hunt(scenario: str, directory: Path) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": str(directory), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, str(HUNT), scenario]
    return subprocess.run(command, cwd=directory, env=env, capture_output=True, text=True, timeout=TIMEOUT, check=False)


@pytest.mark.parametrize("mutant", MUTANTS, ids=[mutant.name for mutant in MUTANTS])
def test_a_planted_bug_is_found(mutant: Mutant, tmp_path: Path) -> None:
    plant(mutant, tmp_path)
    found = hunt(mutant.scenario, tmp_path)
    assert found.returncode == 1, f"test_scenario[{mutant.scenario}] does not notice it: {found.stdout}{found.stderr}"
    assert found.stdout.splitlines()[:1] == [mutant.rule], found.stdout + found.stderr


def test_without_a_bug_nothing_is_found(tmp_path: Path) -> None:
    """The same hunt on an unchanged copy. (``test_explorer.py`` explores every scenario so.)"""
    shutil.copytree(CORE, tmp_path / "eda_core", ignore=shutil.ignore_patterns("__pycache__"))
    found = hunt("poison", tmp_path)
    assert found.returncode == 0, found.stdout + found.stderr


def test_a_bug_that_does_not_fit_is_reported(tmp_path: Path) -> None:
    with pytest.raises(pytest.fail.Exception, match="does not fit any more"):
        plant(Mutant("odd", "machine/link", "no such line", "", "plain relay", "I1"), tmp_path)


def test_the_table_names_tests_that_exist() -> None:
    assert {mutant.scenario for mutant in MUTANTS} <= {scenario.name for scenario in SCENARIOS}
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS) >= 12
