"""What drivers have in common: the pump and the timer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from pamqp.commands import Basic

from eda_core.drivers.base import Driver, LinkLike
from eda_core.drivers.handling import Run
from eda_core.errors import Abandoned, LocalError, ServiceError, StateError
from eda_core.machine import link
from eda_core.machine.effects import (
    Ack,
    BufferAvailable,
    Close,
    Connect,
    Consume,
    Declare,
    Dispatch,
    Effect,
    Publish,
    PublishDone,
    Ready,
    Replied,
    Report,
    Returned,
    Stopped,
    Unconfigured,
)
from eda_core.machine.identifiers import DeliveryId, Epoch
from eda_core.machine.machine import Machine
from eda_core.machine.outcomes import DEFERRED, DONE, Outcome
from eda_core.messages.values import AnyMessage, Event
from eda_core.services.handlers import Handlers
from tests.core.kit import WALL, config, kinds, replies

EPOCH = Epoch(1)


class Link:
    """Notes what it is asked to do; ``answer``, if given, is called with it."""

    def __init__(self, answer: Callable[[Effect], None] | None = None) -> None:
        self.asked: list[Effect] = []
        self._answer = answer

    def perform(self, effect: Effect) -> None:
        self.asked.append(effect)
        if self._answer is not None:
            self._answer(effect)


class Carrier(Driver):
    """A driver without a world: it notes what it is to do, with a clock that is set by hand.

    Attributes:
        hooks: called when a method of this name is, for tests of re-entrancy.
    """

    def __init__(self, service: Handlers | None = None, **settings: Any) -> None:
        machine = Machine(config(**settings), random=lambda: 0.5, token="tok", wall_offset=WALL)
        super().__init__(service or Handlers(), machine)
        self.clock = 100.0
        self.done: list[tuple[Any, ...]] = []
        self.armed: list[float] = []
        self.disarmed: list[float] = []
        self.hooks: dict[str, Callable[[], None]] = {}
        self.answer: Callable[[Effect], None] | None = None
        self.opened: list[Link] = []

    def _note(self, *what: Any) -> None:
        self.done.append(what)
        self.hooks.get(what[0], lambda: None)()

    def now(self) -> float:
        return self.clock

    def arm(self, deadline: float) -> Callable[[], object]:
        self.armed.append(deadline)
        return lambda: self.disarmed.append(deadline)

    def open(self, effect: Connect) -> LinkLike:
        self._note("open", effect.url)
        self.opened.append(Link(self.answer))
        return self.opened[-1]

    def dispatch(self, delivery: DeliveryId, message: AnyMessage) -> None:
        self._note("dispatch", delivery, message)

    def call(self, effect: Effect | None, function: Callable[..., Any], *arguments: Any) -> None:
        self._note("call", effect, function, *arguments)

    def publish_done(self, effect: PublishDone) -> None:
        self._note("publish done", effect.ticket, effect.error)
        super().publish_done(effect)  # for adapters whose callers do not wait

    def replied(self, effect: Replied) -> None:
        self._note("replied", effect.ticket)
        super().replied(effect)

    def buffer_available(self) -> None:
        self._note("buffer available")
        super().buffer_available()

    def report(self, level: int, text: str, event: str) -> None:
        self._note("report", level, text)

    def stopped(self, error: str | None) -> None:
        self._note("stopped", error)
        super().stopped(error)


def willing(carrier: Carrier) -> Carrier:
    """Its links come up, and their broker agrees to everything at once, from within ``perform``."""

    def answer(effect: Effect) -> None:
        if isinstance(effect, Declare):
            carrier.tell(carrier.machine.declared, effect.epoch, replies(effect))

    carrier.answer = answer
    carrier.hooks["open"] = lambda: carrier.tell(carrier.machine.link_up, carrier.machine.epoch)
    return carrier


def test_each_effect_goes_to_its_method() -> None:
    service = Handlers()
    carrier = Carrier(service)
    event = Event("Happened", None, "c-1")
    returned = Returned("Told", {"n": 1}, {"conversation_id": "c-1"}, "NO_ROUTE")
    ready, unconfigured = Ready(), Unconfigured()
    carrier.feed(
        [
            Connect(EPOCH, "amqp://one/", "svc", 20),
            Dispatch(DeliveryId(5), event),
            ready,
            unconfigured,
            returned,
            PublishDone(3, "gone"),
            Replied(4, "peer.Do", None, "late"),
            BufferAvailable(),
            Report(4, "text"),
            Stopped("error"),
        ]
    )
    assert carrier.done == [
        ("open", "amqp://one/"),
        ("dispatch", 5, event),
        ("call", ready, service.on_ready),
        ("call", unconfigured, service.on_unconfigured),
        ("call", returned, service.handle_returned_message, "Told", {"n": 1}, {"conversation_id": "c-1"}),
        ("publish done", 3, "gone"),
        ("replied", 4),
        ("buffer available",),
        ("report", 4, "text"),
        ("stopped", "error"),
    ]


def test_a_stop_calls_those_who_collect() -> None:
    carrier = willing(Carrier())
    carrier.tell(carrier.machine.start)
    carrier.done.clear()
    carrier.at_stop["a batch"] = carrier.at_stop["another"] = print
    carrier.stop(7.0)
    assert carrier.machine.state in (link.DRAINING, link.CLOSING)
    assert [what for what in carrier.done if what[0] == "call"] == [("call", None, print)] * 2
    assert carrier.machine.deadline() is not None


def test_the_first_interrupt_asks_for_a_stop_the_second_for_an_end() -> None:
    carrier = willing(Carrier(stop_timeout=9.0))
    carrier.tell(carrier.machine.start)
    properties = Basic.Properties(headers={"conversation_id": "c-1"})
    carrier.tell(carrier.machine.delivered, EPOCH, 1, False, "events", "Happened", properties, b"")
    carrier.interrupt()
    assert (carrier.machine.state, carrier.machine.deadline()) == (link.DRAINING, 109.0)
    carrier.interrupt()
    assert carrier.machine.deadline() == 100.0


def test_a_driver_that_is_over_says_why_and_arms_no_timer() -> None:
    carrier = willing(Carrier())
    carrier.tell(carrier.machine.start)
    carrier.call_later(5.0, print)
    assert not carrier.over
    armed = list(carrier.armed)
    carrier.feed([Stopped("error")])
    assert (carrier.over, carrier.error) == (True, "error")
    assert carrier.disarmed[-1] == armed[-1]
    carrier.feed([])
    assert carrier.armed == armed


def test_a_timer_that_is_due_while_the_link_closes_is_not_called() -> None:
    """It would fail where it publishes."""
    carrier = willing(Carrier())
    carrier.tell(carrier.machine.start)
    carrier.call_later(1.0, print)
    carrier.stop()
    assert carrier.machine.state is link.CLOSING
    carrier.done.clear()
    carrier.clock += 2.0
    carrier.tick()
    assert carrier.done == []


def test_who_waits_is_told_when_the_service_is_ready_after_its_hook_is_called() -> None:
    carrier, told = willing(Carrier()), list[object]()
    carrier.readiness.wait(lambda reason: told.append((reason, carrier.done[-1][0])))
    carrier.tell_if_ready()
    assert told == []
    carrier.tell(carrier.machine.start)
    assert told == [(None, "call")]
    carrier.readiness.wait(told.append)
    carrier.tell_if_ready()
    assert told[1:] == [None]


@pytest.mark.parametrize(
    ("stopped", "kind", "text"),
    [
        (Stopped("refused everywhere"), ServiceError, "refused everywhere"),
        (Stopped(), StateError, "the service has stopped before it was ready"),
    ],
)
def test_who_waits_is_told_how_the_service_has_ended(stopped: Stopped, kind: type[Exception], text: str) -> None:
    carrier, told = Carrier(), list[Any]()
    carrier.readiness.wait(told.append)
    carrier.feed([stopped])
    assert [(type(each), str(each)) for each in told] == [(kind, text)]


def test_who_has_waited_too_long_is_told_what_is_missing() -> None:
    carrier = Carrier(configurations=["Settings"])
    assert str(carrier.not_ready(5.0)) == "not ready within 5 s: there is no link yet"
    carrier.feed([Report(4, "no link to amqp://one/: cut", "link-lost"), Report(4, "odd", "answers")])
    assert str(carrier.not_ready(0.5)) == "not ready within 0.5 s: no link to amqp://one/: cut"
    willing(carrier)
    carrier.tell(carrier.machine.start)
    text = "not ready within 5 s: no handler of a configuration has returned True yet"
    assert str(carrier.not_ready(5.0)) == text


def test_a_run_raises_what_has_ended_it() -> None:
    carrier = Carrier()
    carrier.feed([Stopped()])
    carrier.raise_end()
    carrier.feed([Stopped("refused everywhere")])
    with pytest.raises(ServiceError, match="refused everywhere"):
        carrier.raise_end()


def test_what_is_asked_is_done_at_once() -> None:
    assert Carrier().ask(lambda: "answer") == "answer"


def test_the_service_gets_an_envelope_of_its_own_to_change() -> None:
    carrier = Carrier()
    envelope = {"conversation_id": "c-1"}
    carrier.feed([Returned("Told", None, envelope, "NO_ROUTE")])
    assert carrier.done[0][-1] == envelope
    assert carrier.done[0][-1] is not envelope


def test_what_touches_a_link_goes_to_the_link_of_its_epoch() -> None:
    carrier = Carrier()
    first, second = Link(), Link()
    carrier.links = {EPOCH: first, Epoch(2): second}
    acks: list[Effect] = [
        Ack(EPOCH, 1, False),
        Ack(Epoch(2), 1, False),
        Consume(EPOCH, "q", "events"),
        Close(EPOCH, "over"),
    ]
    carrier.feed(acks)
    assert first.asked == [acks[0], acks[2], acks[3]]
    assert second.asked == [acks[1]]


def test_what_is_for_a_link_that_is_gone_is_dropped() -> None:
    carrier = Carrier()
    carrier.feed([Ack(EPOCH, 1, False), Consume(EPOCH, "q", "events")])
    assert carrier.done == []


def test_to_close_a_link_that_is_gone_is_to_have_closed_it() -> None:
    """The machine waits to hear of it; nobody else would tell it before the deadline."""
    carrier = willing(Carrier())
    carrier.tell(carrier.machine.start)
    del carrier.links[EPOCH]
    carrier.tell(carrier.machine.stop)
    assert carrier.done[-1] == ("stopped", None)


def test_effects_of_effects_come_after_those_before_them() -> None:
    """Re-entrancy: an effect that makes an input at once does not get its effects in between, nor recurse."""
    carrier = Carrier()
    depth = 0

    def again() -> None:
        nonlocal depth
        depth += 1
        assert depth == 1
        if len(carrier.done) < 4:
            carrier.feed([Report(1, "inner"), BufferAvailable()])
        depth -= 1

    carrier.hooks["buffer available"] = again
    carrier.feed([BufferAvailable(), Report(1, "outer")])
    assert [what for what in carrier.done if what[0] == "report"][:2] == [
        ("report", 1, "outer"),
        ("report", 1, "inner"),
    ]
    assert [what[0] for what in carrier.done] == ["buffer available", "report", "report", "buffer available"]


def test_ten_thousand_effects_of_effects_do_not_grow_the_stack() -> None:
    carrier = Carrier()
    carrier.hooks["buffer available"] = lambda: carrier.feed([BufferAvailable()] if len(carrier.done) < 10_000 else [])
    carrier.feed([BufferAvailable()])
    assert len(carrier.done) == 10_000


def test_a_whole_connection_from_within_the_callbacks() -> None:
    carrier = willing(Carrier())
    carrier.tell(carrier.machine.start)
    assert carrier.machine.state == "open"
    assert [what[0] for what in carrier.done] == ["open", "report", "report", "call"]
    assert kinds(carrier.opened[0].asked) == ["Declare", "Declare", "Consume", "Consume"]


def test_tell_gives_the_time_and_all_arguments() -> None:
    carrier = Carrier()
    got: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

    def method(*arguments: Any, **named: Any) -> list[Effect]:
        got.append((arguments, named))
        return [BufferAvailable()]

    carrier.tell(method, 1, "two", multiple=True)
    assert got == [((1, "two"), {"multiple": True, "now": 100.0})]
    assert carrier.done == [("buffer available",)]


def test_an_input_may_be_made_of_the_machine_and_the_time() -> None:
    carrier, got = Carrier(), list[Any]()

    def call(machine: Machine, now: float) -> list[Effect]:
        got.extend((machine, now))
        return [BufferAvailable()]

    carrier.make(call)
    assert got == [carrier.machine, 100.0]
    assert carrier.done == [("buffer available",)]


def test_a_relay_goes_through_the_pump_in_order() -> None:
    carrier = willing(Carrier())
    carrier.tell(carrier.machine.start)
    machine = carrier.machine
    carrier.hooks["dispatch"] = lambda: carrier.tell(machine.handled, carrier.done[-1][1], DONE)
    properties = Basic.Properties(headers={"conversation_id": "c-1"})
    carrier.tell(machine.delivered, EPOCH, 1, False, "events", "Happened", properties, b"")
    assert carrier.opened[0].asked[-1] == Ack(EPOCH, 1, False)


def test_who_wants_to_know_how_a_handler_ended_is_told_once_and_before_the_machine() -> None:
    carrier = willing(Carrier())
    carrier.tell(carrier.machine.start)
    properties = Basic.Properties(headers={"conversation_id": "c-1"})
    carrier.tell(carrier.machine.delivered, EPOCH, 1, False, "events", "Happened", properties, b"")
    delivery: DeliveryId = carrier.done[-1][1]
    heard: list[Any] = []

    def hear(*told: Any) -> Outcome:
        heard.append((*told, carrier.machine.in_flight(delivery)))
        return DONE

    carrier.at_end[delivery] = hear
    carrier.handled(delivery, DEFERRED)
    carrier.handled(delivery, DONE)
    assert heard == [(DEFERRED, 100.0, True)]
    assert carrier.opened[0].asked[-1] == Ack(EPOCH, 1, False), "the outcome that it returns counts"


def test_an_exception_from_a_performing_method_does_not_block_the_pump() -> None:
    """An adapter's bug: it comes out, and what is left of the effects is done with the next input (rule R3)."""
    carrier = Carrier()

    def fail() -> None:
        raise RuntimeError("bug")

    carrier.hooks["buffer available"] = fail
    with pytest.raises(RuntimeError):
        carrier.feed([BufferAvailable(), Report(1, "left")])
    carrier.feed([Report(1, "next")])
    assert [what[2] for what in carrier.done[1:]] == ["left", "next"]


