"""The hypothesis strategies that make sequences of operations.

By weight, so that much of what is done succeeds and something comes of it; what is rare by weight, or ends what was
going on, has its own turn in each sequence.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final

from hypothesis import strategies as st

from eda_core.testing.broker.addresses import NAME
from tests.differential.operations import (
    ADDRESS,
    CONSUME_REPLIES,
    CONSUMED,
    EXCHANGES,
    FILLED,
    FOREIGN,
    NEVER,
    PLACES,
    QUEUES,
    TINY,
    Call,
    Leave,
    Operation,
    Place,
    Publish,
    Settle,
    SettleUnknown,
)

TAGS: Final = ("c0", "c1", "c2")
KEYS: Final = ("a", "b", "a.b", "a.b.c", "")
PATTERNS: Final = ("a", "b", "#", "*", "a.*", "*.b", "a.#", "#.c", "")

# Most operations are on one channel. Else a channel would seldom have something to settle.
_places = st.sampled_from((*PLACES[:1] * 6, *PLACES))
_queues = st.sampled_from(QUEUES)
_any_queue = st.sampled_from((*QUEUES, *QUEUES, "@1", ""))
# The first three exist from the start, and most operations are about q0.
_some_queue = st.sampled_from(("q0",) * 9 + ("q1",) * 5 + ("q2",) * 3 + ("q3", "@1", "@1"))
_exchanges = st.sampled_from(("x0", "x1") * 5 + ("x2",))
_booleans = st.booleans()


def _one_in(number: int) -> st.SearchStrategy[bool]:
    # The value is not at an end of the list, because hypothesis tries those more often.
    return st.sampled_from((False,) * (number // 2) + (True,) + (False,) * (number - number // 2 - 1))


_rarely = _one_in(8)


def _sometimes(chance: int, values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """A value in one of ``chance`` cases, else ``None``."""
    return _one_in(chance).flatmap(lambda so: values if so else st.none())


def _mostly(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """``None`` in one of three cases, else a value."""
    return _one_in(3).flatmap(lambda so: st.none() if so else values)


# -- declarations ------------------------------------------------------------------------------------------------------

_WRONG_ARGUMENTS: Final[tuple[dict[str, Any], ...]] = (
    {"x-message-ttl": -1},
    {"x-message-ttl": "soon"},
    {"x-max-length": "many"},
    {"x-overflow": "never"},
    {"x-dead-letter-routing-key": "q0"},
    {"x-dead-letter-exchange": 7},
    {"x-queue-type": "heap"},
    {"x-delivery-limit": 3},
    {"x-expires": 0},
    {"x-max-priority": 256},
    {"x-max-priority": -1},
    {"x-max-priority": "high"},
    {"x-single-active-consumer": 1},
)


@st.composite
def queue_arguments(draw: st.DrawFn) -> dict[str, Any]:
    """Arguments of a classic queue."""
    chosen = {
        "x-message-ttl": draw(_sometimes(4, st.sampled_from((0, TINY, TINY, NEVER)))),
        "x-dead-letter-exchange": draw(_mostly(st.sampled_from(("", "", "", "", "x0", "", "", "x1", "missing")))),
        "x-max-length": draw(_sometimes(3, st.sampled_from((2, 1, 3, 2, 0)))),
        "x-max-length-bytes": draw(_sometimes(10, st.integers(0, 9))),
        "x-overflow": draw(_sometimes(3, st.sampled_from(("drop-head", "reject-publish", "reject-publish-dlx")))),
        # Not "lazy": dead letters of such a queue that were on disk have no original-expiration.
        "x-queue-mode": draw(_sometimes(16, st.just("default"))),
        "x-queue-type": draw(_sometimes(16, st.just("classic"))),
        "x-unknown": draw(_sometimes(16, st.just("kept"))),
        "x-max-priority": draw(_sometimes(10, st.sampled_from((1, 5, 5, 10, 0)))),
        "x-single-active-consumer": draw(_sometimes(10, st.sampled_from((True, True, True, False)))),
    }
    if chosen["x-dead-letter-exchange"] is not None:
        chosen["x-dead-letter-routing-key"] = draw(_sometimes(2, st.sampled_from((*QUEUES[:3] * 3, "q3", "a.b"))))
        if chosen["x-dead-letter-exchange"] == "" and not draw(_rarely):
            # Without a routing key a dead letter can only go back to its queue.
            chosen["x-dead-letter-routing-key"] = draw(st.sampled_from(QUEUES[:3]))
    return {name: value for name, value in chosen.items() if value is not None}


@st.composite
def declare_quorum_queue(draw: st.DrawFn, /, name: str, **forced: Any) -> Call:
    chosen = {
        "x-delivery-limit": draw(_mostly(st.sampled_from((1, 0, 0, 1, 2)))),
        "x-dead-letter-exchange": draw(_mostly(st.just(""))),
        "x-max-length": draw(_sometimes(5, st.sampled_from((2, 1, 3, 2)))),
        "x-overflow": draw(_sometimes(5, st.just("drop-head"))),
        "x-single-active-consumer": draw(_sometimes(8, st.just(True))),
        **_arguments(forced),
    }
    if chosen["x-dead-letter-exchange"] is not None:
        chosen["x-dead-letter-routing-key"] = draw(st.sampled_from((*QUEUES[1:3] * 3, *QUEUES)))
    arguments = {key: value for key, value in chosen.items() if value is not None}
    return Call(
        "declare quorum queue",
        PLACES[0],
        "Queue.Declare",
        {"queue": name, "durable": True, "arguments": {"x-queue-type": "quorum", **arguments}},
    )


def _arguments(forced: dict[str, Any]) -> dict[str, Any]:
    return {f"x-{name.replace('_', '-')}": value for name, value in forced.items()}


@st.composite
def declare_queue(draw: st.DrawFn, /, name: str | None = None, **forced: Any) -> Call:
    """A declaration of a classic queue. ``max_priority=5`` is the argument ``x-max-priority``."""
    table = {**draw(queue_arguments()), **_arguments(forced)}
    arguments: dict[str, Any] = {"queue": name or draw(_queues), "arguments": table}
    label = "declare queue"
    if draw(_one_in(10 if name is None else 30)):
        label, arguments["exclusive"] = "declare exclusive queue", True
    if draw(_one_in(10)):
        arguments["durable"] = True
    if draw(_one_in(10)):
        arguments["auto_delete"] = True
    if name is None and draw(_one_in(4)):
        label, arguments["queue"] = "declare server-named queue", ""
    return Call(label, draw(_places) if name is None else PLACES[0], "Queue.Declare", arguments)


_redeclare = st.builds(
    lambda at, queue, durable, arguments: Call(
        "redeclare queue", at, "Queue.Declare", {"queue": queue, "durable": durable, "arguments": arguments}
    ),
    _places,
    _some_queue,
    _rarely,
    st.sampled_from(
        (
            {},
            {},
            {"x-message-ttl": NEVER},
            {"x-max-length": 2},
            {"x-dead-letter-exchange": ""},
            {"x-unknown": 1},
            {"x-max-priority": 5},
            {"x-single-active-consumer": True},
        )
    ),
)
_passive = st.builds(
    lambda at, queue: Call("declare queue passively", at, "Queue.Declare", {"queue": queue, "passive": True}),
    _places,
    _any_queue,
)


@st.composite
def declare_exchange(draw: st.DrawFn, name: str | None = None) -> Call:
    arguments: dict[str, Any] = {
        "exchange": name or draw(st.sampled_from((*EXCHANGES * 5, "amq.topic", "amq.mine", ""))),
        "exchange_type": draw(st.sampled_from(("fanout", "topic", "direct", "headers"))),
        "durable": draw(_rarely),
        "auto_delete": draw(_rarely),
        "internal": draw(_rarely),
    }
    if draw(_rarely):
        arguments["arguments"] = {"alternate-exchange": draw(_exchanges)}
    return Call("declare exchange", draw(_places) if name is None else PLACES[0], "Exchange.Declare", arguments)


_passive_exchange = st.builds(
    lambda at, name: Call(
        "declare exchange passively", at, "Exchange.Declare", {"exchange": name, "exchange_type": "", "passive": True}
    ),
    _places,
    st.sampled_from((*EXCHANGES, "amq.topic", "")),
)

_match = st.sampled_from(({}, {}, {}, {"x-match": "all", "h": 1}, {"x-match": "any", "h": 1, "text": "é"}))


def _binding(label: str, name: str) -> st.SearchStrategy[Call]:
    return st.builds(
        lambda at, queue, exchange, key, arguments: Call(
            label, at, name, {"queue": queue, "exchange": exchange, "routing_key": key, "arguments": arguments}
        ),
        _places,
        _some_queue,
        st.sampled_from((*("x0",) * 14, *("x1",) * 6, "x2", "amq.topic", "amq.direct", "")),
        st.sampled_from((*PATTERNS, "q0", "q1")),
        _match,
    )


def _exchange_binding(label: str, name: str) -> st.SearchStrategy[Call]:
    return st.builds(
        lambda at, source, destination, key: Call(
            label, at, name, {"source": source, "destination": destination, "routing_key": key}
        ),
        _places,
        st.sampled_from((*("x0", "x1") * 4, "x2", "amq.topic")),
        _exchanges,
        st.sampled_from(PATTERNS),
    )


_delete_queue = st.builds(
    lambda at, queue, unused, empty: Call(
        "delete queue", at, "Queue.Delete", {"queue": queue, "if_unused": unused, "if_empty": empty}
    ),
    _places,
    _any_queue,
    _booleans,
    _booleans,
)
_delete_consumed = st.builds(
    lambda at: Call("delete a consumed queue", at, "Queue.Delete", {"queue": CONSUMED}), _places
)
_delete_exchange = st.builds(
    lambda at, exchange, unused: Call(
        "delete exchange", at, "Exchange.Delete", {"exchange": exchange, "if_unused": unused}
    ),
    _places,
    st.sampled_from((*EXCHANGES, *EXCHANGES, "amq.topic")),
    _booleans,
)
_purge = st.builds(lambda at, queue: Call("purge", at, "Queue.Purge", {"queue": queue}), _places, _any_queue)

# -- messages ----------------------------------------------------------------------------------------------------------

_HEADERS: Final = {
    "h": 1,
    "text": "é",
    "bytes": b"\xff\x00",
    "big": 2**40,
    "negative": -1,
    "truth": True,
    "nothing": None,
    "real": 0.5,
    "exact": Decimal("1.25"),
    "when": datetime(2020, 1, 2, tzinfo=UTC),
    "list": [1, "two", [3]],
    "table": {"inner": {"deep": "x"}},
}
#: The x-death of a client that publishes a dead letter again as it came.
_FORGED: Final = [
    {"count": 2**40, "reason": "rejected", "queue": "q0", "exchange": "", "routing-keys": ["q0"]},
    {"count": 2**40, "reason": "expired", "queue": "q1", "exchange": "", "routing-keys": ["q1"]},
]
_PROPERTIES: Final[tuple[dict[str, Any], ...]] = (
    *({},) * 9,
    {"priority": 5},
    {"headers": _HEADERS, "content_type": "text/plain", "correlation_id": "7", "reply_to": "q0", "priority": 3},
    {"message_id": "i", "type": "t", "app_id": "a", "user_id": "guest", "timestamp": datetime(2021, 1, 1, tzinfo=UTC)},
    {"headers": {"h": 1}, "delivery_mode": 1},
    {"delivery_mode": 2},
    {"expiration": str(TINY)},
    {"expiration": str(TINY), "headers": {"h": 2}},
    {"expiration": "0"},
    {"expiration": str(NEVER)},
    {"headers": {"CC": ["q1", "a.b"], "h": 1}},
    {"headers": {"BCC": ["q2"], "CC": ["q1"]}},
    {"headers": {}},
    {"headers": {"x-death": _FORGED, "x-first-death-queue": "q9"}},
)
#: Of messages for a queue that orders them.
_ORDERED: Final[tuple[dict[str, Any], ...]] = (
    {},
    *({"priority": priority} for priority in (0, 1, 2, 3, 4, 5, 5, 9, 31, 40, 255)),
    *({"priority": priority, "expiration": str(TINY)} for priority in (1, 5, 9)),
    *({"priority": priority, "expiration": "0"} for priority in (0, 5)),
    {"priority": 2, "expiration": str(NEVER)},
    {"priority": 3, "delivery_mode": 2, "headers": {"CC": ["q1"]}},
)
_WRONG_PROPERTIES: Final[tuple[dict[str, Any], ...]] = (
    {"expiration": "soon"},
    {"expiration": "-5"},
    {"expiration": "10s"},
    {"user_id": "somebody"},
    {"delivery_mode": 3},
    {"headers": {"CC": "q1"}},
)
_targets = st.sampled_from((CONSUMED,) * 7 + ("q0", "q0", "q0", "q1", "q1", "q2", "@1"))
_counts = st.sampled_from((1, 1, 1, 1, 2, 3, 5))


@st.composite
def publish(draw: st.DrawFn, ordered: bool = False) -> Publish:
    """Messages, with priorities if they are ``ordered``: each operation then puts them into one queue, mostly."""
    exchange = draw(st.sampled_from(("",) * (30 if ordered else 12) + ("x0",) * 7 + ("x1", "amq.topic")))
    key = draw(_targets if exchange == "" else st.sampled_from((*KEYS, "q0", "q1")))
    if ordered and exchange == "" and draw(_booleans):
        key = "q0"
    mandatory = draw(_booleans)
    if mandatory and draw(_rarely):
        key = "nowhere"
    label = "publish mandatory" if mandatory else "publish"
    properties = draw(st.sampled_from(_ORDERED if ordered else _PROPERTIES))
    return Publish(label, draw(_places), exchange, key, draw(_counts), mandatory, properties)


_confirm = st.builds(lambda at: Call("confirm.select", at, "Confirm.Select"), _places)

# -- transactions ------------------------------------------------------------------------------------------------------

_select = st.builds(lambda at: Call("tx.select", at, "Tx.Select"), _places)
_commit = st.builds(lambda at: Call("tx.commit", at, "Tx.Commit"), _places)
_roll_back = st.builds(lambda at: Call("tx.rollback", at, "Tx.Rollback"), _places)
_without_select = st.builds(
    lambda at, what: Call(f"tx.{what.lower()} without tx.select", at, f"Tx.{what}"),
    _places,
    st.sampled_from(("Commit", "Rollback")),
)

# -- direct replies ----------------------------------------------------------------------------------------------------

_consume_replies = st.builds(lambda at: replace(CONSUME_REPLIES, at=at), _places)
_wrong_consume = st.builds(
    lambda at, no_ack: Call(
        "consume direct replies again, or with acknowledgement",
        at,
        "Basic.Consume",
        {"queue": NAME, "consumer_tag": "s", "no_ack": no_ack, "exclusive": False},
    ),
    _places,
    _booleans,
)
_request = st.builds(
    lambda at, count: Publish("publish a request", at, "", CONSUMED, count, properties={"reply_to": NAME}),
    _places,
    st.sampled_from((1, 1, 2)),
)
_lonely_request = st.builds(
    lambda at: Publish("publish a request without a consumer", at, "", "q0", properties={"reply_to": NAME}), _places
)
_reply = st.builds(
    lambda at, count, mandatory, properties: Publish(
        "publish a direct reply", at, "", ADDRESS, count, mandatory, properties
    ),
    _places,
    _counts,
    _rarely,
    st.sampled_from(({}, {"correlation_id": "7", "headers": {"h": 1}}, {"headers": {"CC": ["q1"]}})),
)
_look_at_address = st.builds(
    lambda at, passive: Call(
        "declare an address", at, "Queue.Declare", {"queue": ADDRESS, "passive": passive, "arguments": {}}
    ),
    st.sampled_from(PLACES),  # of its own channel it is an error
    _booleans,
)
_cancel_replies = st.builds(
    lambda at: Call("cancel direct replies", at, "Basic.Cancel", {"consumer_tag": "r"}), _places
)


# -- consuming ---------------------------------------------------------------------------------------------------------


@st.composite
def consume(draw: st.DrawFn, rivals: bool = False) -> Call:
    """A consumer; of q0, on whatever channel and with some priority, if it is to have ``rivals``."""
    no_ack = draw(_one_in(8 if rivals else 4))
    exclusive = draw(_one_in(16) if rivals else _rarely)
    arguments: dict[str, Any] = {
        "queue": "q0" if rivals and not draw(_rarely) else draw(_some_queue),
        "consumer_tag": draw(st.sampled_from((*TAGS, "", "", "") if rivals else (*TAGS, *TAGS, ""))),
        "no_ack": no_ack,
        "exclusive": exclusive,
    }
    if draw(_booleans if rivals else _rarely):
        arguments["arguments"] = {"x-priority": draw(st.sampled_from((1, 3) * rivals + (-1, 5, 5, "high")))}
    at = draw(st.sampled_from((PLACES[0], PLACES[2], *PLACES)) if rivals else _places)
    return Call("consume without acknowledgement" if no_ack else "consume", at, "Basic.Consume", arguments)


_cancel = st.builds(
    lambda at, tag: Call("cancel", at, "Basic.Cancel", {"consumer_tag": tag}), _places, st.sampled_from(TAGS)
)
_get = st.builds(
    lambda at, queue, no_ack: Call("get", at, "Basic.Get", {"queue": queue, "no_ack": no_ack}),
    _places,
    st.sampled_from((FILLED, FILLED, FILLED, "q0", "q1", "")),
    _rarely,
)
_qos = st.builds(
    lambda at, count: Call("qos", at, "Basic.Qos", {"prefetch_count": count}), _places, st.sampled_from((1, 1, 2, 3, 0))
)
_global_qos = st.builds(
    lambda at, count: Call("qos of the channel", at, "Basic.Qos", {"prefetch_count": count, "global_": True}),
    _places,
    st.sampled_from((1, 2, 0)),
)
_recover = st.builds(lambda at: Call("recover", at, "Basic.Recover", {"requeue": True}), _places)


@st.composite
def settle(draw: st.DrawFn) -> Settle:
    how = draw(st.sampled_from(("Ack", "Nack", "Reject")))
    multiple = how != "Reject" and draw(_booleans)
    requeue = how != "Ack" and draw(_booleans)
    label = f"{how.lower()}{' multiple' if multiple else ''}{' requeue' if requeue else ''}"
    return Settle(label, draw(_places), how, draw(st.integers(0, 5)), multiple, requeue)


_unknown = st.builds(
    lambda at, how, tag, multiple: SettleUnknown(f"unknown tag ({tag})", at, how, tag, multiple),
    _places,
    st.sampled_from(("Ack", "Nack", "Reject")),
    st.sampled_from(("future", "past", "past", "zero", "huge")),
    _booleans,
)

# -- ends --------------------------------------------------------------------------------------------------------------

_leave = st.builds(
    lambda at, what: Leave(f"close: {what}", at, what),
    _places,
    st.sampled_from(("channel", "channel", "channel", "connection", "connection", "hang up")),
)
_leave_channel = st.builds(lambda at: Leave("close: channel", at, "channel"), _places)
#: Each of these ends the connection. Channel 7 is never opened.
_break = st.builds(
    lambda connection, what: Call("break the connection", Place(connection, what[0]), what[1], what[2]),
    st.integers(0, 1),
    st.sampled_from(
        (
            (7, "Queue.Declare", {"queue": "q0"}),
            (1, "Channel.Open", {}),
            (1, "Basic.Qos", {"prefetch_size": 10}),
            (1, "Basic.Recover", {"requeue": False}),
            (1, "Basic.Consume", {"queue": "q0", "consumer_tag": "c0"}),  # where the tag is in use
            (0, "Queue.Declare", {"queue": "q0"}),
            (0, "Connection.OpenOk", {}),
            (1, "Connection.Open", {"virtual_host": "/"}),
            (1, "Basic.QosOk", {}),
            (1, "Basic.Publish", {"exchange": "", "routing_key": "q0"}),  # and no content
        )
    ),
)

_foreign = st.builds(
    lambda at, name: Call("use a foreign queue", at, name, {"queue": FOREIGN}),
    _places,
    st.sampled_from(("Queue.Declare", "Queue.Purge", "Queue.Delete")),
)

#: By weight, without publishes and consumers.
_KINDS: Final[tuple[tuple[int, st.SearchStrategy[Operation]], ...]] = (
    (150, settle()),
    (40, _get),
    (16, declare_queue()),
    (8, _redeclare),
    (8, _passive),
    (10, declare_exchange()),
    (6, _passive_exchange),
    (10, _binding("bind", "Queue.Bind")),
    (8, _binding("unbind", "Queue.Unbind")),
    (6, _exchange_binding("bind exchange", "Exchange.Bind")),
    (6, _exchange_binding("unbind exchange", "Exchange.Unbind")),
    (14, _foreign),
    (10, _delete_queue),
    (6, _delete_consumed),
    (6, _delete_exchange),
    (8, _purge),
    (8, _confirm),
    (6, _select),
    (20, _commit),
    (8, _roll_back),
    (6, _consume_replies),
    (10, _request),
    (10, _reply),
    (6, _look_at_address),
    (4, _cancel_replies),
    (12, _cancel),
    (12, _qos),
    (6, _global_qos),
    (6, _recover),
    (12, _unknown),
    (18, _leave),
    (8, _break),
)


def _mixed(*kinds: tuple[int, st.SearchStrategy[Operation]]) -> st.SearchStrategy[Operation]:
    """Each of these and of ``_KINDS``, by weight."""
    return st.sampled_from([kind for weight, kind in (*kinds, *_KINDS) for _ in range(weight)]).flatmap(
        lambda kind: kind
    )


#: By what the sequences are about.
OPERATIONS: Final[dict[str, st.SearchStrategy[Operation]]] = {
    "anything": _mixed((110, publish()), (48, consume())),
    "a quorum queue": _mixed((110, publish()), (48, consume())),
    "priorities": _mixed((120, publish(ordered=True)), (30, consume()), (40, _get)),
    "a single active consumer": _mixed(
        (60, publish()), (60, publish(ordered=True)), (70, consume(rivals=True)), (30, _cancel), (16, _leave_channel)
    ),
}


_reserved = st.builds(
    lambda at, queue: Call("declare reserved name", at, "Queue.Declare", {"queue": queue}),
    _places,
    st.sampled_from(("amq.mine", "amq.gen-1")),
)
_unknown_type = st.builds(
    lambda at: Call(
        "declare unknown exchange type", at, "Exchange.Declare", {"exchange": "x2", "exchange_type": "no-such-type"}
    ),
    _places,
)
_refused = st.builds(
    lambda at, key, properties: Publish("publish what is refused", at, "", key, properties=properties),
    _places,
    _some_queue,
    st.sampled_from(_WRONG_PROPERTIES),
)
_missing_exchange = st.builds(
    lambda at, key: Publish("publish to a missing exchange", at, "missing", key), _places, _some_queue
)
_wrong_queue = st.builds(
    lambda at, arguments: Call("declare wrong queue", at, "Queue.Declare", {"queue": "q3", "arguments": arguments}),
    _places,
    st.sampled_from(_WRONG_ARGUMENTS),
)
_server_named = st.builds(
    lambda at, exclusive: Call(
        "declare server-named queue", at, "Queue.Declare", {"queue": "", "exclusive": exclusive, "arguments": {}}
    ),
    _places,
    _booleans,
)
_exclusive = st.builds(
    lambda at, queue: Call("declare exclusive queue", at, "Queue.Declare", {"queue": queue, "exclusive": True}),
    _places,
    st.sampled_from(("q0", "q3", "q3", "q3")),
)
#: What would be drawn too seldom by weight, or ends what was going on. Each is drawn as often as any other.
_RARE: Final[tuple[st.SearchStrategy[Operation], ...]] = (
    *(_break,) * 4,
    *(_leave,) * 3,
    *(_unknown,) * 3,
    _foreign,
    _foreign,
    _reserved,
    _unknown_type,
    _refused,
    _refused,
    _missing_exchange,
    _wrong_queue,
    _server_named,
    _exclusive,
    _redeclare,
    _passive,
    _passive_exchange,
    _delete_exchange,
    _delete_queue,
    _delete_consumed,
    _delete_consumed,
    _exchange_binding("unbind exchange", "Exchange.Unbind"),
    _binding("unbind", "Queue.Unbind"),
    _global_qos,
    _recover,
    _cancel,
    _without_select,
    _select,
    _wrong_consume,
    _lonely_request,
    _lonely_request,
    _cancel_replies,
)
_rare: Final[st.SearchStrategy[Operation]] = st.sampled_from(_RARE).flatmap(lambda kind: kind)


@st.composite
def _first_queue(draw: st.DrawFn, about: str) -> Call:
    """A declaration of q0."""
    forced: dict[str, Any] = {}
    if about == "a single active consumer":
        forced["single_active_consumer"] = True
    elif about == "priorities":
        forced["max_priority"] = draw(st.sampled_from((5, 5, 10, 1, 0)))
    elsewise = {"a quorum queue": st.just(True), "priorities": _one_in(4), "a single active consumer": _booleans}
    if draw(elsewise.get(about, st.just(False))):
        forced.pop("max_priority", None)
        return draw(declare_quorum_queue(QUEUES[0], **forced))
    return draw(declare_queue(QUEUES[0], **forced))


@st.composite
def transactions(draw: st.DrawFn) -> list[Operation]:
    """One that publishes and settles something, on a channel that is seldom used otherwise."""
    at = draw(st.sampled_from(PLACES[1:]))

    def there(kind: st.SearchStrategy[Operation]) -> Operation:
        return replace(draw(kind), at=at)

    found: list[Operation] = [there(_select)]
    for _ in range(2):
        found += [there(publish())] * draw(_booleans)
        get = Call("get", at, "Basic.Get", {"queue": FILLED, "no_ack": False})
        found += [get, there(settle())] if draw(_booleans) else [there(publish())]
    return [*found, there(_roll_back if draw(_one_in(3)) else _commit)]


@st.composite
def direct_replies(draw: st.DrawFn) -> list[Operation]:
    """Replies to one channel, and what is done towards the first of them (see ``ADDRESS``)."""
    at = draw(st.sampled_from(PLACES))
    found: list[Operation] = [replace(draw(_reply), at=at) for _ in range(3)]
    more: st.SearchStrategy[Operation] = st.one_of(_reply, _reply, _look_at_address, _request)
    found += draw(st.lists(more, min_size=2, max_size=3))
    return [*found, draw(st.one_of(_cancel_replies, _leave, _reply)), draw(_reply)]


@st.composite
def sequences(draw: st.DrawFn, about: str = "anything") -> list[Operation]:
    """Operations that declare and publish something, then 12 to 29 random ones.

    If it is not about a kind of queue, there is a transaction or are direct replies among them.

    Args:
        about: a key of OPERATIONS. It says what q0 is, and what is done with it.
    """
    operations = OPERATIONS[about]
    first: list[Operation] = [draw(_first_queue(about)), *(draw(declare_queue(name)) for name in QUEUES[1:3])]
    mode = draw(st.sampled_from(("", "Confirm", "Tx", "Confirm", "", "Confirm")))
    if mode:
        first.append(Call(f"{mode.lower()}.select", PLACES[0], f"{mode}.Select"))
    first += [draw(declare_exchange("x0")), draw(declare_exchange("x1"))]
    for queue in draw(st.lists(st.sampled_from(QUEUES[:3]), max_size=3, unique=True)):
        key = draw(st.sampled_from(PATTERNS))
        values = {"queue": queue, "exchange": "x0", "routing_key": key, "arguments": draw(_match)}
        first.append(Call("bind", PLACES[0], "Queue.Bind", values))
    if draw(_booleans):
        first.append(Call("qos", PLACES[0], "Basic.Qos", {"prefetch_count": draw(st.integers(1, 3))}))
    if draw(_booleans):
        values = {"queue": draw(st.sampled_from(QUEUES[:3])), "consumer_tag": "c0", "no_ack": draw(_rarely)}
        first.append(Call("consume", PLACES[0], "Basic.Consume", values))
    if about == "a single active consumer":
        first += [draw(consume(rivals=True)) for _ in range(2)]
    if about == "priorities":
        some = st.sampled_from(_ORDERED)
        first += [Publish("publish", PLACES[0], "", QUEUES[0], 1, False, draw(some)) for _ in range(6)]
    first.append(Publish("publish", PLACES[0], "", draw(st.sampled_from(QUEUES[:3])), draw(_counts) + 1))
    if about in ("anything", "a quorum queue"):
        first += draw(st.lists(operations, min_size=5, max_size=10))
        first += draw(st.one_of(transactions(), direct_replies()))
        more = st.lists(operations, min_size=1, max_size=4)
    else:
        first += draw(st.lists(operations, min_size=6, max_size=14))
        more = st.lists(operations, min_size=2, max_size=5)
    for _ in range(2):
        first += [draw(_rare), *draw(more)]
    return first
