"""Whether each module of the core is covered, in every branch, by its own tests (``nox -s coverage``).

The own tests of ``eda_core/<room>/<module>.py`` are ``tests/core/<room>/test_<module>.py`` and
``test_<module>_<topic>.py``. They run in a process of their own, two processes at a time. Tests that draw at random are
left out, because a branch that they cover now they may miss the next time. So is the room ``testing``: its modules are
tested together, and by the differential tests.
"""

from __future__ import annotations

import argparse
import io
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import coverage
import pytest

ROOT: Final = Path(__file__).parents[2]
#: Modules whose test files have another name. ``__init__`` and ``_version`` only list what is public.
_TESTED_AS: Final = {"__init__": "exports", "_version": "exports", "__main__": "main"}
_LEFT_OUT: Final = "testing"
#: What the project leaves out by default, and what draws at random.
_SELECTION: Final = "not hypothesis and not deep and not interop and not clients"


def modules(package: Path) -> list[str]:
    """The modules of a package and its rooms, as ``module`` and ``room/module``."""
    found = [path.relative_to(package).with_suffix("") for path in package.rglob("*.py")]
    return sorted(path.as_posix() for path in found if path.parts[0] != _LEFT_OUT)


def own_tests(module: str, package: Path, tests: Path) -> list[Path]:
    """The test files of a module. ``test_link_table.py`` is of ``link``, unless its room has a module ``link_table``.

    What a room exports may be tested with what the whole package does.
    """
    room, _, own = module.rpartition("/")
    name = _TESTED_AS.get(own, own)
    home = tests / room
    if name == "exports" and not (home / "test_exports.py").is_file():
        home = tests
    longer = tuple(f"test_{path.stem}" for path in (package / room).glob(f"{name}_*.py"))
    found = [home / f"test_{name}.py", *sorted(home.glob(f"test_{name}_*.py"))]
    return [path for path in found if path.is_file() and not (longer and path.stem.startswith(longer))]


def measure(module: str, package: Path, tests: Path) -> str:
    """Run the own tests of a module in this process, which must not have imported it.

    Returns:
        What is wrong, empty if every branch is covered.
    """
    source = package / f"{module}.py"
    if not source.read_text("utf-8").strip():
        return ""
    files = own_tests(module, package, tests)
    if not files:
        own = tests / f"{module}.py"
        name = _TESTED_AS.get(own.stem, own.stem)
        return f"{module} has no tests of its own: there is no {own.with_name(f'test_{name}.py')}"
    meter = coverage.Coverage(data_file=None, branch=True, source_pkgs=[], include=[str(source)])
    with meter.collect():
        status = pytest.main(["-q", "-p", "no:cacheprovider", "-m", _SELECTION, *map(str, files)])
    if status:
        return f"the own tests of {module} do not pass"
    report = io.StringIO()
    try:
        percent = meter.report([str(source)], show_missing=True, skip_covered=False, file=report)
    except coverage.exceptions.NoDataError:
        percent = 0.0
    if percent == 100.0:
        return ""
    return f"{report.getvalue()}\n{module} is not covered by its own tests: {', '.join(path.name for path in files)}"


def _alone(module: str, package: Path, tests: Path) -> tuple[bool, str]:
    """Measure a module in a process of its own: whether it is covered, and all that was printed."""
    options = ["--package", str(package), "--tests", str(tests)]
    command = [sys.executable, "-m", "tests.support.core_coverage", *options, module]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return done.returncode == 0, done.stdout + done.stderr


def main(arguments: Sequence[str] | None = None) -> int:
    """The command. Status 0: all are covered; 1: some are not, and which, and the lines; 2: usage."""
    parser = argparse.ArgumentParser(prog="core_coverage", description="Is each module covered by its own tests?")
    parser.add_argument("modules", nargs="*", metavar="MODULE", help="room/module, module, or a room; by default all")
    parser.add_argument("--package", type=Path, default=ROOT / "eda_core", help="a directory")
    parser.add_argument("--tests", type=Path, default=ROOT / "tests" / "core", help="a directory")
    options = parser.parse_args(arguments)
    package, tests = options.package.resolve(), options.tests.resolve()
    known = modules(package)
    wanted: list[str] = []
    for name in options.modules:
        found = [each for each in known if each == name] or [each for each in known if each.startswith(f"{name}/")]
        if not found:
            parser.error(f"{package} has no module {name}; it has {', '.join(known)}")
        wanted += found
    wanted = wanted or known
    if len(wanted) == 1:
        wrong = measure(wanted[0], package, tests)
        print(wrong or f"{wanted[0]} is covered in every branch by its own tests")
        return 1 if wrong else 0
    failed = []
    with ThreadPoolExecutor(2) as pool:
        runs = [(module, pool.submit(_alone, module, package, tests)) for module in wanted]
        for module, run in runs:
            covered, printed = run.result()
            if not covered:
                failed.append(module)
                print(printed)
    if failed:
        print(f"not covered by their own tests: {', '.join(failed)} ({len(failed)} of {len(wanted)} modules)")
    else:
        print(f"{len(wanted)} modules are covered in every branch, each by its own tests")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
