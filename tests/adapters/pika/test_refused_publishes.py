"""Publishes for which the broker closes the channel, outside handlers: the log tells, and all else goes on."""

from __future__ import annotations

import pytest

from eda_core.criticality import INFO
from tests.adapters.aio.conftest import broker
from tests.adapters.pika.support import Probe, running, until
from tests.support.services import FORBIDDEN, BrokerUnderTest, asynchronous, forbid, peer

__all__ = ["broker"]

pytestmark = pytest.mark.usefixtures("either_way")


@asynchronous
async def test_the_log_tells_and_all_others_are_published(
    broker: BrokerUnderTest, caplog: pytest.LogCaptureFixture
) -> None:
    source = Probe(await forbid(broker))
    async with running(source), peer(broker.url) as client:
        events = await client.tap("events", "Happened")
        for number in range(20):
            await source.do(source.publish_event, "Happened", number, "c")
            if number % 7 == 3:
                await source.do(source.publish_event, *FORBIDDEN, "c")
                await source.do(source.log, INFO, "much to say", FORBIDDEN[1])
        await events.until(lambda all_: len({each.body for each in all_}) == 20, "all events")
        refused = "the publish of Forbidden (60003 bytes) has failed: the broker does not take it: "
        await until(lambda: sum(text.startswith(refused) for text in caplog.messages) == 3)
        closed = "the broker closed the channel for logs: "
        await until(lambda: any(text.startswith(closed) for text in caplog.messages))  # another channel: perhaps later
        warnings = [text for text in caplog.messages if text.startswith(closed)]
        assert len(warnings) == len(set(warnings))
        assert not [text for text in caplog.messages if "no link" in text]
