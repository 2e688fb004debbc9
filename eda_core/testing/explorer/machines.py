"""Makes the inputs of the machines, and performs the effects that come out: what a driver does in a real service.

What an effect sends stays on the links until a step of the network takes it from there. The judge decides whether an
effect is right.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from pamqp import commands

from eda_core.errors import BufferFull, LocalError
from eda_core.machine import effects as fx
from eda_core.machine import link as life
from eda_core.machine.identifiers import DeliveryId, Epoch
from eda_core.messages.values import Command
from eda_core.testing.explorer.judge import Judge, buffered, has_space, reply_key
from eda_core.testing.explorer.scenario import Ask, Post, Violation
from eda_core.testing.explorer.state import (
    ALIVE,
    CONSUMING,
    PROBE,
    PUBLISHING,
    RUNS,
    Node,
    OpenCall,
    Run,
    SimulatedLink,
    State,
    Unconfirmed,
    Unsettled,
)


@dataclass(slots=True, eq=False)
class Machines:
    """The machines of a world, and what drives them."""

    _state: State
    _judge: Judge
    #: What follows from the present step after its effects.
    _later: list[Callable[[], object]] = field(default_factory=list)

    def finish(self) -> None:
        """Do what follows from the step that was taken."""
        while self._later:
            self._later.pop(0)()

    # -- inputs -------------------------------------------------------------------------------------------------------

    def tell(self, index: int, name: str, *arguments: Any, **named: Any) -> None:
        """Make an input, and perform its effects. I6: no input from outside may raise."""
        self.feed(index, getattr(self._state.machine(index), name), *arguments, **named)

    def feed(self, index: int, method: Callable[..., list[fx.Effect]], *arguments: Any, **named: Any) -> None:
        """Make an input by a method of the machine, or of something that makes inputs to the machine."""
        epoch = self._state.nodes[index].machine.epoch
        self._note(index, method.__name__, *arguments, **named)
        try:
            effects = method(*arguments, now=self._state.now, **named)
        except Exception as error:
            raise Violation("I6", f"{method.__name__} raised {error!r}") from error
        self._perform(index, epoch, effects)

    def post(self, index: int, post: Post | Ask, within: DeliveryId | None, cause: str, identifier: str = "") -> bool:
        """Publish or call. Returns whether the machine took it.

        Args:
            within: the delivery that it is for.
            cause: the message id of the message whose handler does it.
            identifier: what identifies the publish when that message is handled again; "" if nothing does.
        """
        node = self._state.nodes[index]
        run = None if within is None else node.runs.get(within)
        if node.delivery(within) is None and (run is None or run.deferred):  # its link is lost, and no handler runs
            cause = identifier = ""
        if isinstance(post, Ask):
            return self._call(index, post, within, cause, identifier)
        return self._publish(index, post, within, cause, identifier)

    def _publish(
        self, index: int, post: Post, within: DeliveryId | None, cause: str = "", identifier: str = ""
    ) -> bool:
        machine, node = self._state.machine(index), self._state.node(index)
        epoch, before = machine.epoch, machine.published
        ticket = node.tickets = node.tickets + 1
        delivery, orphan = node.delivery(within), node.orphan(within)
        held = not post.immediate and (orphan is not None or (delivery is not None and delivery.end is RUNS))
        effects = self._attempt(
            index,
            delivery,
            lambda: machine.publish(
                post.message,
                self._state.now,
                within=within,
                mandatory=post.mandatory,
                immediate=post.immediate,
                ticket=ticket,
            ),
        )
        if effects is None:
            return False
        accepted = machine.published != before
        if accepted:
            waits_for = within if held and within else DeliveryId(0)
            made_by, told = within or DeliveryId(0), 0 if held else ticket
            publish = Unconfirmed(post, held, waits_for, cause, told, identifier=identifier, run=made_by)
            self._judge.accepted(node, publish, delivery)
        if held or not accepted:  # nobody has to wait for it
            node.to_tell |= {ticket}
        self._note(index, "publish", post, within=within)
        self._perform(index, epoch, effects)
        return True

    def _call(self, index: int, ask: Ask, within: DeliveryId | None, cause: str, identifier: str) -> bool:
        machine, node = self._state.machine(index), self._state.node(index)
        epoch, delivery = machine.epoch, node.delivery(within)
        within_one = delivery is not None or node.orphan(within) is not None
        ticket = node.calls_made = node.calls_made + 1
        label = f"{ask.label}#{ticket}"
        now = self._state.now
        effects = self._attempt(
            index,
            delivery,
            lambda: machine.call(ask.name, label, now, ticket=ticket, timeout=ask.timeout, within=within),
        )
        if effects is None:
            return False
        correlation_id = f"t{index}-call-{ticket}"
        conversation_id = "c" if within_one else correlation_id
        message = Command(ask.name, label, conversation_id, reply_key(index, node), correlation_id)
        made_by = within or DeliveryId(0)
        publish = Unconfirmed(Post(message), False, cause=cause, call=True, identifier=identifier, run=made_by)
        self._judge.accepted(node, publish, delivery)
        node.calls[ticket] = OpenCall(label, ask.name, now + ask.timeout, epoch, within)
        if within is not None:
            node.runs[within] = node.runs[within]._replace(waits=True)
        self._note(index, "call", label, within=within)
        self._perform(index, epoch, effects)
        return True

    def _attempt(
        self, index: int, within: Unsettled | None, publish: Callable[[], list[fx.Effect]]
    ) -> list[fx.Effect] | None:
        """Publish or call. ``None`` if the machine refuses that, which it may when it is over or its buffer is full.

        The buffer of outside publishes does not count for what is published within a delivery.
        """
        node = self._state.node(index)
        machine = node.machine
        try:
            return publish()
        except BufferFull as full:
            if len(node.calls) < machine.config.buffer:
                if within is not None:
                    raise Violation("R9", f"{full!r}: want of space fails the handler of {within.label}") from full
                if has_space(node):
                    raise Violation("R9", f"{full!r} with {buffered(node)} in the buffer") from full
            node.wants_space = node.wants_space or full.temporary
        except LocalError as error:
            if machine.state not in (life.STOPPED, life.CLOSING):
                raise Violation("I6", f"publish raised {error!r}") from error
        except Exception as error:
            raise Violation("I6", f"publish raised {error!r}") from error
        return None

    def _note(self, index: int, method: str, *arguments: Any, **named: Any) -> None:
        if self._state.notes is not None:
            shown = ", ".join([*map(_short, arguments), *(f"{key}={value}" for key, value in named.items())])
            self._state.notes.append(f"  {self._state.nodes[index].machine.config.service}.{method}({shown})")

    # -- effects ------------------------------------------------------------------------------------------------------

    def _perform(self, index: int, epoch: Epoch, effects: Iterable[fx.Effect]) -> None:
        """Perform the effects of an input that was made when the link was ``epoch``."""
        state, judge = self._state, self._judge
        node = state.nodes[index]
        for effect in effects:
            if state.notes is not None:
                state.notes.append(f"    -> {effect!r}")
            action = _EFFECTS.get(type(effect))
            if action is not None:
                if node.over:
                    raise Violation("I5", f"{effect!r} after Stopped")
                if getattr(effect, "epoch", epoch) < epoch:
                    raise Violation("I2", f"{effect!r} is for an earlier link than {epoch}")
                action(self, index, node, effect)
        judge.after_effects(node)
        if node.machine.epoch != epoch or node.over:
            self._give_up(index, node, epoch)
            judge.link_lost(node)
        elif node.machine.state is life.CLOSING and (node.unsettled or node.unconfirmed):
            judge.link_closed(node)
        judge.no_caller_left(node)
        judge.counted(node)

    def _give_up(self, index: int, node: Node, epoch: Epoch) -> None:
        """The machine has given up a link. What is left of it is for the broker to notice."""
        if epoch not in node.links:
            return
        link = node.link(epoch)
        link.attended = False
        link.sent.clear()
        if not link.refused:
            node.refused -= {node.url}
        self._judge.never_seen(index, link)
        if not link.connection:
            del node.links[epoch]

    def _on_connect(self, index: int, node: Node, effect: fx.Connect) -> None:
        self._judge.connect(node, effect)
        node.links[effect.epoch] = SimulatedLink(effect.epoch)

    def _on_declare(self, index: int, node: Node, effect: fx.Declare) -> None:
        node.link(effect.epoch).send(CONSUMING, ("declare", effect))

    def _on_consume(self, index: int, node: Node, effect: fx.Consume) -> None:
        method = commands.Basic.Consume(queue=effect.queue, consumer_tag=effect.consumer_tag)
        node.link(effect.epoch).send(CONSUMING, ("consume", method))

    def _on_cancel(self, index: int, node: Node, effect: fx.Cancel) -> None:
        node.link(effect.epoch).send(CONSUMING, ("cancel", commands.Basic.Cancel(effect.consumer_tag)))

    def _on_ack(self, index: int, node: Node, effect: fx.Ack) -> None:
        self._judge.ack(node, effect)
        node.link(effect.epoch).send(CONSUMING, ("settle", commands.Basic.Ack(effect.tag, effect.multiple)))

    def _on_nack(self, index: int, node: Node, effect: fx.Nack) -> None:
        self._judge.nack(node, effect)
        node.link(effect.epoch).send(CONSUMING, ("settle", commands.Basic.Nack(effect.tag, False, effect.requeue)))

    def _on_publish(self, index: int, node: Node, effect: fx.Publish) -> None:
        link = node.link(effect.epoch)
        self._judge.publish(node, link, effect)
        link.last = effect.tag
        link.sent[effect.tag] = effect.pid
        method = commands.Basic.Publish(
            exchange=effect.exchange, routing_key=effect.routing_key, mandatory=effect.mandatory
        )
        link.send(PUBLISHING, ("publish", effect.tag, method, effect.properties, effect.body))

    def _on_open_channel(self, index: int, node: Node, effect: fx.OpenChannel) -> None:
        node.link(effect.epoch).send(PUBLISHING, ("open channel",))

    def _on_probe(self, index: int, node: Node, effect: fx.Probe) -> None:
        """A driver asks once, until there is an answer."""
        link, channel = node.link(effect.epoch), CONSUMING if effect.channel == fx.CONSUMING else PUBLISHING
        if PROBE not in link.up[channel] and ALIVE not in link.down[channel]:
            link.send(channel, PROBE)

    def _on_dispatch(self, index: int, node: Node, effect: fx.Dispatch) -> None:
        label = self._judge.dispatch(node, effect)
        meta = effect.message.meta
        cause = str(meta.get("message_id") or "")
        source = str(meta.get("deduplication_id") or cause)
        node.runs[effect.delivery] = Run(label, 0, False, cause, source, effect.message)

    def _on_publish_done(self, index: int, node: Node, effect: fx.PublishDone) -> None:
        self._judge.publish_done(node, effect)

    def _on_replied(self, index: int, node: Node, effect: fx.Replied) -> None:
        node.resume(self._judge.replied(index, node, effect).caller)

    def _on_unconfigured(self, index: int, node: Node, effect: fx.Unconfigured) -> None:
        node.wants_configuration = True
        request = self._state.scenario.request
        if request is not None:
            self._later.append(lambda: self._publish(index, request, None))

    def _on_buffer_available(self, index: int, node: Node, effect: fx.BufferAvailable) -> None:
        self._judge.buffer_available(node, effect)

    def _on_close(self, index: int, node: Node, effect: fx.Close) -> None:
        if effect.epoch not in node.links:  # a driver reports then that the link is down
            self._later.append(lambda: self.tell(index, "link_down", effect.epoch, "closed"))
            return
        node.link(effect.epoch).closing = True
        self._judge.close(node, node.link(effect.epoch), effect)

    def _on_stopped(self, index: int, node: Node, effect: fx.Stopped) -> None:
        self._judge.stopped(node, effect)


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


#: The effects that mean something here. What goes to logs and metrics does not.
_EFFECTS: Final[dict[type, Callable[[Any, int, Node, Any], None]]] = {
    fx.Connect: Machines._on_connect,
    fx.Declare: Machines._on_declare,
    fx.Consume: Machines._on_consume,
    fx.Cancel: Machines._on_cancel,
    fx.Ack: Machines._on_ack,
    fx.Nack: Machines._on_nack,
    fx.OpenChannel: Machines._on_open_channel,
    fx.Probe: Machines._on_probe,
    fx.Publish: Machines._on_publish,
    fx.Dispatch: Machines._on_dispatch,
    fx.PublishDone: Machines._on_publish_done,
    fx.Replied: Machines._on_replied,
    fx.Unconfigured: Machines._on_unconfigured,
    fx.BufferAvailable: Machines._on_buffer_available,
    fx.Close: Machines._on_close,
    fx.Stopped: Machines._on_stopped,
}
