"""Decides who publishes and who consumes what, from the management API, from a recording, or from both. Draws nothing.

The API tells who consumes: the bindings, and the services to which the bound queues belong. It does not tell who
publishes. A recording tells who publishes: the ``app_id``, or what the architecture's names imply. It also tells some
consumers: the services to which commands and results are addressed, and those that act on a message. What is implied is
marked as inferred.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from eda_core.messages.routing import EXCHANGES, LOGS, TopicPattern
from eda_core.testing.deaths import retried
from eda_tools.cli.catalogue import TOOLS
from eda_tools.diagnosis.facts import Binding, mapping, service_of, service_of_connection
from eda_tools.diagrams.conversation import CAUSATION, build

#: The name of a publisher that is not known.
UNKNOWN: Final = "unknown"
#: The names of the tools' connections.
_TOOLS: Final = frozenset(f"eda-{name}" for name in TOOLS)
#: All of them together.
TOOLS_TOGETHER: Final = "(tools)"
#: A word of a key that is made for one conversation or one worker: a UUID, also without its hyphens.
_PRIVATE: Final = re.compile(r"[0-9a-f]{8}(-?)[0-9a-f]{4}\1[0-9a-f]{4}\1[0-9a-f]{4}\1[0-9a-f]{12}", re.IGNORECASE)


@dataclass(slots=True)
class Publisher:
    """A service that publishes.

    Attributes:
        messages: how many are in the recording.
        inferred: whether the service is not the ``app_id``, but implied by names.
    """

    service: str
    messages: int = 0
    inferred: bool = False


@dataclass(slots=True)
class Consumer:
    """A service that consumes.

    Attributes:
        queues: its queues that are bound.
        workers: how many consumers those queues have; ``None`` if unknown.
        inferred: whether it is implied by what the service did with a message, or by the name of a command.
    """

    service: str
    queues: list[str] = field(default_factory=list)
    workers: int | None = None
    inferred: bool = False


@dataclass(slots=True)
class Route:
    """A key with which messages are published, or a binding for which no message was seen.

    Attributes:
        kinds: the kinds of the messages that were seen: ``event``, ``command`` …
    """

    exchange: str
    key: str
    kinds: set[str] = field(default_factory=set)
    messages: int = 0
    publishers: dict[str, Publisher] = field(default_factory=dict)
    consumers: dict[str, Consumer] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """The object that ``--json`` writes."""
        return {
            "exchange": self.exchange,
            "key": self.key,
            "kinds": sorted(self.kinds),
            "messages": self.messages,
            "publishers": [asdict(each) for each in self.publishers.values()],
            "consumers": [asdict(each) for each in self.consumers.values()],
        }


@dataclass(frozen=True, slots=True)
class Subscription:
    """A queue that is bound, and the service to which it belongs."""

    exchange: str
    key: str
    queue: str
    service: str
    workers: int | None


def subscriptions(
    bindings: Iterable[Binding], consumers: Iterable[Mapping[str, Any]], connections: Iterable[Mapping[str, Any]]
) -> list[Subscription]:
    """What is bound to the exchanges of the architecture, except queues for retries and those of the tools.

    Args:
        consumers: the answer of ``/api/consumers``.
        connections: the answer of ``/api/connections``.
    """
    names = {str(each.get("name")): service_of_connection(each) for each in connections}
    workers: dict[str, int] = {}
    owners: dict[str, str] = {}
    for each in consumers:
        queue = str(mapping(each.get("queue")).get("name", ""))
        workers[queue] = workers.get(queue, 0) + 1
        owners[queue] = names.get(str(mapping(each.get("channel_details")).get("connection_name")), "")
    found = [
        Subscription(
            binding.source,
            binding.key,
            binding.destination,
            service_of(binding.destination) or owners.get(binding.destination) or _unnamed(binding.destination),
            workers.get(binding.destination, 0),
        )
        for binding in bindings
        if binding.source in EXCHANGES and binding.to_queue and not retried(binding.destination)
    ]
    return [each for each in found if each.service not in _TOOLS]


def _unnamed(queue: str) -> str:
    return "(unnamed)" if queue.startswith("amq.") else queue


def routes(bound: Iterable[Subscription], recorded: Mapping[str, list[dict[str, Any]]]) -> list[Route]:
    """The routes, sorted by exchange and key.

    Args:
        bound: what is bound, by the management API.
        recorded: the fields (:func:`eda_tools.messages.delivery.fields`) of recorded messages, by conversation.
    """
    found: dict[tuple[str, str], Route] = {}
    for messages in recorded.values():
        _publish(found, messages)
    for subscription in bound:
        subscribed = _folded(subscription.key)
        pattern = TopicPattern(subscribed)
        matching = [route for (exchange, key), route in found.items() if exchange == subscription.exchange]
        matching = [route for route in matching if pattern.matches(route.key) and route.messages]
        if not matching:
            key = subscription.exchange, subscribed
            matching = [found.setdefault(key, Route(*key))]
        for route in matching:
            _subscribe(route, subscription)
    order = {name: place for place, name in enumerate(EXCHANGES)}
    return sorted(found.values(), key=lambda route: (order.get(route.exchange, len(order)), route.exchange, route.key))


def _folded(key: str) -> str:
    """A key in which private words are replaced by ``*``: there is one such reply key for each run of a program."""
    return ".".join("*" if _PRIVATE.fullmatch(word) else word for word in key.split("."))


def _service(name: str) -> str:
    return TOOLS_TOGETHER if name in _TOOLS else name


def _publish(found: dict[tuple[str, str], Route], messages: list[dict[str, Any]]) -> None:
    for step in build(messages):
        if step.fields["exchange"] == LOGS:
            continue
        key = str(step.fields["exchange"]), _folded(str(step.fields["routing_key"]))
        route = found.setdefault(key, Route(*key))
        route.messages += 1
        route.kinds.add(step.kind)
        name = _service(step.service)
        publisher = route.publishers.setdefault(name, Publisher(name, inferred=True))
        publisher.messages += 1
        publisher.inferred = publisher.inferred and (step.service_inferred or not step.service)
        acting = (effect.service for effect in step.effects if effect.edge == CAUSATION)
        for service in map(_service, (step.addressee, *acting)):
            if service:
                route.consumers.setdefault(service, Consumer(service, inferred=True))


def _subscribe(route: Route, subscription: Subscription) -> None:
    consumer = route.consumers.setdefault(subscription.service, Consumer(subscription.service))
    consumer.inferred = False
    if subscription.queue not in consumer.queues:
        consumer.queues.append(subscription.queue)
        if subscription.workers is not None:
            consumer.workers = (consumer.workers or 0) + subscription.workers
