"""Channels that the broker closes: which publish it is for, who is told, and that all else goes on."""

from __future__ import annotations

import pytest

from eda_core.criticality import EMERGENCY, WARNING
from eda_core.machine.effects import (
    CHECKING,
    CONSUMING,
    LOGGING,
    PUBLISHING,
    Ack,
    Close,
    Connect,
    Declare,
    Effect,
    OpenChannel,
    Publish,
    PublishDone,
    PublishLog,
    Replied,
    Report,
    Stopped,
)
from eda_core.machine.link import OPEN
from tests.core.kit import URLS, calling, kinds, of, only, opened
from tests.core.machine.channels import REFUSAL, closed, reopened, told

MISSING = "NOT_FOUND - no exchange 'events' in vhost '/'"
TOO_LARGE = "PRECONDITION_FAILED - message size 300 is larger than configured max size 200"


def pids(effects: list[Effect]) -> list[int]:
    return [publish.pid for publish in of(Publish, effects)]


def test_the_only_open_publish_is_the_one_and_its_caller_is_told() -> None:
    bench = opened()
    bench.send(ticket=5)
    effects = closed(bench)
    assert only(OpenChannel, effects) == OpenChannel(bench.epoch, PUBLISHING)
    assert only(PublishDone, effects) == PublishDone(5, f"the broker does not take it: {REFUSAL}", refused=True)
    assert bench.state == "open"
    assert of(Close, effects) == []
    assert bench.machine._outbox.kept == 0


def test_nothing_is_sent_before_the_channel_is_open_again() -> None:
    bench = opened()
    bench.send(ticket=1)
    closed(bench)
    assert of(Publish, bench.publish(ticket=2)) == []
    publish = only(Publish, reopened(bench))
    assert (publish.ticket, publish.tag) == (2, 1)
    assert only(PublishDone, bench.confirm(publish)) == PublishDone(2)


def test_of_several_each_is_sent_alone_until_the_one_is_found() -> None:
    bench = opened()
    sent = [bench.send(told(number), ticket=number) for number in (1, 2, 3)]
    bench.confirm(sent[0])
    effects = closed(bench)
    assert of(PublishDone, effects) == []
    text = f"the broker closed the channel for publishing: {REFUSAL}; "
    text += "each of the last 2 publishes is sent alone now, to find the one that it refuses"
    assert only(Report, effects) == Report(WARNING, text)
    (second,) = of(Publish, reopened(bench))
    assert (second.pid, second.tag) == (sent[1].pid, 1)
    effects = bench.confirm(second)
    assert only(PublishDone, effects) == PublishDone(2)
    (third,) = of(Publish, effects)
    assert (third.pid, third.tag) == (sent[2].pid, 2)
    assert only(PublishDone, closed(bench)).ticket == 3
    assert bench.machine._outbox.kept == 0


def test_what_waits_behind_goes_on_with_the_whole_window_when_the_one_is_found() -> None:
    bench = opened(window=3)
    for number in (1, 2, 3, 4, 5, 6, 7):
        bench.publish(told(number), ticket=number)
    closed(bench)
    assert pids(reopened(bench)) == [1]
    effects = closed(bench)
    assert only(PublishDone, effects).ticket == 1
    (second,) = of(Publish, reopened(bench))
    effects = bench.confirm(second)
    (third,) = of(Publish, effects)
    assert pids(bench.confirm(third)) == [4, 5, 6]


def test_a_suspect_that_is_refused_is_innocent() -> None:
    bench = opened(window=2)
    for number in (1, 2, 3):
        bench.publish(told(number), ticket=number)
    closed(bench)
    (first,) = of(Publish, reopened(bench))
    (second,) = of(Publish, bench.refuse(first))
    assert second.ticket == 2
    assert only(PublishDone, closed(bench)).ticket == 2
    assert [each.ticket for each in of(Publish, reopened(bench))] == [3]
    assert [each.ticket for each in of(Publish, bench.due())] == [1]


def test_if_nobody_waits_for_it_the_log_tells() -> None:
    bench = opened()
    bench.send()
    effects = closed(bench)
    text = f"the publish of Told (4 bytes) has failed: the broker does not take it: {REFUSAL}"
    assert only(Report, effects) == Report(EMERGENCY, text)
    assert len(of(PublishLog, effects)) == 1


