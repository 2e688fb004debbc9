"""Makes metrics of Prometheus of the numbers of a service, at each scrape. It counts nothing itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

from prometheus_client import REGISTRY, CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from eda_core import HANDLER_BOUNDS, METERS, HandlerMetrics, LocalError, Meter, Metrics, NotAnswered
from eda_core.services import ServiceApi

_PREFIX: Final = "eda_"
_BOUNDS: Final = (*map(floatToGoString, HANDLER_BOUNDS), "+Inf")


class ServiceCollector(Collector):
    """Gives the numbers of a service to Prometheus (docs/howto/metrics.rst).

    Register it once: ``prometheus_client.REGISTRY.register(ServiceCollector(service))``. A registry takes each name
    once: if several services run in a process, give all of them to one collector. ``eda_probe.HealthServer`` needs no
    such line.

    Args:
        services: of ``eda_aio`` or ``eda_pika``. They may run already, or later.
        timeout: how long to wait for a service, seconds. If it does not answer, its ``eda_answers`` is 0, and nothing
            else is shown of it.

    Raises:
        LocalError: there is no service, or something is none.
    """

    def __init__(self, *services: ServiceApi[Any], timeout: float = 5.0) -> None:
        for service in services or (None,):
            if not isinstance(service, ServiceApi):
                text = "there is no service" if service is None else f"the service is {type(service).__name__}"
                raise LocalError(text, hint="give a service of eda_aio or eda_pika")
        self._services = services
        self._timeout = timeout

    def describe(self) -> Iterable[Metric]:
        """Return the metrics without values. The registry asks for them when this is registered."""
        return families("", None)

    def collect(self) -> Iterator[Metric]:
        """Return the metrics with the numbers of now."""
        yield from _together(family for service in self._services for family in self._of(service))

    def _of(self, service: ServiceApi[Any]) -> Iterator[Metric]:
        try:
            # Not service.metrics(): a service may have a method of its own with this name.
            metrics = ServiceApi.metrics(service, self._timeout)
        except NotAnswered:
            yield _answers(service.logical_service, 0)
            return
        yield from families(metrics.service, metrics)


def families(service: str, metrics: Metrics | None) -> Iterator[Metric]:
    """Return the metrics of a service, without values if ``metrics`` is ``None``."""
    yield _answers(service, None if metrics is None else 1)
    for meter in METERS:
        kind = CounterMetricFamily if meter.counts else GaugeMetricFamily
        family = kind(name_of(meter), meter.text, labels=["service"])
        if metrics is not None:
            family.add_metric([service], float(getattr(metrics, meter.attribute)))
        yield family
    yield from _handlers(service, () if metrics is None else metrics.handlers)


def name_of(meter: Meter) -> str:
    """Return the name of a metric. The library adds ``_total`` to those of counters."""
    return f"{_PREFIX}{meter.name}{'_seconds' if meter.unit == 's' else ''}"


def _answers(service: str, value: int | None) -> Metric:
    family = GaugeMetricFamily(f"{_PREFIX}answers", "Whether the service has answered this scrape", labels=["service"])
    if value is not None:
        family.add_metric([service], value)
    return family


def _handlers(service: str, handlers: Iterable[HandlerMetrics]) -> Iterator[Metric]:
    names = ["service", "kind", "name"]
    ended = CounterMetricFamily(f"{_PREFIX}handlers", "Handlers that have ended", labels=[*names, "outcome"])
    seconds = HistogramMetricFamily(f"{_PREFIX}handler_seconds", "What handlers took", labels=names)
    for each in handlers:
        labels = [service, each.kind, each.name]
        for outcome, count in (("success", each.succeeded), ("failure", each.failed), ("lost", each.lost)):
            ended.add_metric([*labels, outcome], count)
        seconds.add_metric(labels, list(zip(_BOUNDS, map(float, each.cumulative()), strict=True)), each.seconds)
    yield ended
    yield seconds


def _together(families: Iterable[Metric]) -> Iterable[Metric]:
    """Return the metrics, each name once, and each sample once: that which comes first."""
    found: dict[str, Metric] = {}
    for family in families:
        first = found.setdefault(family.name, family)
        if first is not family:
            known = {(each.name, *sorted(each.labels.items())) for each in first.samples}
            first.samples += [each for each in family.samples if (each.name, *sorted(each.labels.items())) not in known]
    return found.values()


class _AndOthers(Collector):
    """The metrics of a service, and those of the default registry, which the program and its libraries have made."""

    def __init__(self, service: ServiceApi[Any], timeout: float) -> None:
        self._own = ServiceCollector(service, timeout=timeout)

    def collect(self) -> Iterator[Metric]:
        # A program may have registered a collector of its own for this service, or for another one.
        yield from _together((*self._own.collect(), *REGISTRY.collect()))


def exposition(service: ServiceApi[Any], timeout: float = 5.0) -> Callable[[str], tuple[str, bytes]]:
    """Return what a scrape calls: a function that returns the type of the content, and the content.

    It takes the header ``Accept`` of the scrape, which decides between the formats of Prometheus and of OpenMetrics.
    The content has the metrics of the service and those of ``prometheus_client.REGISTRY``.
    """
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_AndOthers(service, timeout))

    def expose(accept: str) -> tuple[str, bytes]:
        encode, content_type = choose_encoder(accept)
        return content_type, encode(registry)

    return expose
