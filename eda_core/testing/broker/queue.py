"""One queue: its messages in order, its consumers in turn, its limits.

This module has the data, and the rules that concern one queue alone. The engine delivers, requeues and dead-letters.
This module does not know where messages come from.

A classic queue puts a message that is requeued back in its place. A quorum queue with a delivery limit puts it before
all messages that were never delivered, and one without a limit at its end.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, NewType

from eda_core.testing.broker.arguments import DROP_HEAD, QUORUM, Limits
from eda_core.testing.broker.message import AmqpMessage
from eda_core.testing.broker.ready import ALIKE, Entry, Priorities, Ready
from eda_core.testing.broker.values import freeze

#: The number of a connection to the broker model. It is never used again.
ConnectionId = NewType("ConnectionId", int)

#: A quorum queue that has refused a publish takes publishes again when it is filled to this part of its limit.
_SOFT_LIMIT: Final = 0.8
#: The prefetch that a quorum queue gives to a consumer without one.
QUORUM_PREFETCH: Final = 2000
#: How a quorum queue orders its messages, if it does (``Version.orders_by_priority``).
QUORUM_PRIORITIES: Final = Priorities(4, 31)


class ConsumerKey(NamedTuple):
    connection: ConnectionId
    channel: int
    tag: str


@dataclass(slots=True)
class Consumer:
    """A consumer of a queue.

    Attributes:
        credit: how many more deliveries it may get before it settles one; ``None`` for any number.
        priority: those with a higher one get messages first.
        number: on its channel, from 1 on.
    """

    key: ConsumerKey
    no_ack: bool
    credit: int | None
    priority: int = 0
    number: int = 0

    def clone(self) -> Consumer:
        return Consumer(self.key, self.no_ack, self.credit, self.priority, self.number)


@dataclass(slots=True)
class Queue:
    """The state of one queue.

    Attributes:
        uid: tells it from an earlier queue of the same name.
        kind: "classic" or "quorum".
        owner: the connection that it is exclusive to, if it is.
        arguments: as declared.
        limits: those that follow from its arguments and policies.
        ready: the messages that no consumer has.
        returned: those of a quorum queue with a delivery limit that came back: they are delivered first.
        next_position: of the next message.
        line: the consumers that may get the next message, in the order of their turns.
        blocked: the consumers of a classic queue that had no credit at their turn.
        exclusive_consumer: the one that has the queue for itself, if one does.
        active: the consumer that gets the messages, if only one does so.
        quiescing: ``active`` gets no more: it makes way for another one as soon as it has settled what it has.
        waiting: the consumers of a quorum queue that may become ``active``.
        had_consumers: it has had one: an auto-delete queue goes with its last one.
        refusing: it refuses publishes until it is shorter (quorum queues only).
        expires_at: when the queue goes if it is still unused then, in seconds.
        priorities: how it orders its messages.
        timer: when a queue that is ``by_maximum`` looks next whether messages have expired.
        unranked: ``waiting`` is not in the order in which they become active.
        single: only one of its consumers is active.
        by_maximum: it is a classic queue with ``x-max-priority``.
        by_priority: it is a quorum queue that orders its messages.
        size: of the bodies of all ready and returned messages, bytes.
    """

    uid: int
    vhost: str
    name: str
    kind: str
    durable: bool
    auto_delete: bool
    owner: ConnectionId | None
    arguments: dict[str, Any]
    limits: Limits
    priorities: Priorities = ALIKE
    returned: deque[Entry] = field(default_factory=deque)
    next_position: int = 0
    consumers: dict[ConsumerKey, Consumer] = field(default_factory=dict)
    line: list[ConsumerKey] = field(default_factory=list)
    blocked: list[ConsumerKey] = field(default_factory=list)
    exclusive_consumer: ConsumerKey | None = None
    active: ConsumerKey | None = None
    quiescing: bool = False
    waiting: list[ConsumerKey] = field(default_factory=list)
    had_consumers: bool = False
    refusing: bool = False
    expires_at: float | None = None
    timer: float | None = None
    size: int = 0
    unranked: bool = False
    single: bool = field(init=False)
    by_maximum: bool = field(init=False)
    by_priority: bool = field(init=False)
    ready: Ready = field(init=False)

    def __post_init__(self) -> None:
        self.single = self.arguments.get("x-single-active-consumer") is True
        self.by_maximum = "x-max-priority" in self.arguments and not self.quorum
        self.by_priority = self.quorum and self.priorities is not ALIKE
        self.ready = Ready(self.priorities)

    @property
    def quorum(self) -> bool:
        """Whether it is a quorum queue."""
        return self.kind == QUORUM

    def __len__(self) -> int:
        return len(self.ready) + len(self.returned)

    def entries(self) -> Iterator[Entry]:
        """The ready messages, in the order of delivery."""
        yield from self.returned
        yield from self.ready

    # -- messages -----------------------------------------------------------------------------------------------------

    def head(self) -> Entry | None:
        """The message that is delivered next, if there is one."""
        return self.returned[0] if self.returned else self.ready.head()

    def heads(self) -> Iterator[Entry]:
        """The messages that can expire: in a classic queue the head, else the first returned one and of each priority.

        A quorum queue without priorities looks at what was never delivered when nothing is returned.
        """
        if self.returned:
            yield self.returned[0]
            if self.priorities is ALIKE:
                return
        if self.quorum:
            yield from self.ready.heads()
        elif (head := self.ready.head()) is not None:
            yield head

    def pop_expired(self, now: float) -> Entry | None:
        """Take out a message that has expired, if there is one among ``heads``."""
        if not self.by_priority and ((head := self.head()) is None or head.expires_at is None):
            return None
        for entry in self.heads():
            if entry.expires_at is not None and entry.expires_at <= now:
                if self.returned and self.returned[0] is entry:
                    self.returned.popleft()
                else:
                    self.ready.pop(entry)
                self.size -= len(entry.message.body)
                return entry
        return None

    def arm(self) -> None:
        """Note when the head of a queue with ``x-max-priority`` expires, unless it looks earlier anyway.

        It does so when it looks, and not when a message comes: one that expires earlier than the head, and is delivered
        before it, may expire unnoticed.
        """
        head = self.head()
        if head is not None and head.expires_at is not None and (self.timer is None or head.expires_at < self.timer):
            self.timer = head.expires_at

    def pop(self) -> Entry:
        """Take out the message that is delivered next. There must be one."""
        entry = self.returned.popleft() if self.returned else self.ready.pop()
        self.size -= len(entry.message.body)
        return entry

    def append(self, message: AmqpMessage, now: float) -> Entry:
        """Put a message at the end of the queue, or of the messages with its priority."""
        expires_at = None
        times = [ttl for ttl in (message.ttl, self.limits.message_ttl) if ttl is not None]
        if times:
            # In a quorum queue a time to live of 0 is one millisecond: a consumer that waits gets the message.
            ttl = max(min(times), 1 if self.quorum else 0)
            expires_at = now + ttl / 1000
        failures = message.failures if self.quorum else 0
        entry = Entry(self.next_position, message, expires_at, failures=failures)
        self.next_position += 1
        self.ready.append(entry)
        self.size += len(message.body)
        return entry

    def mark_failed(self, entry: Entry) -> None:
        """Mark a new entry as redelivered, if it is still there and a consumer has failed to handle it elsewhere."""
        if entry.message.failures:
            self.ready.replace_last(entry, entry._replace(redelivered=True))

    def put_last(self, entry: Entry) -> None:
        """Put a message that came back to a quorum queue without a delivery limit behind all others."""
        self.ready.append(entry)
        self.size += len(entry.message.body)

    def put_first(self, entry: Entry) -> None:
        """Put a message that came back to a quorum queue before those that were never delivered."""
        self.returned.append(entry)
        self.size += len(entry.message.body)

    def put_back(self, entries: list[Entry]) -> None:
        """Put messages of a classic queue back in their places."""
        self.size += sum(len(entry.message.body) for entry in entries)
        self.ready.put_back(entry._replace(redelivered=True) for entry in entries)

    def purge(self) -> int:
        """Drop all messages that no consumer has. Returns how many there were."""
        count = len(self)
        self.ready.clear()
        self.returned.clear()
        self.size = 0
        return count

    def keep_persistent(self) -> None:
        """Drop what a classic queue loses when its broker is killed. What stays may have been delivered before."""
        kept = [entry._replace(redelivered=True) for entry in self.ready if entry.message.persistent]
        self.purge()
        self.ready.extend(kept)
        self.timer = None
        self.size = sum(len(entry.message.body) for entry in kept)

    # -- limits -------------------------------------------------------------------------------------------------------

    def _over(self, more: int = 0, more_bytes: int = 0, part: float = 1.0) -> bool:
        limits = self.limits
        if limits.max_length is not None and len(self) + more > int(limits.max_length * part):
            return True
        if limits.max_length_bytes is None:
            return False
        return self.size + more_bytes > int(limits.max_length_bytes * part)

    def refuses(self, message: AmqpMessage) -> bool:
        """Whether the queue is too long to take ``message``."""
        if self.limits.overflow == DROP_HEAD:
            return False
        return self.refusing if self.quorum else self._over(1, len(message.body))

    def overflows(self) -> bool:
        """Whether the queue is too long, so that the message at its head has to go."""
        return self.limits.overflow == DROP_HEAD and len(self) > 0 and self._over()

    def watch_length(self) -> None:
        """Note whether a quorum queue refuses publishes.

        It takes the publish that makes it too long, and refuses the next ones until it is well below its limit.
        """
        if self.quorum and self.limits.overflow != DROP_HEAD:
            if self._over():
                self.refusing = True
            elif not self._over(part=_SOFT_LIMIT):
                self.refusing = False

    # -- consumers ----------------------------------------------------------------------------------------------------

    def enter_line(self, key: ConsumerKey) -> None:
        """Put a consumer behind those of the same or a higher priority."""
        priority = self.consumers[key].priority
        place = len(self.line)
        while place and self.consumers[self.line[place - 1]].priority < priority:
            place -= 1
        self.line.insert(place, key)

    def add_consumer(self, consumer: Consumer, *, exclusive: bool) -> None:
        """A consumer begins. A quorum queue ignores ``exclusive``."""
        self.consumers[consumer.key] = consumer
        self.had_consumers = True
        if self.single and self.quorum:
            self.let_wait(consumer.key)
            return
        self.enter_line(consumer.key)
        if exclusive and not self.quorum:
            self.exclusive_consumer = consumer.key
        if self.single and self.active is None:
            self.active = consumer.key

    def let_wait(self, key: ConsumerKey) -> None:
        """A consumer of a quorum queue waits until it is active."""
        self.waiting.append(key)
        self.unranked = True

    def remove_consumers(self, *keys: ConsumerKey) -> None:
        """Consumers are gone. What they have not settled is for the engine to put back."""
        gone = set(keys)
        for key in keys:
            del self.consumers[key]
        self.line = [key for key in self.line if key not in gone]
        self.blocked = [key for key in self.blocked if key not in gone]
        if self.waiting:
            self.waiting = [key for key in self.waiting if key not in gone]
        if self.exclusive_consumer in gone:
            self.exclusive_consumer = None
        if self.active in gone:
            self.quiescing = False
            self.active = self.line[0] if self.line and not self.quorum else None

    def serves(self, key: ConsumerKey) -> bool:
        """Whether a consumer of a quorum queue may get messages, if it has credit."""
        return key in self.consumers and (not self.single or (key == self.active and not self.quiescing))

    def take_turn(self, key: ConsumerKey) -> None:
        """Let a waiting consumer of a quorum queue be the active one. The one that was waits."""
        before, self.active, self.quiescing = self.active, key, False
        self.waiting.remove(key)
        if before is not None:
            self.let_wait(before)
            if before in self.line:
                self.line.remove(before)
        if self.consumers[key].credit != 0:
            self.enter_line(key)

    def quiesce(self) -> None:
        """The active consumer gets no more."""
        self.quiescing = True
        if self.active in self.line:
            self.line.remove(self.active)

    def rank_waiting(self) -> None:
        """Sort the waiting consumers of a quorum queue: by priority, then by prefetch, then by age."""
        ages = {key: age for age, key in enumerate(self.consumers)}

        def rank(key: ConsumerKey) -> tuple[int, int, int]:
            consumer = self.consumers[key]
            credit = QUORUM_PREFETCH if consumer.credit is None else consumer.credit
            return (-consumer.priority, -credit, ages[key])

        self.waiting.sort(key=rank)
        self.unranked = False

    def give_credit(self, key: ConsumerKey, count: int) -> bool:
        """A consumer has settled ``count`` deliveries.

        Returns:
            Whether it had no credit before. The caller has to unblock it then.
        """
        consumer = self.consumers.get(key)
        if consumer is None or consumer.credit is None or not count:
            return False
        was_empty = consumer.credit == 0
        consumer.credit += count
        return was_empty

    def unblock(self, connection: ConnectionId, channel: int | None = None) -> bool:
        """Put the blocked consumers of a channel, or of a connection, that have credit in the line again.

        Returns:
            Whether there were any.
        """
        free = [
            key
            for key in self.blocked
            if key.connection == connection and channel in (None, key.channel) and self.consumers[key].credit != 0
        ]
        if free:
            freed = set(free)
            self.blocked = [key for key in self.blocked if key not in freed]
        for key in sorted(free, key=lambda key: -self.consumers[key].priority):
            self.enter_line(key)
        return bool(free)

    def due(self) -> float:
        """When the queue or one of the messages that can expire does so, in seconds; infinite for never."""
        if self.by_maximum:
            due = math.inf if self.timer is None else self.timer
        elif not self.by_priority:  # as nearly all are, and each message asks for this several times
            head = self.head()
            due = math.inf if head is None or head.expires_at is None else head.expires_at
        else:
            due = min((head.expires_at for head in self.heads() if head.expires_at is not None), default=math.inf)
        return due if self.expires_at is None else min(due, self.expires_at)

    # -- the queue as a value -----------------------------------------------------------------------------------------

    def unused_until(self, now: float) -> None:
        """Begin again to count the time after which an unused queue expires, if it has such a time and no consumer."""
        if self.limits.expires is not None and not self.consumers:
            self.expires_at = now + self.limits.expires / 1000

    def clone(self) -> Queue:
        """An independent copy, which shares the messages."""
        copy = Queue(
            self.uid,
            self.vhost,
            self.name,
            self.kind,
            self.durable,
            self.auto_delete,
            self.owner,
            self.arguments,
            self.limits,
            self.priorities,
        )
        copy.ready = self.ready.copy()
        copy.returned = self.returned.copy()
        copy.next_position = self.next_position
        copy.consumers = {key: consumer.clone() for key, consumer in self.consumers.items()}
        copy.line = self.line.copy()
        copy.blocked = self.blocked.copy()
        copy.exclusive_consumer = self.exclusive_consumer
        copy.active, copy.quiescing, copy.waiting = self.active, self.quiescing, self.waiting.copy()
        copy.had_consumers = self.had_consumers
        copy.refusing = self.refusing
        copy.expires_at = self.expires_at
        copy.timer, copy.unranked = self.timer, self.unranked
        copy.size = self.size
        return copy

    def snapshot(self, ranks: dict[int, int]) -> tuple[Any, ...]:
        """A hashable image. Of the positions only the order (``ranks``) is in it."""
        return (
            (self.vhost, self.name, self.kind, self.durable, self.auto_delete, self.owner, freeze(self.arguments)),
            self.limits,
            tuple(entry_image(entry, ranks) for entry in self.returned),
            tuple(entry_image(entry, ranks) for entry in self.ready),
            tuple(sorted((c.key, c.no_ack, c.credit, c.priority) for c in self.consumers.values())),
            tuple(self.line),
            tuple(self.blocked),
            (self.active, self.quiescing, tuple(self.waiting)),
            (self.exclusive_consumer, self.had_consumers, self.refusing, self.expires_at, self.timer),
        )


def entry_image(entry: Entry, ranks: dict[int, int]) -> tuple[Any, ...]:
    """A hashable image of an entry."""
    place = ranks.get(entry.position, -1)
    return (place, entry.message.image(), entry.expires_at, entry.redelivered, entry.returns, entry.failures)
