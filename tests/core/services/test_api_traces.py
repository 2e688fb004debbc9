"""Traces of services: what is told of their publishes, and in whose name."""

from __future__ import annotations

from typing import Any

import pytest

from eda_core.errors import LocalError, StateError
from eda_core.machine.effects import Publish
from eda_core.messages.values import Event
from eda_core.services.callbacks import CallbackService
from tests.core.drivers.jobs import Runs, Service, running
from tests.core.drivers.traces import Traces, current
from tests.core.kit import URLS, of


def traced(kind: type[Service] = Service) -> tuple[Service, Runs, Traces]:
    service, driver = running(kind)
    service._eda_tracing = driver.tracing = traces = Traces()
    return service, driver, traces


def test_traces_are_asked_for_before_the_service_runs() -> None:
    service, traces = Service(URLS[0], ["Happened"], [], "svc"), Traces()
    assert not service.traced
    service.trace_by(traces)
    assert service.traced
    driver = service.begin_run(Runs)
    assert driver.tracing is traces
    service._eda_machine = driver.machine
    with pytest.raises(StateError, match=r"trace_by\(\) comes too late"):
        service.trace_by(traces)


def test_a_publish_outside_of_handlers_belongs_to_the_trace_of_its_caller() -> None:
    service, driver, traces = traced()
    token = current.set("caller")
    meta: dict[str, Any] = {"mine": 1}
    message = Event("Told", 1, "c-1", meta)
    service.publish_message(message, mandatory=False)
    current.reset(token)
    assert traces.told == [("sending", "Told", "", "caller"), ("accepted", "tok-1"), ("sent", "NoneType")]
    headers = of(Publish, driver.link.asked)[0].properties.headers or {}
    assert (headers["trace"], headers["mine"], meta) == ("caller", 1, {"mine": 1})


@pytest.mark.parametrize("immediate", [False, True])
def test_a_publish_in_a_handler_belongs_to_its_trace(immediate: bool) -> None:
    class Relay(Service):
        def on_Happened(self, *_: Any) -> None:
            self.publish_event("Told", 1, "c-1", immediate=immediate)

    _, driver, traces = traced(Relay)
    driver.take()
    driver.work()
    assert traces.told == [
        ("handling", "Happened", 1),
        ("sending", "Told", "" if immediate else "held", "Happened"),
        ("accepted", "tok-1"),
        ("sent", "NoneType"),
        ("left", "Happened", "NoneType"),
        ("end", "Happened", ""),
    ]
    assert (of(Publish, driver.link.asked)[0].properties.headers or {})["trace"] == "Happened"


def test_the_trace_of_a_publish_that_is_refused_has_its_error() -> None:
    service, _, traces = traced()
    with pytest.raises(LocalError):
        service.publish_event("", 1, "c-1")
    assert traces.told == [("sending", "", "", ""), ("sent", "LocalError")]


def test_without_traces_a_message_is_published_as_it_is() -> None:
    service, driver = running()
    assert isinstance(service, CallbackService)
    service.publish_event("Told", 1, "c-1")
    assert (of(Publish, driver.link.asked)[0].properties.headers or {}) == {"conversation_id": "c-1"}
