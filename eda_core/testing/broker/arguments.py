"""Arguments of queues and consumers: which are valid, whether a redeclaration has the same ones; and policies.

The rules are those of RabbitMQ (documentation: "Queues", "Policies", "TTL", "Queue Length Limit", "Quorum
Queues"). An argument that has an effect in RabbitMQ and is not modelled is refused with 540, never ignored. Names that
RabbitMQ does not know are accepted, as RabbitMQ does.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from eda_core.errors import LocalError
from eda_core.testing.broker.message import (
    INTERNAL_ERROR,
    MAX_EXPIRY_MS,
    NOT_IMPLEMENTED,
    PRECONDITION_FAILED,
    Refusal,
)
from eda_core.testing.broker.texts import quoted, string
from eda_core.testing.broker.texts import value as value_text
from eda_core.testing.broker.values import amqp_type, same_value, text_of
from eda_core.testing.broker.versions import Version

CLASSIC: Final = "classic"
QUORUM: Final = "quorum"
STREAM: Final = "stream"
DROP_HEAD: Final = "drop-head"
REJECT_PUBLISH: Final = "reject-publish"
REJECT_PUBLISH_DLX: Final = "reject-publish-dlx"

_OVERFLOWS: Final = (DROP_HEAD, REJECT_PUBLISH, REJECT_PUBLISH_DLX)
#: The highest ``x-max-priority``.
HIGHEST_PRIORITY: Final = 255
#: In the order in which RabbitMQ compares them. It reports the first difference.
_KNOWN: Final = {
    CLASSIC: (
        "x-expires",
        "x-message-ttl",
        "x-dead-letter-exchange",
        "x-dead-letter-routing-key",
        "x-max-length",
        "x-max-length-bytes",
        "x-max-priority",
        "x-overflow",
        "x-queue-mode",
        "x-queue-version",
        "x-single-active-consumer",
        "x-queue-type",
        "x-queue-master-locator",
    ),
    QUORUM: (
        "x-dead-letter-exchange",
        "x-dead-letter-routing-key",
        "x-dead-letter-strategy",
        "x-expires",
        "x-max-length",
        "x-max-length-bytes",
        "x-max-in-memory-length",
        "x-max-in-memory-bytes",
        "x-overflow",
        "x-single-active-consumer",
        "x-queue-type",
        "x-quorum-initial-group-size",
        "x-delivery-limit",
        "x-message-ttl",
        "x-queue-leader-locator",
    ),
}
#: Those that only newer releases know (``Version.newer_arguments``).
_NEWER: Final = {
    CLASSIC: ("x-queue-leader-locator",),
    QUORUM: (
        "x-consumer-disconnected-timeout",
        "x-consumer-timeout",
        "x-delayed-retry-type",
        "x-delayed-retry-min",
        "x-delayed-retry-max",
    ),
}
_OF_STREAMS: Final = ("x-max-age", "x-stream-max-segment-size-bytes", "x-initial-cluster-size")
_NEWER_OF_STREAMS: Final = ("x-stream-filter-size-bytes",)
_ALL_KNOWN: Final = frozenset((*_KNOWN[CLASSIC], *_KNOWN[QUORUM], *_OF_STREAMS))
_ALL_NEWER: Final = _ALL_KNOWN.union(*_NEWER.values(), _NEWER_OF_STREAMS)
_TYPE_NAMES: Final = {CLASSIC: "rabbit_classic_queue", QUORUM: "rabbit_quorum_queue"}
#: A policy with one of these keys does not apply to a queue of the type.
_NOT_APPLICABLE: Final = {
    CLASSIC: frozenset({"delivery-limit", "dead-letter-strategy"}),
    QUORUM: frozenset({"queue-mode"}),
}
_POLICY_KEYS: Final = frozenset(
    {
        "dead-letter-exchange",
        "dead-letter-routing-key",
        "message-ttl",
        "max-length",
        "max-length-bytes",
        "overflow",
        "expires",
        "delivery-limit",
        "queue-mode",
    }
)
_TEXT_KEYS: Final = frozenset({"dead-letter-exchange", "dead-letter-routing-key", "overflow", "queue-mode"})

Arguments = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Policy:
    """One policy, as ``rabbitmqctl set_policy NAME PATTERN DEFINITION --apply-to queues --priority N`` sets it.

    Attributes:
        name: of the policy.
        pattern: a regular expression. The policy applies to queues with a name in which it is found.
        definition: the keys dead-letter-exchange, dead-letter-routing-key, overflow and queue-mode (texts), message-ttl
            and expires (milliseconds), max-length (messages), max-length-bytes (bytes) and delivery-limit (returns).
        priority: of the policies whose patterns fit a queue only the one with the highest priority applies.

    Raises:
        LocalError: the pattern is not a regular expression, or the definition has a key or a value that is not
            modelled.
    """

    name: str
    pattern: str
    definition: Mapping[str, Any] = field(hash=False)
    priority: int = 0

    def __post_init__(self) -> None:
        try:
            re.compile(self.pattern)
        except re.error as error:
            raise LocalError(f"policy {self.name!r}: pattern {self.pattern!r}: {error}") from None
        for key, value in self.definition.items():
            if key not in _POLICY_KEYS:
                raise LocalError(f"policy {self.name!r}: {key!r} is not modelled", hint=f"use {sorted(_POLICY_KEYS)}")
            valid = isinstance(value, str) if key in _TEXT_KEYS else _is_int(value) and value >= 0
            if not valid or (key == "overflow" and value not in _OVERFLOWS):
                raise LocalError(f"policy {self.name!r}: {key} cannot be {value!r}")

    def applies(self, queue: str, kind: str) -> bool:
        """Whether the policy fits a queue with this name and type."""
        return re.search(self.pattern, queue) is not None and not _NOT_APPLICABLE[kind] & self.definition.keys()


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of one queue, by its arguments and its policy. Times are in milliseconds."""

    expires: int | None = None
    message_ttl: int | None = None
    max_length: int | None = None
    max_length_bytes: int | None = None
    overflow: str = DROP_HEAD
    dead_letter_exchange: str | None = None
    dead_letter_routing_key: str | None = None
    delivery_limit: int | None = None


