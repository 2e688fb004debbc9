"""The state of a world, its forks, and what machines do in it: inputs are made, their effects performed and judged.

What can happen in a world is in :mod:`eda_core.testing.explorer.world`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

from pamqp import commands

from eda_core.errors import BufferFull, LocalError
from eda_core.machine import effects as fx
from eda_core.machine import link as life
from eda_core.machine.aggregator import Batch
from eda_core.machine.identifiers import TAG_MASK, DeliveryId, Epoch, PublishId
from eda_core.machine.machine import Machine
from eda_core.messages.values import Configuration, Event
from eda_core.testing.broker.arguments import Policy
from eda_core.testing.broker.model import Broker
from eda_core.testing.explorer.invariants import (
    is_bound,
    judge_ack,
    judge_nack,
    judge_publish,
    judge_reachable,
    judge_replied,
    reply_key,
)
from eda_core.testing.explorer.model import (
    BOUND,
    FAILED,
    RESULT,
    RUNS,
    SUCCEEDED,
    Called,
    Link,
    Node,
    Piece,
    Post,
    Run,
    Scenario,
    Track,
    Violation,
)
from eda_core.testing.explorer.snapshot import clone, label_of

CONSUMING: Final = 0
PUBLISHING: Final = 1
_POLICY: Final = Policy("DLX", r".*\.(events|commands)$", {"dead-letter-exchange": "am-dlx"})


def _half() -> float:
    return 0.5


def _batch(scenario: Scenario) -> Batch[str] | None:
    """The callback is in the steps."""
    return None if scenario.batch is None else Batch(*scenario.batch[:2], void)


class WorldState:
    """Everything that a world consists of.

    Attributes:
        now: seconds, from 0.
        left: how often each of ``BOUNDED`` may still happen.
        promised: labels of messages that the broker has taken on for one of the services.
        done: labels of those that were handled, and acknowledged with all that they published safe.
        settled: labels of those that a worker has acknowledged or dead-lettered, as far as it is concerned, or would
            have, had its link not been lost first.
        failures: of handlers, by label, while the delivery counted.
        requeues: attempts after which the message was given back by hand, by label, likewise.
        inbox: the calls that another service has taken and not answered: label, ``reply_to``, correlation and
            conversation id.
        todo: what follows from the step that is being taken: the number of a node, and what to do with it.
        notes: what the machines did since it was last emptied, in words; ``None`` to keep no notes.
    """

    __slots__ = (
        "_broker_image",
        "_machines_owned",
        "_nodes_owned",
        "_owns_broker",
        "alarm",
        "broker",
        "done",
        "failures",
        "inbox",
        "left",
        "nodes",
        "notes",
        "now",
        "promised",
        "requeues",
        "scenario",
        "settled",
        "todo",
    )

    def __init__(self, scenario: Scenario) -> None:
        self.scenario: Scenario = scenario
        self.now: float = 0.0
        self.left: tuple[int, ...] = (0,) * len(scenario.left())
        self.promised: frozenset[str] = frozenset()
        self.done: frozenset[str] = frozenset()
        self.settled: frozenset[str] = frozenset()
        self.failures: dict[str, int] = {}
        self.requeues: dict[str, int] = {}
        self.alarm: bool = False
        self.inbox: tuple[tuple[str, str, str, str], ...] = ()
        self.notes: list[str] | None = None
        self.todo: list[tuple[int, Callable[[int], None]]] = []
        self.broker: Broker = Broker(auto_confirm=False, policies=[_POLICY])
        self.nodes: list[Node] = [
            Node(Machine(config, random=_half, token=f"t{index}", wall_offset=0.0), _batch(scenario))
            for index, config in enumerate(scenario.services)
        ]
        self._nodes_owned = self._machines_owned = (1 << len(self.nodes)) - 1
        self._owns_broker = True
        #: The number of the broker's image, when it was taken, and whether it depends on that.
        self._broker_image: tuple[int, float, bool] | None = None

    # -- forks --------------------------------------------------------------------------------------------------------

    def _fork_into(self, copy: WorldState) -> None:
        """Both copy what they share when they change it."""
        for name in WorldState.__slots__:
            setattr(copy, name, getattr(self, name))
        copy.nodes = self.nodes.copy()
        copy.todo = []
        copy.notes = None
        for world in (self, copy):
            world._nodes_owned = world._machines_owned = 0
            world._owns_broker = False

    def _node(self, index: int) -> Node:
        """A node, to change."""
        if not self._nodes_owned >> index & 1:
            self.nodes[index] = self.nodes[index].clone()
            self._nodes_owned |= 1 << index
        return self.nodes[index]

    def _machine(self, index: int) -> Machine:
        node = self._node(index)
        if not self._machines_owned >> index & 1:
            node.machine = clone(node.machine)
            self._machines_owned |= 1 << index
        node.image = None
        return node.machine

    def _own_broker(self) -> Broker:
        if not self._owns_broker:
            self.broker = self.broker.clone()
            self._owns_broker = True
        self._broker_image = None
        return self.broker

    def _expect(self, label: str) -> None:
        """The broker has been given a message that must not be lost."""
        self.promised = self.promised | {label}

    def _may(self, kind: str) -> bool:
        return self.left[BOUND[kind]] > 0

    def _spend(self, kind: str) -> None:
        place = BOUND[kind]
        self.left = (*self.left[:place], self.left[place] - 1, *self.left[place + 1 :])

    def _spent(self, kind: str) -> bool:
        return self.left[BOUND[kind]] < self.scenario.bounds.get(kind, 0)

    # -- inputs of machines -------------------------------------------------------------------------------------------

    def _tell(self, index: int, method: str, *arguments: Any, **named: Any) -> None:
        """Make an input and perform its effects; no input from outside may raise (I6)."""
        self._feed(index, getattr(self._machine(index), method), *arguments, **named)

    def _feed(self, index: int, method: Callable[..., list[fx.Effect]], *arguments: Any, **named: Any) -> None:
        """Make an input by a method of the machine, or of what makes inputs to it."""
        epoch = self.nodes[index].machine.epoch
        self._note(index, method.__name__, *arguments, **named)
        try:
            effects = method(*arguments, now=self.now, **named)
        except Exception as error:
            raise Violation("I6", f"{method.__name__} raised {error!r}") from error
        self._perform(index, epoch, effects)

    def _note(self, index: int, method: str, *arguments: Any, **named: Any) -> None:
        if self.notes is not None:
            shown = ", ".join([*map(_short, arguments), *(f"{key}={value}" for key, value in named.items())])
            self.notes.append(f"  {self.nodes[index].machine.config.service}.{method}({shown})")

    def _publish(self, index: int, post: Post, within: DeliveryId | None, cause: str) -> bool:
        """Publish; whether the machine took it."""
        machine, node = self._machine(index), self._node(index)
        epoch, before = machine.epoch, machine.published
        ticket = node.tickets = node.tickets + 1
        track = self._track(node, within)
        held = not post.immediate and track is not None and track.end is RUNS
        effects = self._attempt(
            index,
            lambda: machine.publish(
                post.message,
                self.now,
                within=within,
                mandatory=post.mandatory,
                immediate=post.immediate,
                ticket=ticket,
            ),
            track,
        )
        if effects is None:
            return False
        if machine.published != before:
            delivery = within if held and within else DeliveryId(0)
            self._accept(
                node, Piece(post, held, delivery, "" if track is None else cause, 0 if held else ticket), track
            )
        if held or machine.published == before:  # nobody has to wait for it
            node.told |= {ticket}
        self._note(index, "publish", post, within=within)
        self._perform(index, epoch, effects)
        return True

    def _track(self, node: Node, delivery: DeliveryId | None) -> Track | None:
        """The delivery, if it is on the present link and not settled."""
        track = None if delivery is None else node.tracks.get(delivery & TAG_MASK)
        return track if track is not None and track.id == delivery else None

    def _attempt(
        self, index: int, publish: Callable[[], list[fx.Effect]], track: Track | None
    ) -> list[fx.Effect] | None:
        """A publish or a call, which may be refused when the machine is over or full, as their docstrings say.

        Args:
            track: the delivery within which it is made.
        """
        node = self._node(index)
        machine = node.machine
        try:
            return publish()
        except BufferFull as full:
            calls = len(node.calls)
            if track is not None and calls < machine.config.buffer:
                raise Violation("R9", f"{full!r}: want of space fails the handler of {track.label}") from full
            if max(may_be_unsafe(node), calls) < machine.config.buffer:
                raise Violation("R9", f"{full!r} with {unsafe(node)} unsafe") from full
            node.starved = node.starved or full.temporary
        except LocalError as error:
            if machine.state not in (life.STOPPED, life.CLOSING):
                raise Violation("I6", f"publish raised {error!r}") from error
        except Exception as error:
            raise Violation("I6", f"publish raised {error!r}") from error
        return None

    def _accept(self, node: Node, piece: Piece, track: Track | None) -> None:
        """The machine has accepted a publish, for a delivery if ``track`` is one."""
        number = node.machine.published
        node.pieces[number] = piece
        if track is not None:
            node.tracks[track.id & TAG_MASK] = track._replace(pieces=(*track.pieces, number))
        elif unsafe(node) > node.machine.config.buffer:
            raise Violation("R9", f"{unsafe(node)} publishes in a buffer of {node.machine.config.buffer}")

    def _call_over(self, node: Node, called: Called) -> None:
        """The command of a call that is over is not sent any more; one on the link is not sent again."""
        key = next((key for key, piece in node.pieces.items() if piece.call and piece.post.label == called.label), None)
        if key is not None:
            if any(key in link.sent.values() for link in node.links.values()):
                node.pieces[key] = node.pieces[key]._replace(last_time=True)
            else:
                del node.pieces[key]

    def _perform(self, index: int, epoch: Epoch, effects: Iterable[fx.Effect]) -> None:
        """Perform the effects of an input that was made when the link was ``epoch``."""
        node = self.nodes[index]
        for effect in effects:
            if self.notes is not None:
                self.notes.append(f"    -> {effect!r}")
            action = _EFFECTS.get(type(effect))
            if action is not None:
                if node.over:
                    raise Violation("I5", f"{effect!r} after Stopped")
                if getattr(effect, "epoch", epoch) < epoch:
                    raise Violation("I2", f"{effect!r} is for an earlier link than {epoch}")
                action(self, index, node, effect)
        paused = [track.label for track in node.tracks.values() if track.end is RUNS and track.id not in node.runs]
        if paused and node.machine.state is life.DRAINING:
            raise Violation("life", f"it stops, and keeps {paused}, which no handler has seen")
        if paused and node.machine.state is life.OPEN and may_be_unsafe(node) < node.machine.config.buffer:
            raise Violation("R9", f"there is space, and {paused} are not handled")
        if node.told:
            raise Violation("I3", f"the caller is not told of {sorted(node.told)}")
        if node.machine.epoch != epoch or node.over:
            self._lost(node, epoch)
        elif node.machine.state is life.CLOSING and (node.tracks or node.pieces):
            self._forget(node)
        if node.calls and (node.over or node.machine.state is life.CLOSING):
            raise Violation("call", f"it is over, and nobody says so to {[call.label for call in node.calls.values()]}")

    def _judge_closing(self, node: Node) -> None:
        """A stop lets running handlers finish, and settles their messages, unless its time is up."""
        if node.stop_due is not None and self.now >= node.stop_due:
            return
        unfinished = [run.label for run in node.runs.values() if not run.deferred]
        unfinished += [track.label for track in node.tracks.values()]
        if unfinished:
            raise Violation("life", f"it closes before {sorted(unfinished)} are finished")

    def _lost(self, node: Node, epoch: Epoch) -> None:
        """The machine has given up link ``epoch``; what is left of it is for the broker to notice."""
        if epoch in node.links:
            link = node.link(epoch)
            link.attended = False
            link.sent.clear()
            if not link.refused:
                node.refused -= {node.url}
            self._unseen(self.nodes.index(node), link)
            if not link.connection:
                del node.links[epoch]
        self.settled |= {track.label for track in node.tracks.values() if track.end is FAILED}
        node.pieces = {key: piece for key, piece in node.pieces.items() if not piece.last_time}
        self._forget(node)

    def _forget(self, node: Node) -> None:
        """Nothing more becomes of the deliveries; their redeliveries make again what was published for them."""
        node.pieces = {key: piece for key, piece in node.pieces.items() if not piece.held}
        node.tracks.clear()
        node.configured = False
        if node.machine.state in (life.CLOSING, life.STOPPED):
            silent = [piece for piece in node.pieces.values() if not piece.call or not self._may_give_up(node)]
            if silent:
                raise Violation("I3", f"stopped without a word of {[piece.post.label for piece in silent]}")
            node.pieces.clear()

    def _may_give_up(self, node: Node) -> bool:
        """Whether a service may be over with something unfinished."""
        return self._spent("bad_login") or (node.stop_due is not None and self.now >= node.stop_due)

    def _unseen(self, index: int, link: Link) -> None:
        """What is delivered on a link that the service has given up is redelivered to it, although it never saw it."""
        node = self._node(index)
        key = reply_key(index, node)
        waiting = {label_of(item[6]) for item in link.down[CONSUMING] if item[0] == "deliver" and item[4] != key}
        node.unseen |= waiting - node.known

    # -- effects ------------------------------------------------------------------------------------------------------

    def _on_connect(self, index: int, node: Node, effect: fx.Connect) -> None:
        if any(link.attended for epoch, link in node.links.items() if epoch >= effect.epoch):
            raise Violation("I2", f"{effect!r} while there is a link")
        urls = node.machine.config.urls
        if node.url and effect.url != urls[(urls.index(node.url) + 1) % len(urls)]:
            raise Violation("life", f"{effect!r} after {node.url}: URLs are tried in turn")
        node.url = effect.url
        node.links[effect.epoch] = Link(effect.epoch)

    def _on_declare(self, index: int, node: Node, effect: fx.Declare) -> None:
        node.link(effect.epoch).send(CONSUMING, ("declare", effect.commands))

    def _on_consume(self, index: int, node: Node, effect: fx.Consume) -> None:
        method = commands.Basic.Consume(queue=effect.queue, consumer_tag=effect.consumer_tag)
        node.link(effect.epoch).send(CONSUMING, ("consume", method))

    def _on_cancel(self, index: int, node: Node, effect: fx.Cancel) -> None:
        node.link(effect.epoch).send(CONSUMING, ("cancel", commands.Basic.Cancel(effect.consumer_tag)))

    def _on_ack(self, index: int, node: Node, effect: fx.Ack) -> None:
        settled = [track for track in judge_ack(node, effect) if track.end is not RESULT]
        self.settled |= {track.label for track in settled}
        self.done |= {track.label for track in settled if track.end is SUCCEEDED}
        method = commands.Basic.Ack(effect.tag, effect.multiple)
        node.link(effect.epoch).send(CONSUMING, ("settle", method))

    def _on_nack(self, index: int, node: Node, effect: fx.Nack) -> None:
        track = node.tracks.get(effect.tag)
        label = "" if track is None else track.label
        # What its worker cannot know of: another worker's failures, a settlement that was lost with its link, a
        # redelivery of what never arrived, and copies that delayed retries leave when their confirm is lost.
        doubled = bool(node.machine.config.retry.delays) and (node.machine.epoch > 1 or self._spent("refusal"))
        disturbed = label in node.unseen or label in self.settled or len(self.nodes) > 1 or doubled
        judge_nack(node, effect, self.failures.get(label, 0), self.requeues.get(label, 0), disturbed)
        if not effect.requeue:
            self.settled |= {label}
        method = commands.Basic.Nack(effect.tag, False, effect.requeue)
        node.link(effect.epoch).send(CONSUMING, ("settle", method))

    def _on_publish(self, index: int, node: Node, effect: fx.Publish) -> None:
        link = node.link(effect.epoch)
        if effect.pid not in node.pieces and not effect.exchange and effect.delivery is not None:
            self._own_retry(node, effect, effect.delivery)
        judge_publish(node, link, effect)
        if link.connection and node.pieces[effect.pid].call:
            judge_reachable(self.broker, effect)
        if link.blocked:
            raise Violation("life", f"{effect!r} while the broker takes no publishes")
        link.last = effect.tag
        link.sent[effect.tag] = effect.pid
        method = commands.Basic.Publish(
            exchange=effect.exchange, routing_key=effect.routing_key, mandatory=effect.mandatory
        )
        link.send(PUBLISHING, ("publish", effect.tag, method, effect.properties, effect.body))

    def _own_retry(self, node: Node, effect: fx.Publish, delivery: DeliveryId) -> None:
        """A delayed retry, which the machine publishes by itself."""
        track = node.tracks.get(delivery & TAG_MASK)
        if track is None or track.end is not FAILED or track.retried:
            raise Violation("I4", f"nobody asked for {effect!r}")
        node.pieces[effect.pid] = Piece(Post(Event("", track.label, "")), True, delivery, retry=True)
        pieces = (*track.pieces, effect.pid)
        node.tracks[delivery & TAG_MASK] = track._replace(pieces=pieces, retried=True)

    def _on_dispatch(self, index: int, node: Node, effect: fx.Dispatch) -> None:
        label = str(effect.message.payload)
        if effect.delivery in node.runs:
            raise Violation("I2", f"{effect!r} is dispatched twice")
        track = node.tracks.get(effect.delivery & TAG_MASK)
        if track is None or track.id != effect.delivery or track.label != label or track.end is RESULT:
            raise Violation("I2", f"{effect!r} is not what was delivered")
        config = node.machine.config
        if config.configurations and not node.configured and not isinstance(effect.message, Configuration):
            raise Violation("life", f"{effect!r} while the service is not configured")
        if node.stop_due is not None:
            raise Violation("life", f"{effect!r} although the service stops")
        if unsafe(node) >= config.buffer:
            raise Violation("R9", f"{effect!r} while there is no space for what its handler publishes")
        node.known |= {label}
        node.runs[effect.delivery] = Run(label, 0, False, str(effect.message.meta.get("message_id") or ""))

    def _on_settled(self, index: int, node: Node, effect: fx.PublishDone) -> None:
        if effect.error is None:
            if effect.ticket not in node.told:
                raise Violation("I3", f"{effect!r} is told early or twice")
            node.told -= {effect.ticket}
            return
        key = next((key for key, piece in node.pieces.items() if piece.ticket == effect.ticket), None)
        if key is None:
            raise Violation("I3", f"{effect!r}, of what is safe")
        if not self._may_give_up(node):
            raise Violation("I3", f"{node.pieces[key].post.label} is given up before its time")
        del node.pieces[PublishId(key)]

    def _on_replied(self, index: int, node: Node, effect: fx.Replied) -> None:
        """A call is over. Without a fault its result comes in time: time only passes when nothing else happens."""
        disturbed = any(map(self._spent, ("haste", "refusal", "alarm")))
        called = judge_replied(node, effect, self.scenario.answers or {}, self.now, disturbed)
        if effect.timed_out and not disturbed:
            self._judge_sent(index, node, called)
        self._call_over(node, called)
        if called.caller is not None and called.caller in node.runs:
            node.runs[called.caller] = node.runs[called.caller]._replace(waits=False)

    def _judge_sent(self, index: int, node: Node, called: Called) -> None:
        """A call may only time out if its command was sent on the open link, where its result could come."""
        waiting = {key for key, piece in node.pieces.items() if piece.call and piece.post.label == called.label}
        link = node.links.get(node.machine.epoch)
        if node.machine.state is not life.OPEN or link is None or waiting <= set(link.sent.values()):
            return
        if is_bound(self.broker, reply_key(index, node)):
            raise Violation("I3", f"{called.label} times out, and its command was not sent")

    def _on_unconfigured(self, index: int, node: Node, effect: fx.Unconfigured) -> None:
        node.wants_configuration = True
        request = self.scenario.request
        if request is not None:
            self.todo.append((index, lambda index: void(self._publish(index, request, None, ""))))

    def _on_room(self, index: int, node: Node, effect: fx.BufferAvailable) -> None:
        if not node.starved:
            raise Violation("R9", "Room, but nobody waits for it")
        node.starved = False

    def _on_close(self, index: int, node: Node, effect: fx.Close) -> None:
        if effect.epoch not in node.links:  # as a driver does it
            self.todo.append((index, lambda index: self._tell(index, "link_down", effect.epoch, "closed")))
            return
        node.link(effect.epoch).closing = True
        if node.machine.state is life.CLOSING:
            self._judge_closing(node)

    def _on_stopped(self, index: int, node: Node, effect: fx.Stopped) -> None:
        node.over = True
        node.starved = node.wants_configuration = False
        if node.stop_due is None and effect.error is None:
            raise Violation("I5", "Stopped, but nobody asked for it and there is no error")
        if node.stop_due is None and node.refused != frozenset(node.machine.config.urls):
            raise Violation("life", f"it gives up, and was refused only at {sorted(node.refused)}")


def unsafe(node: Node) -> int:
    """How many publishes of a worker take space in its buffer: all that are unsafe, but for what handlers hold."""
    running = {track.id for track in node.tracks.values() if track.end is RUNS}
    return len(node.pieces) - sum(piece.held and piece.delivery in running for piece in node.pieces.values())


def may_be_unsafe(node: Node) -> int:
    """The same, with the delayed retries that nobody has seen, since they wait for the window: the machine's own."""
    return unsafe(node) + sum(track.end is FAILED and not track.retried for track in node.tracks.values())


def void(_: object) -> None:
    """Drop a result."""


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


_EFFECTS: Final[dict[type, Callable[[Any, int, Node, Any], None]]] = {
    fx.Connect: WorldState._on_connect,
    fx.Declare: WorldState._on_declare,
    fx.Consume: WorldState._on_consume,
    fx.Cancel: WorldState._on_cancel,
    fx.Ack: WorldState._on_ack,
    fx.Nack: WorldState._on_nack,
    fx.Publish: WorldState._on_publish,
    fx.Dispatch: WorldState._on_dispatch,
    fx.PublishDone: WorldState._on_settled,
    fx.Replied: WorldState._on_replied,
    fx.Unconfigured: WorldState._on_unconfigured,
    fx.BufferAvailable: WorldState._on_room,
    fx.Close: WorldState._on_close,
    fx.Stopped: WorldState._on_stopped,
}
