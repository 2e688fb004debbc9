"""What is told of a message that the machine accepts, or does not."""

from __future__ import annotations

from typing import Any

import pytest

from eda_core.drivers.tracing import Noting
from eda_core.errors import LocalError
from eda_core.machine.effects import Publish
from eda_core.messages.values import Event
from tests.core.drivers.traces import NotedSending, Traces
from tests.core.kit import Bench, of, opened


def noting(bench: Bench) -> tuple[Noting, list[tuple[Any, ...]]]:
    traces = Traces()
    return Noting(bench.machine, NotedSending(traces, ())), traces.told


def test_the_id_of_a_message_is_told_when_the_machine_accepts_it() -> None:
    bench = opened()
    machine, told = noting(bench)
    for method, arguments in (
        (machine.publish, {"message": Event("Told", 1, "c")}),
        (machine.call, {"command": "peer.Do", "payload": 1, "ticket": 1, "timeout": 5.0}),
    ):
        bench.did(method(now=bench.now, **arguments))
    assert told == [("accepted", "tok-1"), ("accepted", "tok-2")]
    assert of(Publish, bench.seen)[0].properties.message_id == "tok-1"


def test_a_message_that_the_machine_does_not_accept_has_none() -> None:
    bench = opened()
    machine, told = noting(bench)
    with pytest.raises(LocalError):
        machine.publish(Event("", 1, "c"), bench.now)
    assert told == []


def test_what_a_handler_publishes_without_its_link_has_none() -> None:
    """Its message is in a batch, and comes again. The next handler publishes it."""
    bench = opened()
    delivery = bench.take()
    bench.did(bench.machine.collected(delivery, bench.now))
    bench.send()
    bench.lose()
    machine, told = noting(bench)
    machine.publish(Event("Told", 1, "c"), bench.now, within=delivery)
    assert told == []
