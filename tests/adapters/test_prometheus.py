"""The numbers of a service as metrics of Prometheus: their names, their values, and that none is counted twice."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import replace
from typing import Any

import pytest
from prometheus_client import REGISTRY, CollectorRegistry, Counter, generate_latest
from prometheus_client.parser import text_string_to_metric_families

import eda_pika
from eda_core import HANDLER_BOUNDS, METERS, HandlerMetrics, LocalError, Metrics, NotAnswered
from eda_prometheus import ServiceCollector, exposition
from eda_prometheus.collector import families, name_of

NUMBERS: dict[str, Any] = {meter.attribute: number for number, meter in enumerate(METERS, 1)}
BUCKETS = (1, 2, *[0] * (len(HANDLER_BOUNDS) - 2), 4)
HANDLERS = (
    HandlerMetrics("event", "Happened", BUCKETS, 12.5, failed=2, lost=1),
    HandlerMetrics("command", 'svc."Do"\n', BUCKETS, 0.5, failed=0, lost=0),
)
METRICS = Metrics(service="svc", handlers=HANDLERS, **NUMBERS)


class Service(eda_pika.Service):
    """Its numbers are made up."""

    made_up: Metrics | NotAnswered = METRICS

    def __init__(self) -> None:
        super().__init__("amqp://localhost/", [], [], "svc")


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Service:
    def metrics(service: Service, timeout: float = 5.0) -> Metrics:
        if isinstance(service.made_up, NotAnswered):
            raise service.made_up
        return service.made_up

    monkeypatch.setattr("eda_core.services.ServiceApi.metrics", metrics)
    return Service()


def scraped(registry: CollectorRegistry) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """What a scrape finds, as Prometheus reads it: the values by name and labels. None comes twice."""
    text = generate_latest(registry).decode()
    samples = [each for family in text_string_to_metric_families(text) for each in family.samples]
    found = {(each.name, frozenset(each.labels.items())): each.value for each in samples}
    assert len(found) == len(samples)
    return found


def test_several_services_have_one_collector(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    other = Service()
    other.made_up = replace(METRICS, service="other", published=1234)
    registry = CollectorRegistry()
    registry.register(ServiceCollector(service, other))
    found = scraped(registry)
    name = f"{name_of(next(each for each in METERS if each.attribute == 'published'))}_total"
    assert found[name, frozenset({("service", "other")})] == 1234
    assert found[name, frozenset({("service", "svc")})] == NUMBERS["published"]
    monkeypatch.setattr("eda_prometheus.collector.REGISTRY", registry)
    told = exposition(service)("text/plain")[1].decode()
    assert told.count(f'{name}{{service="other"}} 1234.0') == told.count(f'{name}{{service="svc"}}') == 1


def registered(service: Service) -> CollectorRegistry:
    registry = CollectorRegistry()
    registry.register(ServiceCollector(service))
    return registry


def labels(**named: str) -> frozenset[tuple[str, str]]:
    return frozenset({"service": "svc", **named}.items())


def test_each_number_has_its_name_and_its_value(service: Service) -> None:
    found = scraped(registered(service))
    for meter in METERS:
        name = name_of(meter) + ("_total" if meter.counts else "")
        assert found[name, labels()] == NUMBERS[meter.attribute]
    assert found["eda_answers", labels()] == 1


def test_handlers_are_told_by_kind_name_and_outcome(service: Service) -> None:
    found = scraped(registered(service))
    of = {"kind": "event", "name": "Happened"}
    outcomes = {outcome: found["eda_handlers_total", labels(**of, outcome=outcome)] for outcome in ("success", "lost")}
    assert outcomes == {"success": 4, "lost": 1}
    assert found["eda_handlers_total", labels(**of, outcome="failure")] == 2
    assert found["eda_handler_seconds_sum", labels(**of)] == 12.5
    assert found["eda_handler_seconds_count", labels(**of)] == 7
    bounds = {"0.001": 1, "0.005": 3, "1.0": 3, "300.0": 3, "+Inf": 7}
    assert {bound: found["eda_handler_seconds_bucket", labels(**of, le=bound)] for bound in bounds} == bounds
    assert found["eda_handler_seconds_count", labels(kind="command", name='svc."Do"\n')] == 7


def test_names_follow_the_conventions_of_prometheus() -> None:
    for family in families("svc", METRICS):
        assert re.fullmatch(r"eda_[a-z]+(_[a-z]+)*", family.name)
        assert not family.name.endswith(("_total", "_count", "_sum", "_bucket")), "the library adds that"
        assert family.documentation
        assert not family.documentation.endswith(".")
    assert name_of(next(meter for meter in METERS if meter.unit == "s")) == "eda_deliveries_oldest_seconds"


def test_what_is_described_is_what_is_collected(service: Service) -> None:
    collector = ServiceCollector(service)
    described, collected = list(collector.describe()), list(collector.collect())
    assert [(each.name, each.type) for each in described] == [(each.name, each.type) for each in collected]
    assert not any(each.samples for each in described)


def test_two_collectors_of_one_registry_are_refused(service: Service) -> None:
    registry = registered(service)
    with pytest.raises(ValueError, match="Duplicated"):
        registry.register(ServiceCollector(service))


def test_a_service_that_does_not_answer_is_told_and_nothing_else(service: Service) -> None:
    service.made_up = NotAnswered("busy")
    assert scraped(registered(service)) == {("eda_answers", labels()): 0}


def test_a_collector_needs_a_service() -> None:
    wrong: Any = object()
    with pytest.raises(LocalError, match="there is no service; give a service"):
        ServiceCollector()
    with pytest.raises(LocalError, match="the service is object"):
        ServiceCollector(wrong)


def test_the_exposition_has_the_programs_own_metrics_and_nothing_twice(service: Service) -> None:
    own, collector = Counter("orders", "Orders", registry=None), ServiceCollector(service)
    REGISTRY.register(own)
    REGISTRY.register(collector)
    try:
        content_type, body = exposition(service)("")
    finally:
        REGISTRY.unregister(collector)
        REGISTRY.unregister(own)
    assert content_type.startswith("text/plain")
    lines = [line for line in body.decode().splitlines() if not line.startswith("#")]
    assert len(lines) == len({line.rpartition(" ")[0] for line in lines})
    assert "orders_total 0.0" in lines
    assert 'eda_ready{service="svc"} ' + f"{float(NUMBERS['ready'])}" in lines


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed: apt-get install -y prometheus")
def test_prometheus_finds_nothing_wrong_with_the_metrics(service: Service) -> None:
    done = subprocess.run(
        ["promtool", "check", "metrics"], input=generate_latest(registered(service)), capture_output=True, timeout=60
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
