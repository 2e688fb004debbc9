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
    for name in ("made", "tests"):
        (tmp_path / name).mkdir()
    (tmp_path / "made/__init__.py").touch()
    add_test(tmp_path, "exports", "import made\n", "def test_nothing():\n    assert made\n")
    return tmp_path


def add(made: Path, name: str, text: str) -> None:
    (made / f"made/{name}.py").write_text(text, encoding="utf-8")


def add_test(made: Path, name: str, *parts: str) -> None:
    (made / f"tests/test_{name}.py").write_text("".join(parts), encoding="utf-8")


def using(name: str) -> str:
    return f"from made.{name} import choose\n\n"


def check(made: Path, *wanted: str) -> int:
    return main(["--package", str(made / "made"), "--tests", str(made / "tests"), *wanted])


def test_each_module_has_to_be_covered_by_tests_of_its_own(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("whole", "half", "untested", "broken"):
        add(made, name, CHOICE)
    add(made, "jump", JUMP)
    add_test(made, "whole", using("whole"), ONE)
    add_test(made, "whole_topic", "from made import half, untested\n", using("whole"), BOTH, "    half.choose(0)\n")
    add_test(made, "half", using("half"), ONE, RANDOM)
    add_test(made, "jump", using("jump"), ONE)
    add_test(made, "broken", using("broken"), BOTH, "    assert choose(0) == 3\n")
    assert check(made) == 1
    printed = capsys.readouterr().out
    assert printed.endswith("not covered by their own tests: broken, half, jump, untested (4 of 6 modules)\n")
    missing = {line.split("/")[-1].split()[0]: line.split()[-1] for line in printed.splitlines() if "/made/" in line}
    assert missing["half.py"] == "4", "which another module's test covers, and perhaps a random one"
    assert missing["jump.py"] == "2->4", "a branch, though all lines were run"
    assert "half is not covered by its own tests: test_half.py" in printed
    assert f"untested has no tests of its own: there is no {made / 'tests/test_untested.py'}" in printed
    assert "assert 2 == 3" in printed
    assert "the own tests of broken do not pass" in printed


def test_all_is_well_if_they_are(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    add(made, "whole", CHOICE)
    add_test(made, "whole", using("whole"), BOTH)
    assert check(made) == 0
    assert capsys.readouterr().out == "2 modules are covered in every branch, each by its own tests\n"


def test_what_is_no_module_is_said(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        check(made, "half")
    assert ended.value.code == 2
    assert "has no module half; it has __init__" in capsys.readouterr().err


def test_a_test_file_is_of_the_module_with_the_longest_name_that_fits(made: Path) -> None:
    for name in ("link", "link_table"):
        add(made, name, "")
    for name in ("link", "link_up", "link_table", "link_table_cells", "linking"):
        add_test(made, name)
    found = {
        module: [path.name for path in own_tests(module, made / "made", made / "tests")]
        for module in modules(made / "made")
    }
    assert found == {
        "__init__": ["test_exports.py"],
        "link": ["test_link.py", "test_link_up.py"],
        "link_table": ["test_link_table.py", "test_link_table_cells.py"],
    }


def test_every_test_file_of_the_core_is_of_a_module_or_of_them_all() -> None:
    """One that is misnamed would not count."""
    package, tests = ROOT / "eda_core", ROOT / "tests" / "core"
    owned = {path for module in modules(package) for path in own_tests(module, package, tests)}
    assert set(tests.glob("test_*.py")) - owned == {tests / "test_purity.py"}
