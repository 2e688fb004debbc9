"""What is checked of a service when it starts, in services of both kinds."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from eda_core.errors import LocalError
from eda_core.messages.values import Event
from eda_core.services.callbacks import CallbackService
from eda_core.services.coroutines import CoroutineService
from tests.core.drivers.test_base import Carrier
from tests.core.kit import URLS

BASES: dict[str, Any] = {"callbacks": CallbackService, "coroutines": CoroutineService}


class Runs(Carrier):
    """A driver that says what it was told to report."""

    def reports(self) -> list[str]:
        return [text for what, *rest in self.done if what == "report" for text in rest[1:]]


def _accept(self: Any, *_: Any) -> None: ...


async def _await(self: Any, *_: Any) -> None: ...


def made(base: str, members: dict[str, Any], **keys: list[str]) -> Any:
    identity = {"worker_identity": lambda self: ("box", 7)}
    kind: Any = type("Billing", (BASES[base],), {**identity, **members})
    given = {"event_routing_keys": [], "command_routing_keys": [], "config_routing_keys": [], **keys}
    return kind(URLS[0], logical_service="billing", **given)


def started(base: str, members: dict[str, Any], **keys: list[str]) -> Runs:
    """Its driver, after the checks."""
    driver: Runs = made(base, members, **keys).begin_run(lambda service: Runs(service))
    return driver


def doubts(base: str, members: dict[str, Any], **keys: list[str]) -> list[str]:
    """What is suspicious: the lines of the one report."""
    reports = started(base, members, **keys).reports()
    if not reports:
        return []
    (report,) = reports
    title, *lines = report.split("\n- ")
    assert title == "Billing may not do what it should"
    return lines


def faults(base: str, members: dict[str, Any], **keys: list[str]) -> list[str]:
    """What must be mended: the lines of the one error."""
    service = made(base, members, **keys)
    with pytest.raises(LocalError) as caught:
        service.begin_run(lambda service: Runs(service))
    title, *lines = str(caught.value).split("\n- ")
    assert title == "Billing cannot run"
    return lines


@pytest.fixture(params=list(BASES))
def base(request: pytest.FixtureRequest) -> str:
    return str(request.param)


# Subscriptions and handlers


def test_a_service_whose_subscriptions_have_handlers_is_right(base: str) -> None:
    members = dict.fromkeys(("on_Paid", "on_Charge", "on_ShipReturn", "on_Rates", "on_Left"), _accept)
    keys = {
        "event_routing_keys": ["Paid", "shop.Left"],
        "command_routing_keys": ["billing.Charge", "billing.ShipReturn"],
        "config_routing_keys": ["Rates"],
    }
    assert doubts(base, members, **keys) == []


@pytest.mark.parametrize(
    ("argument", "key"),
    [("event_routing_keys", "Paid"), ("command_routing_keys", "billing.Paid"), ("config_routing_keys", "Paid")],
)
def test_a_subscription_without_a_handler(base: str, argument: str, key: str) -> None:
    text = f"{argument} has {key!r}, but there is no method on_Paid(); define it, or remove the key"
    assert doubts(base, {}, **{argument: [key]}) == [text]


def test_a_handler_without_a_subscription(base: str) -> None:
    text = "on_Paid() is never called: no routing key ends with 'Paid'; subscribe to it"
    assert doubts(base, {"on_Paid": _accept, "on_Left": _accept}, event_routing_keys=["Left"]) == [text]


@pytest.mark.parametrize(
    ("argument", "key", "meant"),
    [
        ("event_routing_keys", "OrderPlacd", "OrderPlaced"),
        ("event_routing_keys", "orderPlaced", "OrderPlaced"),
        ("command_routing_keys", "billing.OrderPlace", "billing.OrderPlaced"),
        ("config_routing_keys", "OrdersPlaced", "OrderPlaced"),
    ],
)
def test_a_misspelt_subscription_and_its_handler_are_told_together(
    base: str, argument: str, key: str, meant: str
) -> None:
    name = key.rpartition(".")[2]
    assert doubts(base, {"on_OrderPlaced": _accept, "on_Left": _accept}, **{argument: [key]}) == [
        f"{argument} has {key!r}, but there is no method on_{name}(), and on_OrderPlaced() is never called; "
        f"do you mean {meant!r}?",
        "on_Left() is never called: no routing key ends with 'Left'; subscribe to it",
    ]


def test_a_handler_that_is_called_is_not_taken_for_a_misspelt_one(base: str) -> None:
    assert doubts(base, {"on_OrderPlaced": _accept}, event_routing_keys=["OrderPlaced", "OrdersPlaced"]) == [
        "event_routing_keys has 'OrdersPlaced', but there is no method on_OrdersPlaced(); define it, or remove the key"
    ]


def test_what_is_no_handler_by_its_name_needs_no_subscription(base: str) -> None:
    assert doubts(base, {"on_timeout": _accept, "on_ready": lambda self: None, "on_": _accept, "on_X": 7}) == []


@pytest.mark.parametrize("key", ["#", "*", "shop.*", "shop.#"])
def test_a_subscription_with_wildcards_may_call_any_handler(base: str, key: str) -> None:
    assert doubts(base, {"on_Paid": _accept}, event_routing_keys=[key]) == []


@pytest.mark.parametrize("method", ["handle", "handle_event"])
def test_a_service_that_finds_its_handlers_itself_is_not_checked(base: str, method: str) -> None:
    members = {method: lambda self, *_, **named: None, "on_Left": _accept}
    assert doubts(base, members, event_routing_keys=["Paid"]) == []


def test_a_handler_that_is_found_by_getattr_is_there(base: str) -> None:
    members = {"__getattr__": lambda self, name: _accept.__get__(self)}
    assert doubts(base, members, event_routing_keys=["Paid"]) == []


# Keys in the wrong list


def _commands(self: Any, payload: Any, conversation_id: str, reply_to: str, correlation_id: str, meta: Any) -> None: ...


def _results(self: Any, payload: Any, conversation_id: str, status: str, correlation_id: str, meta: Any) -> None: ...


def _events(self: Any, payload: Any, conversation_id: str, meta: Any, *more: Any) -> None: ...


def _both(self: Any, payload: Any, conversation_id: str, meta: Any, reply_to: str = "") -> None: ...


@pytest.mark.parametrize(("key", "handler"), [("billing.Charge", _accept), ("shop.Charge", _both)])
def test_a_command_among_the_events(base: str, key: str, handler: Any) -> None:
    text = f"event_routing_keys has {key!r}, which looks like a command; commands belong to command_routing_keys"
    assert doubts(base, {"on_Charge": handler}, event_routing_keys=[key]) == [text]


def test_an_event_with_a_dot_is_one(base: str) -> None:
    assert doubts(base, {"on_Paid": _events}, event_routing_keys=["shop.Paid"]) == []


def test_an_event_among_the_commands(base: str) -> None:
    text = "command_routing_keys has 'Paid', which looks like an event; events belong to event_routing_keys"
    assert doubts(base, {"on_Paid": lambda self, *_: None}, command_routing_keys=["Paid"]) == [text]


def test_a_command_of_another_service(base: str) -> None:
    assert doubts(base, {"on_Ship": _commands}, command_routing_keys=["shipping.Ship"]) == [
        "command_routing_keys has 'shipping.Ship', which looks like a command of the service shipping: both services "
        "would answer it; the commands of this service begin with 'billing.'"
    ]


@pytest.mark.parametrize("key", ["shop.ShipReturn", "replies", "billing.ShipReturn"])
def test_a_result_may_have_any_key(base: str, key: str) -> None:
    name = f"on_{key.rpartition('.')[2]}"
    assert doubts(base, {name: _results}, command_routing_keys=[key]) == []


# Handlers that cannot do their work


@pytest.mark.parametrize(
    ("kind", "keys", "expected"),
    [
        ("an event", {"event_routing_keys": ["Paid"]}, "payload, conversation_id, meta"),
        (
            "a command",
            {"command_routing_keys": ["billing.Paid"]},
            "payload, conversation_id, reply_to, correlation_id, meta",
        ),
        ("a result", {"command_routing_keys": ["x.Paid"]}, "payload, conversation_id, status, correlation_id, meta"),
        ("a configuration", {"config_routing_keys": ["Paid"]}, "payload, meta"),
        ("an event", {"event_routing_keys": ["#"]}, "payload, conversation_id, meta"),
    ],
)
def test_a_wrong_signature_is_shown_beside_the_right_one(
    base: str, kind: str, keys: dict[str, list[str]], expected: str
) -> None:
    def on_Paid(self: Any, payload: dict[str, Any]) -> None: ...

    assert faults(base, {"on_Paid": on_Paid}, **keys) == [
        f"on_Paid(payload) cannot be called: the handler of {kind} is called as on_Paid({expected})"
    ]


@pytest.mark.parametrize(
    "handler",
    [
        _accept,
        lambda self, payload, conversation_id, meta, more=1: None,
        lambda self, a, b, c: None,
        lambda self, payload, *rest, key=1, **named: None,
    ],
)
def test_a_signature_may_be_wider(base: str, handler: Any) -> None:
    assert doubts(base, {"on_Paid": handler}, event_routing_keys=["Paid"]) == []


@pytest.mark.parametrize(
    "handler", [lambda self, a, b, c, d: None, lambda self, a, b, *, meta: None, lambda self, a, b, c, *, more: None]
)
def test_a_signature_that_demands_more_is_wrong(base: str, handler: Any) -> None:
    (line,) = faults(base, {"on_Paid": handler}, event_routing_keys=["Paid"])
    assert line.endswith(
        " cannot be called: the handler of an event is called as on_Paid(payload, conversation_id, meta)"
    )


def test_the_signatures_of_hooks_and_of_overridden_methods_are_checked(base: str) -> None:
    members = {
        "on_ready": lambda self, connection: None,
        "handle_event": lambda self, event, payload, conversation_id, metadata: None,
        "handle_returned_message": lambda self, key: None,
    }
    assert faults(base, members) == [
        "handle_event(event, payload, conversation_id, metadata) cannot be called: handle_event() is called as "
        "handle_event(event, payload, conversation_id, meta=meta)",
        "handle_returned_message(key) cannot be called: handle_returned_message() is called as "
        "handle_returned_message(key, payload, envelope)",
        "on_ready(connection) cannot be called: on_ready() is called as on_ready()",
    ]


class Unknown:
    """A callable whose signature cannot be found out, as that of some functions in C."""

    __signature__ = "unknown"

    def __call__(self) -> None: ...


def test_a_signature_that_python_does_not_know_is_not_checked(base: str) -> None:
    assert doubts(base, {"on_Paid": Unknown()}, event_routing_keys=["Paid"]) == []


def test_a_handler_of_several_kinds_is_checked_for_those_that_are_known(base: str) -> None:
    assert doubts(base, {"on_Paid": lambda self: None}, event_routing_keys=["#"], command_routing_keys=["#"]) == []


def test_all_faults_are_told_at_once(base: str) -> None:
    def on_Paid(self: Any) -> Iterator[int]:
        yield 1

    lines = faults(base, {"on_Paid": on_Paid, "on_Left": lambda self: None}, event_routing_keys=["Paid", "Left"])
    assert len(lines) == 3
    assert "on_Paid() has a yield, so that calling it does nothing; remove the yield" in lines


def test_a_coroutine_function_is_a_fault_where_nothing_is_awaited() -> None:
    text = (
        "async def {0}() would never be run, because this service awaits nothing; write def {0}(), or derive the "
        "service from eda_aio.Service"
    )
    members = {"on_Paid": _await, "on_ready": _await, "on_Left": _await}
    lines = faults("callbacks", members, event_routing_keys=["Paid"])
    assert lines == [text.format("on_Paid"), text.format("on_ready")]
    assert doubts("coroutines", members, event_routing_keys=["Paid", "Left"]) == []


def _publishes(self: Any, payload: Any, conversation_id: str, meta: Any) -> None:
    self.publish_event("Told", payload, conversation_id)


def test_a_publish_that_is_not_awaited_is_a_fault_where_methods_are_awaited() -> None:
    """tests/core/services/test_unawaited.py has all that is found."""
    (line,) = faults("coroutines", {"on_Paid": _publishes}, event_routing_keys=["Paid"])
    assert line.startswith("on_Paid() calls self.publish_event(…) in line ")
    assert doubts("callbacks", {"on_Paid": _publishes}, event_routing_keys=["Paid"]) == []


def test_a_plain_function_may_return_what_is_to_be_awaited() -> None:
    def on_Paid(self: Any, payload: Any, conversation_id: str, meta: Any) -> Any:
        return self.publish_event("Told", payload, conversation_id)

    assert doubts("coroutines", {"on_Paid": on_Paid}, event_routing_keys=["Paid"]) == []


def _wrapped(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def call(*arguments: Any) -> Any:
        return function(*arguments)

    return call


def test_a_wrapper_of_a_coroutine_function_is_none_of_these() -> None:
    async def on_Paid(self: Any, payload: Any, conversation_id: str, meta: Any) -> None:
        await self.publish_event("Told", payload, conversation_id)

    for wrapped in (_wrapped(on_Paid), functools.partialmethod(on_Paid)):
        assert doubts("coroutines", {"on_Paid": wrapped}, event_routing_keys=["Paid"]) == []
    assert asyncio.iscoroutinefunction(on_Paid)


# The constructor


def test_a_constructor_that_forgets_its_base_class_is_told_so(base: str) -> None:
    identity = {"worker_identity": lambda self: ("box", 7)}
    kind: Any = type("Billing", (BASES[base],), {**identity, "__init__": lambda self: None})
    service = kind()
    uses: tuple[Callable[[], Any], ...] = (
        lambda: service.begin_run(Runs),
        lambda: service.running_driver(),
        lambda: service.call_later(1.0, print),
        lambda: service.use_json(),
        lambda: service.exclusive_queues,
    )
    for use in uses:
        with pytest.raises(
            LocalError, match="the constructor of Billing has not called that of its base class; call s"
        ):
            use()


# Settings


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("PREFETCH", "PREFETCH_COUNT"),
        ("HEARTBEATS", "HEARTBEAT"),
        ("RETRYPOLICY", "RETRY_POLICY"),
        ("CONNECTION_TIMEOUT", "CONNECT_TIMEOUT"),
        ("LIMIT", "LIMITS"),
    ],
)
@pytest.mark.parametrize("base", BASES)
def test_a_misspelt_setting_is_named_with_the_nearest_one(base: str, name: str, near: str) -> None:
    (report,) = started(base, {name: 3}).reports()
    assert f"{name} is no setting, and is ignored; do you mean {near}?" in report


def test_a_misspelt_setting_of_a_base_class_or_of_the_constructor_is_named_too() -> None:
    class Base(CallbackService):
        PREFETCH = 3

        def __init__(self) -> None:
            super().__init__(URLS[0], [], [], "billing")
            self.HEARTBEATS = 5

        def worker_identity(self) -> tuple[str, int]:
            return "box", 7

    class Derived(Base):
        pass

    (report,) = Derived().begin_run(lambda service: Runs(service)).reports()
    assert "do you mean PREFETCH_COUNT?" in report
    assert "do you mean HEARTBEAT?" in report


@pytest.mark.parametrize("name", ["PREFETCH_COUNT", "HELD", "TAX_RATE", "_PREFETCH", "Prefetch", "ID"])
def test_settings_and_constants_of_ones_own_are_no_mistake(name: str) -> None:
    assert started("callbacks", {name: 3}).reports() == []


# Typed payloads (more in test_payloads)


@dataclass
class Model:
    number: int


def test_a_payload_may_be_a_model(base: str) -> None:
    def on_Paid(self: Any, payload: Model, conversation_id: str, meta: Any) -> Any:
        return payload

    service = made(base, {"on_Paid": on_Paid}, event_routing_keys=["Paid"])
    service.begin_run(lambda service: Runs(service))
    assert service.handle(Event("Paid", {"number": 7}, "c", {})) == Model(7)


def test_a_service_may_take_payloads_as_they_come_whatever_their_annotations(base: str) -> None:
    def on_Paid(self: Any, payload: Model | dict[str, Model], conversation_id: str, meta: Any) -> Any:
        return payload

    service = made(base, {"on_Paid": on_Paid, "TYPED_PAYLOADS": False}, event_routing_keys=["Paid"])
    service.begin_run(lambda service: Runs(service))
    assert service.handle(Event("Paid", {"number": 7}, "c", {})) == {"number": 7}


def test_a_payload_whose_annotation_is_not_there_or_cannot_be_read_is_told(base: str) -> None:
    def on_Paid(self: Any, payload: Nowhere, conversation_id: str, meta: Any) -> None:  # type: ignore[name-defined]  # noqa: F821
        ...

    def on_Left(self: Any, payload: Model | dict[str, Model], conversation_id: str, meta: Any) -> None: ...

    (doubt,) = doubts(base, {"on_Paid": on_Paid}, event_routing_keys=["Paid"])
    assert doubt.startswith("on_Paid() gets its payload as it comes: the annotation of payload, 'Nowhere', cannot be ")
    (fault,) = faults(base, {"on_Left": on_Left}, event_routing_keys=["Left"])
    assert fault.startswith("on_Left() cannot get its payload: payload is annotated with ")
