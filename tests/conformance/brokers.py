"""The brokers that adapters are put to the checks on: each starts empty, with dead letters set up."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Self
from urllib.parse import urlsplit

from eda_core.testing.conformance_script import (
    BROKER,
    DEAD_LETTERS,
    NOBODY,
    THE_WRONG_PASSWORD,
    Declare,
)
from eda_tools.broker import EmbeddedBroker
from tests.conformance.operator import Operator
from tests.conformance.proxy import Proxy
from tests.support.rabbitmq import DLX_DEFINITION, DLX_PATTERN, RabbitNode, free_port

DEAD_LETTER_EXCHANGE = "am-dlx"


class BrokerUnderTest(ABC):
    """A broker with a proxy in front of it, for the services, and an operator beside it.

    Attributes:
        proxy, operator: those.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self.proxy = Proxy(urlsplit(url).port or 5672)
        self.operator = Operator(url)
        self._nobody = free_port()

    async def __aenter__(self) -> Self:
        await self.proxy.__aenter__()
        await self.operator.declare(Declare(DEAD_LETTERS, DEAD_LETTER_EXCHANGE))
        return self

    async def __aexit__(self, *_error: object) -> None:
        await self.operator.close()
        await self.proxy.__aexit__()

    def urls(self, names: Sequence[str]) -> list[str]:
        """The URLs of a worker."""
        return [self._address(name) for name in names]

    def _address(self, name: str) -> str:
        port = self._nobody if name == NOBODY else self.proxy.port
        password = "guest" if name in (BROKER, NOBODY) else THE_WRONG_PASSWORD
        return f"amqp://guest:{password}@127.0.0.1:{port}{urlsplit(self._url).path}"

    @abstractmethod
    async def alarm(self, on: bool) -> None:
        """Raise or clear the memory alarm."""

    async def restart(self) -> None:
        """Kill the broker and start it again."""
        await self.operator.close()
        await self.kill()

    @abstractmethod
    async def kill(self) -> None:
        """The broker's part of ``restart``."""


class Embedded(BrokerUnderTest):
    """The embedded broker. Enter the EmbeddedBroker first."""

    def __init__(self, broker: EmbeddedBroker) -> None:
        super().__init__(broker.url.replace("amqp://", "amqp://guest:guest@"))
        self._broker = broker

    async def alarm(self, on: bool) -> None:
        await self._broker.operate(lambda broker, now: broker.set_alarm(on, now=now))

    async def kill(self) -> None:
        await self._broker.kill()


class Rabbit(BrokerUnderTest):
    """A vhost of a RabbitMQ node that may be mistreated."""

    def __init__(self, node: RabbitNode, vhost: str) -> None:
        super().__init__(node.vhost_url(vhost))
        self._node = node
        self._alarmed = False

    async def __aexit__(self, *_error: object) -> None:
        if self._alarmed:
            await self.alarm(False)
        await super().__aexit__()

    async def alarm(self, on: bool) -> None:
        self._alarmed = on
        await asyncio.to_thread(self._node.set_memory_alarm, on)

    async def kill(self) -> None:
        await asyncio.to_thread(self._node.kill)
        await asyncio.to_thread(self._node.start)


class Vhosts:
    """Fresh vhosts of one node with the dead-letter policy, made many at a time: every rabbitmqctl takes a second."""

    BATCH = 24

    def __init__(self, node: RabbitNode) -> None:
        self._node = node
        self._fresh: list[str] = []
        self._made = 0

    def take(self) -> str:
        """The name of a vhost that nobody has used."""
        if not self._fresh:
            fresh = [f"conformance-{self._made + number}" for number in range(self.BATCH)]
            self._made += self.BATCH
            self._node.change_vhosts(add=fresh)
            names = ", ".join(f'<<"{name}">>' for name in fresh)
            pattern, definition = (
                text.replace("\\", "\\\\").replace('"', '\\"') for text in (DLX_PATTERN, DLX_DEFINITION)
            )
            self._node.eval(
                f'[ok = rabbit_policy:parse_set(V, <<"DLX">>, <<"{pattern}">>, <<"{definition}">>, <<"0">>, '
                f'<<"queues">>, <<"eda">>) || V <- [{names}]].'
            )
            self._fresh = fresh  # now that they are there: what fails here must not fail all that follow
        return self._fresh.pop()