def effective_limits(
    queue: str, kind: str, arguments: Arguments, policies: Iterable[Policy], version: Version
) -> Limits:
    """The limits of a queue. Of two numbers the smaller one counts, of two other values that of the argument."""
    chosen: Policy | None = None
    for policy in policies:
        if policy.applies(queue, kind) and (chosen is None or policy.priority > chosen.priority):
            chosen = policy
    definition: Mapping[str, Any] = chosen.definition if chosen else {}

    def text(key: str) -> Any:
        value = arguments.get(f"x-{key}", definition.get(key))
        return text_of(value) if isinstance(value, bytes) else value

    def smaller(key: str, default: int | None = None) -> int | None:
        found = [value for value in (arguments.get(f"x-{key}"), definition.get(key)) if value is not None]
        return min(found, default=default)

    overflow = text("overflow") or DROP_HEAD
    expires = smaller("expires")
    if kind == QUORUM:  # the policy has precedence there, unlike in classic queues
        overflow = definition.get("overflow", overflow)
        overflow = DROP_HEAD if overflow == REJECT_PUBLISH_DLX else overflow
        expires = definition.get("expires", expires)
    return Limits(
        expires=expires,
        message_ttl=smaller("message-ttl"),
        max_length=smaller("max-length"),
        max_length_bytes=smaller("max-length-bytes"),
        overflow=overflow,
        dead_letter_exchange=text("dead-letter-exchange"),
        dead_letter_routing_key=text("dead-letter-routing-key"),
        delivery_limit=smaller("delivery-limit", version.delivery_limit) if kind == QUORUM else None,
    )


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


class _Given(NamedTuple):
    """What an argument is checked with."""

    arguments: Arguments
    version: Version


Check = Callable[[Any, _Given], str | None]


