"""What the adapters tell a newcomer who has made a mistake, in the words that name it and say what to do."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar

import pytest

import eda_aio
import eda_pika
from eda_core.errors import NotReady, ServiceError, StateError
from eda_core.urls import redact
from eda_tools.broker import EmbeddedBrokerThread
from tests.support.services import within

NOWHERE = "amqp://guest:guest@127.0.0.1:1/"


def told(caplog: pytest.LogCaptureFixture, event: str) -> list[str]:
    """What was written to the local log with this name."""
    return [each.getMessage() for each in caplog.records if getattr(each, "eda_event", "") == event]


class AioShop(eda_aio.Service):
    """A service whose handlers do what ``does`` says, and which ends with its first dead letter."""

    does: ClassVar[Any]

    async def on_Paid(self, payload: Any, conversation_id: str, meta: dict[str, Any]) -> None:
        await type(self).does(self)

    async def publish_paid(self) -> None:
        await self.publish_event("Paid", 1, "c")

    on_ready = publish_paid


class PikaShop(eda_pika.Service):
    """The same for plain functions."""

    does: ClassVar[Any]

    def on_Paid(self, payload: Any, conversation_id: str, meta: dict[str, Any]) -> None:
        type(self).does(self)

    def publish_paid(self) -> None:
        self.publish_event("Paid", 1, "c")

    on_ready = publish_paid


async def _aio_stumbles(shop: Any) -> None:
    await shop.stop()
    raise KeyError("amount")


def _pika_stumbles(shop: Any) -> None:
    shop.stop()
    raise KeyError("amount")


@pytest.mark.parametrize(
    ("kind", "does", "run"),
    [
        pytest.param(AioShop, _aio_stumbles, lambda shop: asyncio.run(shop.run()), id="eda_aio"),
        pytest.param(PikaShop, _pika_stumbles, lambda shop: shop.run(), id="eda_pika"),
    ],
)
def test_the_traceback_of_a_failure_begins_with_the_code_of_the_user(
    kind: Any, does: Any, run: Callable[[Any], None], caplog: pytest.LogCaptureFixture
) -> None:
    with EmbeddedBrokerThread() as broker:
        shop = type("Shop", (kind,), {"does": does})(broker.url, ["Paid"], [], "shop")
        run(shop)
    line, title, first, *rest = told(caplog, "handler-failed")[0].splitlines()
    assert (line, title) == ("Paid: KeyError: 'amount'", "Traceback (most recent call last):")
    assert f'File "{__file__}"' in first
    assert first.endswith("in on_Paid")
    assert rest[-1] == "KeyError: 'amount'"
    assert "eda_core" not in "".join(rest)


def test_a_publish_of_a_service_that_does_not_run_says_how_to_test_a_handler() -> None:
    """The newcomer calls a handler in a unit test."""

    async def publish() -> None:
        await AioShop(NOWHERE, ["Paid"], [], "shop").publish_paid()

    words = r"^the service does not run; run it first, and begin in on_ready; in a unit test set the method to {}\(\), "
    words += r'as in docs/tutorial/5-tests\.rst, "Call a handler"$'
    with pytest.raises(StateError, match=words.format("AsyncMock")):
        asyncio.run(within(publish(), "the publish"))
    with pytest.raises(StateError, match=words.format("Mock")):
        PikaShop(NOWHERE, ["Paid"], [], "shop").publish_paid()


async def _refused_aio(url: str) -> None:
    service = eda_aio.Service(url, [], [], "shop")
    run = asyncio.create_task(service.run())
    with pytest.raises(ServiceError, match="refuses the user 'guest' or its password") as told:
        await service.wait_until_ready(60)
    with pytest.raises(ServiceError, match=f"^{re.escape(str(told.value))}$"):
        await run


def _refused_pika(url: str) -> None:
    service = eda_pika.Service(url, [], [], "shop")
    with ThreadPoolExecutor(1) as pool:
        run = pool.submit(service.run)
        with pytest.raises(ServiceError, match="refuses the user 'guest' or its password") as told:
            service.wait_until_ready(60)
        with pytest.raises(ServiceError, match=f"^{re.escape(str(told.value))}$"):
            run.result(60)


LOST = rf"not ready within 0\.2 s: no link to {re.escape(redact(NOWHERE))}: .+; trying .+ in .+ s"


async def _away_aio() -> None:
    service = eda_aio.Service(NOWHERE, [], [], "shop")
    run = asyncio.create_task(service.run())
    text = ""
    while not re.fullmatch(LOST, text):  # on a slow machine the broker is not yet known to be away
        with pytest.raises(NotReady) as told:
            await service.wait_until_ready(0.2)
        text = str(told.value)
    await service.stop()
    await run


def _away_pika() -> None:
    service = eda_pika.Service(NOWHERE, [], [], "shop")
    with ThreadPoolExecutor(1) as pool:
        run = pool.submit(service.run)
        text = ""
        while not re.fullmatch(LOST, text):
            with pytest.raises(NotReady) as told:
                service.wait_until_ready(0.2)
            text = str(told.value)
        service.stop()
        run.result(60)


def test_who_waits_until_a_service_is_ready_gets_the_error_with_which_it_ends() -> None:
    with EmbeddedBrokerThread() as broker:
        url = broker.url.replace("guest:guest@", "guest:wrong@")
        asyncio.run(within(_refused_aio(url), "the end of the service"))
        _refused_pika(url)


def test_who_waits_until_a_service_is_ready_is_told_in_the_end_what_is_missing() -> None:
    asyncio.run(within(_away_aio(), "the end of the service"))
    _away_pika()


class AioArchiver(AioShop):
    """It forgets to return True."""

    def __init__(self, url: str) -> None:
        super().__init__(url, ["Paid"], [], "archiver")
        self.batch = eda_aio.Batch(self, 100, 60.0, self.store)

    async def on_Paid(self, payload: Any, conversation_id: str, meta: dict[str, Any]) -> None:
        await self.batch.push(payload, conversation_id, meta)
        await self.stop()

    async def store(self, events: Any) -> None: ...


class PikaArchiver(PikaShop):
    """The same for plain functions."""

    def __init__(self, url: str) -> None:
        super().__init__(url, ["Paid"], [], "archiver")
        self.batch = eda_pika.Batch(self, 100, 60.0, lambda events: None)

    def on_Paid(self, payload: Any, conversation_id: str, meta: dict[str, Any]) -> None:
        self.batch.push(payload, conversation_id, meta)
        self.call_later(0.0, self.stop)


@pytest.mark.parametrize(
    ("kind", "run"),
    [
        pytest.param(AioArchiver, lambda service: asyncio.run(service.run()), id="eda_aio"),
        pytest.param(PikaArchiver, lambda service: service.run(), id="eda_pika"),
    ],
)
def test_a_batch_that_is_wrongly_used_is_told(kind: Any, run: Any, caplog: pytest.LogCaptureFixture) -> None:
    with EmbeddedBrokerThread() as broker:
        run(kind(broker.url))
    name = kind.__name__
    assert told(caplog, "checked") == [
        f"{name} may not do what it should\n- a Batch of 100 events never gets full if its handlers return True, "
        "because PREFETCH_COUNT is 10; write PREFETCH_COUNT = 100 in the class"
    ]
    assert told(caplog, "early-ack") == [
        f"{name}.on_Paid has put its event into a batch and has not returned True: the event is acknowledged before "
        "its batch is handled, and is lost if the process dies; end the handler with 'return True'"
    ]


class PikaImpatient(eda_pika.Service):
    """It waits in the thread that it keeps from its work."""

    def on_unconfigured(self) -> None:
        try:
            self.wait_until_ready()
        finally:
            self.stop()


def test_a_service_of_eda_pika_does_not_wait_for_itself() -> None:
    with EmbeddedBrokerThread() as broker:
        service = PikaImpatient(broker.url, [], [], "shop", ["Settings"])
        with pytest.raises(ServiceError, match=r"wait_until_ready\(\) would keep the thread of run\(\) from its work"):
            service.run()
