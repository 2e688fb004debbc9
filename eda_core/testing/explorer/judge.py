"""Judges what the machines of a world do, from outside: the invariants (docs/architecture.rst, "Invariants").

The judge decides by what the world itself did and saw: how each handler ended, what the broker confirmed, what is in
its queues. Of a machine it reads the state of its link and its configuration, and at rest whether it knows of anything
open. It does not know how the machine decides.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from eda_core.errors import CommandError, CommandTimeout, PublishError
from eda_core.machine import effects as fx
from eda_core.machine import link as life
from eda_core.machine.calls import answer
from eda_core.machine.config import Config
from eda_core.machine.identifiers import DeliveryId, PublishId
from eda_core.messages.codec import encode
from eda_core.messages.routing import COMMANDS, CONFIGURATIONS, EVENTS
from eda_core.messages.values import Command, Configuration, Event, Result
from eda_core.testing.explorer import snapshot
from eda_core.testing.explorer.scenario import Post, Violation
from eda_core.testing.explorer.snapshot import label_of
from eda_core.testing.explorer.state import (
    CONSUMING,
    DEFERRED,
    FAILED,
    REJECTED,
    REQUEUED,
    RESULT,
    RUNS,
    SUCCEEDED,
    Node,
    OpenCall,
    Run,
    SimulatedLink,
    State,
    Unconfirmed,
    Unsettled,
)

#: The queue of the dead letters, and the one for messages to nobody. No service consumes them.
DEAD: Final = "dead"
SINK: Final = "sink"
#: The command that the other service answers.
PEER: Final = "peer.Do"

_EXCHANGE: Final = {Event: EVENTS, Command: COMMANDS, Result: COMMANDS, Configuration: CONFIGURATIONS}


@dataclass(slots=True, eq=False)
class Judge:
    """Notes what happens in a world, and raises :class:`Violation` when something does not hold."""

    _state: State

    # -- what happens to messages and publishes -----------------------------------------------------------------------

    def promise(self, label: str) -> None:
        """The broker has taken a message for one of the services. It must not be lost."""
        self._state.promised = self._state.promised | {label}

    def accepted(self, node: Node, publish: Unconfirmed, within: Unsettled | None) -> None:
        """The machine has accepted a publish, for a delivery if ``within`` is one.

        A handler that runs may go beyond the buffer, also when its link is lost.
        """
        number = node.machine.published
        node.unconfirmed[number] = publish
        if within is not None:
            node.unsettled[within.tag] = within._replace(publishes=(*within.publishes, number))
        elif buffered(node) > node.machine.config.buffer and node.orphan(publish.run) is None:
            raise Violation("R9", f"{buffered(node)} publishes in a buffer of {node.machine.config.buffer}")

    def answered(self, node: Node, key: int, ok: bool) -> None:
        """The machine is told that the broker has confirmed a publish, or refused it."""
        publish = node.unconfirmed[key]
        if ok or publish.unwanted:
            del node.unconfirmed[key]
        if ok:
            node.to_tell |= {publish.ticket} - {0}
            if publish.post.label in self._state.scenario.plans and not publish.retry:
                self.promise(publish.post.label)  # it goes to another service of the scenario

    def channel_closed(self, node: Node, link: SimulatedLink) -> str:
        """The machine is told that the broker has closed the channel for publishing.

        If only one publish is on the channel, the broker does not take that one: its caller is to be told, or its
        delivery fails. If it is the command of a call, the label is returned, else "".
        """
        node.unconfirmed = {
            key: publish
            for key, publish in node.unconfirmed.items()
            if not (publish.unwanted and key in link.sent.values())
        }
        (*several, key) = link.sent.values()
        publish = node.unconfirmed.get(key)
        if several or publish is None or not link.attended:
            return ""
        delivery = node.delivery(publish.delivery)
        if publish.ticket:
            node.to_refuse |= {publish.ticket}
        elif publish.call:
            return publish.post.label
        elif publish.retry:
            self.mark(node, publish.delivery, REJECTED)
        elif delivery is not None and delivery.end is SUCCEEDED:
            self._fail_group(node, delivery)
            self.mark(node, publish.delivery, FAILED)
            self._count_failure(node, delivery.label)
            self._forget_held(node, publish.delivery)
        node.unconfirmed.pop(key, None)
        return ""

    def _forget_held(self, node: Node, delivery: DeliveryId) -> None:
        """A handler that fails publishes nothing."""
        node.unconfirmed = {
            key: publish
            for key, publish in node.unconfirmed.items()
            if not (publish.held and publish.delivery == delivery)
        }

    def call_ended(self, node: Node, call: OpenCall) -> None:
        """The command of a call that has ended is not sent any more. If it is on the link it is not sent again."""
        keys = (key for key, publish in node.unconfirmed.items() if publish.call and publish.post.label == call.label)
        key = next(keys, None)
        if key is not None:
            if any(key in link.sent.values() for link in node.links.values()):
                node.unconfirmed[key] = node.unconfirmed[key]._replace(unwanted=True)
            else:
                del node.unconfirmed[key]

    def acknowledgement_arrives(self, node: Node, tag: int, multiple: bool) -> None:
        """The broker knows now that these messages need not be delivered again."""
        node.copied = frozenset(each for each in node.copied if each[0] != tag and not (multiple and each[0] < tag))

    def never_seen(self, index: int, link: SimulatedLink) -> None:
        """The machine has given up a link: the deliveries on their way to it come again, marked as redelivered."""
        node = self._state.node(index)
        key = reply_key(index, node)
        waiting = {label_of(item[6]) for item in link.down[CONSUMING] if item[0] == "deliver" and item[4] != key}
        node.unseen |= waiting - node.seen

    def sent_again(self, node: Node, link: SimulatedLink) -> None:
        """A link has opened, and the machine has sent what it had kept over the loss of the one before: in order."""
        # The commands of calls wait for the queue of their results.
        calls = {key for key, publish in node.unconfirmed.items() if publish.call}
        again = [key for key in link.sent.values() if key not in calls]
        if again != sorted(again):
            raise Violation("I3", f"publishes kept over the loss of a link go out of order: {again}")

    def lost(self) -> None:
        """I4: a message that the broker has taken and no handler has finished is still at the broker."""
        state = self._state
        missing = state.promised - state.done
        if missing:
            missing = missing - snapshot.labels_at(state.broker, frozenset((SINK,)))
        if missing:
            raise Violation("I4", f"lost: {', '.join(sorted(missing))} is in no queue, and was not handled")

    # -- how handlers end ---------------------------------------------------------------------------------------------

    def ended(self, node: Node, delivery: DeliveryId, run: Run, end: str) -> bool:
        """A handler is over, or its message is settled by hand. Returns whether the delivery still counts."""
        state = self._state
        if not self.mark(node, delivery, end):
            return False
        if end is REQUEUED:
            state.requeues = {**state.requeues, run.label: state.requeues.get(run.label, 0) + 1}
        if end is FAILED:
            self._count_failure(node, run.label)
            if not run.deferred:
                found = node.delivery(delivery)
                assert found is not None
                self._fail_group(node, found)
                self._forget_held(node, delivery)
        return True

    def mark(self, node: Node, delivery: DeliveryId, end: str) -> bool:
        """Note how a handler ended. Returns whether its delivery still counts."""
        found = node.delivery(delivery)
        if found is None:
            self._forget_held(node, delivery)
            return False
        node.unsettled[found.tag] = found._replace(end=end)
        return True

    def acknowledged_together(self, node: Node, deliveries: list[Unsettled]) -> None:
        """The callback of a batch has returned."""
        group = tuple(each.tag for each in deliveries)
        for each in deliveries:
            end = SUCCEEDED if each.end is DEFERRED else each.end
            node.unsettled[each.tag] = each._replace(end=end, group=group)

    def failed_together(self, node: Node, deliveries: list[Unsettled]) -> None:
        """The callback of a batch has failed. A message whose handler still runs fails when that ends."""
        for each in deliveries:
            if each.end is RUNS:
                node.runs[each.id] = node.runs[each.id]._replace(doomed=True)
            else:
                node.unsettled[each.tag] = each._replace(end=FAILED, group=())
                self._count_failure(node, each.label)

    def _fail_group(self, node: Node, failed: Unsettled) -> None:
        """The handler in which a callback ran has failed. If what that published is not safe, the whole batch has."""
        if any(key in node.unconfirmed for key in failed.publishes):
            others = [node.unsettled[tag] for tag in failed.group if tag in node.unsettled and tag != failed.tag]
            self.failed_together(node, others)

    def _count_failure(self, node: Node, label: str) -> None:
        """A handler has failed. That does not count if it is to be published and the broker has lost the link."""
        if node.machine.config.retry.republishes and _is_cut(node):
            return
        self._state.failures = {**self._state.failures, label: self._state.failures.get(label, 0) + 1}

    # -- links that end -----------------------------------------------------------------------------------------------

    def link_lost(self, node: Node) -> None:
        """No delivery of the link counts any more: when a message is redelivered, its handler publishes again."""
        self._state.settled |= {each.label for each in node.unsettled.values() if each.end is FAILED}
        self._state.settled |= {label for _, label in node.copied}
        node.copied = frozenset()
        node.unconfirmed = {key: publish for key, publish in node.unconfirmed.items() if not publish.unwanted}
        self.link_closed(node)

    def link_closed(self, node: Node) -> None:
        """As :meth:`link_lost`, of a link that the machine closes itself."""
        closing = node.machine.state in (life.CLOSING, life.STOPPED)
        self._orphan(node)
        node.unsettled.clear()
        node.unconfirmed = {
            key: publish
            for key, publish in node.unconfirmed.items()
            if not publish.held or (not closing and node.orphan(publish.delivery) is not None)
        }
        node.configured = False
        if closing:
            silent = [each for each in node.unconfirmed.values() if not each.call or not self._may_give_up(node)]
            if silent:
                raise Violation("I3", f"stopped without a word of {[each.post.label for each in silent]}")
            node.unconfirmed.clear()

    def _orphan(self, node: Node) -> None:
        """Note which handlers go on for the next delivery of their message: those whose message can be recognized."""
        here = [each.label for each in node.unsettled.values() if each.end is not RESULT]
        here += [run.label for delivery, run in node.runs.items() if node.orphan(delivery)]
        for delivery, run in node.runs.items():
            known = self._state.scenario.message_ids and here.count(run.label) == 1
            node.runs[delivery] = run._replace(adoptable=known and not run.deferred and not run.collected)

    def adopter(self, node: Node, label: str, redelivered: bool) -> DeliveryId | None:
        """Return the delivery whose handler has to go on for a message that is delivered; ``None`` if there is none.

        A service that stops gives the message back.
        """
        if not redelivered or node.machine.state is life.DRAINING:
            return None
        found = (each for each, run in node.runs.items() if run.adoptable and run.label == label)
        return next(found, None)

    def adopted(self, node: Node, delivery: DeliveryId, tag: int) -> None:
        """A message is delivered again while its handler runs. What that has published counts for the new delivery."""
        run = node.runs[delivery]
        node.runs[delivery] = run._replace(adoptable=False)
        publishes = tuple(key for key, publish in node.unconfirmed.items() if publish.run == delivery)
        node.unsettled[tag] = Unsettled(delivery, tag, run.label, publishes=publishes)

    def _may_give_up(self, node: Node) -> bool:
        """Whether a service may end with work unfinished."""
        return self._state.spent("bad_login") or self._stop_is_due(node)

    def _stop_is_due(self, node: Node) -> bool:
        return node.stop_due is not None and self._state.now >= node.stop_due

    # -- effects ------------------------------------------------------------------------------------------------------

    def after_effects(self, node: Node) -> None:
        """The effects of an input are performed: messages wait only for space, and callers were told."""
        paused = [each.label for each in node.unsettled.values() if each.end is RUNS and each.id not in node.runs]
        if paused and node.machine.state is life.DRAINING:
            raise Violation("life", f"it stops, and keeps {paused}, which no handler has seen")
        having_turn = [label for label in paused if not self.keeps_waiting(node, label)]
        if having_turn and node.machine.state is life.OPEN and has_space(node):
            raise Violation("R9", f"there is space, and {having_turn} are not handled")
        if node.to_tell or node.to_refuse:
            raise Violation("I3", f"the caller is not told of {sorted(node.to_tell | node.to_refuse)}")

    def no_caller_left(self, node: Node) -> None:
        """A service that is over, or closes, has told everybody who waited for a result."""
        if node.calls and (node.over or node.machine.state is life.CLOSING):
            waiting = [call.label for call in node.calls.values()]
            raise Violation("call", f"the service is over, and the callers of {waiting} are not told")

    def counted(self, node: Node) -> None:
        """Each delivery and each publish is counted once: it is somewhere, or has one end."""
        machine = node.machine
        numbers = machine.metrics(self._state.now)
        ends = [numbers.acknowledged, numbers.retried, numbers.dead_lettered, numbers.given_back, numbers.lost]
        if numbers.received != sum(ends) + numbers.in_flight:
            raise Violation("counts", f"{numbers.received} deliveries, {numbers.in_flight} in flight, ends: {ends}")
        ends = [numbers.confirmed, numbers.unsendable, numbers.dropped]
        if numbers.published != sum(ends) + numbers.held + numbers.waiting:
            there = f"{numbers.held} held, {numbers.waiting} waiting"
            raise Violation("counts", f"{numbers.published} publishes, {there}, ends: {ends}")
        gone = numbers.links_opened - numbers.links_lost - numbers.link_open
        if gone and not (gone == 1 and machine.state in life.OVER):
            raise Violation("counts", f"{numbers.links_opened} links opened, {numbers.links_lost} lost")
        if numbers.in_flight != len(node.unsettled):
            raise Violation("counts", f"{numbers.in_flight} in flight, and not {len(node.unsettled)}")

    def connect(self, node: Node, effect: fx.Connect) -> None:
        """The machine has no link, and tries the URLs in turn; those at which no link was open come last."""
        if any(link.attended for epoch, link in node.links.items() if epoch >= effect.epoch):
            raise Violation("I2", f"{effect!r} while there is a link")
        urls = node.machine.config.urls
        if node.url:
            if not node.opened:
                node.silent |= {node.url}
            after = urls.index(node.url) + 1
            in_turn = urls[after:] + urls[:after]
            if effect.url != next((url for url in in_turn if url not in node.silent), in_turn[0]):
                raise Violation("life", f"{effect!r} after {node.url}: URLs are tried in turn")
        node.url, node.opened = effect.url, False

    def ack(self, node: Node, effect: fx.Ack) -> None:
        """I1 and I2 for an acknowledgement."""
        if effect.tag not in node.unsettled:
            raise Violation("I2", f"{effect} is about no unsettled delivery of its link")
        tags = [tag for tag in node.unsettled if tag <= effect.tag] if effect.multiple else [effect.tag]
        for tag in tags:
            settled = node.unsettled.pop(tag)
            self._judge_acknowledged(node, settled, effect)
            if settled.end is FAILED:  # its copy is tried again, or is dead, and the message is tried if this is lost
                node.copied |= {(tag, settled.label)}
            elif settled.end is not RESULT:
                self._state.settled |= {settled.label}
            if settled.end is SUCCEEDED:
                self._judge_once(settled.label)
                self._state.done |= {settled.label}

    def has_effect(self, label: str) -> None:
        """The effect of a message is committed: once."""
        if label in self._state.effects:
            raise Violation("once", f"the effect of {label} happens a second time")
        self._state.effects |= {label}

    def _judge_once(self, label: str) -> None:
        """A message whose handler has an inbox is acknowledged: its effect is there, and all that it publishes."""
        plan, state = self._state.scenario.plan(label), self._state
        if not plan.inbox:
            return
        if label not in state.effects:
            raise Violation("once", f"{label} is acknowledged, and its effect has never happened")
        there = state.promised | {label_of(message.body) for message in state.broker.messages(SINK)}
        missing = {post.label for post in plan.posts} - there
        if missing:
            raise Violation("once", f"{label} is acknowledged, and {sorted(missing)} was never published")

    def killed(self, index: int) -> None:
        """The process of a worker is gone. Its handlers are, and what it had not told the broker yet."""
        node = self._state.node(index)
        self._state.settled |= {each.label for each in node.unsettled.values() if each.end is FAILED}
        self._state.settled |= {label for _, label in node.copied}
        for link in node.links.values():
            if link.attended:
                self.never_seen(index, link)

    def _judge_acknowledged(self, node: Node, settled: Unsettled, effect: fx.Ack) -> None:
        retried = settled.end is FAILED and settled.retried
        if settled.end not in (SUCCEEDED, RESULT) and not retried:
            raise Violation("I1", f"{effect} acknowledges {settled.label}, whose handler {settled.end}")
        group = [settled, *(node.unsettled[tag] for tag in settled.group if tag in node.unsettled)]
        unsafe = [
            node.unconfirmed[key].post.label for each in group for key in each.publishes if key in node.unconfirmed
        ]
        if unsafe:
            raise Violation("I1", f"{effect} acknowledges {settled.label} before {', '.join(unsafe)} is confirmed")

    def nack(self, node: Node, effect: fx.Nack) -> None:
        """I2 and I4 for a rejection."""
        settled = node.unsettled.pop(effect.tag, None)
        if settled is None:
            raise Violation("I2", f"{effect} is about no unsettled delivery of its link")
        label = settled.label
        if settled.end is RESULT:
            raise Violation("call", f"{effect} rejects {label}, the result of a call")
        if settled.end is SUCCEEDED:
            raise Violation("I4", f"{effect} rejects {label}, whose handler succeeded")
        if effect.requeue:
            if settled.end is RUNS and (node.machine.state is not life.DRAINING or settled.id in node.runs):
                raise Violation("I2", f"{effect} requeues {label} while its handler runs")
            if settled.end is REJECTED:
                raise Violation("I4", f"{effect} requeues {label}, which its handler rejected")
            if settled.end is FAILED:
                self._judge_trying_again(node, label)
        else:
            if settled.end is FAILED:
                self._judge_giving_up(node, label)
            elif settled.end is not REJECTED:
                raise Violation("I4", f"{effect} dead-letters {label}, whose handler {settled.end}")
            elif any(key in node.unconfirmed for key in settled.publishes):
                raise Violation("I1", f"{effect} rejects {label} before what it published is confirmed")
            self._state.settled |= {label}

    def _judge_trying_again(self, node: Node, label: str) -> None:
        """I4: a message is not tried more often than the policy says."""
        failures = self._state.failures.get(label, 0)
        if failures >= node.machine.config.retry.attempts and not self._disturbed(node, label):
            raise Violation("I4", f"{label} is tried again after {failures} failed attempt(s)")

    def _judge_giving_up(self, node: Node, label: str) -> None:
        """I4: a message is dead-lettered after exactly the attempts of the policy; requeues by hand are attempts too.

        What a worker cannot know of may lead to more attempts, and never to fewer.
        """
        failures = self._state.failures.get(label, 0)
        failures += node.machine.config.retry.republishes and _is_cut(node)  # it has failed all the same
        attempts = node.machine.config.retry.attempts
        most = failures if self._disturbed(node, label) else attempts
        if not max(1, attempts - self._state.requeues.get(label, 0)) <= failures <= most:
            raise Violation("I4", f"{label} is dead-lettered after {failures} of {attempts} attempts")

    def _disturbed(self, node: Node, label: str) -> bool:
        """Whether something happened to a message that its worker cannot know of.

        Another worker may have failed with it, and the message does not say so. It may have been settled, and that was
        lost with the link. A message that is published again leaves a copy when its confirm is lost, or comes late. A
        handler that runs again publishes again, and each message fails for itself.
        """
        state = self._state
        if label in state.doubled or state.spent("kill"):
            return True
        if node.machine.config.retry.republishes:
            others = [other for other in state.nodes if other is not node]  # the broker may have lost their links
            failed = {each.label for other in others for each in other.unsettled.values() if each.end is FAILED}
            failed |= {copied for other in others for _, copied in other.copied}
            return label in state.settled or label in failed or _is_cut(node) or state.spent("refusal")
        return label in state.settled or len(state.nodes) > 1

    def publish(self, node: Node, link: SimulatedLink, effect: fx.Publish) -> None:
        """A publish goes out: the machine has accepted it, it is complete, and its time has come."""
        own = ("", node.machine.config.dead_letter_exchange)  # where only the machine itself publishes
        if effect.pid not in node.unconfirmed and effect.exchange in own and effect.delivery is not None:
            self._copy(node, effect, effect.delivery)
        publish = node.unconfirmed.get(effect.pid)
        if publish is None:
            raise Violation("I3", f"{effect!r} was confirmed, forgotten or never asked for, and is sent")
        label = publish.post.label
        if label in self._state.scenario.plans and not publish.retry:
            self._state.doubled |= {label} & self._state.sent
            self._state.sent |= {label}
        delivery = node.delivery(publish.delivery)
        if publish.held and (node.orphan(publish.delivery) or (delivery is not None and delivery.end is RUNS)):
            raise Violation("R6", f"{label} is sent although its handler has not succeeded")
        if effect.pid in link.sent.values():
            raise Violation("I3", f"{label} is sent twice")
        if effect.tag != link.last + 1:
            raise Violation("I3", f"{effect!r} has the confirm tag {effect.tag}; the channel counts {link.last + 1}")
        if len(link.sent) >= node.machine.config.window:
            raise Violation("R9", f"{effect!r} goes beyond the window of {node.machine.config.window}")
        wrong = None if publish.retry else misfit(publish, effect, node.machine.config)
        if wrong:
            raise Violation("I3", f"{label} is not sent as it was accepted: {wrong}")
        if link.connection and publish.call:
            self._judge_reachable(effect)
        if link.blocked:
            raise Violation("life", f"{effect!r} while the broker takes no publishes")

    def _copy(self, node: Node, effect: fx.Publish, delivery: DeliveryId) -> None:
        """The machine publishes a message again by itself: to try it later, or as a dead letter."""
        failed = node.delivery(delivery)
        if failed is None or failed.end is not FAILED or failed.retried:
            raise Violation("I4", f"nobody asked for {effect!r}")
        if effect.exchange:
            self._judge_giving_up(node, failed.label)
        else:
            self._judge_trying_again(node, failed.label)
        node.unconfirmed[effect.pid] = Unconfirmed(Post(Event("", failed.label, "")), True, delivery, retry=True)
        publishes = (*failed.publishes, effect.pid)
        node.unsettled[failed.tag] = failed._replace(publishes=publishes, retried=True)

    def _judge_reachable(self, effect: fx.Publish) -> None:
        """The command of a call goes out: the queue for its result is there."""
        if not self._is_bound(effect.properties.reply_to):
            raise Violation("call", f"{effect!r} is sent before its result can come")

    def _is_bound(self, key: str | None) -> bool:
        """Whether a queue for the results of calls is bound by this routing key."""
        return any(each.source == COMMANDS and each.key == key for each in self._state.broker.bindings())

    def dispatch(self, node: Node, effect: fx.Dispatch) -> str:
        """A handler begins: once, with what was delivered, and when it may. Returns the label of the message."""
        label = str(effect.message.payload)
        if effect.delivery in node.runs:
            raise Violation("I2", f"{effect!r} is dispatched twice")
        found = node.delivery(effect.delivery)
        if found is None or found.label != label or found.end is RESULT:
            raise Violation("I2", f"{effect!r} is not what was delivered, or its handler runs already")
        config = node.machine.config
        if config.configurations and not node.configured and not isinstance(effect.message, Configuration):
            raise Violation("life", f"{effect!r} while the service is not configured")
        if node.stop_due is not None:
            raise Violation("life", f"{effect!r} although the service stops")
        self._judge_turn(node, found)
        if buffered(node) >= config.buffer:
            raise Violation("R9", f"{effect!r} while there is no space for what its handler publishes")
        node.seen |= {label}
        return label

    def _judge_turn(self, node: Node, found: Unsettled) -> None:
        """Check that no handler of the conversation runs, and that none of its messages came before and waits."""
        if self.keeps_waiting(node, found.label):
            raise Violation("turn", f"{found.label} is handled while a handler of its conversation runs")
        if node.machine.config.serialize_by:
            conversation = self._conversation(found.label)
            for each in node.unsettled.values():
                waits = each.tag < found.tag and each.end is RUNS and each.id not in node.runs
                if waits and self._conversation(each.label) == conversation:
                    raise Violation("turn", f"{found.label} is handled before {each.label}, which came before it")

    def keeps_waiting(self, node: Node, label: str) -> bool:
        """Whether a message has to wait until the handler of another one of its conversation has ended."""
        if not node.machine.config.serialize_by:
            return False
        running = (run.label for run in node.runs.values() if not run.deferred)
        return self._conversation(label) in map(self._conversation, running)

    def _conversation(self, label: str) -> str:
        return next((each.conversation_id for each in self._state.scenario.inputs if each.payload == label), label)

    def publish_done(self, node: Node, effect: fx.PublishDone) -> None:
        """A caller is told what became of its publish: once, when it is safe, or given up with a reason."""
        if effect.error is None:
            if effect.ticket not in node.to_tell:
                raise Violation("I3", f"{effect!r} is told early or twice")
            node.to_tell -= {effect.ticket}
            return
        if effect.refused:
            if effect.ticket not in node.to_refuse:
                raise Violation("I3", f"{effect!r} is about a publish that the broker has not refused")
            node.to_refuse -= {effect.ticket}
            return
        key = next((key for key, publish in node.unconfirmed.items() if publish.ticket == effect.ticket), None)
        if key is None:
            raise Violation("I3", f"{effect!r} is about a publish that is safe")
        if not self._may_give_up(node):
            raise Violation("I3", f"{node.unconfirmed[key].post.label} is given up before its time")
        del node.unconfirmed[PublishId(key)]

    def buffer_available(self, node: Node, effect: fx.BufferAvailable) -> None:
        """Somebody waits to be told of that."""
        if not node.wants_space:
            raise Violation("R9", f"{effect!r}, but nobody waits for space")
        node.wants_space = False

    def close(self, node: Node, link: SimulatedLink, effect: fx.Close) -> None:
        """A stop lets running handlers finish and settles their messages, unless its time is up.

        A link on which the broker answers is not given up for its silence.
        """
        if "has not answered for" in effect.reason and not link.silent:
            raise Violation("life", f"{effect!r}, and the broker has answered all that it was asked")
        if node.machine.state is not life.CLOSING or self._stop_is_due(node):
            return
        unfinished = [run.label for run in node.runs.values() if not run.deferred]
        unfinished += [each.label for each in node.unsettled.values()]
        if unfinished:
            raise Violation("life", f"it closes before {sorted(unfinished)} are finished")

    def stopped(self, node: Node, effect: fx.Stopped) -> None:
        """A service ends when it was asked to, or when every URL has refused its credentials."""
        node.over = True
        node.wants_space = node.wants_configuration = False
        if node.stop_due is None and effect.error is None:
            raise Violation("I5", "Stopped, but nobody asked for it and there is no error")
        if node.stop_due is None and node.refused != frozenset(node.machine.config.urls):
            raise Violation("life", f"it gives up, and was refused only at {sorted(node.refused)}")

    # -- calls --------------------------------------------------------------------------------------------------------

    def replied(self, index: int, node: Node, effect: fx.Replied) -> OpenCall:
        """A call ends: once, and with what became of it. Returns the call.

        It ends with its own result; with a time-out, when its time is over and its result may have been late or lost;
        with the error of a command that no queue is bound for; or with the end of its service.
        """
        state = self._state
        call = node.calls.pop(effect.ticket, None)
        if call is None:
            raise Violation("call", f"{effect!r} is about a call that has ended")
        kind = (state.scenario.answers or {}).get(call.label.partition("#")[0], "success")
        expected = result_of(call.label, kind)
        disturbed = state.spent("haste", "refusal", "alarm")
        try:
            told: tuple[str, Any] = ("result", answer(effect))
            right = kind != "error" and told[1] == expected
        except CommandError as error:
            told = ("error", error.payload)
            right = kind == "error" and told[1] == expected
        except CommandTimeout as error:
            told = ("time-out", str(error))
            # Without a fault a result comes in time: time passes only when nothing else can happen.
            lost = call.epoch < node.machine.epoch or node.machine.state is life.BACKOFF
            right = state.now >= call.due and (disturbed or kind == "none" or lost)
        except PublishError as error:
            told = ("failure", str(error))
            untaken = call.label in state.scenario.untaken
            right = node.machine.state in (life.CLOSING, life.STOPPED) or call.name != PEER or untaken
        if not right or effect.command != call.name:
            raise Violation("call", f"{call.label}, which is answered by {kind!r}, ends with {told[0]}: {told[1]}")
        if effect.timed_out and not disturbed:
            self._judge_sent(index, node, call)
        self.call_ended(node, call)
        return call

    def _judge_sent(self, index: int, node: Node, call: OpenCall) -> None:
        """A call may only time out if its command was sent on the open link, where its result could come."""
        keys = {key for key, publish in node.unconfirmed.items() if publish.call and publish.post.label == call.label}
        link = node.links.get(node.machine.epoch)
        if node.machine.state is not life.OPEN or link is None or keys <= set(link.sent.values()):
            return
        if self._is_bound(reply_key(index, node)):
            raise Violation("I3", f"{call.label} times out, and its command was not sent")

    def result(self, node: Node, label: str, dropped: int, expected: bool) -> None:
        """The machine was told of a result: it ended the call that waits for it, or was counted as late.

        Args:
            dropped: how many results the machine has dropped because nobody waited for them.
            expected: whether a call waited for this one.
        """
        if node.machine.state not in life.SERVING:
            return
        if dropped != (not expected):
            waited = "waited for" if expected else "not waited for"
            raise Violation("call", f"the result {label} was {waited}, and {dropped} result(s) are dropped")
        if expected and any(call.label == label for call in node.calls.values()):
            raise Violation("call", f"its result does not end {label}")

    def _waits_for_configuration(self, node: Node) -> bool:
        """Whether a service is not configured although somebody answers its requests."""
        wanted = bool(node.machine.config.configurations) and self._state.scenario.configuration is not None
        return wanted and not node.configured and not node.over

    # -- at rest ------------------------------------------------------------------------------------------------------

    def quiet(self) -> None:
        """I5: nothing happens any more by itself, so nothing may be unfinished."""
        state = self._state
        for node in state.nodes:
            problem = unfinished(node)
            if problem is None and self._waits_for_configuration(node):
                problem = "it waits for a configuration, and has not asked for one"
            if problem is not None:
                raise Violation("I5", f"it is quiet, but of {node.machine!r}: {problem}")
        if any(node.over for node in state.nodes):
            return  # its unfinished messages wait in the queues: see lost()
        dead = {label_of(message.body) for message in state.broker.messages(DEAD)}
        left = state.promised - state.done - dead
        if left:
            raise Violation("I5", f"it is quiet, but not handled and not dead-lettered: {sorted(left)}")
        poison = {label for label in state.promised if state.scenario.plan(label).poison} - dead
        if poison:
            raise Violation("I4", f"never dead-lettered: {sorted(poison)}")


def _is_cut(node: Node) -> bool:
    """Whether the broker has lost the present link of a worker, which has not noticed that."""
    link = node.links.get(node.machine.epoch)
    return link is not None and not link.connection


def misfit(publish: Unconfirmed, effect: fx.Publish, config: Config) -> str | None:
    """How a publish differs from docs/architecture.rst, "Envelope"; ``None`` if it does not."""
    message = publish.post.message
    mandatory = publish.post.mandatory
    exchange = _EXCHANGE[type(message)]
    headers: dict[str, Any] = {"conversation_id": message.conversation_id}
    if publish.cause:
        headers["causation_id"] = publish.cause
    if publish.identifier:
        headers["deduplication_id"] = publish.identifier
    reply_to = correlation_id = None
    if isinstance(message, Command):
        reply_to, correlation_id = message.reply_to, message.correlation_id
    elif isinstance(message, Result):
        correlation_id = message.correlation_id
        headers["status"] = message.status
    properties = effect.properties
    pairs = {
        "exchange": (effect.exchange, exchange),
        "routing_key": (effect.routing_key, message.name),
        "body": (effect.body, encode(message.payload, config.content_type, config.limits)),
        "mandatory": (effect.mandatory, exchange == COMMANDS if mandatory is None else mandatory),
        "delivery_mode": (properties.delivery_mode, 2),
        "content_type": (properties.content_type, config.content_type),
        "reply_to": (properties.reply_to or None, reply_to),
        "correlation_id": (properties.correlation_id or None, correlation_id),
        "headers": (properties.headers, headers),
        "app_id": (properties.app_id, config.service),
    }
    for name, (found, expected) in pairs.items():
        if found != expected:
            return f"{name} is {found!r}, not {expected!r}"
    return None if properties.message_id else "no message_id"


def reply_key(index: int, node: Node) -> str:
    """The routing key of the results of a worker's calls."""
    return f"{node.machine.config.service}.t{index}"