def _integer(value: Any, _given: _Given) -> str | None:
    return None if _is_int(value) else f'"expected integer, got {amqp_type(value)}"'


def _not_negative(value: Any, given: _Given) -> str | None:
    return _integer(value, given) or (f"{{value_negative,{value}}}" if value < 0 else None)


def _positive(value: Any, given: _Given) -> str | None:
    return _integer(value, given) or (f"{{value_zero,{value}}}" if value == 0 else _not_negative(value, given))


def _ttl(value: Any, given: _Given) -> str | None:
    too_large = _is_int(value) and value > MAX_EXPIRY_MS
    return f"{{value_too_large,{value}}}" if too_large else _not_negative(value, given)


def _expires(value: Any, given: _Given) -> str | None:
    return "{value_zero,0}" if _is_int(value) and value == 0 else _ttl(value, given)


def _max_priority(value: Any, given: _Given) -> str | None:
    too_large = _is_int(value) and value > HIGHEST_PRIORITY
    return f"{{max_value_exceeded,{value}}}" if too_large else _not_negative(value, given)


def _text(value: Any, _given: _Given) -> str | None:
    return None if isinstance(value, str | bytes) else f"{{unacceptable_type,{amqp_type(value)}}}"


def _dead_letter_key(value: Any, given: _Given) -> str | None:
    if problem := _text(value, given):
        return problem
    return None if "x-dead-letter-exchange" in given.arguments else "routing_key_but_no_dlx_defined"


def _truth(value: Any, _given: _Given) -> str | None:
    return None if isinstance(value, bool) else f"{{unacceptable_type,{amqp_type(value)}}}"


def _one_of(*allowed: str, problem: str) -> Check:
    def check(value: Any, given: _Given) -> str | None:
        return _text(value, given) or (None if value in allowed else problem)

    return check


def _unsupported(what: str, value: Any, given: _Given) -> str:
    return string(f"unsupported queue {what} '{quoted(value)}'", given.version)


def _mode(value: Any, given: _Given) -> str | None:
    if given.version.ignores_queue_mode:
        return None
    wrong_type = _text(value, given)
    return wrong_type or (None if value in _MODES else _unsupported("mode", value, given))


def _type(value: Any, given: _Given) -> str | None:
    return _text(value, given) or (None if value in _QUEUE_TYPES else _unsupported("type", value, given))


def _version(value: Any, given: _Given) -> str | None:
    if problem := _not_negative(value, given):
        return problem
    return None if given.version.oldest_queue_version <= value <= 2 else _unsupported("version", str(value), given)


def _locator(value: Any, given: _Given) -> str | None:
    known = (*_LOCATORS, "min-masters") if given.version.newer_arguments else _LOCATORS
    return _text(value, given) or (None if value in known else "invalid_queue_locator_arg")


_MODES: Final = ("default", "lazy")
_QUEUE_TYPES: Final = (CLASSIC, QUORUM, STREAM)
_LOCATORS: Final = ("client-local", "balanced", "random", "least-leaders")
_MASTER_LOCATORS: Final = ("client-local", "random", "min-masters")
#: A type of a queue that is like none, if the release says so (``Version.states_queue_type``).
_NO_TYPES: Final = ("", "undefined")
#: In the order in which RabbitMQ checks them. It reports the first wrong one.
_CHECKS: Final[tuple[tuple[str, Check], ...]] = (
    ("x-expires", _expires),
    ("x-message-ttl", _ttl),
    ("x-dead-letter-exchange", _text),
    ("x-dead-letter-routing-key", _dead_letter_key),
    ("x-dead-letter-strategy", _one_of("at-most-once", "at-least-once", problem="invalid_dlx_strategy")),
    ("x-max-length", _not_negative),
    ("x-max-length-bytes", _not_negative),
    ("x-max-in-memory-length", _not_negative),
    ("x-max-in-memory-bytes", _not_negative),
    ("x-max-priority", _max_priority),
    ("x-overflow", _one_of(*_OVERFLOWS, problem="invalid_overflow")),
    ("x-queue-mode", _mode),
    ("x-queue-version", _version),
    ("x-single-active-consumer", _truth),
    ("x-consumer-timeout", _not_negative),
    ("x-consumer-disconnected-timeout", _not_negative),
    ("x-quorum-initial-group-size", _positive),
    ("x-queue-leader-locator", _locator),
)


