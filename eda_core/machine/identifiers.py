"""The identifiers of links, deliveries and publishes. Each has a type of its own (rule R5).

The identifier of a delivery is a whole number, with the epoch of its link in the upper bits (rule R4). So no delivery
of an earlier link is mistaken for one of the present link. This module does not know which link is the present one.
"""

from __future__ import annotations

from typing import Final, NewType

#: The number of a link of a service, from 1. Each attempt to connect counts.
Epoch = NewType("Epoch", int)
#: The identifier of a received message, unique in the life of a service. Handlers get it as ``meta["delivery_tag"]``.
DeliveryId = NewType("DeliveryId", int)
#: The number of a message that was accepted for publishing, unique in the life of a service, in the order of
#: acceptance.
PublishId = NewType("PublishId", int)

#: The number of bits for the broker's delivery tag, which counts from 1 on each channel. It takes ninety years to
#: deliver 2^48 messages on one link, at 100,000 per second.
TAG_BITS: Final = 48
TAG_MASK: Final = (1 << TAG_BITS) - 1


def delivery_id(epoch: Epoch, tag: int) -> DeliveryId:
    """Return the identifier of the delivery that has the broker's ``tag`` on the link ``epoch``."""
    return epoch << TAG_BITS | tag  # type: ignore[return-value]  # to call a NewType would double the cost
