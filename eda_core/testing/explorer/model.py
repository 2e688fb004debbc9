"""The values of the explorer and the simulator: what a scenario is, and the small state around one machine.

Everything a world is made of is either shared between its forks and never changed, or small and cloned when a step
touches it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from eda_core.machine.aggregator import Batch
from eda_core.machine.config import Config
from eda_core.machine.identifiers import DeliveryId, Epoch
from eda_core.machine.machine import Machine
from eda_core.messages.values import AnyMessage
from eda_core.testing.explorer.snapshot import clone

#: What a scenario bounds: how often each of these may happen in one history.
#:
#: drop: a connection is cut. refusal: the broker nacks a publish. failure: a handler fails that need not. outside: a
#: publish outside any handler. stop: the service is asked to stop. haste: time jumps to the next deadline although
#: something else could happen first, as with a slow network, broker or handler. no_link: a connection cannot be
#: opened. bad_login: … because the broker refuses the credentials. alarm: the broker is short of memory for a while.
#: cancel: the broker cancels a consumer. restart: the broker is killed and starts again. late: the machine is told of
#: something that happened on a link which it has given up. forget: a caller no longer waits for the result of its call.
#: channel: the broker closes a channel.
BOUNDED: Final = (
    "drop",
    "refusal",
    "failure",
    "outside",
    "stop",
    "haste",
    "no_link",
    "bad_login",
    "alarm",
    "cancel",
    "restart",
    "late",
    "forget",
    "channel",
)
BOUND: Final = {name: index for index, name in enumerate(BOUNDED)}

#: A step: its kind, the number of the node (-1: the broker or time), and what it is about.
Step = tuple[Any, ...]


class Violation(Exception):
    """Something that must hold does not.

    Attributes:
        rule: an invariant (I1 to I6), a rule of the design (R1 to R10), "life" (docs/architecture.rst, "Life of a
            service"), or "call" (:mod:`eda_core.machine.calls`).
    """

    def __init__(self, rule: str, text: str) -> None:
        super().__init__(f"{rule}: {text}")
        self.rule = rule


@dataclass(frozen=True, slots=True, repr=False)
class Post:
    """A message that a handler or somebody outside publishes. Its payload is a text, the label it is known by."""

    message: AnyMessage
    immediate: bool = False
    mandatory: bool | None = None

    @property
    def label(self) -> str:
        return str(self.message.payload)

    def __repr__(self) -> str:
        return f"{self.label}{' at once' if self.immediate else ''}"


@dataclass(frozen=True, slots=True, repr=False)
class Ask:
    """A call: a command whose result its caller waits for.

    Attributes:
        label: what it is known by; on the wire with the number of the call, which tells it from one made again.
        timeout: seconds.
    """

    label: str
    name: str = "peer.Do"
    timeout: float = 50.0

    def __repr__(self) -> str:
        return f"call {self.label}"


@dataclass(frozen=True, slots=True)
class Plan:
    """What the handler of a message does.

    Attributes:
        posts: what it publishes, in order, before it ends; a call it waits for, and goes on whatever that comes to.
        late: what is published for the message after its acknowledgement was deferred and before it is given.
        poison: it fails, each time.
        deferred: it acknowledges by hand.
        configures: it is the handler of a configuration, and the service is configured by it.
        batched: it pushes its message to the batch of its worker.
    """

    posts: tuple[Post | Ask, ...] = ()
    late: tuple[Post, ...] = ()
    poison: bool = False
    deferred: bool = False
    configures: bool = False
    batched: bool = False


NOTHING: Final = Plan()


@dataclass(frozen=True, slots=True, repr=False)
class Scenario:
    """Services, what they get to do, and how much may go wrong.

    Attributes:
        services: one configuration for each worker.
        inputs: messages that wait for the services at the start; their payloads are their labels.
        plans: by label; a message without one is handled by doing nothing.
        outside: what the first service publishes or calls outside its handlers, in order.
        request: what a service publishes when it is unconfigured.
        configuration: what the world then answers.
        bounds: how often what is in :data:`BOUNDED` may happen; 0 where nothing is said.
        sinks: binding keys (exchange, key) of a queue that nobody consumes.
        message_ids: whether the inputs have one; those of ``eventail`` have none.
        answers: of another service, ``peer``, to the calls by label: "success" unless said, "error", "twice" or "none".
            ``None`` if there is no such service.
        batch: how workers collect messages, if they do: how many, for how many seconds, and what they then publish.
        fresh: the search begins before the first link, else when it is open.
    """

    name: str
    services: tuple[Config, ...]
    inputs: tuple[AnyMessage, ...] = ()
    plans: Mapping[str, Plan] = field(default_factory=dict)
    outside: tuple[Post | Ask, ...] = ()
    request: Post | None = None
    configuration: AnyMessage | None = None
    bounds: Mapping[str, int] = field(default_factory=dict)
    sinks: tuple[tuple[str, str], ...] = (("events", "#"), ("commands", "caller.#"))
    message_ids: bool = True
    answers: Mapping[str, str] | None = None
    batch: tuple[int, float, tuple[Post, ...]] | None = None
    fresh: bool = False

    def __repr__(self) -> str:
        services = [
            f"{c.service} prefetch={c.prefetch} window={c.window} buffer={c.buffer} urls={len(c.urls)} {c.retry} "
            f"stop_timeout={c.stop_timeout:g}"
            for c in self.services
        ]
        return f"<Scenario {self.name}: {'; '.join(services)}; message ids: {self.message_ids}>"

    def left(self) -> tuple[int, ...]:
        """The bounds as the world counts them down."""
        unknown = set(self.bounds) - set(BOUNDED)
        if unknown:
            raise ValueError(f"no such bound: {sorted(unknown)}")
        return tuple(self.bounds.get(name, 0) for name in BOUNDED)


# What has become of a delivery's handler
RUNS: Final = "runs"
SUCCEEDED: Final = "succeeded"
FAILED: Final = "failed"
DEFERRED: Final = "deferred"
REJECTED: Final = "rejected"
REQUEUED: Final = "requeued"
RESULT: Final = "is none: it is the result of a call"


class Track(NamedTuple):
    """A delivery that the machine has not settled, as the explorer sees it.

    Attributes:
        pieces: what was published for it, in ``Node.pieces`` while it is not safe.
        retried: the machine has published a delayed retry of it.
        group: the tags of those that it is to be acknowledged together with, and its own.
    """

    id: DeliveryId
    label: str
    end: str = RUNS
    pieces: tuple[int, ...] = ()
    retried: bool = False
    group: tuple[int, ...] = ()


class Piece(NamedTuple):
    """A publish that the machine has accepted and that is not safe.

    Attributes:
        held: until its handler succeeds, and forgotten with the delivery: its redelivery makes it again.
        cause: the message id of the message whose handler published it.
        ticket: what ``Settled`` will name; 0 if nobody waits for it.
        retry: a delayed retry, which the machine publishes by itself.
        call: the command of a call: the end of that is what its caller is told.
        last_time: it is on the link, and nobody wants it any more: it is not sent again.
    """

    post: Post
    held: bool
    delivery: DeliveryId = DeliveryId(0)
    cause: str = ""
    ticket: int = 0
    retry: bool = False
    call: bool = False
    last_time: bool = False


class Run(NamedTuple):
    """A handler that runs, or a message whose acknowledgement was deferred (``deferred``).

    Attributes:
        waits: for the result of a call, or for its batch.
        doomed: the batch failed, so that its message fails however it ends.
    """

    label: str
    made: int
    deferred: bool
    cause: str
    waits: bool = False
    doomed: bool = False


class Called(NamedTuple):
    """A call that is not over.

    Attributes:
        due: when it may be given up.
        epoch: of the link on which it was made.
        caller: the handler that waits for it, if one does.
    """

    label: str
    name: str
    due: float
    epoch: Epoch
    caller: DeliveryId | None


class Hand(NamedTuple):
    """The callback of a batch, which runs.

    Attributes:
        taken: what it deals with.
        handled: the handler in which it runs; ``None`` for a timer.
        within: the delivery for which it publishes.
        made: how many of its publishes it has made.
    """

    taken: tuple[tuple[DeliveryId, str], ...]
    handled: DeliveryId | None
    within: DeliveryId
    made: int = 0


class Link:
    """One link of a machine: the connection, and what is on its way in both directions.

    What was sent on a channel arrives in its order, or is lost from some point on; channels are independent.

    Attributes:
        connection: the broker's number, 0 while there is none.
        connecting: the driver was asked to open it and has not reported.
        attended: the machine counts on it; else it is an earlier one that the broker has not missed yet.
        closing: the machine has asked to close it.
        refused: the broker refused the credentials.
        blocked: the machine was told that the broker takes no publishes.
        up, down: towards the broker and back; of each, the channel to consume on and the one to publish on.
        newest: the last delivery tag the broker used, ``told`` the last one the machine knows of.
        last: the tag of the last publish.
        sent: what waits for its confirm, by tag: keys of pieces.
    """

    __slots__ = (
        "attended",
        "blocked",
        "closing",
        "connecting",
        "connection",
        "down",
        "epoch",
        "last",
        "newest",
        "refused",
        "sent",
        "told",
        "up",
    )

    def __init__(self, epoch: Epoch) -> None:
        self.epoch: Epoch = epoch
        self.connection: int = 0
        self.connecting: bool = True
        self.attended: bool = True
        self.closing: bool = False
        self.refused: bool = False
        self.blocked: bool = False
        self.up: tuple[tuple[Any, ...], tuple[Any, ...]] = ((), ())
        self.down: tuple[tuple[Any, ...], tuple[Any, ...]] = ((), ())
        self.newest: int = 0
        self.told: int = 0
        self.last: int = 0
        self.sent: dict[int, int] = {}

    def clone(self) -> Link:
        copy = Link.__new__(Link)
        copy.epoch = self.epoch
        copy.connection = self.connection
        copy.connecting = self.connecting
        copy.attended = self.attended
        copy.closing = self.closing
        copy.refused = self.refused
        copy.blocked = self.blocked
        copy.up = self.up
        copy.down = self.down
        copy.newest = self.newest
        copy.told = self.told
        copy.last = self.last
        copy.sent = self.sent.copy()
        return copy

    def send(self, channel: int, item: tuple[Any, ...]) -> None:
        """Put something on the way to the broker; lost if there is no connection any more."""
        if self.connection:
            consuming, publishing = self.up
            self.up = ((*consuming, item), publishing) if channel == 0 else (consuming, (*publishing, item))

    def answer(self, channel: int, item: tuple[Any, ...]) -> None:
        """Put something on the way to the machine."""
        consuming, publishing = self.down
        self.down = ((*consuming, item), publishing) if channel == 0 else (consuming, (*publishing, item))

    def take(self, channel: int, downwards: bool) -> tuple[Any, ...]:
        """The first thing on its way."""
        pipes = self.down if downwards else self.up
        item: tuple[Any, ...] = pipes[channel][0]
        rest = (pipes[0][1:], pipes[1]) if channel == 0 else (pipes[0], pipes[1][1:])
        if downwards:
            self.down = rest
        else:
            self.up = rest
        return item

    def lose_up(self) -> None:
        self.up = ((), ())


class Node:
    """One worker: its machine, its links, its handlers, and what the explorer remembers to judge it.

    Attributes:
        tracks: unsettled deliveries of the present link, by tag.
        pieces: publishes accepted and not safe, by their ``PublishId``.
        known: labels that this worker has seen; ``unseen`` those that were lost on the way to it before it did.
        told: tickets whose ``Settled`` is due in the present input.
        configured: whether a configuration handler has said so on this link.
        url: where it connected last.
        refused: the URLs where its credentials were refused the last time.
        calls: those that are not over, by ticket; ``asked`` counts all.
        batch: what its handlers collect messages in; ``hands`` are its callbacks that run.
        stop_due: when a stop may cut things short; ``None`` if it was not asked to stop.
        image: of the machine, and the time at which it was taken; ``None`` if it may have changed.
    """

    __slots__ = (
        "asked",
        "batch",
        "calls",
        "configured",
        "hands",
        "image",
        "known",
        "links",
        "machine",
        "outside",
        "over",
        "pieces",
        "refused",
        "runs",
        "starved",
        "stop_due",
        "tickets",
        "told",
        "tracks",
        "unseen",
        "url",
        "wants_configuration",
    )

    def __init__(self, machine: Machine, batch: Batch[str] | None) -> None:
        self.machine: Machine = machine
        self.batch: Batch[str] | None = batch
        self.hands: tuple[Hand, ...] = ()
        self.calls: dict[int, Called] = {}
        self.asked: int = 0
        self.links: dict[Epoch, Link] = {}
        self.runs: dict[DeliveryId, Run] = {}
        self.tracks: dict[int, Track] = {}
        self.pieces: dict[int, Piece] = {}
        self.tickets: int = 0
        self.outside: int = 0
        self.known: frozenset[str] = frozenset()
        self.unseen: frozenset[str] = frozenset()
        self.told: frozenset[int] = frozenset()
        self.starved: bool = False
        self.over: bool = False
        self.stop_due: float | None = None
        self.wants_configuration: bool = False
        self.configured: bool = False
        self.url: str = ""
        self.refused: frozenset[str] = frozenset()
        self.image: tuple[float, int] | None = None

    def clone(self) -> Node:
        """A copy that shares machine and links."""
        copy = Node.__new__(Node)
        copy.machine = self.machine
        copy.batch = clone(self.batch) if self.batch is not None else None
        copy.hands = self.hands
        copy.calls = self.calls.copy()
        copy.asked = self.asked
        copy.links = self.links.copy()
        copy.runs = self.runs.copy()
        copy.tracks = self.tracks.copy()
        copy.pieces = self.pieces.copy()
        copy.tickets = self.tickets
        copy.outside = self.outside
        copy.known = self.known
        copy.unseen = self.unseen
        copy.told = self.told
        copy.starved = self.starved
        copy.over = self.over
        copy.stop_due = self.stop_due
        copy.wants_configuration = self.wants_configuration
        copy.configured = self.configured
        copy.url = self.url
        copy.refused = self.refused
        copy.image = self.image
        return copy

    def link(self, epoch: Epoch) -> Link:
        """The link, this node's own to change from now on."""
        own = self.links[epoch] = self.links[epoch].clone()
        return own
