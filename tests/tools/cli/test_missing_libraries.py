"""Tools whose libraries are not installed. pip installs the commands also without the extra."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from pamqp.commands import Basic

from eda_tools.broker import EmbeddedBrokerThread
from eda_tools.cli import status as cli
from eda_tools.cli.catalogue import TOOLS
from eda_tools.cli.start import missing_library
from eda_tools.messages.delivery import Delivery
from eda_tools.messages.recording import dumps
from tests.tools.bench import operator
from tests.tools.cli.test_signals import alone, script

#: What the extra brings.
LIBRARIES = ("rich", "shtab")
#: What it does not need.
CLIENTS = ("aiormq", "aio_pika", "amqp", "kombu", "pika")
#: Arguments with which each tool loads all that it needs.
ARGUMENTS = {
    "publish_event": "Done --data 1",
    "publish_configuration": "Settings --data 1",
    "send_command": "a.Do --data 1",
    "inspect_queue": "q",
    "resurrect": "q",
    "trace": "conversation",
    "replay": "nowhere.cbor",
    "topology": "--management http://127.0.0.1:1",
    "unbind": "a Old",
}
URL = "amqp://guest:guest@127.0.0.1:1/"


@pytest.fixture(params=LIBRARIES)
def without(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, Path]:
    """A library, and a directory that hides it from a program that has the directory first on its path."""
    library: str = request.param
    (tmp_path / f"{library}.py").write_text("raise ModuleNotFoundError(f'No module named {__name__!r}', name=__name__)")
    return library, tmp_path


@pytest.mark.parametrize("name", TOOLS)
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


@pytest.fixture(scope="module")
def letters() -> Iterator[EmbeddedBrokerThread]:
    """A broker with a service ``a``, of which an event and a dead letter wait."""
    with EmbeddedBrokerThread() as broker, operator(broker.url) as bench:
        bench.operate()
        bench.event("Dead")
        bench.kill()
        bench.event("Waiting")
        yield broker


#: For each tool arguments, its status, and what it says then.
RUNS = {
    "publish_event": ("Done --data 1", cli.DONE, ""),
    "publish_configuration": ("Settings --data 1", cli.FAILED, "no queue is bound for the configuration Settings"),
    "send_command": ("nobody.Do --data 1", cli.FAILED, "no service is bound to nobody.Do"),
    "monitor": ("--idle-timeout 0.1", cli.DONE, "watching events #"),
    "logger": ("--idle-timeout 0.1", cli.DONE, "watching logs #"),
    "trace": ("c --idle-timeout 0.1", cli.TIMED_OUT, "no message of conversation c came within 0.1 s"),
    "inspect_queue": ("a.events --count 1", cli.DONE, "1 shown of "),
    "resurrect": ("dead-letters --backup {file}", cli.DONE, ""),
    "replay": ("{file}", cli.DONE, ""),
    "doctor": ("--service a", cli.FAILED, "problem(s)"),
    "unbind": ("a Old --yes", cli.DONE, ""),
    "topology": ("--management http://127.0.0.1:1", cli.NO_CONNECTION, "http://127.0.0.1:1"),
}
assert RUNS.keys() == TOOLS.keys()


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recording, to which ``resurrect`` adds."""
    path = tmp_path_factory.mktemp("recordings") / "letters.cbor"
    path.write_bytes(dumps(Delivery("events", "Recorded", Basic.Properties(delivery_mode=2), b"{}", False)))
    return path


@pytest.mark.parametrize("name", RUNS)
def test_no_tool_needs_a_client_library(name: str, letters: EmbeddedBrokerThread, file: Path) -> None:
    words, status, told = RUNS[name]
    hidden = f"import sys; sys.modules.update(dict.fromkeys({CLIENTS}))"
    given = (*(() if name == "topology" else (letters.url,)), *words.format(file=file).split())
    ran = alone("-c", f"{hidden}; from eda_tools.eda import main; sys.exit(main())", name, *given)
    assert (ran.status, "Traceback" in ran.err) == (status, False), ran.err
    assert told in ran.err


@pytest.mark.parametrize("name", ["", "--help"])
def test_eda_itself_says_so_too(name: str, without: tuple[str, Path]) -> None:
    library, directory = without
    for words in ((script(directory, "eda"),), ("-m", "eda_tools")):
        ran = alone(*words, *name.split(), first_on_path=directory)
        told = f"eda: {library} is not installed; this installs it: pip install 'eda-core[tools]'"
        assert (ran.status, ran.out, ran.line) == (cli.FAILED, "", told)


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
