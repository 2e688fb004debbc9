"""Services with very many names bind them on several channels at a time."""

from __future__ import annotations

from typing import Any

import pytest
from pamqp.commands import Basic, Queue

from eda_core.machine import link
from eda_core.machine.connection import CHANNELS, PORTION, SHARE
from eda_core.machine.effects import CONSUMING, Close, Connect, Declare, Effect, Ready, Report, Stopped
from eda_core.machine.policy import ReconnectPolicy
from tests.core.kit import SHOWN, URLS, Bench, kinds, of, only

MANY = CHANNELS * SHARE + 7


def names(count: int) -> list[str]:
    return [f"Event{number}" for number in range(count)]


def binding(count: int, **settings: Any) -> tuple[Bench, list[Declare]]:
    """A bench that has begun to bind so many names, with the first effects for that."""
    bench = Bench(events=names(count), commands=[], connect_timeout=12.0, **settings)
    bench.connect()
    effects = bench.declared(bench.link_up())
    declares = of(Declare, effects)
    assert declares == effects
    return bench, declares


def finish(bench: Bench, waiting: list[Declare], newest_first: bool = False) -> tuple[list[Declare], list[Effect]]:
    """Answer all. Returns all that was to be declared, and the effects of the last answer."""
    everything, waiting = [*waiting], [*waiting]
    effects: list[Effect] = []
    while waiting:
        assert not of(Ready, effects)
        effects = bench.declared(waiting.pop(-1 if newest_first else 0))
        waiting += of(Declare, effects)
        everything += of(Declare, effects)
        assert len(waiting) <= CHANNELS
    return everything, effects


def bound(declares: list[Declare]) -> list[str | None]:
    return [each.routing_key for declare in declares for each in declare.commands if isinstance(each, Queue.Bind)]


def lost_while_binding(reason: str, **settings: Any) -> tuple[Bench, list[Effect]]:
    bench, _ = binding(MANY, **settings)
    return bench, bench.lose(reason)


TOO_MANY = "NOT_ALLOWED - number of channels opened for user 'svc' has reached the maximum allowed limit of (6)"


@pytest.mark.parametrize("newest_first", [False, True])
def test_each_name_is_bound_once_and_then_the_link_opens(newest_first: bool) -> None:
    bench, waiting = binding(MANY)
    everything, effects = finish(bench, waiting, newest_first)
    assert sorted(map(str, bound(everything))) == sorted(names(MANY))
    assert only(Ready, effects) == Ready()
    assert bench.state is link.OPEN
    assert bench.machine.deadline() is None


def test_the_bindings_have_channels_of_their_own_and_the_prefetch_is_for_the_consumers() -> None:
    bench, waiting = binding(MANY)
    assert len(waiting) == CHANNELS
    everything, _ = finish(bench, waiting)
    (qos,) = [each for each in everything if each.channel == CONSUMING]
    assert [type(each) for each in qos.commands] == [Basic.Qos]
    others = [each for each in everything if each is not qos]
    assert len({each.channel for each in others}) == len(others)
    assert max(len(each.commands) for each in others) == SHARE


@pytest.mark.parametrize(
    ("count", "channels"), [(PORTION - 1, 1), (PORTION, CHANNELS + 1), (2 * PORTION, CHANNELS + 1)]
)
def test_a_few_names_need_no_further_channels(count: int, channels: int) -> None:
    bench, waiting = binding(count)
    everything, _ = finish(bench, waiting)
    assert len(everything) == channels
    assert bound(everything) == names(count)


def test_each_answer_gives_the_broker_the_whole_time_again() -> None:
    bench, waiting = binding(MANY)
    for number in range(CHANNELS):
        assert bench.wait(11.9) == []
        waiting += of(Declare, bench.declared(waiting[number]))
    assert bench.wait(11.9) == []
    effects = bench.due()
    assert kinds(effects) == ["Close", "Report"]
    assert "no link after 12 s" in only(Report, effects).text


@pytest.mark.parametrize(
    ("reason", "later"), [(TOO_MANY, 1), ("NoFreeChannels()", 1), ("cut", CHANNELS)], ids=["user", "connection", "cut"]
)
def test_after_a_link_that_was_lost_while_it_bound_one_channel_has_to_do(reason: str, later: int) -> None:
    """It may have been lost because of the many channels. If the reason says so, no later link has more either."""
    bench, _ = lost_while_binding(reason)
    for channels in (1, later):
        bench.connect()
        waiting = of(Declare, bench.declared(bench.link_up()))
        assert len(waiting) == channels
        everything, effects = finish(bench, waiting)
        assert sorted(map(str, bound(everything))) == sorted(names(MANY))
        assert max(len(each.commands) for each in everything) == (PORTION if channels == 1 else SHARE)
        assert only(Ready, effects) == Ready()
        bench.lose("channels may be closed")


def test_that_attempt_is_not_the_last_one() -> None:
    bench, effects = lost_while_binding("cut", reconnect=ReconnectPolicy(initial_attempts=1))
    assert kinds(effects) == ["Report"]
    bench.connect()
    assert only(Stopped, bench.lose("gone")).error == f"no link to {SHOWN[0]}: gone"


@pytest.mark.parametrize("lost", ["declaring", "with the bindings"])
def test_a_link_that_was_lost_at_another_time_says_nothing_of_channels(lost: str) -> None:
    bench = Bench(events=names(MANY), commands=[], urls=URLS)
    bench.connect()
    declare = bench.link_up()
    if lost == "with the bindings":
        finish(bench, of(Declare, bench.declared(declare)))
    assert only(Connect, [*bench.lose(), *bench.due()]).url == URLS[1]
    assert len(of(Declare, bench.declared(bench.link_up()))) == CHANNELS


def test_a_binding_that_the_broker_refuses_is_reported_with_its_reason() -> None:
    bench, waiting = binding(MANY)
    refused = waiting[3]
    reason = "ACCESS_REFUSED - no"
    effects = bench.did(
        bench.machine.channel_closed(
            bench.epoch, reason, bench.now, channel=refused.channel, declaration=refused.commands[0]
        )
    )
    assert kinds(effects) == ["Close", "Report"]
    assert f"channel closed: {reason}" in only(Report, effects).text
    assert bench.state is link.BACKOFF


def test_a_stop_binds_nothing_more() -> None:
    bench, waiting = binding(MANY)
    assert only(Close, bench.stop()).reason == "the service stops"
    assert [bench.declared(each) for each in waiting] == [[] for _ in waiting]


def test_a_late_answer_on_an_earlier_link_is_ignored() -> None:
    bench, waiting = binding(MANY)
    epoch = bench.epoch
    bench.lose()
    bench.connect()
    bench.link_up()
    before = bench.machine.stale
    assert bench.machine.declared(epoch, [], bench.now, channel=waiting[1].channel) == []
    assert bench.machine.stale == before + 1
