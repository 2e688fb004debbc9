"""Runs a check of a transport, on the embedded broker or on RabbitMQ."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from eda_core.testing.conformance.running.brokers import BrokerUnderTest, Embedded, Rabbit
from eda_core.testing.conformance.running.callbacks import MainThread, callback_subjects_of
from eda_core.testing.conformance.running.coroutines import subjects_of
from eda_core.testing.conformance.running.runner import Runner, no_task_is_left
from eda_core.testing.conformance.script import Check, MakeSubject
from eda_core.testing.live.embedded import EmbeddedBroker
from eda_core.testing.live.rabbitmq import RabbitNode
from eda_core.testing.live.vhosts import RabbitVhost, VhostPool

#: Where handlers run in the thread of the network, one that does not end can be ended in the main thread only.
_ENDS_HANDLERS: Final = frozenset({"a_stop_has_a_deadline"})


def run(check: Check, service: type[Any] | MakeSubject, threads: int, vhost: RabbitVhost | None) -> None:
    """See ``Case.run``."""
    if not isinstance(service, type):
        asyncio.run(_run(check, service, vhost))
    elif inspect.iscoroutinefunction(service.run):
        asyncio.run(_run(check, subjects_of(service), vhost))
    elif check.name in _ENDS_HANDLERS and not threads:
        main = MainThread()
        subjects = callback_subjects_of(service, begin=main.begin)
        main.during(lambda: asyncio.run(_run(check, subjects, vhost)))
    else:
        asyncio.run(_run(check, callback_subjects_of(service, threads), vhost))


async def _run(asked: Check, subjects: MakeSubject, vhost: RabbitVhost | None) -> None:
    if vhost is not None:
        await _run_on(Rabbit(vhost), asked, subjects)
    else:
        async with EmbeddedBroker() as embedded:
            await _run_on(Embedded(embedded), asked, subjects)
    await no_task_is_left()


async def _run_on(broker: BrokerUnderTest, asked: Check, subjects: MakeSubject) -> None:
    async with broker:
        await Runner(broker, subjects).run(asked)


@contextmanager
def vhosts(node: RabbitNode | None) -> Iterator[Callable[[], RabbitVhost | None]]:
    """In the block, what it gives returns a fresh vhost of the node; ``None`` without a node."""
    pool = None if node is None else VhostPool(node, dead_letters=True)
    used: list[str] = []

    def fresh() -> RabbitVhost | None:
        if node is None or pool is None:
            return None
        if used:
            pool.give_back(used.pop())
        node.start()  # a check that has failed may have left it killed
        used.append(pool.take())
        return RabbitVhost(node, used[0])

    yield fresh