# The timer


def test_without_a_deadline_no_timer_is_armed() -> None:
    carrier = Carrier()
    carrier.feed([])
    assert carrier.armed == []


def test_the_timer_is_armed_at_the_deadline_after_the_effects() -> None:
    carrier = Carrier(connect_timeout=12.0)
    carrier.hooks["open"] = lambda: carrier.armed.append(-1.0)
    carrier.tell(carrier.machine.start)
    assert carrier.armed == [-1.0, 112.0]


def test_only_an_earlier_deadline_arms_the_timer_anew() -> None:
    carrier = Carrier(connect_timeout=12.0, stop_timeout=5.0)
    carrier.tell(carrier.machine.start)
    carrier.tell(carrier.machine.publish, Event("Told", None, "c-1"))
    assert carrier.armed == [112.0]
    carrier.tell(carrier.machine.stop)
    assert carrier.armed == [112.0, 105.0]
    carrier.tell(carrier.machine.stop, timeout=100.0)
    assert carrier.armed == [112.0, 105.0]


def test_a_timer_for_a_deadline_that_moved_away_fires_once_and_is_armed_for_the_next() -> None:
    carrier = Carrier(connect_timeout=12.0, confirm_timeout=50.0)
    willing(carrier).hooks.clear()
    carrier.tell(carrier.machine.start)
    carrier.tell(carrier.machine.link_up, EPOCH)
    carrier.tell(carrier.machine.publish, Event("Told", None, "c-1"))
    assert carrier.armed == [112.0]
    carrier.clock = 112.0
    carrier.tick()
    assert carrier.machine.state == "open"
    assert carrier.armed == [112.0, 150.0]


