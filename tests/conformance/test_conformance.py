"""Every check of the conformance kit, against each adapter, on each broker."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator
from typing import Any

import pytest

import eda_aio
import eda_pika
from eda_core.testing.conformance import CHECKS, Check
from eda_tools.broker import EmbeddedBroker
from examples import custom_service
from tests.conformance.brokers import Embedded, Rabbit
from tests.conformance.callbacks import MainThread, callback_subjects_of
from tests.conformance.runner import Runner, no_task_is_left
from tests.conformance.subjects import subjects_of
from tests.support.vhosts import Victim

#: eda_pika with HANDLER_THREADS.
THREADED = "eda_pika/4"
ADAPTERS = {
    "eda_aio": subjects_of(eda_aio.Service),
    "eda_pika": callback_subjects_of(eda_pika.Service),
    THREADED: callback_subjects_of(eda_pika.Service, threads=4),
    "custom": subjects_of(custom_service.Service),
}

#: Checks of what the proxy does: the broker behind it makes no difference, and they take their time.
ON_ONE_BROKER = {"a_stop_ends_though_the_peer_is_frozen"}

#: Where handlers run in the thread of the network, one that does not end can be ended in the main thread only.
ENDS_HANDLERS = {"a_stop_has_a_deadline"}
#: Where handlers run in the thread of the network, a lost link is noticed when they have ended.
IN_THREADS = {"a_handler_that_runs_goes_on_after_a_lost_link"}
#: With threads pika does the same with the network; checks that wait for heartbeats and time-outs need no second run.
SLOW = {"a_frozen_peer_is_noticed", "a_stop_ends_though_the_peer_is_frozen"}


def to_be_run(check: str, adapter: str, broker: str) -> bool:
    if check in IN_THREADS:
        return adapter != "eda_pika"
    if adapter == THREADED and check not in ENDS_HANDLERS:
        return broker == "embedded" and check not in SLOW
    return broker == "embedded" or check not in ON_ONE_BROKER


def cases() -> Iterator[Any]:
    """Check, adapter, broker."""
    for check, adapter, broker in itertools.product(CHECKS, ADAPTERS, ("embedded", "rabbitmq")):
        if to_be_run(check.name, adapter, broker):
            marks = [pytest.mark.rabbitmq] if broker == "rabbitmq" else []
            yield pytest.param(check, adapter, broker, marks=marks, id=f"{check}-{adapter}-{broker}")


@pytest.mark.parametrize(("check", "adapter", "broker"), list(cases()))
def test_conformance(check: Check, adapter: str, broker: str, request: pytest.FixtureRequest) -> None:
    main = MainThread() if adapter == "eda_pika" and check.name in ENDS_HANDLERS else None
    subjects = ADAPTERS[adapter] if main is None else callback_subjects_of(eda_pika.Service, begin=main.begin)

    async def on_embedded() -> None:
        async with EmbeddedBroker() as embedded, Embedded(embedded) as under_test:
            await Runner(under_test, subjects).run(check)
        await no_task_is_left()

    async def on_rabbitmq(victim: Victim) -> None:
        async with Rabbit(victim) as under_test:
            await Runner(under_test, subjects).run(check)
        await no_task_is_left()

    if broker == "embedded":
        performed = on_embedded()
    else:
        performed = on_rabbitmq(request.getfixturevalue("rabbit_victim"))
    asyncio.run(performed) if main is None else main.during(lambda: asyncio.run(performed))
