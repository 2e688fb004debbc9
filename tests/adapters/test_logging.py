"""``eda_logging`` with the services of all adapters, on the embedded broker: what a program logs comes to the bus."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import pytest

import eda_aio
import eda_pika
from eda_core import LocalError, LogRecord
from eda_core.testing.live import Bus, EmbeddedBrokerThread, ServiceRunner
from eda_logging import BusHandler
from eda_tools.broker import EmbeddedBroker
from tests.support.services import TIMEOUT, Record, asynchronous, peer, program, within

KINDS = ("aio-pika", "native", "pika", "threads")
EACH = pytest.mark.parametrize("kind", KINDS)
LOGGER = logging.getLogger("shop.orders")


class Run:
    """A service, in this loop or in a thread of its own."""

    def __init__(self, kind: str, url: str, **settings: Any) -> None:
        run = self
        self.ready, self.seen = threading.Event(), threading.Event()
        self.on_event: Callable[[], None] = lambda: None
        self.kind = kind

        class Aio(eda_aio.Service):
            TRANSPORT = kind if kind in ("aio-pika", "native") else "native"

            async def on_ready(self) -> None:
                run.ready.set()

            async def on_Happened(self, payload: Any, conversation_id: str, meta: dict[str, Any]) -> None:
                run.on_event()
                run.seen.set()

        class Pika(eda_pika.Service):
            HANDLER_THREADS = 2 if kind == "threads" else 0

            def on_ready(self) -> None:
                run.ready.set()

            def on_Happened(self, payload: Any, conversation_id: str, meta: dict[str, Any]) -> None:
                run.on_event()
                run.seen.set()

        made: Any = Aio if kind in ("aio-pika", "native") else Pika
        self.service: Any = made(url, ["Happened"], [], "shop", **settings)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        aio = isinstance(self.service, eda_aio.Service)
        task = asyncio.create_task(self.service.run() if aio else asyncio.to_thread(self.service.run))
        try:
            assert await asyncio.to_thread(self.ready.wait, TIMEOUT), "the service is ready"
            yield
        finally:
            stopping = self.service.stop()
            if aio:
                await stopping
            await within(task, "the service stops")


@contextmanager
def handling(handler: logging.Handler, logger: logging.Logger = LOGGER) -> Iterator[None]:
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


def read(messages: Record[Any]) -> list[dict[str, Any]]:
    return [json.loads(each.body) for each in messages.all]


@EACH
@asynchronous
async def test_what_is_logged_before_while_and_in_any_thread_comes_to_the_bus(kind: str) -> None:
    async with EmbeddedBroker() as broker, peer(broker.url) as client:
        logs = await client.tap("logs", "#")
        run = Run(kind, broker.url)
        run.on_event = lambda: LOGGER.error("in the handler", extra={"order": 7})
        with handling(BusHandler(run.service)):
            LOGGER.info("before")
            async with run.running():
                await logs.count(1)
                LOGGER.warning("in this thread")
                thread = threading.Thread(target=LOGGER.debug, args=("in thread %s", "other"), name="other")
                thread.start()
                await asyncio.to_thread(thread.join)
                await logs.count(3)
                headers = {"conversation_id": "c-7"}
                await client.publish("events", "Happened", b"1", content_type="application/json", headers=headers)
                await logs.count(4)
            LOGGER.error("after")
        found = {each["short_message"]: each for each in read(logs)}
        assert next(iter(found)) == "before"
        assert found.keys() == {"before", "in this thread", "in thread other", "in the handler"}
        handled, other = found["in the handler"], found["in thread other"]
        assert (handled["_order"], handled["_conversation_id"], handled["level"]) == (7, "c-7", 3)
        assert (other["_thread"], other["_logger"], other["level"], other["_line"] > 0) == (
            "other",
            "shop.orders",
            7,
            True,
        )
        assert {each["host"].partition("@")[0] for each in found.values()} == {"shop"}
        assert {each.routing_key for each in logs.all} == {"shop.INFO", "shop.WARNING", "shop.DEBUG", "shop.ERROR"}
        times = [each["timestamp"] for each in read(logs)]
        assert times == sorted(times)


@EACH
def test_nothing_that_is_logged_about_sending_is_sent(kind: str) -> None:
    """All loggers are at the level DEBUG, those of the client libraries and of asyncio as well."""
    libraries = [logging.getLogger(name) for name in ("eda_aio", "eda_pika", "pika", "aiormq")]
    before = [(logger, logger.level) for logger in libraries]
    with EmbeddedBrokerThread() as broker, Bus(broker.url) as bus:
        service = Run(kind, broker.url).service
        runner = ServiceRunner()
        with handling(BusHandler(service), logging.getLogger()):
            for logger in libraries:
                logger.setLevel(logging.DEBUG)
            try:
                runner(service)
                for number in range(20):
                    LOGGER.info("number %d", number)
                    bus.expect_log("shop.INFO", where={"short_message": f"number {number}"})
                arrivals = bus.arrivals()
            finally:
                runner.stop()
                for logger, level in before:
                    logger.setLevel(level)
    payloads: list[Any] = [each.message.payload for each in arrivals if isinstance(each.message, LogRecord)]
    records = [each for each in payloads if "_logger" in each]
    others = [each["short_message"] for each in records if each["_logger"] not in ("shop.orders", "asyncio")]
    assert others == []
    texts = [each["short_message"] for each in records if each["_logger"] == "shop.orders"]
    assert texts == [f"number {number}" for number in range(20)]
    assert len(records) < 30


@EACH
@asynchronous
async def test_who_logs_waits_for_nothing_and_the_oldest_are_dropped(
    kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with EmbeddedBroker() as broker, peer(broker.url) as client:
        logs = await client.tap("logs", "#")
        run = Run(kind, broker.url)
        held, go_on = threading.Event(), threading.Event()

        def hold() -> None:
            held.set()
            assert go_on.wait(TIMEOUT), "the logs were written while the loop was held"

        handler = BusHandler(run.service, capacity=10)
        with handling(handler):
            async with run.running():

                def log_many() -> None:
                    assert held.wait(TIMEOUT)
                    for number in range(1000):
                        LOGGER.info("%d", number)
                    go_on.set()

                thread = threading.Thread(target=log_many)
                thread.start()
                driver = run.service.running_driver()
                driver.hand_over(hold)  # keeps the loop from its work
                await asyncio.to_thread(thread.join)
                await logs.until(lambda all: any("990 log record(s)" in str(each.body) for each in all), "the drop")
                await logs.count(11)
        texts = [each["short_message"] for each in read(logs)]
        assert [text for text in texts if "dropped" not in text] == [str(number) for number in range(990, 1000)]
        assert handler.dropped == 990
        (line,) = [each for each in caplog.records if getattr(each, "eda_event", "") == "logs-dropped"]
        assert line.levelno == logging.WARNING
        assert line.getMessage().startswith("990 log record(s) of the program were dropped")


SIGNALLED = """
import asyncio, logging, os, signal, sys, threading
from eda_core.testing.live import Bus, EmbeddedBrokerThread, ServiceRunner
from eda_logging import BusHandler
adapter, case = sys.argv[1:]
class Shop(__import__(adapter).Service):
    if adapter == "eda_aio":
        async def on_ready(self):
            print("ready", flush=True)
    else:
        def on_ready(self):
            print("ready", flush=True)