def test_a_timer_that_fires_early_is_taken_for_punctual() -> None:
    """Loop clocks do fire early by a little; ticking at the deadline keeps that from becoming a busy loop."""
    carrier = Carrier(connect_timeout=12.0)
    carrier.tell(carrier.machine.start)
    carrier.clock = 111.999
    carrier.tick()
    assert carrier.machine.state == "backoff"
    assert any(what[0] == "report" and "no link after 12 s" in what[2] for what in carrier.done)


def test_a_timer_that_fires_late_gives_the_true_time() -> None:
    carrier = Carrier(connect_timeout=12.0)
    carrier.tell(carrier.machine.start)
    carrier.clock = 500.0
    carrier.tick()
    assert carrier.armed[-1] == pytest.approx(500.5)


def test_a_tick_that_nobody_armed_does_no_harm() -> None:
    carrier = Carrier(connect_timeout=12.0)
    carrier.tick()
    willing(carrier).tell(carrier.machine.start)
    done = list(carrier.done)
    carrier.tick()
    assert (carrier.done, carrier.armed) == (done, [])


def test_the_timer_fires_while_the_pump_runs() -> None:
    carrier = willing(Carrier(connect_timeout=12.0, confirm_timeout=50.0))
    carrier.tell(carrier.machine.start)
    carrier.hooks["buffer available"] = carrier.tick
    carrier.clock = 101.0
    effects = carrier.machine.publish(Event("Told", None, "c-1"), 101.0)
    carrier.feed([BufferAvailable(), *effects])
    assert kinds(carrier.opened[0].asked)[-1] == Publish.__name__
    assert carrier.armed[-1] == 151.0


