"""The inside of machines and of the broker: clones, hashable images in which equal states are equal, and some numbers.

This is the only module of the explorer that knows private attributes of the core: when the machine changes inside, this
module has to follow. The core knows nothing of it.

The cloner shares what nobody changes, and copies everything else. It refuses a type that it does not know, rather than
to share it by mistake. An image has no epochs and no counters; tags count backwards from the newest one, publishes are
numbered in the order in which they are found, times are relative to now. :data:`RULES` says what of an object does not
go into the image as it is. So a new attribute of the core can make fewer states equal, but never more.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import is_dataclass
from functools import lru_cache
from typing import Any, Final, TypeVar

from pamqp.commands import Basic

from eda_core.machine.aggregator import Aggregator
from eda_core.machine.attempts import AttemptMemory
from eda_core.machine.calls import Call, Calls
from eda_core.machine.connection import Connection
from eda_core.machine.deliveries import Deliveries
from eda_core.machine.effects import Publish
from eda_core.machine.identifiers import TAG_BITS, TAG_MASK, DeliveryId
from eda_core.machine.in_flight import Delivery, Group, InFlight
from eda_core.machine.machine import Machine
from eda_core.machine.outbox import Confirms, Outbox
from eda_core.machine.silence import Silence
from eda_core.machine.turns import Turns
from eda_core.messages.codec import CBOR, DEFAULT_LIMITS, DecodeError, decode
from eda_core.messages.properties import Properties
from eda_core.messages.values import Message
from eda_core.testing.broker.model import Broker

_SERVER_NAMED: Final = "amq.gen-"


@lru_cache(maxsize=4096)
def label_of(body: bytes) -> str:
    """The label of a message, by its body: the explorer's messages have their label as payload."""
    try:
        return str(decode(body, CBOR, DEFAULT_LIMITS))
    except DecodeError:
        return repr(body)


# -- clones -----------------------------------------------------------------------------------------------------------

Core = TypeVar("Core")
Memo = dict[int, Any]
_Cloner = Callable[[Any, Memo], Any]


def _same(value: Any, _: Memo) -> Any:
    return value


def _list(value: list[Any], memo: Memo) -> Any:
    return [_clone(item, memo) for item in value]


def _dict(value: dict[Any, Any], memo: Memo) -> Any:
    return {key: item if type(item) in _SHARED else _clone(item, memo) for key, item in value.items()}


def _deque(value: deque[Any], memo: Memo) -> Any:
    return deque([_clone(item, memo) for item in value], value.maxlen)


def _tuple(value: tuple[Any, ...], memo: Memo) -> Any:
    return tuple([item if type(item) in _SHARED else _clone(item, memo) for item in value])


def _set(value: set[Any], _: Memo) -> Any:
    return value.copy()


def attributes(kind: type) -> tuple[str, ...] | None:
    """The slots of a class and its bases; ``None`` if its instances have a dictionary."""
    names: list[str] = []
    for base in reversed(kind.__mro__[:-1]):
        slots = base.__dict__.get("__slots__")
        if slots is None and base.__dictoffset__ == 0:  # Generic, which is written in C from Python 3.12 on
            continue
        if slots is None:
            return None
        names += [slots] if isinstance(slots, str) else slots
    return tuple(names)


def _object(kind: type) -> _Cloner:
    """How to copy an object of the core. What the machine refers to twice is copied once."""
    slots = attributes(kind)

    def clone(value: Any, memo: Memo) -> Any:
        known = memo.get(id(value))
        if known is not None:
            return known
        copy: Any = object.__new__(kind)
        memo[id(value)] = copy
        if slots is None:
            copy.__dict__ = _dict(value.__dict__, memo)
        else:
            for name in slots:
                item = getattr(value, name)
                setattr(copy, name, item if type(item) in _SHARED else _clone(item, memo))
        return copy

    return clone


