"""From messages to the methods of a service, and from what those do to outcomes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from hypothesis import given

from eda_core import criticality
from eda_core.errors import NoHandler, Reject
from eda_core.machine.outcomes import CONFIGURED, DEFERRED, DONE, Failed, Outcome, failure, outcome
from eda_core.messages.values import AnyMessage, Command, Configuration, Event, LogRecord, Result
from eda_core.services.handlers import Handlers
from eda_core.testing import strategies

META = {"delivery_tag": 7}
EVENT = Event("TranscriptReady", {"a": 1}, "c", META)
COMMAND = Command("transcriber.TranscribeAudio", {"a": 1}, "c", "caller.Back", "id", META)
RESULT = Result("caller.TranscribeAudioReturn", {"a": 1}, "c", "success", "id", META)
CONFIGURATION = Configuration("NewModel", {"a": 1}, "c", META)
LOG = LogRecord("s.INFO", {"a": 1}, "c", META)
BUSINESS = [EVENT, COMMAND, RESULT, CONFIGURATION]


class Transcriber(Handlers):
    """Returns what it was called with. The signatures are those of services written for eventail."""

    def on_TranscriptReady(self, payload: Any, conversation_id: str, meta: dict[str, Any]) -> Any:
        return "event", payload, conversation_id, meta

    def on_TranscribeAudio(
        self, payload: Any, conversation_id: str, reply_to: str, correlation_id: str, meta: dict[str, Any]
    ) -> Any:
        return "command", payload, conversation_id, reply_to, correlation_id, meta

    def on_TranscribeAudioReturn(
        self, payload: Any, conversation_id: str, status: str, correlation_id: str, meta: dict[str, Any]
    ) -> Any:
        return "result", payload, conversation_id, status, correlation_id, meta

    def on_NewModel(self, payload: Any, meta: dict[str, Any]) -> Any:
        return "configuration", payload, meta


@pytest.mark.parametrize(
    ("message", "called"),
    [
        (EVENT, ("event", {"a": 1}, "c", META)),
        (COMMAND, ("command", {"a": 1}, "c", "caller.Back", "id", META)),
        (RESULT, ("result", {"a": 1}, "c", "success", "id", META)),
        (CONFIGURATION, ("configuration", {"a": 1}, META)),
        (LOG, None),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_message_goes_to_the_method_of_its_name_with_its_parts_in_order(message: AnyMessage, called: object) -> None:
    assert Transcriber().handle(message) == called


@pytest.mark.parametrize(
    ("message", "method", "arguments"),
    [
        (EVENT, "handle_event", ("TranscriptReady", {"a": 1}, "c", META)),
        (COMMAND, "handle_command", (COMMAND.name, {"a": 1}, "c", "caller.Back", "id", META)),
        (RESULT, "handle_result", (RESULT.name, {"a": 1}, "c", "success", "id", META)),
        (CONFIGURATION, "handle_config", ("NewModel", {"a": 1}, META)),
        (LOG, "handle_log", ("s.INFO", {"a": 1}, META)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_the_method_for_a_kind_can_be_overridden_and_gets_the_name_first_and_meta_by_its_own(
    message: AnyMessage, method: str, arguments: tuple[Any, ...]
) -> None:
    """As eventail calls them: other parameters may have any name, meta may be keyword-only."""
    service = type("Service", (Handlers,), {method: lambda self, *given, meta: (*given, meta)})()
    assert service.handle(message) == arguments
    service = type(
        "Service", (Handlers,), {method: lambda self, name, *others, **meta: (name, *others, meta["meta"])}
    )()
    assert service.handle(message) == arguments


@given(strategies.messages())
def test_a_name_without_a_method_says_which_methods_there_are(message: AnyMessage) -> None:
    with pytest.raises(NoHandler) as caught:
        Transcriber().handle(message)
    kind = type(message).__name__.lower()
    assert str(caught.value) == (
        f"unexpected {kind} {message.name}: Transcriber has handlers for NewModel, TranscribeAudio, "
        "TranscribeAudioReturn, TranscriptReady; check the subscriptions"
    )


@pytest.mark.parametrize("message", BUSINESS, ids=lambda message: type(message).__name__)
def test_a_service_without_handlers_says_so(message: AnyMessage) -> None:
    with pytest.raises(NoHandler, match=r"Handlers has handlers for nothing; check the subscriptions$"):
        Handlers().handle(message)


@pytest.mark.parametrize("name", ["ready", "unconfigured", "s.ready", "air", "s.air", "", "s.", "_ready", "ready."])
def test_a_name_cannot_call_what_is_no_handler(name: str) -> None:
    """Hooks belong to the life cycle, whoever publishes a message of their name."""

    class Watched(Transcriber):
        def on_ready(self) -> Any:
            raise AssertionError("a message called a hook")

        on_unconfigured = on_ready
        on_air = "not a method"

    for message in (
        Event(name, 1, "c"),
        Command(name, 1, "c", "r", "id"),
        Result(name, 1, "c", "success", "id"),
        Configuration(name, 1, ""),
    ):
        with pytest.raises(NoHandler, match="unexpected"):
            Watched().handle(message)


def test_hooks_and_defaults_do_nothing() -> None:
    service = Handlers()
    assert service.on_ready() is None
    assert service.on_unconfigured() is None
    assert service.handle_returned_message("s.Do", {"a": 1}, {}) is None
    assert service.handle_log("s.INFO", {}, {}) is None


# Outcomes


@pytest.mark.parametrize("returned", [None, False, 0, "", []])
@pytest.mark.parametrize("message", [*BUSINESS, LOG], ids=lambda message: type(message).__name__)
def test_a_handler_that_returns_nothing_is_done(message: AnyMessage, returned: object) -> None:
    assert outcome(message, returned) is DONE


@pytest.mark.parametrize("returned", [True, 1, "yes", object()])
@pytest.mark.parametrize(
    ("message", "expected"),
    [(EVENT, DEFERRED), (COMMAND, DEFERRED), (RESULT, DEFERRED), (CONFIGURATION, CONFIGURED), (LOG, DONE)],
    ids=lambda value: type(value).__name__,
)
def test_what_a_truthy_return_means_depends_on_the_kind(
    message: AnyMessage, expected: Outcome, returned: object
) -> None:
    assert outcome(message, returned) is expected


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


def test_a_rejection_is_permanent() -> None:
    failed = failure(raised(Reject("no such customer", hint="create it first")))
    assert failed.reason == "Reject: no such customer; create it first"
    assert "Traceback" in failed.detail
    assert (failed.permanent, failed.level) == (True, criticality.ALERT)


def test_a_missing_handler_is_permanent_an_error_only_and_needs_no_traceback() -> None:
    with pytest.raises(NoHandler) as caught:
        Handlers().handle(EVENT)
    failed = failure(caught.value)
    assert failed.reason == str(caught.value)
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
    """As of a library that wraps errors in proxies: it fails where Python looks for what it was caused by."""

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


def test_the_reason_is_one_line_whatever_the_name() -> None:
    with pytest.raises(NoHandler) as caught:
        Handlers().handle(Event("Done\nsecond line", 1, "c"))
    assert len(failure(caught.value).reason.splitlines()) == 1


class Undecided:
    """What a comparison of arrays gives, say."""

    def __bool__(self) -> bool:
        raise ValueError("ambiguous")


def test_a_returned_value_that_is_neither_true_nor_false_is_a_failure() -> None:
    assert outcome(Event("Done", None, "c"), Undecided()).reason == "ValueError: ambiguous"  # type: ignore[union-attr]


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
    """``async`` or ``yield`` by mistake. As "I will acknowledge it myself" the message would be kept for ever."""
    failed = outcome(message, function())
    assert isinstance(failed, Failed)
    assert failed.permanent
    assert f"the function was not run: its result is a value of type {function.__name__[1:]};" in failed.reason


def test_a_reason_has_an_end() -> None:
    failed = failure(ValueError("x" * 10_000))
    assert failed.reason == f"ValueError: {'x' * 988}…"
    assert "x" * 10_000 in failed.detail
    assert failure(ValueError("x" * 988)).reason == f"ValueError: {'x' * 988}"


def test_only_handlers_are_listed_as_such() -> None:
    class Odd(Handlers):
        on_Number = 7

        def on_Done(self, payload: object, conversation_id: str, meta: object) -> None: ...

    with pytest.raises(NoHandler, match="Odd has handlers for Done;"):
        Odd().handle(Event("Missing", None, "c"))