def buffered(node: Node) -> int:
    """How many publishes of a worker are in its buffer: all that are not confirmed, except those that handlers hold."""
    running = {each.id for each in node.unsettled.values() if each.end is RUNS} | set(filter(node.orphan, node.runs))
    return len(node.unconfirmed) - sum(each.held and each.delivery in running for each in node.unconfirmed.values())


def has_space(node: Node) -> bool:
    """Whether the buffer of a worker has space for sure.

    Delayed retries that wait for the window are in the buffer, too. The machine makes them, and nobody has seen them.
    """
    retries = sum(each.end is FAILED and not each.retried for each in node.unsettled.values())
    return buffered(node) + retries < node.machine.config.buffer


def result_of(label: str, kind: str) -> str:
    """The payload of the result of a call."""
    return f"{label}={kind}"


def unfinished(node: Node) -> str | None:
    """What is unfinished in a node for which nothing can happen any more; ``None`` if nothing is."""
    machine = node.machine
    if node.over:
        return None if machine.state is life.STOPPED else f"it said Stopped and is {machine.state}"
    if machine.state is not life.OPEN:
        return f"it is {machine.state}"
    if node.stop_due is not None:
        return "it was asked to stop and has not"
    if node.unconfirmed:
        return f"not confirmed: {', '.join(sorted(each.post.label for each in node.unconfirmed.values()))}"
    if node.calls or snapshot.calls_open(machine):
        labels = [call.label for call in node.calls.values()]
        return f"calls that have not ended: {labels}, and {snapshot.calls_open(machine)} by its own count"
    if node.batch_runs:
        return "the callback of a batch has not ended"
    if node.unsettled:
        return f"not settled: {', '.join(sorted(each.label for each in node.unsettled.values()))}"
    if node.wants_space:
        return "a caller still waits for space"
    if snapshot.publishes_unsafe(machine):
        return f"it counts {snapshot.publishes_unsafe(machine)} publish(es) as unsafe, and all are confirmed"
    return None