#: Types whose values nobody changes. :func:`_cloner` adds those that it finds.
_SHARED: Final[set[type]] = {int, str, bytes, float, bool, type(None), Basic.Properties, Properties, frozenset}
_CLONERS: Final[dict[type, _Cloner]] = {
    **dict.fromkeys(_SHARED, _same),
    list: _list,
    dict: _dict,
    deque: _deque,
    tuple: _tuple,
    set: _set,
}


def _cloner(kind: type) -> _Cloner:
    """How to clone a type that the explorer meets for the first time.

    Raises:
        TypeError: it is no class of the core and not known to be immutable.
    """
    if kind.__module__.startswith("eda_core."):
        frozen = is_dataclass(kind) and kind.__dataclass_params__.frozen  # type: ignore[attr-defined]  # of dataclasses
        found = _same if frozen or issubclass(kind, Message) else _object(kind)
    elif issubclass(kind, Mapping) or any("__call__" in base.__dict__ for base in kind.__mro__):
        found = _same
    else:
        raise TypeError(f"the explorer does not know how to clone {kind}: see eda_core.testing.explorer.snapshot")
    _CLONERS[kind] = found
    if found is _same:
        _SHARED.add(kind)
    return found


def _clone(value: Any, memo: Memo) -> Any:
    kind = type(value)
    return (_CLONERS.get(kind) or _cloner(kind))(value, memo)


def clone(thing: Core) -> Core:
    """An independent copy of an object of the core. Messages, properties and configurations are shared."""
    copy = _clone(thing, {})
    assert isinstance(copy, type(thing))
    return copy


# -- images of machines -----------------------------------------------------------------------------------------------


class _View:
    """What an image is relative to: the present link, now, the newest delivery tag, the last publish tag.

    ``publishes`` collects the identifiers of publishes in the order in which they are found. ``stable`` is the age, in
    seconds, from which on the age of a link makes no difference, ``overrun`` that of a handler.
    """

    __slots__ = ("epoch", "last", "newest", "now", "overrun", "publishes", "stable")

    def __init__(self, machine: Machine, now: float, newest: int, last: int) -> None:
        self.epoch = machine.epoch
        self.stable = machine.config.reconnect.stable_after
        self.overrun = machine._deliveries._overrun
        self.now = now
        self.newest = newest
        self.last = last
        self.publishes: list[int] = []


_Rule = Callable[[Any, _View], Any]


def _time(value: float | None, view: _View) -> Any:
    return None if value is None else value - view.now


def _age(value: float | None, view: _View) -> Any:
    return None if value is None else min(view.now - value, view.stable)


def _run_time(value: float, view: _View) -> Any:
    return min(view.now - value, view.overrun)


def _ended(value: list[tuple[float, Delivery]], view: _View) -> Any:
    return tuple((min(view.now - at, view.overrun), _freeze(delivery, view)) for at, delivery in value)


def _since(value: float, view: _View) -> Any:
    return value and view.now - value


def _delivery(value: int | None, view: _View) -> Any:
    if value is None:
        return None
    age, tag = view.epoch - (value >> TAG_BITS), value & TAG_MASK
    return (age, tag) if age else view.newest - tag


def _pid(value: int, view: _View) -> Any:
    view.publishes.append(value)
    return None


def _body(value: bytes, _: _View) -> Any:
    return label_of(value)


def _ticket(value: int | None, _: _View) -> Any:
    return value is None  # the explorer gives tickets in the order of the publishes


def _open_tags(value: dict[int, Publish], view: _View) -> Any:
    return tuple((view.last - tag, _freeze(publish, view)) for tag, publish in sorted(value.items()))


def _values(value: dict[Any, Any], view: _View) -> Any:
    return tuple(_freeze(item, view) for item in value.values())


def _tags(value: Iterable[Delivery], view: _View) -> Any:
    return tuple(view.newest - delivery.tag for delivery in value)


def _turns(value: dict[int, str], view: _View) -> Any:
    return tuple(sorted((repr(_delivery(run, view)), key) for run, key in value.items()))


