"""One link to the broker: performs the machine's effects on it and tells the machine what comes of them.

Two connections, one for consuming and one for publishing: during a resource alarm the broker reads nothing more from a
connection that has published, not even acknowledgements (``FACTS.md``, "RabbitMQ"). They are aiormq's, the layer below
aio-pika, which takes pamqp's commands as the core makes them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from ssl import SSLContext
from typing import Any, cast

from aiormq import Channel
from aiormq import Connection as Aiormq
from aiormq.abc import DeliveredMessage
from aiormq.exceptions import AuthenticationError, DeliveryError, ProbableAuthenticationError
from pamqp.commands import Basic
from pamqp.commands import Connection as Method
from yarl import URL

from eda_core import Ack, Cancel, Close, Connect, Consume, Declare, Effect, Nack, Publish, PublishLog
from eda_core.driver import Driver

#: Seconds that a connection has to close by itself once the link is lost.
_GRACE = 0.5


class Connection(Aiormq):
    """aiormq only logs that the broker blocks publishing; this one calls ``on_blocked`` with the reason, or ``None``.

    The methods are private to aiormq, and replaced by having the same class name; a test sees that they are called.
    """

    on_blocked: Callable[[str | None], None] = staticmethod(lambda reason: None)

    async def __handle_connection_blocked(self, frame: Method.Blocked) -> None:
        self.on_blocked(frame.reason)

    async def __handle_connection_unblocked(self, _: Method.Unblocked) -> None:
        self.on_blocked(None)


class Link:
    """The connections and channels of one epoch. Made with what the machine asked for, it begins to open.

    Args:
        timeout: seconds for an AMQP command to be answered, and for the link to close.
        ssl: for ``amqps://``; ``None`` checks the chain and the host name.
    """

    def __init__(self, connect: Connect, driver: Driver, timeout: float, ssl: SSLContext | None) -> None:
        self._epoch = connect.epoch
        self._asked = connect
        self._driver = driver
        self._machine = driver.machine
        self._timeout = timeout
        self._ssl = ssl
        self._connections: list[Connection] = []
        self._effects: asyncio.Queue[Effect] = asyncio.Queue()
        self._publishing: set[asyncio.Task[None]] = set()
        self._open = self._closing = self._abandoned = False
        self._actions: dict[type, Callable[[Any], Awaitable[Any]]] = {
            Declare: self._declare,
            Consume: self._consume,
            Cancel: lambda effect: self._consumer.basic_cancel(effect.consumer_tag, timeout=timeout),
            Ack: lambda effect: self._consumer.basic_ack(effect.tag, effect.multiple, wait=False),
            Nack: lambda effect: self._consumer.basic_nack(effect.tag, requeue=effect.requeue, wait=False),
            PublishLog: self._log,
        }
        self.task: asyncio.Task[None] = asyncio.create_task(self._run(), name=f"eda link {self._epoch}")
        self._end, self._refused = "given up", False
        # Not at the end of the task, which does not even begin when it is cancelled at once.
        self.task.add_done_callback(lambda _: self._tell(self._machine.link_down, self._end, refused=self._refused))

    def perform(self, effect: Effect) -> None:
        """Do it in its turn. Never raises: what fails is reported."""
        if isinstance(effect, Publish):
            task = asyncio.create_task(self._publish(effect))
            self._publishing.add(task)
            task.add_done_callback(self._publishing.discard)
        elif isinstance(effect, Close) and not self._open:
            self.abandon()
        else:
            self._effects.put_nowait(effect)
            if isinstance(effect, Close):
                self.task.get_loop().call_later(max(0.0, self._timeout - 2 * _GRACE), self.abandon)

    def abandon(self) -> None:
        """Close by force."""
        if not self._abandoned:
            self._abandoned = True  # aiormq turns some cancellations into other errors
            self.task.cancel()

    def _tell(self, method: Callable[..., list[Effect]], *arguments: Any, **named: Any) -> None:
        self._driver.tell(method, self._epoch, *arguments, **named)

    def _failed(self, effect: Effect, reason: str) -> None:
        if not self._closing:
            self._driver.tell(self._machine.effect_failed, effect, reason)

    # Opening and closing

    async def _run(self) -> None:
        try:
            await self._connect()
            self._open = True
            self._tell(self._machine.link_up)
            while not self._abandoned and not isinstance(effect := await self._effects.get(), Close):
                try:
                    await self._actions[type(effect)](effect)
                except Exception as error:
                    self._failed(effect, _reason(error))
            if not self._abandoned:
                await self._leave()
                self._end = "closed"
        except asyncio.CancelledError:
            pass
        except Exception as error:
            self._end = _reason(error)
            self._refused = isinstance(error, (AuthenticationError, ProbableAuthenticationError))
        self._closing = self._abandoned = True
        for task in self._publishing:
            task.cancel()
        await asyncio.gather(*map(_drop, self._connections))

    async def _connect(self) -> None:
        consuming, publishing = await self._connection(), await self._connection()
        self._consumer = await self._channel(consuming, confirms=False)
        self._consumer.on_consumer_cancel_callbacks.add(self._on_cancelled)
        self._publisher = await self._channel(publishing, confirms=True)
        self._logger = await self._channel(publishing, confirms=False)

    async def _connection(self) -> Connection:
        asked = self._asked
        url = URL(asked.url).update_query(heartbeat=asked.heartbeat, name=asked.name)
        connection = Connection(url, context=self._ssl)
        connection.on_blocked = self._on_blocked
        await connection.connect()
        self._connections.append(connection)
        connection.closing.add_done_callback(self._on_connection_closed)
        return connection

    async def _channel(self, connection: Connection, *, confirms: bool) -> Channel:
        channel = cast(Channel, await connection.channel(publisher_confirms=confirms, on_return_raises=False))
        channel.closing.add_done_callback(self._on_channel_closed)
        return channel

    def _on_cancelled(self, frame: Basic.Cancel) -> None:
        self._tell(self._machine.consumer_cancelled, frame.consumer_tag)

    def _on_blocked(self, reason: str | None) -> None:
        self._tell(self._machine.unblocked) if reason is None else self._tell(self._machine.blocked, reason)

    def _on_connection_closed(self, closing: asyncio.Future[Any]) -> None:
        if not self._closing:
            self._tell(self._machine.link_down, _reason(closing.exception()))
            self.abandon()

    def _on_channel_closed(self, closing: asyncio.Future[Any]) -> None:
        error = None if closing.cancelled() else closing.exception()
        if not self._closing and isinstance(error, Exception):
            self._tell(self._machine.channel_closed, _reason(error))

    async def _leave(self) -> None:
        """A channel's close is answered after all that was sent before it; a connection's close may overtake that."""
        self._closing = True
        for end in (self._consumer, self._logger, *self._connections):
            await end.close()

    # Effects

    async def _declare(self, effect: Declare) -> None:
        self._tell(
            self._machine.declared, [await self._consumer.rpc(each, timeout=self._timeout) for each in effect.commands]
        )

    async def _consume(self, effect: Consume) -> None:
        tag = effect.consumer_tag
        await self._consumer.basic_consume(effect.queue, self._on_message, consumer_tag=tag, timeout=self._timeout)

    async def _on_message(self, message: DeliveredMessage) -> None:
        got, properties = cast(Basic.Deliver, message.delivery), message.header.properties
        where = (got.exchange, got.routing_key)
        self._tell(self._machine.delivered, got.delivery_tag, got.redelivered, *where, properties, message.body)

    async def _log(self, effect: PublishLog) -> None:
        key, properties = effect.routing_key, effect.properties
        await self._logger.basic_publish(
            effect.body, exchange="logs", routing_key=key, properties=properties, wait=False
        )

    async def _publish(self, effect: Publish) -> None:
        try:
            answer = await self._publisher.basic_publish(
                effect.body,
                exchange=effect.exchange,
                routing_key=effect.routing_key,
                properties=effect.properties,
                mandatory=effect.mandatory,
                wait=False,
            )
        except DeliveryError:
            self._tell(self._machine.refused, effect.tag)
        except asyncio.CancelledError:  # aiormq cancels what waits on a connection that died
            self._failed(effect, "the connection was lost")
        except Exception as error:
            self._failed(effect, _reason(error))
        else:
            if isinstance(answer, DeliveredMessage):  # a returned message instead of its confirm
                back, properties = answer.delivery, answer.header.properties
                self._tell(
                    self._machine.returned, back.exchange, back.routing_key, properties, answer.body, back.reply_text
                )
            self._tell(self._machine.confirmed, effect.tag)


async def _drop(connection: Connection) -> None:
    """Close it within :data:`_GRACE`, by force if need be: aiormq's second ``close`` does not wait for the peer."""
    for _ in range(2):
        with suppress(Exception):
            await asyncio.wait_for(connection.close(), _GRACE)


def _reason(error: BaseException | None) -> str:
    return "closed" if error is None else f"{type(error).__name__}: {error}".splitlines()[0].rstrip(": ")
