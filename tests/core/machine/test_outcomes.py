"""The outcomes of handlers, made of what they returned or raised."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from eda_core import criticality
from eda_core.errors import LocalError, NoHandler, Reject
from eda_core.machine.outcomes import (
    CONFIGURED,
    DEFERRED,
    DONE,
    Configured,
    Deferred,
    Done,
    Failed,
    Outcome,
    failure,
    is_payload,
    outcome,
)
from eda_core.messages.values import AnyMessage, Command, Configuration, Event, LogRecord, Result

META = {"delivery_tag": 7}
EVENT = Event("TranscriptReady", {"a": 1}, "c", META)
COMMAND = Command("transcriber.TranscribeAudio", {"a": 1}, "c", "caller.Back", "id", META)
RESULT = Result("caller.TranscribeAudioReturn", {"a": 1}, "c", "success", "id", META)
CONFIGURATION = Configuration("NewModel", {"a": 1}, "c", META)
LOG = LogRecord("s.INFO", {"a": 1}, "c", META)
BUSINESS = [EVENT, COMMAND, RESULT, CONFIGURATION]


@pytest.mark.parametrize(("constant", "kind"), [(DONE, Done), (DEFERRED, Deferred), (CONFIGURED, Configured)])
def test_outcomes_without_parts_are_equal_to_the_constants(constant: object, kind: type) -> None:
    assert constant == kind()
    assert {DONE, DEFERRED, CONFIGURED} - {constant} == {DONE, DEFERRED, CONFIGURED} - {kind()}


def test_a_failure_is_an_alert_that_may_be_tried_again_unless_it_says_otherwise() -> None:
    failed = Failed("no such customer")
    assert (failed.detail, failed.permanent, failed.level) == ("", False, 1)
    with pytest.raises(dataclasses.FrozenInstanceError):
        failed.permanent = True  # type: ignore[misc]


@pytest.mark.parametrize("level", [-1, 8, True, 1.0, "ALERT"])
def test_a_failure_has_a_level_of_the_log_bus(level: Any) -> None:
    with pytest.raises(LocalError, match="log level"):
        Failed("boom", level=level)


def test_the_repr_of_a_failure_is_short() -> None:
    assert len(repr(Failed("reason " * 10_000))) < 300


@pytest.mark.parametrize("returned", [None, False, 0, "", []])
@pytest.mark.parametrize("message", [*BUSINESS, LOG], ids=lambda message: type(message).__name__)
def test_a_handler_that_returns_nothing_is_done(message: AnyMessage, returned: object) -> None:
    assert outcome(message, returned) is DONE


@pytest.mark.parametrize(
    ("message", "expected"),
    [(EVENT, DEFERRED), (COMMAND, DEFERRED), (RESULT, DEFERRED), (CONFIGURATION, CONFIGURED), (LOG, DONE)],
    ids=lambda value: type(value).__name__,
)
def test_what_true_means_depends_on_the_kind(message: AnyMessage, expected: Outcome) -> None:
    assert outcome(message, True) is expected


@pytest.mark.parametrize("returned", [1, "yes", {"a": 1}, object()])
@pytest.mark.parametrize("message", [EVENT, COMMAND, RESULT, LOG], ids=lambda message: type(message).__name__)
def test_no_other_value_leaves_a_message_unacknowledged(message: AnyMessage, returned: object) -> None:
    assert outcome(message, returned) is DONE


@pytest.mark.parametrize("returned", [1, "yes", {"a": 1}, object()])
def test_any_true_value_configures_as_in_eventail(returned: object) -> None:
    assert outcome(CONFIGURATION, returned) is CONFIGURED


@pytest.mark.parametrize(
    ("returned", "expected"), [(None, False), (True, False), (False, False), (0, True), ({}, True)]
)
def test_what_is_no_sign_is_a_payload(returned: object, expected: bool) -> None:
    assert is_payload(returned) is expected


def raised(error: BaseException) -> BaseException:
    with pytest.raises(type(error)) as caught:
        raise error
    return caught.value


def test_an_error_of_a_handler_may_be_tried_again_and_has_its_traceback() -> None:
    failed = failure(raised(ValueError("no such\ncustomer")))
    assert failed.reason == "ValueError: no such"
    assert failed.detail.startswith("Traceback (most recent call last):\n")
    assert failed.detail.endswith("ValueError: no such\ncustomer\n")
    assert (failed.permanent, failed.level) == (False, criticality.ALERT)


def _within(error: Exception, *modules: str) -> Exception:
    """Return the error with a traceback of functions in these modules, the outermost first."""
    call: Callable[[], Any] = _raising(error)
    for module in reversed(modules):
        places = {"__name__": module, "inner": call}
        exec(compile("def outer():\n    inner()", f"{module}.py", "exec"), places)
        call = places["outer"]  # type: ignore[assignment]
    return _raised_by(call, error)


def _raised_by(call: Callable[[], Any], error: Exception) -> Exception:
    """Return the error that ``call`` raises, without the frame of this function."""
    with pytest.raises(type(error)) as caught:
        call()
    first = caught.value.__traceback__
    assert first is not None
    return caught.value.with_traceback(first.tb_next)


def _raising(error: Exception) -> Callable[[], None]:
    def call() -> None:
        raise error

    places: dict[str, Any] = {"__name__": "eda_core.messages.codec", "error": error}
    exec(compile("def call():\n    raise error", "codec.py", "exec"), places)
    return places["call"] if isinstance(error, LocalError) else call


def _files(failed: Failed) -> list[str]:
    return re.findall(r'File "(?:.*/)?(.+?)\.py"', failed.detail)


@pytest.mark.parametrize("ours", ["eda_core.drivers.coroutines", "eda_aio.service", "eda_pika.service"])
def test_the_traceback_begins_with_the_code_of_the_user(ours: str) -> None:
    failed = failure(_within(ValueError("no"), ours, "eda_core.services.handlers", "shop", "eda_tools.monitor"))
    assert _files(failed) == ["shop", "eda_tools.monitor", "test_outcomes"]
    assert failed.detail.startswith("Traceback (most recent call last):\n")
    assert failed.detail.endswith("ValueError: no\n")


def test_what_the_user_has_called_stays_in_the_traceback() -> None:
    failed = failure(_within(LocalError("no"), "eda_core.drivers.base", "shop", "eda_core.services.api"))
    assert _files(failed) == ["shop", "eda_core.services.api", "codec"]


def test_the_cause_of_an_error_stays_in_the_traceback() -> None:
    error = _within(ValueError("no"), "eda_core.drivers.base", "shop")
    error.__cause__ = _within(KeyError("x"), "database")
    assert _files(failure(error)) == ["database", "test_outcomes", "shop", "test_outcomes"]


def test_an_error_within_the_toolkit_has_its_whole_traceback() -> None:
    places: dict[str, Any] = {"__name__": "eda_core.drivers.base"}
    exec(compile("def call():\n    1 / 0", "base.py", "exec"), places)
    error = _raised_by(places["call"], ZeroDivisionError())
    assert _files(failure(error)) == ["base"]


def test_an_error_about_what_a_handler_has_returned_has_no_traceback() -> None:
    failed = failure(_within(LocalError("payload is too large"), "eda_core.drivers.base"))
    assert (failed.reason, failed.detail) == ("LocalError: payload is too large", "")


def test_a_rejection_is_permanent() -> None:
    failed = failure(raised(Reject("no such customer", hint="create it first")))
    assert failed.reason == "Reject: no such customer; create it first"
    assert "Traceback" in failed.detail
    assert (failed.permanent, failed.level) == (True, criticality.ALERT)


def test_a_missing_handler_is_permanent_an_error_only_and_needs_no_traceback() -> None:
    error = raised(NoHandler("unexpected event Done", hint="check the subscriptions"))
    failed = failure(error)
    assert failed.reason == str(error)
    assert (failed.detail, failed.permanent, failed.level) == ("", True, criticality.ERROR)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(1), AssertionError(), ValueError("")])
def test_an_error_without_words_is_named(error: BaseException) -> None:
    assert failure(error).reason.startswith(f"{type(error).__name__}: ")


class Unspeakable(Exception):
    def __init__(self, error: BaseException) -> None:
        self.error = error

    def __str__(self) -> str:
        raise self.error


class Untraceable(Exception):
    """An exception that fails when Python asks for its cause, as a library with proxies may raise."""

    def __getattribute__(self, name: str) -> object:
        if name == "__cause__":
            raise BaseException("no cause for this")
        return super().__getattribute__(name)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (Unspeakable(RuntimeError("no text for this")), "Unspeakable: it cannot be shown"),
        (Unspeakable(BaseException("no text for this")), "Unspeakable: it cannot be shown"),
        (Untraceable("words"), "Untraceable: words"),
    ],
    ids=["no text", "no text, and no Exception", "no traceback"],
)
def test_an_error_that_cannot_be_shown_is_a_failure_like_any_other(error: Exception, reason: str) -> None:
    assert failure(error).reason == reason


def test_the_reason_of_a_missing_handler_is_one_line() -> None:
    assert failure(NoHandler("unexpected event Done\nsecond line")).reason == "unexpected event Done"


class Undecided:
    """A value that is neither true nor false, such as an array."""

    def __bool__(self) -> bool:
        raise ValueError("ambiguous")


def test_a_value_from_the_handler_of_a_configuration_that_is_neither_true_nor_false_is_a_failure() -> None:
    assert outcome(CONFIGURATION, Undecided()).reason == "ValueError: ambiguous"  # type: ignore[union-attr]


async def _coroutine() -> None: ...


def _generator() -> Iterator[int]:
    yield 1


async def _async_generator() -> AsyncIterator[int]:
    yield 1


@pytest.mark.parametrize("function", [_coroutine, _generator, _async_generator])
@pytest.mark.parametrize("message", [EVENT, COMMAND, RESULT, CONFIGURATION, LOG], ids=lambda message: message.name)
def test_work_that_nobody_will_do_is_a_failure_that_trying_again_does_not_mend(
    function: Callable[[], Any], message: AnyMessage
) -> None:
    """``async`` or ``yield`` was written by mistake. If it meant "deferred", the message would stay unacknowledged."""
    failed = outcome(message, function())
    assert isinstance(failed, Failed)
    assert failed.permanent
    assert f"the function was not run: its result is a value of type {function.__name__[1:]};" in failed.reason


def test_a_reason_has_an_end() -> None:
    failed = failure(ValueError("x" * 10_000))
    assert failed.reason == f"ValueError: {'x' * 988}…"
    assert "x" * 10_000 in failed.detail
    assert failure(ValueError("x" * 988)).reason == f"ValueError: {'x' * 988}"
