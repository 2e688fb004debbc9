"""Tools whose libraries are not installed. pip installs the commands also without the extra."""

from __future__ import annotations

from pathlib import Path

import pytest

from eda_tools.cli import status as cli
from eda_tools.cli.catalogue import TOOLS
from eda_tools.cli.start import missing_library
from tests.tools.cli.test_signals import alone, script

#: What the extra brings, and what that brings.
LIBRARIES = ("aiormq", "rich", "shtab", "yarl")
#: Arguments with which each tool loads all that it needs.
ARGUMENTS = {
    "publish_event": "Done --data 1",
    "publish_configuration": "Settings --data 1",
    "send_command": "a.Do --data 1",
    "inspect_queue": "q",
    "resurrect": "q",
    "trace": "conversation",
    "unbind": "a Old",
}
URL = "amqp://guest:guest@127.0.0.1:1/"


@pytest.fixture(params=LIBRARIES)
def without(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, Path]:
    """A library, and a directory that hides it from a program that has the directory first on its path."""
    library: str = request.param
    (tmp_path / f"{library}.py").write_text("raise ModuleNotFoundError(f'No module named {__name__!r}', name=__name__)")
    return library, tmp_path


@pytest.mark.parametrize("name", [name for name in TOOLS if name != "topology"])
def test_a_tool_says_what_installs_a_library_that_is_missing(name: str, without: tuple[str, Path]) -> None:
    library, directory = without
    arguments = (name, URL, *ARGUMENTS.get(name, "").split())
    ran = alone(script(directory, "eda"), *arguments, first_on_path=directory)
    assert (ran.status, ran.out) == (cli.FAILED, "")
    prog = (
        "eda" if ran.line.startswith("eda: ") else f"eda {name}"
    )  # depends on whether loading the tool fails, or its work
    assert ran.line == f"{prog}: {library} is not installed; this installs it: pip install 'eda-core[tools]'"


def test_however_a_tool_is_started(without: tuple[str, Path]) -> None:
    library, directory = without
    for words in ((script(directory, "resurrect"),), ("-m", "eda_tools.resurrect")):
        ran = alone(*words, URL, "q", first_on_path=directory)
        told = f"resurrect.py: {library} is not installed; this installs it: pip install 'eda-core[tools]'"
        assert (ran.status, ran.out, ran.line) == (cli.FAILED, "", told)


def test_topology_needs_no_client_library(without: tuple[str, Path]) -> None:
    library, directory = without
    ran = alone(script(directory, "eda"), "topology", "--management", "http://127.0.0.1:1", first_on_path=directory)
    assert ran.out == ""
    missing = library in ("rich", "shtab")
    assert ran.status == (cli.FAILED if missing else cli.NO_CONNECTION)
    assert ("pip install 'eda-core[tools]'" in ran.line) == missing


@pytest.mark.parametrize("name", ["", "--help"])
def test_eda_itself_says_so_too(name: str, without: tuple[str, Path]) -> None:
    library, directory = without
    for words in ((script(directory, "eda"),), ("-m", "eda_tools")):
        ran = alone(*words, *name.split(), first_on_path=directory)
        if library in ("rich", "shtab"):
            told = f"eda: {library} is not installed; this installs it: pip install 'eda-core[tools]'"
            assert (ran.status, ran.out, ran.line) == (cli.FAILED, "", told)
        else:
            assert ran.status == (cli.DONE if name else cli.USAGE)


def test_other_errors_are_not_taken_for_a_missing_library() -> None:
    assert missing_library(ModuleNotFoundError("no", name="rich.live")).startswith("rich is not installed; ")
    for error in (
        ModuleNotFoundError("ours", name="eda_tools.nope"),
        ModuleNotFoundError("Python's", name="ssl"),
        ImportError("of no module"),
        ImportError("of a module that is there, in another version", name="rich"),
        ValueError("else"),
    ):
        assert missing_library(error) == ""
