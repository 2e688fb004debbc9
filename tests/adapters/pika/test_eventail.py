"""Calls of eventail that mean something else on eda_pika. See also tests/interop."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest

from eda_core import LocalError
from eda_pika import Service
from eda_tools.broker import EmbeddedBroker
from tests.adapters.pika.support import Probe, running
from tests.support.services import asynchronous, peer


@pytest.mark.parametrize("threads", [0, 2])
@asynchronous
async def test_json_may_be_chosen_while_a_service_runs_from_any_thread(threads: int) -> None:
    kind: Any = type("Threaded", (Probe,), {"HANDLER_THREADS": threads})
    async with EmbeddedBroker() as broker, peer(broker.url) as bus:
        service = kind(broker.url)
        async with running(service):
            events = await bus.tap("events")
            await service.do(service.publish_event, "Happened", {"n": 1}, "c")
            await service.do(service.use_json)
            await service.do(service.publish_event, "Happened", {"n": 1}, "c")
            types = [message.content_type for message in await events.count(2)]
    assert types == ["application/cbor", "application/json"]


@pytest.mark.parametrize(("arguments", "named"), [((False,), {}), ((), {"reconnect": False}), ((2,), {})])
@asynchronous
async def test_a_stop_as_eventails_callers_write_it(arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
    async with EmbeddedBroker() as broker:
        service = Probe(broker.url)
        async with running(service):
            service.stop(*arguments, **named)
            await service.ended()


@asynchronous
async def test_a_stop_that_is_to_reconnect_is_refused_and_stops_nothing() -> None:
    async with EmbeddedBroker() as broker:
        service = Probe(broker.url)
        async with running(service):
            with pytest.raises(LocalError, match="asked to reconnect"):
                service.stop(reconnect=True)
            await service.do(service.publish_event, "Happened", 1, "c")


@pytest.mark.parametrize("conversation_id", [7, None, uuid4(), b"c"], ids=lambda value: type(value).__name__)
@asynchronous
async def test_a_conversation_id_that_is_no_text_is_refused_where_it_is_given(conversation_id: Any) -> None:
    async with EmbeddedBroker() as broker:
        service = Probe(broker.url)
        async with running(service):
            with pytest.raises(LocalError, match=r"the conversation id of Happened is \w+, not str; pass text"):
                await service.do(service.publish_event, "Happened", 1, conversation_id)


def test_another_exchange_and_pikas_connection_are_told_of() -> None:
    class Own(Service):
        EVENT_EXCHANGE = "mine"

    with pytest.raises(LocalError, match=r"Own\.EVENT_EXCHANGE is 'mine'"):
        Own("amqp://127.0.0.1:1/", [], [], "own")
    service: Any = Service("amqp://127.0.0.1:1/", [], [], "service")
    with pytest.raises(AttributeError, match=r"'_connection', which eventail has; .* use call_later\(\)"):
        service._connection.ioloop.call_later(1, print)
