"""What ``doctor`` knows of a broker. Whatever is ``None`` could not be found out, and is not judged."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from eda_core.messages.routing import COMMANDS, EVENTS, EXCHANGES

_QUEUE: Final = re.compile(rf"(.+)\.({EVENTS}|{COMMANDS})", re.DOTALL)
_RETRY: Final = re.compile(r"(.+)\.retry\.\d+", re.DOTALL)

#: A policy that has one of these keys does not apply to queues of that type at all (RabbitMQ 3.10's
#: ``rabbit_classic_queue:capabilities()`` and its sister).
_NOT_FOR: Final = {
    "classic": frozenset(
        {
            "max-age",
            "stream-max-segment-size-bytes",
            "queue-leader-locator",
            "initial-cluster-size",
            "delivery-limit",
            "dead-letter-strategy",
        }
    ),
    "quorum": frozenset(
        {
            "max-priority",
            "queue-mode",
            "single-active-consumer",
            "ha-mode",
            "ha-params",
            "ha-sync-mode",
            "ha-promote-on-shutdown",
            "ha-promote-on-failure",
            "queue-master-locator",
            "max-age",
            "stream-max-segment-size-bytes",
            "initial-cluster-size",
        }
    ),
}


def service_of(queue: str) -> str:
    """The logical service whose queue this is, by its name; "" if it is none."""
    match = _QUEUE.fullmatch(queue)
    return match[1] if match else ""


def retried(queue: str) -> str:
    """The queue whose failed messages wait in this one, by its name; "" if it is no such queue."""
    match = _RETRY.fullmatch(queue)
    return match[1] if match else ""


@dataclass(frozen=True, slots=True)
class Exchange:
    """An exchange that exists.

    Attributes:
        wrong: what is not as the architecture has it, in the broker's words or ours; "" if nothing.
        type, durable, wrong: ``None`` if unknown.
    """

    name: str
    type: str | None = None
    durable: bool | None = None
    wrong: str | None = None


@dataclass(slots=True)
class Queue:
    """A queue that exists.

    Attributes:
        consumers, messages: how many; ``None`` if the broker does not tell.
        type: ``classic``, ``quorum``, ``stream``, or "" if unknown.
        arguments: those of its declaration; ``None`` if unknown.
        told_policy: keys of the policy that applies, by the broker's statistics, which lag some seconds behind.
    """

    name: str
    consumers: int | None = None
    messages: int | None = None
    type: str = ""
    durable: bool = True
    exclusive: bool = False
    arguments: Mapping[str, Any] | None = None
    told_policy: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Binding:
    """A binding of a queue, or of another exchange."""

    source: str
    destination: str
    key: str
    to_queue: bool = True


@dataclass(frozen=True, slots=True)
class Policy:
    """A policy, or an operator policy."""

    name: str
    pattern: str
    definition: Mapping[str, Any]
    priority: int = 0
    apply_to: str = "queues"

    @property
    def readable(self) -> bool:
        """Whether its pattern means here what it means to the broker, whose dialect (PCRE) has more."""
        try:
            return "[[:" not in self.pattern and re.compile(self.pattern) is not None
        except re.error:
            return False

    def applies(self, queue: Queue) -> bool:
        """Whether it is one for this queue."""
        if self.apply_to not in ("queues", "all", f"{queue.type}_queues"):
            return False
        if not _NOT_FOR.get(queue.type, frozenset()).isdisjoint(self.definition):
            return False
        return self.readable and re.search(self.pattern, queue.name) is not None


@dataclass(slots=True)
class Survey:
    """All that is known.

    Attributes:
        vhost: the virtual host.
        exchanges: by name; those of the architecture that are not there are missing.
        queues: by name: all, if the management API tells, else those of ``services`` and ``commands`` that are there.
        bindings, policies, operator_policies: ``None`` if unknown.
        services: those that the user says there have to be.
        commands: routing keys of commands that somebody sends.
        dead_letter_exchange: where dead letters are to go if no policy says it.
        version: of the broker, as two numbers.
        admin: options for ``rabbitmqadmin``, so that it finds the broker.
    """

    vhost: str
    exchanges: dict[str, Exchange]
    queues: dict[str, Queue]
    dead_letter_exchange: str
    services: Sequence[str] = ()
    commands: Sequence[str] = ()
    bindings: Sequence[Binding] | None = None
    policies: Sequence[Policy] | None = None
    operator_policies: Sequence[Policy] | None = None
    version: tuple[int, int] | None = None
    admin: tuple[str, ...] = ()

    @property
    def managed(self) -> bool:
        """Whether the management API told."""
        return self.bindings is not None

    def of_the_bus(self) -> list[Queue]:
        """The queues of services: named so, or bound to an exchange of the architecture; not those for retries, nor
        what belongs to one connection."""
        bound = {binding.destination for binding in self.bindings or () if binding.source in EXCHANGES}
        return [
            queue
            for name, queue in sorted(self.queues.items())
            if (service_of(name) or name in bound) and not queue.exclusive and not retried(name)
        ]

    def keys_of(self, queue: str, exchange: str) -> list[str]:
        """The keys with which a queue is bound to an exchange."""
        return [
            binding.key
            for binding in self.bindings or ()
            if binding.source == exchange and binding.destination == queue and binding.to_queue
        ]

    def served(self) -> set[str]:
        """The keys bound on the commands exchange, but for those of tools that watch everything."""
        watching = {name for name, queue in self.queues.items() if queue.exclusive}
        return {
            binding.key
            for binding in self.bindings or ()
            if binding.source == COMMANDS and not (binding.key == "#" and binding.destination in watching)
        }

    def policy_of(self, queue: Queue) -> Policy | None:
        """The policy that applies to a queue: of those for it the one with the highest priority."""
        if self.policies is None or not all(policy.readable for policy in self.policies):
            return Policy("", "", queue.told_policy) if queue.told_policy else None
        return max(
            (policy for policy in self.policies if policy.applies(queue)),
            key=lambda policy: policy.priority,
            default=None,
        )

    def setting(self, queue: Queue, key: str) -> Any:
        """What applies to a queue: by its arguments or policies; for numbers the lowest. ``None`` if it is not set."""
        operators = [policy for policy in self.operator_policies or () if policy.applies(queue)]
        operator = max(operators, key=lambda policy: policy.priority, default=None)
        found = [
            value
            for value in (
                (queue.arguments or {}).get(f"x-{key}"),
                (self.policy_of(queue) or Policy("", "", {})).definition.get(key),
                (operator or Policy("", "", {})).definition.get(key),
            )
            if value is not None
        ]
        numbers = [value for value in found if isinstance(value, int)]
        return min(numbers) if numbers else found[0] if found else None

    def dead_letter_queues(self, exchange: str) -> list[str]:
        """The queues bound to an exchange."""
        return [
            binding.destination for binding in self.bindings or () if binding.source == exchange and binding.to_queue
        ]


def bindings_of(rows: Iterable[Mapping[str, Any]]) -> list[Binding]:
    """What ``/api/bindings`` lists, without the default exchange's."""
    return [
        Binding(
            str(row.get("source", "")),
            str(row.get("destination", "")),
            str(row.get("routing_key", "")),
            row.get("destination_type") == "queue",
        )
        for row in rows
        if row.get("source")
    ]