def test_what_the_failed_delivery_has_sent_is_forgotten_when_the_channel_closes_again() -> None:
    bench = opened()
    delivery = bench.take()
    bench.publish(told(0), within=delivery)
    bench.handled(delivery)
    bench.publish(told(1), ticket=1)
    closed(bench)
    (held,) = of(Publish, reopened(bench))
    bench.machine._outbox.drop(delivery)
    effects = closed(bench)
    assert of(Report, effects) == []
    assert held.delivery is None
    assert [each.ticket for each in of(Publish, reopened(bench))] == [1]


def test_a_caller_that_is_told_decides_about_its_delivery() -> None:
    bench = opened()
    delivery = bench.take()
    bench.send(within=delivery, immediate=True, ticket=8)
    assert only(PublishDone, closed(bench)).refused
    assert only(Ack, bench.handled(delivery)).tag == 1


def test_a_call_is_told_at_once() -> None:
    bench = calling()
    (command,) = of(Publish, bench.call(2))
    effects = closed(bench)
    assert only(Replied, effects) == Replied(2, "peer.Do", None, f"the broker does not take it: {REFUSAL}")
    assert command.pid not in pids(reopened(bench))


def test_a_call_that_has_ended_is_not_sent_again() -> None:
    bench = calling()
    bench.call(2)
    bench.did(bench.machine.forget_call(2, bench.now))
    effects = closed(bench)
    assert of(Report, effects) == []
    assert of(Publish, reopened(bench)) == []


@pytest.mark.parametrize("several", [False, True])
def test_a_missing_exchange_is_declared_again_by_a_new_link_and_then_told(several: bool) -> None:
    bench = opened()
    sent = [bench.send(told(number), ticket=number) for number in range(1 + several)]
    effects = closed(bench, MISSING)
    assert only(Close, effects).reason == f"channel closed: {MISSING}"
    assert pids(bench.open()) == [publish.pid for publish in sent]
    if several:
        closed(bench, MISSING)
        reopened(bench)
    effects = closed(bench, MISSING)
    assert only(PublishDone, effects).ticket == 0
    assert of(Close, effects) == []


def test_an_exchange_that_was_there_meanwhile_is_declared_again_once_more() -> None:
    bench = opened()
    bench.send(told(0), ticket=0)
    closed(bench, MISSING)
    bench.confirm(only(Publish, bench.open()))
    bench.send(told(1), ticket=1)
    assert len(of(Close, closed(bench, MISSING))) == 1


def test_a_close_for_no_publish_gives_up_the_link() -> None:
    bench = opened()
    assert only(Close, closed(bench)).reason == f"channel closed: {REFUSAL}"


def test_a_close_of_an_earlier_link_is_ignored() -> None:
    bench = opened()
    before = bench.epoch
    bench.send(ticket=1)
    bench.lose()
    bench.open()
    assert bench.machine.channel_closed(before, REFUSAL, bench.now, channel=PUBLISHING) == []
    assert bench.machine.channel_opened(before, bench.now) == []
    assert bench.machine.stale == 2


def test_a_channel_that_does_not_open_costs_the_link() -> None:
    bench = opened(connect_timeout=7.0)
    bench.send(ticket=1)
    closed(bench)
    assert bench.machine.deadline() == bench.now + 7.0
    assert only(Close, bench.due()).reason == "the broker has not opened a channel for 7 s"


def test_during_an_alarm_the_channel_has_time_to_open() -> None:
    bench = opened(connect_timeout=7.0, blocked_timeout=500.0)
    bench.send(ticket=1)
    closed(bench)
    bench.did(bench.machine.blocked(bench.epoch, "memory", bench.now))
    assert of(Close, bench.wait(100.0)) == []
    bench.did(bench.machine.unblocked(bench.epoch, bench.now))
    assert bench.machine.deadline() == bench.now + 7.0


def test_a_channel_that_cannot_be_opened_costs_the_link() -> None:
    bench = opened()
    bench.send(ticket=1)
    effect = only(OpenChannel, closed(bench))
    assert len(of(Close, bench.did(bench.machine.effect_failed(effect, "no", bench.now)))) == 1
    assert len(of(Connect, bench.due())) == 1


def test_a_stop_waits_for_the_suspects_and_ends_with_the_one() -> None:
    bench = opened()
    bench.send(told(1), ticket=1)
    bench.send(told(2), ticket=2)
    closed(bench)
    assert of(Close, bench.stop()) == []
    bench.confirm(only(Publish, reopened(bench)))
    assert len(of(Close, closed(bench))) == 1
    assert len(of(Stopped, bench.lose("closed"))) == 1


