"""Logs to the bus wait for nothing: they come from handlers of logging, from handlers of signals, from any thread."""

from __future__ import annotations

import asyncio
import json
import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest

from eda_core import LocalError, StateError
from eda_core.criticality import INFO, WARNING
from eda_tools.broker import EmbeddedBroker
from tests.adapters.pika.support import Listener, publish, running
from tests.support.services import TIMEOUT, asynchronous, peer, program, within

IN_THREADS = pytest.mark.parametrize("threads", [0, 3])
Meta = dict[str, Any]


class ToTheBus(logging.Handler):
    """Sends what the thread ``source`` logs to the bus, but not before another thread waits for this handler's lock.

    Attributes:
        send: sends a text, in the thread that logs.
        wanted: set when another thread wants the lock.
    """

    def __init__(self, source: str, send: Any) -> None:
        super().__init__()
        self.source, self.send = source, send
        self.wanted = threading.Event()

    def handle(self, record: logging.LogRecord) -> bool:
        if threading.current_thread().name != self.source:
            self.wanted.set()
        return super().handle(record)

    def emit(self, record: logging.LogRecord) -> None:
        if threading.current_thread().name == self.source:
            assert self.wanted.wait(TIMEOUT), "no other thread logs"
            self.send(record.getMessage())


@contextmanager
def handling(handler: logging.Handler) -> Iterator[None]:
    root = logging.getLogger()
    root.addHandler(handler)
    try:
        yield
    finally:
        root.removeHandler(handler)


@contextmanager
def levels(wanted: dict[str, int]) -> Iterator[None]:
    """Set the levels of loggers, by name, in the block."""
    before = {name: logging.getLogger(name).level for name in wanted}
    for name, level in wanted.items():
        logging.getLogger(name).setLevel(level)
    try:
        yield
    finally:
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)


@pytest.mark.parametrize("sends", ["log", "publish_event"])
@IN_THREADS
@asynchronous
async def test_a_handler_of_logging_may_use_the_service_while_the_service_logs(threads: int, sends: str) -> None:
    """One thread has the lock of the handler when the service writes a report in its loop."""
    kind: Any = type("Listener", (Listener,), {"HANDLER_THREADS": threads})
    async with EmbeddedBroker() as broker, peer(broker.url) as client:
        tap = await client.tap("logs" if sends == "log" else "events", "#")
        service = kind(broker.url)

        def send(text: str) -> None:
            if sends == "log":
                service.log(INFO, text)
            else:
                service.publish_event("Logged", text, "c")

        async with running(service):
            driver: Any = service.running_driver()
            with handling(ToTheBus("logs", send)):
                thread = threading.Thread(target=logging.warning, args=("on the bus",), name="logs", daemon=True)
                thread.start()
                driver.loop.add_callback_threadsafe(partial(driver.report, WARNING, "from the loop"))
                await within(asyncio.to_thread(thread.join), "the end of the log")
            assert b"on the bus" in (await tap.next()).body


@asynchronous
async def test_a_handler_of_logging_that_takes_everything_gets_nothing_of_its_own_logs() -> None:
    """At the level DEBUG pika logs each call from another thread. The adapter's own level keeps that out."""
    seen: list[str] = []

    class Everything(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            seen.append(record.getMessage())
            service.log(INFO, record.getMessage())

    async with EmbeddedBroker() as broker:
        service = Listener(broker.url)
        async with running(service):
            with handling(Everything()), levels({"": logging.DEBUG, "eda_pika": logging.INFO}):
                await service.do(logging.warning, "on the bus")
                await service.do(service.publish_event, "Happened", 1, "c")
    assert [text for text in seen if "callback" in text] == []
    assert "on the bus" in seen


@asynchronous
async def test_a_log_does_not_wait_for_a_loop_that_a_handler_blocks() -> None:
    logged = threading.Event()

    class Waits(Listener):
        def handle_event(self, event: str, payload: Any, conversation_id: str, meta: Meta) -> None:
            def log() -> None:
                self.log(INFO, "from another thread")
                logged.set()

            threading.Thread(target=log, daemon=True).start()
            self.note(logged.wait(TIMEOUT))

    async with EmbeddedBroker() as broker, peer(broker.url) as client:
        logs = await client.tap("logs", "#")
        service = Waits(broker.url, ["Happened"])
        async with running(service):
            await publish(service, 1)
            assert await service.seen.next() is True
        record = json.loads((await logs.next()).body)
        assert record["short_message"] == "from another thread"


@IN_THREADS
@asynchronous
async def test_what_a_handler_logs_is_sent_before_what_it_publishes(threads: int) -> None:
    """So a log of the last handler before a stop is not lost."""

    class Logs(Listener):
        HANDLER_THREADS = threads

        def handle_event(self, event: str, payload: Any, conversation_id: str, meta: Meta) -> None:
            for number in range(100):
                self.log(INFO, str(number), conversation_id=conversation_id)
            self.stop()

    async with EmbeddedBroker() as broker, peer(broker.url) as client:
        logs = await client.tap("logs", "#")
        service = Logs(broker.url, ["Happened"])
        service.in_thread()
        await service.ready.count(1)
        await publish(service, 1)
        await service.ended()
        records = [json.loads(each.body) for each in await logs.count(100)]
        assert [each["short_message"] for each in records] == [str(number) for number in range(100)]
        times = [each["timestamp"] for each in records]
        assert times == sorted(times)


@asynchronous
async def test_a_wrong_log_raises_where_it_is_made_and_one_after_the_end_is_dropped() -> None:
    service = Listener("amqp://guest:guest@127.0.0.1:1/")
    async with running(service, ready=False):
        with pytest.raises(LocalError, match="log level 9"):
            await service.do(service.log, 9, "x")
        with pytest.raises(LocalError, match="name 'id'"):
            await service.do(service.log, INFO, "x", additional_fields={"id": 1})
    await service.do(service.log, INFO, "too late")
    with pytest.raises(StateError, match="stopped"):
        await service.do(service.publish_event, "Happened", 1, "c")


SIGNALLED = """
import os, signal, sys
from eda_core.criticality import INFO, WARNING
from eda_pika import Service

class Worker(Service):
    HANDLER_THREADS = int(sys.argv[1])

    def on_ready(self):
        os.write(1, b"ready\\n")

service = Worker(os.environ["EDA_AMQP_URL"], [], [], "worker")
signal.signal(signal.SIGUSR1, lambda *_: service.log(INFO, "signalled"))
service.run()
"""


@IN_THREADS
@asynchronous
async def test_a_handler_of_signals_may_log(threads: int) -> None:
    """It runs anywhere in the main thread: it must take no lock, and not use the machine in the middle of an input."""
    async with EmbeddedBroker() as broker, peer(broker.url) as client:
        logs = await client.tap("logs", "#")
        async with program("-c", SIGNALLED, str(threads), url=broker.url) as worker:
            await worker.says("ready")
            for number in range(20):
                worker.process.send_signal(signal.SIGUSR1)
                record = json.loads((await logs.count(number + 1))[number].body)
                assert record["short_message"] == "signalled"
            worker.process.send_signal(signal.SIGTERM)
            assert (await worker.end(), worker.errors) == (0, "")
