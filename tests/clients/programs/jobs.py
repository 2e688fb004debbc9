"""The everyday work of FastStream, on the broker whose URL is the argument: prints what its handlers have got."""

from __future__ import annotations

import asyncio
import sys

from faststream import AckPolicy
from faststream.rabbit import ExchangeType, RabbitBroker, RabbitExchange, RabbitMessage, RabbitQueue

ORDERS = RabbitExchange("orders", type=ExchangeType.TOPIC, durable=True)
DEAD = RabbitExchange("dead", type=ExchangeType.FANOUT)
JOBS = RabbitQueue("jobs", durable=True, routing_key="order.*", arguments={"x-dead-letter-exchange": "dead"})


async def work(url: str) -> None:
    """Publish, subscribe, answer by publishing, reject what fails, settle by hand, and request."""
    broker, done = RabbitBroker(url, logger=None), asyncio.Queue[str]()

    @broker.subscriber(JOBS, ORDERS, ack_policy=AckPolicy.REJECT_ON_ERROR)
    @broker.publisher("results")
    async def divide(number: int) -> dict[str, int]:
        if not number % 3:
            raise ValueError("that three divides")
        return {"number": number}

    @broker.subscriber("results")
    async def take(result: dict[str, int]) -> None:
        await done.put(f"result {result['number']}")

    @broker.subscriber(RabbitQueue("dead"), DEAD)
    async def bury(number: int, message: RabbitMessage) -> None:
        await done.put(f"dead letter {number} of {message.headers['x-death'][0]['queue']}")

    @broker.subscriber("manual", ack_policy=AckPolicy.MANUAL)
    async def settle(text: str, message: RabbitMessage) -> None:
        again = message.raw_message.redelivered
        await (message.ack() if again else message.nack(requeue=True))
        await done.put(f"{text}{' again' if again else ''}")

    @broker.subscriber("questions")
    async def answer(text: str) -> str:
        return f"{text}!"

    async with broker:
        await broker.start()
        for number in range(6):
            await broker.publish(number, exchange=ORDERS, routing_key="order.placed", persist=True)
        await broker.publish("by hand", "manual")
        print(*sorted([await done.get() for _ in range(8)]), sep="\n", flush=True)
        # A request waits for the answer of the subscriber, by direct reply-to.
        answers = await asyncio.gather(*(broker.request(text, "questions") for text in ("well", "so")))
        print(*[await answer.decode() for answer in answers], sep="\n", flush=True)


if __name__ == "__main__":
    asyncio.run(work(sys.argv[1]))
