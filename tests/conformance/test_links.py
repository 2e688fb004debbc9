"""Links that are being closed, of each transport: they end once and in time, do nothing more, and tell nothing more."""

from __future__ import annotations

import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from pamqp.commands import Basic

from eda_core import Ack, Cancel, Close, Connect, Consume, Declare, Nack, OpenChannel, Probe, Publish, PublishLog
from eda_core.drivers import CONSUMING, LOGGING, PUBLISHING
from eda_core.machine.identifiers import PublishId
from eda_core.testing import conformance
from eda_core.testing.conformance.running.brokers import Embedded
from eda_core.testing.live.proxy import Direction, Link
from eda_kombu.transport import KombuLink
from eda_tools.broker import EmbeddedBrokerThread
from tests.adapters.kombu.support import Background, ProxyThread
from tests.conformance.links import EPOCH, HOSTS, Host, hosted
from tests.core.drivers.test_link import Inputs
from tests.support.services import asynchronous, within

every_transport = pytest.mark.parametrize("transport", HOSTS)
CLOSE = Close(EPOCH, "over")
#: Seconds that no test waits for: what has to happen at once does not wait for the end of this time.
LONG = 600.0


def publish(body: bytes = b"1", tag: int = 1) -> Publish:
    properties = Basic.Properties(headers={"conversation_id": "c"})
    return Publish(PublishId(tag), "", "tap", properties, body, epoch=EPOCH, tag=tag)


EFFECTS = [
    Declare(EPOCH, (Basic.Qos(prefetch_count=1),)),
    Consume(EPOCH, "tap", "events"),
    Cancel(EPOCH, "events"),
    OpenChannel(EPOCH, PUBLISHING),
    OpenChannel(EPOCH, LOGGING),
    Probe(EPOCH, CONSUMING),
    Probe(EPOCH, PUBLISHING),
    Ack(EPOCH, 1, False),
    Nack(EPOCH, 1, False),
    publish(),
    PublishLog(EPOCH, "", "tap", Basic.Properties(), b"2"),
]


@asynccontextmanager
async def opened(transport: str, heartbeat: int = 0, **settings: Any) -> AsyncIterator[tuple[Host, Embedded]]:
    """A link that is open, and a queue called "tap"."""
    async with hosted(transport, **settings) as (host, broker):
        await broker.operator.declare(conformance.Declare("tap", "events"))
        (url,) = broker.urls(["broker"])
        await host.open(url, heartbeat)
        await host.told("link_up")
        yield host, broker


def names(host: Host) -> list[str]:
    return [told[0] for told in host.inputs.told.all]


def errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What the event loop has logged: exceptions of callbacks, and of tasks that nobody has awaited."""
    return [record.getMessage() for record in caplog.records if record.name == "asyncio"]


# --- a link that is still being opened ---


@every_transport
@asynchronous
async def test_a_link_that_is_closed_before_its_first_step_never_opens(transport: str) -> None:
    async with hosted(transport, close_timeout=LONG) as (host, broker):
        (url,) = broker.urls(["broker"])
        await host.open(url, 0, *EFFECTS, CLOSE)
        await host.told("link_down")
        assert (names(host), broker.proxy.open) == (["link_down"], 0)


@every_transport
@pytest.mark.parametrize("which", [1, 2])
@asynchronous
async def test_a_link_whose_peer_says_nothing_yet_is_closed_at_once(
    transport: str, which: int, caplog: pytest.LogCaptureFixture
) -> None:
    """The broker takes the first or the second connection, and sends nothing on it."""
    async with hosted(transport, close_timeout=LONG) as (host, broker):
        proxy = broker.proxy
        (url,) = broker.urls(["broker"])

        def watch(_link: Link, _direction: Direction, data: bytes) -> bytes:
            proxy.hole = True  # for the next connection
            return data

        proxy.hole, proxy.watch = which == 1, watch
        await host.open(url, 0)
        await within(proxy.linked(which), "the connection on which nothing comes")
        await host.perform(*EFFECTS, CLOSE)
        await host.told("link_down")
        await within(proxy.quiet(), "the end of the other connection")
        assert (names(host), errors(caplog)) == (["link_down"], [])


# --- a link that is open ---


@every_transport
@asynchronous
async def test_an_open_link_is_closed_in_good_order_after_what_was_sent(transport: str) -> None:
    async with opened(transport, close_timeout=LONG) as (host, broker):
        log = PublishLog(EPOCH, "", "tap", Basic.Properties(), b"2")
        await host.perform(publish(), log, CLOSE)
        await host.told("link_down")
        assert host.inputs.told.all[-1] == ("link_down", "closed")
        await broker.operator.count("tap", 2)


@every_transport
@asynchronous
async def test_effects_that_come_while_a_link_is_closing_are_ignored(
    transport: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Handlers that end late want to acknowledge, publish and log. They raise nothing, and nothing is told."""
    async with opened(transport, close_timeout=LONG) as (host, broker):
        broker.proxy.freeze()
        await host.perform(CLOSE, *EFFECTS)
        broker.proxy.thaw()
        await host.told("link_down")
        await host.perform(*EFFECTS)
        await within(broker.proxy.quiet(), "the connections end")
        assert (names(host), errors(caplog)) == (["link_up", "link_down"], [])
        assert await broker.operator.count("tap", None) == 0


