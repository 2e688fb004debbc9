"""What is drawn as malformed comes to the service, cannot be read, and is dead-lettered, while the service goes on."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings

import eda_aio
from eda_core.amqp.reading import read_properties
from eda_core.errors import LocalError
from eda_core.messages.codec import DEFAULT_LIMITS, JSON
from eda_core.messages.envelope import InvalidEnvelope, open_envelope
from eda_core.messages.properties import Unreadable
from eda_core.testing.live import Bus, EmbeddedBrokerThread, ServiceRunner
from eda_core.testing.simulation import Simulation
from eda_core.testing.strategies import Raw, malformed
from eda_core.testing.wire.frames import encode_properties
from tests.core.testing.strategies.test_subscribed import FEW, Line, Shop

ONCE = settings(FEW, max_examples=150)
#: Words of the reasons, each for one way to be malformed.
REASONS = ("no conversation_id", "conversation_id is", "malformed CBOR", "is neither", "neither reply_to nor status")


def reason(raw: Raw) -> str:
    with pytest.raises(InvalidEnvelope) as caught:
        open_envelope(*raw, DEFAULT_LIMITS)
    return str(caught.value)


def test_everything_that_is_drawn_comes_to_the_service_and_cannot_be_read() -> None:
    found: list[str] = []
    shop = Shop()

    @ONCE
    @given(malformed(Shop))
    def check(raw: Raw) -> None:
        found.append(reason(raw))
        kind = {"events": "event", "configurations": "configuration"}.get(raw.exchange, "command")
        assert shop.subscribes_to(kind, raw.routing_key)

    check()
    assert [words for words in REASONS if not any(words in each for each in found)] == []


@FEW
@given(malformed(Shop, content_type=JSON, payloads={"OrderPlaced": Line}))
def test_messages_in_json_are_spoiled_as_well(raw: Raw) -> None:
    assert reason(raw)


def test_on_the_wire_there_are_properties_that_no_client_reads() -> None:
    found: list[bool] = []

    @FEW
    @given(malformed(Shop, on_the_wire=True))
    def check(raw: Raw) -> None:
        properties = read_properties(encode_properties(raw.properties))
        assert reason(raw._replace(properties=properties))
        found.append(type(properties) is Unreadable)

    check()
    assert {*found} == {True, False}


def test_a_service_dead_letters_each_and_goes_on() -> None:
    @settings(FEW, max_examples=25)
    @given(malformed(Shop))
    def check(raw: Raw) -> None:
        with Simulation([Shop]) as sim:
            sim.publish_configuration("Prices", {})
            sim.run()
            sim.publish_raw(*raw)
            sim.publish_event("Closed", {})
            sim.expect_dead_letter("#", lambda letter: letter.message is None, at_least=0)
            sim.finish()
            if raw.exchange != "configurations":
                sim.expect_dead_letter(raw.routing_key)
            assert "handles Closed" in sim.story

    check()


class Listener(eda_aio.Service):
    def __init__(self, urls: str | list[str]) -> None:
        super().__init__(urls, ["Closed"], [], "listener")

    async def on_Closed(self, payload: int, conversation_id: str, meta: dict[str, Any]) -> None: ...


def test_a_bus_publishes_them_on_a_broker_and_they_are_dead_lettered() -> None:
    drawn: list[Raw] = []
    settings(FEW, max_examples=15)(given(malformed(Listener, on_the_wire=True))(lambda raw: drawn.append(raw)))()
    with EmbeddedBrokerThread() as broker, Bus(broker.url) as bus:
        run = ServiceRunner()
        run(Listener(broker.url))
        for raw in drawn:
            bus.publish_raw(*raw)
            assert bus.expect_dead_letter("Closed", within=60).queue == "listener.events"
        run.stop()


def test_an_error_of_services_is_an_error_here() -> None:
    with pytest.raises(LocalError, match="is given no service"):
        malformed()
