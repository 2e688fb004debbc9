"""Dead letters that a service publishes itself: what they say, and that none takes the place of a message in vain."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

import pytest
from pamqp.commands import Basic

from eda_core.criticality import EMERGENCY
from eda_core.errors import LocalError, NoHandler, Reject
from eda_core.machine.dead_letters import LONGEST_MESSAGE, LONGEST_TRACEBACK, dead_letter
from eda_core.machine.effects import Ack, Dispatch, Effect, Nack, OpenChannel, Publish, PublishLog, Report
from eda_core.machine.link import OPEN
from eda_core.machine.outcomes import DONE, Failed, failure
from eda_core.machine.policy import RetryPolicy
from eda_core.messages import Unreadable
from eda_core.messages.routing import MAX_HEADER_BYTES
from tests.core.kit import WALL, Bench, config, kinds, of, only, opened

ONCE = RetryPolicy(1)
DLX = "am-dlx"


def error_of(error: Exception) -> Failed:
    try:
        raise error
    except Exception as raised:
        return failure(raised)


def keeping(**settings: Any) -> Bench:
    return opened(**{"dead_letter_exchange": DLX, "retry": ONCE, **settings})


def given_up(bench: Bench, error: Exception | None = None, **fields: Any) -> Publish:
    """Let a handler fail, and return the copy of its message."""
    effects = bench.handled(bench.take(**fields), error_of(error or KeyError("amount")))
    assert of(Nack, effects) == []
    return only(Publish, effects)


def said(copy: Publish | Basic.Properties | None) -> dict[str, Any]:
    """The headers of a copy."""
    properties: Any = copy.properties if isinstance(copy, Publish) else copy
    headers: dict[str, Any] = properties.headers
    return headers


def lines(bench: Bench) -> list[str]:
    return [report.text for report in of(Report, bench.seen) if report.level == EMERGENCY]


def made(failure: Failed, headers: dict[str, Any] | None = None, **named: Any) -> Basic.Properties | None:
    properties = Basic.Properties(headers=headers or {"conversation_id": "c"}, message_id="m")
    given = {"service": "svc", "queue": "svc.events", "attempts": 2, "time": 1_700_000_000.25, **named}
    return dead_letter(properties, ("events", "Happened"), failure, **given)


# What it says


def test_the_headers_say_why_where_and_when() -> None:
    copy = made(Failed("KeyError: 'amount'", "Traceback …\nKeyError: 'amount'\n", error="KeyError"))
    assert said(copy) == {
        "conversation_id": "c",
        "origin_exchange": "events",
        "origin_routing_key": "Happened",
        "error_type": "KeyError",
        "error_message": "'amount'",
        "error_traceback": "Traceback …\nKeyError: 'amount'\n",
        "error_service": "svc",
        "error_queue": "svc.events",
        "error_attempts": 2,
        "error_time": "2023-11-14T22:13:20.250+00:00",
    }
    assert copy is not None
    assert (copy.message_id, copy.delivery_mode) == ("m", 2)


@pytest.mark.parametrize(("error", "kind"), [(Reject("no"), "Reject"), (NoHandler("none"), "NoHandler")])
def test_the_type_is_that_of_the_exception(error: Exception, kind: str) -> None:
    assert error_of(error).error == kind


def test_what_is_no_exception_has_no_type() -> None:
    copy = made(Failed("lost 4 times"))
    assert "error_type" not in said(copy)
    assert "error_traceback" not in said(copy)
    assert said(copy)["error_message"] == "lost 4 times"


def test_of_a_long_traceback_the_end_is_kept_and_of_a_long_message_the_beginning() -> None:
    copy = made(Failed(f"E: a{'x' * 5000}", f"{'y' * 9000}end", error="E"))
    assert len(said(copy)["error_traceback"]) == LONGEST_TRACEBACK
    assert said(copy)["error_traceback"].endswith("yend")
    assert len(said(copy)["error_message"]) <= LONGEST_MESSAGE
    assert said(copy)["error_message"].startswith("ax")


def test_text_that_has_no_encoding_is_written_all_the_same() -> None:
    copy = made(Failed("E: \ud800", "trace \udfff", error="E"))
    assert (said(copy)["error_message"], said(copy)["error_traceback"]) == ("?", "trace ?")


@pytest.mark.parametrize(("spare", "words"), [(12_000, True), (6000, False)])
def test_a_traceback_that_does_not_fit_is_left_out(spare: int, words: bool) -> None:
    copy = made(
        Failed("E: no", "t" * 7000, error="E"), {"conversation_id": "c", "large": "x" * (MAX_HEADER_BYTES - spare)}
    )
    assert ("error_traceback" in said(copy)) is words
    assert said(copy)["error_message"] == "no"


def test_headers_that_do_not_fit_at_all_are_not_written() -> None:
    assert made(Failed("E: no"), {"conversation_id": "c", "large": "x" * (MAX_HEADER_BYTES - 50)}) is None


def test_what_an_earlier_death_has_said_is_replaced() -> None:
    copy = made(Failed("lost 4 times"), {"conversation_id": "c", "error_type": "KeyError", "x-death": [], "attempt": 3})
    assert not {"error_type", "x-death", "attempt"} & {*said(copy)}


# In the life of a delivery


def test_the_message_is_acknowledged_when_the_copy_is_confirmed() -> None:
    bench = keeping()
    copy = given_up(bench, message_id="m", correlation_id="k")
    assert (copy.exchange, copy.routing_key, copy.mandatory) == (DLX, "Happened", True)
    assert copy.body == b"\xf6"
    headers = said(copy)
    assert (headers["error_type"], headers["error_message"]) == ("KeyError", "'amount'")
    assert (headers["error_service"], headers["error_queue"], headers["error_attempts"]) == ("svc", "svc.events", 1)
    assert headers["error_traceback"].splitlines()[-1] == "KeyError: 'amount'"
    assert datetime.fromisoformat(headers["error_time"]).timestamp() == pytest.approx(WALL + bench.now, abs=0.01)
    assert (copy.properties.message_id, copy.properties.correlation_id) == ("m", "k")
    assert of(Ack, bench.seen) == []
    assert bench.confirm(copy) == [Ack(bench.epoch, 1, False)]


def test_the_log_says_where_it_is_and_names_the_message() -> None:
    bench = keeping()
    given_up(bench, message_id="m-7")
    [line] = lines(bench)
    assert line == "giving up on Happened after 1 attempt(s): published to am-dlx; its message_id is m-7"
    record = json.loads(of(PublishLog, bench.seen)[-1].body)
    assert (record["_outcome"], record["_message_id"]) == ("dead-letter", "m-7")


def test_all_attempts_are_counted() -> None:
    bench = keeping(retry=RetryPolicy(2))
    effects = bench.handled(bench.take(message_id="m"), error_of(KeyError("a")))
    assert only(Nack, effects).requeue
    copy = given_up(bench, message_id="m", redelivered=True)
    assert said(copy)["error_attempts"] == 2


def test_without_the_setting_the_message_is_rejected() -> None:
    bench = opened(retry=ONCE)
    effects = bench.handled(bench.take(), error_of(KeyError("amount")))
    assert only(Nack, effects) == Nack(bench.epoch, 1, False)
    assert of(Publish, effects) == []


def test_by_hand_it_is_rejected_without_a_reason() -> None:
    bench = keeping()
    delivery = bench.take()
    bench.nack(delivery)
    assert only(Nack, bench.handled(delivery)) == Nack(bench.epoch, 1, False)


def test_what_a_failed_handler_has_published_is_dropped() -> None:
    bench = keeping()
    delivery = bench.take()
    bench.publish(within=delivery)
    assert only(Publish, bench.handled(delivery, error_of(KeyError("a")))).exchange == DLX


def test_a_link_that_is_lost_before_the_confirm_brings_the_message_back() -> None:
    bench = keeping()
    copy = given_up(bench, message_id="m")
    bench.lose()
    bench.open()
    assert of(Publish, bench.seen) == [copy]  # it is not sent again by itself
    assert bench.machine.confirmed(copy.epoch, copy.tag, bench.now) == []
    again = given_up(bench, message_id="m", redelivered=True)
    assert bench.confirm(again) == [Ack(bench.epoch, 1, False)]


def test_a_copy_that_the_broker_refuses_is_sent_again() -> None:
    bench = keeping(retry_delay=5.0)
    bench.refuse(given_up(bench))
    again = only(Publish, bench.due())
    assert again.exchange == DLX
    assert bench.confirm(again) == [Ack(bench.epoch, 1, False)]


@pytest.mark.parametrize("message_id", ["m", None])
def test_a_copy_for_which_no_queue_is_bound_does_not_take_the_place_of_its_message(message_id: str | None) -> None:
    bench = keeping()
    copies = [given_up(bench, message_id=message_id) for _ in range(2)]  # nobody knows which one has come back
    copy = copies[0]
    come = bench.machine.returned(bench.epoch, DLX, "Happened", copy.properties, copy.body, "NO_ROUTE", bench.now)
    assert come == []
    effects = [effect for copy in copies for effect in bench.confirm(copy)]
    assert of(Ack, effects) == []
    assert of(Nack, effects) == [Nack(bench.epoch, 1, False), Nack(bench.epoch, 2, False)]
    assert "no queue is bound to am-dlx for Happened (NO_ROUTE): rejected" in lines(bench)[-1]


def test_an_exchange_that_does_not_exist_costs_no_link() -> None:
    bench = keeping()
    given_up(bench)
    reason = "NOT_FOUND - no exchange 'am-dlx' in vhost '/'"
    effects = bench.did(bench.machine.channel_closed(bench.epoch, reason, bench.now, channel="publishing"))
    assert only(OpenChannel, effects).channel == "publishing"
    assert only(Nack, effects) == Nack(bench.epoch, 1, False)
    assert bench.state is OPEN
    assert "am-dlx" in lines(bench)[-1]


def test_the_same_copy_waits_for_space_on_the_channel_and_goes_out_then() -> None:
    bench = keeping(window=1)
    first = bench.send()
    effects = bench.handled(bench.take(), error_of(KeyError("a")))
    assert of(Publish, effects) == []
    copy = only(Publish, bench.confirm(first))
    assert bench.confirm(copy) == [Ack(bench.epoch, 1, False)]


def test_a_message_that_is_lost_too_often_is_published_without_an_attempt() -> None:
    bench = keeping(retry=RetryPolicy(2, max_losses=1))
    counts = {"x-delivery-count": 2, "x-acquired-count": 2}
    effects = bench.deliver(headers={"conversation_id": "c-1", **counts}, redelivered=True)
    assert of(Dispatch, effects) == []
    copy = only(Publish, effects)
    assert said(copy)["error_message"].startswith("lost 2 times")


def test_an_invalid_message_is_published_with_what_is_wrong() -> None:
    bench = keeping()
    effects = bench.deliver(headers={})
    copy = only(Publish, effects)
    headers = said(copy)
    assert headers["error_type"] == "InvalidEnvelope"
    assert "conversation_id" in headers["error_message"]
    assert (headers["origin_exchange"], headers["error_queue"]) == ("events", "svc.events")
    assert "published to am-dlx" in lines(bench)[-1]
    assert bench.confirm(copy) == [Ack(bench.epoch, 1, False)]


def test_properties_that_cannot_be_read_cannot_be_written_again() -> None:
    bench = keeping()
    effects: list[Effect] = bench.did(
        bench.machine.delivered(
            bench.epoch, 1, False, "events", "Happened", Unreadable.of(Basic.Properties(), "no"), b"", bench.now
        )
    )
    assert only(Nack, effects) == Nack(bench.epoch, 1, False)


def test_a_configuration_that_dies_is_asked_for_again() -> None:
    bench = keeping(configurations=["Rates"])
    copy = only(Publish, bench.handled(bench.take("Rates", exchange="configurations"), error_of(KeyError("a"))))
    assert copy.exchange == DLX
    bench.confirm(copy)
    assert "Unconfigured" in kinds(bench.due())


def test_a_stop_waits_for_the_copy() -> None:
    bench = keeping()
    copy = given_up(bench)
    bench.stop()
    assert "Close" not in kinds(bench.seen)
    effects = bench.confirm(copy)
    assert kinds(effects)[0] == "Ack"
    assert "Close" in kinds(effects)


@pytest.mark.parametrize("name", ["events", "commands", "configurations", "logs"])
def test_an_exchange_of_the_architecture_is_refused(name: str) -> None:
    with pytest.raises(LocalError, match=f"dead_letter_exchange is '{name}'; give one of its own, such as am-dlx"):
        config(dead_letter_exchange=name)


@pytest.mark.parametrize("name", ["x" * 256, 5])
def test_a_name_that_is_none_is_refused(name: Any) -> None:
    with pytest.raises(LocalError, match="dead_letter_exchange"):
        config(dead_letter_exchange=name)


def test_a_success_publishes_nothing() -> None:
    bench = keeping()
    assert bench.handled(bench.take(), DONE) == [Ack(bench.epoch, 1, False)]