# Logs


def test_without_the_channel_for_logs_the_service_goes_on_and_warns_once() -> None:
    bench = opened()
    for first in (True, False):
        effects = closed(bench, REFUSAL, LOGGING)
        text = f"the broker closed the channel for logs: {REFUSAL}; the service publishes no logs on this link"
        assert effects == ([Report(WARNING, text)] if first else [])
        assert bench.did(bench.machine.log(3, "unheard", bench.now)) == []
        bench.lose()
        assert len(of(PublishLog, bench.open())) == 1


def test_a_record_that_the_broker_does_not_take_costs_only_itself() -> None:
    bench = opened()
    effects = closed(bench, TOO_LARGE, LOGGING)
    assert only(OpenChannel, effects) == OpenChannel(bench.epoch, LOGGING)
    assert only(Report, effects).text.endswith("the service drops this record")
    assert not bench.machine.sends_logs
    assert bench.did(bench.machine.log(3, "kept", bench.now)) == []
    assert len(of(PublishLog, reopened(bench, LOGGING))) == 1
    assert bench.machine.sends_logs
    assert len(of(PublishLog, bench.did(bench.machine.log(3, "sent", bench.now)))) == 1


def test_a_missing_exchange_for_logs_costs_one_link() -> None:
    bench = opened()
    reason = "NOT_FOUND - no exchange 'logs' in vhost '/'"
    assert len(of(Close, closed(bench, reason, LOGGING))) == 1
    assert len(of(Declare, [bench.connect(), bench.link_up()])) == 1


def test_the_second_time_a_missing_exchange_for_logs_costs_no_link() -> None:
    bench = opened()
    reason = "NOT_FOUND - no exchange 'logs' in vhost '/'"
    closed(bench, reason, LOGGING)
    bench.open()
    assert kinds(closed(bench, reason, LOGGING)) == ["Report"]


# Refusals


@pytest.mark.parametrize(
    ("urls", "times"), [(1, (5, 10, 20, 40, 80, 160, 300, 300)), (3, (5, 5, 5, 10, 20, 40, 80))], ids=["one", "three"]
)
def test_refusals_without_a_confirm_make_a_new_link_and_the_time_doubles_after_each_url(
    urls: int, times: tuple[int, ...]
) -> None:
    bench = opened(retry_delay=1.0, urls=[f"amqp://{number}/" for number in range(urls)])
    publish = bench.send(ticket=1)
    for seconds in times:
        since = bench.now
        while not of(Close, effects := bench.refuse(publish)):
            (publish,) = of(Publish, bench.due())
        assert only(Close, effects).reason == f"the broker has refused all publishes for {seconds} s"
        assert bench.now - since == seconds
        (publish,) = of(Publish, bench.open())
    assert only(PublishDone, bench.confirm(publish)) == PublishDone(1)
    bench.refuse(bench.send())
    bench.now += 5.0
    assert len(of(Close, bench.refuse(bench.send()))) == 1


def test_a_publish_that_is_refused_waits_for_its_second_chance_on_the_same_link() -> None:
    bench = opened(retry_delay=15.0)
    publish = bench.send(ticket=1)
    bench.refuse(publish)
    (publish,) = of(Publish, bench.wait(15.0))
    assert len(of(Close, bench.refuse(publish))) == 1


def test_a_confirm_between_refusals_keeps_the_link() -> None:
    bench = opened(retry_delay=1.0)
    publish = bench.send(ticket=1)
    for _ in range(30):
        bench.refuse(publish)
        bench.confirm(bench.send(ticket=2))
        (publish,) = of(Publish, bench.due())
    assert bench.state == "open"


@pytest.mark.parametrize("by_effect", [False, True])
def test_a_channel_that_checks_the_node_costs_nothing(by_effect: bool) -> None:
    bench = opened(urls=[*URLS], probe_interval=4.0, probe_timeout=4.0)
    while not (checks := [each for each in of(Declare, bench.due()) if each.channel == CHECKING]):
        for channel in (CONSUMING, PUBLISHING):
            bench.machine.alive(bench.epoch, bench.now, channel=channel, answered=True)
    if by_effect:
        assert bench.machine.effect_failed(checks[0], "no more channels", bench.now) == []
    else:
        assert bench.machine.channel_closed(bench.epoch, REFUSAL, bench.now, channel=CHECKING) == []
    assert bench.state is OPEN
