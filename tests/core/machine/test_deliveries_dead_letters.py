"""Deliveries that are given up: whether a copy takes their place, and what the log says of them."""

from __future__ import annotations

from typing import Any

from pamqp.commands import Queue

from eda_core.criticality import EMERGENCY
from eda_core.machine.effects import Ack, Nack, Publish, Report, Unconfigured
from eda_core.machine.outcomes import Failed
from tests.core.kit import REJECTED, Bench, of, only, opened

NEVER = Failed("no", permanent=True)


def said(bench: Bench) -> list[str]:
    return [report.text for report in of(Report, bench.seen) if report.level == EMERGENCY]


def test_a_configuration_of_which_a_copy_is_published_was_of_no_use() -> None:
    """The service asks for another one."""
    bench = opened(configurations=["Settings"], dead_letter_exchange="am-dlx")
    copy = only(Publish, bench.handled(bench.take("Settings", exchange="configurations"), NEVER))
    assert (copy.exchange, copy.routing_key) == ("am-dlx", "Settings")
    assert only(Ack, bench.confirm(copy)).tag == 1
    assert of(Unconfigured, bench.due()) == [Unconfigured()]


def test_an_event_of_which_a_copy_is_published_lets_the_service_ask_for_nothing() -> None:
    bench = opened(configurations=["Settings"], dead_letter_exchange="am-dlx")
    bench.confirm(only(Publish, bench.handled(bench.take(), NEVER)))
    assert of(Unconfigured, bench.wait(29.0)) == []


def test_headers_that_cannot_be_written_again_let_the_broker_have_the_message() -> None:
    bench = opened(dead_letter_exchange="am-dlx")
    headers: dict[str, Any] = {"conversation_id": "c", "odd": object()}
    effects = bench.handled(bench.take(headers=headers, message_id=""), NEVER)
    assert of(Publish, effects) == []
    assert only(Nack, effects) == Nack(bench.epoch, 1, False)
    assert said(bench) == [f"giving up on Happened after 1 attempt(s): {REJECTED}"]


def test_a_queue_whose_dead_letter_exchange_is_known_keeps_what_is_rejected() -> None:
    bench = Bench()
    bench.connect()
    declaration = next(each for each in bench.link_up().commands if isinstance(each, Queue.Declare))
    assert declaration.queue == "svc.events"
    words = "inequivalent arg 'x-dead-letter-exchange' for queue 'svc.events': received none but current is the value "
    refusal = f"PRECONDITION_FAILED - {words}'am-dlx' of type 'longstr'"
    bench.did(bench.machine.channel_closed(bench.epoch, refusal, bench.now, declaration=declaration))
    bench.open()
    bench.handled(bench.take(message_id="m"), NEVER)
    bench.handled(bench.take("svc.Do", exchange="commands", message_id="n", reply_to="me.DoReturn"), NEVER)
    assert said(bench) == [
        "giving up on Happened after 1 attempt(s): dead-lettered; its message_id is m",
        f"giving up on svc.Do after 1 attempt(s): {REJECTED}; its message_id is n",
    ]
