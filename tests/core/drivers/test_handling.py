"""Which delivery the running user code handles."""

from __future__ import annotations

from contextvars import copy_context

import pytest

from eda_core.drivers.handling import Run, handled_by, handling, run_of
from eda_core.errors import NotBegun, Reject
from eda_core.machine.identifiers import DeliveryId
from eda_core.messages.values import Command, Event


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
    ("run", "name"),
    [
        (Run(Billing(), message=Command("billing.ChargeCard", 1, "c", "a.b", "k")), "Billing.on_ChargeCard"),
        (Run(Billing(), message=Event("Unheard", 1, "c")), "Billing.handle"),
        (Run(Billing()), "Billing.handle"),
        (Run(Billing(), hook="Billing.on_ready"), "Billing.on_ready"),
    ],
)
def test_user_code_is_named_in_logs_as_in_its_file(run: Run, name: str) -> None:
    assert run.name() == name


@pytest.mark.parametrize(
    ("error", "rejection"), [(ValueError("no card"), ""), (Reject("no such customer"), "no such customer")]
)
def test_only_a_rejection_has_a_reason_for_whoever_has_asked(error: Exception, rejection: str) -> None:
    run = Run(object())
    run.failed(error)
    assert run.failure is not None
    assert run.failure.reason == f"{type(error).__name__}: {error}"
    assert run.rejection == rejection


def test_user_code_that_has_not_awaited_something_is_told_all_of_it() -> None:
    run = Run(object())
    run.check_awaited()
    run.not_awaited += ["publish_event() was not awaited", "call() was not awaited"]
    with pytest.raises(NotBegun, match=r"publish_event\(\) was not awaited; call\(\) was not awaited"):
        run.check_awaited()


def test_user_code_is_over_at_the_end_of_its_block() -> None:
    service = object()
    with handling(service, DeliveryId(5)) as run:
        assert run_of(service) is run
        assert not run.over
    assert run.over
    assert run_of(service) is None
