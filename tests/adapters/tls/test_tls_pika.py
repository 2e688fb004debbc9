"""TLS on pika: a broker is trusted by its authority and its name, or refused."""

from __future__ import annotations

import asyncio
import ssl
from typing import Any

import pytest
import trustme

from tests.adapters.pika.conftest import either_way
from tests.adapters.pika.support import Listener, publish, running
from tests.adapters.tls.conftest import TlsBroker
from tests.support.services import Record, asynchronous

__all__ = ["either_way"]

pytestmark = pytest.mark.usefixtures("either_way")


@pytest.mark.parametrize("by_url", [False, True], ids=["the argument", "the URL"])
@asynchronous
async def test_an_authority_of_ones_own(broker: TlsBroker, by_url: bool) -> None:
    url = f"{broker.url()}?cafile={broker.file}" if by_url else broker.url()
    service = Listener(url, ["Happened"], ssl=None if by_url else broker.context)
    async with running(service):
        await publish(service, "x" * 300_000)
        await service.seen.count(1)


async def refused(service: Listener) -> str:
    """The reason why the service does not connect."""
    reports: Record[str] = Record("reports")
    loop = asyncio.get_running_loop()
    async with running(service, ready=False):
        driver: Any = service.running_driver()
        driver.report = lambda level, text, event: loop.call_soon_threadsafe(reports.add, text)
        await reports.until(lambda all: any("no link to" in text for text in all), "an attempt in vain")
        service.stop()
        await service.ended()
    assert service.ready.all == []
    return next(text for text in reports.all if "no link to" in text)


@pytest.mark.parametrize("wrong", ["the system's authorities", "another authority", "another name"])
@asynchronous
async def test_a_wrong_certificate_is_refused(broker: TlsBroker, wrong: str) -> None:
    other = ssl.create_default_context()
    trustme.CA().configure_trust(other)
    url = broker.url("127.0.0.1" if wrong == "another name" else "localhost")
    context = {"the system's authorities": None, "another authority": other, "another name": broker.context}[wrong]
    why = await refused(Listener(url, ["Happened"], ssl=context))
    assert "CERTIFICATE_VERIFY_FAILED" in why
    assert ("IP address mismatch" in why) == (wrong == "another name")


@asynchronous
async def test_a_broker_without_tls_is_refused(embedded_tls: TlsBroker, embedded_plain: int) -> None:
    url = f"amqps://localhost:{embedded_plain}/"
    assert url in await refused(Listener(url, ["Happened"], ssl=embedded_tls.context))