def _demand(key: str, problem: str | None, resource: str) -> None:
    if problem:
        raise Refusal(PRECONDITION_FAILED, f"invalid arg '{key}' for {resource}: {problem}")


def _demand_known(resource: str, kind: str, arguments: Arguments, unknown: Iterable[str]) -> None:
    for key in arguments:
        if key in unknown:
            raise Refusal(PRECONDITION_FAILED, f"invalid arg '{key}' for {resource} of queue type {_TYPE_NAMES[kind]}")


def check_queue_arguments(resource: str, arguments: Arguments, version: Version) -> str:
    """Check the arguments of a new queue. The checks of other properties come after this one.

    Args:
        resource: how RabbitMQ words the queue.

    Returns:
        The type of the queue, "classic" or "quorum".

    Raises:
        Refusal: 406, RabbitMQ refuses them; 540, they are not modelled.
    """
    given = _Given(arguments, version)
    exchange = arguments.get("x-dead-letter-exchange", "")
    if not isinstance(exchange, str | bytes):
        problem = f"invalid type '{amqp_type(exchange)}' for arg 'x-dead-letter-exchange' in {resource}"
        raise Refusal(PRECONDITION_FAILED, problem)
    kind = _kind(arguments, version)
    _demand("x-queue-type", _type(kind, given), resource)
    if kind == STREAM:
        raise Refusal(NOT_IMPLEMENTED, f"x-queue-type=stream of {resource} is not modelled")
    known = queue_argument_keys(kind, version)
    for key, check in _CHECKS:
        if key in known and key in arguments:
            _demand(key, check(arguments[key], given), resource)
    every = _ALL_NEWER if version.newer_arguments else _ALL_KNOWN
    _demand_known(resource, kind, arguments, every.difference(known))
    return str(kind)


def _kind(arguments: Arguments, version: Version) -> Any:
    """The type that a declaration asks for."""
    kind = arguments.get("x-queue-type", CLASSIC)
    return CLASSIC if version.states_queue_type and kind in _NO_TYPES else kind


def check_master_locator(arguments: Arguments, version: Version) -> None:
    """Check ``x-queue-master-locator``. RabbitMQ does it last, when it makes the queue.

    Raises:
        Refusal: 541.
    """
    locator = arguments.get("x-queue-master-locator", _MASTER_LOCATORS[0])
    if version.refuses_master_locator and "x-queue-master-locator" in arguments:
        raise Refusal(INTERNAL_ERROR, _NO_MASTER_LOCATOR)
    if locator not in _MASTER_LOCATORS:
        raise Refusal(INTERNAL_ERROR, "")


#: The text of RabbitMQ, as long as it fits into an error.
_NO_MASTER_LOCATOR: Final = (
    "Feature `queue_master_locator` is deprecated.\nBy default, this feature is not permitted anymore.\nThe feature "
    "will be removed from a future major RabbitMQ version, regardless of the configuration; actual version to be "
    "determined.\nTo continue"
)


def refuse_unmodelled(resource: str, kind: str, arguments: Arguments, version: Version) -> None:
    """Check that the model has all arguments.

    Raises:
        Refusal: 540. RabbitMQ supports one that the model does not.
    """
    unsupported: list[str] = []
    if arguments.get("x-dead-letter-strategy") == "at-least-once":
        unsupported.append("x-dead-letter-strategy=at-least-once")
    if kind == QUORUM:
        limit = arguments.get("x-delivery-limit")
        if limit is not None and not (_is_int(limit) and limit >= 0):
            unsupported.append(f"x-delivery-limit={limit!r}")  # RabbitMQ does not check it, and fails later
        if version.newer_arguments:
            unsupported += [key for key in _WITH_TIMERS if key in arguments]
    if unsupported:
        raise Refusal(NOT_IMPLEMENTED, f"{', '.join(unsupported)} of {resource} is not modelled")


