"""What services on pika do beyond the conformance kit: threads, timers, ways to end, and what is left behind."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

import pika.channel
import pytest
import trustme

from eda_core import BufferFull, LocalError, PublishError, ServiceError, StateError
from eda_pika import ReconnectingSupervisor, Service
from eda_pika.connection import Properties
from eda_tools.broker import EmbeddedBroker
from tests.pika.support import Broken, Listener, Probe, running
from tests.support.rabbitmq import RabbitNode
from tests.support.services import PATIENCE, Record, asynchronous, conversation, peer, within

Meta = dict[str, Any]
NOWHERE = "amqp://guest:guest@127.0.0.1:1/"


async def publish(service: Probe, *payloads: Any) -> None:
    for payload in payloads:
        await service.do(service.publish_event, "Happened", payload, conversation())


# --- before and after ---


@pytest.mark.parametrize(
    "call",
    [
        lambda service: service.stop(),
        lambda service: service.publish_event("Happened", 1, "c"),
        lambda service: service.log(6, "short"),
        lambda service: service.call_later(1, print),
        lambda service: service.cancel_timer(1),
        lambda service: service.manual_ack(1),
    ],
    ids="stop publish_event log call_later cancel_timer manual_ack".split(),
)
def test_a_service_that_does_not_run_says_so(call: Callable[[Service], Any]) -> None:
    with pytest.raises(StateError, match="does not run"):
        call(Service(NOWHERE, [], [], "service"))


@asynchronous
async def test_a_service_runs_once_and_takes_nothing_after_its_end() -> None:
    service = Probe(NOWHERE)
    async with running(service, ready=False):
        with pytest.raises(StateError, match="runs once"):
            service.run()
    with pytest.raises(StateError, match="stopped"):
        await service.do(service.publish_event, "Happened", 1, "c")
    with pytest.raises(StateError, match="stopped"):
        await service.do(service.call_later, 1.0, print)
    service.stop()  # does no harm


@pytest.mark.parametrize("threads", [-1, 1.5, True, None])
def test_handler_threads_that_are_no_number_are_refused(threads: Any) -> None:
    kind = type("Wrong", (Service,), {"HANDLER_THREADS": threads})
    with pytest.raises(LocalError, match="HANDLER_THREADS"):
        kind(NOWHERE, [], [], "service").run()


# --- publishing ---


class Strict(Listener):
    """Notes what its publishes raise, in the thread of the handler."""

    def handle_event(self, event: str, payload: Any, conversation_id: str, meta: Meta) -> None:
        for name, wrong in (("x" * 300, 1), ("Other", object())):
            try:
                self.publish_event(name, wrong, conversation_id)
            except LocalError as error:
                self.note((type(error).__name__, threading.current_thread().name))
        self.note(payload)


@pytest.mark.parametrize("threads", [0, 2])
@asynchronous
async def test_a_wrong_publish_raises_where_it_is_made(threads: int) -> None:
    kind = type("Strict", (Strict,), {"HANDLER_THREADS": threads})
    async with EmbeddedBroker() as broker:
        service = kind(broker.url, ["Happened"])
        async with running(service):
            await publish(service, 1)
            *errors, payload = await service.seen.count(3)
    where = "eda handlers" if threads else "probe"
    assert [thread for _, thread in errors] == [where, where]
    assert payload == 1


@asynchronous
async def test_over_the_bound_of_the_buffer_a_publish_is_refused_at_once() -> None:
    service = Probe(NOWHERE)
    service._eda_config = replace(service._eda_config, buffer=2)
    async with running(service, ready=False):
        await publish(service, 1, 2)
        with pytest.raises(BufferFull):
            await publish(service, 3)
        service.stop(0.0)
        await service.ended()


@asynchronous
async def test_what_is_published_before_the_broker_comes_is_sent_in_order() -> None:
    async with EmbeddedBroker() as broker:
        listener = Listener(broker.url, ["Happened"], name="listener")
        source = Probe([NOWHERE, broker.url], name="source")
        async with running(listener), running(source, ready=False):
            await publish(source, *range(50))
            await listener.has_all(range(50))
    assert listener.seen.all == list(range(50))


# --- timers ---


class Clock(Probe):
    """At once when ready: a timer that is cancelled, two in the wrong order, one that is cancelled while it waits."""

    def on_ready(self) -> None:
        super().on_ready()
        self.cancel_timer(self.call_later(0.0, lambda: self.note("cancelled")))
        self.call_later(0.05, lambda: self.note("later"))
        self.call_later(0.0, self.first)
        self.too_late = self.call_later(0.0, lambda: self.note("cancelled while it was due"))
        self.call_later(-1.0, lambda: self.note("negative"))

    def first(self) -> None:
        self.note("first")
        time.sleep(0.02)  # the others are due meanwhile
        self.cancel_timer(self.too_late)
        self.cancel_timer(self.too_late)


@pytest.mark.parametrize("threads", [0, 1])
@asynchronous
async def test_timers(threads: int) -> None:
    async with EmbeddedBroker() as broker:
        service = type("Clock", (Clock,), {"HANDLER_THREADS": threads})(broker.url)
        async with running(service):
            await service.seen.count(3)
            service.call_later(0.02, lambda: service.note("after the end"))
    await asyncio.sleep(0.05)
    assert sorted(service.seen.all) == ["first", "later", "negative"]
    assert service.seen.all[-1] == "later"


@asynchronous
async def test_a_timer_that_fails_is_told_and_harms_nobody() -> None:
    async with EmbeddedBroker() as broker:
        service = Listener(broker.url, ["Happened"])
        async with running(service):
            await service.do(service.call_later, 0.0, lambda: [][1])
            await publish(service, 1)
            await service.seen.count(1)


# --- the end ---


class Quitter(Listener):
    """Raises what its payload names."""

    calls = 0

    def handle_event(self, event: str, payload: Any, conversation_id: str, meta: Meta) -> None:
        self.calls += 1
        raise {"exit": SystemExit(3), "interrupt": KeyboardInterrupt()}[payload]


@pytest.mark.parametrize("threads", [0, 2])
@pytest.mark.parametrize(("payload", "kind"), [("exit", SystemExit), ("interrupt", KeyboardInterrupt)])
@asynchronous
async def test_what_is_no_exception_ends_the_service_and_comes_out(
    threads: int, payload: str, kind: type[BaseException]
) -> None:
    """And its message goes to another worker."""
    async with EmbeddedBroker() as broker:
        quitter = type("Quitter", (Quitter,), {"HANDLER_THREADS": threads})(broker.url, ["Happened"])
        quitter.in_thread()
        await quitter.ready.count(1)
        source = Probe(broker.url, name="source")
        async with running(source):
            await publish(source, payload, payload)
        with pytest.raises(Broken) as raised:
            await quitter.ended()
        assert type(raised.value.error) is kind
        assert quitter.calls <= max(threads, 1), "no other handler is begun"
        heir = Listener(broker.url, ["Happened"])
        async with running(heir):
            assert await heir.seen.count(2) == [payload, payload]


@asynchronous
async def test_a_hook_that_exits_ends_the_service() -> None:
    class Exits(Probe):
        def on_ready(self) -> None:
            raise SystemExit(4)

    async with EmbeddedBroker() as broker:
        service = Exits(broker.url)
        service.in_thread()
        with pytest.raises(Broken) as raised:
            await service.ended()
        assert isinstance(raised.value.error, SystemExit)


@asynchronous
async def test_who_waits_for_the_loop_when_it_ends_hears_of_it() -> None:
    """A call from another thread, behind a handler during which the service is stopped at once."""
    inside, go = threading.Event(), threading.Event()

    class Busy(Listener):
        def handle_event(self, event: str, payload: Any, conversation_id: str, meta: Meta) -> None:
            inside.set()
            go.wait()
            self.stop(0.0)

    async with EmbeddedBroker() as broker:
        service = Busy(broker.url, ["Happened"])
        async with running(service):
            await publish(service, 1)
            await asyncio.to_thread(inside.wait)
            calls = [asyncio.create_task(asyncio.to_thread(service.publish_event, "Other", n, "c")) for n in range(3)]
            go.set()
            await service.ended()
            answers = await within(asyncio.gather(*calls, return_exceptions=True), "the answers")
    assert all(answer is None or isinstance(answer, (StateError, PublishError)) for answer in answers)


@asynchronous
async def test_who_asks_too_late_for_the_loop_to_get_to_it_hears_of_the_end() -> None:
    service = Probe(NOWHERE)
    async with running(service, ready=False):
        driver: Any = service._eda_driver()
        loop = driver.loop
        add, loop.add_callback_threadsafe = loop.add_callback_threadsafe, lambda call: None
        asking = asyncio.create_task(asyncio.to_thread(service.publish_event, "Happened", 1, "c"))
        await within(_until(lambda: bool(driver._asked)), "the call")
        loop.add_callback_threadsafe = add
        service.stop()
        with pytest.raises(StateError, match="has stopped"):
            await within(asking, "the answer")


# --- the supervisor ---


class Supervised(Probe):
    """Stops when it is ready for the second time."""

    times = 0

    def on_ready(self) -> None:
        super().on_ready()
        self.times += 1
        if self.times == 2:
            self.stop()


@asynchronous
async def test_the_supervisor_runs_one_service_over_lost_connections() -> None:
    async with EmbeddedBroker() as broker:
        supervisor = ReconnectingSupervisor(Supervised, broker.url, ["Happened"], [], name="supervised")
        service = supervisor.service
        assert isinstance(service, Supervised)
        assert service.logical_service == "supervised"
        run = asyncio.create_task(asyncio.to_thread(supervisor.run))
        await service.ready.count(1)
        await broker.cut()
        await service.ready.count(2)
        await within(run, "the end of run()")


def test_what_the_factory_raises_comes_out() -> None:
    with pytest.raises(LocalError):
        ReconnectingSupervisor(Service, "http://nowhere/", [], [], "service")


@pytest.mark.parametrize("error", [SystemExit(5), KeyboardInterrupt(), ServiceError("no")], ids=repr)
def test_the_supervisor_ends_quietly_by_an_interrupt_only(error: BaseException) -> None:
    class Raises(Service):
        def run(self) -> None:
            raise error

    supervisor = ReconnectingSupervisor(Raises, NOWHERE, [], [], "service")
    if isinstance(error, KeyboardInterrupt):
        supervisor.run()
    else:
        with pytest.raises(type(error)):
            supervisor.run()


# --- the network ---


class Sleeper(Listener):
    """Its handler blocks for longer than the broker waits for a heartbeat."""

    HEARTBEAT = 1
    HANDLER_THREADS = 1

    def handle_event(self, event: str, payload: Any, conversation_id: str, meta: Meta) -> None:
        if payload == "slow":
            time.sleep(2.5)
        self.publish_event("Other", payload, conversation_id)
        self.note(payload)


@asynchronous
async def test_with_threads_a_handler_may_block_for_longer_than_the_heartbeat() -> None:
    """The embedded broker closes a connection after two heartbeats without a sign of life."""
    async with EmbeddedBroker() as broker:
        service = Sleeper(broker.url, ["Happened"])
        async with running(service):
            await publish(service, "slow")
            await service.seen.count(1)
            await publish(service, "next")
            await service.seen.count(2)
        assert (service.seen.all, service.ready.all) == (["slow", "next"], [1]), "handled once, on the first link"


@asynchronous
async def test_reconnecting_leaks_no_descriptors() -> None:
    def descriptors() -> int:
        return len(os.listdir("/proc/self/fd"))

    async with EmbeddedBroker() as broker:
        service = Probe(broker.url)
        before = descriptors()
        async with running(service):
            connected: list[int] = []
            for number in range(12):
                await service.ready.count(number + 1)
                connected.append(descriptors())
                await broker.cut()
            await service.ready.count(13)
            assert connected[-1] <= connected[2] + 2, connected  # a closing pair may still be there
        await within(_until(lambda: descriptors() <= before), "its descriptors are closed")
        attempts = Probe([NOWHERE, broker.url.replace("guest@", "guest:wrong@")])
        async with running(attempts, ready=False):
            await asyncio.sleep(0.5)
            attempts.stop()
            await attempts.ended()
        await within(_until(lambda: descriptors() <= before), "those of vain attempts are closed too")


async def _until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.01)


@pytest.mark.rabbitmq
def test_operators_see_who_is_connected(rabbitmq: RabbitNode, rabbit_url: str, rabbit_vhost: str) -> None:
    @asynchronous
    async def scenario() -> None:
        service = Probe(rabbit_url, name="known")
        async with running(service):
            seen = await asyncio.to_thread(rabbitmq.ctl, "list_connections", "vhost", "client_properties", "timeout")
        mine = [line for line in seen.splitlines() if line.startswith(rabbit_vhost)]
        assert len(mine) == 2
        name = f"known@{socket.gethostname()}:{os.getpid()}"
        assert all(f'{{"connection_name","{name}"}}' in line and line.endswith("\t20") for line in mine), mine

    scenario()


# --- TLS ---


@asynccontextmanager
async def with_tls(broker: EmbeddedBroker, authority: trustme.CA, host: str) -> AsyncIterator[str]:
    """The broker behind a certificate for ``host``; yields the URL."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(host).configure_cert(context)
    port = urlsplit(broker.url).port

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        except (OSError, ssl.SSLError):
            pass
        finally:
            writer.close()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(carry(reader, inner_writer), carry(inner_reader, writer))

    server = await asyncio.start_server(accept, "127.0.0.1", 0, ssl=context)
    async with server:
        yield f"amqps://localhost:{server.sockets[0].getsockname()[1]}/"


