"""pika by hand, as short as it can be while nothing is lost: a message is acknowledged after what came of it."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import cbor2
import pika

from benchmarks.peers.programs.work import ANSWERED, PREFETCH, WINDOW, Task, begin, payload, task


def relay(channel: Any, task: Task) -> None:
    numbers = itertools.count(1)
    waiting: dict[int, int] = {}  # deliveries, by the number of what was published for them

    def take(_channel: Any, method: Any, properties: Any, body: bytes) -> None:
        waiting[next(numbers)] = method.delivery_tag
        channel.basic_publish("events", ANSWERED, cbor2.dumps(cbor2.loads(body)), properties)

    def confirmed(frame: Any) -> None:
        assert frame.method.NAME == "Basic.Ack"
        upto = frame.method.delivery_tag
        for number in [number for number in waiting if number <= upto] if frame.method.multiple else [upto]:
            channel.basic_ack(waiting.pop(number))

    channel.basic_qos(prefetch_count=PREFETCH)
    channel.confirm_delivery(confirmed, lambda _: channel.basic_consume(f"{task.service}.events", take))


def consume(channel: Any, task: Task) -> None:
    def take(_channel: Any, method: Any, properties: Any, body: bytes) -> None:
        cbor2.loads(body)
        channel.basic_ack(method.delivery_tag)

    channel.basic_qos(prefetch_count=PREFETCH)
    channel.basic_consume(f"{task.service}.events", take)


def publish(channel: Any, task: Task) -> None:
    message, numbers, waiting = payload(task.size), iter(range(1, task.count + 1)), set[int]()
    properties = pika.BasicProperties("application/cbor", headers={"conversation_id": "c"}, delivery_mode=2)

    def more() -> None:
        while len(waiting) < WINDOW and (number := next(numbers, None)) is not None:
            waiting.add(number)
            channel.basic_publish("events", ANSWERED, cbor2.dumps(message), properties)

    def confirmed(frame: Any) -> None:
        assert frame.method.NAME == "Basic.Ack"
        upto = frame.method.delivery_tag
        waiting.difference_update([number for number in waiting if number <= upto] if frame.method.multiple else [upto])
        more()

    def prepared(_frame: Any) -> None:
        begin()
        more()

    channel.confirm_delivery(confirmed, prepared)


WORKS: dict[str, Callable[[Any, Task], None]] = {"relay": relay, "consume": consume, "publish": publish}


def main(task: Task) -> None:
    work = WORKS[task.work]
    connection = pika.SelectConnection(
        pika.URLParameters(task.url),
        lambda made: made.channel(on_open_callback=lambda channel: work(channel, task)),
    )
    connection.ioloop.start()


if __name__ == "__main__":
    main(task())
