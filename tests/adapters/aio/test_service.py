"""Receiving and the life of a service, on each broker: what handlers get and what becomes of their messages."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Mapping
from typing import Any

import cbor2
import pytest

from eda_core import CBOR, JSON, LocalError, Message, ReconnectPolicy, ServiceError, StateError
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


class Listener(Probe):
    """Notes what its handler gets."""

    async def on_Happened(self, payload: Any, conversation_id: str, meta: Meta) -> None:
        self.seen.add((payload, conversation_id, meta))


# --- dispatch ---


@pytest.mark.parametrize("content_type", [CBOR, JSON])
@asynchronous
async def test_an_event_comes_with_payload_conversation_and_meta(broker: BrokerUnderTest, content_type: str) -> None:
    payload: dict[str, Any] = {
        "text": "Été à la plage",
        "numbers": [1, 2.5, -(2**40)],
        "none": None,
        "deep": {"yes": True},
    }
    if content_type == CBOR:
        payload["bytes"] = b"\x00\xff"
    source, listener = Probe(broker.url, name="source"), Listener(broker.url, ["Happened"])
    if content_type == JSON:
        source.use_json()
    async with running(source, listener), peer(broker.url) as client:
        wire = await client.tap("events")
        await source.publish_event("Happened", payload, "the conversation")
        got, conversation_id, meta = await listener.seen.next()
        message = await wire.next()
    assert (got, conversation_id) == (payload, "the conversation")
    assert type(meta.pop("delivery_tag")) is int
    assert meta.pop("message_id") == message.message_id
    assert meta == {"app_id": "source", "timestamp": None, "expiration": None, "user_id": None}
    assert (message.content_type, message.delivery_mode, message.routing_key) == (content_type, 2, "Happened")
    assert message.headers == {"conversation_id": "the conversation"}
    assert (message.reply_to, message.correlation_id) == (None, None)
    if content_type == JSON:
        assert "Été à la plage" in message.body.decode()


@asynchronous
async def test_headers_and_properties_of_a_peer_come_in_meta(broker: BrokerUnderTest) -> None:
    listener = Listener(broker.url, ["Happened"])
    async with running(listener), peer(broker.url) as client:
        headers = {"conversation_id": "c", "traceparent": "00-1-2-01", "shard": 3}
        properties = {"content_type": JSON, "app_id": "old", "expiration": 60, "user_id": "guest"}
        await client.publish("events", "Happened", b"[1]", headers=headers, **properties)
        payload, conversation_id, meta = await listener.seen.next()
    assert (payload, conversation_id) == ([1], "c")
    expected = {"traceparent": "00-1-2-01", "shard": 3, "app_id": "old", "expiration": "60000", "user_id": "guest"}
    assert expected.items() <= meta.items()


class Adder(Probe):
    async def on_Add(self, payload: Any, conversation_id: str, reply_to: str, correlation_id: str, meta: Meta) -> None:
        if all(isinstance(number, int) for number in payload):
            await self.return_success(reply_to, sum(payload), conversation_id, correlation_id)
        else:
            await self.return_error(reply_to, {"reason": "not numbers"}, conversation_id, correlation_id)


class Asker(Probe):
    async def on_AddReturn(
        self, payload: Any, conversation_id: str, status: str, correlation_id: str, meta: Meta
    ) -> None:
        self.seen.add((payload, conversation_id, status, correlation_id, meta["app_id"]))


@asynchronous
async def test_a_command_is_answered_to_who_sent_it(broker: BrokerUnderTest) -> None:
    adder, asker = Adder(broker.url, [], ["adder.Add"], "adder"), Asker(broker.url, [], ["asker.AddReturn"], "asker")
    bystander = Asker(broker.url, [], ["bystander.AddReturn"], "bystander")
    async with running(adder, asker, bystander):
        await asker.send_command("adder.Add", [1, 2], "c1", "asker.AddReturn", "k1")
        assert await asker.seen.next() == (3, "c1", "success", "k1", "adder")
        await asker.send_command("adder.Add", ["x"], "c2", "asker.AddReturn", "k2")
        assert await asker.seen.next() == ({"reason": "not numbers"}, "c2", "error", "k2", "adder")
    assert bystander.seen.all == []


class Configured(Listener):
    async def on_unconfigured(self) -> None:
        self.seen.add("unconfigured")

    async def on_ready(self) -> None:
        self.seen.add("ready")
        await super().on_ready()

    async def on_Settings(self, payload: Any, meta: Meta) -> bool:
        self.seen.add(payload)
        return bool(payload["complete"])

    async def on_Happened(self, payload: Any, conversation_id: str, meta: Meta) -> None:
        self.seen.add(payload)


@asynchronous
async def test_business_messages_wait_for_the_configuration(broker: BrokerUnderTest) -> None:
    source = Probe(broker.url, name="source")
    service = Configured(broker.url, ["Happened"], configurations=["Settings"])
    async with running(source), running(service, ready=False):
        assert await service.seen.next() == "unconfigured"
        await source.publish_event("Happened", "business", conversation())
        await source.publish_configuration("Settings", {"complete": False})
        assert await service.seen.next() == {"complete": False}
        await source.publish_configuration("Settings", {"complete": True})
        await service.seen.count(5)
        assert service.seen.all[2:] == [{"complete": True}, "ready", "business"]
        await source.publish_configuration("Settings", {"complete": True, "again": 1})
        await service.seen.count(6)
    assert service.seen.all[5:] == [{"complete": True, "again": 1}]


class Typed(Probe):
    """Overrides ``handle``, the one method that new code needs."""

    async def handle(self, message: Message) -> None:
        self.seen.add((type(message).__name__, message.name, message.payload, message.conversation_id))


@asynchronous
async def test_one_method_may_handle_every_message(broker: BrokerUnderTest) -> None:
    service = Typed(broker.url, ["Happened"], ["probe.Do", "probe.DoReturn"])
    async with running(service):
        await service.publish_event("Happened", 1, "c")
        assert await service.seen.next() == ("Event", "Happened", 1, "c")
        await service.send_command("probe.Do", 2, "c", "probe.DoReturn", "k")
        assert await service.seen.next() == ("Command", "probe.Do", 2, "c")
        await service.return_success("probe.DoReturn", 3, "c", "k")
        assert await service.seen.next() == ("Result", "probe.DoReturn", 3, "c")


# --- failures ---


class Failing(Probe):
    async def on_Explode(
        self, payload: Any, conversation_id: str, reply_to: str, correlation_id: str, meta: Meta
    ) -> None:
        self.seen.add(payload)
        await self.publish_event("Progressed", payload, conversation_id)
        await self.return_success(reply_to, "never sent", conversation_id, correlation_id)
        raise ValueError("boom")

    async def on_Happened(self, payload: Any, conversation_id: str, meta: Meta) -> None:
        await self.publish_event("Survived", payload, conversation_id)


@asynchronous
async def test_a_failing_message_is_retried_once_and_dead_lettered_whole(broker: BrokerUnderTest) -> None:
    service = Failing(broker.url, ["Happened"], ["bomb.Explode"], "bomb")
    async with running(service), peer(broker.url) as client:
        dead, events, logs = await broker.dead_letters(client), await client.tap("events"), await client.tap("logs")
        results = await client.tap("commands", "asker.#")
        await service.send_command("bomb.Explode", {"n": 1}, "c", "asker.ExplodeReturn", "k")
        letter = await dead.next()
        assert service.seen.all == [{"n": 1}, {"n": 1}], "one retry, not more and not less"

        assert (cbor2.loads(letter.body), letter.content_type, letter.delivery_mode) == ({"n": 1}, CBOR, 2)
        assert (letter.reply_to, letter.correlation_id, letter.app_id) == ("asker.ExplodeReturn", "k", "bomb")
        assert letter.headers["conversation_id"] == "c"
        assert letter.routing_key == "bomb.Explode"
        deaths: Any = letter.headers["x-death"]
        assert len(deaths) == 1
        death = deaths[0]
        assert (death["queue"], death["reason"], death["count"]) == ("bomb.commands", "rejected", 1)
        assert (death["exchange"], death["routing-keys"]) == ("commands", ["bomb.Explode"])

        # What failed handlers published was not published; the service goes on.
        await service.publish_event("Happened", "later", "c")
        await events.until(lambda all: all[-1].routing_key == "Survived" if all else False, "the event Survived")
        assert [event.routing_key for event in events.all] == ["Happened", "Survived"]
        assert results.all == []
        await logs.count(3)
        assert [log.routing_key for log in logs.all] == ["bomb.ALERT", "bomb.ALERT", "bomb.EMERGENCY"]
        assert all(b"ValueError: boom" in log.body for log in logs.all)


@asynchronous
async def test_a_message_without_handler_is_dead_lettered_at_once(broker: BrokerUnderTest) -> None:
    listener = Listener(broker.url, ["Happened", "Unheard"], name="deaf")
    async with running(listener), peer(broker.url) as client:
        dead, logs = await broker.dead_letters(client), await client.tap("logs")
        await listener.publish_event("Unheard", "lost?", "c")
        letter = await dead.next()
        assert cbor2.loads(letter.body) == "lost?"
        deaths: Any = letter.headers["x-death"]
        assert (deaths[0]["queue"], deaths[0]["count"]) == ("deaf.events", 1)
        await logs.count(2)
        assert [log.routing_key for log in logs.all] == ["deaf.ERROR", "deaf.EMERGENCY"]
        assert b"unexpected event Unheard" in logs.all[0].body
        assert b"Happened" in logs.all[0].body, "the log lists the handlers that exist"


@pytest.mark.parametrize(
    ("body", "properties"),
    [
        (b"\xff\xff", {"content_type": CBOR, "headers": {"conversation_id": "c"}}),
        (b"1", {"content_type": JSON}),
        (b"1", {"content_type": "text/plain", "headers": {"conversation_id": "c"}}),
    ],
    ids=["undecodable", "no conversation id", "unknown content type"],
)
@asynchronous
async def test_what_is_no_message_is_dead_lettered_and_harms_nobody(
    broker: BrokerUnderTest, body: bytes, properties: Mapping[str, Any]
) -> None:
    listener = Listener(broker.url, ["Happened"])
    async with running(listener), peer(broker.url) as client:
        dead = await broker.dead_letters(client)
        await client.publish("events", "Happened", body, **properties)
        assert (await dead.next()).body == body
        await listener.publish_event("Happened", "fine", "c")
        assert (await listener.seen.next())[0] == "fine"


# --- acknowledging by hand ---


class Deferring(Probe):
    async def on_Happened(self, payload: Any, conversation_id: str, meta: Meta) -> bool:
        self.seen.add((payload, meta["delivery_tag"]))
        return True


@asynchronous
async def test_deferred_messages_are_acknowledged_by_hand(broker: BrokerUnderTest) -> None:
    service = Deferring(broker.url, ["Happened"])
    async with running(service), peer(broker.url) as client:
        for payload in ("one", "two", "three", "left"):
            await service.publish_event("Happened", payload, conversation())
        (_, first), _, (_, third), _ = await service.seen.count(4)
        await service.manual_ack(first)
        with pytest.raises(LocalError, match="settled already"):
            await service.manual_ack(first)
        await service.manual_ack(third, multiple=True)
        await service.stop(0.0)
        await holds(client, "probe.events", 1)
        (message,) = await client.drain("probe.events")
    assert (cbor2.loads(message.body), message.redelivered) == ("left", True)


async def holds(client: Peer, queue: str, number: int) -> None:
    """Wait until ``queue`` holds ``number`` messages."""

    async def look() -> None:
        while await client.waiting_in(queue) != number:
            await asyncio.sleep(0.01)

    await within(look(), f"{number} messages in {queue}")


@asynchronous
async def test_a_deferred_message_is_rejected_or_requeued_by_hand(broker: BrokerUnderTest) -> None:
    service = Deferring(broker.url, ["Happened"])
    async with running(service), peer(broker.url) as client:
        dead = await broker.dead_letters(client)
        await service.publish_event("Happened", "unwanted", conversation())
        _, tag = await service.seen.next()
        await service.manual_nack(tag, requeue=True)
        assert dead.all == []
        payload, tag = await service.seen.next()
        assert payload == "unwanted"
        await service.manual_nack(tag)
        assert cbor2.loads((await dead.next()).body) == "unwanted"
        assert len(service.seen.all) == 2


# --- concurrency ---


class Gated(Probe):
    """Its handlers wait until the gate is open."""

    PREFETCH_COUNT = 3

    def __init__(self, url: str, events: list[str]) -> None:
        super().__init__(url, events)
        self.gate = asyncio.Event()
        self.now = self.most = 0

    async def on_Happened(self, payload: Any, conversation_id: str, meta: Meta) -> None:
        self.now += 1
        self.most = max(self.now, self.most)
        self.seen.add(payload)
        await self.gate.wait()
        self.now -= 1


@asynchronous
async def test_handlers_run_at_once_up_to_the_prefetch_and_not_above(broker: BrokerUnderTest) -> None:
    service = Gated(broker.url, ["Happened"])
    async with running(service), peer(broker.url) as client:
        await asyncio.gather(*(service.publish_event("Happened", number, conversation()) for number in range(9)))
        await service.seen.count(3)
        assert await client.waiting_in("probe.events") == 6, "the broker keeps the others"
        assert service.now == 3
        service.gate.set()
        await service.seen.count(9)
    assert sorted(service.seen.all) == list(range(9))
    assert service.most == 3


# --- the life of a service ---


@asynchronous
async def test_cancelling_run_lets_handlers_finish(broker: BrokerUnderTest) -> None:
    service = Gated(broker.url, ["Happened"])
    with reports() as log:
        async with running(service) as (run,), peer(broker.url) as client:
            await service.publish_event("Happened", 1, conversation())
            await service.seen.count(1)
            run.cancel()
            await log.until(lambda all: "stopping" in all, "the service stopping")
            assert not run.done()
            service.gate.set()
            with pytest.raises(asyncio.CancelledError):
                await within(run, "the end of run()")
            assert service.now == 0, "the handler finished"
            assert await client.drain("probe.events") == [], "its message was acknowledged"


@pytest.mark.parametrize("hook", ["on_ready", "on_unconfigured"])
@asynchronous
async def test_a_service_that_cannot_get_ready_ends_with_the_reason(broker: BrokerUnderTest, hook: str) -> None:
    async def fail() -> None:
        raise LookupError("no model\nin /models")

    service = Probe(broker.url, name="lame", configurations=["Settings"] if hook == "on_unconfigured" else [])
    setattr(service, hook, fail)
    with pytest.raises(ServiceError, match="LookupError: no model"):
        await within(service.run(), "the end of run()")


@asynchronous
async def test_a_wrong_password_ends_the_service_and_is_not_told(broker: BrokerUnderTest) -> None:
    service = Probe(broker.url_with_password("hunter2"))
    with reports() as log:
        with pytest.raises(ServiceError, match="refuses the credentials") as caught:
            await within(service.run(), "the end of run()")
    assert "hunter2" not in str(caught.value)
    assert "hunter2" not in repr(service.__dict__), "nor in what a debugger prints"
    assert not [text for text in log.all if "hunter2" in text]


@pytest.mark.rabbitmq
def test_operators_see_service_host_and_pid(rabbitmq: Any, rabbit_url: str) -> None:
    async def scenario() -> str:
        async with running(Probe(rabbit_url, name="visible")):
            return await asyncio.to_thread(rabbitmq.ctl, "list_connections", "client_properties")

    listed = asyncio.run(within(scenario(), "the list of connections"))
    assert f'"visible@{socket.gethostname()}:{os.getpid()}"' in listed


@asynchronous
async def test_calls_at_the_wrong_time_say_so(broker: BrokerUnderTest) -> None:
    service = Probe(broker.url)
    with pytest.raises(StateError, match="does not run"):
        await service.publish_event("Happened", 1, "c")
    with pytest.raises(StateError, match="does not run"):
        service.call_later(1, print)
    async with running(service):
        with pytest.raises(StateError, match="runs once"):
            await service.run()
    with pytest.raises(StateError, match="stopped"):
        await service.publish_event("Happened", 1, "c")


@asynchronous
async def test_stopping_while_there_is_no_broker_ends_at_once() -> None:
    class Patient(Probe):
        RECONNECT_POLICY = ReconnectPolicy(base=1000, cap=1000)

    service = Patient("amqp://guest:guest@127.0.0.1:1/")
    with reports() as log:
        async with running(service, ready=False) as (run,):
            await log.until(lambda all: any("no link to" in text for text in all), "a failed attempt to connect")
            await service.stop()
            await within(run, "the end of run()", 2.0)