def _waiting(value: dict[str, deque[Delivery]], view: _View) -> Any:
    return tuple(sorted((key, _tags(waiting, view)) for key, waiting in value.items()))


def _pairs(value: dict[Any, Any], _: _View) -> Any:
    return tuple(sorted((repr(key), item) for key, item in value.items()))


def _due(value: deque[tuple[float, Publish]], view: _View) -> Any:
    return tuple((due - view.now, _freeze(publish, view)) for due, publish in value)


def _cancellable(value: dict[int, bool], view: _View) -> Any:
    return tuple((_pid(pid, view), again) for pid, again in sorted(value.items()))


def _count(value: Any, _: _View) -> Any:
    return len(value)


def _silence(value: Silence, view: _View) -> Any:
    """The silence on a channel, as far as it can have an effect: not if the channel is not watched."""
    if value.due is None:
        return value._patience
    left = value._left
    heard = max(value.heard, value.answered)
    return (value._patience, value.due - view.now, heard - view.now, left, value.asked - view.now if left else 0)


def neutral(queue: str) -> str:
    """The name of a queue, without the number in a name that the broker made."""
    return _SERVER_NAMED if queue.startswith(_SERVER_NAMED) else queue


def _named(method: Any) -> str | None:
    """The queue that a method is about, if it is about one."""
    queue = getattr(method, "queue", None)
    return None if queue is None else neutral(queue)


def _queues(value: Mapping[str, str], _: _View) -> Any:
    return tuple((key, neutral(name)) for key, name in value.items())


#: How attributes go into an image. ``None`` leaves them out; attributes that are not named go in as they are.
RULES: Final[dict[type, dict[str, _Rule | None]]] = {
    Machine: {
        **dict.fromkeys(("_consuming", "_publishing"), None),  # the connection has them, too
        **dict.fromkeys(("config", "_counts", "_random", "_stale", "_token"), None),
        "_ask_due": _time,
        # nothing depends on logs and warnings
        **dict.fromkeys(("_logs", "_received", "_waits_since", "_warn_due"), None),
    },
    Connection: {
        **dict.fromkeys(("_config", "_counts", "epoch", "_random", "_wanted", "_added"), None),
        "queues": _queues,
        "_open_since": _age,
        "_due": _time,
        "_adding_due": _time,
        "consuming": _silence,
        "publishing": _silence,
        "checking": _silence,
        "stop_due": _time,
    },
    Deliveries: {
        **dict.fromkeys(("_config", "_counts", "_handlers", "_outbox", "_logs", "_read", "stale"), None),
        "_queues": None,  # the connection has them, too
        **dict.fromkeys(("_orphans", "_adoptable"), _values),
        "_adopted": _count,  # they are in flight, and say it themselves
        "_overran": _ended,
        "_overrun": None,
        "paused": _tags,
    },
    Turns: {"_name": None, "_keys": _turns, "_waiting": _waiting},
    InFlight: {"epoch": None, "_base": None, "_low": None, "_newest": None, "by_id": _values},
    Delivery: {
        **dict.fromkeys(("id", "run"), _delivery),
        "began": _run_time,
        **dict.fromkeys(("tag", "message", "properties", "key", "source", "waited"), None),
        "body": _body,
    },
    Publish: {
        **dict.fromkeys(("epoch", "tag", "routing_key", "properties"), None),
        "pid": _pid,
        "body": _body,
        "delivery": _delivery,
        "ticket": _ticket,
        "sent_at": _since,
    },
    Outbox: {
        **dict.fromkeys(
            (
                *("_blocked_timeout", "_confirm_timeout", "_counts", "_open_timeout", "_urls", "_window"),
                *("limit", "published"),
            ),
            None,
        ),
        "_refused": _due,
        "_cancellable": _cancellable,
        "blocked_since": _time,
        "_unblocked_at": _since,
        "_opening_due": _time,
        **dict.fromkeys(("_refusing_since", "_read_at"), _time),
    },
    Confirms: {**dict.fromkeys(("_low", "_next"), None), "open": _open_tags},
    Group: {"members": _tags},
    Calls: {**dict.fromkeys(("key", "late", "_limit", "_due"), None), "_by_correlation": _values},
    Call: {"ticket": None, "due": _time},
    AttemptMemory: {"_limit": None, "known": _pairs},
}

