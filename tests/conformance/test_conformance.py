"""Every check of the conformance kit, against each adapter, on each broker."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Iterator
from typing import Any

import pytest

import eda_aio
import eda_pika
from eda_core.testing import conformance
from eda_core.testing.conformance import CHECKS, Check
from eda_core.testing.conformance.running.callbacks import callback_subjects_of
from eda_core.testing.conformance.running.coroutines import subjects_of
from examples import custom_service
from tests.support.native import NativeService
from tests.support.pika_only import PikaOnlyService

#: eda_pika with HANDLER_THREADS.
THREADED = "eda_pika/4"
#: eda_pika with messages that pika reads and writes, and not the core.
PIKA_ONLY = "eda_pika, pika only"
#: Their handlers run in the thread of the network.
IN_LOOP = ("eda_pika", PIKA_ONLY)
#: The class of the services, and how many threads they have for handlers.
SERVICES: dict[str, tuple[type[Any], int]] = {
    "eda_aio": (eda_aio.Service, 0),
    "native": (NativeService, 0),
    "eda_pika": (eda_pika.Service, 0),
    PIKA_ONLY: (PikaOnlyService, 0),
    THREADED: (eda_pika.Service, 4),
    "custom": (custom_service.Service, 0),
}
ADAPTERS = {
    name: subjects_of(service) if inspect.iscoroutinefunction(service.run) else callback_subjects_of(service, threads)
    for name, (service, threads) in SERVICES.items()
}

#: Checks of what the proxy does: the broker behind it makes no difference, and they take their time.
ON_ONE_BROKER = {"a_stop_ends_though_the_peer_is_frozen"}
#: With threads pika does the same with the network; checks that wait for heartbeats and time-outs need no second run.
SLOW = {"a_frozen_peer_is_noticed", "a_stop_ends_though_the_peer_is_frozen"}
#: What handlers in threads do with the broker is the same on both, these aside.
THREADED_ON_RABBITMQ = {"a_handler_that_runs_goes_on_after_a_lost_link", "a_stop_has_a_deadline"}


def to_be_run(check: str, adapter: str, broker: str) -> bool:
    if adapter == THREADED and check not in THREADED_ON_RABBITMQ:
        return broker == "embedded" and check not in SLOW
    return broker == "embedded" or check not in ON_ONE_BROKER


def params() -> Iterator[Any]:
    """Check, adapter, broker."""
    for adapter, broker in itertools.product(SERVICES, ("embedded", "rabbitmq")):
        service, threads = SERVICES[adapter]
        for case in conformance.cases(service, threads=threads):
            if to_be_run(case.check.name, adapter, broker):
                marks = [pytest.mark.rabbitmq] if broker == "rabbitmq" else []
                name = f"{case.check}-{adapter}-{broker}"
                yield pytest.param(case, case.check, adapter, broker, marks=marks, id=name)


@pytest.mark.parametrize(("case", "check", "adapter", "broker"), list(params()))
def test_conformance(
    case: conformance.Case, check: Check, adapter: str, broker: str, request: pytest.FixtureRequest
) -> None:
    assert (check, adapter) == (case.check, adapter)  # they are for the table at the end
    case.run(request.getfixturevalue("rabbit_victim") if broker == "rabbitmq" else None)


def test_what_is_left_out() -> None:
    """Without threads, pika's handlers run in the thread of the network, which notices nothing meanwhile."""
    names = {
        adapter: {case.check.name for case in conformance.cases(service, threads=threads)}
        for adapter, (service, threads) in SERVICES.items()
    }
    every = {check.name for check in CHECKS}
    assert names["eda_aio"] == names["native"] == names["custom"] == names[THREADED] == every
    for adapter in IN_LOOP:
        assert every - names[adapter] == {"a_handler_that_runs_goes_on_after_a_lost_link"}
