"""Everything that can happen in a world, one method for each kind of step.

Which of them are possible in a state is in :mod:`eda_core.testing.explorer.world`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from pamqp import commands

from eda_core.machine import link as life
from eda_core.machine.identifiers import TAG_BITS, DeliveryId, Epoch, delivery_id
from eda_core.machine.outcomes import CONFIGURED, DONE, Failed
from eda_core.machine.outcomes import DEFERRED as DEFERS
from eda_core.messages.codec import CBOR, DEFAULT_LIMITS
from eda_core.messages.envelope import seal
from eda_core.messages.routing import CONFIGURATIONS
from eda_core.messages.values import AnyMessage
from eda_core.testing.broker.queue import ConnectionId
from eda_core.testing.explorer.groups import Groups
from eda_core.testing.explorer.invariants import DEAD, SINK, judge_lost, reply_key
from eda_core.testing.explorer.model import (
    DEFERRED,
    FAILED,
    REJECTED,
    REQUEUED,
    RESULT,
    RUNS,
    SUCCEEDED,
    Ask,
    Link,
    Node,
    Post,
    Run,
    Track,
    Violation,
)
from eda_core.testing.explorer.snapshot import label_of
from eda_core.testing.explorer.state import CONSUMING, PUBLISHING, may_be_unsafe

#: The broker's number of each channel of a link.
NUMBER: Final = (1, 2)
_FAILURE: Final = Failed("on purpose")


class Steps(Groups):
    """What can happen."""

    __slots__ = ()

    def deadline(self) -> float | None:
        """When the next machine or the broker wants to be ticked."""
        times = [node.machine.deadline() for node in self.nodes]
        times += [node.batch.deadline() for node in self.nodes if node.batch is not None and not node.over]
        times.append(self.broker.deadline())
        return min((time for time in times if time is not None), default=None)

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
            self._peer_takes()
        else:
            self._route(broker.receive(connection, number, content[0], now=self.now))
            judge_lost(broker, self.promised, self.done)

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
        tag, key, body = content[0], content[3], content[5]
        label = label_of(body)
        result = key == reply_key(index, node)
        if link.attended:
            link.told = tag
            node.tracks[tag] = Track(delivery_id(link.epoch, tag), label, RESULT if result else RUNS)
        if link.attended and result:
            self._told_result(index, link.epoch, content)
        else:
            self._tell(index, "delivered", link.epoch, *content)
        served = node.machine.state in (life.OPEN, life.DRAINING)
        has_space = may_be_unsafe(node) < node.machine.config.buffer  # else it waits for that
        if link.attended and served and has_space and tag in node.tracks and node.tracks[tag].id not in node.runs:
            raise Violation("I3", f"the delivery of {label} is ignored")

    def _told_declared(self, index: int, node: Node, link: Link, replies: tuple[Any, ...]) -> None:
        before = node.machine.state
        self._tell(index, "declared", link.epoch, replies)
        if before is not life.OPEN and node.machine.state is life.OPEN:
            node.refused = frozenset()
            # The commands of calls wait for the queue of their results.
            calls = {key for key, piece in node.pieces.items() if piece.call}
            again = [key for key in node.links[link.epoch].sent.values() if key not in calls]
            if again != sorted(again):
                raise Violation("I3", f"publishes kept over the loss of a link go out of order: {again}")

    def _told_confirm(self, index: int, node: Node, link: Link, tag: int, multiple: bool, ok: bool) -> None:
        tags = [each for each in link.sent if each <= tag] if multiple else [tag]
        for each in tags:
            key = link.sent.pop(each, None)
            piece = node.pieces.get(key) if key is not None else None
            if piece is not None and key is not None and (ok or piece.last_time):
                del node.pieces[key]
            if piece is not None and ok:
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
        if not self._post(index, post, delivery, run.cause):
            self._end(index, delivery, FAILED, "failed" if run.deferred else "handled", _FAILURE)

    def _post(self, index: int, post: Post | Ask, within: DeliveryId | None, cause: str) -> bool:
        if isinstance(post, Ask):
            return self._call(index, post, within, cause)
        return self._publish(index, post, within, cause)

    def _succeeds(self, index: int, delivery: DeliveryId) -> None:
        node = self._node(index)
        run = node.runs[delivery]
        plan = self.plan(run.label)
        if plan.batched:
            self._pushed(index, delivery)
            return
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

    # -- services, the broker, time -----------------------------------------------------------------------------------

    def _publishes_outside(self, index: int) -> None:
        self._spend("outside")
        node = self._node(index)
        post = self.scenario.outside[node.outside]
        node.outside += 1
        self._post(index, post, None, "")

    def _stop(self, index: int) -> None:
        self._spend("stop")
        node = self._node(index)
        node.stop_due = self.now + node.machine.config.stop_timeout
        self._tell(index, "stop")
        if node.batch is not None:
            self._hand_over(index, None)

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

    def _channel_closed(self, index: int, epoch: Epoch) -> None:
        self._spend("channel")
        self._tell(index, "channel_closed", epoch, "a precondition failed")

    def _alarm(self, _: int) -> None:
        self._spend("alarm")
        self.alarm: bool = True
        self._route(self._own_broker().set_alarm(True, now=self.now))

    def _alarm_ends(self, _: int) -> None:
        self.alarm = False
        self._route(self._own_broker().set_alarm(False, now=self.now))
        self._peer_takes()

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
            due = None if node.batch is None or node.over else node.batch.deadline()
            if due is not None and due <= self.now:
                self._hand_over(index, None)

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
        methods += self._inbox_methods()
        self._operate((method, None, b"") for method in methods)

    def _arrive(self, message: AnyMessage) -> None:
        """Somebody outside publishes a message to the services."""
        exchange, routing_key, properties, body = seal(message, CBOR, DEFAULT_LIMITS)
        if self.scenario.message_ids:
            properties.message_id = str(message.payload)
        if exchange != CONFIGURATIONS:  # those are not stored for who is not there
            self._expect(str(message.payload))
        method = commands.Basic.Publish(exchange=exchange, routing_key=routing_key)
        self._operate([(method, properties, body)])
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
    "forgets": Steps._forgets,
    "pushes": Steps._pushes,
    "batch publishes": Steps._batch_publishes,
    "batch succeeds": Steps._batch_succeeds,
    "batch fails": Steps._batch_fails,
    "acknowledges": Steps._acknowledges,
    "rejects": Steps._rejects,
    "requeues": Steps._requeues,
    "fails late": Steps._fails_late,
    "publishes outside": Steps._publishes_outside,
    "stop": Steps._stop,
    "configuration comes": Steps._configuration_comes,
    "consumer cancelled": Steps._consumer_cancelled,
    "channel closed": Steps._channel_closed,
    "peer answers": Steps._peer_answers,
    "alarm": Steps._alarm,
    "alarm ends": Steps._alarm_ends,
    "restart": Steps._restart,
    "time passes": Steps._time,
    "haste": Steps._haste,
}
