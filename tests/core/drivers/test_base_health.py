"""What a driver adds to the health of its machine: the last warning or error."""

from __future__ import annotations

from eda_core.criticality import ALERT, NOTICE, WARNING
from eda_core.machine.effects import Report
from eda_core.machine.health import LastError
from eda_core.messages.values import Event
from tests.core.drivers.test_base import Carrier, willing


def test_the_last_error_is_the_first_line_of_the_last_warning_or_worse() -> None:
    carrier = Carrier()
    assert carrier.health().last_error is None
    carrier.feed([Report(ALERT, "it failed\nTraceback …", "handler-failed"), Report(NOTICE, "ready", "ready")])
    carrier.clock += 7.0
    expected = LastError(text="it failed", event="handler-failed", level=ALERT, seconds=7.0)
    assert carrier.health().last_error == expected
    carrier.feed([Report(WARNING, "no link", "link-lost")])
    assert carrier.health().last_error == LastError(text="no link", event="link-lost", level=WARNING, seconds=0.0)


def test_a_warning_of_the_driver_counts() -> None:
    carrier = willing(Carrier())
    carrier.tell(carrier.machine.start)
    carrier.warn("answers", "", Event("Happened", None, "c-1"))
    assert carrier.health().last_error is None
    carrier.warn("answers", "odd", Event("Happened", None, "c-1"))
    assert carrier.health().last_error == LastError(text="odd", event="answers", level=WARNING, seconds=0.0)


def test_the_rest_is_what_the_machine_says() -> None:
    carrier = willing(Carrier())
    carrier.tell(carrier.machine.start)
    health = carrier.inspect(carrier.health, 1.0)
    assert health == carrier.machine.health(carrier.clock)
    assert (health.state, health.callers) == ("open", 0)
    assert carrier.inspect(carrier.metrics, 1.0) == carrier.machine.metrics(carrier.clock)