# Timers of the service


def timers_run(carrier: Carrier) -> None:
    """Run what the carrier was asked to call for timers, in order."""
    for _, effect, function in [what for what in carrier.done if what[0] == "call"]:
        assert effect is None
        function()


def test_timers_are_called_when_they_are_due_in_the_order_of_their_times() -> None:
    carrier, called = Carrier(), list[str]()
    carrier.call_later(2.0, lambda: called.append("second"))
    carrier.call_later(1.0, lambda: called.append("first"))
    carrier.call_later(3.0, lambda: called.append("third"))
    assert (carrier.armed, carrier.disarmed) == ([102.0, 101.0], [102.0])
    carrier.clock = 102.5
    carrier.tick()
    assert carrier.armed[-1] == 103.0
    timers_run(carrier)
    assert called == ["first", "second"]


def test_a_timer_in_the_past_is_due_at_once() -> None:
    carrier = Carrier()
    carrier.call_later(-5.0, print)
    assert carrier.armed == [100.0]


def test_a_timer_that_was_cancelled_is_not_called_not_even_while_it_waits_for_its_turn() -> None:
    carrier, called = Carrier(), list[str]()
    early = carrier.call_later(1.0, lambda: called.append("early"))
    late = carrier.call_later(1.0, lambda: called.append("late"))
    carrier.cancel_timer(early)
    carrier.clock = 101.0
    carrier.tick()
    carrier.cancel_timer(late)
    carrier.cancel_timer(late)
    timers_run(carrier)
    assert called == []


