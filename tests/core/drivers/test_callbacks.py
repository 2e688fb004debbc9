"""A driver of plain functions: handlers, hooks and timers are jobs; and the end of a service."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from eda_core.drivers.callbacks import CallbackDriver
from eda_core.drivers.handling import Run
from eda_core.errors import Abandoned, ServiceError, StateError
from eda_core.machine.effects import Ack, Effect, Publish, Ready, Stopped
from eda_core.machine.outcomes import DEFERRED, DONE, Failed
from eda_core.messages.values import Event
from tests.core.drivers.jobs import Runs, Service, deliver, running
from tests.core.drivers.traces import Traces
from tests.core.kit import URLS, of

#: What a stop says of messages that are not finished.
AGAIN = "the broker delivers unfinished messages again"
#: Handlers, and when they began.
SLOW = [("Later", 0.0), *(("Happened", float(n)) for n in range(1, 12))]

# Jobs


@pytest.mark.parametrize(("name", "result"), [("Happened", DONE), ("Later", DEFERRED)])
def test_a_handler_is_a_job_and_what_it_returns_the_outcome(name: str, result: object) -> None:
    _, driver = running()
    tag = deliver(driver, name)
    assert (len(driver.jobs), driver.told) == (1, [])
    driver.work()
    assert driver.told == [("handled", tag, result)]
    assert driver.asked == 1


@pytest.mark.parametrize(("name", "reason"), [("Fails", "LookupError: nothing there"), ("Unknown", "unexpected")])
def test_what_a_handler_raises_is_its_outcome(name: str, reason: str) -> None:
    _, driver = running()
    tag = deliver(driver, name)
    driver.work()
    ((what, handled, failed),) = driver.told
    assert (what, handled) == ("handled", tag)
    assert isinstance(failed, Failed)
    assert failed.reason.startswith(reason)


def test_a_handler_publishes_within_its_delivery_and_a_timer_outside() -> None:
    class Relay(Service):
        def on_Happened(self, *_: Any) -> None:
            seen.append(self.handled_delivery())
            self.publish_event("Told", 1, "c-1")
            assert of(Publish, driver.link.asked) == []

    seen: list[Any] = []
    service, driver = running(Relay)
    driver.take()
    driver.work()
    driver.call(None, lambda: seen.append(service.handled_delivery()))
    driver.work()
    assert (seen[0] is None, seen[1]) == (False, None)
    assert len(of(Publish, driver.link.asked)) == 1


def test_hooks_and_timers_are_jobs() -> None:
    called: list[str] = []
    _, driver = running()
    driver.call(None, called.append, "called")
    assert called == []
    driver.work()
    assert (called, driver.told) == (["called"], [])


@pytest.mark.parametrize("effect", [Ready(), None], ids=["a hook", "a timer"])
def test_a_hook_that_fails_is_an_input(effect: Effect | None) -> None:
    _, driver = running()
    driver.call(effect, lambda: [][1])
    driver.work()
    ((what, of_effect, failed),) = driver.told
    assert (what, of_effect) == ("callback_failed", effect)
    assert failed.reason.startswith("IndexError")


async def _by_mistake(*_: Any) -> None: ...


def test_a_timer_that_is_a_coroutine_function_is_told_of() -> None:
    _, driver = running()
    driver.call(None, _by_mistake)
    driver.work()
    ((what, _effect, failed),) = driver.told
    assert (what, failed.reason.partition(":")[0]) == ("callback_failed", "NotBegun")


def test_an_adapter_may_stand_between_a_job_and_user_code() -> None:
    between: list[str] = []

    class Interrupting(Runs):
        def user(self, function: Callable[..., Any], *arguments: Any) -> Any:
            between.append(function.__name__)
            return super().user(function, *arguments)

    service = Service(URLS[0], ["Happened"], [], "svc")
    driver = service.begin_run(Interrupting)
    deliver(driver, "Later")
    driver.call(None, print)
    driver.work()
    assert between == ["run_handler", "print"]


# The end


def test_jobs_end_with_the_service() -> None:
    _, driver = running()
    deliver(driver, "Happened")
    driver.feed([Stopped()])
    driver.work()
    assert driver.told == []
    driver.raise_end()


def test_what_ended_the_service_is_raised() -> None:
    _, driver = running()
    driver.feed([Stopped("refused everywhere")])
    with pytest.raises(ServiceError, match="refused everywhere"):
        driver.raise_end()


@pytest.mark.parametrize(("what", "named"), [("a handler", "Service.on_Endless"), ("a timer", "a timer or a batch")])
def test_what_a_stop_has_ended_is_named_in_one_line(what: str, named: str) -> None:
    """Where it was ended is told to who debugs it."""
    service, driver = running()
    if what == "a handler":
        deliver(driver, "Endless")
    else:
        driver.call(None, service.on_Endless)
    driver.work()
    told, detail = (text for text in driver.reports if named in text)
    assert told == f"the time of the stop is over, and {named} has not ended after 0.0 s; {AGAIN}"
    assert detail.startswith(f"{named} was ended here:\nTraceback")
    assert driver.running == set()


def test_handlers_that_run_when_the_time_of_a_stop_is_over_are_named() -> None:
    service, driver = running()
    driver.running |= {Run(service, message=Event(name, 1, "c", {}), began=began) for name, began in SLOW}
    driver.machine.hold(driver.now())  # the machine knows of none of them
    driver.stop(5.0)
    driver.clock += 5.0
    driver.tick()
    assert driver.reports[-1] == (
        "the time of the stop is over, and 12 handlers have not ended: Service.on_Later after 105.0 s, "
        f"{', '.join(f'Service.on_Happened after {100 - n + 5.0:.1f} s' for n in range(1, 10))}, …; {AGAIN}"
    )


def test_each_exception_that_is_no_exception_ends_the_service() -> None:
    _, driver = running()
    assert driver.ends_service(KeyboardInterrupt())
    assert not driver.ends_service(ValueError())


def test_what_is_no_exception_ends_the_service_at_once() -> None:
    _, driver = running()
    deliver(driver, "Exits")
    deliver(driver, "Happened")
    driver.work()
    assert driver.told == [], "neither an outcome of its own nor of those behind it"
    assert driver.machine.state == "closing"
    driver.call(None, driver.reports.append, "called")
    driver.work()
    driver.break_off(KeyboardInterrupt())
    assert not [text for text in driver.reports if text == "called" or "unfinished" in text]
    with pytest.raises(SystemExit):
        driver.raise_end()


def test_a_handler_that_is_abandoned_leaves_its_message_with_the_broker() -> None:
    """It is told locally where that was, and is no error of the run."""
    _, driver = running()
    driver.take("Endless")
    driver.take()
    driver.work()
    assert driver.told == []
    assert of(Ack, driver.link.asked) == []
    _, detail = (text for text in driver.reports if "on_Endless" in text)
    assert "in on_Endless" in detail
    driver.tick()
    assert driver.machine.state == "closing"
    driver.raise_end()


def test_a_forked_process_ends_when_it_comes_out_of_a_job_and_may_ask_nothing() -> None:
    class Forking(Runs):
        child = False

        def forked(self) -> bool:
            return self.child

        def ask(self, call: Callable[[], Any]) -> Any:
            self.check_process()
            return super().ask(call)

    service = Service(URLS[0], ["Happened"], [], "svc")
    driver = service.begin_run(Forking)
    assert service.call_later(9.0, print) == 1
    driver.call(None, lambda: setattr(driver, "child", True))
    with pytest.raises(Abandoned, match="fork"):
        driver.work()
    with pytest.raises(StateError, match="fork"):
        service.call_later(0.0, print)


def test_what_ends_a_service_that_has_ended_is_too_late() -> None:
    _, driver = running()

    def end_and_exit() -> None:
        driver.feed([Stopped()])
        raise SystemExit(3)

    driver.call(None, end_and_exit)
    driver.work()
    assert driver.exit is None


# Logs, and the local log


def test_what_is_posted_is_done_in_order_and_wakes_once() -> None:
    _, driver = running()
    done: list[int] = []
    for number in range(3):
        driver.post(partial(done.append, number))
    assert (done, driver.woken) == ([], 1)
    driver.do_posted()
    assert done == [0, 1, 2]
    driver.post(partial(done.append, 3))
    assert driver.woken == 2


def test_what_is_posted_while_the_rest_is_done_is_done_too() -> None:
    _, driver = running()
    done: list[str] = []
    driver.post(lambda: driver.post(lambda: done.append("inner")))
    driver.do_posted()
    assert (done, driver.woken) == (["inner"], 2)


def test_reports_are_written_until_the_end_although_one_cannot_be() -> None:
    _, driver = running()
    for text in ("first", "this one fails", "last"):
        CallbackDriver.report(driver, 4, text, "ready")
    driver.end_reports()
    driver.write_reports()
    assert driver.reports[-3:] == ["4 first", "4 this one fails", "4 last"]


# A handler that keeps the network waiting


@pytest.mark.parametrize(
    ("seconds", "in_loop", "warned"), [(11.0, True, True), (10.0, True, False), (11.0, False, False)]
)
def test_a_handler_that_takes_half_the_heartbeat_in_the_loop_is_named(
    seconds: float, in_loop: bool, warned: bool
) -> None:
    class Slow(Service):
        def on_Happened(self, *_: Any) -> None:
            driver.clock += seconds

    driver = Slow(URLS[0], ["Happened"], [], "svc").begin_run(Runs)
    driver.tell(driver.machine.start)
    driver.tell(driver.machine.link_up, driver.machine.epoch)
    driver.in_loop = in_loop
    deliver(driver, "Happened")
    driver.work()
    expected = (
        "the handler of Happened kept the event loop for 11.0 s, longer than half the heartbeat (20 s), and no "
        "heartbeat was sent meanwhile; set HANDLER_THREADS"
    )
    assert (expected in driver.reports) == warned
    assert [outcome for what, _, outcome in driver.told] == [DONE]


# Traces


@pytest.mark.parametrize("elsewhere", [False, True], ids=["in the loop", "in a thread"])
@pytest.mark.parametrize(
    ("name", "left", "reason"),
    [
        ("Happened", "NoneType", ""),
        ("Fails", "NoneType", "LookupError: nothing there"),
        ("Exits", "SystemExit", ""),
        ("Endless", "Abandoned", ""),
    ],
)
def test_the_trace_of_a_handler_ends_with_it(name: str, left: str, reason: str, elsewhere: bool) -> None:
    _, driver = running()
    driver.tracing, driver.elsewhere = (traces := Traces()), elsewhere
    driver.take(name)
    driver.work()
    assert traces.told == [("handling", name, 1), ("left", name, left), ("end", name, reason)]


def test_the_trace_of_a_handler_ends_although_its_service_has_stopped() -> None:
    class Late(Service):
        def on_Happened(self, *_: Any) -> None:
            driver.over = True

    _, driver = running(Late)
    driver.tracing = traces = Traces()
    driver.take()
    driver.work()
    assert traces.told[-1] == ("end", "Happened", "")


def test_hooks_and_timers_have_no_trace() -> None:
    _, driver = running()
    driver.tracing = traces = Traces()
    driver.call(Ready(), lambda: None)
    driver.call(None, lambda: None)
    driver.work()
    assert traces.told == []
