"""The numbers of a service at one moment, as values that are shown: by exporters, dashboards and health checks.

:data:`METERS` says how each number is shown. This module does not count: :mod:`eda_core.machine.counts` does.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate
from typing import Final

from eda_core.machine.counts import KINDS, Counts


@dataclass(frozen=True, slots=True)
class HandlerMetrics:
    """The handlers that have ended, for one kind and name of messages.

    Attributes:
        kind: event, command, result, configuration or log.
        name: the name of the messages. The first 100 names of each kind have numbers of their own; all others together
            have the name ``other``.
        buckets: how many handlers took up to each of :data:`eda_core.HANDLER_BOUNDS`, and more than the one before it;
            at last, how many took longer.
        seconds: how long they took together.
        failed: how many of them have failed.
        lost: how many of them ended when their delivery had been lost with its link, and so had no effect: the broker
            delivers the message again.
    """

    kind: str
    name: str
    buckets: tuple[int, ...]
    seconds: float
    failed: int
    lost: int

    @property
    def count(self) -> int:
        """How many handlers have ended."""
        return sum(self.buckets)

    @property
    def succeeded(self) -> int:
        """How many handlers have ended without a failure while their delivery was in flight."""
        return self.count - self.failed - self.lost

    def cumulative(self) -> tuple[int, ...]:
        """Return how many handlers took up to each of :data:`eda_core.HANDLER_BOUNDS`; at last, how many there are."""
        return tuple(accumulate(self.buckets))


@dataclass(frozen=True, slots=True, kw_only=True)
class Metrics:
    """The numbers of one service in one process at one moment. Counts begin when the service is run.

    Each delivery that was received is in flight or has one end, so that ``received == acknowledged + retried +
    dead_lettered + given_back + lost + in_flight``. Each message that was accepted for publishing is waiting or has one
    end, so that ``published == confirmed + unsendable + dropped + held + waiting``.

    Attributes:
        service: the name of the logical service.
        received: deliveries of the broker, also of invalid messages and of results of calls.
        acknowledged: deliveries that were acknowledged because they are done.
        retried: deliveries that have failed and whose message is tried again: given back to its queue, or acknowledged
            because a copy is in the queue for a retry. So are those that were given back by hand.
        dead_lettered: deliveries that were rejected, or acknowledged because a copy with the reason is in
            ``Config.dead_letter_exchange``: those that were given up, were rejected by hand, or are invalid.
        given_back: deliveries whose handler did not begin, because the service stops.
        lost: deliveries that were unsettled when their link was lost or closed. The broker delivers the messages again.
        in_flight: deliveries that are not settled.
        paused: those of them whose handler waits for space in the outbox, or for its turn.
        running: handlers that run, also those whose delivery was lost with its link.
        oldest_delivery: for how long the oldest delivery in flight has been so, seconds; 0.0 if there is none.
        failed: failures of deliveries, each time that the retry policy was asked.
        published: messages that were accepted for publishing, copies for retries and dead letters included, and log
            records not.
        confirmed: messages that the broker has confirmed.
        refused: answers of the broker that it does not take a message. Such a message is sent again later.
        returned: messages that the broker has returned because no queue is bound for them. Their confirm follows.
        unsendable: messages for which the broker has closed the channel, and which are not sent any more.
        dropped: messages that are not sent any more because their delivery has failed or was lost, because their call
            has ended, or because the service has stopped. What was sent already may have arrived.
        held: messages that handlers hold until they succeed.
        waiting: messages that were accepted, are not held, and are not confirmed.
        unconfirmed: those of them that are on the link.
        calls: calls that wait for their results.
        connecting: attempts to connect.
        links_opened: links that were opened. After the first one these are reconnects.
        links_lost: open links that were lost.
        link_open: whether the link is open.
        ready: whether the service receives its messages.
        handlers: the handlers that have ended, by kind and name.
    """

    service: str
    received: int
    acknowledged: int
    retried: int
    dead_lettered: int
    given_back: int
    lost: int
    in_flight: int
    paused: int
    running: int
    oldest_delivery: float
    failed: int
    published: int
    confirmed: int
    refused: int
    returned: int
    unsendable: int
    dropped: int
    held: int
    waiting: int
    unconfirmed: int
    calls: int
    connecting: int
    links_opened: int
    links_lost: int
    link_open: bool
    ready: bool
    handlers: tuple[HandlerMetrics, ...]


@dataclass(frozen=True, slots=True)
class Meter:
    """How a number is shown.

    Attributes:
        attribute: the attribute of :class:`Metrics`.
        name: its name in words that are joined by ``_``, without prefix and unit.
        text: what it is, in one line.
        counts: whether it only grows. Otherwise it goes up and down.
        unit: what it is a number of: ``message``, ``delivery``, ``handler``, ``call``, ``link``, ``attempt``, or ``s``
            for seconds; "" if it is 1 or 0, for yes or no.
    """

    attribute: str
    name: str
    text: str
    counts: bool
    unit: str


#: All numbers of :class:`Metrics` but those of handlers, in the order in which they are shown.
METERS: Final = (
    Meter("received", "deliveries_received", "Deliveries of the broker", True, "delivery"),
    Meter("acknowledged", "deliveries_acknowledged", "Deliveries that are done and acknowledged", True, "delivery"),
    Meter("retried", "deliveries_retried", "Deliveries that failed and are tried again", True, "delivery"),
    Meter("dead_lettered", "deliveries_dead_lettered", "Deliveries that were dead-lettered", True, "delivery"),
    Meter("given_back", "deliveries_given_back", "Deliveries given back unread at a stop", True, "delivery"),
    Meter("lost", "deliveries_lost", "Deliveries that were lost with their link and come again", True, "delivery"),
    Meter("in_flight", "deliveries_in_flight", "Deliveries that are not settled", False, "delivery"),
    Meter("paused", "deliveries_paused", "Deliveries in flight whose handler has to wait", False, "delivery"),
    Meter("running", "handlers_running", "Handlers that run", False, "handler"),
    Meter("oldest_delivery", "deliveries_oldest", "Age of the oldest delivery in flight", False, "s"),
    Meter("failed", "delivery_failures", "Failures of deliveries", True, "delivery"),
    Meter("published", "messages_published", "Messages accepted for publishing", True, "message"),
    Meter("confirmed", "messages_confirmed", "Messages confirmed by the broker", True, "message"),
    Meter("refused", "messages_refused", "Refusals of messages by the broker; they are sent again", True, "message"),
    Meter("returned", "messages_returned", "Messages returned because no queue is bound for them", True, "message"),
    Meter("unsendable", "messages_unsendable", "Messages that the broker does not take", True, "message"),
    Meter("dropped", "messages_dropped", "Messages not sent, as their delivery or call has ended", True, "message"),
    Meter("held", "messages_held", "Messages that handlers hold until they succeed", False, "message"),
    Meter("waiting", "messages_waiting", "Messages that wait for their confirms", False, "message"),
    Meter("unconfirmed", "messages_unconfirmed", "Messages on the link without their confirms", False, "message"),
    Meter("calls", "calls_waiting", "Calls that wait for their results", False, "call"),
    Meter("connecting", "connection_attempts", "Attempts to connect", True, "attempt"),
    Meter("links_opened", "links_opened", "Links opened; all after the first are reconnects", True, "link"),
    Meter("links_lost", "links_lost", "Open links that were lost", True, "link"),
    Meter("link_open", "link_open", "Whether the link is open", False, ""),
    Meter("ready", "ready", "Whether the service receives its messages", False, ""),
)


def handler_metrics(counts: Counts) -> tuple[HandlerMetrics, ...]:
    """Return what was counted about handlers, in the order in which the names first came."""
    return tuple(
        HandlerMetrics(KINDS[kind], name, tuple(times.buckets), times.seconds, times.failed, times.lost)
        for kind, by_name in counts.handlers.items()
        for name, times in by_name.items()
    )
