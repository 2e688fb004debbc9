"""A model of what is around one machine, which knows nothing of how the machine works.

It has a queue, a link with its unacknowledged tags and unanswered publishes, the handlers that run, and a service that
answers calls. It checks the invariants I1 to I3, I5 and I6 on what the machine asks for, and that each call ends once,
with its own result.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable
from typing import Any

import pytest
from pamqp.commands import Basic, Queue

from eda_core.errors import LocalError
from eda_core.machine import link
from eda_core.machine.effects import (
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
    PublishDone,
    Replied,
    Stopped,
)
from eda_core.machine.identifiers import TAG_MASK, DeliveryId, Epoch
from eda_core.machine.machine import Machine
from eda_core.machine.outcomes import DEFERRED, DONE, Failed
from eda_core.machine.policy import RetryPolicy
from eda_core.machine.topology import REPLIES
from eda_core.messages.codec import CBOR, decode, encode
from eda_core.messages.values import Event
from tests.core.kit import URLS, config, forget_stale, replies, snapshot

FAILED = Failed("no")


@dataclasses.dataclass(eq=False)
class Source:
    """A message in the queue, and how it was settled."""

    number: int
    body: bytes
    redelivered: bool = False
    settled: str = ""  # "acknowledged" or "dead-lettered"
    properties: Basic.Properties = dataclasses.field(default_factory=Basic.Properties)


@dataclasses.dataclass(eq=False)
class Accepted:
    """A publish that the machine took.

    Attributes:
        within: the delivery for whose acknowledgement it counts, if it was running or deferred when it was made. It has
            the number that its handler knows.
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


