"""The brokers that the checks run on. Each starts empty, with dead letters set up."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Self
from urllib.parse import urlsplit

from eda_core.testing.broker.dead_letters import EXCHANGE
from eda_core.testing.conformance.running.operator import Operator
from eda_core.testing.conformance.script import BROKER, DEAD_LETTERS, NOBODY, THE_WRONG_PASSWORD, Declare
from eda_core.testing.live.embedded import EmbeddedBroker
from eda_core.testing.live.proxy import Proxy
from eda_core.testing.live.rabbitmq import free_port
from eda_core.testing.live.vhosts import RabbitVhost


class BrokerUnderTest(ABC):
    """A broker with a proxy in front of it, for the services, and an operator beside it.

    Attributes:
        proxy, operator: those.
        user: with which workers log in; its password is "guest".
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self.proxy: Proxy = Proxy(urlsplit(url).port or 5672)
        self.operator: Operator = Operator(url)
        self.user = "guest"
        self._nobody = free_port()

    async def __aenter__(self) -> Self:
        await self.proxy.__aenter__()
        await self.operator.declare(Declare(DEAD_LETTERS, EXCHANGE))
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
        return f"amqp://{self.user}:{password}@127.0.0.1:{port}{urlsplit(self._url).path}"

    @abstractmethod
    async def alarm(self, on: bool) -> None:
        """Raise or clear the memory alarm."""

    @abstractmethod
    async def limit(self, size: int) -> None:
        """Set the size, in bytes, of the largest message that the broker takes."""

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
        super().__init__(broker.url)
        self.embedded = broker

    async def alarm(self, on: bool) -> None:
        await self.embedded.operate(lambda broker, now: broker.set_alarm(on, now=now))

    async def limit(self, size: int) -> None:
        await self.embedded.operate(lambda broker, now: broker.limit_messages(size, now=now))

    async def kill(self) -> None:
        await self.embedded.kill()


class Rabbit(BrokerUnderTest):
    """A vhost of a RabbitMQ node that may be killed and alarmed. It has the dead-letter policy."""

    def __init__(self, vhost: RabbitVhost) -> None:
        super().__init__(vhost.url)
        self._node = vhost.node

    async def __aexit__(self, *_error: object) -> None:
        if self._node.alarmed:
            await self.alarm(False)
        if self._node.limited:
            await asyncio.to_thread(self._node.limit_messages, None)
        await super().__aexit__()

    async def alarm(self, on: bool) -> None:
        await asyncio.to_thread(self._node.set_memory_alarm, on)

    async def limit(self, size: int) -> None:
        await asyncio.to_thread(self._node.limit_messages, size)

    async def kill(self) -> None:
        await asyncio.to_thread(self._node.kill)
        await asyncio.to_thread(self._node.start)
