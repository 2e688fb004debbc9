"""Whether the right library is installed, whether it has raised an error, and what of its logs reaches the user."""

from __future__ import annotations

import contextvars
import json
import logging
import sys
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import pamqp.frame
import pytest

from eda_core.criticality import WARNING
from eda_core.drivers.library import library_at_work, misfit, quieten, raised_in, require, write_report


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A library that is installed, in version 7.2.4."""
    package, module = ModuleType("client"), ModuleType("client.connection")
    vars(module)["__version__"] = "7.2.4"
    monkeypatch.setitem(sys.modules, "client", package)
    monkeypatch.setitem(sys.modules, "client.connection", module)
    return module


@pytest.mark.parametrize("needed", ["7.2.4", "7.2.0", "7.2.3", ""])
def test_the_right_version_is_accepted(library: ModuleType, needed: str) -> None:
    require("eda_new", "new", {"client.connection": needed})


@pytest.mark.parametrize("installed", ["7.2.10", "7.2.4.post1", "7.2.5rc1"])
def test_so_are_later_micro_versions(library: ModuleType, installed: str) -> None:
    vars(library)["__version__"] = installed
    require("eda_new", "new", {"client.connection": "7.2.4"})


@pytest.mark.parametrize("installed", ["7.2.3", "7.1.9", "7.3.0", "8.0.0", "6.2.4", "7.20.4", "7.3.0.dev1", "7"])
def test_another_version_is_refused(library: ModuleType, installed: str) -> None:
    vars(library)["__version__"] = installed
    with pytest.raises(ImportError) as caught:
        require("eda_new", "new", {"client.connection": "7.2.4"})
    assert str(caught.value) == (
        f"eda_new needs client 7.2, from 7.2.4 on, and {installed} is installed: pip install 'eda-core[new]'"
    )
    assert caught.value.name == "client"


@pytest.mark.parametrize("needed", ["7.2.4", ""])
def test_a_library_that_is_missing_is_named_with_the_command(needed: str) -> None:
    with pytest.raises(ModuleNotFoundError) as caught:
        require("eda_new", "new", {"nowhere_to_be_found.connection": needed})
    assert str(caught.value) == "eda_new needs nowhere_to_be_found: pip install 'eda-core[new]'"
    assert caught.value.name == "nowhere_to_be_found"
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_a_library_in_a_namespace_of_several_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    (tmp_path / "shared_by_several").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError) as caught:
        require("eda_new", "new", {"shared_by_several.sdk.part": ""})
    assert str(caught.value) == "eda_new needs shared_by_several.sdk: pip install 'eda-core[new]'"


def test_what_the_library_misses_itself_is_another_matter(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    (tmp_path / "broken_client.py").write_text("import nowhere_to_be_found")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="No module named 'nowhere_to_be_found'"):
        require("eda_new", "new", {"broken_client": "1.0.0"})


# --- errors ---


def raised(call: Callable[[], object]) -> Exception:
    """What it raises."""
    try:
        call()
    except Exception as error:
        return error
    raise AssertionError("it raises nothing")


def test_what_python_raises_is_not_the_users() -> None:
    assert raised_in([], raised(lambda: json.loads("{")))


def test_what_a_library_raises_is_the_librarys() -> None:
    error = raised(lambda: pamqp.frame.unmarshal(b"x"))
    assert raised_in(["amqp", "pamqp"], error)
    assert not raised_in(["amqp"], error)


def test_what_is_raised_in_user_code_is_the_users_whoever_has_called_it() -> None:
    def handler() -> None:
        raise TimeoutError("mine")

    error = raised(lambda: contextvars.copy_context().run(handler))
    assert raised_in(["tests"], error)
    assert not raised_in(["pamqp"], error)


def test_what_was_never_raised_is_nobodys() -> None:
    assert not raised_in(["amqp"], ValueError("made, not raised"))


# --- methods that may change without notice ---


class Transport:
    size = 1

    def write(self, data: bytes, /, *, at_once: bool = False) -> None:
        """Write."""


@pytest.mark.parametrize(
    ("installed", "name", "parameters", "why"),
    [
        ("7.2.4", "write", "self data at_once", ""),
        ("7.3.0", "write", "self data at_once", "it is not 7.2, from 7.2.4 on"),
        ("7.2.4", "send", "self", "Transport has no method send"),
        ("7.2.4", "size", "self", "Transport has no method size"),
        ("7.2.9", "write", "self data", "Transport.write takes (self data at_once), and not (self data)"),
    ],
)
def test_why_methods_of_a_library_are_not_used(installed: str, name: str, parameters: str, why: str) -> None:
    used = {(Transport, "write"): "self data at_once", (Transport, name): parameters}
    assert misfit(installed, "7.2.4", used) == why


# --- logs ---


class Log(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(f"{record.levelname} {record.getMessage()}")


@pytest.fixture
def log() -> Iterator[Log]:
    """What comes of the loggers of a library and of its adapter."""
    handler, loggers = Log(), [logging.getLogger(name) for name in ("eda_new", "client.connection", "client.channel")]
    for logger in loggers:
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
    quieten(loggers[1:], loggers[0])
    yield handler
    for logger in loggers:
        logger.removeHandler(handler)
        logger.setLevel(logging.NOTSET)
        logger.filters.clear()


def speak() -> None:
    logging.getLogger("client.connection").error("lost")
    logging.getLogger("client.channel").info("closed")


def test_what_a_library_logs_at_work_for_us_is_dropped(log: Log) -> None:
    with library_at_work():
        speak()
        logging.getLogger("eda_new").warning("no link")
    assert log.lines == ["WARNING no link"]


def test_who_debugs_the_adapter_gets_it(log: Log) -> None:
    logging.getLogger("eda_new").setLevel(logging.DEBUG)
    with library_at_work():
        speak()
    assert log.lines == ["DEBUG lost", "DEBUG closed"]


def test_what_a_library_logs_for_the_program_is_not_touched(log: Log) -> None:
    speak()
    with library_at_work():
        with library_at_work(False):
            speak()
        speak()
    assert log.lines == ["ERROR lost", "INFO closed"] * 2


def test_behind_a_block_that_raises_the_code_is_whose_it_was_before(log: Log) -> None:
    with pytest.raises(KeyError), library_at_work():
        raise KeyError
    speak()
    assert log.lines == ["ERROR lost", "INFO closed"]


def test_a_report_is_a_record_with_the_name_of_what_has_happened(caplog: pytest.LogCaptureFixture) -> None:
    write_report(logging.getLogger("eda_test"), WARNING, "100 % lost", "link-lost")
    (record,) = caplog.records
    assert (record.levelno, record.getMessage()) == (logging.WARNING, "100 % lost")
    assert record.__dict__["eda_event"] == "link-lost"
