"""The life of the link: connecting, losing it, waiting, and what each input does in each state."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pamqp.commands import Basic, Exchange, Queue

from eda_core.criticality import NOTICE, WARNING
from eda_core.errors import LocalError, StateError
from eda_core.machine import link
from eda_core.machine.effects import (
    CONSUMING,
    CREDENTIALS,
    PUBLISHING,
    VHOST,
    Close,
    Connect,
    Consume,
    Declare,
    Probe,
    Publish,
    Ready,
    Report,
    Stopped,
)
from eda_core.machine.identifiers import Epoch
from eda_core.machine.machine import Machine
from eda_core.machine.policy import ReconnectPolicy
from tests.core.kit import SHOWN, URLS, WALL, Bench, config, forget_stale, kinds, of, only, opened, replies, snapshot
from tests.core.machine.states import REACH, backing_off, connecting, every_state


@every_state
def test_each_state_can_be_brought_about(state: str) -> None:
    assert REACH[state]().state is state


# Opening


def test_the_way_to_an_open_link() -> None:
    bench = Bench()
    connect = bench.connect()
    assert (connect.epoch, connect.url, connect.name, connect.heartbeat) == (1, URLS[0], "svc@box:7", 20)
    declare = bench.link_up()
    assert {type(command) for command in declare.commands} == {Exchange.Declare, Queue.Declare}
    bind = only(Declare, bench.declared(declare))
    assert {type(command) for command in bind.commands} == {Queue.Bind, Basic.Qos}
    last = bench.declared(bind)
    assert of(Consume, last) == [
        Consume(bench.epoch, "svc.events", "events"),
        Consume(bench.epoch, "svc.commands", "commands"),
    ]
    assert kinds(last) == ["Consume", "Consume", "Ready"]
    assert bench.machine.deadline() is None


def test_replies_that_name_no_queues_are_no_link() -> None:
    bench = connecting()
    bench.link_up()
    effects = bench.did(bench.machine.declared(bench.epoch, [Exchange.DeclareOk()], bench.now))
    assert kinds(effects) == ["Close", "Report"]
    assert "the broker did not name the queues it declared" in only(Report, effects).text
    assert bench.state is link.BACKOFF


@every_state
@pytest.mark.parametrize("signal", [link.START, link.LINK_UP, link.DECLARED])
def test_a_wrong_local_report_is_refused_and_changes_nothing(state: str, signal: str) -> None:
    """Rule R1, for every cell of the table that says so."""
    bench = REACH[state]()
    machine, epoch = bench.machine, bench.epoch
    calls = {
        link.START: lambda: machine.start(bench.now),
        link.LINK_UP: lambda: machine.link_up(epoch, bench.now),
        link.DECLARED: lambda: machine.declared(epoch, replies(Declare(epoch, ())), bench.now),
    }
    before = snapshot(machine)
    adding = state in link.SERVING and signal is link.DECLARED  # no queue is added
    if adding or link.TABLE[state][signal] is link.ILLEGAL:
        with pytest.raises(StateError):
            calls[signal]()
        assert snapshot(machine) == before
    elif link.TABLE[state][signal] is link.IGNORE:
        assert calls[signal]() == []
        assert snapshot(machine) == before
    else:
        assert bench.did(calls[signal]()) != []
        assert machine.state is not state


def test_a_lost_link_before_the_start_is_refused_and_changes_nothing() -> None:
    bench = Bench(urls=[*URLS])
    before = snapshot(bench.machine)
    with pytest.raises(StateError):
        bench.lose(refused=CREDENTIALS)
    assert snapshot(bench.machine) == before


def test_a_loss_reported_while_there_is_no_link_is_ignored() -> None:
    bench = backing_off()
    before = snapshot(bench.machine)
    assert bench.lose() == []
    assert bench.machine.stale == 1
    forget_stale(bench.machine)
    assert snapshot(bench.machine) == before


# Trying again


def test_a_url_that_did_not_answer_is_tried_after_the_others() -> None:
    """Each attempt at a host that hangs costs the time-out of a connect."""
    urls = tuple(f"amqp://{name}/" for name in ("hangs", "good", "other"))
    bench = Bench(urls=urls)

    def attempt(opens: bool) -> str:
        url = bench.connect().url
        if opens:
            bench.declared(only(Declare, bench.declared(bench.link_up())))
            assert bench.machine.urls[0] == url
        bench.lose()
        return url

    assert [attempt(opens) for opens in (False, True, True, True)] == [urls[0], urls[1], urls[2], urls[1]]
    down = [attempt(False) for _ in range(5)]
    assert down == [urls[2], urls[1], urls[2], urls[0], urls[1]], "when none answers they are tried in turn"


def test_urls_are_tried_in_turn_at_once_and_then_after_a_delay() -> None:
    bench = Bench(urls=[*URLS])
    tried = [bench.connect().url]
    delays = []
    for _ in range(4):
        bench.lose()
        deadline = bench.machine.deadline()
        assert deadline is not None
        delays.append(deadline - bench.now)
        tried.append(bench.connect().url)
    assert tried == [URLS[0], URLS[1], URLS[0], URLS[1], URLS[0]]
    assert delays == pytest.approx([0.0, 0.5, 0.0, 1.0])


def test_delays_grow_to_a_cap_and_are_drawn_evenly_below_it() -> None:
    bench = Bench(jitter=1.0, reconnect=ReconnectPolicy(base=1.0, cap=6.0))
    ceilings = []
    for _ in range(5):
        bench.connect()
        bench.lose()
        ceilings.append((bench.machine.deadline() or 0.0) - bench.now)
    assert ceilings == pytest.approx([1.0, 2.0, 4.0, 6.0, 6.0])
    bench.jitter = 0.25
    bench.connect()
    bench.lose()
    assert (bench.machine.deadline() or 0.0) - bench.now == pytest.approx(1.5)


@pytest.mark.parametrize(("lasted", "delay"), [(9.9, 4.0), (10.0, 1.0)])
def test_a_link_that_lasted_clears_the_count_of_failures(lasted: float, delay: float) -> None:
    bench = Bench(jitter=1.0)
    for _ in range(2):
        bench.connect()
        bench.lose()
    bench.open()
    bench.now += lasted
    bench.lose()
    assert (bench.machine.deadline() or 0.0) - bench.now == pytest.approx(delay)


@pytest.mark.parametrize("progress", ["nothing", "handled", "confirmed"])
def test_progress_on_a_link_clears_the_count_of_failures(progress: str) -> None:
    """A service that makes progress must not wait longer and longer, even if each link is short."""
    bench = Bench(jitter=1.0)
    for attempt in range(5):
        bench.open()
        bench.now += 0.1
        if progress == "handled":
            bench.handled(bench.take())
        elif progress == "confirmed":
            bench.confirm(bench.send())
        bench.lose()
        delay = (bench.machine.deadline() or 0.0) - bench.now
        assert delay == pytest.approx(min(10.0, 2.0**attempt) if progress == "nothing" else 1.0)


def test_a_first_link_that_cannot_be_opened_may_end_the_service() -> None:
    bench = Bench(urls=[*URLS], reconnect=ReconnectPolicy(initial_attempts=2))
    bench.connect()
    assert kinds(bench.lose("no")) == ["Report"]
    bench.connect()
    assert bench.lose("no again") == [Stopped(f"no link to {SHOWN[1]}: no again")]
    assert bench.state is link.STOPPED


@pytest.mark.parametrize("steps", [0, 1])
def test_so_may_one_whose_queues_are_refused(steps: int) -> None:
    bench = Bench(reconnect=ReconnectPolicy(initial_attempts=1))
    bench.connect()
    declare = bench.link_up()
    for _ in range(steps):
        declare = only(Declare, bench.declared(declare))
    effects = bench.did(bench.machine.channel_closed(bench.epoch, "406 PRECONDITION_FAILED", bench.now))
    assert kinds(effects) == ["Close", "Stopped"]
    assert only(Stopped, effects).error == f"no link to {SHOWN[0]}: channel closed: 406 PRECONDITION_FAILED"


def test_after_the_first_link_every_loss_is_mended() -> None:
    bench = Bench(reconnect=ReconnectPolicy(initial_attempts=1))
    bench.open()
    for _ in range(3):
        assert kinds(bench.lose()) == ["Report"]
        bench.connect()


@pytest.mark.parametrize("attempts", [0, -1, True, 1.0, "1"])
def test_initial_attempts_are_a_number_of_them(attempts: Any) -> None:
    with pytest.raises(LocalError, match="give initial_attempts as a whole number from 1, or None"):
        ReconnectPolicy(initial_attempts=attempts)


def test_the_local_log_says_what_was_lost_and_what_comes_next_without_passwords() -> None:
    bench = Bench(urls=[*URLS])
    bench.connect()
    report = only(Report, bench.lose(f"refused by {URLS[0]}"))
    assert report == Report(
        WARNING,
        f"no link to {SHOWN[0]}: refused by {SHOWN[0]}; trying {SHOWN[1]} in 0.0 s",
    )


def test_each_attempt_has_an_epoch_of_its_own() -> None:
    bench = Bench()
    epochs = []
    for _ in range(3):
        epochs.append(bench.connect().epoch)
        bench.lose()
    assert epochs == [1, 2, 3]


@pytest.mark.parametrize("state", [link.CONNECTING, link.DECLARING, link.BINDING])
def test_connecting_has_a_deadline(state: str) -> None:
    bench = REACH[state](connect_timeout=12.0)
    assert bench.machine.deadline() == pytest.approx(112.0)
    assert bench.wait(11.9) == []
    effects = bench.wait(0.1)
    assert kinds(effects) == ["Close", "Report"]
    assert only(Close, effects).epoch == 1
    assert "no link after 12 s" in only(Report, effects).text
    assert bench.state is link.BACKOFF


def test_a_link_that_comes_up_after_it_was_given_up_is_ignored() -> None:
    """Its Close is on the way, so the machine would soon lose it."""
    bench = connecting()
    late = bench.epoch
    bench.due()
    before = bench.machine.stale
    assert bench.machine.link_up(late, bench.now) == []
    assert (bench.state, bench.machine.stale) == (link.BACKOFF, before + 1)
    bench.connect()
    assert bench.machine.link_up(late, bench.now) == []
    assert bench.state is link.CONNECTING


REPORTS: dict[str, Callable[[Machine, Epoch, float], object]] = {
    "link_up": lambda machine, epoch, now: machine.link_up(epoch, now),
    "declared": lambda machine, epoch, now: machine.declared(epoch, [], now),
    "link_down": lambda machine, epoch, now: machine.link_down(epoch, "late", now, refused=CREDENTIALS),
    "channel_closed": lambda machine, epoch, now: machine.channel_closed(epoch, "late", now),
    "consumer_cancelled": lambda machine, epoch, now: machine.consumer_cancelled(epoch, "events", now),
    "blocked": lambda machine, epoch, now: machine.blocked(epoch, "late", now),
    "unblocked": lambda machine, epoch, now: machine.unblocked(epoch, now),
    "confirmed": lambda machine, epoch, now: machine.confirmed(epoch, 1, now),
    "refused": lambda machine, epoch, now: machine.refused(epoch, 1, now),
    "returned": lambda machine, epoch, now: machine.returned(epoch, "events", "T", Basic.Properties(), b"", "no", now),
    "delivered": lambda machine, epoch, now: machine.delivered(
        epoch, 9, False, "events", "T", Basic.Properties(), b"", now
    ),
}


@every_state
@pytest.mark.parametrize("report", REPORTS)
@pytest.mark.parametrize("distance", [-1, 1])
def test_reports_about_other_links_are_counted_and_change_nothing(state: str, report: str, distance: int) -> None:
    """Rule R4. Epochs later than the present one are ignored, too."""
    bench = REACH[state]()
    machine = bench.machine
    counted = machine.stale
    forget_stale(machine)
    before = snapshot(machine)
    assert REPORTS[report](machine, Epoch(machine.epoch + distance), bench.now) == []
    assert machine.stale == 1
    forget_stale(machine)
    assert snapshot(machine) == before
    assert counted >= 0


# Credentials


def test_credentials_refused_on_every_url_stop_the_service_with_a_clear_error() -> None:
    bench = Bench(urls=[*URLS])
    bench.connect()
    bench.lose(f"ACCESS_REFUSED for {URLS[0]}", refused=CREDENTIALS)
    bench.connect()
    effects = bench.lose(f"ACCESS_REFUSED for {URLS[1]}", refused=CREDENTIALS)
    error = only(Stopped, effects).error
    reasons = f"{SHOWN[0]}: ACCESS_REFUSED for {SHOWN[0]}; {SHOWN[1]}: ACCESS_REFUSED for {SHOWN[1]}"
    assert error == f"the broker refuses the credentials or the vhost on every URL: {reasons}"
    assert bench.state is link.STOPPED
    assert bench.machine.deadline() is None
    assert "secret" not in "".join(map(repr, bench.seen))


def test_credentials_refused_on_one_of_two_urls_are_tried_again() -> None:
    bench = Bench(urls=[*URLS])
    for _ in range(3):
        assert bench.connect().url == URLS[0]
        assert of(Stopped, bench.lose(refused=CREDENTIALS)) == []
        assert bench.connect().url == URLS[1]
        assert of(Stopped, bench.lose("no route")) == []


def test_only_refusals_without_a_change_in_between_count() -> None:
    """The first broker refused once and was then unreachable, so it may accept the credentials now."""
    bench = Bench(urls=[*URLS])
    for refused in (CREDENTIALS, "", "", CREDENTIALS):
        bench.connect()
        assert of(Stopped, bench.lose(refused=refused)) == []
    bench.connect()
    assert only(Stopped, bench.lose(refused=CREDENTIALS)).error is not None


def test_a_link_that_opened_forgets_refusals() -> None:
    bench = Bench(urls=[*URLS])
    bench.connect()
    bench.lose(refused=CREDENTIALS)
    bench.open()
    bench.lose(refused=CREDENTIALS)
    assert bench.state is link.BACKOFF


def test_a_vhost_that_every_url_refuses_stops_a_service_that_has_not_used_it() -> None:
    bench = Bench(urls=[*URLS])
    bench.connect()
    assert of(Stopped, bench.lose("vhost not found", refused=VHOST)) == []
    bench.connect()
    stopped = only(Stopped, bench.lose("vhost not found", refused=VHOST))
    assert (stopped.error or "").count(": vhost not found") == 2


def test_a_vhost_that_the_service_has_used_may_be_given_back() -> None:
    bench = Bench()
    bench.open()
    bench.lose("permissions have changed")
    for _ in range(5):
        bench.connect()
        assert of(Stopped, bench.lose("vhost refused", refused=VHOST)) == []
    bench.open()
    assert bench.state is link.OPEN


def test_credentials_that_are_no_longer_good_stop_the_service() -> None:
    bench = Bench()
    bench.open()
    bench.lose("permissions have changed")
    bench.connect()
    assert only(Stopped, bench.lose(refused=CREDENTIALS)).error is not None


# Losing an open link


@pytest.mark.parametrize("state", [link.CONNECTING, link.DECLARING, link.BINDING, link.OPEN, link.DRAINING])
def test_a_closed_channel_or_cancelled_consumer_gives_the_link_up(state: str) -> None:
    bench = REACH[state]()
    effects = bench.machine.channel_closed(bench.epoch, f"404 {URLS[0]}", bench.now)
    assert effects[0] == Close(Epoch(1), f"channel closed: 404 {SHOWN[0]}")
    assert bench.state is link.BACKOFF

    bench = REACH[state]()
    effects = bench.machine.consumer_cancelled(bench.epoch, "events", bench.now)
    assert effects[0] == Close(Epoch(1), "the broker cancelled the consumer of events")
    assert bench.state is link.BACKOFF


@pytest.mark.parametrize("state", [link.CLOSING, link.STOPPED])
def test_when_it_is_over_nobody_minds_a_closed_channel(state: str) -> None:
    bench = REACH[state]()
    assert bench.machine.channel_closed(bench.epoch, "404", bench.now) == []
    assert bench.machine.consumer_cancelled(bench.epoch, "events", bench.now) == []
    assert bench.state is state


# Blocked


def test_publishing_pauses_while_the_broker_is_blocked() -> None:
    bench = opened()
    assert only(Report, bench.machine.blocked(bench.epoch, "low on disk", bench.now)) == Report(
        WARNING, "the broker blocks publishing: low on disk"
    )
    assert bench.publish() == []
    effects = bench.machine.unblocked(bench.epoch, bench.now)
    assert kinds(effects) == ["Report", "Publish"]
    assert only(Report, effects) == Report(NOTICE, "the broker takes publishes again")
    assert bench.machine.unblocked(bench.epoch, bench.now) == []


def test_an_alarm_that_lasts_too_long_leads_to_another_broker() -> None:
    bench = opened(urls=[*URLS], blocked_timeout=60.0)
    bench.machine.blocked(bench.epoch, "low on disk", bench.now)
    bench.now += 30.0
    bench.machine.blocked(bench.epoch, "low on memory", bench.now)  # the alarm goes on, and its deadline stays
    assert bench.machine.deadline() == pytest.approx(bench.now + 30.0)
    assert bench.wait(29.9) == []
    effects = bench.due()
    assert kinds(effects) == ["Close", "Report"]
    assert "the broker has blocked publishing for 60 s" in only(Report, effects).text
    assert bench.connect().url == URLS[1]


@pytest.mark.parametrize("state", [link.IDLE, link.BACKOFF, link.CLOSING, link.STOPPED])
def test_without_a_link_nothing_is_blocked(state: str) -> None:
    bench = REACH[state]()
    before = snapshot(bench.machine)
    assert bench.machine.blocked(bench.epoch, "low on disk", bench.now) == []
    assert bench.machine.unblocked(bench.epoch, bench.now) == []
    assert snapshot(bench.machine) == before


@pytest.mark.parametrize("state", [link.CONNECTING, link.DECLARING, link.BINDING])
def test_a_link_may_be_blocked_before_it_is_open(state: str) -> None:
    bench = REACH[state]()
    bench.publish()
    assert kinds(bench.machine.blocked(bench.epoch, "low on disk", bench.now)) == ["Report"]
    if state is link.CONNECTING:
        bench.did(bench.machine.link_up(bench.epoch, bench.now))
    while bench.state is not link.OPEN:
        bench.declared(of(Declare, bench.seen)[-1])
    assert of(Publish, bench.seen) == []
    assert of(Publish, bench.machine.unblocked(bench.epoch, bench.now))


def test_a_new_link_is_not_blocked() -> None:
    bench = opened()
    bench.machine.blocked(bench.epoch, "low on disk", bench.now)
    bench.lose()
    bench.open()
    assert of(Publish, bench.publish())


# Rule R7


@every_state
@given(early=st.lists(st.floats(0, 1), max_size=5), fields=st.sampled_from(["", "stop", "blocked"]))
def test_early_ticks_are_no_ops(state: str, early: list[float], fields: str) -> None:
    bench = REACH[state]()
    if fields == "stop" and state not in (link.IDLE, link.BACKOFF):
        bench.stop()
    elif fields == "blocked":
        bench.machine.blocked(bench.epoch, "low on disk", bench.now)
    machine = bench.machine
    deadline = machine.deadline()
    before = snapshot(machine)
    span = 1e6 if deadline is None else deadline - bench.now
    for part in early:
        now = bench.now + span * part * 0.999
        assert machine.tick(now) == []
        assert machine.deadline() == deadline
    assert snapshot(machine) == before


@every_state
def test_a_tick_at_the_deadline_is_done_once(state: str) -> None:
    """With jitter 1 no delay is 0, so a second tick at the same time must do nothing."""
    bench = REACH[state](jitter=1.0)
    deadline = bench.machine.deadline()
    if deadline is None:
        assert state in (link.IDLE, link.OPEN, link.STOPPED)
        return
    assert bench.machine.tick(deadline) != []
    before = snapshot(bench.machine)
    assert bench.machine.tick(deadline) == []
    assert snapshot(bench.machine) == before
    following = bench.machine.deadline()
    assert following is None or following > deadline


def test_a_late_tick_does_what_is_due() -> None:
    bench = backing_off()
    assert kinds(bench.wait(1e6)) == ["Connect"]


def test_random_numbers_are_drawn_only_for_delays() -> None:
    drawn: list[float] = []

    def random() -> float:
        drawn.append(0.5)
        return 0.5

    machine = Machine(config(), random=random, token="tok", wall_offset=WALL)
    machine.start(0.0)
    assert drawn == []
    machine.link_down(machine.epoch, "cut", 1.0)
    assert drawn == [0.5]


def test_ready_once_for_each_link() -> None:
    bench = Bench()
    for count in (1, 2, 3):
        bench.open()
        assert len(of(Ready, bench.seen)) == count
        bench.lose()
    assert len(of(Connect, bench.seen)) == 3


def test_payloads_are_json_from_when_that_is_asked_for() -> None:
    bench = opened()
    assert only(Publish, bench.publish()).properties.content_type == "application/cbor"
    assert bench.machine.use_json(bench.now) == []
    publish = only(Publish, bench.publish())
    assert (publish.properties.content_type, publish.body) == ("application/json", b'{"n": 1}')


def test_a_declaration_that_the_broker_refuses_is_learned_from() -> None:
    bench = Bench()
    bench.connect()
    queue = next(each for each in bench.link_up().commands if isinstance(each, Queue.Declare))
    for reason, reports in (("PRECONDITION_FAILED - inequivalent arg", 2), ("NOT_FOUND - no exchange", 1)):
        effects = bench.machine.channel_closed(bench.epoch, reason, bench.now, declaration=queue)
        assert len(of(Report, effects)) == reports
        bench.connect()
        bench.link_up()


# Silence


def test_a_broker_that_has_said_nothing_for_a_while_is_asked_on_both_channels() -> None:
    bench = opened(probe_interval=10.0, probe_timeout=8.0)
    assert [each.channel for each in of(Probe, bench.wait(10.0))] == [CONSUMING, PUBLISHING]
    assert bench.state is link.OPEN


def test_a_broker_that_does_not_answer_loses_its_link() -> None:
    bench = opened(probe_interval=10.0, probe_timeout=8.0)
    bench.wait(10.0)
    closes: list[Close] = []
    while not closes:
        closes = of(Close, bench.due())
        assert bench.now <= 118.0
    assert closes[0].reason == "the broker has not answered for 18 s"
    assert bench.state is link.BACKOFF


def test_the_connection_knows_since_when_there_is_a_link_or_none() -> None:
    bench = Bench()
    connection = bench.machine._connection
    bench.connect()
    assert connection.since is None
    bench.now = 200.0
    bench.declared(only(Declare, bench.declared(bench.link_up())))
    bench.now = 300.0
    assert connection.since == 200.0
    bench.lose()
    bench.now = 301.0
    assert connection.since == 300.0
