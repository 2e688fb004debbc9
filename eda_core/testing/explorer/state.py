"""The state of a world: machines, links, the broker model, and what the explorer notes to judge the machines.

Data only. The parts of a world (network, handlers, judge …) change it; it decides nothing but what has to be copied.
A fork shares nodes, machines and the broker with its original until one of the two changes them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from eda_core.machine.aggregator import Aggregator
from eda_core.machine.identifiers import TAG_MASK, DeliveryId, Epoch
from eda_core.machine.machine import Machine
from eda_core.messages.values import AnyMessage
from eda_core.testing.broker.dead_letters import POLICY
from eda_core.testing.broker.model import Broker
from eda_core.testing.explorer.scenario import BOUND, BOUNDED, Post, Scenario
from eda_core.testing.explorer.snapshot import clone

#: The channels of a link, as places in ``SimulatedLink.up`` and ``down``.
CONSUMING: Final = 0
PUBLISHING: Final = 1

#: On its way to the broker: the question whether it still works. On its way to the machine: the answer.
PROBE: Final = ("probe",)
ALIVE: Final = ("alive",)

# How the handler of a delivery ended.
RUNS: Final = "runs"
SUCCEEDED: Final = "succeeded"
FAILED: Final = "failed"
DEFERRED: Final = "deferred"
REJECTED: Final = "rejected"
REQUEUED: Final = "requeued"
RESULT: Final = "does not exist: it is the result of a call"

# How far a handler with an inbox is.
CLAIMED: Final = "claimed"  # its message is handled for the first time, and its transaction is open
DONE_ONLY: Final = "done only"  # its effect is committed, and the inbox has not kept that
KEPT: Final = "kept"  # all is committed
AGAIN: Final = "again"  # its message was handled before, and it has published again what was published then


class Unsettled(NamedTuple):
    """A delivery that the machine has not settled.

    Attributes:
        id: the identifier that its handler knows.
        tag: the broker's delivery tag.
        end: how its handler ended.
        publishes: the keys in ``Node.unconfirmed`` of what was published for it.
        retried: the machine has published a copy of it: a delayed retry, or a dead letter.
        group: the tags of the deliveries that are to be acknowledged together, this one included.
    """

    id: DeliveryId
    tag: int
    label: str
    end: str = RUNS
    publishes: tuple[int, ...] = ()
    retried: bool = False
    group: tuple[int, ...] = ()


class Unconfirmed(NamedTuple):
    """A publish that the machine has accepted and the broker has not confirmed.

    Attributes:
        held: the machine holds it until its handler succeeds, and forgets it when the delivery is lost: the handler
            publishes it again when the message is redelivered.
        delivery: the delivery that it is held for.
        run: the delivery whose handler made it.
        cause: the message id of the message whose handler published it.
        identifier: its ``deduplication_id``; "" if it has none.
        ticket: what the effect ``PublishDone`` will name; 0 if nobody waits for that.
        retry: it is a delayed retry, which the machine publishes by itself.
        call: it is the command of a call. The caller is told the end of the call, not of the publish.
        unwanted: the call has ended, and the command is on the link: it is not sent again.
    """

    post: Post
    held: bool
    delivery: DeliveryId = DeliveryId(0)
    cause: str = ""
    ticket: int = 0
    retry: bool = False
    call: bool = False
    unwanted: bool = False
    identifier: str = ""
    run: DeliveryId = DeliveryId(0)


class Run(NamedTuple):
    """A handler that runs, or a message that waits to be acknowledged by hand (``deferred``).

    Attributes:
        made: how many of its publishes it has made.
        cause: the message id of its message.
        source: what identifies its message when that is handled again; "" if nothing does.
        message: its message.
        waits: for the result of a call, or for the callback of its batch.
        doomed: the callback of its batch failed, so its message fails however the handler ends.
        collected: it has added its message to a batch.
        adoptable: its link is lost, and it goes on for the next delivery of its message.
        inbox: how far it is with the inbox; "" if it has not begun or has none.
    """

    label: str
    made: int
    deferred: bool
    cause: str
    source: str
    message: AnyMessage
    waits: bool = False
    doomed: bool = False
    collected: bool = False
    adoptable: bool = False
    inbox: str = ""


class OpenCall(NamedTuple):
    """A call that has not ended.

    Attributes:
        due: when it times out.
        epoch: of the link on which it was made.
        caller: the delivery whose handler waits for it, if one does.
    """

    label: str
    name: str
    due: float
    epoch: Epoch
    caller: DeliveryId | None


class BatchRun(NamedTuple):
    """The callback of a batch that runs.

    Attributes:
        taken: the messages of the batch.
        handled: the delivery in whose handler the callback runs; ``None`` if a timer runs it.
        within: the delivery that it publishes for.
        made: how many of its publishes it has made.
    """

    taken: tuple[tuple[DeliveryId, str], ...]
    handled: DeliveryId | None
    within: DeliveryId
    made: int = 0


@dataclass(slots=True, eq=False)
class SimulatedLink:
    """One link of a machine: a connection to the broker, and what is on its way in both directions.

    What is sent on a channel arrives in order, or is lost from some point on. The channels are independent.

    Attributes:
        connection: its number at the broker; 0 if there is no connection.
        connecting: the machine has asked for the connection, and nothing has come of that yet.
        attended: it is the machine's present link. Else the machine has given it up, and the broker has not noticed.
        closing: the machine has asked to close it.
        refused: the broker refused the credentials.
        shut: the broker has closed the channel for publishing, and has not opened it again: it discards what comes.
        blocked: the machine was told that the broker takes no publishes.
        silent: the broker receives and sends nothing more, as long as the machine has not given the link up.
        up, down: what is on its way to the broker and to the machine, for each channel.
        newest: the last delivery tag that the broker used.
        told: the last delivery tag that the machine was told of.
        last: the tag of the last publish.
        sent: the keys in ``Node.unconfirmed`` of the publishes without a confirm, by tag.
    """

    epoch: Epoch
    connection: int = 0
    connecting: bool = True
    attended: bool = True
    closing: bool = False
    refused: bool = False
    shut: bool = False
    blocked: bool = False
    silent: bool = False
    up: tuple[tuple[Any, ...], tuple[Any, ...]] = ((), ())
    down: tuple[tuple[Any, ...], tuple[Any, ...]] = ((), ())
    newest: int = 0
    told: int = 0
    last: int = 0
    sent: dict[int, int] = field(default_factory=dict)

    def clone(self) -> SimulatedLink:
        copy: SimulatedLink = _shallow_copy(self)
        copy.sent = self.sent.copy()
        return copy

    def send(self, channel: int, item: tuple[Any, ...]) -> None:
        """Put something on its way to the broker. It is lost if there is no connection."""
        if self.connection:
            consuming, publishing = self.up
            self.up = ((*consuming, item), publishing) if channel == CONSUMING else (consuming, (*publishing, item))

    def answer(self, channel: int, item: tuple[Any, ...]) -> None:
        """Put something on its way to the machine."""
        consuming, publishing = self.down
        self.down = ((*consuming, item), publishing) if channel == CONSUMING else (consuming, (*publishing, item))

    def take(self, channel: int, downwards: bool) -> tuple[Any, ...]:
        """What arrives next on a channel. It is on its way no more."""
        pipes = self.down if downwards else self.up
        item: tuple[Any, ...] = pipes[channel][0]
        rest = (pipes[0][1:], pipes[1]) if channel == CONSUMING else (pipes[0], pipes[1][1:])
        if downwards:
            self.down = rest
        else:
            self.up = rest
        return item

    def break_off(self) -> int:
        """The connection is gone, and what was on its way to the broker is lost. Returns the number it had."""
        gone, self.connection = self.connection, 0
        self.up = ((), ())
        return gone


@dataclass(slots=True, eq=False)
class Node:
    """One worker: its machine, its links, its handlers, and what the explorer notes to judge it.

    Attributes:
        batch: what its handlers collect messages in; ``batch_runs`` are the callbacks that run.
        calls: the calls that have not ended, by ticket.
        calls_made: how many calls were made.
        links: by epoch, those included that the broker still takes for alive.
        runs: the handlers that run, by delivery.
        unsettled: the deliveries of the present link that are not settled, by tag.
        unconfirmed: the publishes that are accepted and not confirmed, by ``PublishId``.
        tickets: how many publishes were tried.
        outside: how many of ``Scenario.outside`` it has made.
        seen: the labels of the messages that it has handled.
        unseen: the labels of messages that were lost on the way to it before it had seen any delivery of them.
        copied: the tags and labels of the failed messages that it has published again and acknowledged on this link, as
            long as the broker has not received the acknowledgement.
        to_tell: the tickets whose ``PublishDone`` the present input has to give.
        to_refuse: likewise, of the publishes that the broker does not take.
        wants_space: a publish was refused because the buffer was full; the effect ``BufferAvailable`` is due.
        over: the machine has said ``Stopped``.
        stop_due: when a stop may leave work unfinished; ``None`` if it was not asked to stop.
        wants_configuration: somebody has to send it a configuration.
        configured: whether a configuration handler has said so on this link.
        url: where it connected last.
        opened: whether a link was open at that URL since then.
        silent: the URLs at which no link was open when it last tried them.
        refused: the URLs that refused its credentials when it last tried them.
        image: the number of the machine's image, and the time of that; ``None`` if the machine may have changed.
    """

    machine: Machine
    batch: Aggregator[str] | None
    batch_runs: tuple[BatchRun, ...] = ()
    calls: dict[int, OpenCall] = field(default_factory=dict)
    calls_made: int = 0
    links: dict[Epoch, SimulatedLink] = field(default_factory=dict)
    runs: dict[DeliveryId, Run] = field(default_factory=dict)
    unsettled: dict[int, Unsettled] = field(default_factory=dict)
    unconfirmed: dict[int, Unconfirmed] = field(default_factory=dict)
    tickets: int = 0
    outside: int = 0
    seen: frozenset[str] = frozenset()
    unseen: frozenset[str] = frozenset()
    copied: frozenset[tuple[int, str]] = frozenset()
    to_tell: frozenset[int] = frozenset()
    to_refuse: frozenset[int] = frozenset()
    wants_space: bool = False
    over: bool = False
    stop_due: float | None = None
    wants_configuration: bool = False
    configured: bool = False
    url: str = ""
    opened: bool = False
    silent: frozenset[str] = frozenset()
    refused: frozenset[str] = frozenset()
    image: tuple[float, int] | None = None

    def clone(self) -> Node:
        """A copy that shares the machine and the links."""
        copy: Node = _shallow_copy(self)
        copy.batch = clone(self.batch) if self.batch is not None else None
        copy.calls = self.calls.copy()
        copy.links = self.links.copy()
        copy.runs = self.runs.copy()
        copy.unsettled = self.unsettled.copy()
        copy.unconfirmed = self.unconfirmed.copy()
        return copy

    def link(self, epoch: Epoch) -> SimulatedLink:
        """A link, to change: this node alone has it from now on."""
        own = self.links[epoch] = self.links[epoch].clone()
        return own

    def delivery(self, delivery: DeliveryId | None) -> Unsettled | None:
        """The delivery, if it is of the present link and not settled."""
        found = None if delivery is None else self.unsettled.get(delivery & TAG_MASK)
        if found is not None and found.id == delivery:
            return found
        return next((each for each in self.unsettled.values() if each.id == delivery), None)

    def orphan(self, delivery: DeliveryId | None) -> Run | None:
        """The handler that runs for this delivery of a lost link, if what it publishes is held."""
        run = None if delivery is None else self.runs.get(delivery)
        if run is None or run.deferred or run.collected or self.delivery(delivery) is not None:
            return None
        return run

    def resume(self, caller: DeliveryId | None) -> None:
        """The handler of this delivery, if it still runs, waits no more."""
        if caller is not None and caller in self.runs:
            self.runs[caller] = self.runs[caller]._replace(waits=False)


@dataclass(slots=True, eq=False)
class State:
    """Everything that a world consists of.

    Read ``nodes`` and ``broker`` freely; to change one of them, take it from :meth:`node`, :meth:`machine` or
    :meth:`own_broker`.

    Attributes:
        now: seconds, from 0.
        left: how often each of ``BOUNDED`` may still happen.
        promised: labels of the messages that the broker has taken for one of the services.
        sent, doubled: labels of the messages to a service of the scenario that a machine has sent once, and more often.
        done: labels of the messages that are handled and acknowledged, with everything published for them confirmed.
        settled: labels of the messages that a worker has acknowledged or dead-lettered, or would have if it had not
            lost its link before.
        failures: how often the handler of a message failed while the delivery counted, by label.
        requeues: how often a message was requeued by hand while the delivery counted, by label.
        database: what the inboxes have kept, by what identifies the message.
        effects: labels of the messages whose effect is in a database.
        kills: how many workers were killed.
        alarm: the broker is short of memory.
        inbox: the calls that the other service has taken and not answered: label, ``reply_to``, correlation id and
            conversation id.
        notes: what the machines did since the list was last emptied, in words; ``None`` to keep no notes.
        broker_image: the number of the broker's image, the time of that, and whether the image depends on the time;
            ``None`` if the broker may have changed.
    """

    scenario: Scenario
    now: float = 0.0
    left: tuple[int, ...] = (0,) * len(BOUNDED)
    promised: frozenset[str] = frozenset()
    sent: frozenset[str] = frozenset()
    doubled: frozenset[str] = frozenset()
    done: frozenset[str] = frozenset()
    settled: frozenset[str] = frozenset()
    failures: dict[str, int] = field(default_factory=dict)
    requeues: dict[str, int] = field(default_factory=dict)
    database: dict[str, str] = field(default_factory=dict)
    effects: frozenset[str] = frozenset()
    kills: int = 0
    alarm: bool = False
    inbox: tuple[tuple[str, str, str, str], ...] = ()
    notes: list[str] | None = None
    broker: Broker = field(default_factory=lambda: Broker(auto_confirm=False, policies=[POLICY]))
    broker_image: tuple[int, float, bool] | None = None
    nodes: list[Node] = field(init=False)
    _nodes_owned: int = field(init=False)
    _machines_owned: int = field(init=False)
    _owns_broker: bool = True

    def __post_init__(self) -> None:
        self.nodes = [
            Node(Machine(config, random=_half, token=f"t{index}", wall_offset=0.0), _batch(self.scenario))
            for index, config in enumerate(self.scenario.services)
        ]
        self._nodes_owned = self._machines_owned = (1 << len(self.nodes)) - 1

    def fork(self) -> State:
        """An independent copy, without notes. Both sides copy what they share when they change it."""
        copy: State = _shallow_copy(self)
        copy.notes = None
        copy.nodes = self.nodes.copy()
        self._nodes_owned = self._machines_owned = copy._nodes_owned = copy._machines_owned = 0
        self._owns_broker = copy._owns_broker = False
        return copy

    def node(self, index: int) -> Node:
        """A node, to change."""
        if not self._nodes_owned >> index & 1:
            self.nodes[index] = self.nodes[index].clone()
            self._nodes_owned |= 1 << index
        return self.nodes[index]

    def machine(self, index: int) -> Machine:
        """The machine of a node, to make an input."""
        node = self.node(index)
        if not self._machines_owned >> index & 1:
            node.machine = clone(node.machine)
            self._machines_owned |= 1 << index
        node.image = None
        return node.machine

    def new_worker(self, index: int) -> None:
        """Take a new worker for one that was killed. Of its links the broker has not noticed that they are dead."""
        old = self.node(index)
        self.kills += 1
        config, token = old.machine.config, f"t{index}k{self.kills}"
        self.nodes[index] = Node(
            Machine(config, random=_half, token=token, wall_offset=0.0),
            _batch(self.scenario),
            links={link.epoch: link for link in _dead(old.links.values())},
            outside=old.outside,
            seen=old.seen,
            unseen=old.unseen,
        )
        self._machines_owned |= 1 << index

    def own_broker(self) -> Broker:
        """The broker, to change."""
        if not self._owns_broker:
            self.broker = self.broker.clone()
            self._owns_broker = True
        self.broker_image = None
        return self.broker

    # -- bounds -------------------------------------------------------------------------------------------------------

    def may(self, kind: str) -> bool:
        """Whether something that is bounded may happen once more."""
        return self.left[BOUND[kind]] > 0

    def spend(self, kind: str) -> None:
        """Something that is bounded happens."""
        place = BOUND[kind]
        self.left = (*self.left[:place], self.left[place] - 1, *self.left[place + 1 :])

    def spent(self, *kinds: str) -> bool:
        """Whether one of these has happened."""
        return any(self.left[BOUND[kind]] < self.scenario.bounds.get(kind, 0) for kind in kinds)


def _shallow_copy(thing: Any) -> Any:
    """As ``copy.copy``, and several times faster."""
    copy = object.__new__(type(thing))
    for name in thing.__slots__:
        setattr(copy, name, getattr(thing, name))
    return copy


def _dead(links: Iterable[SimulatedLink]) -> Iterator[SimulatedLink]:
    """The links of a killed worker that the broker takes for alive. The numbers of a new worker begin at 1 again."""
    for number, link in enumerate((each for each in links if each.connection), 1):
        dead = link.clone()
        dead.epoch = Epoch(-number)
        dead.attended = dead.connecting = False
        dead.sent.clear()
        dead.down = ((), ())
        yield dead


def _half() -> float:
    return 0.5


def _batch(scenario: Scenario) -> Aggregator[str] | None:
    """The steps of a world do what the callback of this batch would do."""
    return None if scenario.batch is None else Aggregator(*scenario.batch[:2])
