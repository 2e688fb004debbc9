"""Which payloads of handlers are typed, how they are read, and what a service says if they cannot be."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Optional, TypedDict, Union

import msgspec
import pydantic
import pytest

from eda_core.errors import InvalidPayload, LocalError, Reject
from eda_core.messages import models
from eda_core.messages.values import AnyMessage, Command, Configuration, Event, Result
from eda_core.services import payloads
from eda_core.services.handlers import Handlers
from eda_core.services.payloads import Unresolved, annotated_payload, annotation_text, reader_for, returned, without_map
from tests.core.services.test_checks import doubts, faults, made, started

if TYPE_CHECKING:
    from decimal import Decimal

    from nowhere import Missing  # type: ignore[import-not-found]


@dataclass
class Order:
    number: int
    note: str = ""


class Card(msgspec.Struct, tag=True):
    digits: str


class Transfer(msgspec.Struct, tag=True):
    account: str


class Model(pydantic.BaseModel):
    number: int


class Address(TypedDict):
    street: str


@pytest.fixture
def missing(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Makes a library unavailable."""

    def hide(name: str) -> None:
        monkeypatch.setitem(sys.modules, name, None)
        monkeypatch.delitem(sys.modules, models._MODULES[name], raising=False)
        models.library.cache_clear()

    yield hide
    monkeypatch.undo()
    models.library.cache_clear()


class Typed(Handlers):
    class Inner(msgspec.Struct):
        x: int

    def on_Order(self, payload: Order, conversation_id: str, meta: Any) -> Any:
        return payload, conversation_id, meta

    def on_Pay(
        self, body: Card | Transfer, conversation_id: str, reply_to: str, correlation_id: str, meta: Any
    ) -> Order | None:
        return body, reply_to, correlation_id  # type: ignore[return-value]

    def on_PayReturn(self, payload: list[Order], *others: Any) -> Any:
        return payload, *others

    async def on_Settings(self, payload: Annotated[Model, "text"], meta: Missing) -> Any: ...

    def on_Inner(self, payload: Inner, *others: Any) -> None: ...

    def on_Optional(self, payload: Order | None, *others: Any) -> Any:
        return payload

    def on_Either(self, payload: Order | dict[str, Any] | None, *others: Any) -> Any:
        return payload

    def on_Plain(self, payload: dict[str, Any], *others: Any) -> Any:
        return payload

    def on_Map(self, payload: Mapping[str, Any], *others: Any) -> None: ...

    def on_Number(self, payload: int, *others: Any) -> None: ...

    def on_Bare(self, payload, *others): ...  # type: ignore[no-untyped-def]

    def on_Star(self, *payload: Order) -> None: ...

    def on_Nothing(self) -> None: ...

    on_Builtin = print
    on_Unknown = dict

    @functools.wraps(on_Order)
    def on_Wrapped(self, *arguments: Any) -> Any:
        return self.on_Order(*arguments)

    def on_Partly(self, payload: Order, first: int, *others: Any) -> Any: ...

    on_Part = functools.partialmethod(on_Partly)

    def on_Gone(self, payload: Missing, *others: Any) -> Missing: ...

    def on_Typo(self, payload: models.NoModel, *others: Any) -> None: ...  # type: ignore[name-defined]

    def on_Decimal(self, payload: dict[str, Decimal], *others: Any) -> None: ...


TYPED = {
    "Order": ("payload", Order),
    "Pay": ("body", Card | Transfer),
    "PayReturn": ("payload", list[Order]),
    "Settings": ("payload", Annotated[Model, "text"]),
    "Inner": ("payload", Typed.Inner),
    "Optional": ("payload", Order | None),
    "Either": ("payload", Order | dict[str, Any] | None),
    "Wrapped": ("payload", Order),
    "Part": ("payload", Order),
}


@pytest.mark.parametrize(
    "name", ["Plain", "Map", "Number", "Bare", "Star", "Nothing", "Builtin", "Unknown", "Absent", *TYPED]
)
def test_annotations_that_name_a_model_are_found(name: str) -> None:
    found = annotated_payload(Typed(), f"on_{name}")
    assert (None if found is None else (found.parameter, found.annotation)) == TYPED.get(name)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (
            "Gone",
            "the annotation of payload, 'Missing', cannot be resolved (name 'Missing' is not defined); import what it "
            "names at run time, and not under TYPE_CHECKING, or annotate with Any",
        ),
        ("Typo", "the annotation of payload, 'models.NoModel', cannot be resolved (module 'eda_core.messages.models' "),
        ("Decimal", "the annotation of payload, 'dict[str, Decimal]', cannot be resolved (name 'Decimal' is "),
    ],
)
def test_a_name_that_is_missing_at_run_time_is_told(name: str, text: str) -> None:
    with pytest.raises(Unresolved) as caught:
        annotated_payload(Typed(), f"on_{name}")
    assert caught.value.args[0].startswith(text)