_PLANS: dict[type, tuple[tuple[str, _Rule], ...] | None] = {}


def _freeze(value: Any, view: _View) -> Any:
    """A hashable image of anything in a machine."""
    kind = type(value)
    if kind in _ATOMS:
        return value
    if kind in (list, tuple, deque):
        return tuple([_freeze(item, view) for item in value])
    if kind is dict:
        return tuple((key, _freeze(item, view)) for key, item in value.items())
    if kind is set:
        return tuple(sorted(value))
    plan = _PLANS.get(kind)
    if plan is None:
        plan = _PLANS[kind] = _image_plan(value)
    return tuple(
        [
            item
            if rule is _freeze and type(item := getattr(value, name)) in _ATOMS
            else rule(getattr(value, name), view)
            for name, rule in plan
        ]
    )


_ATOMS: Final = frozenset((int, str, bytes, float, bool, type(None)))


def _image_plan(value: Any) -> tuple[tuple[str, _Rule], ...]:
    kind = type(value)
    if not kind.__module__.startswith("eda_core."):
        raise TypeError(f"the explorer cannot make an image of {kind}: see eda_core.testing.explorer.snapshot")
    names = attributes(kind)
    rules = RULES.get(kind, {})
    plan = ((name, rules.get(name, _freeze)) for name in (vars(value) if names is None else names))
    return tuple((name, rule) for name, rule in plan if rule is not None)


def machine_image(machine: Machine, now: float, newest: int, last: int) -> tuple[Any, ...]:
    """The image of a machine.

    Args:
        newest: the last delivery tag of the present link that the machine was told of.
        last: the tag of the last publish on that link.
    """
    view = _View(machine, now, newest, last)
    image = _freeze(machine, view)
    order = sorted(view.publishes)
    return (image, tuple([order.index(pid) for pid in view.publishes]))


def stale_rules() -> list[str]:
    """The rules for attributes that no longer exist, of classes with slots. There should be none."""
    return [
        f"{kind.__name__}.{name}"
        for kind, rules in RULES.items()
        if (names := attributes(kind)) is not None
        for name in rules
        if name not in names
    ]


# -- what the judge and the image of a world read of machines ---------------------------------------------------------


def publishes_unsafe(machine: Machine) -> int:
    """How many publishes the machine keeps because they are not confirmed."""
    return machine._outbox.kept


def asks(machine: Machine) -> bool:
    """Whether the next thing that a machine does at a deadline is to ask the broker whether it still works."""
    connection = machine._connection
    silences = connection.consuming, connection.publishing, connection.checking
    dues = [each.due for each in silences if each.due is not None]
    asked = any(each._left and max(each.heard, each.answered) < each.asked for each in silences)
    return bool(dues) and not asked and machine.deadline() == min(dues)


def calls_open(machine: Machine) -> int:
    """How many calls wait for their results, plus the commands that wait for the queue of the results."""
    return len(machine._calls) + len(machine._calls._held)


def results_dropped(machine: Machine) -> int:
    """How many results the machine has dropped because no call waited for them."""
    return machine._calls.late


def collected(batch: Aggregator[str]) -> list[DeliveryId | None]:
    """The deliveries that a batch holds."""
    return [delivery for delivery, _ in batch._entries]


# -- the broker -------------------------------------------------------------------------------------------------------


def labels_at(broker: Broker, besides: frozenset[str]) -> set[str]:
    """The labels of the messages that are in a queue or delivered and not settled.

    Args:
        besides: queues that do not count.
    """
    engine = broker._engine
    found = {
        label_of(entry.message.body)
        for queue in engine.queues.values()
        if queue.name not in besides
        for entry in queue.entries()
    }
    for connection in engine.connections.values():
        for channel in connection.channels.values():
            found.update(label_of(pending.entry.message.body) for _, pending in channel.outstanding())
    return found


