"""The health and the numbers of a service on pika, for its handlers and for other threads."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from eda_core import Health, NotAnswered
from eda_tools.broker import EmbeddedBroker
from tests.adapters.pika.support import Probe, publish, running, until
from tests.support.services import asynchronous


class Looking(Probe):
    """Its handler notes how its service does, and waits until the test lets it go on."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.goes_on = threading.Event()

    def handle_event(self, event: str, payload: Any, conversation_id: str, meta: dict[str, Any]) -> None:
        self.note(self.health())
        assert self.goes_on.wait(20.0)


@pytest.mark.parametrize("threads", [0, 2])
@asynchronous
async def test_a_handler_and_another_thread_may_ask(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Looking, "HANDLER_THREADS", threads)
    async with EmbeddedBroker() as broker:
        service = Looking(broker.url, ["Happened"])
        assert service.health().state == "idle"
        async with running(service):
            await publish(service, 1)
            within_handler: Health = await service.seen.next()
            assert (within_handler.state, within_handler.in_flight, within_handler.running) == ("open", 1, 1)
            assert within_handler.oldest_name == "Happened"
            if threads:
                assert (await service.do(service.health)).running == 1
            else:
                with pytest.raises(NotAnswered, match=r"has not answered within 0\.05 s"):
                    await service.do(service.health, 0.05)
            service.goes_on.set()
            while (await service.do(service.metrics)).acknowledged < 1:
                pass
            numbers = await service.do(service.metrics)
            assert (numbers.received, numbers.published, numbers.confirmed) == (1, 1, 1)
            assert [(each.name, each.succeeded) for each in numbers.handlers] == [("Happened", 1)]
        await until(service.end.done)
        stopped = await service.do(service.health)
        assert (stopped.state, stopped.stopping) == ("stopped", True)
