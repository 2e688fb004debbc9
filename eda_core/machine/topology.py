"""The exchanges, queues and bindings of a service, as AMQP 0-9-1 commands (docs/architecture.rst, "Topology").

They are declared in two steps, because the broker names the exclusive queues: first exchanges and queues, then bindings
and prefetch. This module decides what is declared. It does not know when, nor what the state of the link is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from pamqp import base
from pamqp.commands import Basic, Exchange, Queue

from eda_core.machine import retry
from eda_core.machine.config import Config
from eda_core.messages.routing import COMMANDS, EVENTS, EXCHANGES, queue_name

#: The consumer tag for the results of calls. The tags of the other consumers are the names of their exchanges.
REPLIES: Final = "replies"


@dataclass(frozen=True, slots=True)
class Subscription:
    """A queue of the service.

    Attributes:
        exchange: the exchange to which it is bound.
        queue: its name; "" if the broker names it.
        keys: its binding keys.
        tag: its consumer tag, by default the name of the exchange.
        length: how many messages may wait in it; 0 for any number.
    """

    exchange: str
    queue: str
    keys: tuple[str, ...]
    tag: str = ""
    length: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "tag", self.tag or self.exchange)

    def __repr__(self) -> str:
        return f"<Subscription {self.tag}, {len(self.keys)} keys>"


def replies(key: str) -> Subscription:
    """Return the queue for the results of this worker's calls. Their routing key is ``key``."""
    return Subscription(COMMANDS, "", (key,), REPLIES)


def subscriptions(config: Config) -> tuple[Subscription, ...]:
    """Return the queues of a service, in the order in which they are declared."""
    shared = () if config.exclusive_queues else (EVENTS, COMMANDS)
    wanted = zip(EXCHANGES, (config.events, config.commands, config.configurations, config.logs), strict=True)
    return tuple(
        Subscription(exchange, queue_name(config.service, exchange), keys)
        if exchange in shared
        else Subscription(exchange, "", keys, length=config.exclusive_length if config.exclusive_queues else 0)
        for exchange, keys in wanted
        if keys
    )


def declarations(wanted: Sequence[Subscription], delays: Iterable[float]) -> tuple[base.Frame, ...]:
    """Return the commands of the first step: all four exchanges, the queues, and a retry queue for each delay."""
    exchanges = (Exchange.Declare(exchange=name, exchange_type="topic", durable=True) for name in EXCHANGES)
    queues = (
        Queue.Declare(
            queue=subscription.queue,
            durable=bool(subscription.queue),
            exclusive=not subscription.queue,
            arguments={"x-max-length": subscription.length} if subscription.length else {},
        )
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
    """Return the name of each queue by consumer tag, from the replies to the first step; ``None`` if one is missing."""
    names = [reply.queue for reply in replies if isinstance(reply, Queue.DeclareOk) and reply.queue]
    if len(names) < len(wanted) or not all(map(_is_queue_name, names)):
        return None
    return {subscription.tag: name for subscription, name in zip(wanted, names, strict=False)}


def _is_queue_name(name: str) -> bool:
    """Return whether pamqp accepts the name in a command. It may not accept each name that a broker gives."""
    try:
        Queue.Bind(queue=name)
    except ValueError:
        return False
    return True


def bindings(wanted: Sequence[Subscription], queues: Mapping[str, str], prefetch: int) -> tuple[base.Frame, ...]:
    """Return the commands of the second step: the bindings of the queues, named by consumer tag, and the prefetch."""
    bound = (
        Queue.Bind(queue=queues[subscription.tag], exchange=subscription.exchange, routing_key=key)
        for subscription in wanted
        for key in subscription.keys
    )
    return (*bound, Basic.Qos(prefetch_count=prefetch))
