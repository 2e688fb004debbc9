"""What the model of :mod:`tests.core.machine.sequences` remembers of messages, publishes and calls."""

from __future__ import annotations

import dataclasses

from pamqp.commands import Basic

from eda_core.machine.identifiers import DeliveryId


@dataclasses.dataclass(eq=False)
class Source:
    """A message in the queue, and what became of it."""

    number: int
    body: bytes
    redelivered: bool = False
    settled: str = ""  # "acknowledged" or "dead-lettered"
    properties: Basic.Properties = dataclasses.field(default_factory=Basic.Properties)


@dataclasses.dataclass(eq=False)
class Accepted:
    """A publish that the machine took.

    Attributes:
        within: the delivery for whose acknowledgement it counts, if it was running or deferred when it was made.
        source: the message of that delivery.
    """

    number: int
    ticket: int
    within: DeliveryId | None
    source: Source | None
    held: bool
    confirmed: int = 0
    failed: bool = False
    told: int = 0


@dataclasses.dataclass(eq=False)
class Call:
    """A call that the machine took.

    Attributes:
        due: when it may time out.
        gone: nobody waits for it any more.
        ended: how often its end was told.
    """

    number: int
    due: float
    gone: bool = False
    ended: int = 0
