"""Identifiers of links, deliveries and publishes.

A delivery's identifier is a whole number that carries the epoch of its link in its upper bits (rule R4): one that
outlives its link can never be mistaken for one of the next. Deliveries and publishes have types of their own (rule R5).
"""

from __future__ import annotations

from typing import Final, NewType

#: Counts the links of one service, from 1. Each attempt to connect is a new one.
Epoch = NewType("Epoch", int)
#: A message received, unique over the life of the service. Handlers see it as ``meta["delivery_tag"]``.
DeliveryId = NewType("DeliveryId", int)
#: A message accepted for publishing, unique over the life of the service, in the order of acceptance.
PublishId = NewType("PublishId", int)

#: AMQP delivery tags are per channel and count from 1; 2^48 deliveries on one link take ninety years at 100,000 per
#: second.
TAG_BITS: Final = 48
TAG_MASK: Final = (1 << TAG_BITS) - 1


def delivery_id(epoch: Epoch, tag: int) -> DeliveryId:
    """The identifier of the delivery with the broker's ``tag`` on link ``epoch``."""
    return epoch << TAG_BITS | tag  # type: ignore[return-value]  # calling a NewType costs as much as all of this
