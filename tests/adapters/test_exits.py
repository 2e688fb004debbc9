"""``sys.exit()`` and Ctrl-C in user code end the service at once, in every adapter, and lose no message."""

from __future__ import annotations

import itertools
import signal

import pytest

from tests.adapters.aio.conftest import broker
from tests.adapters.exiting import ADAPTERS
from tests.support.services import BrokerUnderTest, asynchronous, peer, program

__all__ = ["broker"]

#: Where user code ends the program, and whether a message of it is left in its queue then.
PLACES = {
    "handler": True,
    "batch": True,
    "batch that is not full": True,
    "timer": False,
    "on_ready": False,
    "on_unconfigured": False,
    "handle_returned_message": False,
}
WAYS = {"exit": 3, "interrupt": -signal.SIGINT}
#: One of each kind is interrupted; that takes the same way as an exit.
CASES = [
    case for case in itertools.product(ADAPTERS, PLACES, WAYS) if case[1] in ("handler", "batch") or case[2] == "exit"
]


@pytest.mark.parametrize(("adapter", "place", "way"), CASES)
@asynchronous
async def test_an_exit_in_user_code_ends_the_service_at_once(
    broker: BrokerUnderTest, adapter: str, place: str, way: str
) -> None:
    run = program("-m", "tests.adapters.exiting", adapter, place, way, url=broker.url)
    async with peer(broker.url) as client, run as service:
        if not place.startswith("on_"):
            await service.says("ready")
            headers = {"conversation_id": "c"}
            for name in ("Begun", "Leave"):
                await client.publish("events", name, b"1", headers=headers, content_type="application/json")
                if name == "Begun":
                    await service.says("begun")
        assert await service.end() == WAYS[way], service.errors
        said = "events/Nobody came back: NO_ROUTE\n" if place == "handle_returned_message" else ""
        if way == "exit":
            assert service.errors == said
        else:  # Python prints the traceback
            assert service.errors.count("Traceback") == 1, service.errors
            assert service.errors.endswith("\nKeyboardInterrupt\n")
        if PLACES[place]:
            left = await client.drain("leaving.events")
            assert [message.routing_key for message in left][-1] == "Leave", "what was not handled stays in its queue"