service = Shop(os.environ["EDA_AMQP_URL"], [], [], "shop")
logging.getLogger().addHandler(BusHandler(service))
signal.signal(signal.SIGUSR1, lambda *_: logging.warning("signalled"))
def fork(*_):
    if os.fork() == 0:
        logging.warning("in the child")
        print("child", flush=True)
        os._exit(0)
    os.wait()
    logging.warning("in the parent")
signal.signal(signal.SIGUSR2, fork)
running = service.run()
if running is not None:
    asyncio.run(running)
logging.warning("after the end")
print("ended", flush=True)
"""


@pytest.mark.parametrize("adapter", ["eda_aio", "eda_pika"])
@asynchronous
async def test_handlers_of_signals_and_forks_may_log(adapter: str) -> None:
    async with EmbeddedBroker() as broker, peer(broker.url) as client:
        logs = await client.tap("logs", "#")
        async with program("-W", "ignore", "-c", SIGNALLED, adapter, "signal", url=broker.url) as worker:
            await worker.says("ready")
            for number in range(10):
                worker.process.send_signal(signal.SIGUSR1)
                await logs.count(number + 1)
            worker.process.send_signal(signal.SIGUSR2)
            await worker.says("child")
            await logs.count(11)
            worker.process.send_signal(signal.SIGTERM)
            await worker.says("ended")
            assert await worker.end() == 0
        assert "Traceback" not in worker.errors
        assert [each["short_message"] for each in read(logs)] == ["signalled"] * 10 + ["in the parent"]


@EACH
@asynchronous
async def test_an_exception_comes_with_its_traceback_and_a_lost_link_keeps_the_record(kind: str) -> None:
    async with EmbeddedBroker() as broker:
        run = Run(kind, broker.url)
        with handling(BusHandler(run.service)):
            async with run.running():
                async with peer(broker.url) as client:
                    logs = await client.tap("logs", "#")
                    run.ready.clear()
                    try:
                        raise ValueError("no pens")
                    except ValueError:
                        LOGGER.exception("order %d failed", 7)
                    await logs.count(1)
                    (found,) = read(logs)
                    assert found["short_message"] == "order 7 failed"
                    assert found["full_message"].startswith("order 7 failed\nTraceback (most recent call last):")
                    assert found["full_message"].endswith("ValueError: no pens")
                await broker.cut()
                assert await asyncio.to_thread(run.ready.wait, TIMEOUT)
                async with peer(broker.url) as client:
                    logs = await client.tap("logs", "#")
                    LOGGER.info("again")
                    await logs.count(1)


def test_the_handler_is_one_of_logging() -> None:
    run = Run("native", "amqp://127.0.0.1:1/")
    handler = BusHandler(run.service, "WARNING", 5)
    assert handler.level == logging.WARNING
    assert handler.lock is None
    with handling(handler):
        LOGGER.info("less")
        assert len(handler._bridge._kept) == 0
        handler.addFilter(lambda record: record.getMessage() != "left out")
        LOGGER.error("left out")
        LOGGER.error("kept")
        assert len(handler._bridge._kept) == 1
        handler.close()
        LOGGER.error("closed")
        assert len(handler._bridge._kept) == 0
    with pytest.raises(LocalError, match="the service is int"):
        BusHandler(os.getpid())  # type: ignore[arg-type]
