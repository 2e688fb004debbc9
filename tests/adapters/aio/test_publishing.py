"""Publishing and timers, on each broker: what is held, what is confirmed, what comes back."""

from __future__ import annotations

import asyncio
from typing import Any

import cbor2
import pytest

from eda_core import CBOR, JSON, LocalError, PublishError, StateError
from eda_tools.broker import EmbeddedBrokerThread
from tests.support.services import (
    BrokerUnderTest,
    Peer,
    Probe,
    asynchronous,
    conversation,
    peer,
    reports,
    running,
    within,
)

Meta = dict[str, Any]


async def bound_queue(client: Peer, exchange: str, routing_key: str, **arguments: Any) -> str:
    """A queue of the peer's that nobody consumes."""
    queue = await client.channel.declare_queue("peer", durable=True, arguments=arguments or None)
    await queue.bind(exchange, routing_key)
    return queue.name


# --- outside handlers ---


@asynchronous
async def test_outside_handlers_a_publish_returns_when_it_is_confirmed(broker: BrokerUnderTest) -> None:
    source = Probe(broker.url)
    async with running(source), peer(broker.url) as client:
        queue = await bound_queue(client, "events", "Happened")
        await asyncio.gather(*(source.publish_event("Happened", number, conversation()) for number in range(50)))
        assert await client.waiting_in(queue) == 50, "no waiting here: they are there as soon as gather() returns"
        await source.publish_event("Unheard", 1, conversation())  # nobody's loss, and no reason to wait


@asynchronous
async def test_a_publish_waits_as_long_as_the_broker_takes_none() -> None:
    with EmbeddedBrokerThread() as embedded:
        source = Probe(embedded.url)
        async with running(source), peer(embedded.url) as client:
            events = await client.tap("events")
            embedded.operate(lambda broker, now: broker.set_alarm(True, now=now))
            publish = asyncio.create_task(source.publish_event("Happened", 1, "c"))
            # Two round trips of another connection: time enough for a publish, were it not held up.
            await client.waiting_in("dead-letters")
            await client.waiting_in("dead-letters")
            assert not publish.done()
            assert events.all == []
            embedded.operate(lambda broker, now: broker.set_alarm(False, now=now))
            await within(publish, "the confirm after the alarm")
            await events.next()


@asynchronous
async def test_a_refused_publish_is_sent_again_whole_until_it_is_accepted(broker: BrokerUnderTest) -> None:
    source = Probe(broker.url, name="source")
    with reports() as log:
        async with running(source), peer(broker.url) as client:
            limits = {"x-max-length": 1, "x-overflow": "reject-publish"}
            queue = await bound_queue(client, "commands", "asker.AddReturn", **limits)
            await source.return_error("asker.AddReturn", "first", "c1", "k1")
            second = asyncio.create_task(source.return_error("asker.AddReturn", "second", "c2", "k2"))
            await log.until(lambda all: sum("refused 1 publish" in text for text in all) >= 3, "three refusals")
            assert not second.done()
            drained = await client.drain(queue)
            await within(second, "the refused publish's confirm")
            first, message = drained + await client.drain(queue)  # it may have come while the queue was drained
    assert cbor2.loads(first.body) == "first"
    assert (cbor2.loads(message.body), message.content_type, message.delivery_mode) == ("second", CBOR, 2)
    assert message.headers == {"conversation_id": "c2", "status": "error"}
    assert (message.correlation_id, message.reply_to, message.app_id) == ("k2", None, "source")
    assert message.message_id not in (None, first.message_id)


class Returns(Probe):
    async def handle_returned_message(self, key: str, payload: Any, envelope: Any) -> None:
        self.seen.add((key, payload, envelope["conversation_id"], envelope.get("reply_to")))


@asynchronous
async def test_mandatory_messages_that_nobody_takes_come_back(broker: BrokerUnderTest) -> None:
    source = Returns(broker.url)
    async with running(source):
        await source.send_command("nobody.Do", {"n": 1}, "c1", "probe.DoReturn", "k1")
        assert await source.seen.next() == ("nobody.Do", {"n": 1}, "c1", "probe.DoReturn")
        await source.send_command("nobody.Do", 0, "not mandatory", "probe.DoReturn", "k", mandatory=False)
        await source.publish_event("Unheard", 0, "not mandatory")
        await source.publish_event("Unheard", 2, "c2", mandatory=True)
        assert await source.seen.next() == ("Unheard", 2, "c2", None)


@asynchronous
async def test_what_cannot_be_sent_is_refused_at_once(broker: BrokerUnderTest) -> None:
    source = Probe(broker.url)
    async with running(source), peer(broker.url) as client:
        events = await client.tap("events")
        with pytest.raises(LocalError):
            await source.publish_event("Happened", object(), "c")
        with pytest.raises(LocalError):
            await source.publish_event("x" * 256, 1, "c")
        with pytest.raises(LocalError):
            await source.send_command("nowhere", 1, "c", "probe.DoReturn", "k")
        await source.publish_event("Happened", "fine", "c")
        assert cbor2.loads((await events.next()).body) == "fine"


