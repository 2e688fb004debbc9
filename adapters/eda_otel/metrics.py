"""The numbers of a service as metrics of OpenTelemetry, and the times of its handlers.

The core counts. At each collection of metrics this module takes the numbers of that moment. Only the times of handlers
are recorded when a handler ends, because OpenTelemetry has no other way to make a histogram.

Source: OpenTelemetry's semantic conventions for messaging metrics, version 1.40.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable
from typing import Any, Final

from opentelemetry import metrics
from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation

from eda_core import HANDLER_BOUNDS, METERS, AnyMessage, LocalError, Meter, Metrics, NotAnswered, Outcome
from eda_core._version import __version__
from eda_core.machine.counts import KINDS, MOST_NAMES, OTHER
from eda_core.machine.outcomes import Failed
from eda_core.messages.values import Message
from eda_core.services import ServiceApi

#: Numbers that are younger than this, in seconds, belong to the same collection: each instrument asks for them.
_SAME: Final = 0.1
_UNITS: Final = {"s": "s", "": "1"}
_SYSTEM: Final = {"messaging.system": "rabbitmq"}
#: The attribute for the logical service. A resource has one service.name, and a process may run several services.
_SERVICE: Final = "eda.service"
#: The numbers of the services that are measured in this process.
_NUMBERS: Final = itertools.count(1)


def measure(service: ServiceApi[Any], meter_provider: MeterProvider | None = None, timeout: float = 5.0) -> None:
    """Give the numbers of a service to OpenTelemetry (docs/howto/metrics.rst).

    Args:
        service: of ``eda_aio`` or ``eda_pika``. Call this once, before it runs.
        meter_provider: who collects the metrics; by default the global one.
        timeout: how long a collection waits for the service, seconds. If it does not answer, its numbers are left out.

    Raises:
        LocalError: ``service`` is no service.
        StateError: the service runs already.
    """
    if not isinstance(service, ServiceApi):
        raise LocalError(f"the service is {type(service).__name__}", hint="give a service of eda_aio or eda_pika")
    # A meter of its own for each service: of two instruments of one meter with the same name, the SDK asks only one.
    scope: dict[str, str | int] = {_SERVICE: service.logical_service, "eda.number": next(_NUMBERS)}
    meter = metrics.get_meter("eda_otel", __version__, meter_provider, attributes=scope)
    numbers = _Numbers(service, timeout)
    service.time_handlers_by(_Times(service, meter).record)
    for each in METERS:
        make = meter.create_observable_counter if each.counts else meter.create_observable_gauge
        unit = _UNITS.get(each.unit) or f"{{{each.unit}}}"
        make(name_of(each), [numbers.of(each.attribute)], unit, each.text)
    meter.create_observable_counter(
        "messaging.client.sent.messages", [numbers.sent], "{message}", "Messages that were sent to the broker"
    )
    meter.create_observable_counter(
        "messaging.client.consumed.messages", [numbers.consumed], "{message}", "Messages that the broker delivered"
    )


def name_of(meter: Meter) -> str:
    """Return the name of an instrument, such as ``eda.deliveries.received``."""
    return f"eda.{meter.name.replace('_', '.', 1)}"


class _Numbers:
    """The numbers of a service for the instruments of one collection."""

    def __init__(self, service: ServiceApi[Any], timeout: float) -> None:
        self._service = service
        self._timeout = timeout
        self._attributes = {_SERVICE: service.logical_service}
        self._taken: tuple[float, Metrics | None] = (float("-inf"), None)

    def now(self) -> Metrics | None:
        """Return the numbers of now; ``None`` if the service does not answer."""
        at, found = self._taken
        if time.monotonic() - at > _SAME:
            try:
                found = ServiceApi.metrics(self._service, self._timeout)
            except NotAnswered:
                found = None
            self._taken = time.monotonic(), found
        return found

    def of(self, attribute: str) -> Callable[[CallbackOptions], Iterable[Observation]]:
        """Return what an instrument asks for one of the numbers."""

        def observe(options: CallbackOptions) -> Iterable[Observation]:
            found = self.now()
            if found is not None:
                value = getattr(found, attribute)
                yield Observation(int(value) if isinstance(value, bool) else value, self._attributes)

        return observe

    def sent(self, options: CallbackOptions) -> Iterable[Observation]:
        """Return how many messages the broker has confirmed, and how many it does not take."""
        found = self.now()
        if found is not None:
            attributes = {**_SYSTEM, **self._attributes, "messaging.operation.name": "send"}
            yield Observation(found.confirmed, attributes)
            yield Observation(found.unsendable, {**attributes, "error.type": "unsendable"})

    def consumed(self, options: CallbackOptions) -> Iterable[Observation]:
        """Return how many messages the broker has delivered."""
        found = self.now()
        if found is not None:
            yield Observation(found.received, {**_SYSTEM, **self._attributes, "messaging.operation.name": "deliver"})


class _Times:
    """The histogram of the times of handlers."""

    def __init__(self, service: ServiceApi[Any], meter: metrics.Meter) -> None:
        self._attributes = {
            **_SYSTEM,
            _SERVICE: service.logical_service,
            "messaging.operation.name": "process",
            "messaging.operation.type": "process",
        }
        self._histogram = meter.create_histogram(
            "messaging.process.duration",
            "s",
            "How long handlers took",
            explicit_bucket_boundaries_advisory=HANDLER_BOUNDS,
        )
        #: The names that have numbers of their own, by the type of message, as in the core.
        self._names: dict[type[Message], set[str]] = {kind: set() for kind in KINDS}

    def record(self, message: AnyMessage, seconds: float, outcome: Outcome) -> None:
        """Record the time of a handler that has ended."""
        kind = next(each for each in KINDS if isinstance(message, each))
        names, name = self._names[kind], message.name
        if name not in names:
            if len(names) < MOST_NAMES:
                names.add(name)
            else:
                name = OTHER
        attributes = {**self._attributes, "eda.message.kind": KINDS[kind], "eda.message.name": name}
        if isinstance(outcome, Failed):
            attributes["error.type"] = outcome.error or "_OTHER"
        self._histogram.record(seconds, attributes)
