"""What is shown of the numbers of a service: values, and a table of what each is called."""

from __future__ import annotations

import inspect
import re
from dataclasses import fields

from eda_core.machine.counts import HANDLER_BOUNDS, Counts
from eda_core.machine.metrics import METERS, HandlerMetrics, Metrics, handler_metrics
from eda_core.messages.values import Command, Event


def test_every_number_has_a_meter() -> None:
    attributes = [each.name for each in fields(Metrics)]
    assert [meter.attribute for meter in METERS] == [name for name in attributes if name not in ("service", "handlers")]


def test_meters_have_names_of_their_own() -> None:
    assert len({meter.name for meter in METERS}) == len(METERS)
    assert all(re.fullmatch(r"[a-z]+(_[a-z]+)*", meter.name) for meter in METERS)
    assert {meter.unit for meter in METERS} == {"delivery", "message", "handler", "call", "link", "attempt", "s", ""}


def test_every_attribute_is_described() -> None:
    described = re.findall(r"^    (\w+): ", inspect.cleandoc(str(Metrics.__doc__)), re.MULTILINE)
    assert described == [each.name for each in fields(Metrics)]


def test_the_handlers_of_a_name_are_counted_by_outcome_and_time() -> None:
    buckets = (3, 0, 2, *[0] * (len(HANDLER_BOUNDS) - 3), 1)
    handlers = HandlerMetrics("event", "A", buckets, 7.5, failed=2, lost=1)
    assert (handlers.count, handlers.succeeded) == (6, 3)
    assert handlers.cumulative() == (3, 3, *[5] * (len(HANDLER_BOUNDS) - 2), 6)


def test_handlers_are_listed_by_kind_and_name() -> None:
    counts = Counts()
    for message in (Command("svc.Do", None, "c", "a.B", ""), Event("B", None, "c"), Event("A", None, "c")):
        times = counts.times_of(message)
        times.buckets[2] += 1
        times.seconds += 0.01
        times.failed += message.name == "A"
    found = handler_metrics(counts)
    assert [(each.kind, each.name, each.count, each.seconds, each.failed, each.lost) for each in found] == [
        ("event", "B", 1, 0.01, 0, 0),
        ("event", "A", 1, 0.01, 1, 0),
        ("command", "svc.Do", 1, 0.01, 0, 0),
    ]
    counts.times_of(Event("A", None, "c")).buckets[2] += 1
    assert [each.count for each in found] == [1, 1, 1], "a value does not change any more"