class World:
    """A machine with a model of its broker, its driver and its service."""

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
        #: The epoch and the tag of each delivery, by the number that its handler knows. If the message is delivered
        #: again while the handler runs, they are those of the last time.
        self.ids: dict[DeliveryId, tuple[Epoch, int]] = {}
        #: What became of each delivery, by epoch and tag: lost, requeued, acknowledged or dead-lettered.
        self.fates: dict[tuple[Epoch, int], str] = {}
        #: Those that were acknowledged together, by epoch and tag.
        self.groups: list[set[tuple[Epoch, int]]] = []
        # Calls, and the commands that reached the other service
        self.calls: dict[int, Call] = {}
        self.commands: list[Publish] = []
        self.bound = self.replying = False
        self.over: Stopped | None = None
        self.made_of_failures: set[int] = set()
        #: How many publishes the broker has confirmed, and how many handlers have ended.
        self.confirms = self.ended = 0

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
        self._check_numbers()

    def _check_numbers(self) -> None:
        """Each delivery, each publish and each end of a handler is counted once."""
        numbers = self.machine.metrics(self.now)
        ends = numbers.acknowledged + numbers.retried + numbers.dead_lettered + numbers.given_back + numbers.lost
        assert numbers.received == ends + numbers.in_flight
        ends = numbers.confirmed + numbers.unsendable + numbers.dropped
        assert numbers.published == ends + numbers.held + numbers.waiting
        assert numbers.confirmed == self.confirms
        assert numbers.running == len(self.running)
        assert sum(each.count for each in numbers.handlers) == self.ended
        assert numbers.links_opened - numbers.links_lost - numbers.link_open in (0, self.machine.state in link.OVER)

    def _connect(self, effect: Connect) -> None:
        assert self.epoch is None
        self.asked, self.epoch = effect, effect.epoch
        self.next_tag = self.next_confirm = 1

    def _declare(self, effect: Declare) -> None:
        self.asked = effect

    def _consume(self, effect: Consume) -> None:
        if effect.consumer_tag == REPLIES:
            self.replying = True
        else:
            self.consuming = True

    def _cancel(self, effect: Cancel) -> None:
        assert effect.consumer_tag != REPLIES, "handlers may still wait for results"
        self.consuming = False

    def _publish(self, effect: Publish) -> None:
        assert effect.tag == self.next_confirm, "confirm tags count from 1 on each link"
        self.next_confirm += 1
        number = decode(effect.body, CBOR) if effect.exchange else 0
        self.unanswered[effect.tag] = (effect, number)
        assert len(self.unanswered) <= 3, "over the window"
        if number in self.calls:
            assert self.bound, "the result could not come"
            assert not self._is_over(number), "nobody waits for the result of a command that is sent"

    def _ack(self, effect: Ack) -> None:
        covered = [tag for tag in self.unacked if tag == effect.tag or (effect.multiple and tag < effect.tag)]
        assert effect.tag in covered, "I2: the tag is unknown to the broker"
        for tag in covered:
            source = self.unacked.pop(tag)
            for publish in self.accepted.values():
                if publish.within is not None and self.ids[publish.within] in self._together(effect.epoch, tag):
                    safe = publish.confirmed or publish.number in self.made_of_failures or self._is_dropped(publish)
                    assert safe, f"I1: {tag} is acknowledged before {publish.number} is confirmed"
            retried = any(copy.properties.message_id == source.properties.message_id for copy, _ in self._copies(tag))
            assert not retried, "I1: acknowledged before its delayed retry is confirmed"
            assert not any(self.ids[delivery] == (effect.epoch, tag) for delivery in self.running), "it still runs"
            source.settled = self.fates[effect.epoch, tag] = "acknowledged"

    def _together(self, epoch: Epoch, tag: int) -> set[tuple[Epoch, int]]:
        """Return the deliveries that may only be acknowledged together with this one."""
        found = {(epoch, tag)}.union(*(group for group in self.groups if (epoch, tag) in group))
        return {each for each in found if self.fates.get(each) != "requeued"}

    def _is_over(self, number: int) -> bool:
        """Return whether this is a call that has ended."""
        call = self.calls.get(number)
        return call is not None and bool(call.gone or call.ended)

    def _is_dropped(self, publish: Accepted) -> bool:
        """Return whether it is the command of an ended call and not on the link. Then it need not be sent."""
        return self._is_over(publish.number) and publish.number not in [each for _, each in self.unanswered.values()]

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
        tag = effect.delivery & TAG_MASK
        source = self.unacked[tag]
        self.ids[effect.delivery] = (self.epoch, tag)
        self.running[effect.delivery] = source

    def _publishdone(self, effect: PublishDone) -> None:
        publish = self.accepted[effect.ticket]
        publish.told += 1
        publish.failed = publish.failed or effect.error is not None

    def _replied(self, effect: Replied) -> None:
        call = self.calls[effect.ticket]
        call.ended += 1
        assert call.ended == 1, "told twice"
        assert not call.gone, "nobody waits for it"
        if effect.result is not None:
            assert effect.result.payload == effect.ticket, "the result of another call"
        elif effect.timed_out:
            assert self.now >= call.due, "too early"
        else:
            assert self.machine.state in (link.CLOSING, link.STOPPED), effect.error
        self.accepted[effect.ticket].told += 1

    def _close(self, effect: Close) -> None:
        self.closed.add(effect.epoch)
        if effect.epoch == self.epoch and self.machine.state is not link.CLOSING:
            self._cut()

    def _stopped(self, effect: Stopped) -> None:
        """The driver drops the link, if the broker has not closed it in time."""
        self.over = effect
        if self.epoch is not None:
            self._cut()

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
        self.bound = self.replying = False

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
        """The driver reports that it has connected or declared."""
        asked, self.asked = self.asked, None
        if isinstance(asked, Connect):
            self.perform(self.machine.link_up(asked.epoch, self.now))
        elif isinstance(asked, Declare):
            key = self.machine._calls.key
            self.bound |= any(isinstance(each, Queue.Bind) and each.routing_key == key for each in asked.commands)
            self.perform(self.machine.declared(asked.epoch, replies(asked), self.now))

    def deliver(self) -> None:
        if self.consuming and self.queue and self.epoch is not None and len(self.unacked) < 4:
            source = self.queue.pop(0)
            tag, self.next_tag = self.next_tag, self.next_tag + 1
            self.unacked[tag] = source
            runs = [delivery for delivery, each in self.running.items() if each is source]
            before = len(self.ids)
            self.perform(
                self.machine.delivered(
                    self.epoch, tag, source.redelivered, "events", "Happened", source.properties, source.body, self.now
                )
            )
            if runs:
                self._goes_on(runs, tag, before)
                return
            paused = self.machine._outbox.kept >= self.machine.config.buffer
            assert len(self.ids) == before + 1 or tag not in self.unacked or paused, "neither dispatched nor settled"

    def _goes_on(self, runs: list[DeliveryId], tag: int, before: int) -> None:
        """Let the handler that still runs for a lost delivery of a message go on for the one that came now."""
        assert self.epoch is not None
        (run,) = runs
        assert self.ids[run][0] < self.epoch, "its message was delivered twice on one link"
        assert len(self.ids) == before, "two handlers run for one message"
        if tag in self.unacked:  # else it was lost too often, and is dead-lettered
            assert self.machine.in_flight(run), "neither dispatched nor settled nor carried by the handler that runs"
            self.ids[run] = (self.epoch, tag)

    def handle(self, choice: int, outcome: Any) -> None:
        if self.running:
            delivery = sorted(self.running)[choice % len(self.running)]
            source = self.running.pop(delivery)
            self.ended += 1
            if outcome is DEFERRED and self.ids[delivery][0] == self.epoch:
                self.deferred[delivery] = source
            if outcome is FAILED:
                self.made_of_failures |= {
                    number for number, each in self.accepted.items() if each.within == delivery and each.held
                }
            self.perform(self.machine.handled(delivery, outcome, self.now))

    def by_hand(self, choice: int, method: str) -> None:
        if self.deferred and method == "together":
            deliveries = sorted(self.deferred)
            self.deferred.clear()
            self.groups.append({self.ids[each] for each in deliveries})
            self.perform(self.machine.ack_together(deliveries, self.now))
        elif self.deferred:
            delivery = sorted(self.deferred)[choice % len(self.deferred)]
            del self.deferred[delivery]
            if method == "ack":
                self.perform(self.machine.ack(delivery, self.now))
            elif method == "failed":
                self.perform(self.machine.failed(delivery, FAILED, self.now))
            else:
                self.perform(self.machine.nack(delivery, self.now, requeue=method == "requeue"))

    def publish(self, choice: int, immediate: bool) -> None:
        number, within = self._accept(choice, immediate)
        try:
            effects = self.machine.publish(
                Event("Told", number, "c"), self.now, within=within, immediate=immediate, ticket=number
            )
        except LocalError:
            del self.accepted[number]
        else:
            self.perform(effects)

    def call(self, choice: int, timeout: float) -> None:
        number, within = self._accept(choice, True)
        try:
            effects = self.machine.call("peer.Do", number, self.now, ticket=number, timeout=timeout, within=within)
        except LocalError:
            del self.accepted[number]
        else:
            self.calls[number] = Call(number, self.now + timeout)
            self.perform(effects)

    def _accept(self, choice: int, immediate: bool) -> tuple[int, DeliveryId | None]:
        """Return the number of a publish, and the delivery that it is within, if any."""
        number = next(self.numbers)
        candidates = [*sorted(self.running), *sorted(self.deferred), None]
        within = candidates[choice % len(candidates)]
        source = self.running.get(within) or self.deferred.get(within) if within is not None else None
        held = within in self.running and not immediate
        self.accepted[number] = Accepted(number, number, within, source, held)
        return number, within

    def result(self, choice: int, again: bool) -> None:
        """The other service answers a call. It may do so again, and the result may come to no queue."""
        if not self.commands:
            return
        place = choice % len(self.commands)
        command = self.commands[place] if again else self.commands.pop(place)
        if not self.replying or self.epoch is None or len(self.unacked) >= 4:
            return
        number = decode(command.body, CBOR)
        call = self.calls[number]
        dropped, waited_for = self.machine._calls.late, not call.gone and not call.ended
        tag, self.next_tag = self.next_tag, self.next_tag + 1
        self.unacked[tag] = Source(0, command.body)
        properties = Basic.Properties(
            headers={"conversation_id": "c", "status": "success"},
            correlation_id=command.properties.correlation_id,
            content_type="application/cbor",
        )
        key = str(command.properties.reply_to)
        self.perform(
            self.machine.delivered(self.epoch, tag, False, "commands", key, properties, command.body, self.now)
        )
        if self.machine.state in (link.OPEN, link.DRAINING):
            assert tag not in self.unacked, "a result is acknowledged at once"
            assert call.ended if waited_for else self.machine._calls.late == dropped + 1

    def forget(self, choice: int) -> None:
        waiting = [call for call in self.calls.values() if not call.ended and not call.gone]
        if waiting:
            call = waiting[choice % len(waiting)]
            call.gone = True
            self.accepted[call.number].told += 1
            self.perform(self.machine.forget_call(call.number, self.now))

    def reply(self, choice: int, multiple: bool, positive: bool) -> None:
        """The broker confirms or refuses."""
        if self.unanswered and self.epoch is not None:
            tag = sorted(self.unanswered)[choice % len(self.unanswered)]
            hit = [each for each in sorted(self.unanswered) if each == tag or (multiple and each < tag)]
            for each in hit:
                publish, number = self.unanswered.pop(each)
                self.confirms += positive
                if positive and number:
                    self.accepted[number].confirmed += 1
                    if number in self.calls:
                        self.commands.append(publish)
                elif positive:
                    self._retry(publish)
            method = self.machine.confirmed if positive else self.machine.refused
            self.perform(method(self.epoch, tag, self.now, multiple=multiple))

    def _retry(self, copy: Publish) -> None:
        """The copy of a failed message is confirmed, so it will be tried again."""
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
        """Make inputs about lost links and unknown tags, and wrong calls. None has an effect."""
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
            lambda: machine.ack_together([DeliveryId(12345)], now),
            lambda: machine.forget_call(10**9, now),
        ]
        wrong: list[Callable[[], list[Effect]]] = [
            lambda: machine.ack(DeliveryId(-1), now),
            lambda: machine.nack(DeliveryId(0), now),
            lambda: machine.publish(Event("", None, "c"), now),
            lambda: machine.log(99, "text", now),
            lambda: machine.call("peer.Do", None, now, ticket=10**9, timeout=0.0),
            lambda: machine.call("peer", None, now, ticket=10**9, timeout=1.0),
        ]
        if machine.state is not link.IDLE:
            wrong.append(lambda: machine.start(now))
        counted = 0
        machine.deadline()  # which may look further for the oldest publish: no change that anybody could notice
        forget_stale(machine)
        before = snapshot(machine)
        if choice % 2:
            assert reports[choice // 2 % len(reports)]() == []
            assert machine.stale >= counted
            forget_stale(machine)
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
            elif self.replying and self.commands and len(self.unacked) < 4:
                self.result(0, False)
            elif self.consuming and self.queue and len(self.unacked) < 4:
                self.deliver()
            elif (deadline := self.machine.deadline()) is not None and deadline < 1e8:
                self.wait(max(0.0, deadline - self.now))
            else:
                return
        raise AssertionError("I5: it never becomes quiet")

    def check_the_end(self) -> None:
        assert not self.unacked, "I5: a delivery is not settled"
        assert not self.unanswered
        assert all(call.gone or call.ended for call in self.calls.values()), "somebody waits for ever"
        for publish in self.accepted.values():
            safe = publish.confirmed or publish.failed or publish.number in self.made_of_failures
            safe = safe or self._is_dropped(publish)
            if publish.held and not safe:
                assert publish.within is not None
                safe = self.fates[self.ids[publish.within]] in ("lost", "requeued")
            assert safe, f"I3: publish {publish.number} was silently dropped"
        if self.machine.state is link.OPEN:
            assert not self.queue
            assert all(source.settled for source in self.sources)
