"""The tree of exceptions, and what their texts say."""

from __future__ import annotations

import ast
import copy
import pickle
from pathlib import Path

import pytest

import eda_core
from eda_core import errors
from eda_core.drivers.publish_call import NotConfirmed, PartlyPublished, Unroutable
from eda_core.errors import (
    Abandoned,
    BufferFull,
    CommandError,
    CommandTimeout,
    EdaError,
    InvalidPayload,
    LocalError,
    NoHandler,
    NotAnswered,
    NotBegun,
    NotReady,
    PayloadError,
    PublishError,
    PublishRefused,
    PublishTimeout,
    Reject,
    ServiceError,
    StateError,
)

ALL = [EdaError, LocalError, StateError, PayloadError, BufferFull, ServiceError, PublishError, PublishRefused]
ALL += [PublishTimeout, CommandTimeout, Reject, InvalidPayload, NoHandler, NotBegun, NotReady, NotAnswered]


@pytest.mark.parametrize("kind", ALL)
def test_the_text_ends_with_the_remedy(kind: type[EdaError]) -> None:
    error = kind("the name is empty", hint="give it one")
    assert str(error) == "the name is empty; give it one"
    assert error.hint == "give it one"


@pytest.mark.parametrize(
    "error",
    [
        *(kind("the name is empty", hint="give it one") for kind in ALL),
        BufferFull("full", temporary=False),
        CommandError("pong.Ping", {"reason": "tired"}),
        NotConfirmed("gone", may_arrive=True),
        PartlyPublished(3, {1: Unroutable("nobody")}),
    ],
    ids=lambda error: type(error).__name__,
)
def test_they_get_through_to_other_processes(error: EdaError) -> None:
    """A process pool breaks if it cannot unpickle the exception of a worker."""
    for same in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert (type(same), str(same), same.args) == (type(error), str(error), error.args)
        assert repr(vars(same)) == repr(vars(error))


@pytest.mark.parametrize("kind", ALL)
def test_without_a_remedy_the_text_is_the_message(kind: type[EdaError]) -> None:
    assert str(kind("the name is empty")) == "the name is empty"
    assert kind("the name is empty").hint == ""


def test_all_are_listed_here() -> None:
    defined = {
        value for value in vars(errors).values() if isinstance(value, type) and value.__module__ == errors.__name__
    }
    assert defined == {*ALL, CommandError, Abandoned}


def test_who_handles_exceptions_does_not_handle_that_its_time_is_over() -> None:
    assert not issubclass(Abandoned, Exception)


def test_the_error_of_a_command_has_its_payload() -> None:
    error = CommandError("svc.Do", {"why": "no"})
    assert (error.command, error.payload, str(error)) == ("svc.Do", {"why": "no"}, "svc.Do: {'why': 'no'}")


def test_the_error_of_a_command_with_a_long_payload_has_a_short_text() -> None:
    assert len(str(CommandError("svc.Do", "x" * 10_000))) == 500


def test_a_call_without_a_result_in_time_is_a_timeout_as_python_knows_it() -> None:
    assert issubclass(CommandTimeout, TimeoutError)


@pytest.mark.parametrize("kind", [StateError, PayloadError, BufferFull])
def test_what_the_caller_could_have_known_is_local(kind: type[EdaError]) -> None:
    assert issubclass(kind, LocalError)


@pytest.mark.parametrize("kind", [ServiceError, PublishError, CommandError, CommandTimeout])
def test_what_the_caller_could_not_know_is_not_local(kind: type[EdaError]) -> None:
    assert not issubclass(kind, LocalError)


def test_a_full_buffer_says_whether_waiting_helps() -> None:
    assert BufferFull("full").temporary is True
    assert BufferFull("full", temporary=False).temporary is False


def test_the_base_is_never_raised() -> None:
    """Outside its module it is only caught and subclassed."""
    root = Path(eda_core.__file__).parent
    calls = [
        path.name
        for path in root.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "EdaError"
    ]
    assert calls == []
