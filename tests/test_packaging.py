"""What the build description promises, checked against the tree. (That a wheel builds is not checked here.)"""

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
PROJECT = PYPROJECT["project"]
HATCH = PYPROJECT["tool"]["hatch"]
PACKAGES = [ROOT / name for name in HATCH["build"]["targets"]["wheel"]["packages"]]


def test_the_version_is_written_in_one_place() -> None:
    assert "version" not in PROJECT
    assert "version" in PROJECT["dynamic"]
    places = [
        path for package in PACKAGES for path in package.rglob("*.py") if "__version__ =" in path.read_text("utf-8")
    ]
    assert places == [ROOT / HATCH["version"]["path"]]
    assert re.search(r'^__version__ = "\d+\.\d+\.\d+[a-z0-9.]*"$', places[0].read_text("utf-8"), re.MULTILINE)


def test_the_core_needs_pamqp_and_cbor2_and_nothing_else() -> None:
    assert sorted(re.split(r"[<>=]", need)[0] for need in PROJECT["dependencies"]) == ["cbor2", "pamqp"]


@pytest.mark.parametrize("name", ["testing", "pika", "aio", "kombu", "tools"])
def test_the_extra_exists(name: str) -> None:
    assert PROJECT["optional-dependencies"][name]


def test_every_package_of_the_shelves_is_shipped_typed() -> None:
    """A new adapter is easily forgotten in ``packages``; py.typed is what makes its types count for users."""
    on_shelves = {path.parent for shelf in ("adapters", "tools") for path in (ROOT / shelf).glob("*/__init__.py")}
    assert on_shelves <= set(PACKAGES)
    assert all((package / "py.typed").is_file() for package in PACKAGES)


def test_no_package_takes_a_name_that_is_not_ours() -> None:
    assert all(package.name.startswith("eda_") for package in PACKAGES)
