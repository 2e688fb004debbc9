"""A resolver that does not return, against each adapter: the attempt ends in time, and nothing waits for it."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

import eda_kombu
from eda_core.testing.conformance import Check, Ended, Seen, Start, Stop, Worker
from eda_core.testing.conformance.running.brokers import Embedded
from eda_core.testing.conformance.running.runner import no_task_is_left
from eda_core.testing.conformance.script import accept, equal, event
from eda_kombu import NotConfirmed
from eda_tools.broker import EmbeddedBroker, EmbeddedBrokerThread
from tests.conformance.test_conformance import ADAPTERS
from tests.conformance.test_cuts import Player, Steps, every_adapter, until
from tests.support.services import TIMEOUT, asynchronous, program

HUNG = "amqp://guest:guest@hung.invalid:5672/"


class Resolver:
    """In the place of ``socket.getaddrinfo``. It answers for ``hung.invalid`` only when the test opens the gate.

    Attributes:
        asked: how often it was asked for that name.
    """

    def __init__(self) -> None:
        self.asked = 0
        self.gate = threading.Event()
        self._find = socket.getaddrinfo

    def __call__(self, host: Any, *arguments: Any, **named: Any) -> Any:
        if host == "hung.invalid" and not named.get("flags"):
            self.asked += 1
            self.gate.wait()
            raise socket.gaierror(socket.EAI_AGAIN, "temporary failure")
        return self._find(host, *arguments, **named)


@pytest.fixture
def resolver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Resolver]:
    made = Resolver()
    monkeypatch.setattr(socket, "getaddrinfo", made)
    yield made
    made.gate.set()
    for thread in threading.enumerate():
        if thread.name == "eda look-up":
            thread.join(TIMEOUT)


def connecting(seconds: float) -> Worker:
    """A worker whose attempts to connect take so long at most."""

    def machine_settings(self: Any) -> dict[str, Any]:
        return {**super(type(self), self).machine_settings(), "connect_timeout": seconds}

    settings = {"machine_settings": machine_settings}
    return Worker("listener", events=["Happened"], handlers={"Happened": accept}, settings=settings)


class Behind(Embedded):
    """The embedded broker, whose URL comes after one that nobody can resolve."""

    def urls(self, names: Sequence[str]) -> list[str]:
        return [HUNG, *super().urls(names)]


class Unknown(Embedded):
    """There is only the URL that nobody can resolve."""

    def urls(self, names: Sequence[str]) -> list[str]:
        return [HUNG]


def play(script: Any, adapter: str, resolver: Resolver, place: type[Embedded] = Behind) -> None:
    async def run() -> None:
        async with EmbeddedBroker() as embedded, place(embedded) as under_test:
            try:
                await Player(under_test, ADAPTERS[adapter]).run(Check("resolver", "", lambda: script(under_test)))
            finally:
                resolver.gate.set()
        await no_task_is_left()

    asyncio.run(run())


@every_adapter
def test_the_next_url_is_tried(adapter: str, resolver: Resolver) -> None:
    def script(under_test: Embedded) -> Steps:
        worker = connecting(0.5)
        yield Start(worker)
        yield event("Happened", 1)
        yield Seen(worker, "Happened")
        equal((resolver.asked, resolver.gate.is_set()), (1, False), "look-ups, and whether they have ended")

    play(script, adapter, resolver)


@every_adapter
def test_a_stop_does_not_wait_for_it(adapter: str, resolver: Resolver) -> None:
    def script(under_test: Embedded) -> Steps:
        worker = connecting(30)
        yield Start(worker, until=None)
        yield until(lambda: resolver.asked == 1)
        yield Stop(worker)
        equal((yield Ended(worker, seconds=5)), None, "the error it ends with")
        equal(resolver.gate.is_set(), False, "whether the look-up has ended")

    play(script, adapter, resolver)


@every_adapter
def test_many_attempts_use_one_thread(adapter: str, resolver: Resolver, caplog: pytest.LogCaptureFixture) -> None:
    def attempts() -> int:
        return sum("no link after" in record.getMessage() for record in caplog.records)

    def script(under_test: Embedded) -> Steps:
        worker = connecting(0.1)
        yield Start(worker, until=None)
        yield until(lambda: attempts() >= 3)
        equal(resolver.asked, 1, "look-ups")

    play(script, adapter, resolver, Unknown)


def test_an_endpoint_tries_the_next_url(resolver: Resolver) -> None:
    with EmbeddedBrokerThread() as broker:
        endpoint = eda_kombu.Endpoint([HUNG, broker.url], "source", connect_timeout=0.5)
        with endpoint:
            endpoint.publish_event("Happened", 1, "c")
        assert (resolver.asked, resolver.gate.is_set()) == (1, False)


def test_the_time_of_a_publish_includes_the_resolver(resolver: Resolver) -> None:
    with eda_kombu.Endpoint(HUNG, "source") as endpoint:
        began = time.monotonic()
        with pytest.raises(NotConfirmed, match=r"hung\.invalid was not resolved within"):
            endpoint.publish_event("Happened", 1, "c", timeout=0.5)
        assert time.monotonic() - began < TIMEOUT / 2


#: Ends in good order although the resolver never returns. An endpoint closes, a service stops.
HANGING = """
import asyncio, socket, sys, threading

asked = threading.Event()

def hang(*arguments, flags=0, **named):
    if flags:
        raise socket.gaierror(socket.EAI_NONAME, "no address")
    asked.set()
    threading.Event().wait()

socket.getaddrinfo = hang
URL = "amqp://guest:guest@hung.invalid:5672/"

async def on_asyncio(kind):
    service = kind(URL, [], [], "svc")
    running = asyncio.create_task(service.run())
    while not asked.is_set():
        await asyncio.sleep(0.01)
    await service.stop()
    await running

def on_pika():
    import eda_pika
    service = eda_pika.Service(URL, [], [], "svc")
    def stop():
        asked.wait()
        service.stop()
    threading.Thread(target=stop).start()
    service.run()

def on_kombu():
    import eda_kombu
    with eda_kombu.Endpoint(URL, "svc", connect_timeout=0.2) as endpoint:
        try:
            endpoint.publish_event("Happened", 1, "c", 0)
        except eda_kombu.NotConfirmed:
            pass
    assert asked.is_set()

match sys.argv[1]:
    case "eda_aio":
        import eda_aio
        asyncio.run(on_asyncio(eda_aio.Service))
    case "native":
        from tests.support.native import NativeService
        asyncio.run(on_asyncio(NativeService))
    case "custom":
        from examples.custom_service import Service
        asyncio.run(on_asyncio(Service))
    case "eda_pika":
        on_pika()
    case _:
        on_kombu()
print("over", flush=True)
"""


@pytest.mark.parametrize("adapter", ["eda_aio", "native", "eda_pika", "eda_kombu", "custom"])
@asynchronous
async def test_a_process_ends_although_it_does_not_return(adapter: str) -> None:
    async with program("-c", HANGING, adapter, url=HUNG) as process:
        await process.says("over")
        assert await process.end() == 0, process.errors
