"""What the adapters say of a service that cannot run, before they connect."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import pytest

import eda_aio
import eda_pika
from eda_core.errors import LocalError
from eda_tools.broker import EmbeddedBrokerThread

NOWHERE = "amqp://guest:guest@127.0.0.1:1/"


def _run_aio(service: Any) -> None:
    asyncio.run(service.run())


def _run_pika(service: Any) -> None:
    service.run()


ADAPTERS = [
    pytest.param(eda_aio.Service, _run_aio, id="eda_aio"),
    pytest.param(eda_pika.Service, _run_pika, id="eda_pika"),
]


@pytest.mark.parametrize(("base", "run"), ADAPTERS)
def test_a_handler_with_a_wrong_signature_stops_the_start(base: type[Any], run: Callable[[Any], None]) -> None:
    class Billing(base):  # type: ignore[misc]
        def on_Paid(self, payload: Any) -> None: ...

    text = (
        r"on_Paid\(payload\) cannot be called: the handler of an event is called as on_Paid\(payload, conversation_id,"
    )
    with pytest.raises(LocalError, match=text):
        run(Billing(NOWHERE, ["Paid"], [], "billing"))


@pytest.mark.parametrize(("base", "run"), ADAPTERS)
def test_a_constructor_that_forgets_its_base_class_stops_the_start(base: type[Any], run: Callable[[Any], None]) -> None:
    class Billing(base):  # type: ignore[misc]
        def __init__(self) -> None: ...

    with pytest.raises(LocalError, match="the constructor of Billing has not called that of its base class"):
        run(Billing())


def test_a_coroutine_function_stops_the_start_of_eda_pika() -> None:
    class Billing(eda_pika.Service):
        async def on_Paid(self, payload: Any, conversation_id: str, meta: Any) -> None: ...

    with pytest.raises(LocalError, match=r"async def on_Paid\(\) would never be run"):
        Billing(NOWHERE, ["Paid"], [], "billing").run()


class AioBilling(eda_aio.Service):
    async def on_ready(self) -> None:
        await self.stop()


class PikaBilling(eda_pika.Service):
    def on_ready(self) -> None:
        self.stop()


@pytest.mark.parametrize(("kind", "run"), [(AioBilling, _run_aio), (PikaBilling, _run_pika)])
def test_a_service_whose_subscription_has_no_handler_runs_with_a_warning(
    kind: type[Any], run: Callable[[Any], None], caplog: pytest.LogCaptureFixture
) -> None:
    with EmbeddedBrokerThread() as broker, caplog.at_level(logging.WARNING):
        run(kind(broker.url, ["Paid"], [], "billing"))
    (text,) = [record.getMessage() for record in caplog.records if "on_Paid" in record.getMessage()]
    assert text == (
        f"{kind.__name__} may not do what it should\n"
        "- event_routing_keys has 'Paid', but there is no method on_Paid(); define it, or remove the key"
    )
