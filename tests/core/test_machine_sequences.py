"""Random histories of one machine, checked by a model that knows nothing of how the machine works.

The model is what the world would be: a queue, a link with its unacknowledged tags and unanswered publishes, and the
handlers that run. It checks the invariants I1 to I3, I5 and I6 of ``ARCHITECTURE.md`` on what the machine asks for.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pamqp.commands import Basic

from eda_core import link
from eda_core.codec import CBOR, decode, encode
from eda_core.effects import (
    Ack,
    Cancel,
    Close,
    Connect,
    Consume,
    Declare,
    Dispatch,
    Effect,
    Nack,
    Publish,
    Settled,
    Stopped,
)
from eda_core.errors import LocalError
from eda_core.machine import Machine
from eda_core.policy import RetryPolicy
from eda_core.values import CONFIGURED, DEFERRED, DONE, DeliveryId, Epoch, Event, Failed

from .kit import URLS, config, replies, snapshot

FAILED = Failed("no")


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


class World:
    """A machine with all that is around it."""

    def __init__(self, delays: bool) -> None:
        self.now = 0.0
        policy = RetryPolicy(3, (1.0,)) if delays else RetryPolicy(2)
        self.machine = Machine(
            config(urls=[*URLS], window=3, buffer=5, retry=policy, retry_delay=2.0, stop_timeout=1e9),
            random=lambda: 0.5,
            token="tok",
            wall_offset=0.0,
        )
        self.numbers = itertools.count(1)
        self.queue: list[Source] = []
        self.sources: list[Source] = []
        self.accepted: dict[int, Accepted] = {}
        # The link
        self.asked: Effect | None = None  # Connect or Declare that waits for its answer
        self.epoch: Epoch | None = None
        self.closed: set[Epoch] = set()
        self.consuming = False
        self.next_tag = 1
        self.next_confirm = 1
        self.unacked: dict[int, Source] = {}
        self.unanswered: dict[int, tuple[Publish, int]] = {}
        # The service
        self.running: dict[DeliveryId, Source] = {}
        self.deferred: dict[DeliveryId, Source] = {}
        self.ids: dict[DeliveryId, tuple[Epoch, int]] = {}
        #: What became of each delivery, by epoch and tag: lost, requeued, acknowledged or dead-lettered.
        self.fates: dict[tuple[Epoch, int], str] = {}
        self.over: Stopped | None = None
        self.made_of_failures: set[int] = set()

    # What the machine asks for

    def perform(self, effects: list[Effect]) -> None:
        for effect in effects:
            assert self.over is None, f"{effect!r} after the end"
            epoch = getattr(effect, "epoch", None)
            if not isinstance(effect, (Connect, Close)) and epoch is not None:
                assert epoch not in self.closed, f"{effect!r} after the link was closed"
                if epoch != self.epoch:
                    continue  # a driver drops it
            action = getattr(self, f"_{type(effect).__name__.lower()}", None)
            if action is not None:
                action(effect)

    def _connect(self, effect: Connect) -> None:
        assert self.epoch is None
        self.asked, self.epoch = effect, effect.epoch
        self.next_tag = self.next_confirm = 1

    def _declare(self, effect: Declare) -> None:
        self.asked = effect

    def _consume(self, effect: Consume) -> None:
        self.consuming = True

    def _cancel(self, effect: Cancel) -> None:
        self.consuming = False

    def _publish(self, effect: Publish) -> None:
        assert effect.tag == self.next_confirm, "confirm tags count from 1 on each link"
        self.next_confirm += 1
        number = decode(effect.body, CBOR) if effect.exchange else 0
        self.unanswered[effect.tag] = (effect, number)
        assert len(self.unanswered) <= 3, "over the window"

    def _ack(self, effect: Ack) -> None:
        covered = [tag for tag in self.unacked if tag == effect.tag or (effect.multiple and tag < effect.tag)]
        assert effect.tag in covered, "I2: the tag is unknown to the broker"
        for tag in covered:
            source = self.unacked.pop(tag)
            for publish in self.accepted.values():
                if publish.within is not None and self.ids[publish.within] == (effect.epoch, tag):
                    safe = publish.confirmed or publish.number in self.made_of_failures
                    assert safe, f"I1: {tag} is acknowledged before {publish.number} is confirmed"
            retried = any(copy.properties.message_id == source.properties.message_id for copy, _ in self._copies(tag))
            assert not retried, "I1: acknowledged before its delayed retry is confirmed"
            assert not any(self.ids[delivery] == (effect.epoch, tag) for delivery in self.running), "it still runs"
            source.settled = self.fates[effect.epoch, tag] = "acknowledged"

    def _copies(self, tag: int) -> list[tuple[Publish, int]]:
        return [
            (publish, number)
            for publish, number in self.unanswered.values()
            if not publish.exchange and publish.delivery is not None and self.ids[publish.delivery][1] == tag
        ]

    def _nack(self, effect: Nack) -> None:
        assert effect.tag in self.unacked, "I2: the tag is unknown to the broker"
        source = self.unacked.pop(effect.tag)
        self.fates[effect.epoch, effect.tag] = "requeued" if effect.requeue else "dead-lettered"
        if effect.requeue:
            source.redelivered = True
            self.queue.insert(0, source)
        else:
            source.settled = "dead-lettered"

    def _dispatch(self, effect: Dispatch) -> None:
        assert self.epoch is not None
        tag = self.next_tag - 1
        source = self.unacked[tag]
        self.ids[effect.delivery] = (self.epoch, tag)
        self.running[effect.delivery] = source

    def _settled(self, effect: Settled) -> None:
        publish = self.accepted[effect.ticket]
        publish.told += 1
        publish.failed = publish.failed or effect.error is not None

    def _close(self, effect: Close) -> None:
        self.closed.add(effect.epoch)
        if effect.epoch == self.epoch and self.machine.state is not link.CLOSING:
            self._cut()

    def _stopped(self, effect: Stopped) -> None:
        self.over = effect

    def _cut(self) -> None:
        """The link is gone: the broker has everything back that was not acknowledged."""
        assert self.epoch is not None
        for tag, source in reversed(self.unacked.items()):
            self.fates[self.epoch, tag] = "lost"
            source.redelivered = True
            self.queue.insert(0, source)
        self.unacked.clear()
        self.unanswered.clear()
        self.deferred.clear()
        self.asked, self.epoch, self.consuming = None, None, False

    # What may happen

    def arrive(self) -> None:
        number = next(self.numbers)
        properties = Basic.Properties(
            headers={"conversation_id": "c"}, message_id=f"source-{number}", content_type="application/cbor"
        )
        source = Source(number, encode(number), properties=properties)
        self.sources.append(source)
        self.queue.append(source)

    def answer(self) -> None:
        """The driver has done what it was asked: connected, or declared."""
        asked, self.asked = self.asked, None
        if isinstance(asked, Connect):
            self.perform(self.machine.link_up(asked.epoch, self.now))
        elif isinstance(asked, Declare):
            self.perform(self.machine.declared(asked.epoch, replies(asked), self.now))

    def deliver(self) -> None:
        if self.consuming and self.queue and self.epoch is not None and len(self.unacked) < 4:
            source = self.queue.pop(0)
            tag, self.next_tag = self.next_tag, self.next_tag + 1
            self.unacked[tag] = source
            before = len(self.ids)
            self.perform(
                self.machine.delivered(
                    self.epoch, tag, source.redelivered, "events", "Happened", source.properties, source.body, self.now
                )
            )
            assert len(self.ids) == before + 1 or tag not in self.unacked, "neither dispatched nor settled"

    def handle(self, choice: int, outcome: Any) -> None:
        if self.running:
            delivery = sorted(self.running)[choice % len(self.running)]
            source = self.running.pop(delivery)
            if outcome is DEFERRED and self.ids[delivery][0] == self.epoch:
                self.deferred[delivery] = source
            if outcome is FAILED:
                self.made_of_failures |= {
                    number for number, each in self.accepted.items() if each.within == delivery and each.held
                }
            self.perform(self.machine.handled(delivery, outcome, self.now))

    def by_hand(self, choice: int, method: str) -> None:
        if self.deferred:
            delivery = sorted(self.deferred)[choice % len(self.deferred)]
            del self.deferred[delivery]
            if method == "ack":
                self.perform(self.machine.ack(delivery, self.now))
            elif method == "failed":
                self.perform(self.machine.failed(delivery, FAILED, self.now))
            else:
                self.perform(self.machine.nack(delivery, self.now, requeue=method == "requeue"))

    def publish(self, choice: int, immediate: bool) -> None:
        number = next(self.numbers)
        candidates = [*sorted(self.running), *sorted(self.deferred), None]
        within = candidates[choice % len(candidates)]
        live = within is not None and self.ids[within][0] == self.epoch
        source = self.running.get(within) or self.deferred.get(within) if within is not None else None
        held = within in self.running and not immediate
        self.accepted[number] = Accepted(number, number, within if live else None, source, held)
        try:
            effects = self.machine.publish(
                Event("Told", number, "c"), self.now, within=within, immediate=immediate, ticket=number
            )
        except LocalError:
            del self.accepted[number]
        else:
            self.perform(effects)

    def reply(self, choice: int, multiple: bool, positive: bool) -> None:
        """The broker confirms or refuses."""
        if self.unanswered and self.epoch is not None:
            tag = sorted(self.unanswered)[choice % len(self.unanswered)]
            hit = [each for each in sorted(self.unanswered) if each == tag or (multiple and each < tag)]
            for each in hit:
                publish, number = self.unanswered.pop(each)
                if positive and number:
                    self.accepted[number].confirmed += 1
                elif positive:
                    self._retry(publish)
            method = self.machine.confirmed if positive else self.machine.refused
            self.perform(method(self.epoch, tag, self.now, multiple=multiple))

    def _retry(self, copy: Publish) -> None:
        """The copy of a failed message is safe; another attempt at it will come."""
        self.sources.append(Source(0, copy.body, properties=copy.properties, settled="waits in the retry queue"))

    def lose(self) -> None:
        if self.epoch is not None:
            epoch = self.epoch
            closing = self.machine.state is link.CLOSING
            self._cut()
            self.perform(self.machine.link_down(epoch, "cut", self.now))
            assert not closing or self.over is not None

    def wait(self, seconds: float) -> None:
        self.now += seconds
        deadline = self.machine.deadline()
        if deadline is None or self.now < deadline:
            before = snapshot(self.machine)
            assert self.machine.tick(self.now) == []
            assert snapshot(self.machine) == before, "R7"
        else:
            self.perform(self.machine.tick(self.now))

    def stale(self, choice: int) -> None:
        """Reports about links that are gone, tags that never were, and wrong calls: none has an effect."""
        machine, now = self.machine, self.now
        old = Epoch(machine.epoch - 1)
        properties = Basic.Properties(headers={"conversation_id": "c"})
        reports: list[Callable[[], list[Effect]]] = [
            lambda: machine.confirmed(old, 1, now, multiple=True),
            lambda: machine.refused(old, 1, now, multiple=True),
            lambda: machine.link_up(old, now),
            lambda: machine.declared(old, [], now),
            lambda: machine.link_down(old, "late", now),
            lambda: machine.channel_closed(old, "late", now),
            lambda: machine.consumer_cancelled(old, "events", now),
            lambda: machine.delivered(old, 1, False, "events", "Happened", properties, b"", now),
            lambda: machine.blocked(old, "late", now),
            lambda: machine.unblocked(old, now),
            lambda: machine.returned(old, "events", "Told", properties, b"", "late", now),
            lambda: machine.effect_failed(Ack(old, 1, False), "late", now),
            lambda: machine.confirmed(machine.epoch, 10**9, now),
            lambda: machine.refused(machine.epoch, 10**9, now),
            lambda: machine.handled(DeliveryId(12345), FAILED, now),
        ]
        wrong: list[Callable[[], list[Effect]]] = [
            lambda: machine.ack(DeliveryId(-1), now),
            lambda: machine.nack(DeliveryId(0), now),
            lambda: machine.publish(Event("", None, "c"), now),
            lambda: machine.log(99, "text", now),
        ]
        if machine.state is not link.IDLE:
            wrong.append(lambda: machine.start(now))
        counted = machine.stale
        machine.deadline()  # which may look further for the oldest publish: no change that anybody could notice
        before = snapshot(machine)
        if choice % 2:
            assert reports[choice // 2 % len(reports)]() == []
            machine.stale = counted
        else:
            with pytest.raises(LocalError):
                wrong[choice // 2 % len(wrong)]()
        assert snapshot(machine) == before

    # The end

    def calm(self) -> None:
        """Faults stop, handlers succeed, the broker agrees to everything, until nothing more happens."""
        for _ in range(500):
            if self.machine.state is link.IDLE or self.over is not None:
                return
            if self.epoch is None:
                self.wait(max(0.0, (self.machine.deadline() or self.now) - self.now))
            elif self.machine.state is link.CLOSING:
                self.lose()
            elif self.asked is not None:
                self.answer()
            elif self.running:
                self.handle(0, DONE)
            elif self.deferred:
                self.by_hand(0, "ack")
            elif self.unanswered:
                self.reply(0, False, True)
            elif self.consuming and self.queue:
                self.deliver()
            elif (deadline := self.machine.deadline()) is not None and deadline < 1e8:
                self.wait(max(0.0, deadline - self.now))
            else:
                return
        raise AssertionError("I5: it never becomes quiet")

    def check_the_end(self) -> None:
        assert not self.unacked, "I5: a delivery is not settled"
        assert not self.unanswered
        for publish in self.accepted.values():
            safe = publish.confirmed or publish.failed or publish.number in self.made_of_failures
            if publish.held and not safe:  # an orphan's is within nothing
                fate = "lost" if publish.within is None else self.fates[self.ids[publish.within]]
                safe = fate in ("lost", "requeued")
            assert safe, f"I3: publish {publish.number} was silently dropped"
        if self.machine.state is link.OPEN:
            assert not self.queue
            assert all(source.settled for source in self.sources)


choices = st.integers(0, 40)
moves = st.one_of(
    st.tuples(st.sampled_from(["answer", "deliver", "arrive", "lose"])),
    st.tuples(st.just("answer")),
    st.tuples(st.just("deliver")),
    st.tuples(st.just("handle"), choices, st.sampled_from([DONE, FAILED, DEFERRED, CONFIGURED])),
    st.tuples(st.just("by_hand"), choices, st.sampled_from(["ack", "reject", "requeue", "failed"])),
    st.tuples(st.just("publish"), choices, st.booleans()),
    st.tuples(st.just("reply"), choices, st.booleans(), st.sampled_from([True, True, False])),
    st.tuples(st.just("wait"), st.sampled_from([0.0, 0.5, 2.0, 40.0])),
    st.tuples(st.just("stale"), choices),
)
#: Left to itself, hypothesis makes most lists too short to get anywhere.
histories = st.lists(moves, max_size=8) | st.lists(moves, min_size=25, max_size=60)


def live(world: World, history: list[tuple[Any, ...]]) -> None:
    world.perform(world.machine.start(world.now))
    for _ in range(3):
        world.arrive()
    for name, *arguments in history:
        if world.over is None:
            getattr(world, name)(*arguments)


@given(histories, st.booleans())
def test_whatever_happens_nothing_is_lost_and_all_becomes_quiet(history: list[tuple[Any, ...]], delays: bool) -> None:
    world = World(delays)
    for _ in range(3):  # from an open link, or too few histories would get far
        world.arrive()
    world.perform(world.machine.start(world.now))
    for _ in range(3):
        world.answer()
    for name, *arguments in history:
        getattr(world, name)(*arguments)
    world.calm()
    assert world.epoch is not None
    world.check_the_end()
    world.perform(world.machine.stop(world.now))
    assert world.epoch in world.closed, "I5: something is left"
    world.lose()
    assert world.over == Stopped()


@given(histories, histories, st.booleans())
def test_a_stop_at_any_moment_finishes_everything_first(
    before: list[tuple[Any, ...]], after: list[tuple[Any, ...]], delays: bool
) -> None:
    world = World(delays)
    live(world, before)
    world.perform(world.machine.stop(world.now))
    for name, *arguments in after:
        if world.over is None:
            getattr(world, name)(*arguments)
    world.calm()
    assert world.over == Stopped()
    world.check_the_end()
    assert not any(publish.failed for publish in world.accepted.values()), "it had all the time"


@given(histories, st.booleans())
def test_a_stop_without_patience_tells_of_every_ticket(history: list[tuple[Any, ...]], delays: bool) -> None:
    world = World(delays)
    live(world, history)
    world.perform(world.machine.stop(world.now, 0.0))
    world.wait(0.0)
    if world.machine.state is link.CLOSING:
        world.lose()
    assert world.over is not None
    for publish in world.accepted.values():
        assert publish.told, f"the caller of {publish.number} waits for ever"