def test_the_annotation_of_the_result_is_found() -> None:
    assert returned(Typed(), "on_Pay") == Order | None
    assert returned(Typed(), "on_Bare") is None
    assert returned(Typed(), "on_Absent") is None
    with pytest.raises(Unresolved, match="the annotation of its result, 'Missing'"):
        returned(Typed(), "on_Gone")


def test_annotations_are_shown_as_they_are_written() -> None:
    assert annotation_text(Order) == "Order"
    assert annotation_text(list[int] | None) == "list[int] | None"
    assert annotation_text(dict[str, Any]) == "dict[str, Any]"


# How a message comes to a typed handler


def reading(**readers: models.Reader) -> Typed:
    service = Typed()
    service._eda_read_by(readers)
    return service


def all_readers() -> dict[str, models.Reader]:
    found = {}
    for name in TYPED:
        payload = annotated_payload(Typed(), f"on_{name}")
        assert payload is not None
        reader = reader_for(payload)
        assert reader is not None
        found[f"on_{name}"] = reader
    return found


@pytest.mark.parametrize(
    ("message", "got"),
    [
        (Event("Order", {"number": 7}, "c", {"m": 1}), (Order(7), "c", {"m": 1})),
        (Event("shop.Order", {"number": 7}, "c", {"m": 1}), (Order(7), "c", {"m": 1})),
        (Command("svc.Pay", {"type": "Card", "digits": "1"}, "c", "r", "id", {}), (Card("1"), "r", "id")),
        (Command("svc.Pay", {"type": "Transfer", "account": "2"}, "c", "r", "id", {}), (Transfer("2"), "r", "id")),
        (Result("svc.PayReturn", [{"number": 1}], "c", "success", "id", {}), ([Order(1)], "c", "success", "id", {})),
        (Event("Optional", None, "c"), None),
        (Event("Optional", {"number": 1, "note": "x"}, "c"), Order(1, "x")),
        (Event("Either", {"number": 1}, "c"), Order(1)),
        (Event("Either", {"other": 1}, "c"), {"other": 1}),
        (Event("Either", None, "c"), None),
        (Result("svc.PayReturn", {"reason": "x"}, "c", "error", "id", {}), ({"reason": "x"}, "c", "error", "id", {})),
        (Event("Plain", {"number": "seven"}, "c"), {"number": "seven"}),
    ],
)
def test_a_handler_gets_the_model(message: AnyMessage, got: object) -> None:
    service = reading(**all_readers())
    assert service.handle(message) == got
    assert deepcopy(service).handle(message) == got


def test_the_copy_of_a_service_calls_its_own_handlers() -> None:
    service = reading(**all_readers())
    copy: Any = deepcopy(service)
    copy.on_Order = lambda payload, *_: ("mine", payload)
    assert copy.handle(Event("Order", {"number": 7}, "c")) == ("mine", Order(7))
    assert service.handle(Event("Order", {"number": 7}, "c"))[0] == Order(7)


@pytest.mark.parametrize(
    ("message", "text"),
    [
        (Event("Order", {"number": "secret"}, "c"), "payload.number: expected int, got str"),
        (Event("Order", {"note": "secret"}, "c"), "payload.number: this field is missing"),
        (Event("Order", None, "c"), "payload: expected object, got null"),
        (Event("Either", [], "c"), "payload: expected object | null, got array"),
        (
            Command("svc.Pay", {"type": "secret"}, "c", "r", "id", {}),
            "payload.type: expected the tag of one of a few types, got another one",
        ),
        (
            Result("svc.PayReturn", [{"number": 1}, {"number": []}], "c", "success", "id", {}),
            "payload[1].number: expected int, got array",
        ),
        (
            Configuration("Settings", {"number": "secret"}, ""),
            "payload.number: input should be a valid integer, unable to parse string as an integer; got str",
        ),
    ],
)
def test_a_payload_that_does_not_fit_is_rejected_and_the_field_named(message: AnyMessage, text: str) -> None:
    with pytest.raises(InvalidPayload) as caught:
        reading(**all_readers()).handle(message)
    assert isinstance(caught.value, Reject)
    assert str(caught.value) == text