#: Arguments of quorum queues that return messages, or keep them, for a time.
_WITH_TIMERS: Final = ("x-consumer-timeout", "x-delayed-retry-type", "x-delayed-retry-min", "x-delayed-retry-max")
_CONSUMER_OF_STREAMS: Final = ("x-stream-offset",)
_NEWER_CONSUMER_OF_STREAMS: Final = ("x-stream-offset", "x-stream-filter", "x-stream-match-unfiltered")


def check_consumer_arguments(resource: str, kind: str, arguments: Arguments, version: Version) -> int:
    """Check the arguments of ``Basic.Consume``.

    Returns:
        The priority of the consumer.

    Raises:
        Refusal: 406, RabbitMQ refuses them; 540, they are not modelled.
    """
    checks: dict[str, Check] = {"x-priority": _integer}
    unknown: tuple[str, ...]
    if version.newer_arguments:
        unmodelled, unknown = "x-consumer-timeout", _NEWER_CONSUMER_OF_STREAMS
        if kind == QUORUM:
            checks[unmodelled] = _not_negative
        else:
            unknown += (unmodelled,)
    else:
        unmodelled, unknown = "x-credit", _CONSUMER_OF_STREAMS
        if kind == CLASSIC:
            checks["x-cancel-on-ha-failover"] = _truth
        else:
            unknown += ("x-cancel-on-ha-failover",)
    given = _Given(arguments, version)
    for key, check in checks.items():
        if key in arguments:
            _demand(key, check(arguments[key], given), resource)
    _demand_known(resource, kind, arguments, unknown)
    if unmodelled in arguments:
        raise Refusal(NOT_IMPLEMENTED, f"{unmodelled} of a consumer of {resource} is not modelled")
    return int(arguments.get("x-priority", 0))


def demand_same(resource: str, key: str, current: object, received: object, version: Version) -> None:
    """Check that a redeclaration has the same value.

    Raises:
        Refusal: 406. It has not.
    """
    if not same_value(current, received):
        raise _inequivalent(resource, key, value_text(received, version), value_text(current, version))


def _inequivalent(resource: str, key: str, received: str, current: str) -> Refusal:
    explanation = f"inequivalent arg '{key}' for {resource}: received {received} but current is {current}"
    return Refusal(PRECONDITION_FAILED, explanation)


def demand_same_arguments(
    resource: str, keys: Iterable[str], current: Arguments, received: Arguments, version: Version
) -> None:
    """Check that a redeclaration has the same arguments.

    Args:
        keys: the arguments that have to be the same.

    Raises:
        Refusal: 406. One differs.
    """
    for key in keys:
        if key in current and key in received:
            demand_same(resource, key, current[key], received[key], version)
        elif (key in current or key in received) and not (
            key == "x-queue-type" and CLASSIC in (current.get(key), received.get(key))
        ):
            raise _inequivalent(resource, key, _typed(key, received, version), _typed(key, current, version))


def demand_same_queue(resource: str, kind: str, current: Arguments, received: Arguments, version: Version) -> None:
    """Check that a redeclaration of a queue has the same arguments.

    Raises:
        Refusal: 406. One differs.
    """
    if version.states_queue_type:
        current, received = ({"x-queue-type": CLASSIC, **arguments} for arguments in (current, received))
    demand_same_arguments(resource, queue_argument_keys(kind, version), current, received, version)


def queue_argument_keys(kind: str, version: Version) -> tuple[str, ...]:
    """The arguments that have to be the same in a redeclaration of a queue of this type."""
    return (*_KNOWN[kind], *_NEWER[kind]) if version.newer_arguments else _KNOWN[kind]


def _typed(key: str, arguments: Arguments, version: Version) -> str:
    if key not in arguments:
        return "none"
    value = arguments[key]
    shown = "'undefined'" if value is None else value_text(value, version)
    return f"the value {shown} of type '{amqp_type(value)}'"
