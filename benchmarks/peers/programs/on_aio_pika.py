"""aio-pika by hand, as its documentation shows it. What comes of a message is confirmed before it is acknowledged."""

from __future__ import annotations

import asyncio
import itertools

import aio_pika
import cbor2
from aio_pika.abc import AbstractIncomingMessage, AbstractQueue, AbstractRobustChannel

from benchmarks.peers.programs.work import ANSWERED, PREFETCH, WINDOW, Task, ask, begin, payload, spread, task


async def receive(channel: AbstractRobustChannel, task: Task) -> None:
    """Relay, consume, or answer, for ever."""
    events = await channel.get_exchange("events")

    async def relay(message: AbstractIncomingMessage) -> None:
        body = cbor2.dumps(cbor2.loads(message.body))
        await events.publish(aio_pika.Message(body, headers=message.headers, delivery_mode=2), ANSWERED)
        await message.ack()

    async def consume(message: AbstractIncomingMessage) -> None:
        cbor2.loads(message.body)
        await message.ack()

    async def serve(message: AbstractIncomingMessage) -> None:
        body = cbor2.dumps(cbor2.loads(message.body))
        answer = aio_pika.Message(body, correlation_id=message.correlation_id)
        await channel.default_exchange.publish(answer, message.reply_to or "")
        await message.ack()

    queue: AbstractQueue
    if task.work == "serve":
        queue = await channel.declare_queue(f"{task.service}.commands", durable=True)
        await queue.consume(serve)
    else:
        queue = await channel.get_queue(f"{task.service}.events")
        await queue.consume(relay if task.work == "relay" else consume)
    await asyncio.Event().wait()


async def publish(channel: AbstractRobustChannel, task: Task) -> None:
    events, message = await channel.get_exchange("events"), payload(task.size)

    async def one() -> None:
        body = aio_pika.Message(cbor2.dumps(message), headers={"conversation_id": "c"}, delivery_mode=2)
        await events.publish(body, ANSWERED)

    begin()
    await spread(task.count, WINDOW, one)
    await asyncio.Event().wait()


async def call(channel: AbstractRobustChannel, task: Task) -> None:
    """Ask by direct reply-to."""
    replies = await channel.get_queue("amq.rabbitmq.reply-to", ensure=False)
    waiting: dict[str | None, asyncio.Future[bytes]] = {}
    numbers, message = itertools.count(), payload(task.size)

    async def take(reply: AbstractIncomingMessage) -> None:
        waiting.pop(reply.correlation_id).set_result(reply.body)

    async def one() -> None:
        number = str(next(numbers))
        waiting[number] = asyncio.get_running_loop().create_future()
        command = aio_pika.Message(
            cbor2.dumps(message), correlation_id=number, reply_to="amq.rabbitmq.reply-to", delivery_mode=2
        )
        answered = waiting[number]
        await channel.default_exchange.publish(command, f"{task.service}.commands")
        cbor2.loads(await answered)

    await replies.consume(take, no_ack=True)
    await ask(task, one)
    await asyncio.Event().wait()


async def main(task: Task) -> None:
    async with await aio_pika.connect_robust(task.url) as connection:
        channel = await connection.channel(publisher_confirms=True)
        await channel.set_qos(PREFETCH)
        work = {"publish": publish, "ask": call}.get(task.work, receive)
        await work(channel, task)


if __name__ == "__main__":
    asyncio.run(main(task()))
