"""A node that gives nothing to do: whether it is still together with most others of its cluster."""

from __future__ import annotations

import pytest
from pamqp.commands import Queue

from eda_core.machine import link
from eda_core.machine.effects import CHECKING, CONSUMING, PUBLISHING, Close, Connect, Declare, Effect, Probe, Report
from eda_core.machine.outcomes import DONE
from tests.core.kit import SHOWN, URLS, Bench, kinds, of, only, opened

INTERVAL, TIMEOUT = 4.0, 8.0
#: The node is checked after this time without anything to do, and given up after so much more.
IDLE, PATIENCE = 2 * INTERVAL, 2 * TIMEOUT


def idle(**settings: object) -> Bench:
    """An open link of a service with two URLs, that has nothing to do."""
    return opened(**{"urls": [*URLS], "probe_interval": INTERVAL, "probe_timeout": TIMEOUT, **settings})


def ticked(bench: Bench) -> list[Effect]:
    """Wait for the next deadline. If the broker is asked for a sign of life, it answers."""
    effects = bench.due()
    for probe in of(Probe, effects):
        bench.did(bench.machine.alive(bench.epoch, bench.now, channel=probe.channel, answered=True))
    return effects


def until(bench: Bench, seconds: float) -> list[Effect]:
    """Let time pass, as far as there are deadlines in it. Returns the effects, those that ask for life aside."""
    end, effects = bench.now + seconds, list[Effect]()
    while (due := bench.machine.deadline()) is not None and due <= end:
        effects += [each for each in ticked(bench) if not isinstance(each, Probe)]
    bench.now = end
    return effects


def checks(effects: list[Effect]) -> list[Declare]:
    return [each for each in of(Declare, effects) if each.channel == CHECKING]


def test_a_node_that_gives_nothing_to_do_is_to_bind_a_queue_again() -> None:
    bench = idle()
    assert checks(until(bench, IDLE - 0.1)) == []
    [check] = checks(until(bench, 0.1))
    [bind] = check.commands
    assert isinstance(bind, Queue.Bind)
    assert (bind.queue, bind.exchange, bind.routing_key) == ("svc.events", "events", "Happened")


def test_a_node_that_does_so_keeps_its_link() -> None:
    bench = idle()
    for _ in range(5):
        [check] = checks(until(bench, IDLE))
        bench.now += 1.0
        assert bench.declared(check) == []
        assert checks(until(bench, IDLE - 0.1)) == []
        bench.now += 0.1
    assert bench.state is link.OPEN


def test_a_node_that_does_not_is_left_for_the_next_one() -> None:
    bench = idle()
    epoch = bench.epoch
    [_] = checks(until(bench, IDLE))
    assert until(bench, PATIENCE - 0.1) == []
    effects = ticked(bench)
    reason = "the broker has not answered a declaration for 16 s, and may be cut off from most others of its cluster"
    assert only(Close, effects) == Close(epoch, reason, unresponsive=True)
    assert f"no link to {SHOWN[0]}: {reason}; trying {SHOWN[1]} in 0.0 s" in only(Report, effects).text
    assert only(Connect, bench.due()).url == URLS[1]


def test_the_time_doubles_until_a_node_does_it() -> None:
    bench = idle()
    lasted = []
    for number in range(5):
        while not (asked := checks(ticked(bench))):
            pass
        began = bench.now
        if number == 3:
            bench.declared(*asked)
            continue
        while bench.state is link.OPEN:
            ticked(bench)
        lasted.append(bench.now - began)
        bench.open()
    assert lasted == [16.0, 32.0, 60.0, 16.0]


def test_while_there_is_something_to_do_it_is_not_checked() -> None:
    bench = idle()
    delivery = bench.take()
    assert checks(until(bench, 10 * IDLE)) == []
    bench.handled(delivery, DONE)
    assert checks(until(bench, IDLE / 2)) == []
    assert len(checks(until(bench, IDLE))) == 1


