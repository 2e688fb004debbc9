"""Tests of the kit itself: its checks find the faults that they look for. (That it is pure: tests/core/test_purity.py.)

The faults are planted in the custom transport, in the core's table of what the broker sends, and in the machine.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from pamqp.commands import Basic

from eda_core import Machine, Publish
from eda_core.drivers import link as transport
from eda_core.machine.deliveries import Deliveries
from eda_core.machine.outbox import Outbox
from eda_core.testing.conformance import CHECKS, NotConforming
from eda_core.testing.conformance.running.brokers import Embedded
from eda_core.testing.conformance.running.coroutines import subjects_of
from eda_core.testing.conformance.running.runner import Runner
from eda_tools.broker import EmbeddedBroker
from examples import custom_service, custom_transport

Patch = pytest.MonkeyPatch
Plant = Callable[[Patch], None]


def test_every_check_has_a_name_of_its_own_and_says_why() -> None:
    assert len({check.name for check in CHECKS}) == len(CHECKS) > 30
    assert all(check.why for check in CHECKS)


def _do_not(method: str) -> Plant:
    """An effect is not performed."""
    return lambda patch: patch.setattr(custom_transport.CustomLink, method, lambda *_: None)


def _ignore(name: str) -> Plant:
    """A method of the broker is ignored."""
    return lambda patch: patch.setitem(transport.MEANINGS, name, lambda *_: None)


def _change(method: str, attribute: str, value: Any) -> Plant:
    """An effect is performed with another value of an attribute."""
    perform: Any = getattr(custom_transport.CustomLink, method)

    def changed(link: Any, effect: Any) -> None:
        fields = {name: getattr(effect, name) for name in effect.__dataclass_fields__}
        perform(link, type(effect)(**fields | {attribute: value}))

    return lambda patch: patch.setattr(custom_transport.CustomLink, method, changed)


def _confirm_what_is_refused(patch: Patch) -> None:
    patch.setitem(transport.MEANINGS, "Basic.Nack", transport.MEANINGS["Basic.Ack"])


def _acknowledge_at_once(patch: Patch) -> None:
    handled = Deliveries.handled

    def early(self: Any, number: Any, outcome: Any, now: float, effects: list[Any], began: float | None) -> bool:
        configures = handled(self, number, outcome, now, effects, began)
        delivery = self.in_flight.by_id.pop(number, None)
        if delivery is not None:
            self.in_flight.to_ack.append(delivery.tag)
        return configures

    patch.setattr(Deliveries, "handled", early)


def _publish_at_once(patch: Patch) -> None:
    publish = Machine.publish

    def unheld(self: Any, message: Any, now: float, **options: Any) -> Any:
        return publish(self, message, now, **options | {"within": None})

    patch.setattr(Machine, "publish", unheld)


def _forget_with_the_link(patch: Patch) -> None:
    patch.setattr(Outbox, "lose_link", Outbox.abandon)


def _forget_properties(patch: Patch) -> None:
    again = Publish.again

    def bare(self: Publish) -> Publish:
        publish = again(self)
        publish.properties = Basic.Properties(content_type="application/cbor", delivery_mode=2)
        return publish

    patch.setattr(Publish, "again", bare)


#: The fault, and the check that finds it.
FAULTS: dict[str, tuple[Plant, str]] = {
    "returns are ignored": (_ignore("Basic.Return"), "unroutable_commands_come_back"),
    "mandatory is dropped": (_change("publish", "mandatory", False), "unroutable_commands_come_back"),
    "logs are dropped": (_do_not("log"), "logs_go_to_the_bus"),
    "rejected messages are requeued": (_change("nack", "requeue", True), "invalid_messages_are_dead_lettered"),
    "requeued messages are rejected": (_change("nack", "requeue", False), "a_retry_may_succeed"),
    "acknowledgements are dropped": (_do_not("ack"), "prefetch_bounds_what_is_handled_at_once"),
    "acknowledgements before the confirms": (_acknowledge_at_once, "sources_are_acknowledged_after_the_confirms"),
    "handlers publish at once": (_publish_at_once, "failing_handlers_publish_nothing"),
    "refused publishes are ignored": (_ignore("Basic.Nack"), "refused_publishes_are_sent_again_whole"),
    "refused publishes count as confirmed": (_confirm_what_is_refused, "refused_publishes_are_sent_again_whole"),
    "refused publishes lose their properties": (_forget_properties, "refused_publishes_are_sent_again_whole"),
    "publishes are lost with the link": (_forget_with_the_link, "cut_connections_lose_nothing"),
    "consumer cancels are ignored": (_ignore("Basic.Cancel"), "a_deleted_queue_is_declared_again"),
    "closed channels are ignored": (_ignore("Channel.Close"), "a_queue_that_differs_is_used_as_it_is"),
    "silence is borne": (_do_not("tick"), "a_frozen_peer_is_noticed"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_found(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    plant, name = FAULTS[fault]
    (check,) = [check for check in CHECKS if check.name == name]
    timeout = 5.0 if fault == "silence is borne" else 1.0  # seconds; the heartbeat is 2

    async def run() -> None:
        async with EmbeddedBroker() as embedded, Embedded(embedded) as under_test:
            plant(monkeypatch)
            runner = Runner(under_test, subjects_of(custom_service.Service), timeout)
            with pytest.raises(NotConforming):
                await runner.run(check)

    asyncio.run(run())
