"""Which delivery the running user code handles."""

from __future__ import annotations

from contextvars import copy_context

import pytest

from eda_core.drivers.handling import handled_by, handling
from eda_core.machine.identifiers import DeliveryId


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