def test_a_delivery_is_a_sign_as_well() -> None:
    bench = idle()
    for _ in range(10):
        assert checks(until(bench, IDLE - 0.1)) == []
        bench.handled(bench.take())
    [_] = checks(until(bench, IDLE))
    bench.handled(bench.take())
    assert of(Close, until(bench, PATIENCE)) == []
    assert bench.state is link.OPEN


def test_a_service_that_stops_is_not_checked() -> None:
    bench = idle(stop_timeout=1000.0)
    bench.send()
    bench.stop()
    assert bench.state is link.DRAINING
    for _ in range(10):
        assert checks(ticked(bench)) == []


@pytest.mark.parametrize(
    "settings",
    [{"urls": URLS[0]}, {"probe_interval": 0.0}, {"events": [], "commands": []}],
    ids=["there is no other node", "nothing is to be asked", "it only publishes"],
)
def test_what_is_not_checked(settings: dict[str, object]) -> None:
    bench = idle(**settings)
    assert checks(until(bench, 10 * IDLE)) == []
    assert bench.state is link.OPEN


def test_during_an_alarm_and_while_a_queue_is_added_it_is_not_checked() -> None:
    bench = idle()
    bench.did(bench.machine.blocked(bench.epoch, "low on memory", bench.now))
    assert checks(until(bench, 10 * IDLE)) == []
    bench.did(bench.machine.unblocked(bench.epoch, bench.now))
    added = only(Declare, bench.call(timeout=1000.0))
    assert added.channel == CONSUMING
    assert checks(until(bench, bench.config.connect_timeout - 0.1)) == []
    bench.declared(only(Declare, bench.declared(added)))
    assert len(checks(until(bench, IDLE))) == 1


def test_an_answer_that_comes_while_a_queue_is_added_is_one() -> None:
    bench = idle()
    [check] = checks(until(bench, IDLE))
    added = only(Declare, bench.call(timeout=1000.0))
    assert bench.declared(check) == []
    bench.declared(only(Declare, bench.declared(added)))
    assert len(checks(until(bench, IDLE))) == 1


@pytest.mark.parametrize("ways", [("channel",), ("effect",), ("channel", "effect")], ids=" and ".join)
def test_a_refusal_is_an_answer_and_the_last_one(ways: tuple[str, ...]) -> None:
    """The user may not bind any more, or the queue is gone. The broker says so by closing the channel.

    A client library may raise that as well where the command waits for its reply.
    """
    bench = idle()
    [check] = checks(until(bench, IDLE))
    [bind] = check.commands
    refusal = "ACCESS_REFUSED - write access to queue 'svc.events' refused"
    if "channel" in ways:
        told = bench.machine.channel_closed(bench.epoch, refusal, bench.now, channel=CHECKING, declaration=bind)
        assert bench.did(told) == []
    if "effect" in ways:
        assert bench.did(bench.machine.effect_failed(check, refusal, bench.now)) == []
    assert checks(until(bench, 10 * IDLE)) == []
    assert bench.state is link.OPEN
    bench.lose()
    bench.open()
    assert len(checks(until(bench, IDLE))) == 1


def test_a_user_who_may_have_no_more_channels_is_not_checked_again() -> None:
    """RabbitMQ closes the connection for one channel too many."""
    bench = idle()
    limit = "NOT_ALLOWED - number of channels opened for user 'svc' has reached the maximum allowed limit of (3)"
    bench.lose(limit)
    bench.open()
    assert len(checks(until(bench, IDLE))) == 1, "it was not lost by a check"
    bench.lose(limit)
    bench.open()
    assert checks(until(bench, 10 * IDLE)) == []


def test_an_answer_of_an_earlier_link_is_none() -> None:
    bench = idle()
    [check] = checks(until(bench, IDLE))
    before = bench.epoch
    bench.lose()
    bench.open()
    assert kinds(bench.machine.declared(before, [Queue.BindOk()], bench.now, channel=CHECKING)) == []
    [check] = checks(until(bench, IDLE))
    assert check.epoch == bench.epoch
    assert bench.machine.alive(bench.epoch, bench.now, channel=PUBLISHING) == []
    assert of(Close, until(bench, PATIENCE)) != []
