"""The life of a service on pika: before it runs, its timers, the ways to end, and the supervisor."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from eda_core import LocalError, PublishError, ServiceError, StateError
from eda_pika import ReconnectingSupervisor, Service
from eda_tools.broker import EmbeddedBroker
from tests.adapters.pika.support import NOWHERE, Broken, Listener, Probe, publish, running, until
from tests.support.services import asynchronous, within

pytestmark = pytest.mark.usefixtures("either_way")

Meta = dict[str, Any]


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


# --- timers ---


class Clock(Probe):
    """Sets timers when it is ready: one that it cancels, two in the wrong order, one that is cancelled later."""

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
            driver: Any = service.running_driver()
            await service.do(service.call_later, 3600.0, print)
            assert driver._timers
    assert not driver._timers, "they end with the service"
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


def test_after_its_end_timers_are_no_more() -> None:
    """Methods may be called in the thread of ``run()``, too."""

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
    """Its message goes to another worker."""
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
    """Another thread calls a method while a handler runs. During that handler the service is stopped at once."""
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
        driver: Any = service.running_driver()
        loop = driver.loop
        add, loop.add_callback_threadsafe = loop.add_callback_threadsafe, lambda call: None
        asking = asyncio.create_task(asyncio.to_thread(service.publish_event, "Happened", 1, "c"))
        await within(until(lambda: bool(driver._asked)), "the call")
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
        def run(self, *, signals: Any = None) -> None:
            raise error

    supervisor = ReconnectingSupervisor(Raises, NOWHERE, [], [], "service")
    if isinstance(error, KeyboardInterrupt):
        supervisor.run()
    else:
        with pytest.raises(type(error)):
            supervisor.run()