def test_who_overrides_handle_or_the_method_of_a_kind_gets_the_payload_as_it_came() -> None:
    class Own(Typed):
        def handle_event(self, event: str, payload: Any, conversation_id: str, meta: dict[str, Any]) -> Any:
            return payload, super().handle_event(event, payload, conversation_id, meta)

    service = Own()
    service._eda_read_by(all_readers())
    assert service.handle(Event("Order", {"number": 7}, "c", {})) == ({"number": 7}, (Order(7), "c", {}))


def test_a_service_without_models_finds_its_handlers_as_before() -> None:
    service = reading()
    assert vars(service) == {}


# What is checked when a service begins to run


def test_the_models_are_found_when_a_service_begins_to_run(base: str) -> None:
    service = made(base, {"on_Order": Typed.on_Order}, event_routing_keys=["Order"])
    assert doubts(base, {"on_Order": Typed.on_Order}, event_routing_keys=["Order"]) == []
    service.begin_run(lambda _: started(base, {}))
    assert service.handle(Event("Order", {"number": 7}, "c", {})) == (Order(7), "c", {})


@pytest.fixture(params=["callbacks", "coroutines"])
def base(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_a_service_runs_whose_annotations_are_for_type_checkers_only(base: str) -> None:
    (doubt,) = doubts(base, {"on_Gone": Typed.on_Gone}, event_routing_keys=["Gone"])
    assert doubt == (
        "on_Gone() gets its payload as it comes: the annotation of payload, 'Missing', cannot be resolved (name "
        "'Missing' is not defined); import what it names at run time, and not under TYPE_CHECKING, or annotate with Any"
    )


@pytest.mark.parametrize("library", ["msgspec", "pydantic"])
def test_a_missing_library_is_a_fault(library: str, base: str, missing: Callable[[str], None]) -> None:
    def on_Order(self: Any, payload: Any, conversation_id: str, meta: Any) -> None: ...

    kind = Card if library == "msgspec" else Model
    on_Order.__annotations__["payload"] = kind
    missing(library)
    assert faults(base, {"on_Order": on_Order}, event_routing_keys=["Order"]) == [
        f"on_Order() cannot get its payload: payload is annotated with {kind.__name__}; eda_models needs {library}: "
        f"pip install 'eda-core[{library}]'"
    ]


def test_a_dataclass_needs_a_library_and_a_typed_dict_does_not(base: str, missing: Callable[[str], None]) -> None:
    def on_Address(self: Any, payload: Address, conversation_id: str, meta: Any) -> Any:
        return payload

    missing("msgspec")
    missing("pydantic")
    assert faults(base, {"on_Order": Typed.on_Order}, event_routing_keys=["Order"]) == [
        "on_Order() cannot get its payload: payload is annotated with Order; eda_models needs msgspec: "
        "pip install 'eda-core[msgspec]'"
    ]
    service = made(base, {"on_Address": on_Address}, event_routing_keys=["Address"])
    service.begin_run(lambda _: started(base, {}))
    assert service.handle(Event("Address", {"other": 1}, "c", {})) == {"other": 1}


def test_an_annotation_that_no_message_can_be_read_as_is_a_fault(base: str) -> None:
    class Untagged(msgspec.Struct):
        x: int

    def on_Order(self: Any, payload: Any, conversation_id: str, meta: Any) -> None: ...

    on_Order.__annotations__["payload"] = Untagged | Order
    (fault,) = faults(base, {"on_Order": on_Order}, event_routing_keys=["Order"])
    assert fault.startswith("on_Order() cannot get its payload: payload is annotated with ")
    assert "which no message can be read as: Type unions may not contain more than one dict-like type" in fault


def test_what_names_no_model_has_no_reader() -> None:
    assert reader_for(payloads.AnnotatedPayload("payload", dict)) is None


def test_a_broken_model_is_told() -> None:
    class Broken(pydantic.BaseModel):
        x: Missing

    with pytest.raises(LocalError, match="is annotated with Broken; which no message can be read as: "):
        reader_for(payloads.AnnotatedPayload("payload", Broken))


@pytest.mark.parametrize(
    ("annotation", "rest"),
    [
        (Order | dict[str, Any], Order),
        (Order | Mapping[str, Any] | None, Order | None),
        (Optional[Order], None),  # noqa: UP045
        (Union[Order, dict, list[Order]], Order | list[Order]),  # noqa: UP007
        (Order | dict[str, Order], None),
        (dict[str, Order], None),
        (dict | Mapping, None),
        (Order, None),
    ],
)
def test_a_union_with_a_map_takes_any_map(annotation: Any, rest: Any) -> None:
    assert without_map(annotation) == ((annotation, False) if rest is None else (rest, True))
