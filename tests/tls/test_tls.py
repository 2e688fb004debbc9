"""TLS: a broker is trusted by its authority and its name, by each adapter alike."""

from __future__ import annotations

import asyncio
import ssl
from typing import Any

import trustme

from tests.support.services import Probe, Record, asynchronous, reports, running, within
from tests.tls.conftest import TlsBroker

Meta = dict[str, Any]


class Listener(Probe):
    async def on_Happened(self, payload: Any, conversation_id: str, meta: Meta) -> None:
        self.seen.add(payload)


def service(url: str, context: ssl.SSLContext | None) -> Listener:
    made = Listener(url, ["Happened"])
    made._eda_ssl = context
    return made


async def refused(made: Listener, log: Record[str]) -> str:
    """The reason why the service does not connect."""
    run = asyncio.create_task(made.run())
    await log.until(lambda lines: any("no link to" in line for line in lines), "an attempt in vain")
    await made.stop(0.0)
    await within(run, "the service stops")
    assert not made.ready.all
    return next(line for line in log.all if "no link to" in line)


@asynchronous
async def test_a_context_that_trusts_the_authority(broker: TlsBroker) -> None:
    made = service(broker.url(), broker.context)
    async with running(made):
        await made.publish_event("Happened", "in secret", "c")
        assert await made.seen.next() == "in secret"


@asynchronous
async def test_the_authority_in_the_url(broker: TlsBroker) -> None:
    made = service(f"{broker.url()}?cafile={broker.file}", None)
    async with running(made):
        await made.publish_event("Happened", 1, "c")
        assert await made.seen.next() == 1


@asynchronous
async def test_by_default_only_the_authorities_of_the_system_are_trusted(broker: TlsBroker) -> None:
    with reports() as log:
        assert "CERTIFICATE_VERIFY_FAILED" in await refused(service(broker.url(), None), log)


@asynchronous
async def test_another_authority_is_not_trusted(broker: TlsBroker) -> None:
    other = ssl.create_default_context()
    trustme.CA().configure_trust(other)
    with reports() as log:
        assert "CERTIFICATE_VERIFY_FAILED" in await refused(service(broker.url(), other), log)


@asynchronous
async def test_a_certificate_for_another_name_is_not_trusted(broker: TlsBroker) -> None:
    with reports() as log:
        reason = await refused(service(broker.url("127.0.0.1"), broker.context), log)
    assert "IP address mismatch" in reason


@asynchronous
async def test_a_broker_without_tls_is_refused(embedded_tls: TlsBroker, embedded_plain: int) -> None:
    with reports() as log:
        reason = await refused(service(f"amqps://guest:guest@localhost:{embedded_plain}/", embedded_tls.context), log)
    assert "no link to amqps://guest:***@localhost" in reason