@asynchronous
async def test_tls_with_an_authority_of_ones_own() -> None:
    authority = trustme.CA()
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    async with EmbeddedBroker() as broker, with_tls(broker, authority, "localhost") as url:
        service = Listener(url, ["Happened"], ssl=trusting)
        async with running(service):
            await publish(service, "x" * 300_000)
            await service.seen.count(1)


@pytest.mark.parametrize("wrong", ["the authority", "the host"])
@asynchronous
async def test_a_wrong_certificate_is_refused(wrong: str, caplog: pytest.LogCaptureFixture) -> None:
    authority = trustme.CA()
    context = ssl.create_default_context()
    (trustme.CA() if wrong == "the authority" else authority).configure_trust(context)
    host = "localhost" if wrong == "the authority" else "elsewhere.example"
    reports: Record[str] = Record("reports")
    async with EmbeddedBroker() as broker, with_tls(broker, authority, host) as url:
        service = Probe(url, ssl=context)
        loop = asyncio.get_running_loop()
        async with running(service, ready=False):
            driver: Any = service._eda_driver()
            driver.report = lambda level, text: loop.call_soon_threadsafe(reports.add, text)
            await reports.until(lambda all: any("CERTIFICATE_VERIFY_FAILED" in text for text in all), "the reason")
            service.stop()
            await service.ended()
        assert service.ready.all == []


