"""The spans of services of eda_aio: which there are, whose children they are, and what they tell."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Any, ClassVar

import pytest
from opentelemetry import baggage, context, trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import Sampler, SamplingResult
from opentelemetry.trace import SpanKind, StatusCode

from eda_aio import Batch, Service
from eda_core import CommandError, LocalError, RawEvent, Reject, RetryPolicy, StateError
from eda_otel import instrument
from eda_tools.resurrect import TOOL
from tests.adapters.otel.support import Spans, attributes, traceparent, traces, tree
from tests.support.services import (
    DEAD_LETTER_QUEUE,
    BrokerUnderTest,
    Probe,
    Record,
    asynchronous,
    operate_dead_letters,
    peer,
    running,
    within,
)
from tests.support.tools import run_here

CLIENT, CONSUMER, PRODUCER = SpanKind.CLIENT, SpanKind.CONSUMER, SpanKind.PRODUCER
Meta = dict[str, Any]


class Noting(Probe):
    """Notes what it gets."""

    def __init__(self, url: str, events: list[str], commands: Sequence[str] = (), name: str = "probe") -> None:
        super().__init__(url, events, commands, name)
        self.got: Record[tuple[Any, Meta]] = Record("messages")


class Shop(Noting):
    async def on_OrderPlaced(self, payload: Any, conversation_id: str, meta: Meta) -> None:
        await self.send_command("billing.ChargeCard", payload, conversation_id, "shop.ChargeCardReturn", "k")

    async def on_ChargeCardReturn(self, payload: Any, conversation_id: str, status: str, key: str, meta: Meta) -> None:
        await self.publish_event("OrderPaid", payload, conversation_id)


class Billing(Noting):
    async def on_ChargeCard(self, payload: Any, conversation_id: str, reply_to: str, key: str, meta: Meta) -> Any:
        return {"paid": payload}


class Mailer(Noting):
    async def on_OrderPaid(self, payload: Any, conversation_id: str, meta: Meta) -> None:
        self.got.add((payload, meta))


@pytest.mark.parametrize("transport", ["aio-pika", "native"], indirect=True)
@asynchronous
async def test_a_conversation_of_three_services_is_one_trace(
    broker: BrokerUnderTest, spans: Spans, transport: str
) -> None:
    shop = Shop(broker.url, ["OrderPlaced"], ["shop.ChargeCardReturn"], "shop")
    billing = Billing(broker.url, [], ["billing.ChargeCard"], "billing")
    mailer = Mailer(broker.url, ["OrderPaid"], [], "mailer")
    spans.of(shop, billing, mailer)
    async with running(shop, billing, mailer):
        await shop.publish_event("OrderPlaced", 7, "c-1")
        found = await spans.until(8)
        _, meta = await mailer.got.next()
    assert traces(found) == 1
    assert tree(found) == [
        ("send events:OrderPlaced", PRODUCER, ""),
        ("process events:OrderPlaced:shop.events", CONSUMER, "send events:OrderPlaced"),
        ("send commands:billing.ChargeCard", PRODUCER, "process events:OrderPlaced:shop.events"),
        ("process commands:billing.ChargeCard:billing.commands", CONSUMER, "send commands:billing.ChargeCard"),
        ("send commands:shop.ChargeCardReturn", PRODUCER, "process commands:billing.ChargeCard:billing.commands"),
        ("process commands:shop.ChargeCardReturn:shop.commands", CONSUMER, "send commands:shop.ChargeCardReturn"),
        ("send events:OrderPaid", PRODUCER, "process commands:shop.ChargeCardReturn:shop.commands"),
        ("process events:OrderPaid:mailer.events", CONSUMER, "send events:OrderPaid"),
    ]
    assert meta["traceparent"] == traceparent(found[6])
    assert {span.status.status_code for span in found} == {StatusCode.UNSET}
    placed = {"messaging.destination.name": "events:OrderPlaced", "messaging.message.conversation_id": "c-1"}
    placed["messaging.rabbitmq.destination.routing_key"] = "OrderPlaced"
    first, second, returned = (attributes(found[number]) for number in (0, 1, 4))
    message_id = first.pop("messaging.message.id")
    assert first == {
        **placed,
        "messaging.operation.name": "send",
        "messaging.operation.type": "send",
        "eda.held": False,
    }
    assert second == {
        **placed,
        "messaging.destination.name": "events:OrderPlaced:shop.events",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.message.id": message_id,
        "messaging.rabbitmq.message.delivery_tag": 1,
        "eda.attempt": 1,
    }
    assert (returned["eda.result.status"], returned["eda.held"]) == ("success", True)
    assert meta["message_id"] == attributes(found[6])["messaging.message.id"]
    address = dict(found[0].attributes or {})
    assert (address["messaging.system"], address["server.address"]) == ("rabbitmq", "127.0.0.1")
    assert str(address["messaging.client.id"]).startswith("shop@")


class Caller(Noting):
    async def on_Asked(self, payload: Any, conversation_id: str, meta: Meta) -> None:
        self.got.add((await self.call("billing.ChargeCard", payload), meta))


@asynchronous
async def test_a_call_is_a_client_span_that_waits_for_the_result(broker: BrokerUnderTest, spans: Spans) -> None:
    caller = Caller(broker.url, ["Asked"], [], "caller")
    billing = Billing(broker.url, [], ["billing.ChargeCard"], "billing")
    spans.of(caller, billing)
    async with running(caller, billing):
        await caller.publish_event("Asked", 7, "c-1")
        found = await spans.until(6)
    assert traces(found) == 1
    assert tree(found)[1:] == [
        ("process events:Asked:caller.events", CONSUMER, "send events:Asked"),
        ("call commands:billing.ChargeCard", CLIENT, "process events:Asked:caller.events"),
        ("send commands:billing.ChargeCard", PRODUCER, "call commands:billing.ChargeCard"),
        ("process commands:billing.ChargeCard:billing.commands", CONSUMER, "send commands:billing.ChargeCard"),
        ("send commands", PRODUCER, "process commands:billing.ChargeCard:billing.commands"),
    ]
    call, sent, processed, result = found[2:]
    assert sent.end_time is not None
    assert processed.end_time is not None
    assert call.end_time is not None
    assert processed.start_time is not None
    assert sent.end_time <= processed.start_time
    assert processed.end_time <= call.end_time or result.end_time is not None
    assert attributes(call) == {
        "messaging.operation.name": "call",
        "messaging.destination.name": "commands:billing.ChargeCard",
        "messaging.rabbitmq.destination.routing_key": "billing.ChargeCard",
        "messaging.message.conversation_id": "c-1",
    }
    assert attributes(sent)["messaging.message.id"] == attributes(processed)["messaging.message.id"]
    assert attributes(result)["messaging.destination.temporary"] is True, "one key for each worker"


@asynchronous
async def test_a_call_that_fails_has_its_error(broker: BrokerUnderTest, spans: Spans) -> None:
    class Refusing(Billing):
        async def on_ChargeCard(self, *_: Any) -> Any:
            raise Reject("no such card")

    caller, billing = Noting(broker.url, []), Refusing(broker.url, [], ["billing.ChargeCard"], "billing")
    spans.of(caller, billing)
    async with running(caller, billing):
        with pytest.raises(CommandError):
            await caller.call("billing.ChargeCard", 7)
        found = await spans.until(4)
    call, _, processed, result = found
    assert (call.status.status_code, attributes(call)["error.type"]) == (StatusCode.ERROR, "CommandError")
    assert "messaging.message.conversation_id" not in attributes(call), "the machine begins one"
    assert (processed.status.status_code, attributes(processed)["error.type"]) == (StatusCode.ERROR, "Reject")
    assert (result.name, attributes(result)["eda.result.status"]) == ("send commands", "error")


class Failing(Noting):
    """Fails the first time, or each time."""

    TIMES: ClassVar[int] = 1
    failed = 0

    async def on_Happened(self, payload: Any, conversation_id: str, meta: Meta) -> None:
        await self.publish_event("Told", payload, conversation_id)
        if self.failed < self.TIMES:
            self.failed += 1
            raise LookupError("nothing there")
        self.got.add((payload, meta))


@pytest.mark.parametrize("delays", [(), (0.05,)], ids=["at once", "delayed"])
@asynchronous
async def test_each_attempt_is_a_span_of_the_same_trace(
    broker: BrokerUnderTest, spans: Spans, delays: tuple[float, ...]
) -> None:
    class Patient(Failing):
        RETRY_POLICY = RetryPolicy(2, delays)

    service = Patient(broker.url, ["Happened"])
    spans.of(service)
    async with running(service):
        await service.publish_event("Happened", 1, "c-1")
        found = await spans.until(5)
        _, meta = await service.got.next()
    name = "process events:Happened:probe.events"
    assert traces(found) == 1
    assert tree(found) == [
        ("send events:Happened", PRODUCER, ""),
        (name, CONSUMER, "send events:Happened"),
        ("send events:Told", PRODUCER, name),
        (name, CONSUMER, "send events:Happened"),
        ("send events:Told", PRODUCER, name),
    ]
    first, second = found[1], found[3]
    assert [attributes(span)["eda.attempt"] for span in (first, second)] == [1, 2]
    assert (first.status.status_code, second.status.status_code) == (StatusCode.ERROR, StatusCode.UNSET)
    assert first.status.description == "LookupError: nothing there"
    assert attributes(first)["error.type"] == "LookupError"
    assert "error.type" not in attributes(second)
    (event,) = first.events
    described = dict(event.attributes or {})
    assert (event.name, described["exception.message"]) == ("exception", "nothing there")
    assert "on_Happened" in str(described["exception.stacktrace"])
    assert meta["traceparent"] == traceparent(found[0])
    assert found[2].parent is not None
    assert first.context is not None
    assert found[2].parent.span_id == first.context.span_id, "what a failed handler has published is held, and dropped"
    assert attributes(found[2])["eda.held"] is True


@pytest.mark.parametrize("own", ["", "am-dlx"], ids=["rejected", "published"])
@asynchronous
async def test_a_dead_letter_that_is_resurrected_goes_on_in_its_trace(
    broker: BrokerUnderTest, spans: Spans, own: str, capsys: pytest.CaptureFixture[str]
) -> None:
    class Doomed(Failing):
        RETRY_POLICY = RetryPolicy(1)
        DEAD_LETTER_EXCHANGE = own

    service = Doomed(broker.url, ["Happened"])
    spans.of(service)
    async with peer(broker.url) as client:
        if broker.node is not None:
            await operate_dead_letters(broker.node, broker.vhost, client)
        async with running(service):
            await service.publish_event("Happened", 1, "c-1")
            while not await client.waiting_in(DEAD_LETTER_QUEUE):
                pass
    sent = await spans.one("send events:Happened", 3)
    ran = await asyncio.to_thread(run_here, TOOL, capsys, "--json", broker.url, DEAD_LETTER_QUEUE)
    assert ran.objects[-1]["total"]["replayed"] == 1
    again = Noting(broker.url, ["Happened"])
    again.__dict__["on_Happened"] = lambda payload, conversation_id, meta: again.got.add((payload, meta))
    spans.of(again)
    async with running(again):
        _, meta = await again.got.next()
        found = await spans.until(4)
    assert meta["traceparent"] == traceparent(sent)
    assert traces(found) == 1


@asynchronous
async def test_the_span_of_a_batch_has_links_to_its_events(broker: BrokerUnderTest, spans: Spans) -> None:
    class Collector(Noting):
        PREFETCH_COUNT = 2

        def __init__(self, url: str) -> None:
            super().__init__(url, ["Counted"], name="collector")
            self.batch = Batch(self, 2, 60.0, self.take)

        async def on_Counted(self, payload: Any, conversation_id: str, meta: Meta) -> bool:
            await self.batch.push(payload, conversation_id, meta)
            return True

        async def take(self, events: list[RawEvent]) -> None:
            await self.publish_event("Summed", len(events), "c-1")

    service = Collector(broker.url)
    spans.of(service)
    async with running(service):
        await service.publish_event("Counted", 1, "c-1")
        await spans.until(2)
        await service.publish_event("Counted", 2, "c-1")
        found = await spans.until(6)
    (batch,) = [span for span in found if span.name == "process events:collector.events"]
    sent = [span for span in found if span.name == "send events:Counted"]
    assert [link.context.span_id for link in batch.links] == [span.context.span_id for span in sent if span.context]
    ids = [dict(link.attributes or {})["messaging.message.id"] for link in batch.links]
    assert ids == [attributes(span)["messaging.message.id"] for span in sent]
    assert (batch.kind, attributes(batch)["messaging.batch.message_count"]) == (CONSUMER, 2)
    assert ("send events:Summed", PRODUCER, batch.name) in tree(found)


@asynchronous
async def test_the_context_of_a_handler_is_that_of_its_message(broker: BrokerUnderTest, spans: Spans) -> None:
    """After an await, in a task that it starts, with the baggage of the sender, and without that of ``run()``."""

    class Curious(Noting):
        async def on_Happened(self, payload: Any, conversation_id: str, meta: Meta) -> None:
            await asyncio.sleep(0)
            span = await asyncio.create_task(self.look())
            self.got.add(((span, trace.get_current_span(), dict(baggage.get_all())), meta))

        async def look(self) -> trace.Span:
            return trace.get_current_span()

    service = Curious(broker.url, ["Happened"])
    spans.of(service)
    with spans.tracer.start_as_current_span("the program"):
        async with running(service), peer(broker.url) as client:
            token = context.attach(baggage.set_baggage("tenant", "a"))
            await service.publish_event("Happened", 1, "c-1")
            context.detach(token)
            (in_task, in_handler, carried), meta = await service.got.next()
            await client.publish("events", "Happened", b"1", headers={"conversation_id": "c", "traceparent": "x"})
            (_, _, empty), _ = await service.got.next()
    found = await spans.until(4)
    assert in_task.get_span_context() == in_handler.get_span_context() == found[2].context
    assert (carried, meta["baggage"], empty) == ({"tenant": "a"}, "tenant=a", {})
    assert tree(found) == [
        ("the program", SpanKind.INTERNAL, ""),
        ("send events:Happened", PRODUCER, "the program"),
        ("process events:Happened:probe.events", CONSUMER, "send events:Happened"),
        ("process events:Happened:probe.events", CONSUMER, ""),
    ]


@asynchronous
async def test_a_context_that_a_message_has_already_is_kept(broker: BrokerUnderTest, spans: Spans) -> None:
    given = f"00-{1:032x}-{2:016x}-01"
    service = Noting(broker.url, ["Happened"])
    service.__dict__["on_Happened"] = lambda payload, conversation_id, meta: service.got.add((payload, meta))
    spans.of(service)
    async with running(service):
        await service.publish_event("Happened", 1, "c-1", headers={"traceparent": given})
        _, meta = await service.got.next()
        sent, processed = await spans.until(2)
    assert meta["traceparent"] == given
    assert [(link.context.trace_id, link.context.span_id) for link in sent.links] == [(1, 2)]
    assert processed.parent is not None
    assert processed.parent.span_id == 2


@asynchronous
async def test_publishes_that_wait_for_space_belong_to_the_spans_of_their_callers(
    broker: BrokerUnderTest, spans: Spans
) -> None:
    class Narrow(Noting):
        BUFFER = 1

    service = Narrow(broker.url, [])
    spans.of(service)

    async def publish(number: int) -> None:
        with spans.tracer.start_as_current_span(f"caller {number}"):
            await service.publish_event(f"Event{number}", number, "c-1")

    async with running(service):
        await asyncio.gather(*map(publish, range(5)))
        found = await spans.until(10)
    sent = [row for row in tree(found) if row[1] is PRODUCER]
    assert sorted(sent) == [(f"send events:Event{number}", PRODUCER, f"caller {number}") for number in range(5)]


@asynchronous
async def test_a_publish_that_fails_has_its_error(broker: BrokerUnderTest, spans: Spans) -> None:
    service = Noting(broker.url, [])
    spans.of(service)
    async with running(service):
        with pytest.raises(LocalError):
            await service.publish_event("Happened", {"n": object()}, "c-1")
        (sent,) = await spans.until(1)
    assert (sent.status.status_code, attributes(sent)["error.type"]) == (StatusCode.ERROR, "PayloadError")
    assert "messaging.message.id" not in attributes(sent)


@asynchronous
async def test_configurations_and_timers_are_traced(broker: BrokerUnderTest, spans: Spans) -> None:
    class Configured(Probe):
        async def on_Settings(self, payload: Any, meta: Meta) -> bool:
            self.call_later(0.0, lambda: self.publish_event("Told", 1, "c-1"))
            return True

    service, operator = Configured(broker.url, [], [], "svc", ["Settings"]), Noting(broker.url, [], name="operator")
    spans.of(service, operator)
    async with running(service, ready=False), running(operator):
        while not service.ready.all:
            await operator.publish_configuration("Settings", {"n": 1})
            await asyncio.sleep(0)
            if [span for span in spans.get_finished_spans() if span.name.startswith("process")]:
                await service.ready.count(1)
        found = await spans.until(3)
        while not (told := [span for span in found if span.name == "send events:Told"]):
            found = await spans.until(len(found) + 1)
    processed = next(span for span in found if span.name.startswith("process"))
    assert processed.name == "process configurations:Settings", "its queue is the worker's own"
    assert told[0].parent is None, "a timer is no part of the handler that has set it"


def test_a_service_that_runs_is_traced_no_more() -> None:
    async def run() -> None:
        service = Service("amqp://127.0.0.1:1/", [], [], "svc")
        task = asyncio.create_task(service.run())
        await asyncio.sleep(0)
        with pytest.raises(StateError, match="call it before run"):
            instrument(service)
        await service.stop(0.0)
        await task

    asyncio.run(run())


class Broken(Sampler):
    def should_sample(self, *_: Any, **__: Any) -> SamplingResult:
        raise RuntimeError("no sampler")

    def get_description(self) -> str:
        return "broken"


@asynchronous
async def test_a_message_does_not_suffer_from_its_trace(
    broker: BrokerUnderTest, caplog: pytest.LogCaptureFixture
) -> None:
    service = Failing(broker.url, ["Happened"], ["probe.Do"])
    instrument(service, TracerProvider(sampler=Broken(), shutdown_on_exit=False))
    with caplog.at_level(logging.WARNING, "eda_otel"):
        async with running(service):
            await service.publish_event("Happened", 1, "c-1")
            _, meta = await service.got.next()
    assert "traceparent" not in meta
    assert [record.message for record in caplog.records if record.name == "eda_otel"] == [
        "a span could not be made; this is told once"
    ]


class Waiting(Noting):
    """Its handler waits until the test lets it go on."""

    def __init__(self, url: str) -> None:
        super().__init__(url, ["Happened"])
        self.begun, self.gate = asyncio.Event(), asyncio.Event()

    async def on_Happened(self, payload: Any, conversation_id: str, meta: Meta) -> None:
        self.begun.set()
        await self.gate.wait()
        await self.publish_event("Told", payload, conversation_id)


@asynchronous
async def test_a_handler_that_goes_on_over_a_lost_link_has_one_span(broker: BrokerUnderTest, spans: Spans) -> None:
    """Its message comes again, and belongs to the handler that runs."""
    service = Waiting(broker.url)
    spans.of(service)
    async with running(service):
        await service.publish_event("Happened", 1, "c-1")
        await within(service.begun.wait(), "the handler begins")
        await broker.cut()
        await service.ready.count(2)
        async with peer(broker.url) as client:
            told = await client.tap("events", "Told")
            service.gate.set()
            headers = (await told.next()).headers
        found = await spans.until(3)
    name = "process events:Happened:probe.events"
    assert tree(found) == [
        ("send events:Happened", PRODUCER, ""),
        (name, CONSUMER, "send events:Happened"),
        ("send events:Told", PRODUCER, name),
    ]
    assert headers["traceparent"] == traceparent(found[2])
    assert found[1].status.status_code is StatusCode.UNSET


@asynchronous
async def test_the_span_of_a_handler_that_a_stop_has_cancelled_ends(broker: BrokerUnderTest, spans: Spans) -> None:
    service = Waiting(broker.url)
    spans.of(service)
    async with running(service):
        await service.publish_event("Happened", 1, "c-1")
        await within(service.begun.wait(), "the handler begins")
        await service.stop(0.0)
    _, processed = await spans.until(2)
    assert (processed.status.status_code, attributes(processed)["error.type"]) == (StatusCode.ERROR, "CancelledError")
