"""What a service declares, as AMQP 0-9-1 commands (docs/architecture.rst, "Topology").

Declaring goes in two steps, because the broker names the exclusive queues: first exchanges and queues, then, with the
names at hand, bindings and prefetch.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from pamqp import base
from pamqp.commands import Basic, Exchange, Queue

from eda_core.machine import retry
from eda_core.machine.config import Config
from eda_core.messages.routing import COMMANDS, CONFIGURATIONS, EVENTS, EXCHANGES, LOGS, queue_name

#: The consumer tag of results of calls. The other consumers are called after their exchanges.
REPLIES: Final = "replies"


@dataclass(frozen=True, slots=True)
class Subscription:
    """One queue of the service.

    Attributes:
        exchange: where it is bound.
        queue: its name, "" for one that the broker names.
        keys: its binding keys.
        tag: of its consumer, the exchange's name unless given.
    """

    exchange: str
    queue: str
    keys: tuple[str, ...]
    tag: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "tag", self.tag or self.exchange)

    def __repr__(self) -> str:
        return f"<Subscription {self.tag}, {len(self.keys)} keys>"


def replies(key: str) -> Subscription:
    """The queue of this worker alone for the results of its calls, which come under the routing key ``key``."""
    return Subscription(COMMANDS, "", (key,), REPLIES)


def subscriptions(config: Config) -> tuple[Subscription, ...]:
    """The queues that ``config`` asks for, in the order of declaration."""
    return tuple(_subscriptions(config))


def _subscriptions(config: Config) -> Iterator[Subscription]:
    for exchange, keys in ((EVENTS, config.events), (COMMANDS, config.commands)):
        if keys:
            yield Subscription(exchange, "" if config.exclusive_queues else queue_name(config.service, exchange), keys)
    for exchange, keys in ((CONFIGURATIONS, config.configurations), (LOGS, config.logs)):
        if keys:
            yield Subscription(exchange, "", keys)


def declarations(wanted: Sequence[Subscription], delays: Iterable[float]) -> tuple[base.Frame, ...]:
    """The first step: all four exchanges, since the service may publish to any, its queues, and those for retries.

    Args:
        delays: before retries, seconds.
    """
    exchanges = (Exchange.Declare(exchange=name, exchange_type="topic", durable=True) for name in EXCHANGES)
    queues = (
        Queue.Declare(queue=subscription.queue, durable=bool(subscription.queue), exclusive=not subscription.queue)
        for subscription in wanted
    )
    retries = (
        retry.declaration(subscription.queue, delay)
        for subscription in wanted
        if subscription.queue
        for delay in dict.fromkeys(delays)
    )
    return (*exchanges, *queues, *retries)


def queue_names(wanted: Sequence[Subscription], replies: Sequence[base.Frame]) -> Mapping[str, str] | None:
    """The queue of each consumer tag, read off the replies to :func:`declarations`; ``None`` if they do not fit."""
    names = [reply.queue for reply in replies if isinstance(reply, Queue.DeclareOk) and reply.queue]
    if len(names) < len(wanted) or not all(map(_is_queue_name, names)):
        return None
    return {subscription.tag: name for subscription, name in zip(wanted, names, strict=False)}


def _is_queue_name(name: str) -> bool:
    """Whether pamqp takes it in a command, as it may not, whoever gave it."""
    try:
        Queue.Bind(queue=name)
    except ValueError:
        return False
    return True


def bindings(wanted: Sequence[Subscription], queues: Mapping[str, str], prefetch: int) -> tuple[base.Frame, ...]:
    """The second step: bindings are only ever added; the prefetch (messages) holds for each consumer."""
    bound = (
        Queue.Bind(queue=queues[subscription.tag], exchange=subscription.exchange, routing_key=key)
        for subscription in wanted
        for key in subscription.keys
    )
    return (*bound, Basic.Qos(prefetch_count=prefetch))
