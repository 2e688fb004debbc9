"""FastStream, with a decoder for CBOR. Its handlers publish confirmed, and it acknowledges after them."""

from __future__ import annotations

import asyncio
from typing import Any

import cbor2
from faststream.rabbit import Channel, ExchangeType, RabbitBroker, RabbitExchange, RabbitMessage, RabbitQueue

from benchmarks.peers.programs.work import ANSWERED, PREFETCH, WINDOW, Task, ask, begin, payload, spread, task

EVENTS = RabbitExchange("events", type=ExchangeType.TOPIC, durable=True)


async def decode(message: RabbitMessage) -> Any:
    return cbor2.loads(message.body)


def subscribe(broker: RabbitBroker, task: Task) -> None:
    """Make the handler for the work."""
    events = RabbitQueue(f"{task.service}.events", durable=True, declare=False)
    if task.work == "relay":

        @broker.subscriber(events, decoder=decode)  # type: ignore[untyped-decorator]
        async def relay(body: Any, message: RabbitMessage) -> None:
            await send(broker, body, message.headers["conversation_id"])

    elif task.work == "consume":

        @broker.subscriber(events, decoder=decode)  # type: ignore[untyped-decorator]
        async def consume(body: Any) -> None:
            pass

    elif task.work == "serve":

        @broker.subscriber(RabbitQueue(f"{task.service}.commands", durable=True), decoder=decode)  # type: ignore[untyped-decorator]
        async def serve(body: Any) -> bytes:
            return cbor2.dumps(body)


async def send(broker: RabbitBroker, message: Any, conversation: str) -> None:
    """Publish an event; it is confirmed afterwards."""
    await broker.publish(
        cbor2.dumps(message),
        exchange=EVENTS,
        routing_key=ANSWERED,
        persist=True,
        content_type="application/cbor",
        headers={"conversation_id": conversation},
    )


async def main(task: Task) -> None:
    broker = RabbitBroker(task.url, logger=None, default_channel=Channel(prefetch_count=PREFETCH))
    subscribe(broker, task)
    async with broker:
        await broker.start()
        message = payload(task.size)
        if task.work == "publish":
            begin()
            await spread(task.count, WINDOW, lambda: send(broker, message, "c"))
        elif task.work == "ask":

            async def one() -> None:
                reply = await broker.request(cbor2.dumps(message), f"{task.service}.commands", persist=True)
                cbor2.loads(reply.body)

            await ask(task, one)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(task()))