def test_the_timer_is_armed_for_whatever_comes_first() -> None:
    carrier = Carrier(connect_timeout=12.0)
    carrier.tell(carrier.machine.start)
    carrier.call_later(20.0, print)
    assert carrier.armed == [112.0]
    carrier.call_later(5.0, print)
    assert carrier.armed == [112.0, 105.0]


def test_timers_end_with_the_service() -> None:
    carrier = Carrier()
    carrier.call_later(1.0, print)
    carrier.feed([Stopped()])
    carrier.clock = 102.0
    carrier.tick()
    assert [what[0] for what in carrier.done] == ["stopped"]
    with pytest.raises(StateError, match="has stopped"):
        carrier.call_later(1.0, print)


def test_a_driver_calls_the_handler_of_its_service_and_returns_what_that_returns() -> None:
    class Told(Handlers):
        def on_Told(self, payload: Any, conversation_id: str, meta: dict[str, Any]) -> Any:
            return payload, conversation_id

    assert Carrier(Told()).run_handler(Event("Told", 7, "c-1")) == (7, "c-1")


def test_the_service_redeems_a_payload_that_is_in_a_store() -> None:
    carrier, message = Carrier(), Event("Told", None, "c-1", {"claim_check": "a key"})
    with pytest.raises(LocalError) as raised:
        carrier.run_handler(message)
    assert str(raised.value) == (
        "the payload of Told is in a store; give this service the same CLAIM_CHECK as the service that has published it"
    )
    carrier.redeeming = lambda message: ("redeemed", message)
    assert carrier.run_handler(message) == ("redeemed", message)