# --- peers that do not answer, and pika's own failures ---


@pytest.mark.parametrize("scheme", ["amqp", "amqps"])
@asynchronous
async def test_a_peer_that_accepts_and_says_nothing_is_given_up(scheme: str, caplog: pytest.LogCaptureFixture) -> None:
    """After ``connect_timeout``, in the middle of the handshake of AMQP or TLS; then the next one has its turn."""
    accepted: list[asyncio.StreamWriter] = []

    async def accept(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        accepted.append(writer)

    async with EmbeddedBroker() as broker, await asyncio.start_server(accept, "127.0.0.1", 0) as mute:
        service = Probe([f"{scheme}://127.0.0.1:{mute.sockets[0].getsockname()[1]}/", broker.url])
        service._eda_config = replace(service._eda_config, connect_timeout=0.2)
        async with running(service):
            pass
        assert len(accepted) == 1
        assert "pika failed" not in caplog.text
        for writer in accepted:
            writer.close()


@asynchronous
async def test_a_failure_inside_pika_costs_the_link_and_nothing_else(caplog: pytest.LogCaptureFixture) -> None:
    async with EmbeddedBroker() as broker:
        service = Listener(broker.url, ["Happened"])
        async with running(service):
            driver: Any = service._eda_driver()
            driver.loop.add_callback_threadsafe(lambda: [][1])
            await service.ready.count(2)
            await publish(service, 1)
            await service.seen.count(1)
    assert "pika failed" in caplog.text


@asynchronous
async def test_a_link_that_cannot_even_begin_is_given_up() -> None:
    async with EmbeddedBroker() as broker:
        service = Probe(["amqps://127.0.0.1/?cafile=/nowhere/ca.pem", broker.url])
        async with running(service):
            pass


@asynchronous
async def test_an_effect_that_fails_costs_the_link_and_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    times: list[str] = []

    class Failing(Properties):
        def encode(self) -> list[bytes]:
            if not times:
                times.append("failed")
                raise ValueError("as asked")
            return super().encode()

    monkeypatch.setattr("eda_pika.transport.Properties", Failing)
    async with EmbeddedBroker() as broker:
        service = Listener(broker.url, ["Happened"])
        async with running(service):
            await publish(service, 1)
            await service.ready.count(2)
            await service.has_all(range(1, 2))
    assert times == ["failed"]


class SlowStart(Listener):
    """Keeps the loop from reading the answer to its Basic.Consume for longer than that may take."""

    def on_ready(self) -> None:
        super().on_ready()
        time.sleep(0.3)


@asynchronous
async def test_an_answer_that_only_waits_for_a_handler_is_not_late() -> None:
    async with EmbeddedBroker() as broker:
        service = SlowStart(broker.url, ["Happened"])
        service._eda_config = replace(service._eda_config, close_timeout=0.1)
        async with running(service):
            await publish(service, 1)
            await service.has_all(range(1, 2))
        assert service.ready.all == [1]


@asynchronous
async def test_a_consume_that_is_not_answered_costs_the_link(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which pika would wait for without end."""
    consume, times = pika.channel.Channel.basic_consume, []

    def unanswered(self: Any, *arguments: Any, **named: Any) -> None:
        times.append(1)
        if len(times) > 1:
            consume(self, *arguments, **named)

    monkeypatch.setattr(pika.channel.Channel, "basic_consume", unanswered)
    async with EmbeddedBroker() as broker:
        service = Listener(broker.url, ["Happened"])
        service._eda_config = replace(service._eda_config, close_timeout=0.1)
        async with running(service):
            await service.ready.count(2)
            await publish(service, 1)
            await service.has_all(range(1, 2))


def test_after_its_end_timers_are_no_more() -> None:
    """In the thread of ``run()`` as well."""

    class Brief(Service):
        def make_machine(self, **named: Any) -> Any:
            machine = super().make_machine(**named)
            threading.Timer(0.05, self.stop).start()
            return machine

    service = Brief(NOWHERE, [], [], "brief")
    service.run()
    with pytest.raises(StateError, match="stopped"):
        service.call_later(0.0, print)
    service.cancel_timer(1)
    service.stop()


class Slow(Listener):
    """The last message is handled for as long as nobody has heard of the one before; both wait for the first one."""

    heard = threading.Event()

    def handle_event(self, event: str, payload: Any, conversation_id: str, meta: Meta) -> None:
        time.sleep(0.2 if payload == 0 else 0.01)
        if payload == 2:
            assert self.heard.wait(PATIENCE)
        self.publish_event("Other", payload, conversation_id)
        self.note(payload)


@asynchronous
async def test_what_a_handler_has_published_does_not_wait_for_the_next_one() -> None:
    async with EmbeddedBroker() as broker, peer(broker.url) as client:
        service = Slow(broker.url, ["Happened"])
        async with running(service):
            others = await client.tap("events", "Other")
            await publish(service, 0, 1, 2)
            await others.count(2)
            service.heard.set()
            await service.has_all(range(3))