class Narrow(Probe):
    """Accepts only a few publishes that are not confirmed yet; further ones wait."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.BUFFER = 10  # type: ignore[misc]

    async def publish_all(self, number: int) -> list[asyncio.Task[None]]:
        """Begin so many publishes."""
        tasks = [asyncio.create_task(self.publish_event("Happened", n, conversation())) for n in range(number)]
        await asyncio.sleep(0)  # each has run once
        assert not any(task.done() for task in tasks)
        return tasks


@asynchronous
async def test_publishes_wait_for_space_and_then_go_out(broker: BrokerUnderTest) -> None:
    source = Narrow(broker.url)
    async with running(source), peer(broker.url) as client:
        queue = await bound_queue(client, "events", "Happened")
        await within(asyncio.gather(*await source.publish_all(35)), "the confirms of all publishes")
        assert await client.waiting_in(queue) == 35


@asynchronous
async def test_who_waits_with_a_publish_when_the_service_stops_hears_of_it() -> None:
    """Publishes that wait because the buffer is full end, too."""
    source = Narrow("amqp://guest:guest@127.0.0.1:1/")
    async with running(source, ready=False):
        await asyncio.sleep(0)  # run() has begun
        publishes = await source.publish_all(13)
        await source.stop(0.0)
        results = await within(asyncio.gather(*publishes, return_exceptions=True), "the end of all publishes")
    assert [type(result) for result in results] == [PublishError] * 10 + [StateError] * 3


# --- in handlers ---


class Relay(Probe):
    """Publishes ``Held`` and ``Progress`` in a handler that waits for the gate."""

    def __init__(self, url: str) -> None:
        super().__init__(url, ["Happened"])
        self.gate = asyncio.Event()

    async def on_Happened(self, payload: Any, conversation_id: str, meta: Meta) -> None:
        await self.publish_event("Held", payload, conversation_id)
        await self.publish_event("Progress", payload, conversation_id, immediate=True)
        self.seen.add("progress is confirmed")
        await self.gate.wait()
        if payload == "poison":
            raise ValueError(payload)


@asynchronous
async def test_what_a_handler_publishes_is_held_unless_immediate(broker: BrokerUnderTest) -> None:
    relay = Relay(broker.url)
    async with running(relay), peer(broker.url) as client:
        wire = await client.tap("events")
        await relay.publish_event("Happened", 1, "c")
        await relay.seen.next()
        await wire.count(2)
        await client.waiting_in("probe.events")  # a round trip later there is still no more
        assert [message.routing_key for message in wire.all] == ["Happened", "Progress"]
        relay.gate.set()
        await wire.count(3)
        source, progress, held = wire.all
        assert held.routing_key == "Held"
        assert progress.headers["causation_id"] == held.headers["causation_id"] == source.message_id


@asynchronous
async def test_a_failing_handler_publishes_only_what_is_immediate(broker: BrokerUnderTest) -> None:
    relay = Relay(broker.url)
    relay.gate.set()
    async with running(relay), peer(broker.url) as client:
        dead, wire = await broker.dead_letters(client), await client.tap("events")
        await relay.publish_event("Happened", "poison", "c")
        await dead.next()
        await relay.publish_event("Marker", 1, "c")
        await wire.count(4)
    assert [message.routing_key for message in wire.all] == ["Happened", "Progress", "Progress", "Marker"]


class Delegating(Probe):
    """Leaves work to a task that outlives its handler."""

    def __init__(self, url: str) -> None:
        super().__init__(url, ["Happened"])
        self.gate = asyncio.Event()
        self.task: asyncio.Task[None] | None = None

    async def on_Happened(self, payload: Any, conversation_id: str, meta: Meta) -> None:
        self.task = asyncio.create_task(self._later(conversation_id))
        await self.publish_event("Begun", payload, conversation_id)

    async def _later(self, conversation_id: str) -> None:
        await self.gate.wait()
        await self.publish_event("Finished", 1, conversation_id)


@asynchronous
async def test_a_task_that_outlives_its_handler_publishes_outside(broker: BrokerUnderTest) -> None:
    service = Delegating(broker.url)
    async with running(service), peer(broker.url) as client:
        wire = await client.tap("events")
        queue = await bound_queue(client, "events", "Finished")
        await service.publish_event("Happened", 1, "c")
        await wire.count(2)  # the handler is over: Begun is out
        assert service.task is not None
        service.gate.set()
        await within(service.task, "the confirm of Finished")
        assert await client.waiting_in(queue) == 1, "it is with the broker when the publish returns"


# --- timers ---


class Timed(Probe):
    """Its handler sets a timer and waits for the gate."""

    def __init__(self, url: str) -> None:
        super().__init__(url, ["Happened"])
        self.gate = asyncio.Event()

    async def on_Happened(self, payload: Any, conversation_id: str, meta: Meta) -> None:
        self.call_later(0, self.later)
        await self.gate.wait()
        self.seen.add("handled")

    async def later(self) -> None:
        await self.publish_event("Elapsed", 1, "c")
        self.seen.add("elapsed")


@asynchronous
async def test_timers_call_functions_and_coroutine_functions_in_time(broker: BrokerUnderTest) -> None:
    service = Probe(broker.url)
    loop = asyncio.get_running_loop()

    async def asynchronous_callback() -> None:
        await asyncio.sleep(0)
        service.seen.add("async")

    async with running(service):
        begin = loop.time()
        service.call_later(0.12, asynchronous_callback)
        cancelled = service.call_later(0.06, lambda: service.seen.add("cancelled"))
        service.call_later(0.04, lambda: service.seen.add("sync"))
        service.cancel_timer(cancelled)
        await service.seen.count(2)
        assert loop.time() - begin > 0.11
    assert service.seen.all == ["sync", "async"]


@asynchronous
async def test_a_timer_set_in_a_handler_publishes_outside(broker: BrokerUnderTest) -> None:
    service = Timed(broker.url)
    async with running(service), peer(broker.url) as client:
        queue = await bound_queue(client, "events", "Elapsed")
        await service.publish_event("Happened", 1, "c")
        assert await service.seen.next() == "elapsed"
        (message,) = await client.drain(queue)  # while the handler still runs
        assert "causation_id" not in message.headers
        service.gate.set()


@pytest.mark.parametrize("kind", ["function", "coroutine function"])
@asynchronous
async def test_a_failing_timer_is_logged_and_the_service_lives(broker: BrokerUnderTest, kind: str) -> None:
    service = Timed(broker.url)
    service.gate.set()

    def fail() -> None:
        raise LookupError("nothing there")

    async def fail_later() -> None:
        fail()

    async with running(service), peer(broker.url) as client:
        logs = await client.tap("logs")
        service.call_later(0.0, fail if kind == "function" else fail_later)
        log = await logs.next()
        assert log.routing_key == "probe.ALERT"
        assert b"a timer failed: LookupError: nothing there" in log.body
        await service.publish_event("Happened", 1, "c")
        await service.seen.until(lambda all: "handled" in all, "the handler's end")
        assert len(service.ready.all) == 1, "on the same connection"


@asynchronous
async def test_timers_end_with_their_service(broker: BrokerUnderTest) -> None:
    ended, other = Probe(broker.url, name="ended"), Probe(broker.url, name="other")
    async with running(other):
        loop = asyncio.get_running_loop()
        async with running(ended):
            due = loop.time() + 0.5
            ended.call_later(0.5, lambda: ended.seen.add("called"))
        before = list(ended.seen.all)  # none, unless the end took longer than that
        other.call_later(due + 0.1 - loop.time(), lambda: other.seen.add("called"))
        await other.seen.next()
    assert ended.seen.all == before


@asynchronous
async def test_logs_go_to_the_bus_from_anywhere(broker: BrokerUnderTest) -> None:
    service = Probe(broker.url, name="talker")
    async with running(service), peer(broker.url) as client:
        logs = await client.tap("logs")
        await service.log(5, "short", "long\ntext", "c", {"shard": 3})
        log = await logs.next()
    assert (log.routing_key, log.delivery_mode, log.headers) == ("talker.NOTICE", 1, {})
    assert b'"_shard":3' in log.body.replace(b" ", b"")
    assert b'"_conversation_id":"c"' in log.body.replace(b" ", b"")


@asynchronous
async def test_json_may_be_chosen_while_a_service_runs(broker: BrokerUnderTest) -> None:
    service = Probe(broker.url)
    async with running(service), peer(broker.url) as client:
        events = await client.tap("events")
        await service.publish_event("Happened", {"n": 1}, "c")
        service.use_json()
        await service.publish_event("Happened", {"n": 1}, "c")
        assert [message.content_type for message in await events.count(2)] == [CBOR, JSON]


@asynchronous
async def test_a_conversation_id_that_is_no_text_is_refused_where_it_is_given(broker: BrokerUnderTest) -> None:
    service: Any = Probe(broker.url)
    async with running(service):
        with pytest.raises(LocalError, match="the conversation id of Happened is int, not str; pass text"):
            await service.publish_event("Happened", 1, 7)
        with pytest.raises(LocalError, match="asked to reconnect"):
            await service.stop(reconnect=True)
        await service.stop(False)
