"""Identifiers of deliveries: they hold the link and the tag."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from eda_core.machine.identifiers import TAG_BITS, TAG_MASK, Epoch, delivery_id

epochs = st.integers(1, 2**15).map(Epoch)
tags = st.integers(1, TAG_MASK)


@given(epochs, tags)
def test_a_delivery_id_holds_its_epoch_and_its_tag(epoch: Epoch, tag: int) -> None:
    number = delivery_id(epoch, tag)
    assert (number >> TAG_BITS, number & TAG_MASK) == (epoch, tag)


@given(epochs, tags, epochs, tags)
def test_delivery_ids_are_in_the_order_of_links_then_of_deliveries(
    epoch: Epoch, tag: int, other_epoch: Epoch, other_tag: int
) -> None:
    one, other = delivery_id(epoch, tag), delivery_id(other_epoch, other_tag)
    assert (one < other) == ((epoch, tag) < (other_epoch, other_tag))
    assert (one == other) == ((epoch, tag) == (other_epoch, other_tag))


def test_a_delivery_id_of_the_first_thousands_of_links_fits_a_signed_64_bit_integer() -> None:
    """Handlers put it in logs and payloads, where peers read it."""
    assert delivery_id(Epoch(2**15 - 1), TAG_MASK) < 2**63
