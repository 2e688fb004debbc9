"""What ``doctor`` knows of a broker. ``None`` stands for what could not be found out. Nothing is judged here."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from eda_core.messages.routing import COMMANDS, EVENTS, EXCHANGES
from eda_core.testing.deaths import retried

_QUEUE: Final = re.compile(rf"(.+)\.({EVENTS}|{COMMANDS})", re.DOTALL)

#: A policy with one of these keys does not apply to queues of that type (``capabilities()`` in RabbitMQ 3.10).
_NOT_FOR: Final = {
    "classic": frozenset(
        "max-age stream-max-segment-size-bytes queue-leader-locator initial-cluster-size delivery-limit "
        "dead-letter-strategy".split()
    ),
    "quorum": frozenset(
        "max-priority queue-mode single-active-consumer ha-mode ha-params ha-sync-mode ha-promote-on-shutdown "
        "ha-promote-on-failure queue-master-locator max-age stream-max-segment-size-bytes initial-cluster-size".split()
    ),
}


def service_of(queue: str) -> str:
    """The logical service to which a queue belongs, by its name; "" if it is no service's queue."""
    match = _QUEUE.fullmatch(queue)
    return match[1] if match else ""


@dataclass(frozen=True, slots=True)
class Exchange:
    """An exchange that exists.

    Attributes:
        type: ``topic``, ``direct`` …
        wrong: how it differs from what the architecture needs; "" if it does not.
    """

    name: str
    type: str | None = None
    durable: bool | None = None
    wrong: str | None = None


@dataclass(slots=True)
class Queue:
    """A queue that exists.

    Attributes:
        consumers: how many it has.
        messages: how many it holds.
        type: ``classic``, ``quorum``, ``stream``, or "" if unknown.
        arguments: the arguments with which it was declared.
        told_policy: the keys of the policy that applies, by the broker's statistics, which are some seconds old.
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
    """A binding of a queue, or of an exchange if ``to_queue`` is false."""

    source: str
    destination: str
    key: str
    to_queue: bool = True


@dataclass(frozen=True, slots=True)
class Policy:
    """A policy or an operator policy."""

    name: str
    pattern: str
    definition: Mapping[str, Any]
    priority: int = 0
    apply_to: str = "queues"

    @property
    def readable(self) -> bool:
        """Whether Python reads the pattern as the broker does, whose regular expressions (PCRE) can do more."""
        try:
            return "[[:" not in self.pattern and re.compile(self.pattern) is not None
        except re.error:
            return False

    def applies(self, queue: Queue) -> bool:
        """Whether it is a policy for this queue."""
        if self.apply_to not in ("queues", "all", f"{queue.type}_queues"):
            return False
        if not _NOT_FOR.get(queue.type, frozenset()).isdisjoint(self.definition):
            return False
        return self.readable and re.search(self.pattern, queue.name) is not None


@dataclass(slots=True)
class Facts:
    """Everything that is known of a broker.

    Attributes:
        vhost: the virtual host.
        exchanges: by name. Exchanges of the architecture that do not exist are missing.
        queues: by name: all if the management API was asked, otherwise those of ``services`` and ``commands``.
        dead_letter_exchange: where dead letters should go if no policy says it.
        services: the services that the user expects.
        commands: routing keys of commands that somebody sends.
        version: the broker's version, as two numbers.
        management: URL of the management API without user and password, "" if it was not given.
        connected: the services that have connections, by the names of these.
        unhandled: bindings of services whose class has no handler for them: service, queue and key.
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
    management: str = ""
    connected: Collection[str] | None = None
    unhandled: Sequence[tuple[str, str, str]] = ()

    @property
    def managed(self) -> bool:
        """Whether the facts come from the management API."""
        return self.bindings is not None

    def of_the_bus(self) -> list[Queue]:
        """The queues of services, by their names or because they are bound to an exchange of the architecture.

        Queues for retries and those of one connection are left out.
        """
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
        """The keys that are bound on the commands exchange, except by tools that watch everything."""
        watching = {name for name, queue in self.queues.items() if queue.exclusive}
        return {
            binding.key
            for binding in self.bindings or ()
            if binding.source == COMMANDS and not (binding.key == "#" and binding.destination in watching)
        }

    def policy_of(self, queue: Queue) -> Policy | None:
        """The policy that applies to a queue: the one with the highest priority."""
        if self.policies is None or not all(policy.readable for policy in self.policies):
            return Policy("", "", queue.told_policy) if queue.told_policy else None
        return max(
            (policy for policy in self.policies if policy.applies(queue)),
            key=lambda policy: policy.priority,
            default=None,
        )

    def setting(self, queue: Queue, key: str) -> Any:
        """The value of ``key`` that applies to a queue, by its arguments or policies; ``None`` if it is not set.

        Of several numbers the lowest applies.
        """
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
    """The bindings in an answer of ``/api/bindings``, without those of the default exchange."""
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
    """The policies in an answer of ``/api/policies``."""
    if rows is None:
        return None
    return [
        Policy(
            str(row.get("name", "")),
            str(row.get("pattern", "")),
            mapping(row.get("definition")),
            int(row.get("priority") or 0),
            str(row.get("apply-to", "all")),
        )
        for row in rows
    ]


def queue_of(row: Mapping[str, Any]) -> Queue:
    """A queue in an answer of ``/api/queues``, without its numbers: those that AMQP tells are exact."""
    return Queue(
        str(row.get("name", "")),
        type=str(row.get("type") or mapping(row.get("arguments")).get("x-queue-type") or "classic"),
        durable=bool(row.get("durable", True)),
        exclusive=bool(row.get("exclusive", False)),
        arguments=mapping(row.get("arguments")),
        told_policy=mapping(row.get("effective_policy_definition")),
    )


def exchange_of(row: Mapping[str, Any]) -> Exchange:
    """An exchange in an answer of ``/api/exchanges``, and how it differs from what the architecture needs."""
    kind, durable = str(row.get("type", "")), bool(row.get("durable", True))
    wrong = [f"it is of type {kind}, not topic"] * (kind != "topic") + ["it is not durable"] * (not durable)
    wrong += ["it is internal"] * bool(row.get("internal")) + ["it is auto-delete"] * bool(row.get("auto_delete"))
    return Exchange(str(row.get("name", "")), kind, durable, " and ".join(wrong))


def service_of_connection(connection: Mapping[str, Any]) -> str:
    """The service to which a connection in an answer of ``/api/connections`` belongs; "" if unknown.

    Adapters name theirs ``service@host:pid``.
    """
    name = connection.get("user_provided_name") or mapping(connection.get("client_properties")).get("connection_name")
    return name.partition("@")[0] if isinstance(name, str) else ""


def mapping(value: object) -> Mapping[str, Any]:
    """``value`` if it is a map, else an empty one."""
    return value if isinstance(value, Mapping) else {}
