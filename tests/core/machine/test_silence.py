"""A broker that says nothing: when it is asked for a sign of life, and when the link is given up."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pytest
from pamqp.commands import Basic

from eda_core.machine import link
from eda_core.machine.effects import (
    CONSUMING,
    LOGGING,
    PUBLISHING,
    Close,
    Connect,
    Declare,
    Effect,
    OpenChannel,
    Probe,
    Publish,
    PublishDone,
    Report,
)
from eda_core.messages.routing import EVENTS
from tests.core.kit import SHOWN, URLS, Bench, config, kinds, of, only, opened
from tests.core.machine.channels import REFUSAL, closed, reopened

INTERVAL, TIMEOUT = 4.0, 8.0
#: The broker is asked again after each of these parts of the time.
PART = TIMEOUT / 4


def silent(**settings: object) -> Bench:
    """An open link that is watched, with one URL, so that the node is not checked."""
    return opened(**{"probe_interval": INTERVAL, "probe_timeout": TIMEOUT, **settings})


def publisher(**settings: object) -> Bench:
    """The same with two URLs, for a service that only publishes."""
    return silent(urls=[*URLS], events=[], commands=[], **settings)


def asked(effects: list[Effect]) -> list[str]:
    return [effect.channel for effect in of(Probe, effects)]


def alive(bench: Bench, channel: str) -> None:
    assert bench.machine.alive(bench.epoch, bench.now, channel=channel) == []


def both_alive(bench: Bench) -> None:
    alive(bench, CONSUMING)
    alive(bench, PUBLISHING)


def given_up(bench: Bench, parts: int = 4) -> list[Effect]:
    """Ask, and let the broker be silent, for all parts of the time."""
    for _ in range(parts - 1):
        assert of(Close, bench.due()) == []
    return bench.due()


def test_both_channels_are_asked_after_the_interval() -> None:
    bench = silent()
    assert bench.machine.deadline() == bench.now + INTERVAL
    assert bench.wait(INTERVAL - 0.1) == []
    assert bench.wait(0.1) == [Probe(bench.epoch, CONSUMING), Probe(bench.epoch, PUBLISHING)]


def test_a_broker_that_answers_keeps_its_link() -> None:
    bench = silent()
    for _ in range(10):
        assert asked(bench.due()) == [CONSUMING, PUBLISHING]
        bench.now += 1.0
        both_alive(bench)
        assert bench.due() == []  # it looks at the answers
        assert bench.machine.deadline() == bench.now - PART + 1.0 + INTERVAL
    assert bench.state is link.OPEN


@pytest.mark.parametrize("dead", [CONSUMING, PUBLISHING])
def test_a_broker_that_does_not_answer_on_one_channel_loses_the_link(dead: str) -> None:
    bench = publisher()
    began = bench.now
    assert asked(bench.due()) == [CONSUMING, PUBLISHING]
    alive(bench, PUBLISHING if dead is CONSUMING else CONSUMING)
    epoch = bench.epoch
    for _ in range(3):
        assert dead in asked(bench.due()), "the driver is to look for an answer"
        alive(bench, PUBLISHING if dead is CONSUMING else CONSUMING)
    effects = bench.due()
    assert bench.now == began + INTERVAL + TIMEOUT
    assert only(Close, effects) == Close(epoch, "the broker has not answered for 12 s", unresponsive=True)
    assert f"no link to {SHOWN[0]}: the broker has not answered for 12 s" in only(Report, effects).text
    assert only(Connect, bench.due()).url == URLS[1]


def test_a_stop_that_waits_for_a_dead_broker_ends_the_link_as_well() -> None:
    bench = silent(stop_timeout=100.0)
    bench.send()
    bench.stop()
    assert bench.state is link.DRAINING
    bench.due()
    assert of(Close, given_up(bench)) != []


SIGNS: dict[str, tuple[str, Callable[[Bench], object]]] = {
    "a delivery": (CONSUMING, lambda bench: bench.deliver()),
    "a confirm": (PUBLISHING, lambda bench: bench.confirm(bench.send())),
    "a refusal": (PUBLISHING, lambda bench: bench.refuse(bench.send())),
    "a return": (
        PUBLISHING,
        lambda bench: bench.machine.returned(
            bench.epoch, EVENTS, "Told", Basic.Properties(), b"\xf6", "NO_ROUTE", bench.now
        ),
    ),
    "an answer of the consuming channel": (CONSUMING, lambda bench: alive(bench, CONSUMING)),
    "an answer of the publishing channel": (PUBLISHING, lambda bench: alive(bench, PUBLISHING)),
}


@pytest.mark.parametrize("sign", SIGNS)
def test_what_the_broker_sends_on_a_channel_is_a_sign_of_life_there(sign: str) -> None:
    channel, send = SIGNS[sign]
    bench = silent()
    bench.now += INTERVAL / 2
    send(bench)
    other = PUBLISHING if channel is CONSUMING else CONSUMING
    assert asked(bench.wait(INTERVAL / 2)) == [other]
    assert set(asked(bench.wait(INTERVAL / 2))) == {channel, other}


@pytest.mark.parametrize("sign", SIGNS)
def test_a_sign_of_life_counts_as_an_answer(sign: str) -> None:
    channel, send = SIGNS[sign]
    bench = silent()
    assert asked(bench.due()) == [CONSUMING, PUBLISHING]
    send(bench)  # at the same time: a clock may be coarse
    other = PUBLISHING if channel is CONSUMING else CONSUMING
    assert asked(bench.due()) == [other]
    assert set(asked(bench.wait(INTERVAL - PART))) == {channel, other}


def test_what_the_service_does_is_no_sign_of_life() -> None:
    bench = silent()
    bench.now += INTERVAL / 2
    bench.publish()
    bench.did(bench.machine.log(6, "short", bench.now))
    assert asked(bench.wait(INTERVAL / 2)) == [CONSUMING, PUBLISHING]


def test_an_answer_of_an_earlier_link_is_none() -> None:
    bench = silent()
    before = bench.epoch
    bench.lose()
    bench.open()
    bench.due()
    stale = bench.machine.stale
    for channel in (CONSUMING, PUBLISHING):
        assert bench.machine.alive(before, bench.now, channel=channel) == []
    assert bench.machine.stale == stale + 2
    assert of(Close, given_up(bench)) != []


# No false alarms


@pytest.mark.parametrize("late", [PART / 2, 1000.0])
def test_a_part_that_ends_late_does_not_count(late: float) -> None:
    """A handler has blocked the event loop: the answer may have come, and the driver has to read it first."""
    bench = silent()
    bench.due()
    given_up(bench, parts=4 - 1)
    assert asked(bench.wait(PART + late)) == [CONSUMING, PUBLISHING], "the last part begins anew"
    both_alive(bench)
    assert bench.due() == []
    assert bench.state is link.OPEN


def test_a_loop_that_is_blocked_again_and_again_gives_up_no_link() -> None:
    bench = silent()
    for _ in range(20):
        bench.wait(100.0)
        assert bench.state is link.OPEN


def test_a_loop_that_goes_on_gives_up_after_the_rest_of_the_time() -> None:
    bench = silent()
    bench.due()
    bench.due()
    bench.wait(1000.0)
    assert of(Close, given_up(bench, parts=3)) != []


def test_early_ticks_change_nothing() -> None:
    bench = silent()
    for _ in range(3):
        assert bench.wait(0.0) == []
    bench.due()
    for _ in range(10):
        assert bench.wait(PART / 20) == []
    assert asked(bench.due()) == [CONSUMING, PUBLISHING]


def test_while_the_broker_blocks_publishing_it_is_not_asked() -> None:
    bench = silent()
    bench.due()
    bench.did(bench.machine.blocked(bench.epoch, "low on memory", bench.now))
    assert bench.machine.deadline() == bench.now + bench.config.blocked_timeout
    assert bench.wait(1000.0) == []
    assert kinds(bench.did(bench.machine.unblocked(bench.epoch, bench.now))) == ["Report"]
    assert bench.machine.deadline() == bench.now + INTERVAL
    assert asked(bench.due()) == [CONSUMING, PUBLISHING]


def test_a_link_that_opens_while_the_broker_blocks_is_not_asked_either() -> None:
    bench = Bench(probe_interval=INTERVAL)
    bench.connect()
    declare = bench.link_up()
    bench.did(bench.machine.blocked(bench.epoch, "low on memory", bench.now))
    bench.declared(only(Declare, bench.declared(declare)))
    assert bench.wait(1000.0) == []
    bench.did(bench.machine.unblocked(bench.epoch, bench.now))
    assert asked(bench.due()) == [CONSUMING, PUBLISHING]


def test_an_alarm_ends_with_its_link() -> None:
    bench = silent()
    bench.did(bench.machine.blocked(bench.epoch, "low on memory", bench.now))
    bench.lose()
    bench.open()
    assert asked(bench.due()) == [CONSUMING, PUBLISHING]


def test_while_a_queue_is_added_the_deadline_for_that_holds_alone() -> None:
    bench = silent()
    bench.due()
    declare = only(Declare, bench.call(timeout=1000.0))
    assert bench.machine.deadline() == bench.now + bench.config.connect_timeout
    assert bench.wait(bench.config.connect_timeout - 0.1) == []
    bench.declared(only(Declare, bench.declared(declare)))
    assert bench.machine.deadline() == bench.now + INTERVAL
    assert asked(bench.due()) == [CONSUMING, PUBLISHING]


def test_a_publishing_channel_that_is_being_opened_is_not_asked() -> None:
    bench = silent()
    bench.due()
    bench.send()
    only(OpenChannel, closed(bench, REFUSAL))
    assert CONSUMING in asked(bench.due())
    alive(bench, CONSUMING)
    for _ in range(4):
        assert PUBLISHING not in asked(bench.due())
        alive(bench, CONSUMING)
    reopened(bench)
    assert PUBLISHING in asked(bench.wait(INTERVAL))


def test_an_alarm_that_ends_while_the_publishing_channel_is_being_opened_asks_only_the_other() -> None:
    bench = silent()
    bench.send()
    closed(bench, REFUSAL)
    bench.did(bench.machine.blocked(bench.epoch, "low on memory", bench.now))
    bench.did(bench.machine.unblocked(bench.epoch, bench.now))
    assert asked(bench.wait(INTERVAL)) == [CONSUMING]


def test_a_channel_for_logs_is_never_asked() -> None:
    bench = silent()
    closed(bench, REFUSAL, LOGGING)
    assert asked(bench.due()) == [CONSUMING, PUBLISHING]


# No circle of lost links


def test_the_time_for_an_answer_doubles_until_the_broker_answers() -> None:
    bench = silent(reconnect=config().reconnect)
    waited = []
    for _ in range(5):
        bench.due()
        began = bench.now
        assert of(Close, given_up(bench)) != []
        waited.append(bench.now - began)
        bench.open()
    assert waited == [8.0, 16.0, 32.0, 60.0, 60.0]
    bench.due()
    both_alive(bench)
    assert asked(bench.due()) == [CONSUMING, PUBLISHING], "the look at the answer came late"
    began = bench.now
    assert of(Close, given_up(bench)) != []
    assert bench.now - began == TIMEOUT


def test_an_answer_on_one_channel_does_not_shorten_the_time_of_the_other() -> None:
    bench = silent()
    waited = []
    for _ in range(3):
        bench.due()
        began = bench.now
        while bench.state is link.OPEN:
            alive(bench, CONSUMING)
            bench.due()
        waited.append(bench.now - began)
        bench.open()
    assert waited == [8.0, 16.0, 32.0]


# Settings


def test_an_interval_of_0_switches_it_off() -> None:
    bench = silent(probe_interval=0)
    assert bench.machine.deadline() is None
    assert bench.wait(1e6) == []


def test_the_defaults_find_a_dead_broker_in_less_than_10_seconds() -> None:
    default = type(config()).make(URLS[0], "svc")
    assert 0 < default.probe_interval + default.probe_timeout < 10


# A broker that answers, but confirms nothing


def answered(bench: Bench, channel: str = PUBLISHING) -> list[Effect]:
    """The broker answers what it was asked."""
    return bench.did(bench.machine.alive(bench.epoch, bench.now, channel=channel, answered=True))


def asked_and_answered(bench: Bench) -> list[Effect]:
    """Let time pass until the broker is asked, and let it answer. Returns the effects of the answer."""
    while not (channels := asked(bench.due())):
        pass
    assert PUBLISHING in channels
    answered(bench, CONSUMING)
    return answered(bench)


def test_a_broker_that_answers_but_confirms_nothing_is_left_for_the_next_one() -> None:
    """It may be in a part of its cluster that is cut off from most other nodes."""
    bench = publisher()
    publish, began = bench.send(ticket=1), bench.now
    assert asked_and_answered(bench) == []
    effects = asked_and_answered(bench)
    assert bench.now - began <= 10.0
    reason = f"the broker answers, but has confirmed no publish for {bench.now - began:.0f} s"
    assert only(Close, effects).reason == reason
    assert f"no link to {SHOWN[0]}: {reason}; trying {SHOWN[1]} in 0.0 s" in only(Report, effects).text
    (again,) = of(Publish, bench.open())
    assert (again.pid, bench.machine.urls[0]) == (publish.pid, URLS[1])
    assert only(PublishDone, bench.confirm(again)) == PublishDone(1)


def test_what_comes_by_a_delivery_comes_again() -> None:
    bench = silent()
    delivery = bench.take()
    bench.publish(within=delivery)
    assert len(of(Publish, bench.handled(delivery))) == 1
    asked_and_answered(bench)
    assert len(of(Close, asked_and_answered(bench))) == 1
    assert of(Publish, bench.open()) == []


@pytest.mark.parametrize("answer", ["confirm", "refusal", "no answer at all", "bytes only", "of another channel"])
def test_that_takes_two_answers_and_nothing_between_them(answer: str) -> None:
    bench = silent()
    first, second = bench.send(), bench.send()
    asked_and_answered(bench)
    for _ in range(1 if answer == "refusal" else 3):  # a broker that only refuses is left as well
        if answer == "confirm":
            bench.confirm(first)
            first, second = second, bench.send()
        elif answer == "refusal":
            bench.refuse(first)
        while not asked(bench.due()):
            pass
        if answer == "of another channel":
            assert answered(bench, CONSUMING) == []
        if answer in ("bytes only", "of another channel"):
            both_alive(bench)
        elif answer == "no answer at all":
            bench.due()
            both_alive(bench)
        else:
            alive(bench, CONSUMING)
            assert answered(bench) == []
    assert bench.state is link.OPEN


def test_an_answer_says_nothing_of_a_publish_that_was_sent_after_the_question() -> None:
    bench = silent()
    assert asked_and_answered(bench) == [], "nothing is sent"
    while not asked(bench.due()):
        pass
    bench.now += 0.1
    bench.send()
    alive(bench, CONSUMING)
    assert answered(bench) == []
    assert asked_and_answered(bench) == [], "now it has read the publish"
    assert len(of(Close, asked_and_answered(bench))) == 1


def test_during_an_alarm_and_after_it_the_time_does_not_count() -> None:
    bench = silent()
    bench.send()
    asked_and_answered(bench)
    bench.did(bench.machine.blocked(bench.epoch, "memory", bench.now))
    bench.now += 60.0
    assert answered(bench) == []
    bench.did(bench.machine.unblocked(bench.epoch, bench.now))
    assert asked_and_answered(bench) == []
    assert len(of(Close, asked_and_answered(bench))) == 1


@pytest.mark.parametrize("stops", [False, True])
def test_a_service_that_stops_takes_another_link_for_its_last_publishes(stops: bool) -> None:
    bench = silent(stop_timeout=60.0)
    bench.send(ticket=1)
    if stops:
        bench.stop()
    asked_and_answered(bench)
    assert len(of(Close, asked_and_answered(bench))) == 1
    (again,) = of(Publish, bench.open())
    assert only(PublishDone, bench.confirm(again)) == PublishDone(1)


def test_the_time_doubles_when_each_url_had_its_turn_and_a_confirm_ends_that() -> None:
    """A queue without a majority confirms on no link, and each new link costs the work in flight."""
    bench = publisher(confirm_timeout=120.0)
    publish = bench.send()
    lasted = []
    for _ in range(8):
        began = bench.now
        while not of(Close, asked_and_answered(bench)):
            assert bench.now - began < 120.0
        lasted.append(bench.now - began)
        (publish,) = of(Publish, bench.open())
    assert lasted[0] == lasted[1] <= 10.0
    assert all(later > earlier for earlier, later in pairwise(lasted[1:6]))
    assert lasted[-1] == lasted[-2] < 120.0
    bench.confirm(publish)
    bench.send()
    asked_and_answered(bench)
    assert len(of(Close, asked_and_answered(bench))) == 1


def test_an_answer_on_an_earlier_link_is_ignored() -> None:
    bench = silent()
    bench.send()
    asked_and_answered(bench)
    epoch = bench.epoch
    bench.lose()
    assert bench.machine.alive(epoch, bench.now + 60.0, channel=PUBLISHING, answered=True) == []
    bench.connect()
    assert answered(bench) == [], "the link is not open yet"
