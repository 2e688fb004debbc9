"""Which method of a service handles a message."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given

from eda_core import criticality
from eda_core.errors import InvalidPayload, NoHandler
from eda_core.machine.outcomes import failure
from eda_core.messages.models import Misfit
from eda_core.messages.values import AnyMessage, Command, Configuration, Event, LogRecord, Result
from eda_core.services.callbacks import CallbackService
from eda_core.services.handlers import Handlers
from eda_core.testing import strategies
from tests.core.kit import URLS

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
    """As in eventail other parameters may have any name, and ``meta`` may be keyword-only."""
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
    method = f"on_{message.name.rpartition('.')[2]}"
    assert str(caught.value) == (
        f"unexpected {kind} {message.name}: Transcriber has handlers for NewModel, TranscribeAudio, "
        f"TranscribeAudioReturn, TranscriptReady; define {method}(), or do not subscribe to it"
    )


@pytest.mark.parametrize("message", BUSINESS, ids=lambda message: type(message).__name__)
def test_a_service_without_handlers_says_so(message: AnyMessage) -> None:
    with pytest.raises(NoHandler, match=r"Handlers has handlers for nothing; define \w+\(\), or do not "):
        Handlers().handle(message)


@pytest.mark.parametrize("name", ["ready", "unconfigured", "s.ready", "air", "s.air", "", "s.", "_ready", "ready."])
def test_a_name_cannot_call_what_is_no_handler(name: str) -> None:
    """A message with the name of a hook must not call the hook."""

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


def test_only_handlers_are_listed_as_such() -> None:
    class Odd(Handlers):
        on_Number = 7

        def on_Done(self, payload: object, conversation_id: str, meta: object) -> None: ...

    with pytest.raises(NoHandler, match="Odd has handlers for Done;"):
        Odd().handle(Event("Missing", None, "c"))


def test_the_reason_is_one_line_whatever_the_name() -> None:
    with pytest.raises(NoHandler) as caught:
        Handlers().handle(Event("Done\nsecond line", 1, "c"))
    assert len(failure(caught.value).reason.splitlines()) == 1


def test_a_missing_handler_is_permanent_an_error_only_and_needs_no_traceback() -> None:
    with pytest.raises(NoHandler) as caught:
        Handlers().handle(EVENT)
    failed = failure(caught.value)
    assert failed.reason == str(caught.value)
    assert (failed.detail, failed.permanent, failed.level) == ("", True, criticality.ERROR)


@pytest.mark.parametrize(
    ("message", "left_over"),
    [
        (Event("OldNews", 1, "c"), True),
        (Event("NewsCame", 1, "c"), False),
        (Command("svc.Forget", 1, "c", "x.y", ""), True),
        (Command("svc.Do", 1, "c", "x.y", ""), False),
        (Result("svc.ForgetReturn", 1, "c", "success", ""), True),
        (Configuration("Old", 1, ""), True),
        (Configuration("Settings", 1, ""), False),
    ],
)
def test_a_message_that_nobody_subscribes_to_comes_by_a_binding_that_is_left_over(
    message: AnyMessage, left_over: bool
) -> None:
    class Plain(CallbackService):
        def worker_identity(self) -> tuple[str, int]:
            return "box", 7

    service = Plain(URLS[0], ["News*", "NewsCame"], ["svc.Do"], "svc", ["Settings"])
    with pytest.raises(NoHandler) as raised:
        service.handle(message)
    words = (
        "; the service does not subscribe to it: its binding is left over from an earlier version, and "
        "'eda unbind' takes it away"
    )
    assert str(raised.value).endswith(words) == left_over


def test_a_payload_is_read_before_its_handler_gets_it_and_others_stay_as_they_are() -> None:
    service = Transcriber()
    service._eda_read_by({"on_TranscriptReady": lambda payload: ("read", payload)})
    assert service.handle(EVENT) == ("event", ("read", {"a": 1}), "c", META)
    assert service.handle(CONFIGURATION) == ("configuration", {"a": 1}, META)


def test_a_payload_that_cannot_be_read_is_rejected_and_its_handler_is_not_called() -> None:
    def read(payload: object) -> object:
        raise Misfit("payload.a", "expected str, got int")

    service = Transcriber()
    service._eda_read_by({"on_TranscribeAudio": read})
    with pytest.raises(InvalidPayload, match=r"^payload\.a: expected str, got int$") as caught:
        service.handle(COMMAND)
    outcome = failure(caught.value)
    assert (outcome.permanent, outcome.reason) == (True, "InvalidPayload: payload.a: expected str, got int")


def test_the_payload_of_a_result_with_an_error_stays_as_it_is() -> None:
    service = Transcriber()
    service._eda_read_by({"on_TranscribeAudioReturn": lambda payload: ("read", payload)})
    assert service.handle(RESULT)[1] == ("read", {"a": 1})
    assert service.handle(replace(RESULT, status="error"))[1] == {"a": 1}


def test_without_readers_handlers_are_found_as_before() -> None:
    service = Transcriber()
    service._eda_read_by({})
    assert vars(service) == {}
