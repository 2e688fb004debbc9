"""The spans of services of eda_pika, in the loop's thread and in threads, and of endpoints; and of all adapters."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.trace import SpanKind, StatusCode

import eda_aio
from eda_core import LocalError, RawEvent, RetryPolicy
from eda_kombu import Endpoint, PartlyPublished, Unroutable
from eda_pika import Batch
from tests.adapters.otel.support import Spans, attributes, traceparent, traces, tree
from tests.adapters.pika.support import Probe, running
from tests.support.services import BrokerUnderTest, asynchronous
from tests.support.services import Probe as AioProbe
from tests.support.services import running as running_aio

CONSUMER, PRODUCER = SpanKind.CONSUMER, SpanKind.PRODUCER
IN_THREADS = pytest.mark.parametrize("threads", [0, 3])
Meta = dict[str, Any]


class Billing(Probe):
    """Answers with the number of the order, and notes the span in whose context it runs."""

    def on_ChargeCard(self, payload: Any, conversation_id: str, reply_to: str, key: str, meta: Meta) -> Any:
        self.note(trace.get_current_span().get_span_context())
        self.publish_event("Progressed", 1, conversation_id, immediate=True)
        return {"paid": payload}


class Shop(AioProbe):
    async def on_OrderPlaced(self, payload: Any, conversation_id: str, meta: Meta) -> None:
        await self.send_command("billing.ChargeCard", payload, conversation_id, "shop.ChargeCardReturn", "k")

    async def on_ChargeCardReturn(self, payload: Any, conversation_id: str, status: str, key: str, meta: Meta) -> None:
        await self.publish_event("OrderPaid", payload, conversation_id)


@IN_THREADS
@asynchronous
async def test_all_adapters_together_make_one_trace(broker: BrokerUnderTest, spans: Spans, threads: int) -> None:
    kind: Any = type("Billing", (Billing,), {"HANDLER_THREADS": threads})
    billing: Billing = kind(broker.url, [], ["billing.ChargeCard"], "billing")
    shop = Shop(broker.url, ["OrderPlaced"], ["shop.ChargeCardReturn"], "shop")
    endpoint = Endpoint(broker.url, "web")
    spans.of(billing, shop, endpoint)

    def place() -> None:
        with endpoint, spans.tracer.start_as_current_span("POST /orders"):
            endpoint.publish_event("OrderPlaced", 7, "c-1")

    async with running(billing), running_aio(shop):
        await asyncio.to_thread(place)
        found = await spans.until(9)
        current = await billing.seen.next()
    process = "process commands:billing.ChargeCard:billing.commands"
    assert traces(found) == 1
    assert tree(found) == [
        ("POST /orders", SpanKind.INTERNAL, ""),
        ("send events:OrderPlaced", PRODUCER, "POST /orders"),
        ("process events:OrderPlaced:shop.events", CONSUMER, "send events:OrderPlaced"),
        ("send commands:billing.ChargeCard", PRODUCER, "process events:OrderPlaced:shop.events"),
        (process, CONSUMER, "send commands:billing.ChargeCard"),
        ("send events:Progressed", PRODUCER, process),
        ("send commands:shop.ChargeCardReturn", PRODUCER, process),
        ("process commands:shop.ChargeCardReturn:shop.commands", CONSUMER, "send commands:shop.ChargeCardReturn"),
        ("send events:OrderPaid", PRODUCER, "process commands:shop.ChargeCardReturn:shop.commands"),
    ]
    assert current == found[4].context
    assert attributes(found[1])["messaging.message.id"] == attributes(found[2])["messaging.message.id"]
    assert [attributes(span)["eda.held"] for span in found if span.kind is PRODUCER] == [False, True, False, True, True]
    sent, received = attributes(found[3]), attributes(found[4])
    assert sent["messaging.message.id"] == received["messaging.message.id"]
    result = found[6]
    assert attributes(result)["messaging.message.id"] == attributes(found[7])["messaging.message.id"]
    assert (found[4].end_time or 0) >= (result.end_time or 0), "the result belongs to the handler"


@IN_THREADS
@asynchronous
async def test_a_handler_that_fails_has_its_error_and_each_attempt_a_span(
    broker: BrokerUnderTest, spans: Spans, threads: int
) -> None:
    class Failing(Probe):
        RETRY_POLICY = RetryPolicy(2)
        HANDLER_THREADS = threads

        def on_Happened(self, payload: Any, conversation_id: str, meta: Meta) -> None:
            if not self.seen.all:
                self.seen.all.append("failed")
                raise LookupError("nothing there")

    service = Failing(broker.url, ["Happened"])
    spans.of(service)
    async with running(service):
        await service.do(service.publish_event, "Happened", 1, "c-1")
        _, first, second = await spans.until(3)
    assert traces([first, second]) == 1
    assert [attributes(span)["eda.attempt"] for span in (first, second)] == [1, 2]
    assert [span.status.status_code for span in (first, second)] == [StatusCode.ERROR, StatusCode.UNSET]
    assert attributes(first)["error.type"] == "LookupError"


@IN_THREADS
@asynchronous
async def test_the_span_of_a_batch_has_links_to_its_events(broker: BrokerUnderTest, spans: Spans, threads: int) -> None:
    class Collector(Probe):
        PREFETCH_COUNT = 2
        HANDLER_THREADS = threads
        fails = True

        def on_Counted(self, payload: Any, conversation_id: str, meta: Meta) -> bool:
            batch.push(payload, conversation_id, meta)
            return True

    def take(events: list[RawEvent]) -> None:
        service.publish_event("Summed", len(events), "c-1")
        if service.fails:
            service.fails = False
            raise OSError("no disk")

    service = Collector(broker.url, ["Counted"], name="collector")
    batch = Batch(service, 2, 60.0, take)
    spans.of(service)
    async with running(service):
        for number in range(2):
            await service.do(service.publish_event, "Counted", number, "c-1")
        found = await spans.until(10)
    name = "process events:collector.events"
    batches = [span for span in found if span.name == name]
    sent = {span.context.span_id for span in found if span.name == "send events:Counted" and span.context is not None}
    assert [{link.context.span_id for link in span.links} for span in batches] == [sent, sent]
    assert [span.status.status_code for span in batches] == [StatusCode.ERROR, StatusCode.UNSET]
    assert tree(found).count(("send events:Summed", PRODUCER, name)) == 2


@asynchronous
async def test_a_publish_outside_of_handlers_belongs_to_its_caller(broker: BrokerUnderTest, spans: Spans) -> None:
    class Timing(Probe):
        def on_ready(self) -> None:
            self.publish_event("Started", 1, "c-1")
            super().on_ready()

    service = Timing(broker.url)
    spans.of(service)

    def publish() -> None:
        with spans.tracer.start_as_current_span("a thread"):
            service.publish_event("Told", 1, "c-1")
            with pytest.raises(LocalError):
                service.publish_event("", 1, "c-1")

    async with running(service):
        await asyncio.to_thread(publish)
        found = await spans.until(4)
    assert sorted(row[::2] for row in tree(found)) == [
        ("a thread", ""),
        ("send events:", "a thread"),
        ("send events:Started", ""),
        ("send events:Told", "a thread"),
    ]


def test_each_publish_of_an_endpoint_has_a_span_with_its_error(broker: BrokerUnderTest, spans: Spans) -> None:
    with Endpoint(broker.url, "web") as endpoint:
        spans.of(endpoint)
        endpoint.publish_configuration("Settings", 1)
        with pytest.raises(Unroutable):
            endpoint.send_command("nobody.Do", 1, "c-1", "web.DoReturn", "k")
    settings, command = spans.ended(2)
    assert (settings.name, command.name) == ("send configurations:Settings", "send commands:nobody.Do")
    assert (command.status.status_code, dict(command.attributes or {})["error.type"]) == (
        StatusCode.ERROR,
        "Unroutable",
    )
    assert settings.status.status_code is StatusCode.UNSET


@asynchronous
async def test_many_events_of_an_endpoint_share_a_span(broker: BrokerUnderTest, spans: Spans) -> None:
    class Listener(AioProbe):
        async def on_Happened(self, payload: Any, conversation_id: str, meta: Meta) -> None:
            self.seen.add(meta["traceparent"])

    def publish() -> None:
        with Endpoint(broker.url, "web") as endpoint:
            spans.of(endpoint)
            endpoint.publish_many([("Happened", number, "c-1") for number in range(3)])
            with pytest.raises(PartlyPublished):
                endpoint.publish_many([("", 1, "c-1")])

    service = Listener(broker.url, ["Happened"])
    async with running_aio(service):
        await asyncio.to_thread(publish)
        heard = await service.seen.count(3)
        many, failed = await spans.until(2)
    assert heard == [traceparent(many)] * 3
    assert (many.name, dict(many.attributes or {})["messaging.batch.message_count"]) == ("send events", 3)
    assert failed.status.status_code is StatusCode.ERROR


@asynchronous
async def test_a_service_that_is_not_traced_sends_no_context(broker: BrokerUnderTest, spans: Spans) -> None:
    class Listener(AioProbe):
        async def on_Happened(self, payload: Any, conversation_id: str, meta: Meta) -> None:
            self.seen.add((meta, trace.get_current_span()))

    service = Listener(broker.url, ["Happened"])
    assert isinstance(service, eda_aio.Service)
    async with running_aio(service):
        with spans.tracer.start_as_current_span("a program"):
            await service.publish_event("Happened", 1, "c-1")
            meta, span = await service.seen.next()
    assert not {"traceparent", "tracestate", "baggage"} & meta.keys()
    assert not span.is_recording()
