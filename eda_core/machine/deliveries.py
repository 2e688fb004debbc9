"""The life of a delivery as a table, and what each of its stages is for.

``TABLE`` decides which stage follows which: handlers, retries, dead letters, and acknowledgement by hand. The code does
only what the table says. A cell is the next stage, ``IGNORE`` (nothing changes: the input is about something that has
ended) or ``ILLEGAL`` (a wrong local call, or an input that cannot come). This module knows nothing of the life of the
link; it is told when a link is lost.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Callable, Container, Hashable, Iterable, Mapping
from typing import Any, Final

from pamqp.commands import Basic

from eda_core.criticality import EMERGENCY, WARNING
from eda_core.errors import LocalError
from eda_core.machine import events
from eda_core.machine.attempts import AttemptMemory, fallback_key
from eda_core.machine.config import Config
from eda_core.machine.counts import HANDLER_BOUNDS, Counts
from eda_core.machine.dead_letters import dead_letter
from eda_core.machine.effects import Dispatch, Effect, Nack, Publish, Report
from eda_core.machine.identifiers import TAG_BITS, DeliveryId, Epoch, PublishId
from eda_core.machine.in_flight import Delivery, Group, InFlight
from eda_core.machine.logs import Logs
from eda_core.machine.outbox import Outbox
from eda_core.machine.outcomes import DONE, Configured, Deferred, Failed, Outcome
from eda_core.machine.retry import again, attempts_behind, retry_queue
from eda_core.machine.turns import Turns
from eda_core.messages.deduplication import fitting, identifier, source_of
from eda_core.messages.envelope import InvalidEnvelope
from eda_core.messages.headers import ATTEMPT, DEDUPLICATION_ID
from eda_core.messages.properties import Unreadable
from eda_core.messages.routing import COMMANDS, CONFIGURATIONS, EVENTS
from eda_core.messages.values import AnyMessage, Command, Configuration, Event, LogRecord, Result
from eda_core.text import one_line, shortened

# Stages: its handler runs
RUNNING: Final = "running"  # its handler runs
RUNNING_ACKED: Final = "running, acked"  # … and has acknowledged it by hand
RUNNING_REJECTED: Final = "running, rejected"  # … and has rejected it by hand
RUNNING_REQUEUED: Final = "running, requeued"  # … and has given it back to its queue by hand
RUNNING_FAILED: Final = "running, failed"  # … and it will have failed, however its handler ends
RUNNING_COLLECTED: Final = "running, in a batch"  # … and a batch holds it
RUNNING_GROUPED: Final = "running, in a group"  # … and it will be acknowledged together with others
# Its handler does not run
PAUSED: Final = "paused"  # its handler waits for space in the outbox, or for its turn
DEFERRED: Final = "deferred"  # its handler has succeeded, and it will be acknowledged by hand
FAILING: Final = "failing"  # it has failed; the retry policy is asked
ACKING: Final = "acking"  # it is acknowledged when its publishes are confirmed
ACKING_GROUPED: Final = "acking, in a group"  # … and when all others of its group can be
READY_GROUPED: Final = "ready, in a group"  # its publishes are confirmed, but not those of all others in its group
REJECTING: Final = "rejecting"  # it is rejected when its publishes are confirmed
# It is over
ACKED: Final = "acked"  # it is acknowledged
REJECTED: Final = "rejected"  # it is rejected, and the broker dead-letters it
REQUEUED: Final = "requeued"  # it is given back to its queue
LOST: Final = "lost"  # its link is lost: the broker delivers it again
# Its link is lost, and its handler still runs
ORPHANED: Final = "orphaned"  # its link is lost, and its handler goes on for its next delivery
ORPHANED_ACKED: Final = "orphaned, acked"  # … and has acknowledged it by hand
ORPHANED_REJECTED: Final = "orphaned, rejected"  # … and has rejected it by hand
ORPHANED_REQUEUED: Final = "orphaned, requeued"  # … and has given it back to its queue by hand
ORPHANED_FAILED: Final = "orphaned, failed"  # … and it will have failed, however its handler ends
ABANDONED: Final = "abandoned"  # its link is lost, a batch held it, and its handler still runs, without effect

_RUNNING: Final = (
    *(RUNNING, RUNNING_ACKED, RUNNING_REJECTED, RUNNING_REQUEUED, RUNNING_FAILED),
    *(RUNNING_COLLECTED, RUNNING_GROUPED),
)
_WAITING: Final = (PAUSED, DEFERRED, FAILING, ACKING, ACKING_GROUPED, READY_GROUPED, REJECTING)
_OVER: Final = (ACKED, REJECTED, REQUEUED, LOST)
_ORPHANED: Final = (ORPHANED, ORPHANED_ACKED, ORPHANED_REJECTED, ORPHANED_REQUEUED, ORPHANED_FAILED)
STAGES: Final = (*_RUNNING, *_WAITING, *_OVER, *_ORPHANED, ABANDONED)

# Inputs: from the handler
BEGIN: Final = "begin"  # its handler may begin: there is space for what it publishes, and it is its turn
SUCCEEDED: Final = "succeeded"  # its handler has succeeded
DEFERS: Final = "defers"  # its handler has succeeded, and it will be acknowledged by hand
FAILED: Final = "failed"  # its handler has failed
# … by hand, or from its batch
ACK: Final = "ack"  # acknowledge it
REJECT: Final = "reject"  # dead-letter it
REQUEUE: Final = "requeue"  # give it back to its queue
FAIL: Final = "fail"  # treat it as failed
GROUP: Final = "group"  # acknowledge it together with others
COLLECT: Final = "collect"  # a batch holds it from now on
# … from the retry policy
RETRY: Final = "retry"  # try it again at once
RETRY_LATER: Final = "retry later"  # try it again when its copy comes back
GIVE_UP: Final = "give up"  # dead-letter it
KEEP: Final = "keep"  # a copy of it, which says why it died, takes its place
TOO_OFTEN: Final = "too often"  # it was lost too often already, so that its handler does not run
# … from the broker and the service
CONFIRMED: Final = "confirmed"  # all its publishes are confirmed
PUBLISH_FAILED: Final = "publish failed"  # the broker does not take one of its publishes
COPY_FAILED: Final = "copy failed"  # the broker does not take its copy
GROUP_CONFIRMED: Final = "group confirmed"  # all publishes of all deliveries of its group are confirmed
GROUP_FAILED: Final = "group failed"  # another one of its group has failed, and publishes for the group are lost
LINK_LOST: Final = "link lost"  # its link is lost, or was closed at the end of a stop
ADOPT: Final = "adopt"  # the broker delivers its message again, while its handler still runs
STOP: Final = "stop"  # the service takes no new work

INPUTS: Final = (
    *(BEGIN, SUCCEEDED, DEFERS, FAILED),
    *(ACK, REJECT, REQUEUE, FAIL, GROUP, COLLECT),
    *(RETRY, RETRY_LATER, GIVE_UP, KEEP, TOO_OFTEN),
    *(CONFIRMED, PUBLISH_FAILED, COPY_FAILED, GROUP_CONFIRMED, GROUP_FAILED, LINK_LOST, ADOPT, STOP),
)

IGNORE: Final = "ignore"
ILLEGAL: Final = "illegal"

# What rows have in common
_BY_HAND: Final = (ACK, REJECT, REQUEUE, FAIL, GROUP)
_NEVER: Final = {
    BEGIN: ILLEGAL,
    **dict.fromkeys(_BY_HAND, ILLEGAL),  # it is settled, or will be
    **dict.fromkeys((RETRY, RETRY_LATER, GIVE_UP, KEEP), ILLEGAL),  # it is not failing
    TOO_OFTEN: ILLEGAL,  # this is decided when it is delivered
    ADOPT: ILLEGAL,  # its handler does not run for a lost link
    COLLECT: ILLEGAL,  # it is settled, or will be, and the batch would drop it
    COPY_FAILED: ILLEGAL,  # it has no copy
    **dict.fromkeys((GROUP_CONFIRMED, GROUP_FAILED), ILLEGAL),  # it is in no group
}
#: A handler runs. A stop lets it finish.
_RUNS: Final = {**_NEVER, CONFIRMED: IGNORE, PUBLISH_FAILED: RUNNING_FAILED, LINK_LOST: ORPHANED, STOP: IGNORE}
#: No handler runs, so that none ends. A stop waits for the confirms.
_WAITS: Final = {
    **_NEVER,
    **dict.fromkeys((SUCCEEDED, DEFERS, FAILED), IGNORE),
    CONFIRMED: ILLEGAL,
    PUBLISH_FAILED: ILLEGAL,
    LINK_LOST: LOST,
    STOP: IGNORE,
}
_IS_OVER: Final = {**_WAITS, LINK_LOST: IGNORE}
#: The broker delivers it again, so it cannot be settled.
_GONE: Final = {**_IS_OVER, **dict.fromkeys((*_BY_HAND, COLLECT), IGNORE)}
#: Its handler runs, and nothing is decided.
_RUNS_FREELY: Final = {
    **_RUNS,
    COLLECT: IGNORE,  # a batch holds it already
    SUCCEEDED: ACKING,
    DEFERS: DEFERRED,
    FAILED: FAILING,
    ACK: RUNNING_ACKED,
    REJECT: RUNNING_REJECTED,
    REQUEUE: RUNNING_REQUEUED,
    FAIL: RUNNING_FAILED,
    GROUP: RUNNING_GROUPED,
}
#: Its link is lost, and its handler runs. If the handler ends before the message comes again, that has no effect.
_IS_ORPHANED: Final = {
    **_RUNS,
    **dict.fromkeys((SUCCEEDED, DEFERS, FAILED), LOST),
    PUBLISH_FAILED: IGNORE,
    COLLECT: IGNORE,
    LINK_LOST: IGNORE,
}

TABLE: Final[dict[str, dict[str, str]]] = {
    RUNNING: {**_RUNS_FREELY, COLLECT: RUNNING_COLLECTED},
    RUNNING_ACKED: {**_RUNS, SUCCEEDED: ACKING, DEFERS: ACKING, FAILED: FAILING, LINK_LOST: ORPHANED_ACKED},
    RUNNING_REJECTED: {
        **_RUNS,
        PUBLISH_FAILED: IGNORE,
        SUCCEEDED: REJECTING,
        DEFERS: REJECTING,
        FAILED: FAILING,
        LINK_LOST: ORPHANED_REJECTED,
    },
    RUNNING_REQUEUED: {
        **_RUNS,
        PUBLISH_FAILED: IGNORE,
        SUCCEEDED: REQUEUED,
        DEFERS: REQUEUED,
        FAILED: FAILING,
        LINK_LOST: ORPHANED_REQUEUED,
    },
    RUNNING_FAILED: {
        **_RUNS,
        COLLECT: IGNORE,
        PUBLISH_FAILED: IGNORE,
        SUCCEEDED: FAILING,
        DEFERS: FAILING,
        FAILED: FAILING,
        LINK_LOST: ORPHANED_FAILED,
    },
    RUNNING_COLLECTED: {**_RUNS_FREELY, LINK_LOST: ABANDONED},
    RUNNING_GROUPED: {
        **_RUNS,
        SUCCEEDED: ACKING_GROUPED,
        DEFERS: ACKING_GROUPED,
        FAILED: FAILING,
        GROUP_FAILED: RUNNING_FAILED,
        LINK_LOST: ABANDONED,
    },
    PAUSED: {**_WAITS, COLLECT: IGNORE, BEGIN: RUNNING, TOO_OFTEN: FAILING, STOP: REQUEUED},
    DEFERRED: {
        **_WAITS,
        COLLECT: IGNORE,
        ACK: ACKING,
        REJECT: REJECTING,
        REQUEUE: REQUEUED,
        FAIL: FAILING,
        GROUP: ACKING_GROUPED,
        CONFIRMED: IGNORE,
        PUBLISH_FAILED: FAILING,
    },
    FAILING: {**_WAITS, COLLECT: IGNORE, RETRY: REQUEUED, RETRY_LATER: ACKING, GIVE_UP: REJECTING, KEEP: ACKING},
    ACKING: {**_WAITS, CONFIRMED: ACKED, PUBLISH_FAILED: FAILING, COPY_FAILED: REJECTING},
    ACKING_GROUPED: {**_WAITS, CONFIRMED: READY_GROUPED, PUBLISH_FAILED: FAILING, GROUP_FAILED: FAILING},
    READY_GROUPED: {**_WAITS, GROUP_CONFIRMED: ACKED, GROUP_FAILED: FAILING},
    REJECTING: {**_WAITS, CONFIRMED: REJECTED, PUBLISH_FAILED: IGNORE},
    ACKED: _IS_OVER,
    REJECTED: _IS_OVER,
    REQUEUED: _IS_OVER,
    LOST: _GONE,
    ORPHANED: {
        **_IS_ORPHANED,
        ACK: ORPHANED_ACKED,
        REJECT: ORPHANED_REJECTED,
        REQUEUE: ORPHANED_REQUEUED,
        FAIL: ORPHANED_FAILED,
        GROUP: IGNORE,
        COLLECT: ABANDONED,
        PUBLISH_FAILED: ORPHANED_FAILED,
        ADOPT: RUNNING,
    },
    ORPHANED_ACKED: {**_IS_ORPHANED, PUBLISH_FAILED: ORPHANED_FAILED, ADOPT: RUNNING_ACKED},
    ORPHANED_REJECTED: {**_IS_ORPHANED, ADOPT: RUNNING_REJECTED},
    ORPHANED_REQUEUED: {**_IS_ORPHANED, ADOPT: RUNNING_REQUEUED},
    ORPHANED_FAILED: {**_IS_ORPHANED, ADOPT: RUNNING_FAILED},
    ABANDONED: {
        **_GONE,
        **dict.fromkeys((SUCCEEDED, DEFERS, FAILED), LOST),
        **dict.fromkeys((CONFIRMED, PUBLISH_FAILED), IGNORE),
    },
}

#: The stages in which the handler runs, and what it publishes is held.
HOLDING: Final = frozenset((*_RUNNING, *_ORPHANED))
#: The stages in which the acknowledgement waits for what is published within the delivery.
_AWAITING: Final = HOLDING | {DEFERRED}
#: The stages in which a delivery can be settled by hand.
_UNDECIDED: Final = (RUNNING, RUNNING_COLLECTED, DEFERRED, ORPHANED)
#: The stages in which the handler may go on for the next delivery of its message.
_ADOPTABLE: Final = frozenset(_ORPHANED)
#: The stages that last until the publishes are confirmed.
_CONFIRMING: Final = frozenset((ACKING, ACKING_GROUPED, REJECTING))

#: How long a handler may take, seconds, until a lost link may be its fault, if there is no heartbeat.
_OVERRUN: Final = 60.0

#: The type of a function that reads a delivery. It takes the exchange, the routing key, the properties, the body and
#: the limits of payloads, and returns the message or raises ``InvalidEnvelope``.
Read = Callable[[str, str, Basic.Properties, bytes, Any], AnyMessage]


class Deliveries:
    """The deliveries of one service that are not settled.

    Attributes:
        in_flight: the deliveries of the present link.
        paused: those of them whose handlers wait for space in the outbox.
        stale: how many inputs about deliveries that have ended were ignored.
        useless: whether a configuration was rejected.
        turns: lets handlers wait for each other; ``None`` if none has to.
    """

    __slots__ = (
        *"_adoptable _adopted _config _counts _dead_lettering _handlers _logs _memory".split(),
        *"_orphans _outbox _over _overran _overrun _queues _read".split(),
        *"in_flight paused stale turns useless".split(),
    )

    def __init__(self, config: Config, outbox: Outbox, logs: Logs, read: Read, counts: Counts) -> None:
        self._config = config
        self._counts = counts
        self._handlers = counts.handlers  # each message needs it
        self._outbox = outbox
        self._logs = logs
        self._read = read
        self.turns: Turns | None = Turns(config.serialize_by) if config.serialize_by else None
        self._memory = AttemptMemory(4096 + 2 * config.prefetch)  # a lost link adds both queues' prefetch
        #: The deliveries of lost links whose handlers still run, by the identifiers that the handlers know.
        self._orphans: dict[DeliveryId, Delivery] = {}
        #: Those of them whose handlers go on when the message comes again, by the key of the message.
        self._adoptable: dict[Hashable, Delivery] = {}
        #: The deliveries of this link whose handlers began for an earlier one, by the identifiers that they know.
        self._adopted: dict[DeliveryId, Delivery] = {}
        #: The deliveries whose handlers took long and ended a short time ago, with the time of the end.
        self._overran: list[tuple[float, Delivery]] = []
        #: How long a handler may take until a lost link may be its fault, seconds.
        self._overrun = config.heartbeat or _OVERRUN
        self.paused: deque[Delivery] = deque()
        self._queues: Mapping[str, str] = {}
        #: The queues that are known to have a dead-letter exchange. A policy of the operator is not known.
        self._dead_lettering: Container[str] = ()
        self._over = False
        self.in_flight: InFlight = InFlight(Epoch(1))
        self.stale: int = 0
        self.useless: bool = False

    def busy(self) -> bool:
        """Return whether a stop has to wait for a delivery or for a handler."""
        return bool(self.in_flight.by_id or self._orphans)

    def running(self) -> int:
        """Return how many handlers run."""
        return sum(delivery.stage in _RUNNING for delivery in self.in_flight) + len(self._orphans)

    def waiting(self) -> int:
        """Return how many deliveries wait until their handlers may begin."""
        return sum(delivery.stage is PAUSED for delivery in self.in_flight)

    def held(self) -> int:
        """Return how many publishes the handlers that run hold."""
        return sum(len(delivery.held) for delivery in (*self.in_flight, *self._orphans.values()))

    def oldest(self, now: float) -> tuple[float, Delivery | None]:
        """Return the delivery that has been in flight for longest, and for how long, in seconds."""
        ages = ((now - each.began + each.waited, each) for each in self.in_flight)
        return max(ages, key=lambda age: age[0], default=(0.0, None))

    # From the broker

    def delivered(
        self,
        epoch: Epoch,
        tag: int,
        redelivered: bool,
        exchange: str,
        routing_key: str,
        properties: Basic.Properties,
        body: bytes,
        now: float,
    ) -> list[Effect]:
        """Start the handler for a delivery of the present link, or let it wait for space in the outbox.

        The arguments are those of :meth:`eda_core.Machine.delivered`.
        """
        try:
            message = self._read(exchange, routing_key, properties, body, self._config.limits)
        except InvalidEnvelope as invalid:
            return self.reject_invalid(epoch, tag, exchange, routing_key, properties, body, invalid, now)
        key = properties.message_id or fallback_key(routing_key, properties, body)
        failures = 0 if exchange else attempts_behind(properties.headers or {})
        number: DeliveryId = epoch << TAG_BITS | tag  # type: ignore[assignment]  # delivery_id() without a call
        message.meta["delivery_tag"] = number
        delivery = Delivery(number, tag, message, properties, body, key, failures + 1, [], RUNNING, number, now)
        self.in_flight.by_id[number] = delivery
        if redelivered:
            effects: list[Effect] = []
            if self._know(delivery, failures, now, effects):
                return effects
        if self.turns is not None and not self.turns.take(delivery):
            delivery.stage = PAUSED
            return []
        outbox = self._outbox
        if self.paused or outbox.kept >= outbox.limit:
            self._pause(delivery)
            return []
        return [Dispatch(number, message)]

    def _pause(self, delivery: Delivery) -> None:
        """Let the handler wait for space in the outbox."""
        self._outbox.wanted = True
        delivery.stage = PAUSED
        self.paused.append(delivery)

    def _begin(self, delivery: Delivery, now: float, effects: list[Effect]) -> None:
        """Start a handler that has waited."""
        delivery.stage = TABLE[delivery.stage][BEGIN]
        delivery.waited, delivery.began = now - delivery.began, now
        effects.append(Dispatch(delivery.id, delivery.message))

    def reject_invalid(
        self,
        epoch: Epoch,
        tag: int,
        exchange: str,
        routing_key: str,
        properties: Basic.Properties,
        body: bytes,
        invalid: InvalidEnvelope,
        now: float,
    ) -> list[Effect]:
        """Dead-letter a delivery that is no message (docs/architecture.rst, "Invalid messages")."""
        number: DeliveryId = epoch << TAG_BITS | tag  # type: ignore[assignment]
        stand_in = Event(routing_key, None, invalid.conversation_id)  # for what has no message; nobody handles it
        delivery = Delivery(number, tag, stand_in, properties, body, number, 1, [], FAILING, number, now)
        delivery.failure = Failed(str(invalid), permanent=True, error=type(invalid).__name__)
        kept = type(properties) is not Unreadable and self._publish_dead_letter(delivery, exchange, now)
        text = f"invalid message {exchange}/{routing_key}: {invalid}: {self._fate(exchange, kept)}"
        effects: list[Effect] = [Report(EMERGENCY, text, events.INVALID_MESSAGE)]
        fields = {"outcome": "dead-letter", "routing_key": routing_key}
        self._logs.write(EMERGENCY, text, now, effects, conversation_id=invalid.conversation_id, fields=fields)
        if kept:
            self.in_flight.by_id[number] = delivery
            self._step(delivery, KEEP, now, effects)
        else:
            self._counts.dead_lettered += 1
            effects.append(Nack(epoch, tag, False))
        self.useless = self.useless or exchange == CONFIGURATIONS
        return effects

    def _know(self, delivery: Delivery, failures: int, now: float, effects: list[Effect]) -> bool:
        """Use what is known of a redelivered message. Returns whether no handler has to begin.

        Args:
            failures: how many failures the headers of this toolkit say.
        """
        retry = self._config.retry
        history = self._memory.history(delivery.key, delivery.properties.headers or {}, retry, failures)
        delivery.attempt, delivery.overruns = history.failures + 1, history.overruns
        if history.losses > retry.max_losses:
            reason = f"lost {history.losses} times with its connection or its worker, {retry.max_losses} are allowed"
        elif history.overruns > 1 and retry.gives_up(history.failures):
            reason = f"its handler took longer than {self._overrun:g} s, and lost the link {history.overruns} times"
        else:
            return self._adopt(delivery)
        delivery.attempt = history.failures  # there is no further one
        delivery.stage, delivery.failure = PAUSED, Failed(reason, permanent=True)
        self._step(delivery, TOO_OFTEN, now, effects)
        return True

    def _adopt(self, delivery: Delivery) -> bool:
        """Let the handler that still runs for an earlier delivery of the same message go on for this one.

        Returns whether there is such a handler. So a message is not handled twice at the same time in one worker, and
        a handler that takes longer than a link lasts comes to its end.
        """
        orphan = self._adoptable.get(delivery.key)
        if orphan is None or (orphan.body, orphan.message.name) != (delivery.body, delivery.message.name):
            return False
        self._forget_orphan(orphan.run)
        orphan.stage = TABLE[orphan.stage][ADOPT]
        orphan.id, orphan.tag, orphan.properties = delivery.id, delivery.tag, delivery.properties
        orphan.attempt, orphan.overruns = delivery.attempt, delivery.overruns
        self._adopted[orphan.run] = self.in_flight.by_id[orphan.id] = orphan
        return True

    def _forget_orphan(self, run: DeliveryId) -> None:
        orphan = self._orphans.pop(run, None)
        if orphan is not None and self._adoptable.get(orphan.key) is orphan:
            del self._adoptable[orphan.key]

    def confirmed(self, number: DeliveryId, now: float, effects: list[Effect]) -> None:
        """Note that one publish of this delivery is confirmed, or will not be sent."""
        delivery = self.in_flight.by_id.get(number) or self.of_handler(number)
        if delivery is not None:
            delivery.unconfirmed -= 1
            if not delivery.unconfirmed:
                stage = TABLE[delivery.stage][CONFIRMED]
                if stage is not IGNORE:
                    self._enter(delivery, stage, now, effects)

    def publish_failed(self, publish: Publish, reason: str, now: float, effects: list[Effect]) -> bool:
        """Let a delivery fail because the broker does not take what was published within it.

        Returns false if the delivery does not fail because of that: it is settled or rejected, or fails anyway.
        """
        number = publish.delivery
        delivery = None if number is None else self._known(number)
        if delivery is None:
            return False
        is_copy = publish.exchange in ("", self._config.dead_letter_exchange)  # nothing else goes there
        stage = TABLE[delivery.stage][COPY_FAILED if is_copy else PUBLISH_FAILED]
        if stage is IGNORE:
            return False
        delivery.unconfirmed -= 1
        if is_copy:
            fields = {"outcome": "dead-letter", "routing_key": delivery.message.name, "attempt": delivery.attempt}
            text = f"{reason}: {self._fate(_exchange_of(delivery), kept=False)}"
            self._report(EMERGENCY, events.GIVING_UP, text, delivery, fields, now, effects)
        else:
            delivery.failure = Failed(reason)
            delivery.unconfirmed -= self._outbox.drop(delivery.run)
            if delivery.group is not None:
                self._leave_group(delivery, delivery.group, True, now, effects)
        self._enter(delivery, stage, now, effects)
        return True

    # From the handler

    def of_handler(self, number: DeliveryId | None) -> Delivery | None:
        """Return the delivery that a handler knows by a number of an earlier link; ``None`` if it has ended.

        It is in flight again, or the handler still runs.
        """
        if number is None:
            return None
        return self._adopted.get(number) or self._orphans.get(number)

    def _known(self, number: DeliveryId) -> Delivery | None:
        """Return a delivery that is in flight, or whose handler still runs. ``confirmed`` has it inline, for speed."""
        return self.in_flight.by_id.get(number) or self.of_handler(number)

    def is_undecided(self, number: DeliveryId) -> bool:
        """Return whether it is in flight and can be settled by hand."""
        delivery = self._in_flight(number)
        return delivery is not None and delivery.stage in _UNDECIDED

    def is_deferred(self, number: DeliveryId) -> bool:
        """Return whether its handler has ended and deferred the acknowledgement."""
        delivery = self._in_flight(number)
        return delivery is not None and delivery.stage is DEFERRED

    def _in_flight(self, number: DeliveryId) -> Delivery | None:
        return self.in_flight.by_id.get(number) or self._adopted.get(number)

    def has_credit(self, delivery: Delivery | None) -> bool:
        """Return whether its handler may send one more message at once although the outbox is full."""
        return delivery is not None and delivery.stage in _AWAITING and delivery.unconfirmed < self._config.held

    def deduplication_id(self, delivery: Delivery, routing_key: str) -> str:
        """Return what identifies the next publish of a handler; "" if nothing does."""
        source = delivery.source
        if source is None:
            properties = delivery.properties
            header = (properties.headers or {}).get(DEDUPLICATION_ID)
            source = delivery.source = self._source(delivery, source_of(header, properties.message_id))
        if not source:
            return ""
        number, numbers = 1, delivery.numbers
        if numbers is None:
            delivery.numbers = {routing_key: 1}
        else:
            number = numbers[routing_key] = numbers.get(routing_key, 0) + 1
        return identifier(source, self._config.service, routing_key, number)

    def _source(self, delivery: Delivery, source: str) -> str:
        """Return what identifies a message to its handler; "" if each worker handles it."""
        if self._config.exclusive_queues or isinstance(delivery.message, (Configuration, LogRecord)):
            return ""
        return source

    def identify(self, number: DeliveryId, source: str) -> None:
        """Let ``source`` identify a message to its handler, instead of the identifiers that it came with."""
        delivery = self._known(number)
        if delivery is not None:
            delivery.source = self._source(delivery, fitting(source))

    def await_confirm(self, delivery: Delivery | None, publish: Publish) -> None:
        """Let the acknowledgement of the delivery wait for a publish, if it is not too late."""
        if delivery is not None and delivery.stage in _AWAITING:
            delivery.unconfirmed += 1
        else:
            publish.delivery = None

    def await_again(self, publish: Publish) -> None:
        """Let the next delivery of a message wait for a publish that is kept over the loss of the link, if it can."""
        orphan = None if publish.delivery is None else self._orphans.get(publish.delivery)
        if orphan is not None and orphan.stage in _ADOPTABLE:
            orphan.unconfirmed += 1
        else:
            publish.delivery = None

    def handled(
        self, number: DeliveryId, outcome: Outcome, now: float, effects: list[Effect], began: float | None = None
    ) -> bool:
        """Go on after the end of a handler. Returns whether the service is configured now.

        The arguments are those of :meth:`eda_core.Machine.handled`.
        """
        delivery = self.in_flight.by_id.get(number) or self._adopted.get(number)
        if delivery is None:
            self.stale += 1
            self._ended_late(number, now, began)
            return False
        if now - delivery.began > self._overrun:
            if began is not None:
                delivery.began = began
            self._overran = [each for each in self._overran if now - each[0] <= self._overrun]
            self._overran.append((now, delivery))
        configures = False
        if outcome is DONE:  # nearly always
            signal = SUCCEEDED
        elif isinstance(outcome, Failed):
            signal = FAILED
        else:
            signal = DEFERS if isinstance(outcome, Deferred) else SUCCEEDED
            configures = isinstance(outcome, Configured)
        stage = TABLE[delivery.stage][signal]
        if stage is IGNORE:
            self.stale += 1
            return False
        message = delivery.message
        try:
            times = self._handlers[message.__class__][message.name]
        except KeyError:
            times = self._counts.times_of(message)
        seconds = now - (delivery.began if began is None else began)
        times.seconds += seconds  # add() without a call
        times.buckets[bisect_left(HANDLER_BOUNDS, seconds)] += 1
        if signal is FAILED:
            times.failed += 1
            if delivery.failure is None:
                delivery.failure = outcome  # type: ignore[assignment]  # signal says that it is Failed
        held = delivery.held
        if held and stage is not FAILING and stage is not REQUEUED:
            outbox, count = self._outbox, len(held)
            outbox.backlog.extend(held)
            outbox.kept += count
            delivery.unconfirmed += count
            delivery.held = []
            delivery.stage = stage  # and it waits, since nothing of that is confirmed
        else:
            self._enter(delivery, stage, now, effects)
        return configures

    def _ended_late(self, number: DeliveryId, now: float, began: float | None) -> None:
        """Forget a handler that has ended without effect, because its delivery was lost with its link."""
        orphan = self._orphans.get(number)
        if orphan is not None:
            times = self._counts.times_of(orphan.message)
            times.add(now - (orphan.began if began is None else began))
            times.lost += 1
            self._counts.dropped += len(orphan.held)
            self._forget_orphan(number)

    # By hand

    def settle(self, number: DeliveryId, signal: str, multiple: bool, now: float, effects: list[Effect]) -> None:
        """Settle a delivery by hand, and, if ``multiple``, all earlier ones that are deferred.

        Raises:
            LocalError: it is no delivery of this service, or it is settled already.
        """
        delivery = self._known(number) if type(number) is int else None
        cell = TABLE[self._stage_of_gone(number) if delivery is None else delivery.stage][signal]
        if cell is ILLEGAL:
            raise LocalError(f"delivery {number} is settled already", hint="acknowledge or reject each message once")
        if cell is IGNORE or delivery is None:
            self.stale += 1
            return
        found = [delivery]
        if multiple:
            found = [each for each in self.in_flight if each.id < delivery.id and each.stage is DEFERRED] + found
        for each in found:
            self._step(each, signal, now, effects)

    def fail(self, number: DeliveryId, failure: Failed, now: float, effects: list[Effect]) -> None:
        """Treat a delivery as failed: at once if it is deferred, else when its handler ends. Raises as ``settle``."""
        delivery = self._known(number)
        if delivery is not None and delivery.stage in _UNDECIDED:
            delivery.failure = failure
        self.settle(number, FAIL, False, now, effects)

    def ack_together(self, numbers: Iterable[DeliveryId], now: float, effects: list[Effect]) -> None:
        """Acknowledge the undecided ones of these deliveries, none before the publishes of all are confirmed."""
        distinct = dict.fromkeys(filter(self.is_undecided, numbers))
        members = [delivery for number in distinct if (delivery := self._in_flight(number)) is not None]
        group = Group(members.copy(), len(members))
        for delivery in members:
            delivery.group = group
        for delivery in members:
            self._step(delivery, GROUP, now, effects)

    def collect(self, number: DeliveryId, now: float, effects: list[Effect]) -> None:
        """Note that a batch holds a message.

        Raises:
            LocalError: it is no delivery of this service, or it is settled already.
        """
        delivery = self._known(number)
        if TABLE[self._stage_of_gone(number) if delivery is None else delivery.stage][COLLECT] is ILLEGAL:
            hint = "put an event into one batch, and do not acknowledge it by hand: the batch does"
            raise LocalError(f"delivery {number} is settled already", hint=hint)
        if delivery is not None:
            delivery.source = ""  # when the message comes again, the batch may have other messages
            self._step(delivery, COLLECT, now, effects)
            if delivery.stage is ABANDONED and self._adoptable.get(delivery.key) is delivery:
                del self._adoptable[delivery.key]

    def _stage_of_gone(self, number: DeliveryId) -> str:
        """Return the stage of a delivery that has ended. Raises ``LocalError`` if it is none of this service."""
        epoch = number >> TAG_BITS if type(number) is int else 0
        if not 0 < epoch <= self.in_flight.epoch:
            raise LocalError(f"{number!r} is not a delivery tag", hint='pass meta["delivery_tag"] as it is')
        return LOST if epoch != self.in_flight.epoch or self._over else ACKED

    # From the service

    def opened(self, queues: Mapping[str, str], dead_lettering: Container[str]) -> None:
        """Note the names of the queues by consumer tag, and which have a dead-letter exchange: the link is open."""
        self._queues, self._dead_lettering = queues, dead_lettering

    def resume(self, now: float, effects: list[Effect]) -> None:
        """Start the handlers that wait for space in the outbox, as long as there is space."""
        outbox = self._outbox
        while self.paused and outbox.kept < outbox.limit:
            self._begin(self.paused.popleft(), now, effects)

    def pass_turn(self, turns: Turns, run: DeliveryId, now: float, effects: list[Effect]) -> None:
        """Start the handler that has waited for the end of this one, or let it wait for space in the outbox."""
        following = turns.pass_on(run)
        if following is None:
            return
        if self.paused or self._outbox.kept >= self._outbox.limit:
            self._pause(following)
        else:
            self._begin(following, now, effects)

    def stop(self, now: float, effects: list[Effect]) -> None:
        """Give back the deliveries whose handlers have not started: the service stops."""
        self.paused.clear()
        if self.turns is not None:
            self.turns.forget_waiting()
        for delivery in list(self.in_flight):
            self._step(delivery, STOP, now, effects)

    def lose_link(
        self, epoch: Epoch, now: float, effects: list[Effect], *, blamed: bool = False, over: bool = False
    ) -> None:
        """Forget all deliveries, because their link is lost. The number of the next link is ``epoch``.

        Args:
            blamed: whether the broker has ended the link, perhaps because a handler has taken too long.
            over: whether there will be no next link.
        """
        ended = {delivery.run: at for at, delivery in self._overran if now - at <= self._overrun}
        overran = [delivery for _, delivery in self._overran if delivery.run in ended]
        keys = Counter(delivery.key for delivery in (*self.in_flight, *self._orphans.values()))
        for delivery in self.in_flight:
            self._memory.remember(delivery.key, delivery.attempt - 1, lost=True)
            stage = TABLE[delivery.stage][LINK_LOST]
            if stage is LOST:
                continue
            delivery.stage = stage
            self._orphans[delivery.run] = delivery
            unique = bool(delivery.properties.message_id) and keys[delivery.key] == 1
            if unique and stage in _ADOPTABLE:
                self._adoptable[delivery.key] = delivery
            if now - delivery.began > self._overrun and (blamed or not unique):
                overran.append(delivery)
        for delivery in self._orphans.values():
            delivery.unconfirmed = 0  # it waits for what is kept: see await_again()
        for delivery in overran:
            self._blame(delivery)
        if overran:
            slowest = max(overran, key=lambda each: ended.get(each.run, now) - each.began)
            self._report_overrun(slowest, ended.get(slowest.run, now) - slowest.began, now, effects)
        self._counts.lost += len(self.in_flight)
        self._adopted.clear()
        self._overran.clear()
        self.paused.clear()
        if self.turns is not None:
            self.turns.lose_link(self._orphans)
        self._over = over
        self.in_flight = InFlight(epoch)

    def _blame(self, delivery: Delivery) -> None:
        """Note that a link was lost while a handler took too long. From the second time on this is a failure."""
        delivery.overruns += 1
        failures = delivery.attempt - 1
        if delivery.stage in (REQUEUED, REJECTED) or delivery.overruns > 1:  # it has failed, or it counts as failed
            failures += 1
        lost = delivery.stage in (ACKED, REJECTED)  # else this is remembered already
        self._memory.remember(delivery.key, failures, lost=lost, overruns=delivery.overruns)

    def _report_overrun(self, delivery: Delivery, seconds: float, now: float, effects: list[Effect]) -> None:
        """Say which handler may have lost the link."""
        name = delivery.message.name
        text = f"the handler of {name} took {seconds:.1f} s, and the link was lost"
        if delivery.overruns > 1:
            text += f": {delivery.overruns} times now, which counts as a failure"
        fields = {"routing_key": name, "attempt": delivery.attempt, "seconds": round(seconds, 1)}
        effects.append(Report(WARNING, text, events.SLOW_HANDLER))
        conversation = delivery.message.conversation_id
        self._logs.write(WARNING, text, now, effects, conversation_id=conversation, fields=fields)

    # Steps

    def _step(self, delivery: Delivery, signal: str, now: float, effects: list[Effect]) -> None:
        """Go to the stage that the table names, and do what it is for."""
        stage = TABLE[delivery.stage][signal]
        if stage is ILLEGAL:
            raise AssertionError(f"{signal!r} cannot come while a delivery is {delivery.stage}")
        if stage is not IGNORE:
            self._enter(delivery, stage, now, effects)

    def _enter(self, delivery: Delivery, stage: str, now: float, effects: list[Effect]) -> None:
        """Go to ``stage``, and do what it is for."""
        before, delivery.stage = delivery.stage, stage
        if stage is ACKED:
            if self._memory.known:
                self._memory.forget(delivery.key)
            in_flight = self.in_flight
            del in_flight.by_id[delivery.id]
            if delivery.run != delivery.id:
                del self._adopted[delivery.run]
            in_flight.to_ack.append(delivery.tag)
            if delivery.failure is None:
                self._counts.acknowledged += 1
            else:
                self._count_copy(delivery, delivery.failure)
        elif stage in _CONFIRMING:
            if not delivery.unconfirmed:
                self._step(delivery, CONFIRMED, now, effects)
        elif stage is REQUEUED or stage is REJECTED:
            self._return(delivery, before, effects)
        elif stage is FAILING:
            self._failed(delivery, now, effects)
        elif stage is READY_GROUPED and delivery.group is not None:
            self._one_less(delivery.group, now, effects)

    def _return(self, delivery: Delivery, before: str, effects: list[Effect]) -> None:
        """Give a delivery back to its queue, or dead-letter it. The publishes that are held are dropped."""
        requeue = delivery.stage is REQUEUED
        del self.in_flight.by_id[delivery.id]
        if delivery.run != delivery.id:
            del self._adopted[delivery.run]
        counts = self._counts
        counts.dropped += len(delivery.held)
        if before is PAUSED:
            counts.given_back += 1
            self._memory.remember(delivery.key, delivery.attempt - 1, lost=True)
        elif requeue:
            counts.retried += 1
            self._memory.remember(delivery.key, delivery.attempt)
        else:
            counts.dead_lettered += 1
            self._memory.forget(delivery.key)
            self.useless = self.useless or isinstance(delivery.message, Configuration)
        effects.append(Nack(self.in_flight.epoch, delivery.tag, requeue))

    def _count_copy(self, delivery: Delivery, failure: Failed) -> None:
        """Count a failed delivery that is acknowledged because a copy of its message takes its place."""
        if failure.permanent or self._config.retry.gives_up(delivery.attempt):
            self._counts.dead_lettered += 1
        else:
            self._counts.retried += 1

    # Groups

    def _one_less(self, group: Group, now: float, effects: list[Effect]) -> None:
        """Wait for one delivery less in a group."""
        group.missing -= 1
        if not group.missing:
            for delivery in group.members:
                self._step(delivery, GROUP_CONFIRMED, now, effects)

    def _leave_group(self, delivery: Delivery, group: Group, unsafe: bool, now: float, effects: list[Effect]) -> None:
        """Remove a failed delivery from its group. If not all that it published is safe, all others fail as well.

        The reason is that the callback of a batch publishes for the whole group within one delivery.
        """
        delivery.group = None
        group.members.remove(delivery)
        if not unsafe:
            self._one_less(group, now, effects)
            return
        for each in group.members:
            each.group, each.failure = None, delivery.failure
            self._step(each, GROUP_FAILED, now, effects)

    # Failures

    def _failed(self, delivery: Delivery, now: float, effects: list[Effect]) -> None:
        """Do what the retry policy says about a failed delivery, and log it."""
        if delivery.group is not None:
            unsafe = bool(delivery.held or delivery.unconfirmed)
            self._leave_group(delivery, delivery.group, unsafe, now, effects)
        self._counts.dropped += len(delivery.held)
        delivery.held = []  # a failure publishes nothing
        failure, retry, name = delivery.failure, self._config.retry, delivery.message.name
        assert failure is not None
        self._counts.failed += 1
        gives_up = failure.permanent or retry.gives_up(delivery.attempt)
        fields = {"outcome": "dead-letter" if gives_up else "retry", "routing_key": name, "attempt": delivery.attempt}
        self._report(failure.level, events.HANDLER_FAILED, f"{name}: {failure.reason}", delivery, fields, now, effects)
        if gives_up:
            kept = self._publish_dead_letter(delivery, _exchange_of(delivery), now)
            end = self._fate(_exchange_of(delivery), kept)
            text = f"giving up on {name} after {delivery.attempt} attempt(s): {end}"
            if delivery.properties.message_id:
                text += f"; its message_id is {shortened(one_line(delivery.properties.message_id))}"
            if kept and isinstance(delivery.message, Configuration):
                self.useless = True
            fields["message_id"] = delivery.properties.message_id or ""
            self._report(EMERGENCY, events.GIVING_UP, text, delivery, fields, now, effects)
            self._step(delivery, KEEP if kept else GIVE_UP, now, effects)
        elif self._publish_again(delivery):
            self._step(delivery, RETRY_LATER, now, effects)
        else:
            self._step(delivery, RETRY, now, effects)

    def _fate(self, exchange: str, kept: bool) -> str:
        """Say what becomes of a message that is given up, from the queue for this exchange.

        Args:
            kept: whether a copy takes its place. Otherwise it is rejected.
        """
        if kept:
            return f"published to {self._config.dead_letter_exchange}"
        if self._queues.get(exchange) in self._dead_lettering:
            return "dead-lettered"
        return (
            "rejected; without a dead-letter exchange RabbitMQ drops it: run 'eda doctor' or 'eda inspect_queue' to "
            'find out, see docs/operating/dead-letters.rst, "Kept or dropped"'
        )

    def _publish_again(self, delivery: Delivery) -> bool:
        """Publish a copy of a failed message to its retry queue, or to its own queue if the policy counts so.

        Returns whether it does.
        """
        retry, message = self._config.retry, delivery.message
        delay = retry.delay(delivery.attempt)
        exchange = _exchange_of(delivery)
        queue = self._queues.get(exchange)
        if (
            not retry.republishes
            or not queue
            or self._config.exclusive_queues
            or isinstance(message, (Configuration, LogRecord))
        ):
            return False
        properties = again(delivery.properties, exchange, message.name, {ATTEMPT: delivery.attempt})
        if properties is None:
            return False
        self._publish_copy(delivery, "", retry_queue(queue, delay) if delay else queue, properties)
        return True

    def _publish_dead_letter(self, delivery: Delivery, exchange: str, now: float) -> bool:
        """Publish a copy of a message that is given up, with the reason. Returns whether it does."""
        config, failure, key = self._config, delivery.failure, delivery.message.name
        if not config.dead_letter_exchange or failure is None:
            return False
        properties = dead_letter(
            delivery.properties,
            (exchange, key),
            failure,
            service=config.service,
            queue=self._queues.get(exchange, ""),
            attempts=delivery.attempt,
            time=self._logs.wall_time(now),
        )
        if properties is None:
            return False
        self._publish_copy(delivery, config.dead_letter_exchange, key, properties)
        return True

    def _publish_copy(self, delivery: Delivery, exchange: str, routing_key: str, properties: Basic.Properties) -> None:
        """Publish what takes the place of a message, which is acknowledged when this is confirmed."""
        outbox = self._outbox
        outbox.kept += 1  # beyond the limit if need be: the copy takes the place of the message
        outbox.published += 1
        delivery.unconfirmed += 1
        outbox.backlog.append(
            Publish(
                PublishId(outbox.published),
                exchange,
                routing_key,
                properties,
                delivery.body,
                mandatory=True,
                delivery=delivery.run,
                kept=False,
            )
        )

    def _report(
        self,
        level: int,
        event: str,
        text: str,
        delivery: Delivery,
        fields: Mapping[str, Any],
        now: float,
        effects: list[Effect],
    ) -> None:
        """Log to the bus and to the local log.

        The record of each failure on the bus has the traceback, and the record of giving up has its last line. The
        local log has the traceback at the first attempt only.
        """
        failure = delivery.failure
        assert failure is not None
        full = failure.detail if event is events.HANDLER_FAILED else failure.reason
        first = event is events.HANDLER_FAILED and delivery.attempt == 1
        effects.append(Report(level, f"{text}\n{full}" if full and first else text, event))
        conversation = delivery.message.conversation_id
        self._logs.write(level, text, now, effects, full=full, conversation_id=conversation, fields=fields)


def _exchange_of(delivery: Delivery) -> str:
    """Return the exchange for messages of this kind, also if a retry queue has delivered it."""
    message = delivery.message
    if isinstance(message, Configuration):
        return CONFIGURATIONS
    return COMMANDS if isinstance(message, (Command, Result)) else EVENTS
