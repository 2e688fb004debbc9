"""The exchanges, queues and bindings of a service, as AMQP 0-9-1 commands (docs/architecture.rst, "Topology").

They are declared in two steps, because the broker names the exclusive queues: first exchanges and queues, then bindings
and prefetch. This module decides what is declared. It does not know when, nor what the state of the link is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from pamqp import base
from pamqp.commands import Basic, Exchange, Queue

from eda_core.machine import retry
from eda_core.machine.config import Config
from eda_core.messages import delays as delaying
from eda_core.messages.delays import DELAY_EXCHANGES, DELAY_QUEUES
from eda_core.messages.routing import COMMANDS, EVENTS, EXCHANGES, queue_name
from eda_core.text import shortened

#: The consumer tag for the results of calls. The tags of the other consumers are the names of their exchanges.
REPLIES: Final = "replies"
#: No arguments.
NOTHING: Final[Mapping[str, Any]] = MappingProxyType({})
#: The names of three reply codes of AMQP 0-9-1: 403, 404 and 406. RabbitMQ begins its texts with these names.
ACCESS_REFUSED: Final = "ACCESS_REFUSED"
NOT_FOUND: Final = "NOT_FOUND"
PRECONDITION_FAILED: Final = "PRECONDITION_FAILED"
#: The argument of a queue in the texts of RabbitMQ.
_DEAD_LETTER_EXCHANGE: Final = "'x-dead-letter-exchange'"
_QUEUE, _EXCHANGE = "queue", "exchange"


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


def declarations(
    wanted: Sequence[Subscription],
    delays: Iterable[float],
    arguments: Mapping[str, Any] = NOTHING,
    *,
    delayed: bool = False,
) -> tuple[base.Frame, ...]:
    """Return the commands of the first step: all four exchanges, the queues, and a retry queue for each delay.

    Args:
        arguments: those of the queues that have a name (:func:`queue_arguments`).
        delayed: whether to declare the exchanges and queues of delayed messages, too.
    """
    exchanges = (Exchange.Declare(exchange=name, exchange_type="topic", durable=True) for name in EXCHANGES)
    queues = (
        Queue.Declare(
            queue=subscription.queue,
            durable=bool(subscription.queue),
            exclusive=not subscription.queue,
            arguments=dict(arguments) if subscription.queue else _bounded(subscription.length),
        )
        for subscription in wanted
    )
    retries = (
        retry.declaration(subscription.queue, delay)
        for subscription in wanted
        if subscription.queue
        for delay in dict.fromkeys(delays)
    )
    return (*exchanges, *queues, *retries, *(delaying.declarations() if delayed else ()))


def queue_arguments(config: Config) -> Mapping[str, Any]:
    """Return the arguments of the queues for events and commands."""
    if not config.queue_type:
        return NOTHING
    limit = {"x-delivery-limit": config.delivery_limit} if config.queue_type == "quorum" else {}
    return {"x-queue-type": config.queue_type, **limit}


class Given:
    """What the operator has declared in another way, or the service may not declare. It is used as it is.

    The machine learns that from the broker, which closes the channel: with 406 if a queue exists with other properties,
    with 403 if the user may not configure a queue or an exchange. A passive declaration only checks that it
    exists, and needs no permission (AMQP 0-9-1, the field ``passive``).

    Attributes:
        dead_lettering: the queues that have a dead-letter exchange as an argument, as far as the broker has said so.
    """

    __slots__ = ("_names", "dead_lettering")

    def __init__(self) -> None:
        self._names: set[tuple[str, str]] = set()
        self.dead_lettering: set[str] = set()

    def applied(self, commands: Iterable[base.Frame]) -> tuple[base.Frame, ...]:
        """Return the commands, with passive declarations of what is given."""
        return tuple(self._passive(each) if _name(each) in self._names else each for each in commands)

    def learn(self, refused: base.Frame, reason: str) -> str | None:
        """Note why the broker has refused a declaration. Return what to report; ``None`` if this changes nothing.

        What was given and is gone is declared again.
        """
        name = _name(refused)
        if not name[1]:
            return None
        if refused.passive:  # type: ignore[attr-defined]  # only declarations have a name here
            self._names.discard(name)
            return None
        kind, given = name
        if ACCESS_REFUSED in reason and kind == _EXCHANGE:  # who may not declare one may hardly declare the others
            self._names.update((_EXCHANGE, each) for each in (*EXCHANGES, *DELAY_EXCHANGES))
            return f"the exchanges are used as they are, because the broker refuses to declare one: {reason}"
        if ACCESS_REFUSED not in reason and (PRECONDITION_FAILED not in reason or kind == _EXCHANGE):
            return None  # an exchange of another type would route in another way
        self._names.add(name)
        if ACCESS_REFUSED in reason and given in DELAY_QUEUES:  # likewise
            self._names.update((_QUEUE, each) for each in DELAY_QUEUES)
        if _DEAD_LETTER_EXCHANGE in reason and "but current is the value" in reason:
            self.dead_lettering.add(given)
        return f"the {kind} {shortened(given)} is used as it is, because the broker refuses to declare it: {reason}"

    @staticmethod
    def _passive(command: base.Frame) -> base.Frame:
        if isinstance(command, Queue.Declare):
            return Queue.Declare(queue=command.queue, passive=True)
        return Exchange.Declare(exchange=command.exchange, passive=True)  # type: ignore[attr-defined]


def _name(command: base.Frame) -> tuple[str, str]:
    """Return what is declared: ``("queue", name)`` or ``("exchange", name)``; an empty name if it is neither."""
    if isinstance(command, Queue.Declare):
        return _QUEUE, command.queue or ""
    return _EXCHANGE, command.exchange or "" if isinstance(command, Exchange.Declare) else ""


def _bounded(length: int) -> dict[str, Any]:
    """Return the arguments of a queue that the broker names."""
    return {"x-max-length": length} if length else {}


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


def bindings(
    wanted: Sequence[Subscription], queues: Mapping[str, str], prefetch: int, *, delayed: bool = False
) -> tuple[base.Frame, ...]:
    """Return the commands of the second step: the bindings of the queues, named by consumer tag, and the prefetch.

    Args:
        delayed: whether to bind the exchanges and queues of delayed messages, too.
    """
    bound = (
        Queue.Bind(queue=queues[subscription.tag], exchange=subscription.exchange, routing_key=key)
        for subscription in wanted
        for key in subscription.keys
    )
    return (*bound, *(delaying.bindings() if delayed else ()), Basic.Qos(prefetch_count=prefetch))


def any_binding(wanted: Sequence[Subscription], queues: Mapping[str, str]) -> base.Frame:
    """Return one of these commands: that of the first key of the first queue."""
    first = wanted[0]
    return Queue.Bind(queue=queues[first.tag], exchange=first.exchange, routing_key=first.keys[0])