def policies_of(rows: Iterable[Mapping[str, Any]] | None) -> list[Policy] | None:
    """What ``/api/policies`` lists."""
    if rows is None:
        return None
    return [
        Policy(
            str(row.get("name", "")),
            str(row.get("pattern", "")),
            _mapping(row.get("definition")),
            int(row.get("priority") or 0),
            str(row.get("apply-to", "all")),
        )
        for row in rows
    ]


def queue_of(row: Mapping[str, Any]) -> Queue:
    """What ``/api/queues`` tells of one; how many consumers and messages it has is asked by AMQP, which is exact."""
    return Queue(
        str(row.get("name", "")),
        type=str(row.get("type") or _mapping(row.get("arguments")).get("x-queue-type") or "classic"),
        durable=bool(row.get("durable", True)),
        exclusive=bool(row.get("exclusive", False)),
        arguments=_mapping(row.get("arguments")),
        told_policy=_mapping(row.get("effective_policy_definition")),
    )


def exchange_of(row: Mapping[str, Any]) -> Exchange:
    """What ``/api/exchanges`` tells of one, and what is wrong with it for the architecture."""
    kind, durable = str(row.get("type", "")), bool(row.get("durable", True))
    wrong = [f"it is of type {kind}, not topic"] * (kind != "topic") + ["it is not durable"] * (not durable)
    wrong += ["it is internal"] * bool(row.get("internal")) + ["it is auto-delete"] * bool(row.get("auto_delete"))
    return Exchange(str(row.get("name", "")), kind, durable, " and ".join(wrong))


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
