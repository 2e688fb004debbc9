"""eventail's names: those that exist here, and the advice about the others."""

from __future__ import annotations

import uuid
import warnings
from types import SimpleNamespace
from typing import Any

import pytest

from eda_core.errors import LocalError
from eda_core.services.api import ServiceApi
from eda_core.services.eventail import (
    _FIXED,
    _GONE,
    _OVERRIDDEN,
    EventailCoroutines,
    EventailNames,
    EventailService,
    ReconnectingSupervisor,
    event_of,
    text_of,
    time_to_stop,
)
from tests.core.kit import URLS, opened


class Service(EventailService[None]):
    def __init__(self) -> None:
        self._eda_introduce(*self.worker_identity())

    def worker_identity(self) -> tuple[str, int]:
        return "box", 7

    def make_input(self, call: Any, *, waits: bool = True) -> None: ...


def test_who_a_worker_is() -> None:
    assert (Service().HOSTNAME, Service().ID) == ("box", 7)


def test_a_subclass_may_name_its_host() -> None:
    class Elsewhere(Service):
        HOSTNAME = "elsewhere"

    assert Elsewhere().HOSTNAME == "elsewhere"


def test_the_exchanges_are_there_to_be_read() -> None:
    service = Service()
    assert (service.EVENT_EXCHANGE, service.CMD_EXCHANGE) == ("events", "commands")
    assert (service.CONFIG_EXCHANGE, service.LOG_EXCHANGE) == ("configurations", "logs")
    types = [name for name in dir(service) if name.endswith("_EXCHANGE_TYPE")]
    assert service.CONFIGURATION_EXCHANGE == "configurations"
    assert [getattr(service, name) for name in types] == ["topic"] * 5


@pytest.mark.parametrize("name", _FIXED)
def test_another_exchange_is_refused(name: str) -> None:
    own: Any = type("Own", (Service,), {name: "mine"})
    with pytest.raises(LocalError, match=rf"Own\.{name} is 'mine', where the architecture has .*do not change it"):
        own()
    fine: Any = type("Fine", (Service,), {name: _FIXED[name]})
    assert fine().ID == 7


@pytest.mark.parametrize("name", _OVERRIDDEN)
def test_a_method_that_nothing_calls_is_warned_of_where_it_is_defined(name: str) -> None:
    with pytest.warns(UserWarning, match=rf"Own\.{name} is never called") as caught:
        type("Own", (Service,), {name: lambda self: None})
    assert caught[0].filename == __file__


def test_other_methods_are_not_warned_of() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        type("Own", (Service,), {"on_Happened": lambda self: None, "connect": lambda self: None})


@pytest.mark.parametrize("name", _GONE)
def test_what_has_gone_says_what_to_do_instead(name: str) -> None:
    with pytest.raises(AttributeError, match=rf"no attribute '{name}', which eventail has; \w+") as caught:
        getattr(Service(), name)
    assert caught.value.name == name


def test_what_never_was_is_missing_as_anywhere() -> None:
    with pytest.raises(AttributeError, match=r"^'Service' object has no attribute 'never'$"):
        getattr(Service(), "never")  # noqa: B009 - a type checker would see it
    assert not hasattr(Service(), "on_Happened")


@pytest.mark.parametrize("name", _GONE)
def test_nothing_is_said_to_have_gone_that_is_there(name: str) -> None:
    assert not hasattr(ServiceApi, name)
    assert not hasattr(EventailNames, name)


@pytest.mark.parametrize("given", [None, 0, 0.0, 2, 2.5])
def test_the_time_to_stop_is_as_given(given: float | None) -> None:
    assert time_to_stop(given, False) == given


def test_eventails_stop_without_reconnecting_is_a_stop() -> None:
    assert time_to_stop(False, False) is None


@pytest.mark.parametrize(("timeout", "reconnect"), [(True, False), (None, True), (False, True), (1.0, True)])
def test_to_stop_and_reconnect_is_refused(timeout: float | None, reconnect: bool) -> None:
    with pytest.raises(LocalError, match="asked to reconnect; lost links are reopened anyway"):
        time_to_stop(timeout, reconnect)


@pytest.mark.parametrize("timeout", [-1, float("nan"), "1"])
def test_a_time_to_stop_that_is_none_is_refused(timeout: Any) -> None:
    with pytest.raises(LocalError, match=r"the timeout of stop\(\) is .*; give seconds"):
        time_to_stop(timeout, False)


def test_an_example_of_eventails_makes_correlation_ids_of_how_much_was_published() -> None:
    made = Published([URLS[0]], ["Happened"], ["svc.Do"], "svc")
    assert (made.ID, made.HOSTNAME, made._message_number) == (7, "box", 0)
    bench = opened()
    made._eda_machine = bench.machine
    bench.publish()
    assert made._message_number == 1


class Published(Service):
    def __init__(self, *arguments: Any) -> None:
        EventailService.__init__(self, *arguments)


def test_a_coroutine_service_is_stopped_as_eventails_was() -> None:
    stopped: list[float | None] = []

    class Stopping(EventailCoroutines):
        def __init__(self) -> None: ...

        def worker_identity(self) -> tuple[str, int]:
            return "box", 7

        def running_driver(self) -> Any:
            return SimpleNamespace(stop=stopped.append)

    def stop(*arguments: Any, **named: Any) -> None:
        with pytest.raises(StopIteration):
            Stopping().stop(*arguments, **named).send(None)

    stop()
    stop(5.0)
    stop(False)
    stop(reconnect=False)
    assert stopped == [None, 5.0, None, None]
    with pytest.raises(LocalError, match="asked to reconnect"):
        Stopping().stop(True).send(None)


def test_an_event_may_be_given_as_eventail_gave_it() -> None:
    number = uuid.uuid4()
    event = event_of({"priority": 3}, ("Happened", {"n": 1}, number))  # type: ignore[arg-type]
    assert (event.name, event.payload, event.conversation_id, event.meta["priority"]) == (
        "Happened",
        {"n": 1},
        str(number),
        3,
    )


@pytest.mark.parametrize("given", ["Happened", ("Happened", 1), 7])
def test_an_event_that_is_given_in_another_way_is_refused(given: Any) -> None:
    with pytest.raises(LocalError, match=r"an event is a \w+; pass \(name, message, conversation_id\)"):
        event_of({}, given)


@pytest.mark.parametrize(("given", "text"), [("c-1", "c-1"), (7, "7"), (None, None)])
def test_a_conversation_id_is_text(given: Any, text: str | None) -> None:
    assert text_of(given) == text


@pytest.mark.parametrize("end", [None, KeyboardInterrupt(), SystemExit(3)])
def test_a_supervisor_makes_and_runs_the_service_until_ctrl_c(end: BaseException | None) -> None:
    made: list[Any] = []

    class Supervised:
        def __init__(self, url: str, *, name: str) -> None:
            self.given = url, name
            made.append(self)

        def run(self) -> None:
            if end is not None:
                raise end

    supervisor = ReconnectingSupervisor(Supervised, "amqp://one/", name="svc")
    assert made == [supervisor.service]
    assert made[0].given == ("amqp://one/", "svc")
    if isinstance(end, SystemExit):
        with pytest.raises(SystemExit):
            supervisor.run()
    else:
        supervisor.run()