@every_transport
@asynchronous
async def test_what_fails_while_a_link_is_closing_is_not_told(transport: str, caplog: pytest.LogCaptureFixture) -> None:
    """A peer that stands still answers none of them, and the link is closed by force."""
    async with opened(transport, close_timeout=1.5) as (host, broker):
        broker.proxy.freeze()
        await host.perform(*EFFECTS, CLOSE)
        await host.told("link_down")
        await host.do(lambda: None)  # a turn of its loop
        assert (names(host), errors(caplog)) == (["link_up", "link_down"], [])


@every_transport
@asynchronous
async def test_a_connection_that_is_lost_while_a_link_is_closing_ends_the_link_once(transport: str) -> None:
    async with opened(transport, close_timeout=LONG) as (host, broker):
        broker.proxy.freeze()
        await host.perform(publish(), CLOSE)
        broker.proxy.cut()
        await host.told("link_down")
        await within(broker.proxy.quiet(), "the connections end")
        await host.do(lambda: None)
        assert names(host) == ["link_up", "link_down"]


@every_transport
@asynchronous
async def test_a_peer_that_reads_nothing_does_not_keep_a_link_from_closing(transport: str) -> None:
    """There is more to send than buffers and queues take. The heartbeat would notice after four minutes."""
    async with opened(transport, heartbeat=120, close_timeout=1.5) as (host, broker):
        broker.proxy.freeze()
        await host.perform(*(publish(b"x" * (1 << 20), tag) for tag in range(1, 33)), CLOSE)
        await host.told("link_down")
        assert names(host) == ["link_up", "link_down"]


# --- links that wait for each step: eda_kombu ---

PUBLISHED = [effect for effect in EFFECTS if isinstance(effect, (Publish, PublishLog, Probe, OpenChannel, Declare))]


class Blocking(Inputs):
    """A driver of links that block.

    Attributes:
        graceful: whether links are closed in good order.
        publish_call: takes what a publish is told.
    """

    graceful = True

    class publish_call:
        link_failed = staticmethod(lambda *_: None)


def a_blocking_link(url: str, **settings: Any) -> tuple[KombuLink, Blocking]:
    driver = Blocking(**settings)
    link = KombuLink(Connect(EPOCH, url, "test", 0), driver)  # type: ignore[arg-type]
    link.open(20.0, None)
    assert driver.told.pop()[0] == "link_up"
    return link, driver


@pytest.mark.parametrize("how", ["in good order", "after a cut", "with a broken pipe", "in a freeze"])
def test_a_blocking_link_ends_once_and_does_nothing_more(how: str) -> None:
    with EmbeddedBrokerThread() as broker, ProxyThread(broker.url) as front:
        link, driver = a_blocking_link(front.url, close_timeout=0.5)
        if how == "after a cut":
            front.call(front.proxy.cut)
        elif how == "in a freeze":
            front.call(front.proxy.freeze)
        link.perform(publish())
        if how == "with a broken pipe":
            link._next_write = time.monotonic() + LONG  # what is held back is sent by close()
            link.perform(publish())
            link._connection.sock.shutdown(socket.SHUT_WR)
        Background(link.perform, CLOSE).get()
        for effect in PUBLISHED:
            link.perform(effect)
        assert [told[0] for told in driver.told if told[0] != "confirmed"] == ["link_down"]