def _message_image(message: Any) -> tuple[Any, ...]:
    headers = message.properties.headers or {}
    return (label_of(message.body), message.exchange, message.routing_keys, headers.get("attempt"))


def broker_image(broker: Broker, now: float, unread: frozenset[str]) -> tuple[tuple[Any, ...], bool]:
    """The image of the broker, and whether it depends on the time.

    Of exchanges and bindings only the number of bindings goes in: each link begins with declaring them all.

    Args:
        unread: queues that nobody consumes. Only the set of the labels in them goes in.
    """
    engine = broker._engine
    ranks = {connection: rank for rank, connection in enumerate(engine.connections)}
    positions: dict[int, list[int]] = {uid: [e.position for e in q.entries()] for uid, q in engine.uids.items()}
    for connection in engine.connections.values():
        for channel in connection.channels.values():
            for _, pending in channel.outstanding():
                if pending.queue in positions:
                    positions[pending.queue].append(pending.entry.position)
    timed = False
    queues: list[Any] = []
    names: dict[int, tuple[Any, ...]] = {}
    for uid, queue in sorted(engine.uids.items(), key=lambda item: item[1].name):
        name = (_SERVER_NAMED, ranks.get(queue.owner)) if queue.owner is not None else (queue.name,)
        names[uid] = name
        if queue.name in unread:
            queues.append((name, tuple(sorted({label_of(e.message.body) for e in queue.entries()}))))
            continue
        order = sorted(positions[uid])
        timed = timed or any(entry.expires_at is not None for entry in queue.entries())
        queues.append(
            (
                name,
                tuple([_entry(entry, order, now) for entry in queue.entries()]),
                tuple((ranks[k.connection], k.tag, c.credit) for k, c in sorted(queue.consumers.items())),
                tuple((ranks[k.connection], k.tag) for k in queue.line),
                tuple((ranks[k.connection], k.tag) for k in queue.blocked),
                queue.refusing,
            )
        )
        positions[uid] = order
    connections = tuple(
        (
            tuple(_channel(channel, names, positions, now) for channel in connection.channels.values()),
            connection.blocked,
            tuple(
                (number, type(method).__name__, str({**dict(method), "queue": _named(method)}), body)
                for number, method, _, body in connection.held
            ),
        )
        for connection in engine.connections.values()
    )
    bound = tuple(sum(1 for _ in topology.bindings()) for topology in engine.topologies.values())
    return (tuple(queues), connections, bound, broker._alarm), timed


def _entry(entry: Any, order: list[int], now: float) -> tuple[Any, ...]:
    expires = None if entry.expires_at is None else entry.expires_at - now
    return (
        order.index(entry.position),
        _message_image(entry.message),
        expires,
        entry.redelivered,
        entry.failures,
    )


def _channel(
    channel: Any, names: dict[int, tuple[Any, ...]], positions: dict[int, list[int]], now: float
) -> tuple[Any, ...]:
    def image(deliveries: Any) -> tuple[Any, ...]:
        return tuple(
            (
                channel.next_delivery - tag,
                names.get(p.queue),
                _entry(p.entry, positions.get(p.queue, [p.entry.position]), now),
            )
            for tag, p in deliveries.items()
        )

    held = channel.transaction
    if held is not None:
        held = (
            tuple(
                (_message_image(each.message), each.mandatory, each.queues, tuple(map(names.get, each.uids.values())))
                for each in held.publishes
            ),
            tuple((how, failed, image(deliveries)) for how, failed, deliveries in held.settlements),
        )
    unconfirmed = tuple(channel.next_publish - tag for tag in channel.unconfirmed)
    tags = tuple(sorted(channel.consumers))
    replies = channel.replies and channel.replies.tag
    return (channel.prefetch, channel.closing, image(channel.unacked), unconfirmed, tags, held, replies)
