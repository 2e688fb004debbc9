"""The example services, each started by the command in its docstring: what they do on the bus, and their end."""

from __future__ import annotations

import re
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import cbor2
import pytest
from aio_pika.abc import AbstractIncomingMessage

from eda_tools.broker import EmbeddedBroker
from tests.support.services import DEAD_LETTER_QUEUE, ROOT, Peer, Program, asynchronous, peer, program

SERVICES = ROOT / "examples" / "services"
KINDS = ["pika", "aio"]


def command(path: Path) -> list[str]:
    """The first command in a file's docstring, without ``python``."""
    found = re.search(r"^python (-m [\w.]+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    assert found, f"{path} tells no command"
    return found[1].split()


@asynccontextmanager
async def services(url: str, kind: str, *names: str, ready: str = "ready") -> AsyncIterator[list[Program]]:
    """Run examples, all ready when the block begins; SIGTERM ends them at its end, with status 0 and no complaint."""
    async with AsyncExitStack() as stack:
        started = []
        for name in names:
            one = await stack.enter_async_context(program(*command(SERVICES / kind / f"{name}.py"), url=url))
            await one.says(f"{name}: {ready}")
            started.append(one)
        yield started
        for one in reversed(started):
            one.process.send_signal(signal.SIGTERM)
            status = await one.end()
            assert (status, one.errors) == (0, "")


def content(message: AbstractIncomingMessage) -> Any:
    return cbor2.loads(message.body)


async def ask(bus: Peer, name: str, payload: Any) -> tuple[Any, Any]:
    """Send a command; status and payload of its result."""
    results = await bus.tap("commands", "tester.Return")
    body = cbor2.dumps(payload)
    headers = {"conversation_id": "c"}
    await bus.publish(
        "commands", name, body, headers=headers, reply_to="tester.Return", correlation_id="k",
        content_type="application/cbor",
    )  # fmt: skip
    result = await results.next()
    assert result.correlation_id == "k"
    return result.headers["status"], content(result)


async def pings_are_answered(url: str, kind: str) -> None:
    async with peer(url) as bus, services(url, kind, "pong", "ping") as (pong, ping):
        await ping.lines.until(lambda lines: sum("answered in" in line for line in lines) >= 2, "two answers")
        assert f"by worker {pong.process.pid}" in ping.lines.all[1]
        assert (await ask(bus, "pong.Ping", {}))[0] == "error"


@pytest.mark.parametrize("kind", KINDS)
@asynchronous
async def test_ping_and_pong(kind: str) -> None:
    async with EmbeddedBroker() as broker:
        await pings_are_answered(broker.url, kind)


def test_ping_and_pong_on_rabbitmq(rabbit_url: str) -> None:
    asynchronous(pings_are_answered)(rabbit_url, "pika")


@pytest.mark.parametrize("kind", KINDS)
@asynchronous
async def test_prime_time(kind: str) -> None:
    async with EmbeddedBroker() as broker, peer(broker.url) as bus:
        events = await bus.tap("events")
        async with services(broker.url, kind, "prime", "prime_time"):
            found = await events.next()
            assert (found.routing_key, content(found)) == (
                "PrimesFound", {"below": 20000, "count": 2262, "largest": 19997},
            )  # fmt: skip
            assert (await ask(bus, "prime.FindPrimes", {"low": 9, "high": 2}))[0] == "error"
            assert await ask(bus, "prime.FindPrimes", {"low": 0, "high": 11}) == (
                "success", {"primes": [2, 3, 5, 7, 11]},
            )  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
@asynchronous
async def test_the_clock(kind: str) -> None:
    async with EmbeddedBroker() as broker, peer(broker.url) as bus:
        events = await bus.tap("events")
        async with services(broker.url, kind, "clock"):
            seconds = await events.count(3)
            times = [content(second)["time"] for second in seconds[:3]]
            assert {second.routing_key for second in seconds} == {"SecondPassed"}
            assert times == sorted(times)
            assert len({second.headers["conversation_id"] for second in seconds}) == len(seconds)


@pytest.mark.parametrize("kind", KINDS)
@asynchronous
async def test_the_minute_clock(kind: str) -> None:
    async with EmbeddedBroker() as broker, peer(broker.url) as bus:
        minutes = await bus.tap("events", "MinutePassed")
        async with services(broker.url, kind, "minute_clock"):
            for second in range(63):
                body, headers = cbor2.dumps({"time": second}), {"conversation_id": "c"}
                await bus.publish("events", "SecondPassed", body, headers=headers, content_type="application/cbor")
            assert content(await minutes.next()) == {"seconds": 60, "first": 0, "last": 59}


@pytest.mark.parametrize("kind", KINDS)
@asynchronous
async def test_the_minute_clock_hands_over_a_part_of_a_minute_at_its_end(kind: str) -> None:
    async with EmbeddedBroker() as broker, peer(broker.url) as bus:
        minutes, dead = await bus.tap("events", "MinutePassed"), await bus.consume(DEAD_LETTER_QUEUE)
        async with program(*command(SERVICES / kind / "minute_clock.py"), url=broker.url) as clock:
            await clock.says("minute_clock: ready")
            # What cannot be read is rejected as it comes: the five before it are in their handlers, or through.
            for body in [*(cbor2.dumps({"time": second}) for second in range(5)), b"\xff"]:
                headers = {"conversation_id": "c"}
                await bus.publish("events", "SecondPassed", body, headers=headers, content_type="application/cbor")
            assert (await dead.next()).body == b"\xff"
            clock.process.send_signal(signal.SIGTERM)
            assert await clock.end() == 0
            assert clock.lines.all[1:] == ["minute_clock: 5 seconds"]
        assert content(await minutes.next()) == {"seconds": 5, "first": 0, "last": 4}
        assert await bus.waiting_in("minute_clock.events") == 0, "and all of them are acknowledged"


@pytest.mark.parametrize("kind", KINDS)
@asynchronous
async def test_the_greeter_waits_for_its_configuration(kind: str) -> None:
    async with EmbeddedBroker() as broker, peer(broker.url) as bus:
        events = await bus.tap("events")
        waits = "waits for its configuration"
        async with services(broker.url, kind, "greeter", ready=waits) as (greeter,):
            assert (await events.next()).routing_key == "GreetingWanted"
            text = (SERVICES / kind / "greeter.py").read_text(encoding="utf-8")
            found = re.search(r'^python (-m examples\.services\.configure) "(.*)"$', text, re.MULTILINE)
            assert found
            async with program(*found[1].split(), found[2], url=broker.url) as configure:
                assert (await configure.end(), configure.errors) == (0, "")
            await greeter.says("greeter: ready")
            assert await ask(bus, "greeter.Greet", {"name": "Ada"}) == (
                "success", {"greeting": f"{found[2]}, Ada!"},
            )  # fmt: skip
