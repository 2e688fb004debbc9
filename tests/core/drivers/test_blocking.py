"""The blocking driver: what happens while a caller waits, in virtual time."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from eda_core.drivers.blocking import BlockingDriver
from eda_core.drivers.publish_call import NotConfirmed, PublishCall, PublishLimits, Unroutable
from eda_core.errors import LocalError, PayloadError
from eda_core.machine.effects import Close, Connect, Declare, Effect, Publish, PublishLog, Returned
from eda_core.machine.identifiers import DeliveryId, Epoch
from eda_core.machine.link import IDLE
from eda_core.machine.machine import Machine
from eda_core.machine.policy import ReconnectPolicy
from eda_core.messages.values import Event
from tests.core.drivers.traces import Traces
from tests.core.kit import WALL, config

ALWAYS = PublishLimits()


class Caller(BlockingDriver):
    """Its broker answers when the caller pauses, a second later; its clock goes when nothing else does.

    Attributes:
        attempts: how many links were asked for.
        up: whether there is somebody to connect to.
        hiccup: seconds that the process does not run after an attempt in vain.
        answers: what the broker makes of a publish; by default it confirms.
        sent: what it was sent, in order.
        pauses: how long the caller would have waited each time.
    """

    def __init__(self, **settings: Any) -> None:
        self.clock = 1000.0
        fields = {
            "events": (),
            "commands": (),
            "window": 4,
            "buffer": 4,
            "reconnect": ReconnectPolicy(base=1.0, cap=1.0),
        } | settings
        super().__init__(Machine(config(**fields), random=lambda: 0.5, token="tok", wall_offset=WALL), deque())
        self.attempts = 0
        self.up = True
        self.hiccup = 0.0
        self.answers: Callable[[Publish], None] = self.confirm
        self.sent: list[Publish] = []
        self.coming: deque[Callable[[], None]] = deque()
        self.aborts = self.looks = 0
        self.closed: list[bool] = []
        self.pauses: list[float] = []

    def confirm(self, publish: Publish) -> None:
        self.tell(self.machine.confirmed, publish.epoch, publish.tag)

    def give_back(self, publish: Publish) -> None:
        """No queue is bound for it."""
        arguments = (publish.exchange, publish.routing_key, publish.properties, publish.body, "NO_ROUTE")
        self.tell(self.machine.returned, publish.epoch, *arguments)

    def lose(self, publish: Publish) -> None:
        self.publish_call.link_failed("cut")
        self.tell(self.machine.link_down, publish.epoch, "cut")

    def perform(self, effect: Effect) -> None:
        if isinstance(effect, Declare):
            self.tell(self.machine.declared, effect.epoch, [])
        elif isinstance(effect, Publish):
            self.sent.append(effect)
            self.coming.append(lambda: self.answers(effect))
        elif isinstance(effect, Close):
            self.closed.append(self.graceful)
            self.tell(self.machine.link_down, effect.epoch, "closed")

    def now(self) -> float:
        return self.clock

    def open(self, effect: Connect) -> Caller:
        self.attempts += 1
        assert self.attempts < 100, "it goes on and on"
        self.coming.clear()
        if self.up:
            self.tell(self.machine.link_up, effect.epoch)
        else:
            self.publish_call.link_failed("nobody there")
            self.tell(self.machine.link_down, effect.epoch, "nobody there")
            self.clock += self.hiccup
        return self

    def pause(self, seconds: float) -> None:
        self.pauses.append(seconds)
        if self.coming:
            self.coming.popleft()()
        else:
            self.clock += max(seconds, 0.0)

    def sleep(self, seconds: float) -> None:
        self.clock += seconds

    def look(self) -> None:
        self.looks += 1

    def abort(self) -> None:
        self.aborts += 1

    def report(self, level: int, text: str, event: str) -> None:
        """Nobody reads it."""


def events(*payloads: Any) -> Iterator[Event]:
    for payload in payloads:
        yield Event("Happened", payload, "c")


def test_it_returns_when_all_are_confirmed() -> None:
    caller = Caller()
    call = caller.publish(events(*range(10)), False, ALWAYS)
    assert (call.taken, call.unconfirmed, call.failed) == (10, {}, {})
    assert [publish.ticket for publish in caller.sent] == list(range(10))
    assert caller.publish([], False, ALWAYS).taken == 0
    assert caller.attempts == 1


def test_the_id_of_a_message_is_known_if_there_is_a_trace_of_it() -> None:
    caller = Caller()
    assert caller.publish(events(1), False, ALWAYS).message_id == ""
    caller.tracing = Traces()
    assert caller.publish(events(1), False, ALWAYS).message_id == caller.sent[-1].properties.message_id == "tok-2"
    assert caller.publish([Event("", 1, "c")], False, ALWAYS).message_id == "", "it cannot be sent"


def test_it_takes_all_whatever_the_broker_answers_meanwhile() -> None:
    """Refusals, lost links and confirms of several at once end no call: only a failure and the iterable do."""
    caller, seen = Caller(), 0

    def answer(publish: Publish) -> None:
        nonlocal seen
        seen += 1
        if seen in (3, 17):
            caller.tell(caller.machine.refused, publish.epoch, publish.tag)
        elif seen == 11:
            caller.tell(caller.machine.link_down, publish.epoch, "cut")
        elif seen % 3 == 0:
            caller.tell(caller.machine.confirmed, publish.epoch, publish.tag, multiple=True)
        else:
            caller.confirm(publish)

    caller.answers = answer
    source = events(*range(100))
    call = caller.publish(source, False, ALWAYS)
    assert (call.taken, call.unconfirmed, call.failed) == (100, {}, {})
    assert next(source, None) is None, "it stopped early"
    assert {publish.ticket for publish in caller.sent} == set(range(100))


def test_no_more_than_the_window_is_taken_ahead() -> None:
    caller, ahead = Caller(), []

    def counted() -> Iterator[Event]:
        for number in range(12):
            ahead.append(len(caller.publish_call.unconfirmed))
            yield Event("Happened", number, "c")

    caller.publish(counted(), False, ALWAYS)
    assert max(ahead) == 3, "with the one that is taken now, four"
    assert ahead.count(2) > 1, "half of it is confirmed before more are taken"


def test_nothing_is_connected_for_a_message_that_cannot_be_sent() -> None:
    caller = Caller()
    call = caller.publish(events(object()), False, ALWAYS)
    assert isinstance(call.failed[0], PayloadError)
    assert caller.attempts == 0
    assert caller.machine.state is IDLE


def test_what_the_iterable_raises_has_its_place_and_ends_it() -> None:
    def broken() -> Iterator[Event]:
        yield Event("Happened", 1, "c")
        raise LocalError("no more")

    call = Caller().publish(broken(), False, ALWAYS)
    assert (call.taken, list(call.failed), call.unconfirmed) == (2, [1], {})


def test_it_waits_for_a_broker_that_comes_back() -> None:
    caller = Caller()
    caller.up = False

    def answered(publish: Publish) -> None:
        caller.confirm(publish)

    caller.answers = answered
    before = caller.pause

    def pause(seconds: float) -> None:
        caller.up = caller.attempts >= 4
        before(seconds)

    caller.pause = pause  # type: ignore[method-assign]
    call = caller.publish(events(1), False, ALWAYS)
    assert (call.failed, caller.attempts) == ({}, 5)
    assert 0 < max(caller.pauses) <= 0.5, "it looks up in between"


def test_a_lost_link_loses_nothing() -> None:
    caller = Caller()
    fates = iter([caller.confirm, caller.lose])
    caller.answers = lambda publish: next(fates, caller.confirm)(publish)
    call = caller.publish(events(1, 2, 3), False, ALWAYS)
    assert (call.taken, call.failed, caller.attempts) == (3, {}, 2)


@pytest.mark.parametrize("ends", [StopIteration, KeyError], ids=["no more", "an error"])
def test_the_time_that_the_iterable_takes_is_not_the_brokers(ends: type[Exception]) -> None:
    caller = Caller()

    def slow() -> Iterator[Event]:
        for number in range(3):
            yield Event("Happened", number, "c")
            caller.clock += 100.0
        if ends is KeyError:
            raise KeyError("no more")

    call = caller.publish(slow(), False, PublishLimits(timeout=3.0))
    assert ([type(error) for error in call.failed.values()], len(caller.sent)) == ([ends] * (ends is KeyError), 3)


def test_what_came_while_the_iterable_took_its_time_is_seen_before_more_is_sent() -> None:
    """A link that was lost then has nothing on it that would have to be sent again."""
    caller, attempts = Caller(), []

    def slow() -> Iterator[Event]:
        yield Event("Happened", 1, "c")
        yield Event("Happened", 2, "c")
        caller.clock += 100.0
        caller.coming.append(lambda: caller.lose(caller.sent[-1]))
        yield Event("Happened", 3, "c")
        caller.clock += 100.0
        yield Event("Happened", 4, "c")
        attempts.append(caller.attempts)

    call = caller.publish(slow(), False, ALWAYS)
    assert (call.taken, call.failed) == (4, {})
    assert [publish.ticket for publish in caller.sent] == [0, 1, 2, 3], "none twice"
    assert attempts == [2], "the iterable has not ended, and there is a link again"


def test_there_is_a_look_at_hope_while_a_slow_iterable_goes_on() -> None:
    caller = Caller(window=100, buffer=100)
    caller.answers = lambda publish: None
    taken = []

    def slow() -> Iterator[Event]:
        for number in range(50):
            taken.append(number)
            caller.aborted = number == 7
            caller.clock += 1.0
            yield Event("Happened", number, "c")

    call = caller.publish(slow(), False, ALWAYS)
    assert (len(taken), list(call.failed), caller.over) == (8, list(range(8)), True)


def test_a_link_lost_since_the_last_call_is_not_this_ones_failure() -> None:
    caller = Caller()
    caller.publish(events(1), False, ALWAYS)
    caller.clock += 100.0
    caller.coming.append(lambda: caller.lose(caller.sent[-1]))
    assert caller.publish(events(2), False, PublishLimits(max_retries=0)).failed == {}
    assert (caller.attempts, len(caller.sent)) == (2, 2)


def test_when_hope_is_lost_everything_is_dropped() -> None:
    caller = Caller()
    caller.answers = lambda publish: None
    call = caller.publish(events(1, 2), False, PublishLimits(timeout=3.0))
    assert caller.clock == 1003.0
    assert call.unconfirmed == {}
    for error in call.failed.values():
        assert isinstance(error, NotConfirmed)
        assert error.may_arrive
    assert caller.over
    assert (caller.aborts, caller.closed) == (1, [False])


def test_retries_are_counted_on_a_machine_that_is_slow() -> None:
    """The next attempt is due when the caller gets to look at the last one; first it looks whether it was the last."""
    caller = Caller()
    caller.up, caller.hiccup = False, 100.0
    call = caller.publish(events(1), False, PublishLimits(max_retries=2))
    assert isinstance(call.failed[0], NotConfirmed)
    assert caller.attempts == 3


def test_retries_end_while_there_is_no_link() -> None:
    caller = Caller()
    caller.up = False
    call = caller.publish(events(1), False, PublishLimits(max_retries=2))
    assert caller.attempts == 3
    assert str(call.failed[0]).startswith("given up after 2 retries (nobody there); it was never sent")


def test_a_link_that_opens_begins_the_count_of_attempts_anew() -> None:
    caller = Caller()
    fates = iter([caller.lose] * 3)
    caller.answers = lambda publish: next(fates, caller.confirm)(publish)
    assert caller.publish(events(1), False, PublishLimits(connection_max_retries=1)).failed == {}
    assert caller.attempts == 4


def test_a_call_can_be_made_to_end() -> None:
    caller = Caller()
    caller.answers = lambda publish: setattr(caller, "aborted", True)
    call = caller.publish(events(1), False, ALWAYS)
    assert str(call.failed[0]).startswith("the endpoint was closed; ")


def test_a_returned_message_fails_and_ends_the_taking() -> None:
    caller = Caller()

    def returned(publish: Publish) -> None:
        caller.give_back(publish)
        caller.confirm(publish)

    caller.answers = returned
    call = caller.publish(events(*range(9)), True, ALWAYS)
    assert call.taken == 4
    assert {type(error) for error in call.failed.values()} == {Unroutable}
    assert all(publish.mandatory for publish in caller.sent)


def test_a_return_that_was_never_confirmed_is_no_failure_if_the_second_try_goes_through() -> None:
    caller = Caller()

    def returned_and_lost(publish: Publish) -> None:
        caller.give_back(publish)
        caller.lose(publish)

    fates = iter([returned_and_lost])
    caller.answers = lambda publish: next(fates, caller.confirm)(publish)
    call = caller.publish(events(*range(9)), True, ALWAYS)
    assert (call.taken, call.failed) == (9, {}), "and the rest was taken too"


def test_what_others_log_goes_out_in_the_course_of_a_publish_and_at_the_end() -> None:
    caller = Caller()

    def perform(effect: Effect) -> None:
        if isinstance(effect, PublishLog):
            logged.append((len(caller.sent), json.loads(effect.body)["short_message"]))
        before(effect)

    def slow() -> Iterator[Event]:
        for number in range(3):
            caller._records.append(((6, str(number), caller.clock), {"conversation_id": "c"}))
            caller.clock += 1.0
            yield Event("Happened", number, "c")

    logged: list[tuple[int, str]] = []
    before, caller.perform = caller.perform, perform  # type: ignore[method-assign]
    caller.publish(slow(), False, ALWAYS)
    assert logged == [(0, "0"), (1, "1"), (2, "2")]
    caller._records.append(((6, "last", caller.clock), {}))
    caller.close(5.0)
    assert logged[-1] == (3, "last")


def test_a_log_makes_one_attempt_to_connect() -> None:
    caller = Caller()
    caller.up = False
    for _ in range(2):
        caller._records.append(((6, "short", caller.clock), {}))
        caller.log()
    assert (caller.attempts, caller.looks, len(caller._records)) == (1, 2, 0)
    caller.clock += 100.0
    caller.log()
    assert caller.attempts == 2


@pytest.mark.parametrize("use", [Caller.log, lambda caller: caller.publish(events(1), False, ALWAYS)])
def test_after_a_pause_longer_than_the_heartbeat_it_is_not_fit_any_more(use: Callable[[Caller], object]) -> None:
    caller = Caller(heartbeat=20)
    caller.clock += 100.0
    assert caller.is_fit(), "it never began"
    use(caller)
    caller.clock += 19.9
    assert caller.is_fit()
    caller.clock += 0.1
    assert not caller.is_fit()
    use(caller)
    assert caller.is_fit()
    caller.close(1.0)
    assert not caller.is_fit()


@pytest.mark.parametrize("settings", [{"heartbeat": 0}, {}], ids=["no heartbeat", "no link"])
def test_without_a_link_or_a_heartbeat_it_stays_fit(settings: dict[str, int]) -> None:
    caller = Caller(**settings)
    caller.up = not settings.get("heartbeat", 20)
    caller.log()
    caller.clock += 1000.0
    assert caller.is_fit()


def test_close_is_orderly() -> None:
    caller = Caller()
    caller.publish(events(1), False, ALWAYS)
    caller.close(5.0)
    assert (caller.over, caller.closed, caller.aborts) == (True, [True], 0)


def test_close_has_a_deadline_of_its_own() -> None:
    caller = Caller(close_timeout=5.0)
    caller.publish(events(1), False, ALWAYS)
    caller.links[Epoch(1)] = type("Deaf", (), {"perform": lambda self, effect: None})()
    caller.close(1.0)
    assert caller.over
    assert 1005.0 <= caller.clock <= 1006.5


def test_close_of_one_that_never_began() -> None:
    caller = Caller()
    caller.close(5.0)
    assert (caller.over, caller.attempts, caller.closed) == (True, 0, [])


def test_what_an_interrupted_call_has_left_is_not_done_any_more() -> None:
    caller = Caller()

    def interrupt(effect: Connect) -> Caller:
        raise KeyboardInterrupt

    caller.open = interrupt  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        caller.publish(events(1), False, ALWAYS)
    caller._todo.append(Connect(Epoch(9), "amqp://elsewhere/", "name", 20))
    caller.drop()
    assert caller.over
    assert list(caller.publish_call.failed) == [0]


def test_nothing_is_dispatched_and_nothing_armed() -> None:
    caller = Caller()
    with pytest.raises(NotImplementedError, match="only publishes"):
        caller.dispatch(DeliveryId(1), Event("Happened", 1, "c"))
    with pytest.raises(NotImplementedError, match="no timer"):
        caller.arm(1.0)
    caller.buffer_available()
    caller.call(Returned("Told", 1, {}, "NO_ROUTE"), caller.dispatch)
    assert caller.pauses == []


@pytest.mark.parametrize(
    ("timeout", "spent", "seconds"),
    [(None, 50.0, 30.0), (100.0, 50.0, 30.0), (100.0, 80.0, 20.0), (100.0, 200.0, 0.01)],
    ids=["any time", "enough left", "less left", "none left"],
)
def test_an_attempt_to_connect_takes_no_longer_than_the_call_has_left(
    timeout: float | None, spent: float, seconds: float
) -> None:
    caller = Caller(connect_timeout=30.0)
    caller.publish_call = PublishCall(PublishLimits(timeout), caller.clock)
    caller.clock += spent
    assert caller.connect_timeout() == 30.0, "nothing is open"
    caller.clock -= spent
    caller.publish_call.accepted(caller.clock)
    caller.clock += spent
    assert caller.connect_timeout() == seconds


# --- a link that does something only while it is asked to ---


class Lazy:
    """A link, and what it was asked for."""

    def __init__(self) -> None:
        self.up = True
        self.asked: list[str] = []

    def perform(self, effect: Effect) -> None:
        """Nothing is performed here."""

    def read(self, timeout: float) -> None:
        self.asked.append(f"read {timeout:g}")

    def look(self) -> None:
        self.asked.append("look")

    def abort(self) -> None:
        self.asked.append("abort")


class Alone(BlockingDriver):
    """Its clock goes while it sleeps."""

    def __init__(self) -> None:
        self.clock = 1000.0
        super().__init__(Machine(config(), random=lambda: 0.5, token="tok", wall_offset=WALL), deque())

    def now(self) -> float:
        return self.clock

    def sleep(self, seconds: float) -> None:
        self.clock += seconds

    def open(self, effect: Connect) -> Lazy:
        raise NotImplementedError

    def report(self, level: int, text: str, event: str) -> None:
        """Nobody reads it."""


def test_while_there_is_a_link_a_pause_reads_from_it() -> None:
    driver = Alone()
    driver.link = lazy = Lazy()
    for seconds in (0.5, 0.0, -1.0):
        driver.pause(seconds)
    driver.look()
    driver.abort()
    assert lazy.asked == ["read 0.5", "read 0", "read -1", "look", "abort"]
    assert driver.clock == 1000.0


@pytest.mark.parametrize("link", [None, Lazy()], ids=["no link", "a link that is down"])
def test_without_a_link_a_pause_sleeps(link: Lazy | None) -> None:
    driver = Alone()
    driver.link = link
    if link is not None:
        link.up = False
    for seconds in (0.5, 0.0, -1.0):
        driver.pause(seconds)
    driver.look()
    driver.abort()
    assert driver.clock == 1000.5
    assert link is None or link.asked == ["abort"]
