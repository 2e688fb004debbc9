"""The check that each module of the core is covered by its own tests, on a package where that is and is not so."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from tests.support.core_coverage import ROOT, main, modules, own_tests

CHOICE = "def choose(flag):\n    if flag:\n        return 1\n    return 2\n"
JUMP = "def choose(flag):\n    if flag:\n        flag = 1\n    return flag\n"
BOTH = "def test_both():\n    assert [choose(True), choose(False)] == [1, 2]\n"
ONE = "def test_one():\n    assert choose(True) == 1\n"
RANDOM = (
    "from hypothesis import given, strategies as st\n\n"
    "@given(st.booleans())\ndef test_any(flag):\n    assert choose(flag) in (1, 2)\n"
)


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory of a package ``made`` and its ``tests``."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *sys.path]))
    for name in ("made", "made/room", "tests", "tests/room"):
        (tmp_path / name).mkdir()
    add(tmp_path, "__init__", "public = True\n")
    add(tmp_path, "room/__init__", "")
    add_test(tmp_path, "exports", "import made\n", "def test_exports():\n    assert made.public\n")
    return tmp_path


def add(made: Path, module: str, text: str) -> None:
    (made / f"made/{module}.py").write_text(text, encoding="utf-8")


def add_test(made: Path, module: str, *parts: str) -> None:
    room, slash, name = module.rpartition("/")
    (made / f"tests/{room}{slash}test_{name}.py").write_text("".join(parts), encoding="utf-8")


def using(module: str) -> str:
    return f"from made.{module.replace('/', '.')} import choose\n\n"


def check(made: Path, *wanted: str) -> int:
    return main(["--package", str(made / "made"), "--tests", str(made / "tests"), *wanted])


def test_each_module_has_to_be_covered_by_tests_of_its_own(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("whole", "half", "untested", "broken", "room/half", "room/untested"):
        add(made, name, CHOICE)
    add(made, "jump", JUMP)
    add_test(made, "whole", using("whole"), ONE)
    add_test(made, "whole_topic", "from made import half, untested\n", using("whole"), BOTH, "    half.choose(0)\n")
    add_test(made, "half", using("half"), "import made.room.half\n", ONE, "    made.room.half.choose(0)\n", RANDOM)
    add_test(made, "room/half", using("room/half"), ONE)
    add_test(made, "jump", using("jump"), ONE)
    add_test(made, "broken", using("broken"), BOTH, "    assert choose(0) == 3\n")
    assert check(made) == 1
    printed = capsys.readouterr().out
    failed = "broken, half, jump, room/half, room/untested, untested"
    assert printed.endswith(f"not covered by their own tests: {failed} (6 of 9 modules)\n")
    lines = [line.split() for line in printed.splitlines() if "/made/" in line and line.endswith(tuple("0123456789"))]
    missing = {line[0].partition("/made/")[2]: line[-1] for line in lines}
    assert missing["half.py"] == "4", "which another module's test covers, and perhaps a random one"
    assert missing["room/half.py"] == "4", "which the test of another module covers"
    assert missing["jump.py"] == "2->4", "a branch, though all lines were run"
    assert "half is not covered by its own tests: test_half.py" in printed
    assert "room/half is not covered by its own tests: test_half.py" in printed
    assert f"room/untested has no tests of its own: there is no {made / 'tests/room/test_untested.py'}" in printed
    assert f"untested has no tests of its own: there is no {made / 'tests/test_untested.py'}" in printed
    assert "assert 2 == 3" in printed
    assert "the own tests of broken do not pass" in printed


def test_all_is_well_if_they_are(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    add(made, "whole", CHOICE)
    add_test(made, "whole", using("whole"), BOTH)
    add(made, "room/whole", CHOICE)
    add_test(made, "room/whole", using("room/whole"), BOTH)
    assert check(made) == 0
    assert capsys.readouterr().out == "4 modules are covered in every branch, each by its own tests\n"


def test_a_room_stands_for_its_modules(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    add(made, "half", CHOICE)
    for name in ("room/whole", "room/__main__"):
        add(made, name, CHOICE)
    add_test(made, "room/whole", using("room/whole"), BOTH)
    add_test(made, "room/main", using("room/__main__"), BOTH)
    assert check(made, "room") == 0
    assert capsys.readouterr().out == "3 modules are covered in every branch, each by its own tests\n"


def test_the_exports_of_a_room_are_tested_with_its_own_or_with_those_of_the_package(
    made: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    add(made, "room/__init__", "public = 2\n")
    assert check(made, "__init__", "room/__init__") == 1
    assert "room/__init__ is not covered by its own tests: test_exports.py" in capsys.readouterr().out
    add_test(made, "room/exports", "from made.room import public\n\ndef test_it():\n    assert public == 2\n")
    assert check(made, "__init__", "room/__init__") == 0


def test_the_room_of_the_testing_tools_is_left_out(made: Path) -> None:
    (made / "made/testing").mkdir()
    add(made, "testing/untested", CHOICE)
    assert modules(made / "made") == ["__init__", "room/__init__"]


def test_what_is_no_module_is_said(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        check(made, "half")
    assert ended.value.code == 2
    assert "has no module half; it has __init__, room/__init__" in capsys.readouterr().err


def test_a_test_file_is_of_the_module_with_the_longest_name_that_fits(made: Path) -> None:
    for name in ("link", "link_table", "room/link"):
        add(made, name, "")
    for name in ("link", "link_up", "link_table", "link_table_cells", "linking", "room/link", "room/link_table"):
        add_test(made, name)
    found = {
        module: [str(path.relative_to(made / "tests")) for path in own_tests(module, made / "made", made / "tests")]
        for module in modules(made / "made")
    }
    assert found == {
        "__init__": ["test_exports.py"],
        "link": ["test_link.py", "test_link_up.py"],
        "link_table": ["test_link_table.py", "test_link_table_cells.py"],
        "room/__init__": ["test_exports.py"],
        "room/link": ["room/test_link.py", "room/test_link_table.py"],
    }


def test_every_test_file_of_the_core_is_of_a_module_or_of_them_all() -> None:
    """One that is misnamed would not count."""
    package, tests = ROOT / "eda_core", ROOT / "tests" / "core"
    owned = {path for module in modules(package) for path in own_tests(module, package, tests)}
    found = {path for path in tests.rglob("test_*.py") if tests / "testing" not in path.parents}
    assert found - owned == {tests / "test_purity.py"}
