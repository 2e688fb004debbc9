"""One link to the broker on aio-pika: performs the machine's effects on it and tells the machine what comes of them.

Two connections, one for consuming and one for publishing: during a resource alarm the broker reads nothing more from a
connection that has published, not even acknowledgements (``FACTS.md``, "RabbitMQ"). Commands go to the channels of
aiormq, below aio-pika's: they take pamqp's commands as the core makes them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from ssl import SSLContext
from typing import Any, cast

import aio_pika
from aio_pika.abc import AbstractConnection
from aiormq.abc import DeliveredMessage
from aiormq.channel import Channel
from aiormq.exceptions import AuthenticationError, DeliveryError, ProbableAuthenticationError
from pamqp.commands import Basic

from eda_core import Ack, Cancel, Close, Connect, Consume, Declare, Effect, Nack, Publish, PublishLog
from eda_core.driver import Driver


class Link:
    """The connections and channels of one epoch. Made with what the machine asked for, it begins to open.

    Args:
        timeout: seconds for an AMQP command to be answered, and for a connection to close.
        ssl: for ``amqps://``; ``None`` checks the chain and the host name.
    """

    def __init__(self, connect: Connect, driver: Driver, timeout: float, ssl: SSLContext | None) -> None:
        self._epoch = connect.epoch
        self._asked = connect
        self._driver = driver
        self._machine = driver.machine
        self._timeout = timeout
        self._ssl = ssl
        self._connections: list[AbstractConnection] = []
        self._effects: asyncio.Queue[Effect] = asyncio.Queue()
        self._publishing: set[asyncio.Task[None]] = set()
        self._open = self._closing = False
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
        self.task.add_done_callback(self._report_end)

    def perform(self, effect: Effect) -> None:
        """Do it in its turn. Never raises: what fails is reported."""
        if isinstance(effect, Publish):
            task = asyncio.create_task(self._publish(effect))
            self._publishing.add(task)
            task.add_done_callback(self._publishing.discard)
        elif isinstance(effect, Close) and not self._open:
            self.task.cancel()
        else:
            self._effects.put_nowait(effect)

    async def _run(self) -> None:
        try:
            await self._connect()
            self._open = True
            self._driver.tell(self._machine.link_up, self._epoch)
            while not isinstance(effect := await self._effects.get(), Close):
                await self._try(effect)
            await self._flush()
            self._end = "closed"
        except asyncio.CancelledError:
            pass
        except Exception as error:
            self._end = _reason(error)
            self._refused = isinstance(error, (AuthenticationError, ProbableAuthenticationError))
        self._closing = True
        for task in self._publishing:
            task.cancel()
        await asyncio.gather(*map(self._close, self._connections))

    def _report_end(self, _task: asyncio.Task[None]) -> None:
        self._driver.tell(self._machine.link_down, self._epoch, self._end, refused=self._refused)

    async def _try(self, effect: Effect) -> None:
        try:
            await self._actions[type(effect)](effect)
        except Exception as error:
            self._failed(effect, _reason(error))

    def _failed(self, effect: Effect, reason: str) -> None:
        if not self._closing:
            self._driver.tell(self._machine.effect_failed, effect, reason)

    # Opening and closing

    async def _connect(self) -> None:
        consuming, publishing = await self._connection(), await self._connection()
        self._consumer = await self._channel(consuming, confirms=False)
        self._consumer.on_consumer_cancel_callbacks.add(self._on_cancelled)
        self._publisher = await self._channel(publishing, confirms=True)
        self._logger = await self._channel(publishing, confirms=False)

    async def _connection(self) -> AbstractConnection:
        asked = self._asked
        connection = await aio_pika.connect(
            asked.url, heartbeat=asked.heartbeat, name=asked.name, ssl_context=self._ssl
        )
        self._connections.append(connection)
        connection.close_callbacks.add(self._on_connection_closed)
        return connection

    async def _channel(self, connection: AbstractConnection, *, confirms: bool) -> Channel:
        channel = connection.channel(publisher_confirms=confirms)
        await channel.initialize()
        underlay = cast(Channel, await channel.get_underlay_channel())
        underlay.closing.add_done_callback(self._on_channel_closed)
        return underlay

    def _on_connection_closed(self, _connection: object, error: BaseException | None) -> None:
        if not self._closing:
            self._driver.tell(self._machine.link_down, self._epoch, _reason(error))
            self.task.cancel()

    def _on_channel_closed(self, closing: asyncio.Future[Any]) -> None:
        error = None if closing.cancelled() else closing.exception()
        if not self._closing and isinstance(error, Exception):
            self._driver.tell(self._machine.channel_closed, self._epoch, _reason(error))

    def _on_cancelled(self, frame: Basic.Cancel) -> None:
        self._driver.tell(self._machine.consumer_cancelled, self._epoch, frame.consumer_tag)

    async def _flush(self) -> None:
        """A channel's close is answered after all that was sent before it; a connection's close may overtake that."""
        self._closing = True
        for channel in (self._consumer, self._logger):
            await asyncio.wait_for(channel.close(), self._timeout)

    async def _close(self, connection: AbstractConnection) -> None:
        try:
            await asyncio.wait_for(connection.close(), self._timeout)
        except Exception as error:  # given up in any case: the heartbeat ends what does not answer
            self._driver.report(7, f"closing a connection: {_reason(error)}")

    # Effects

    async def _declare(self, effect: Declare) -> None:
        replies = [await self._consumer.rpc(command, timeout=self._timeout) for command in effect.commands]
        self._driver.tell(self._machine.declared, self._epoch, replies)

    async def _consume(self, effect: Consume) -> None:
        tag = effect.consumer_tag
        await self._consumer.basic_consume(effect.queue, self._on_message, consumer_tag=tag, timeout=self._timeout)

    async def _on_message(self, message: DeliveredMessage) -> None:
        got = cast(Basic.Deliver, message.delivery)
        self._driver.tell(
            self._machine.delivered,
            self._epoch,
            got.delivery_tag,
            got.redelivered,
            got.exchange,
            got.routing_key,
            message.header.properties,
            message.body,
        )

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
            self._driver.tell(self._machine.refused, self._epoch, effect.tag)
        except asyncio.CancelledError:  # aiormq cancels what waits on a connection that died
            self._failed(effect, "the connection was lost")
        except Exception as error:
            self._failed(effect, _reason(error))
        else:
            if isinstance(answer, DeliveredMessage):  # a returned message instead of its confirm
                back, properties = answer.delivery, answer.header.properties
                self._driver.tell(
                    self._machine.returned,
                    self._epoch,
                    back.exchange,
                    back.routing_key,
                    properties,
                    answer.body,
                    back.reply_text,
                )
            self._driver.tell(self._machine.confirmed, self._epoch, effect.tag)


def _reason(error: BaseException | None) -> str:
    return "closed" if error is None else f"{type(error).__name__}: {error}".splitlines()[0].rstrip(": ")
