"""Which delivery the running user code handles."""

from __future__ import annotations

from contextlib import suppress
from contextvars import copy_context

import pytest

from eda_core.drivers.handling import Run, handled_by, handling
from eda_core.drivers.tracing import Tracing
from eda_core.errors import NotBegun, Reject
from eda_core.machine.identifiers import DeliveryId
from eda_core.messages.values import AnyMessage, Command, Event
from tests.core.drivers.traces import NotedSpan, Traces, current


def test_outside_of_handlers_no_delivery_is_handled() -> None:
    assert handled_by(object()) is None


def test_a_delivery_is_handled_in_its_block_and_by_its_service_alone() -> None:
    service, other = object(), object()
    with handling(service, DeliveryId(5)):
        assert (handled_by(service), handled_by(other)) == (5, None)
        with handling(other, DeliveryId(6)):
            assert (handled_by(service), handled_by(other)) == (None, 6)
        with handling(service, None):
            assert handled_by(service) is None
        assert handled_by(service) == 5
    assert handled_by(service) is None


def test_after_an_exception_the_delivery_is_handled_no_more() -> None:
    service = object()
    with pytest.raises(ValueError, match="no"), handling(service, DeliveryId(5)):
        raise ValueError("no")
    assert handled_by(service) is None


def test_what_is_begun_in_the_block_belongs_to_the_delivery() -> None:
    """A task has a copy of the context in which it is made."""
    service = object()
    with handling(service, DeliveryId(5)):
        task = copy_context()
    assert task.run(handled_by, service) == 5


class Billing:
    def on_ChargeCard(self) -> None: ...


@pytest.mark.parametrize(
    ("message", "name"),
    [
        (Command("billing.ChargeCard", 1, "c", "r", "k"), "Billing.on_ChargeCard"),
        (Event("OrderPlaced", 1, "c"), "Billing.handle"),
        (None, "Billing.handle"),
    ],
)
def test_a_run_names_its_handler(message: AnyMessage | None, name: str) -> None:
    with handling(Billing(), None, message) as run:
        assert run.name() == name


def test_a_run_knows_why_it_has_rejected_its_message() -> None:
    with handling(Billing()) as run:
        run.failed(ValueError("no"))
        assert run.failure is not None
        assert (run.failure.permanent, run.rejection) == (False, "")
        run.failed(Reject("never"))
        assert (run.failure.permanent, run.rejection) == (True, "never")


def test_what_was_not_awaited_is_an_error_in_the_end() -> None:
    with handling(Billing()) as run:
        run.check_awaited()
        run.not_awaited += ["publish_event(…) is not awaited", "log(…) is not awaited"]
        with pytest.raises(NotBegun, match=r"publish_event\(…\) is not awaited; log\(…\) is not awaited"):
            run.check_awaited()


def test_a_run_of_a_hook_has_its_name() -> None:
    with handling(Billing()) as run:
        run.hook = "Billing.on_ready"
        assert run.name() == "Billing.on_ready"


class Watched:
    """Who watches, and makes a trace of each run."""

    def __init__(self, traces: Traces | None) -> None:
        self.running: set[Run] = set()
        self.tracing: Tracing | None = traces
        self._traces = traces

    def now(self) -> float:
        return 5.0

    def trace(self, run: Run) -> None:
        assert self._traces is not None
        run.span = NotedSpan(self._traces, run.name())

    def user_code_ended(self, run: Run, error: BaseException | None) -> None:
        self.running.discard(run)


@pytest.mark.parametrize("fails", [False, True])
def test_user_code_runs_in_the_context_of_its_trace(fails: bool) -> None:
    traces = Traces()
    with suppress(ValueError), handling(Billing(), None, watch=Watched(traces)) as run:
        assert current.get() == "Billing.handle"
        if fails:
            raise ValueError
    assert current.get() == ""
    assert traces.told[0] == ("left", "Billing.handle", "ValueError" if fails else "NoneType")
    run.end_span()
    run.end_span()
    assert traces.told[1:] == [("end", "Billing.handle", "")]


def test_without_traces_there_is_no_span() -> None:
    watch = Watched(None)
    with handling(Billing(), None, watch=watch) as run:
        assert watch.running == {run}
    run.end_span()
    assert (run.span, run.began) == (None, 5.0)
