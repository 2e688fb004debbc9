"""Exchanges, bindings and routing in one virtual host (AMQP 0-9-1 section 3.1, and what RabbitMQ adds to it).

Queues are known here by their names only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from eda_core.testing.broker.arguments import demand_same, demand_same_arguments
from eda_core.testing.broker.bindings import DIRECT, FANOUT, HEADERS, TOPIC, Binding, Bindings
from eda_core.testing.broker.message import (
    ACCESS_REFUSED,
    COMMAND_INVALID,
    NOT_FOUND,
    PRECONDITION_FAILED,
    AmqpMessage,
    Refusal,
)
from eda_core.testing.broker.texts import quoted, term
from eda_core.testing.broker.values import amqp_type, freeze
from eda_core.testing.broker.versions import Version

QUEUE: Final = "queue"
EXCHANGE: Final = "exchange"
ALTERNATE: Final = "alternate-exchange"

_TYPES: Final = (DIRECT, FANOUT, HEADERS, TOPIC)
_MATCHES: Final = ("all", "any", "all-with-x", "any-with-x")
_PREDECLARED: Final = (
    ("", DIRECT, False),
    ("amq.direct", DIRECT, False),
    ("amq.fanout", FANOUT, False),
    ("amq.headers", HEADERS, False),
    ("amq.match", HEADERS, False),
    ("amq.rabbitmq.trace", TOPIC, True),
    ("amq.topic", TOPIC, False),
)


@dataclass(frozen=True, slots=True)
class Exchange:
    """An exchange, as declared. ``kind`` is its type."""

    name: str
    kind: str
    durable: bool
    auto_delete: bool
    internal: bool
    arguments: dict[str, Any]


class Topology:
    """What is declared in one virtual host, except the queues themselves."""

    __slots__ = ("_bindings", "_by_destination", "exchanges", "version", "vhost")

    def __init__(self, vhost: str, version: Version) -> None:
        self.vhost: Final = vhost
        self.version: Final = version
        self.exchanges: dict[str, Exchange] = {}
        self._bindings: dict[str, Bindings] = {}
        self._by_destination: dict[tuple[str, str], dict[Binding, None]] | None = None  # made when it is needed
        for name, kind, internal in _PREDECLARED:
            self.exchanges[name] = Exchange(name, kind, True, False, internal, {})

    def clone(self) -> Topology:
        copy = Topology.__new__(Topology)
        copy.vhost = self.vhost  # type: ignore[misc]
        copy.version = self.version  # type: ignore[misc]
        copy.exchanges = dict(self.exchanges)
        copy._bindings = {source: bindings.clone() for source, bindings in self._bindings.items()}
        copy._by_destination = None
        return copy

    def snapshot(self) -> tuple[Any, ...]:
        exchanges = sorted(
            (x.name, x.kind, x.durable, x.auto_delete, x.internal, freeze(x.arguments)) for x in self.exchanges.values()
        )
        return (self.vhost, tuple(exchanges), tuple(sorted(self.bindings(), key=repr)))

    def word(self, kind: str, name: str) -> str:
        """How RabbitMQ words a queue or an exchange in its texts."""
        return f"{kind} '{quoted(name)}' in vhost '{quoted(self.vhost)}'"

    def bindings(self) -> Iterator[Binding]:
        """All bindings, by source."""
        for bindings in self._bindings.values():
            yield from bindings

    # -- exchanges ----------------------------------------------------------------------------------------------------

    def exchange(self, name: str) -> Exchange:
        """The exchange of this name.

        Raises:
            Refusal: 404. There is none.
        """
        found = self.exchanges.get(name)
        if found is None:
            raise Refusal(NOT_FOUND, f"no {self.word(EXCHANGE, name)}")
        return found

    def declare(self, wanted: Exchange) -> None:
        """Declare an exchange.

        Raises:
            Refusal: 503, its type is unknown; 403, its name is reserved; 406, it exists with other properties.
        """
        if wanted.kind not in _TYPES:
            reply = COMMAND_INVALID if self.version.wrong_type_closes_connection else PRECONDITION_FAILED
            raise Refusal(reply, f"unknown exchange type '{quoted(wanted.kind)}'")
        refuse_default(wanted.name)
        resource = self.word(EXCHANGE, wanted.name)
        current = self.exchanges.get(wanted.name)
        if current is None:
            refuse_reserved(EXCHANGE, wanted.name)
            alternate = wanted.arguments.get(ALTERNATE, "")
            if not isinstance(alternate, str) and type(alternate) is not bytes:
                problem = f"invalid type '{amqp_type(alternate)}' for arg '{ALTERNATE}' in {resource}"
                raise Refusal(PRECONDITION_FAILED, problem)
            self.exchanges[wanted.name] = wanted
            return
        demand_same(resource, "type", current.kind, wanted.kind, self.version)
        demand_same(resource, "durable", current.durable, wanted.durable, self.version)
        demand_same(resource, "auto_delete", current.auto_delete, wanted.auto_delete, self.version)
        demand_same(resource, "internal", current.internal, wanted.internal, self.version)
        demand_same_arguments(resource, (ALTERNATE,), current.arguments, wanted.arguments, self.version)

    def delete(self, name: str, *, if_unused: bool) -> None:
        """Delete an exchange, if it exists.

        Raises:
            Refusal: 403, its name is reserved; 406, ``if_unused`` is set and it has bindings.
        """
        refuse_default(name)
        if name.startswith("amq."):
            raise Refusal(ACCESS_REFUSED, f"deletion of system {self.word(EXCHANGE, name)} not allowed")
        if name in self.exchanges:
            if if_unused and self._bindings.get(name):
                raise Refusal(PRECONDITION_FAILED, f"{self.word(EXCHANGE, name)} in use")
            self._remove_exchange(name)

    def _remove_exchange(self, name: str) -> None:
        del self.exchanges[name]
        for binding in self._bindings.pop(name, ()):
            self._forget(binding)
        self.forget_destination(EXCHANGE, name)

    # -- bindings -----------------------------------------------------------------------------------------------------

    def bind(self, binding: Binding, arguments: dict[str, Any], check: Callable[[], None]) -> None:
        """Add a binding. Its source must exist.

        Args:
            arguments: of the binding.
            check: a further check, which comes after the one of the arguments as in RabbitMQ.

        Raises:
            Refusal: 406, ``x-match`` of a headers exchange is invalid, or the key of a topic exchange has too many
                words ``#``; or what ``check`` raises.
        """
        source = self.exchange(binding.source)
        if source.kind == HEADERS:
            _check_match(arguments, self.version)
        check()
        if source.kind == TOPIC:
            self._check_hashes(binding.key)
        if binding.source not in self._bindings:
            self._bindings[binding.source] = Bindings(source.kind, self.version)
        self._bindings[binding.source].add(binding, arguments)
        if self._by_destination is not None:
            self._by_destination.setdefault((binding.kind, binding.destination), {})[binding] = None

    def _check_hashes(self, key: str) -> None:
        allowed, found = self.version.topic_hashes, key.split(".").count("#")
        if allowed is not None and found > allowed:
            problem = f"Topic binding key '{quoted(key)}' uses {found} '#' wildcards, at most {allowed} are allowed"
            raise Refusal(PRECONDITION_FAILED, problem)

    def bound(self, binding: Binding) -> bool:
        """Whether there is this binding."""
        return binding in self._bindings.get(binding.source, ())

    def unbind(self, binding: Binding) -> None:
        """Remove a binding, if it exists. An auto-delete exchange goes with its last binding."""
        bindings = self._bindings.get(binding.source)
        if bindings is None or binding not in bindings:
            return
        bindings.remove(binding)
        self._forget(binding)
        if not bindings:
            del self._bindings[binding.source]
            source = self.exchanges.get(binding.source)
            if source is not None and source.auto_delete:
                self._remove_exchange(source.name)

    def _forget(self, binding: Binding) -> None:
        if self._by_destination is not None:
            alike = self._by_destination[binding.kind, binding.destination]
            del alike[binding]
            if not alike:
                del self._by_destination[binding.kind, binding.destination]

    def forget_destination(self, kind: str, name: str) -> None:
        """Remove all bindings to a queue or exchange that is deleted."""
        if self._by_destination is None:
            self._by_destination = {}
            for binding in self.bindings():
                self._by_destination.setdefault((binding.kind, binding.destination), {})[binding] = None
        for binding in list(self._by_destination.get((kind, name), ())):
            self.unbind(binding)

    def keep_durable(self, queues: set[str]) -> None:
        """Keep what a restart leaves.

        Args:
            queues: the names of the queues that it leaves.
        """
        self.exchanges = {name: x for name, x in self.exchanges.items() if x.durable}
        alive = {QUEUE: queues, EXCHANGE: set(self.exchanges)}
        self._by_destination = None
        for source, bindings in list(self._bindings.items()):
            for binding in [each for each in bindings if each.destination not in alive[each.kind]]:
                bindings.remove(binding)
            if not bindings or source not in self.exchanges:
                del self._bindings[source]

    # -- routing ------------------------------------------------------------------------------------------------------

    def route(self, exchange: Exchange, message: AmqpMessage) -> list[str]:
        """The names of the queues of a message, each once, sorted. There may be no queue of such a name."""
        if not exchange.name:
            keys = message.routing_keys
            return list(keys) if len(keys) == 1 else sorted(set(keys))
        queues: set[str] = set()
        seen = {exchange.name}
        pending = [exchange]
        while pending:
            here = pending.pop()
            if not here.name:
                queues.update(message.routing_keys)
                continue
            bindings = self._bindings.get(here.name)
            found = bindings.find(message) if bindings is not None else set()
            onward = [b.destination for b in found if b.kind == EXCHANGE]
            queues.update(b.destination for b in found if b.kind == QUEUE)
            if not found and ALTERNATE in here.arguments:
                onward.append(here.arguments[ALTERNATE])
            for name in onward:
                if name not in seen:
                    seen.add(name)
                    if name in self.exchanges:
                        pending.append(self.exchanges[name])
        return sorted(queues)


def refuse_default(*names: str) -> None:
    """Check that no name is that of the default exchange.

    Raises:
        Refusal: 403. One is.
    """
    if "" in names:
        raise Refusal(ACCESS_REFUSED, "operation not permitted on the default exchange")


def refuse_reserved(kind: str, name: str) -> None:
    """Check that a name is not one of the broker's own.

    Raises:
        Refusal: 403. It is.
    """
    if name.startswith("amq."):
        raise Refusal(ACCESS_REFUSED, f"{kind} name '{quoted(name)}' contains reserved prefix 'amq.*'")


def _check_match(arguments: dict[str, Any], version: Version) -> None:
    if "x-match" not in arguments:
        return
    match = arguments["x-match"]
    if not isinstance(match, str) and type(match) is not bytes:
        kind = amqp_type(match)
        raise Refusal(
            PRECONDITION_FAILED, f"Invalid x-match field type {kind} (value {term(match, version)}); expected longstr"
        )
    if match not in _MATCHES:
        raise Refusal(
            PRECONDITION_FAILED,
            f"Invalid x-match field value {term(match, version)}; expected all, any, all-with-x, or any-with-x",
        )
