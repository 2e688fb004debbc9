"""Arguments of queues and consumers: their validation, their equivalence on redeclaration, and policies.

The rules are those of RabbitMQ 3.10 (documentation: "Queues", "Policies", "TTL", "Queue Length Limit", "Quorum
Queues"). What would change behaviour here and is not modelled is refused with 540, never ignored; names RabbitMQ does
not know are accepted, as it accepts them.
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
)

CLASSIC: Final = "classic"
QUORUM: Final = "quorum"
STREAM: Final = "stream"
DROP_HEAD: Final = "drop-head"
REJECT_PUBLISH: Final = "reject-publish"
REJECT_PUBLISH_DLX: Final = "reject-publish-dlx"

_OVERFLOWS: Final = (DROP_HEAD, REJECT_PUBLISH, REJECT_PUBLISH_DLX)
#: In the order in which RabbitMQ compares them: the first difference is reported.
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
#: Policies that hold one of these do not apply to queues of the type at all.
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
        pattern: a regular expression, searched in the name of the queue.
        definition: keys dead-letter-exchange, dead-letter-routing-key, overflow (text); message-ttl, expires
            (milliseconds); max-length (messages), max-length-bytes (bytes), delivery-limit (integers).
        priority: of the policies that match a queue only the one with the highest applies.

    Raises:
        LocalError: the pattern is no regular expression, or the definition has a key or a value that is not modelled.
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
        return re.search(self.pattern, queue) is not None and not _NOT_APPLICABLE[kind] & self.definition.keys()


@dataclass(frozen=True, slots=True)
class Limits:
    """What arguments and policy together mean for one queue. Times in milliseconds."""

    expires: int | None = None
    message_ttl: int | None = None
    max_length: int | None = None
    max_length_bytes: int | None = None
    overflow: str = DROP_HEAD
    dead_letter_exchange: str | None = None
    dead_letter_routing_key: str | None = None
    delivery_limit: int | None = None


def effective_limits(queue: str, kind: str, arguments: Arguments, policies: Iterable[Policy]) -> Limits:
    """Arguments and the one policy that applies: numbers by the smaller, the rest by the argument."""
    chosen: Policy | None = None
    for policy in policies:
        if policy.applies(queue, kind) and (chosen is None or policy.priority > chosen.priority):
            chosen = policy
    definition: Mapping[str, Any] = chosen.definition if chosen else {}

    def text(key: str) -> Any:
        return arguments.get(f"x-{key}", definition.get(key))

    def smaller(key: str) -> int | None:
        found = [value for value in (arguments.get(f"x-{key}"), definition.get(key)) if value is not None]
        return min(found, default=None)

    overflow = text("overflow") or DROP_HEAD
    expires = smaller("expires")
    if kind == QUORUM:  # where, unlike in classic queues, the policy has precedence
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
        delivery_limit=smaller("delivery-limit") if kind == QUORUM else None,
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
#: In the order in which RabbitMQ looks at them: the first wrong one is reported.
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
    """Validate the arguments of a new queue; return its type, ``classic`` or ``quorum``.

    ``resource`` is how RabbitMQ words the queue. The checks on the other properties of quorum queues come after these.

    Raises:
        Refusal: 406 for what RabbitMQ refuses, 540 for what is not modelled.
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
    """Raises Refusal 540 for arguments RabbitMQ supports and the model does not."""
    unsupported = [key for key in ("x-max-priority",) if key in arguments]
    if arguments.get("x-single-active-consumer"):
        unsupported.append("x-single-active-consumer")
    if arguments.get("x-dead-letter-strategy") == "at-least-once":
        unsupported.append("x-dead-letter-strategy=at-least-once")
    limit = arguments.get("x-delivery-limit")
    if kind == QUORUM and limit is not None and not (_is_int(limit) and limit >= 0):
        unsupported.append(f"x-delivery-limit={limit!r}")  # RabbitMQ does not look at it and misbehaves later
    if unsupported:
        raise Refusal(NOT_IMPLEMENTED, f"{', '.join(unsupported)} of {resource} is not modelled")


def check_consumer_arguments(resource: str, kind: str, arguments: Arguments) -> int:
    """Validate the arguments of ``Basic.Consume``; return the priority of the consumer.

    Raises:
        Refusal: 406 for what RabbitMQ refuses, 540 for what is not modelled.
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
    """Raises Refusal 406, in RabbitMQ's words, if a redeclaration differs."""
    if not same_value(current, received):
        explanation = (
            f"inequivalent arg '{key}' for {resource}: received {_value(received)} but current is {_value(current)}"
        )
        raise Refusal(PRECONDITION_FAILED, explanation)


def demand_same_arguments(resource: str, keys: Iterable[str], current: Arguments, received: Arguments) -> None:
    """Raises Refusal 406 if a redeclaration has other arguments of those that matter (``keys``)."""
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
    """The arguments that a redeclaration must repeat."""
    return _KNOWN[kind]


def _value(value: object) -> str:
    return f"'{str(value).lower() if isinstance(value, bool) else value}'"


def _typed(value: object) -> str:
    return "none" if value is None else f"the value {_value(value)} of type '{amqp_type(value)}'"
