"""A service in the process of another program: a FastAPI application under uvicorn, which handles signals itself."""

from __future__ import annotations

import asyncio
import re
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import cbor2
import pytest

from eda_tools.broker import EmbeddedBroker
from tests.support.services import Program, asynchronous, peer, program, within

UVICORN = ("-m", "uvicorn", "--port", "0", "--no-access-log", "tests.adapters.aio.webapp:app")
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


@asynccontextmanager
async def application(broker: EmbeddedBroker | None, **settings: str) -> AsyncIterator[Program]:
    """The application, when it is ready. It runs a service if there is a broker."""
    url = None if broker is None else broker.url
    async with program(*UVICORN, url=url, settings=settings) as app:
        if broker is not None:
            await app.says("ready")
        await app.notes.until(lambda notes: any("Uvicorn running" in note for note in notes), "uvicorn runs")
        yield app


async def post(app: Program) -> None:
    """Have the application publish an event, and wait until the handler of the event has begun."""
    (port,) = (match[1] for match in map(re.compile(r"http://127\.0\.0\.1:(\d+)").search, app.notes.all) if match)
    reader, writer = await asyncio.open_connection("127.0.0.1", int(port))
    writer.write(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
    answer = await within(reader.read(), "the answer of the application")
    assert answer.startswith(b"HTTP/1.1 200 ")
    writer.close()
    await app.says("begun")


async def usual_end(number: signal.Signals) -> tuple[int, list[str]]:
    """The exit status of the application without a service on this signal, and the last lines of uvicorn."""
    async with application(None) as app:
        app.process.send_signal(number)
        return await app.end(), last_words(app)


def last_words(app: Program) -> list[str]:
    """The last lines of uvicorn. Anything else on stderr fails the test."""
    assert all(note.startswith("INFO: ") for note in app.notes.all), app.errors
    return [re.sub(r"\d+", "N", note) for note in app.notes.all[4:]]


@pytest.mark.parametrize("signals", ["None", "False", "True"])
@pytest.mark.parametrize("number", SIGNALS[:2], ids=lambda number: number.name)
@asynchronous
async def test_a_signal_ends_the_application_and_its_service(number: signal.Signals, signals: str) -> None:
    """The service finishes what it has begun. The exit status of the application is the usual one."""
    async with EmbeddedBroker() as broker, peer(broker.url) as client:
        answered = await client.tap("events", "Answered")
        async with application(broker, EDA_TEST_SIGNALS=signals) as app:
            await post(app)
            app.process.send_signal(number)
            await app.says("shutdown")
            app.tell("")
            end = await app.end(), last_words(app)
        assert end == await usual_end(number)
        assert app.lines.all == ["ready", "begun", "shutdown", "handled", "service ended"]
        await answered.next()
        assert await client.drain("beside.events") == []


@asynchronous
async def test_the_application_may_cancel_its_service() -> None:
    """Cancelled, ``run`` stops the service in good order as well."""
    async with EmbeddedBroker() as broker, peer(broker.url) as client:
        async with application(broker, EDA_TEST_END="cancel") as app:
            await post(app)
            app.process.send_signal(signal.SIGTERM)
            await app.says("shutdown")
            app.tell("")
            end = await app.end(), last_words(app)
        assert end == await usual_end(signal.SIGTERM)
        assert app.lines.all == ["ready", "begun", "shutdown", "handled", "service ended"]
        assert await client.drain("beside.events") == []


@asynchronous
async def test_the_application_may_forget_its_service() -> None:
    """uvicorn then ends the process while the service runs. What it has begun is left to other workers."""
    async with EmbeddedBroker() as broker, peer(broker.url) as client:
        async with application(broker, EDA_TEST_END="forget") as app:
            await post(app)
            app.process.send_signal(signal.SIGTERM)
            end = await app.end(), last_words(app)
        assert end == await usual_end(signal.SIGTERM)
        assert app.lines.all == ["ready", "begun", "shutdown"]
        assert len(await client.drain("beside.events")) == 1


@asynchronous
async def test_a_signal_that_the_application_leaves_alone_is_not_taken_either() -> None:
    """SIGHUP would stop the service, and the application would go on without it."""
    async with EmbeddedBroker() as broker, application(broker) as app:
        app.process.send_signal(signal.SIGHUP)
        assert await app.end() == -signal.SIGHUP
        assert "service ended" not in app.lines.all


@asynchronous
async def test_the_service_may_take_a_signal_that_the_application_leaves_alone() -> None:
    """On request the service takes it and stops in good order. What it has not handled is left to other workers."""
    async with EmbeddedBroker() as broker, peer(broker.url) as client:
        async with application(broker, EDA_TEST_SIGNALS="True") as app:
            app.process.send_signal(signal.SIGHUP)
            await app.says("service ended")
            headers = {"conversation_id": "c"}
            await client.publish("events", "Asked", cbor2.dumps(1), content_type="application/cbor", headers=headers)
            app.process.send_signal(signal.SIGTERM)
            await app.says("shutdown")
            assert await app.end() == (await usual_end(signal.SIGTERM))[0]
        assert len(await client.drain("beside.events")) == 1
