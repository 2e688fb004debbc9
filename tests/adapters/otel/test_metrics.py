"""The numbers of a service as metrics of OpenTelemetry, read by the SDK's own reader."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, NumberDataPoint

from eda_core import HANDLER_BOUNDS, METERS, Event, LocalError, Metrics, NotAnswered, StateError
from eda_core.machine.counts import MOST_NAMES
from eda_core.machine.outcomes import DONE, Failed
from eda_core.services import ServiceApi
from eda_otel import measure
from eda_otel.metrics import _Times, name_of
from tests.support.services import BrokerUnderTest, Probe, asynchronous, conversation, running

Points = dict[tuple[str, frozenset[tuple[str, Any]]], Any]


def collected(reader: InMemoryMetricReader) -> Points:
    """The points of a collection, by the name of the metric and the attributes. None comes twice."""
    found: Points = {}
    data = reader.get_metrics_data()
    for resource in data.resource_metrics if data is not None else ():
        for scope in resource.scope_metrics:
            for metric in scope.metrics:
                for point in metric.data.data_points:
                    key = metric.name, frozenset((point.attributes or {}).items())
                    assert key not in found
                    found[key] = point
    return found


def key(name: str, attributes: Mapping[str, Any]) -> tuple[str, frozenset[tuple[str, Any]]]:
    return name, frozenset(attributes.items())


class Handling(Probe):
    """Its handler fails if it is told to."""

    async def on_Happened(self, payload: Any, conversation_id: str, meta: dict[str, Any]) -> None:
        self.seen.add(payload)
        if payload == "bad":
            raise KeyError("on purpose")


@asynchronous
async def test_what_a_service_does_is_measured(broker: BrokerUnderTest) -> None:
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader])
    service = Handling(broker.url, ["Happened"])
    measure(service, provider)
    async with running(service):
        await service.publish_event("Happened", "good", conversation())
        await service.publish_event("Happened", "bad", conversation())
        await service.seen.count(3)
        while service.metrics().dead_lettered < 1:
            await asyncio.sleep(0.01)
        found = collected(reader)
    provider.shutdown()
    of = {"eda.service": "probe"}
    assert found[key("eda.deliveries.received", of)].value == 3
    assert found[key("eda.deliveries.dead_lettered", of)].value == 1
    assert found[key("eda.ready", of)].value == 1
    of |= {"messaging.system": "rabbitmq"}
    assert found[key("messaging.client.sent.messages", {**of, "messaging.operation.name": "send"})].value == 2
    assert found[key("messaging.client.consumed.messages", {**of, "messaging.operation.name": "deliver"})].value == 3
    of |= {"messaging.operation.name": "process", "messaging.operation.type": "process"}
    of |= {"eda.message.kind": "event", "eda.message.name": "Happened"}
    good = found[key("messaging.process.duration", of)]
    assert (good.count, tuple(good.explicit_bounds)) == (1, HANDLER_BOUNDS)
    assert found[key("messaging.process.duration", {**of, "error.type": "KeyError"})].count == 2


class Made(Probe):
    """It is not run: its numbers are made up."""

    def __init__(self) -> None:
        super().__init__("amqp://localhost/", name="svc")


@pytest.fixture
def numbers(monkeypatch: pytest.MonkeyPatch) -> list[Metrics | NotAnswered]:
    """What the services say, one answer for each time that one is asked."""
    answers: list[Metrics | NotAnswered] = []

    def metrics(service: ServiceApi[Any], timeout: float = 5.0) -> Metrics:
        found = answers.pop(0)
        if isinstance(found, NotAnswered):
            raise found
        return found

    monkeypatch.setattr(ServiceApi, "metrics", metrics)
    return answers


@asynchronous
async def test_each_number_is_told_by_one_look_at_the_service(numbers: list[Metrics | NotAnswered]) -> None:
    values: dict[str, Any] = {meter.attribute: number for number, meter in enumerate(METERS, 1)}
    numbers.append(Metrics(service="svc", handlers=(), **values))
    reader = InMemoryMetricReader()
    measure(Made(), MeterProvider([reader], shutdown_on_exit=False))
    found = collected(reader)
    for meter in METERS:
        point: NumberDataPoint = found[key(name_of(meter), {"eda.service": "svc"})]
        assert point.value == values[meter.attribute], "and there was one answer only"


@asynchronous
async def test_a_service_that_does_not_answer_is_left_out(numbers: list[Metrics | NotAnswered]) -> None:
    numbers.append(NotAnswered("busy"))
    reader = InMemoryMetricReader()
    measure(Made(), MeterProvider([reader], shutdown_on_exit=False))
    assert collected(reader) == {}


@asynchronous
async def test_the_number_of_names_is_bounded() -> None:
    reader = InMemoryMetricReader()
    times = _Times(Made(), MeterProvider([reader], shutdown_on_exit=False).get_meter("test"))
    for number in range(MOST_NAMES + 3):
        times.record(Event(f"E{number}", None, "c"), 0.002, DONE)
    times.record(Event("E0", None, "c"), 0.002, Failed("no"))
    found = collected(reader)
    names = [dict(attributes)["eda.message.name"] for _, attributes in found]
    assert len(names) == MOST_NAMES + 2
    assert names.count("E0") == 2
    assert {dict(attributes).get("error.type") for _, attributes in found} == {None, "_OTHER"}
    (other,) = [point for (_, attributes), point in found.items() if ("eda.message.name", "other") in attributes]
    assert other.count == 3


def test_names_are_in_the_namespace_of_the_toolkit() -> None:
    named = {meter.name: name_of(meter) for meter in METERS}
    assert named["deliveries_in_flight"] == "eda.deliveries.in_flight"
    assert named["ready"] == "eda.ready"


@asynchronous
async def test_a_service_that_runs_is_refused(broker: BrokerUnderTest) -> None:
    service = Probe(broker.url)
    async with running(service):
        with pytest.raises(StateError, match=r"time_handlers_by\(\) comes too late"):
            measure(service, MeterProvider(shutdown_on_exit=False))
    wrong: Any = object()
    with pytest.raises(LocalError, match="the service is object"):
        measure(wrong)


@pytest.mark.parametrize("name", ["first", "second"])
@asynchronous
async def test_a_process_may_have_several_services(name: str) -> None:
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader], shutdown_on_exit=False)
    for each in ("first", name):
        measure(Probe("amqp://localhost/", name=each), provider)
    data = reader.get_metrics_data()
    assert data is not None
    scopes = [scope for resource in data.resource_metrics for scope in resource.scope_metrics]
    assert [(scope.scope.attributes or {})["eda.service"] for scope in scopes] == ["first", name]
    for scope in scopes:
        assert {meter.name for meter in scope.metrics} >= {name_of(meter) for meter in METERS}
