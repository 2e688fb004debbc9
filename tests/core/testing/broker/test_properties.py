"""Random use of the broker model: it never raises, loses and doubles no message, and a clone stays equal."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from pamqp import base, commands

from eda_core.testing.broker import Broker, ConnectionId, Outgoing, Policy
from eda_core.testing.broker.addresses import NAME

Properties = commands.Basic.Properties
QUEUES = st.sampled_from(["", "a", "b", "c", "dead"])
EXCHANGES = st.sampled_from(["", "x", "amq.topic", "amq.fanout", "none"])
KEYS = st.sampled_from(["", "a", "b", "k.1", "#"])
TAGS = st.integers(0, 6)
FLAGS = st.booleans()
ARGUMENTS = st.fixed_dictionaries(
    {},
    optional={
        "x-message-ttl": st.sampled_from([0, 50, -1, "x"]),
        "x-expires": st.sampled_from([0, 100]),
        "x-max-length": st.integers(0, 2),
        "x-max-length-bytes": st.integers(0, 3),
        "x-overflow": st.sampled_from(["drop-head", "reject-publish", "reject-publish-dlx", "?"]),
        "x-dead-letter-exchange": st.sampled_from(["", "x", "amq.fanout"]),
        "x-dead-letter-routing-key": st.sampled_from(["a", "dead"]),
        "x-queue-type": st.sampled_from(["classic", "quorum", "stream"]),
        "x-delivery-limit": st.integers(0, 2),
        "x-max-priority": st.just(3),
    },
)
HEADERS = st.sampled_from([None, {}, {"CC": ["b"]}, {"CC": 1}, {"x-death": [1]}, {"x-death": [{"queue": "a"}]}])


def queue_declare(queue: str, flags: list[bool], arguments: dict[str, Any]) -> base.Frame:
    passive, durable, exclusive, auto_delete, nowait = flags
    return commands.Queue.Declare(0, queue, passive, durable, exclusive, auto_delete, nowait, arguments)


METHODS: st.SearchStrategy[base.Frame] = st.one_of(
    st.builds(commands.Channel.Open),
    st.builds(commands.Channel.CloseOk),
    st.just(commands.Channel.Close(200, "", 0, 0)),
    st.builds(commands.Confirm.Select),
    st.sampled_from((commands.Tx.Select(), commands.Tx.Commit(), commands.Tx.Commit(), commands.Tx.Rollback())),
    st.builds(queue_declare, QUEUES, st.lists(FLAGS, min_size=5, max_size=5), ARGUMENTS),
    st.builds(queue_declare, QUEUES, st.just([False, True, False, False, False]), st.just({})),
    st.builds(commands.Queue.Delete, queue=QUEUES, if_unused=FLAGS, if_empty=FLAGS),
    st.builds(commands.Queue.Purge, queue=QUEUES),
    st.builds(commands.Queue.Bind, queue=QUEUES, exchange=EXCHANGES, routing_key=KEYS),
    st.builds(commands.Queue.Unbind, queue=QUEUES, exchange=EXCHANGES, routing_key=KEYS),
    st.builds(commands.Exchange.Declare, exchange=EXCHANGES, exchange_type=st.just("topic"), auto_delete=FLAGS),
    st.builds(commands.Exchange.Delete, exchange=EXCHANGES, if_unused=FLAGS),
    st.builds(commands.Exchange.Bind, destination=EXCHANGES, source=EXCHANGES, routing_key=KEYS),
    st.builds(commands.Basic.Publish, exchange=EXCHANGES, routing_key=KEYS, mandatory=FLAGS),
    st.builds(commands.Basic.Publish, routing_key=st.sampled_from(["a", "b"])),
    st.builds(commands.Basic.Get, queue=QUEUES, no_ack=FLAGS),
    st.builds(commands.Basic.Consume, queue=QUEUES, consumer_tag=st.sampled_from(["", "s", "t"]), no_ack=FLAGS),
    st.builds(commands.Basic.Consume, queue=st.just(NAME), consumer_tag=st.just("r"), no_ack=st.just(True)),
    st.builds(commands.Basic.Cancel, consumer_tag=st.sampled_from(["s", "t", "r"])),
    st.builds(commands.Basic.Qos, prefetch_count=st.integers(0, 2), global_=FLAGS),
    st.builds(commands.Basic.Ack, delivery_tag=TAGS, multiple=FLAGS),
    st.builds(commands.Basic.Nack, delivery_tag=TAGS, multiple=FLAGS, requeue=FLAGS),
    st.builds(commands.Basic.Reject, delivery_tag=TAGS, requeue=FLAGS),
    st.builds(commands.Basic.Recover, requeue=st.just(True)),
)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("method"), st.integers(0, 1), st.integers(1, 2), METHODS, HEADERS),
        st.tuples(st.just("wait"), st.sampled_from([0.01, 0.06, 0.2])),
        st.tuples(st.just("drop"), st.integers(0, 1)),
        st.tuples(st.just("alarm"), FLAGS),
        st.tuples(st.just("restart")),
    ),
    max_size=60,
)


class World:
    """A broker and two clients. They connect again if the broker closes them, and confirm that it closes a channel."""

    def __init__(self, broker: Broker, *, polite: bool = False) -> None:
        self.broker = broker
        self.polite = polite
        self.now = 0.0
        self.ids: list[ConnectionId] = [broker.connect(), broker.connect()]
        self.published = 0
        for id_ in self.ids:
            for channel in (1, 2):
                broker.receive(id_, channel, commands.Channel.Open(), now=0)
        for queue in ("a", "b"):
            broker.receive(self.ids[0], 1, commands.Queue.Declare(queue=queue, durable=True), now=0)

    def step(self, step: tuple[Any, ...]) -> list[Outgoing]:
        kind, *rest = step
        if kind == "method":
            return self._method(*rest)
        if kind == "wait":
            self.now += rest[0]
            return self.broker.tick(now=self.now)
        if kind == "alarm":
            return self.broker.set_alarm(rest[0], now=self.now)
        if kind == "drop":
            out = self.broker.disconnect(self.ids[rest[0]], now=self.now)
            self.ids[rest[0]] = self.broker.connect()
            return out
        self.broker.restart(now=self.now)
        self.ids = [self.broker.connect(), self.broker.connect()]
        return []

    def _method(self, client: int, channel: int, method: base.Frame, headers: Any) -> list[Outgoing]:
        properties, body = None, b""
        if isinstance(method, commands.Basic.Publish):
            self.published += 1
            properties, body = Properties(headers=headers, delivery_mode=2), b"%d" % self.published
        if self.ids[client] not in self.broker.connections():
            self.ids[client] = self.broker.connect()
        known = self.broker._engine.connections[self.ids[client]].channels
        if self.polite and channel in known and known[channel].closing:
            self.broker.receive(self.ids[client], channel, commands.Channel.CloseOk(), now=self.now)
        if channel not in known and not isinstance(method, commands.Channel.Close):
            self.broker.receive(self.ids[client], channel, commands.Channel.Open(), now=self.now)
        return self.broker.receive(self.ids[client], channel, method, properties, body, now=self.now)

    def held(self, queue: str) -> Counter[bytes]:
        """How often each body is in a queue, or delivered and not settled."""
        bodies = [message.body for message in self.broker.messages(queue)]
        return Counter(bodies + [message.body for *_, message in self.broker.unacked(queue)])


def check(world: World, answers: list[Outgoing]) -> None:
    broker = world.broker
    for queue in broker.queue_names():
        state = broker.queue(queue)
        ready = [entry.position for entry in state.entries()]
        unacked = [
            pending.entry.position
            for channel in broker._channels()
            for _, pending in channel.outstanding()
            if pending.queue == state.uid
        ]
        assert state.size == sum(len(entry.message.body) for entry in state.entries()), "the size is that of the bodies"
        if not state.quorum:
            assert len(set(ready + unacked)) == len(ready + unacked), "a message is in one place"
            assert ready == sorted(ready), "classic queues keep the order of arrival"
            assert sorted(state.line + state.blocked) == sorted(state.consumers), "a consumer is in line or blocked"
        assert not (state.line and ready) or all(
            not broker._engine._may_send(state, state.consumers[key]) for key in state.line
        ), "no message waits for a consumer that could take it"
        for consumer in state.consumers.values():
            assert consumer.credit is None or consumer.credit >= 0
    for out in answers:
        if not isinstance(out.method, commands.Channel.OpenOk):
            out.method.marshal()
        assert (out.properties is not None) == (
            isinstance(out.method, commands.Basic.Deliver | commands.Basic.GetOk | commands.Basic.Return)
        )
    deadline = broker.deadline()
    assert deadline is None or deadline > world.now
    due = [broker.queue(queue).due() for queue in broker.queue_names()]
    assert (math.inf if deadline is None else deadline) == min(due, default=math.inf), "no deadline is forgotten"
    earliest = broker.earliest()
    assert deadline is None or (earliest is not None and earliest <= deadline), "nothing expires unnoticed"


@settings(max_examples=250, deadline=None)
@given(STEPS)
def test_random_use_never_raises_and_keeps_the_invariants(steps: list[tuple[Any, ...]]) -> None:
    policy = Policy("p", "^b$", {"dead-letter-exchange": "", "dead-letter-routing-key": "a", "max-length": 3})
    world = World(Broker(policies=[policy]))
    for step in steps:
        check(world, world.step(step))
        hash(world.broker.snapshot())


SIMPLE: st.SearchStrategy[base.Frame] = st.one_of(
    st.builds(commands.Basic.Publish, routing_key=st.just("a")),
    st.builds(commands.Basic.Get, queue=st.just("a")),
    st.builds(commands.Basic.Consume, queue=st.just("a"), consumer_tag=st.sampled_from(["", "s", "t"])),
    st.builds(commands.Basic.Cancel, consumer_tag=st.sampled_from(["s", "t"])),
    st.builds(commands.Basic.Qos, prefetch_count=st.integers(0, 2), global_=FLAGS),
    st.builds(commands.Basic.Nack, delivery_tag=TAGS, multiple=FLAGS, requeue=st.just(True)),
    st.builds(commands.Basic.Recover, requeue=st.just(True)),
    st.just(commands.Channel.Close(200, "", 0, 0)),
)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("method"), st.integers(0, 1), st.integers(1, 2), SIMPLE, st.none()),
            st.tuples(st.just("drop"), st.integers(0, 1)),
            st.tuples(st.just("restart")),
        ),
        max_size=50,
    )
)
def test_without_acknowledgement_nothing_is_lost_or_doubled(steps: list[tuple[Any, ...]]) -> None:
    world = World(Broker(), polite=True)
    expected: Counter[bytes] = Counter()
    for step in steps:
        before = world.published
        world.step(step)
        if world.published > before:
            expected[b"%d" % world.published] += 1
        assert world.held("a") == expected


IN_TRANSACTION: st.SearchStrategy[base.Frame] = st.one_of(
    st.builds(commands.Basic.Publish, routing_key=st.just("a")),
    st.builds(commands.Basic.Get, queue=st.just("a")),
    st.builds(commands.Basic.Ack, delivery_tag=st.integers(1, 4)),
    st.builds(commands.Basic.Nack, delivery_tag=st.integers(1, 4), requeue=FLAGS),
    st.just(commands.Tx.Commit()),
    st.just(commands.Tx.Rollback()),
    st.just(commands.Channel.Close(200, "", 0, 0)),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.one_of(IN_TRANSACTION, st.just("drop"), st.just("restart")), max_size=50))
def test_a_transaction_is_carried_out_by_its_commit_only(steps: list[Any]) -> None:
    """Until then nothing that it does can be seen, and it is gone with its channel."""
    world = World(Broker())
    kept, published, settled = Counter[bytes](), Counter[bytes](), Counter[bytes]()
    taken: dict[int, bytes] = {}  # the unsettled deliveries by tag, and those that the transaction settles
    held: dict[int, bytes] = {}
    for step in steps:
        known = world.broker._engine.connections.get(world.ids[0])
        if known is None or 1 not in known.channels or known.channels[1].transaction is None:
            world.step(("method", 0, 1, commands.Tx.Select(), None))
        if not isinstance(step, base.Frame):
            world.step((step, 0))
            answers: list[Outgoing] = []
        else:
            answers = world.step(("method", 0, 1, step, None))
        names = [out.method.name for out in answers]
        tag = getattr(step, "delivery_tag", None)
        if names == ["Basic.GetOk"]:
            taken[max(tag for _, _, tag, _ in world.broker.unacked("a"))] = answers[0].body
        elif isinstance(step, commands.Basic.Publish):
            published[b"%d" % world.published] += 1
        elif tag in taken:
            held[tag] = taken.pop(tag)
            settled[held[tag]] += not getattr(step, "requeue", False)
        elif names == ["Tx.CommitOk"]:
            kept = kept + published - settled
            published, settled, held = Counter(), Counter(), {}
        elif names != ["Basic.GetEmpty"]:  # a rollback, or an end of the channel
            ended = names != ["Tx.RollbackOk"]
            if names == ["Channel.Close"]:
                world.step(("method", 0, 1, commands.Channel.CloseOk(), None))
            published, settled = Counter(), Counter()
            taken, held = ({}, {}) if ended else ({**taken, **held}, {})
        assert world.held("a") == kept


@settings(max_examples=100, deadline=None)
@given(STEPS, STEPS)
def test_a_clone_behaves_like_its_original(steps: list[tuple[Any, ...]], more: list[tuple[Any, ...]]) -> None:
    world = World(Broker())
    for step in steps:
        world.step(step)
    twin = World.__new__(World)
    twin.broker, twin.now, twin.ids = world.broker.clone(), world.now, list(world.ids)
    twin.published, twin.polite = world.published, world.polite
    before = world.broker.snapshot()
    twin_answers = [twin.step(step) for step in more]
    assert world.broker.snapshot() == before, "the clone's use does not touch the original"
    answers = [world.step(step) for step in more]
    assert [[image(out) for out in some] for some in answers] == [[image(out) for out in some] for some in twin_answers]
    assert world.broker.snapshot() == twin.broker.snapshot()


def image(out: Outgoing) -> tuple[Any, ...]:
    return (out.connection, out.channel, out.method.name, repr(dict(out.method)), out.body)
