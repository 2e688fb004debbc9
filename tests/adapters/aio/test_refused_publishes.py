"""Publishes for which the broker closes the channel: who is told, and that all else goes on, on each broker."""

from __future__ import annotations

import asyncio

import pytest

from eda_core import PublishRefused
from eda_core.criticality import INFO
from tests.support.services import FORBIDDEN, BrokerUnderTest, Probe, asynchronous, forbid, peer, reports, running


@asynchronous
async def test_the_caller_is_told_and_all_others_are_confirmed(broker: BrokerUnderTest) -> None:
    source = Probe(await forbid(broker))
    async with running(source), peer(broker.url) as client:
        events = await client.tap("events", "Happened")
        calls = [source.publish_event("Happened", number, "c") for number in range(40)]
        calls[20:20] = [source.publish_event(*FORBIDDEN, "c")]
        calls.append(source.publish_event(*FORBIDDEN, "c"))
        results = await asyncio.gather(*calls, return_exceptions=True)
        for refused in (results.pop(20), results.pop()):
            assert isinstance(refused, PublishRefused)
            assert str(refused).startswith("the broker does not take it: ")
            assert "ACCESS_REFUSED" in str(refused) or "PRECONDITION_FAILED" in str(refused)
        assert results == [None] * 40
        await events.until(lambda all_: len({each.body for each in all_}) == 40, "all events")
        assert source.ready.all == [1], "no link was lost"


@asynchronous
async def test_one_after_the_other_costs_no_link(broker: BrokerUnderTest) -> None:
    source = Probe(await forbid(broker))
    async with running(source):
        for _ in range(5):
            with pytest.raises(PublishRefused):
                await source.publish_event(*FORBIDDEN, "c")
            await source.publish_event("Happened", 1, "c")
        assert source.ready.all == [1]


@asynchronous
async def test_logs_that_the_broker_does_not_take_cost_no_link_and_one_warning(broker: BrokerUnderTest) -> None:
    source = Probe(await forbid(broker))
    with reports() as told:
        async with running(source):
            for _ in range(3):
                await source.log(INFO, "much to say", FORBIDDEN[1])
                await source.publish_event("Happened", 1, "c")
            await told.until(lambda all_: any("channel for logs" in each for each in all_), "the warning")
            (warning,) = [each for each in told.all if "channel for logs" in each]
            assert source.ready.all == [1]
    assert warning.startswith("the broker closed the channel for logs: ")
