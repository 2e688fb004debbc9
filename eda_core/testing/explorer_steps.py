"""Everything that can happen in a world, one method for each kind of step.

Which of them are possible in a state is in :mod:`eda_core.testing.simulator`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

from pamqp import commands

from eda_core import link as life
from eda_core.codec import CBOR, DEFAULT_LIMITS
from eda_core.envelope import seal
from eda_core.routing import CONFIGURATIONS
from eda_core.testing.broker import Outgoing
from eda_core.testing.broker_queue import ConnectionId
from eda_core.testing.explorer_model import (
    DEFERRED,
    FAILED,
    NOTHING,
    REJECTED,
    REQUEUED,
    SUCCEEDED,
    Link,
    Node,
    Plan,
    Run,
    Track,
    Violation,
)
from eda_core.testing.explorer_snapshot import label_of
from eda_core.testing.explorer_watch import DEAD, SINK, judge_lost
from eda_core.testing.explorer_world import CONSUMING, PUBLISHING, WorldState
from eda_core.values import CONFIGURED, DONE, TAG_BITS, TAG_MASK, AnyMessage, DeliveryId, Epoch, Failed, delivery_id
from eda_core.values import DEFERRED as DEFERS

#: The broker's number of each channel of a link.
NUMBER: Final = (1, 2)
_FAILURE: Final = Failed("on purpose")


class Steps(WorldState):
    """What can happen."""

    __slots__ = ()

    def deadline(self) -> float | None:
        """When the next machine or the broker wants to be ticked."""
        times = [node.machine.deadline() for node in self.nodes]
        times.append(self.broker.deadline())
        return min((time for time in times if time is not None), default=None)

    def plan(self, label: str) -> Plan:
        return self.scenario.plans.get(label, NOTHING)

    # -- the network --------------------------------------------------------------------------------------------------

    def _connect(self, index: int, epoch: Epoch) -> None:
        broker, link = self._own_broker(), self._node(index).link(epoch)
        link.connecting = False
        connection = broker.connect()
        link.connection = connection
        for number in NUMBER:
            broker.receive(connection, number, commands.Channel.Open(), now=self.now)
        broker.receive(connection, NUMBER[PUBLISHING], commands.Confirm.Select(), now=self.now)
        self._tell(index, "link_up", epoch)

    def _no_link(self, index: int, epoch: Epoch) -> None:
        self._spend("no_link")
        self._tell(index, "link_down", epoch, "connection refused")

    def _bad_login(self, index: int, epoch: Epoch) -> None:
        self._spend("bad_login")
        node = self._node(index)
        node.link(epoch).refused = True
        node.refused |= {node.url}
        self._tell(index, "link_down", epoch, "access refused", refused=True)

    def _up(self, index: int, epoch: Epoch, channel: int) -> None:
        """The broker receives what was sent first on a channel."""
        link = self._node(index).link(epoch)
        kind, *content = link.take(channel, downwards=False)
        broker, connection = self._own_broker(), ConnectionId(link.connection)
        number = NUMBER[channel]
        if kind == "declare":
            replies = []
            for method in content[0]:
                for out in broker.receive(connection, number, method, now=self.now):
                    if isinstance(out.method, commands.Channel.Close):
                        self._route([out])
                    replies.append(out.method)
            link.answer(CONSUMING, ("declared", tuple(replies)))
        elif kind == "publish":
            _tag, method, properties, body = content
            self._route(broker.receive(connection, number, method, properties, body, now=self.now))
        else:
            self._route(broker.receive(connection, number, content[0], now=self.now))
            judge_lost(broker, self.promised, self.done)

    def _route(self, answers: Iterable[Outgoing]) -> None:
        """Put what the broker sends on its way."""
        owners = {
            link.connection: (index, epoch)
            for index, node in enumerate(self.nodes)
            for epoch, link in node.links.items()
            if link.connection
        }
        for out in answers:
            owner = owners.get(out.connection)
            if owner is None:
                continue  # an operator's, or just cut
            link = self._node(owner[0]).link(owner[1])
            method = out.method
            if isinstance(method, commands.Basic.Deliver):
                link.newest = method.delivery_tag or 0
                address = (method.exchange, method.routing_key)
                content = (link.newest, method.redelivered, *address, out.properties, out.body)
                link.answer(CONSUMING, ("deliver", *content))
                if not link.attended:
                    self._unseen(owner[0], link)
            elif isinstance(method, (commands.Channel.Close, commands.Connection.Close)):
                raise Violation("I2", f"the broker closes: {method.reply_text}")
            elif isinstance(method, commands.Basic.Cancel):
                link.answer(CONSUMING, ("cancelled", method.consumer_tag))
            elif isinstance(method, commands.Basic.Return):
                address = (method.exchange, method.routing_key)
                link.answer(PUBLISHING, ("returned", *address, out.properties, out.body, method.reply_text))
            elif isinstance(method, commands.Connection.Blocked):
                link.answer(PUBLISHING, ("blocked", method.reason))
            elif isinstance(method, commands.Connection.Unblocked):
                link.answer(PUBLISHING, ("unblocked",))

    def _confirm(self, index: int, epoch: Epoch, tag: int, multiple: bool, ok: bool) -> None:
        """The broker confirms or refuses a publish; its word is on its way."""
        if not ok:
            self._spend("refusal")
        link, number = self._node(index).link(epoch), NUMBER[PUBLISHING]
        self._own_broker().confirm(ConnectionId(link.connection), number, tag=tag, multiple=multiple, ok=ok)
        link.answer(PUBLISHING, ("confirm", tag, multiple, ok))

    def _down(self, index: int, epoch: Epoch, channel: int) -> None:
        """The machine is told of what the broker sent first on a channel."""
        node = self._node(index)
        link = node.link(epoch)
        kind, *content = link.take(channel, downwards=True)
        getattr(self, f"_told_{kind}")(index, node, link, *content)

    def _late(self, index: int, epoch: Epoch, channel: int) -> None:
        """The machine is told of what came on a link that it has given up: it must not mind (R4)."""
        self._spend("late")
        self._down(index, epoch, channel)

    def _told_deliver(self, index: int, node: Node, link: Link, *content: Any) -> None:
        tag, body = content[0], content[5]
        label = label_of(body)
        if link.attended:
            link.told = tag
            node.tracks[tag] = Track(delivery_id(link.epoch, tag), label)
        self._tell(index, "delivered", link.epoch, *content)
        served = node.machine.state in (life.OPEN, life.DRAINING)
        if link.attended and served and tag in node.tracks and node.tracks[tag].id not in node.runs:
            raise Violation("I3", f"the delivery of {label} is ignored")

    def _told_declared(self, index: int, node: Node, link: Link, replies: tuple[Any, ...]) -> None:
        before = node.machine.state
        self._tell(index, "declared", link.epoch, replies)
        if before is not life.OPEN and node.machine.state is life.OPEN:
            node.refused = frozenset()
            again = list(node.links[link.epoch].sent.values())
            if again != sorted(again):
                raise Violation("I3", f"publishes kept over the loss of a link go out of order: {again}")

    def _told_confirm(self, index: int, node: Node, link: Link, tag: int, multiple: bool, ok: bool) -> None:
        tags = [each for each in link.sent if each <= tag] if multiple else [tag]
        for each in tags:
            key = link.sent.pop(each, None)
            piece = node.pieces.get(key) if key is not None else None
            if piece is not None and key is not None and ok:
                del node.pieces[key]
                node.told |= {piece.ticket} - {0}
                self._promise(piece)
        self._tell(index, "confirmed" if ok else "refused", link.epoch, tag, multiple=multiple)

    def _promise(self, piece: Any) -> None:
        """A message that goes to another service of the scenario has been taken on by the broker."""
        if piece.post.label in self.scenario.plans and not piece.retry:
            self._expect(piece.post.label)

    def _told_cancelled(self, index: int, node: Node, link: Link, tag: str) -> None:
        self._tell(index, "consumer_cancelled", link.epoch, tag)

    def _told_returned(self, index: int, node: Node, link: Link, *content: Any) -> None:
        self._tell(index, "returned", link.epoch, *content)

    def _told_blocked(self, index: int, node: Node, link: Link, reason: str) -> None:
        link.blocked = link.attended
        self._tell(index, "blocked", link.epoch, reason)

    def _told_unblocked(self, index: int, node: Node, link: Link) -> None:
        link.blocked = False
        self._tell(index, "unblocked", link.epoch)

    # -- links that end -----------------------------------------------------------------------------------------------

    def _drop_here(self, index: int, epoch: Epoch) -> None:
        """The service sees the connection die; what it has sent may still reach the broker, which sees it later."""
        self._spend("drop")
        self._tell(index, "link_down", epoch, "cut")

    def _drop_there(self, index: int, epoch: Epoch) -> None:
        """The broker sees the connection die; what it has sent may still reach the service, which sees it later."""
        self._spend("drop")
        self._disconnect(self._node(index), epoch)

    def _disconnect(self, node: Node, epoch: Epoch) -> None:
        link = node.link(epoch)
        gone, link.connection = link.connection, 0
        link.lose_up()
        self._route(self._own_broker().disconnect(ConnectionId(gone), now=self.now))
        if not link.attended:
            del node.links[epoch]

    def _loss_noticed(self, index: int, epoch: Epoch) -> None:
        self._tell(index, "link_down", epoch, "cut")

    def _dead_link_noticed(self, index: int, epoch: Epoch) -> None:
        self._disconnect(self._node(index), epoch)

    def _closed(self, index: int, epoch: Epoch) -> None:
        node = self._node(index)
        if node.links[epoch].connection:
            self._disconnect(node, epoch)
        self._tell(index, "link_down", epoch, "closed")

    # -- handlers -----------------------------------------------------------------------------------------------------

    def _publishes(self, index: int, delivery: DeliveryId) -> None:
        node = self._node(index)
        run = node.runs[delivery]
        plan = self.plan(run.label)
        post = (plan.late if run.deferred else plan.posts)[run.made]
        node.runs[delivery] = run._replace(made=run.made + 1)
        if not self._publish(index, post, delivery, run.cause):
            self._end(index, delivery, FAILED, "failed" if run.deferred else "handled", _FAILURE)

    def _succeeds(self, index: int, delivery: DeliveryId) -> None:
        node = self._node(index)
        run = node.runs[delivery]
        plan = self.plan(run.label)
        if plan.deferred:
            node.runs[delivery] = Run(run.label, 0, True, run.cause)
            self._mark(node, delivery, DEFERRED)
            self._tell(index, "handled", delivery, DEFERS)
            return
        if plan.configures and delivery >> TAG_BITS == node.machine.epoch:
            node.configured = True
        self._end(index, delivery, SUCCEEDED, "handled", CONFIGURED if plan.configures else DONE)

    def _fails(self, index: int, delivery: DeliveryId) -> None:
        if not self.plan(self.nodes[index].runs[delivery].label).poison:
            self._spend("failure")
        self._end(index, delivery, FAILED, "handled", _FAILURE)

    def _acknowledges(self, index: int, delivery: DeliveryId) -> None:
        self._end(index, delivery, SUCCEEDED, "ack")

    def _rejects(self, index: int, delivery: DeliveryId) -> None:
        self._spend("failure")
        self._end(index, delivery, REJECTED, "nack")

    def _requeues(self, index: int, delivery: DeliveryId) -> None:
        self._spend("failure")
        self._end(index, delivery, REQUEUED, "nack", requeue=True)

    def _fails_late(self, index: int, delivery: DeliveryId) -> None:
        self._spend("failure")
        self._end(index, delivery, FAILED, "failed", _FAILURE)

    def _end(self, index: int, delivery: DeliveryId, end: str, method: str, *arguments: Any, **named: Any) -> None:
        """The handler is over, or the message is settled by hand."""
        node = self._node(index)
        run = node.runs.pop(delivery)
        if self._mark(node, delivery, end) and end is FAILED:
            failures: dict[str, int] = {**self.failures, run.label: self.failures.get(run.label, 0) + 1}
            self.failures = failures
            if self.plan(run.label).configures and not node.configured:
                node.wants_configuration = True  # somebody will send another one
            if not run.deferred:  # a failure publishes nothing
                node.pieces = {
                    key: piece for key, piece in node.pieces.items() if not (piece.held and piece.delivery == delivery)
                }
        self._tell(index, method, delivery, *arguments, **named)

    def _mark(self, node: Node, delivery: DeliveryId, end: str) -> bool:
        """Note how a handler ended; whether its delivery still counts."""
        track = node.tracks.get(delivery & TAG_MASK)
        if track is None or track.id != delivery:
            return False
        node.tracks[delivery & TAG_MASK] = track._replace(end=end)
        return True

    # -- services, the broker, time -----------------------------------------------------------------------------------

    def _publishes_outside(self, index: int) -> None:
        self._spend("outside")
        node = self._node(index)
        post = self.scenario.outside[node.outside]
        node.outside += 1
        self._publish(index, post, None, "")

    def _stop(self, index: int) -> None:
        self._spend("stop")
        node = self._node(index)
        node.stop_due = self.now + node.machine.config.stop_timeout
        self._tell(index, "stop")

    def _configuration_comes(self, index: int) -> None:
        self._node(index).wants_configuration = False
        if self.scenario.configuration is not None:
            self._arrive(self.scenario.configuration)

    def _consumer_cancelled(self, index: int, epoch: Epoch) -> None:
        self._spend("cancel")
        link = self.nodes[index].links[epoch]
        connection = ConnectionId(link.connection)
        tags = [
            tag
            for name in self.broker.queue_names()
            for owner, _, tag in self.broker.consumers(name)
            if owner == connection
        ]
        if tags:
            broker = self._own_broker()
            self._route(broker.force_consumer_cancel(connection, NUMBER[CONSUMING], tags[0], now=self.now))

    def _alarm(self, _: int) -> None:
        self._spend("alarm")
        self.alarm: bool = True
        self._route(self._own_broker().set_alarm(True, now=self.now))

    def _alarm_ends(self, _: int) -> None:
        self.alarm = False
        self._route(self._own_broker().set_alarm(False, now=self.now))

    def _restart(self, _: int) -> None:
        """The broker is killed and starts again; nobody has noticed yet."""
        self._spend("restart")
        self.alarm = False
        self._own_broker().restart(now=self.now)
        for index in range(len(self.nodes)):
            node = self._node(index)
            node.unseen |= self.promised - node.known  # all is marked as redelivered
            for epoch, link in list(node.links.items()):
                if link.connection:
                    own = node.link(epoch)
                    own.connection = 0
                    own.lose_up()
                    if not own.attended:
                        del node.links[epoch]
        judge_lost(self.broker, self.promised, self.done)

    def _time(self, _: int) -> None:
        """Time jumps to the next deadline, and whoever waited for it is told, twice (R7)."""
        deadline = self.deadline()
        assert deadline is not None
        self.now: float = max(self.now, deadline)
        due = self.broker.deadline()
        if due is not None and due <= self.now:
            self._route(self._own_broker().tick(now=self.now))
        for index, node in enumerate(self.nodes):
            due = node.machine.deadline()
            if due is not None and due <= self.now:
                self._tell(index, "tick")
                machine = self.nodes[index].machine
                due = machine.deadline()
                if (due is None or due > self.now) and machine.tick(self.now):
                    raise Violation("R7", "a spurious tick has effects")

    def _haste(self, _: int) -> None:
        self._spend("haste")
        self._time(_)

    # -- outsiders ----------------------------------------------------------------------------------------------------

    def _set_up(self) -> None:
        """What an operator does once: dead letters, and queues for what nobody of the scenario consumes."""
        topic = [(name, "topic") for name in ("events", "commands", "configurations", "logs", "am-dlx")]
        methods: list[Any] = [commands.Exchange.Declare(exchange=x, exchange_type=t, durable=True) for x, t in topic]
        methods += [commands.Queue.Declare(queue=name, durable=True) for name in (DEAD, SINK)]
        bindings = [(DEAD, "am-dlx", "#"), *((SINK, *sink) for sink in self.scenario.sinks)]
        methods += [commands.Queue.Bind(queue=q, exchange=x, routing_key=key) for q, x, key in bindings]
        self._operate((method, None, b"") for method in methods)

    def _operate(self, methods: Iterable[tuple[Any, Any, bytes]]) -> None:
        broker = self._own_broker()
        operator = broker.connect()
        broker.receive(operator, 1, commands.Channel.Open(), now=self.now)
        for method, properties, body in methods:
            self._route(broker.receive(operator, 1, method, properties, body, now=self.now))
        broker.disconnect(operator, now=self.now)

    def _arrive(self, message: AnyMessage) -> None:
        """Somebody outside publishes a message to the services."""
        sealed = seal(message, CBOR, DEFAULT_LIMITS)
        if self.scenario.message_ids:
            sealed.properties.message_id = str(message.payload)
        if sealed.exchange != CONFIGURATIONS:  # those are not stored for who is not there
            self._expect(str(message.payload))
        method = commands.Basic.Publish(exchange=sealed.exchange, routing_key=sealed.routing_key)
        self._operate([(method, sealed.properties, sealed.body)])
        judge_lost(self.broker, self.promised, self.done)


STEPS: Final[dict[str, Callable[..., None]]] = {
    "connect": Steps._connect,
    "no link": Steps._no_link,
    "bad login": Steps._bad_login,
    "up": Steps._up,
    "down": Steps._down,
    "late": Steps._late,
    "confirm": Steps._confirm,
    "drop seen by the service": Steps._drop_here,
    "drop seen by the broker": Steps._drop_there,
    "loss noticed": Steps._loss_noticed,
    "dead link noticed": Steps._dead_link_noticed,
    "closed": Steps._closed,
    "publishes": Steps._publishes,
    "succeeds": Steps._succeeds,
    "fails": Steps._fails,
    "acknowledges": Steps._acknowledges,
    "rejects": Steps._rejects,
    "requeues": Steps._requeues,
    "fails late": Steps._fails_late,
    "publishes outside": Steps._publishes_outside,
    "stop": Steps._stop,
    "configuration comes": Steps._configuration_comes,
    "consumer cancelled": Steps._consumer_cancelled,
    "alarm": Steps._alarm,
    "alarm ends": Steps._alarm_ends,
    "restart": Steps._restart,
    "time passes": Steps._time,
    "haste": Steps._haste,
}
