"""A simulation checks the invariants of the toolkit without being asked: it finds bugs that are planted in the core."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.core.testing.explorer.mutants import MUTANTS, Mutant
from tests.core.testing.explorer.test_planted_bugs import plant
from tests.support.services import TEST_TIMEOUT, environment

HUNT = Path(__file__).with_name("hunt.py")
KNOWN = {mutant.name: mutant for mutant in MUTANTS}


def hunt(name: str, directory: Path) -> subprocess.CompletedProcess[str]:
    """Run a test of ``hunt.py`` on the core in a directory."""
    env = environment()
    env |= {"PYTHONPATH": os.pathsep.join([str(directory), env["PYTHONPATH"]]), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, str(HUNT), name]
    return subprocess.run(command, cwd=directory, env=env, capture_output=True, text=True, timeout=TEST_TIMEOUT)


#: A bug, a test of ``hunt.py``, and what it says then.
FOUND = [
    ("acknowledged when the handler ends, not when its publishes are confirmed", "relay", "I1: relay 1 acknowledges"),
    ("acknowledged twice", "relay", "I2: relay 1 settles a delivery twice"),
    ("a refused publish is dropped", "relay, refused", "1 publishes that are not confirmed"),
    (
        "unconfirmed publishes from outside vanish with the link",
        "from outside, drops",
        "1 publishes that are not confirmed",
    ),
    ("one attempt too many", "poison", "I4: Come is tried again after 3 failed attempt(s)"),
    ("failures are not remembered", "poison", "I4: Come is tried again after 3 failed attempt(s)"),
    ("a poison message is acknowledged instead of dead-lettered", "poison", "Come is lost"),
    (
        "retry once goes by redelivered only",
        "poison, drops",
        "I4: Come becomes a dead letter after 2 failed attempt",
    ),
    ("the count of a message that was published again is not read", "counted", "I4: Come is tried again after 3"),
    ("the count of a message that was published again stands still", "delayed", "I4: Come is tried again after 3"),
    ("the source of a refused publish is never acknowledged", "relay, refused", "that are not acknowledged"),
]


@pytest.mark.parametrize(("bug", "name", "told"), FOUND, ids=[bug for bug, _, _ in FOUND])
def test_a_planted_bug_is_found(bug: str, name: str, told: str, tmp_path: Path) -> None:
    plant(KNOWN[bug], tmp_path)
    done = hunt(name, tmp_path)
    assert done.returncode == 1, done.stdout + done.stderr
    assert told in done.stdout.splitlines()[0], done.stdout


def test_an_input_that_raises_is_found(tmp_path: Path) -> None:
    before = "return attempt >= self.attempts"
    plant(
        Mutant("an input raises", "machine/policy", before, f"raise KeyError(attempt)  # {before}", "", "I6"), tmp_path
    )
    done = hunt("poison", tmp_path)
    assert (done.returncode, done.stdout.splitlines()[0]) == (1, "1"), done.stdout + done.stderr


ALL_FAULTS = ["relay, all faults", "poison, all faults", "counted, all faults", "delayed, all faults"]


@pytest.mark.parametrize("name", [*ALL_FAULTS, "from outside, all faults"])
def test_without_a_bug_nothing_is_found(name: str) -> None:
    done = hunt(name, Path(__file__).parents[4])
    assert done.returncode == 0, done.stdout + done.stderr
