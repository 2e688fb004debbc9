"""Arguments of queues and consumers: which are valid, whether a redeclaration has the same ones; and policies.

The rules are those of RabbitMQ (documentation: "Queues", "Policies", "TTL", "Queue Length Limit", "Quorum
Queues"). An argument that has an effect in RabbitMQ and is not modelled is refused with 540, never ignored. Names that
RabbitMQ does not know are accepted, as RabbitMQ does.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from eda_core.errors import LocalError
from eda_core.testing.broker.message import (
    MAX_EXPIRY_MS,
    NOT_IMPLEMENTED,
    PRECONDITION_FAILED,
    Refusal,
    amqp_type,
    same_value,
    text_of,
)
from eda_core.testing.broker.versions import Version

CLASSIC: Final = "classic"
QUORUM: Final = "quorum"
STREAM: Final = "stream"
DROP_HEAD: Final = "drop-head"
REJECT_PUBLISH: Final = "reject-publish"
REJECT_PUBLISH_DLX: Final = "reject-publish-dlx"

_OVERFLOWS: Final = (DROP_HEAD, REJECT_PUBLISH, REJECT_PUBLISH_DLX)
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
_ALL_KNOWN: Final = frozenset(
    (*_KNOWN[CLASSIC], *_KNOWN[QUORUM], "x-max-age", "x-stream-max-segment-size-bytes", "x-initial-cluster-size")
)
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


Check = Callable[[Any, Arguments], str | None]


def _integer(value: Any, _arguments: Arguments) -> str | None:
    return None if _is_int(value) else f'"expected integer, got {amqp_type(value)}"'


def _not_negative(value: Any, arguments: Arguments) -> str | None:
    return _integer(value, arguments) or (f"{{value_negative,{value}}}" if value < 0 else None)


def _positive(value: Any, arguments: Arguments) -> str | None:
    return _integer(value, arguments) or (f"{{value_zero,{value}}}" if value == 0 else _not_negative(value, arguments))


def _ttl(value: Any, arguments: Arguments) -> str | None:
    too_large = _is_int(value) and value > MAX_EXPIRY_MS
    return f"{{value_too_large,{value}}}" if too_large else _not_negative(value, arguments)


def _expires(value: Any, arguments: Arguments) -> str | None:
    return "{value_zero,0}" if _is_int(value) and value == 0 else _ttl(value, arguments)


def _max_priority(value: Any, arguments: Arguments) -> str | None:
    too_large = _is_int(value) and value > 255
    return f"{{max_value_exceeded,{value}}}" if too_large else _not_negative(value, arguments)


def _text(value: Any, _arguments: Arguments) -> str | None:
    return None if isinstance(value, str | bytes) else f"{{unacceptable_type,{amqp_type(value)}}}"


def _dead_letter_key(value: Any, arguments: Arguments) -> str | None:
    if problem := _text(value, arguments):
        return problem
    return None if "x-dead-letter-exchange" in arguments else "routing_key_but_no_dlx_defined"


def _truth(value: Any, _arguments: Arguments) -> str | None:
    return None if isinstance(value, bool) else f"{{unacceptable_type,{amqp_type(value)}}}"


def _one_of(*allowed: str, problem: str) -> Check:
    def check(value: Any, arguments: Arguments) -> str | None:
        wrong_type = _text(value, arguments)
        return wrong_type or (None if value in allowed else problem.format(value))

    return check


def _version(value: Any, arguments: Arguments) -> str | None:
    return _not_negative(value, arguments) or (None if value in (1, 2) else f"\"unsupported queue version '{value}'\"")


_QUEUE_TYPE: Final = _one_of(CLASSIC, QUORUM, STREAM, problem="\"unsupported queue type '{}'\"")
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
    ("x-queue-mode", _one_of("default", "lazy", problem="\"unsupported queue mode '{}'\"")),
    ("x-queue-version", _version),
    ("x-single-active-consumer", _truth),
    ("x-quorum-initial-group-size", _positive),
    (
        "x-queue-leader-locator",
        _one_of("client-local", "balanced", "random", "least-leaders", problem="invalid_queue_locator_arg"),
    ),
)


def _demand(key: str, problem: str | None, resource: str) -> None:
    if problem:
        raise Refusal(PRECONDITION_FAILED, f"invalid arg '{key}' for {resource}: {problem}")


def check_queue_arguments(resource: str, arguments: Arguments) -> str:
    """Check the arguments of a new queue. The checks of other properties come after this one.

    Args:
        resource: how RabbitMQ words the queue.

    Returns:
        The type of the queue, "classic" or "quorum".

    Raises:
        Refusal: 406, RabbitMQ refuses them; 540, they are not modelled.
    """
    exchange = arguments.get("x-dead-letter-exchange", "")
    if not isinstance(exchange, str | bytes):
        problem = f"invalid type '{amqp_type(exchange)}' for arg 'x-dead-letter-exchange' in {resource}"
        raise Refusal(PRECONDITION_FAILED, problem)
    if "x-queue-type" in arguments:
        _demand("x-queue-type", _QUEUE_TYPE(arguments["x-queue-type"], arguments), resource)
    kind: str = arguments.get("x-queue-type", CLASSIC)
    if kind == STREAM:
        raise Refusal(NOT_IMPLEMENTED, f"x-queue-type=stream of {resource} is not modelled")
    known = _KNOWN[kind]
    for key, check in _CHECKS:
        if key in known and key in arguments:
            _demand(key, check(arguments[key], arguments), resource)
    for key in arguments:
        if key in _ALL_KNOWN and key not in known:
            raise Refusal(PRECONDITION_FAILED, f"invalid arg '{key}' for {resource} of queue type {_TYPE_NAMES[kind]}")
    return kind


def refuse_unmodelled(resource: str, kind: str, arguments: Arguments) -> None:
    """Check that the model has all arguments.

    Raises:
        Refusal: 540. RabbitMQ supports one that the model does not.
    """
    unsupported = [key for key in ("x-max-priority",) if key in arguments]
    if arguments.get("x-single-active-consumer"):
        unsupported.append("x-single-active-consumer")
    if arguments.get("x-dead-letter-strategy") == "at-least-once":
        unsupported.append("x-dead-letter-strategy=at-least-once")
    limit = arguments.get("x-delivery-limit")
    if kind == QUORUM and limit is not None and not (_is_int(limit) and limit >= 0):
        unsupported.append(f"x-delivery-limit={limit!r}")  # RabbitMQ does not check it, and fails later
    if unsupported:
        raise Refusal(NOT_IMPLEMENTED, f"{', '.join(unsupported)} of {resource} is not modelled")


def check_consumer_arguments(resource: str, kind: str, arguments: Arguments) -> int:
    """Check the arguments of ``Basic.Consume``.

    Returns:
        The priority of the consumer.

    Raises:
        Refusal: 406, RabbitMQ refuses them; 540, they are not modelled.
    """
    checks: dict[str, Check] = {"x-priority": _integer}
    if kind == CLASSIC:
        checks["x-cancel-on-ha-failover"] = _truth
    for key, check in checks.items():
        if key in arguments:
            _demand(key, check(arguments[key], arguments), resource)
    for key in arguments:
        if key == "x-stream-offset" or (key == "x-cancel-on-ha-failover" and kind == QUORUM):
            raise Refusal(PRECONDITION_FAILED, f"invalid arg '{key}' for {resource} of queue type {_TYPE_NAMES[kind]}")
    if "x-credit" in arguments:
        raise Refusal(NOT_IMPLEMENTED, f"x-credit of a consumer of {resource} is not modelled")
    return int(arguments.get("x-priority", 0))


def demand_same(resource: str, key: str, current: object, received: object) -> None:
    """Check that a redeclaration has the same value.

    Raises:
        Refusal: 406. It has not.
    """
    if not same_value(current, received):
        explanation = (
            f"inequivalent arg '{key}' for {resource}: received {_value(received)} but current is {_value(current)}"
        )
        raise Refusal(PRECONDITION_FAILED, explanation)


def demand_same_arguments(resource: str, keys: Iterable[str], current: Arguments, received: Arguments) -> None:
    """Check that a redeclaration has the same arguments.

    Args:
        keys: the arguments that have to be the same.

    Raises:
        Refusal: 406. One differs.
    """
    for key in keys:
        one, other = current.get(key), received.get(key)
        if one is not None and other is not None:
            demand_same(resource, key, one, other)
        elif one is not other and not (key == "x-queue-type" and CLASSIC in (one, other)):
            was, now = _typed(one), _typed(other)
            raise Refusal(
                PRECONDITION_FAILED, f"inequivalent arg '{key}' for {resource}: received {now} but current is {was}"
            )


def queue_argument_keys(kind: str) -> tuple[str, ...]:
    """The arguments that have to be the same in a redeclaration of a queue of this type."""
    return _KNOWN[kind]


def _value(value: object) -> str:
    return f"'{str(value).lower() if isinstance(value, bool) else value}'"


def _typed(value: object) -> str:
    return "none" if value is None else f"the value {_value(value)} of type '{amqp_type(value)}'"