# What ends a run, and several inputs


def test_effects_of_inputs_that_are_made_together_are_performed_at_the_end_in_order() -> None:
    carrier = Carrier(connect_timeout=12.0)
    with carrier.together():
        carrier.tell(carrier.machine.start)
        carrier.feed([Report(4, "second")])
        assert (carrier.done, carrier.armed) == ([], [])
    assert [what[0] for what in carrier.done] == ["open", "report"]
    assert carrier.armed == [112.0]


def test_inputs_made_together_while_effects_are_performed_wait_for_those() -> None:
    carrier = Carrier()

    def inner() -> None:
        with carrier.together():
            carrier.feed([Report(4, "inner")])
        assert len(carrier.done) == 1

    carrier.hooks["buffer available"] = inner
    carrier.feed([BufferAvailable(), Report(4, "outer")])
    assert [what[-1] for what in carrier.done[1:]] == ["outer", "inner"]


def test_effects_of_inputs_made_together_are_performed_although_one_raises() -> None:
    carrier = Carrier()

    def inputs() -> None:
        with carrier.together():
            carrier.feed([Report(4, "first")])
            raise RuntimeError("bug")

    with pytest.raises(RuntimeError, match="bug"):
        inputs()
    assert carrier.done == [("report", 4, "first")]


def test_the_timer_is_looked_at_once_for_all_inputs_of_a_turn() -> None:
    class Looping(Carrier):
        turn: tuple[Callable[[], None], ...] = ()

        def soon(self, call: Callable[[], None]) -> None:
            self.turn += (call,)

    carrier = Looping(connect_timeout=12.0)
    carrier.tell(carrier.machine.start)
    carrier.feed([])
    assert carrier.armed == []
    (look,) = carrier.turn
    look()
    assert carrier.armed == [112.0]
    carrier.feed([])
    assert len(carrier.turn) == 2


def test_user_code_that_ends_the_program_stops_the_service_at_once_and_is_raised() -> None:
    carrier = willing(Carrier())
    carrier.tell(carrier.machine.start)
    properties = Basic.Properties(headers={"conversation_id": "c-1"})
    carrier.tell(carrier.machine.delivered, EPOCH, 1, False, "events", "Happened", properties, b"")
    first = SystemExit(3)
    carrier.break_off(first)
    carrier.break_off(KeyboardInterrupt())
    assert carrier.machine.deadline() == carrier.clock, "it waits for no handler"
    with pytest.raises(SystemExit) as raised:
        carrier.raise_end()
    assert raised.value is first


def test_a_handler_that_was_abandoned_raises_nothing_at_the_end() -> None:
    carrier = Carrier()
    carrier.break_off(Abandoned("the time is over"))
    carrier.raise_end()


def test_user_code_that_has_ended_runs_no_more() -> None:
    carrier, run = Carrier(), Run(Handlers())
    carrier.running.add(run)
    carrier.user_code_ended(run, None)
    carrier.user_code_ended(run, None)
    assert carrier.running == set()
