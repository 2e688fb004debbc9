"""What a driver makes of the end of a handler: its outcome, its result, warnings; and what a stop does not wait for."""

from __future__ import annotations

from typing import Any

import pytest
from pamqp.commands import Basic

from eda_core.criticality import WARNING
from eda_core.drivers.base import name_of_hook
from eda_core.drivers.handling import Run
from eda_core.errors import Reject
from eda_core.machine.effects import Ack, Nack, Publish, PublishLog, Ready
from eda_core.machine.link import OPEN
from eda_core.machine.outcomes import DONE, Failed, Outcome
from eda_core.messages.codec import CBOR, Limits, decode
from eda_core.messages.values import Command, Event, LogRecord, Result
from eda_core.services.handlers import Handlers
from tests.core.drivers.test_base import EPOCH, Carrier, willing
from tests.core.drivers.traces import Traces
from tests.core.kit import of, only


class Shop(Handlers):
    """A service that handles what the tests deliver."""

    def on_Do(self, *_: Any) -> None: ...

    def on_Happened(self, *_: Any) -> None: ...

    def on_Settings(self, *_: Any) -> None: ...


def serving(**settings: Any) -> Carrier:
    """A driver whose link is open."""
    carrier = willing(Carrier(Shop(), **settings))
    carrier.tell(carrier.machine.start)
    assert carrier.machine.state is OPEN
    carrier.done.clear()
    return carrier


def deliver(carrier: Carrier, exchange: str, name: str, **properties: Any) -> Run:
    """Deliver a message, and return the run of its handler, which has begun."""
    headers = {"conversation_id": "c-1", **properties.pop("headers", {})}
    given = Basic.Properties(headers=headers, content_type="application/json", **properties)
    tag = len([what for what in carrier.done if what[0] == "dispatch"]) + 1
    carrier.tell(carrier.machine.delivered, carrier.machine.epoch, tag, False, exchange, name, given, b"1")
    _, delivery, message = carrier.done[-1]
    return Run(carrier.service, delivery, message, began=carrier.clock)


def command(carrier: Carrier, name: str = "svc.Do") -> Run:
    return deliver(carrier, "commands", name, reply_to="asker.DoReturn", correlation_id="k")


def end(carrier: Carrier, run: Run, returned: object = None) -> list[str]:
    """End the handler. Returns the warnings of the local log, each of which is on the bus as well."""
    carrier.run_ended(run, returned, carrier.clock)
    warnings = [what[2] for what in carrier.done if what[:2] == ("report", WARNING)]
    assert len(of(PublishLog, carrier.opened[0].asked)) >= len(warnings)
    return warnings


def results(carrier: Carrier) -> list[tuple[Any, ...]]:
    published = of(Publish, carrier.opened[0].asked)
    return [
        (each.routing_key, decode(each.body, each.properties.content_type), (each.properties.headers or {})["status"])
        for each in published
    ]


def test_what_the_handler_of_a_command_returns_is_its_result() -> None:
    carrier = serving()
    assert end(carrier, command(carrier), {"n": 2}) == []
    assert results(carrier) == [("asker.DoReturn", {"n": 2}, "success")]
    assert of(Ack, carrier.opened[0].asked) == [], "the result is not confirmed yet"


def test_a_result_that_cannot_be_written_is_a_failure_of_the_handler() -> None:
    carrier = serving()
    end(carrier, command(carrier), {"n": object()})
    assert results(carrier) == []
    assert only(Nack, carrier.opened[0].asked).requeue, "the retry policy decides, as about any failure"


def test_a_handler_that_fails_publishes_no_result() -> None:
    carrier = serving()
    run = command(carrier)
    run.failed(LookupError("nothing there"))
    assert end(carrier, run) == []
    assert results(carrier) == []
    assert only(Nack, carrier.opened[0].asked).requeue


def test_a_handler_that_returns_a_coroutine_has_failed() -> None:
    """A coroutine that nobody awaits has not done its work."""

    async def work() -> None: ...

    carrier, coroutine = serving(), work()
    end(carrier, deliver(carrier, "events", "Happened"), coroutine)
    coroutine.close()
    assert not only(Nack, carrier.opened[0].asked).requeue, "trying again would not help"


@pytest.mark.parametrize("published", [1, 2])
def test_a_command_is_answered_once(published: int) -> None:
    carrier = serving()
    run = command(carrier)
    assert run.message is not None
    for _ in range(published):
        carrier.answered(run, Result("asker.DoReturn", 1, "c-1", "success", "k"))
    warnings = end(carrier, run, {"n": 2})
    assert [text.partition(" of ")[0] for text in warnings] == [
        *["Shop.on_Do has published 2 results"] * (published - 1),
        "Shop.on_Do has published a result",
    ]
    assert warnings[-1].endswith(
        "; answer a command once: return its result, or call return_success() or return_error()"
    )
    assert results(carrier) == [], "the returned value is not published"


def test_a_command_that_is_not_answered_is_told() -> None:
    carrier = serving()
    (text,) = end(carrier, command(carrier))
    assert text.startswith("Shop.on_Do has not answered the command svc.Do")


def test_a_command_of_another_service_needs_no_answer() -> None:
    carrier = serving(commands=["other.Do"])
    assert end(carrier, command(carrier, "other.Do")) == []


def test_a_command_that_is_acknowledged_by_hand_may_be_answered_later() -> None:
    carrier = serving()
    assert end(carrier, command(carrier), True) == []


@pytest.mark.parametrize(
    ("exchange", "name", "returned", "rule"),
    [
        ("events", "Happened", {"a": 1}, "the handler of an event returns None, or True to acknowledge"),
        ("commands", "svc.DoReturn", 7, "the handler of a result returns None, or True to acknowledge"),
        (
            "configurations",
            "Settings",
            [1],
            "the handler of a configuration returns True when the service is configured",
        ),
    ],
)
def test_a_value_that_means_nothing_is_told(exchange: str, name: str, returned: object, rule: str) -> None:
    carrier = serving(configurations=["Settings"], wait_for_configuration=False)
    headers = {"status": "success"} if name == "svc.DoReturn" else {}
    run = deliver(carrier, exchange, name, headers=headers, correlation_id="k")
    (text,) = end(carrier, run, returned)
    assert f" returned {returned!r}: {rule}" in text
    counts = "this counts as True" if exchange == "configurations" else "this message is acknowledged"
    assert text.endswith(f"; {counts}")


def test_what_a_tool_returns_for_a_log_record_does_not_matter() -> None:
    carrier = serving()
    run = deliver(carrier, "events", "Happened")
    run.message = LogRecord("svc.ERROR", {"short_message": "no"}, "c-1")
    assert end(carrier, run, {"a": 1}) == []


def test_a_value_that_cannot_be_shown_is_told_by_its_type() -> None:
    class Odd:
        def __repr__(self) -> str:
            raise ValueError("no words")

    carrier = serving()
    (text,) = end(carrier, deliver(carrier, "events", "Happened"), Odd())
    assert text.startswith("Shop.on_Happened returned a value of type Odd: ")


@pytest.mark.parametrize(
    ("returned", "words"),
    [
        (True, "uses an inbox and acknowledges svc.Do by hand: what is published after the block is lost if"),
        ({"n": 1}, "uses an inbox and returns the result of svc.Do, which the inbox does not keep"),
    ],
)
def test_an_inbox_does_not_keep_what_comes_behind_its_block(returned: object, words: str) -> None:
    carrier = serving()
    run = command(carrier)
    run.keys = ("k",)
    (text,) = end(carrier, run, returned)
    assert text.startswith(f"Shop.on_Do {words}")


def rejected(run: Run) -> Run:
    run.failed(Reject("no such customer"))
    return run


def test_a_rejected_command_is_answered_and_then_dead_lettered() -> None:
    carrier = serving()
    end(carrier, rejected(command(carrier)))
    assert results(carrier) == [("asker.DoReturn", {"reason": "no such customer"}, "error")]
    assert of(Nack, carrier.opened[0].asked) == [], "the result is not confirmed yet"
    sent = only(Publish, carrier.opened[0].asked)
    carrier.tell(carrier.machine.confirmed, carrier.machine.epoch, sent.tag)
    assert not only(Nack, carrier.opened[0].asked).requeue


def test_a_rejected_event_is_dead_lettered() -> None:
    carrier = serving()
    end(carrier, rejected(deliver(carrier, "events", "Happened")))
    assert results(carrier) == []
    assert not only(Nack, carrier.opened[0].asked).requeue


def test_a_rejection_that_cannot_be_published_is_told() -> None:
    carrier = serving(limits=Limits(max_bytes=10))
    (text,) = (text for text in end(carrier, rejected(command(carrier))) if "rejected command" in text)
    assert text.startswith("the rejected command svc.Do is not answered: ")


def test_a_handler_that_keeps_the_loop_is_told_from_half_the_heartbeat_on() -> None:
    carrier = serving(heartbeat=20)
    message = Event("Happened", 1, "c-1")
    carrier.check_blocking(message, 10.0, "do less")
    assert carrier.done == []
    carrier.check_blocking(message, 10.1, "do less")
    (told,) = (what[2] for what in carrier.done if what[0] == "report")
    assert told.startswith(
        "the handler of Happened kept the event loop for 10.1 s, longer than half the heartbeat (20 s)"
    )
    assert told.endswith("; do less")


def test_without_a_heartbeat_a_handler_may_keep_the_loop() -> None:
    carrier = serving(heartbeat=0)
    carrier.check_blocking(Event("Happened", 1, "c-1"), 1000.0, "do less")
    assert carrier.done == []


def test_a_service_with_a_handler_of_its_own_for_all_is_named_by_that() -> None:
    assert Run(Handlers(), message=Event("Happened", 1, "c-1")).name() == "Handlers.handle"


# What a stop has no time for


def told_by_a_stop(carrier: Carrier, runs: set[Run]) -> list[str]:
    carrier.running |= runs
    carrier.machine.hold(carrier.now())  # the machine knows of none of them
    carrier.stop(5.0)
    carrier.clock += 5.0
    carrier.tick()
    carrier.tick()
    return [what[2] for what in carrier.done if what[0] == "report" and "time of the stop" in what[2]]


def test_a_handler_that_has_not_ended_in_the_time_of_a_stop_is_named() -> None:
    carrier = serving()
    run = Run(carrier.service, message=Command("svc.Do", 1, "c", "a.DoReturn", "k"), began=70.0)
    assert told_by_a_stop(carrier, {run}) == [
        "the time of the stop is over, and Shop.on_Do has not ended after 35.0 s; the broker delivers unfinished "
        "messages again"
    ]


def test_several_are_named_in_one_line_the_oldest_first() -> None:
    carrier = serving()
    runs = {Run(carrier.service, message=Event("Happened", 1, "c"), began=100.0 - n) for n in range(12)}
    (text,) = told_by_a_stop(carrier, {*runs, Run(carrier.service, hook="Shop.on_ready", began=1.0)})
    assert "and 13 handlers have not ended: Shop.on_ready after 104.0 s, Shop.on_Happened after 16.0 s, " in text
    assert text.count("after") == 10
    assert ", …; the broker" in text


def test_a_stop_that_is_in_time_names_nothing() -> None:
    assert told_by_a_stop(serving(), set()) == []


def test_a_program_that_ends_itself_is_told_nothing_of_what_runs() -> None:
    carrier = serving()
    carrier.exit = SystemExit(3)
    assert told_by_a_stop(carrier, {Run(carrier.service, message=Event("Happened", 1, "c"))}) == []


# Where things run


def test_what_is_asked_for_and_posted_is_done_at_once_unless_an_adapter_has_threads() -> None:
    carrier = serving()
    seen: list[float] = []
    assert carrier.ask(lambda: 7) == 7
    carrier.post(lambda: seen.append(1.0))
    carrier.hand_over(lambda: seen.append(2.0))
    carrier.make_soon(lambda machine, now: seen.append(now) or [])  # type: ignore[func-returns-value]
    assert seen == [1.0, 2.0, carrier.clock]


@pytest.mark.parametrize("offset", [900.0, lambda: 900.0])
def test_the_wall_clock_is_an_offset_that_may_change(offset: Any) -> None:
    assert serving().wall_time(offset) == 1000.0


def test_no_exception_ends_a_service_unless_its_driver_says_so() -> None:
    assert not serving().ends_service(SystemExit(3))


def test_a_hook_is_named_by_its_method() -> None:
    assert name_of_hook(Ready(), Shop().on_ready) == "Shop.on_ready"
    assert name_of_hook(None, print) == "a timer or a batch"


# Traces


def traced(carrier: Carrier, run: Run) -> Traces:
    """Its user code has returned."""
    carrier.tracing = traces = Traces()
    carrier.trace(run)
    assert run.span is not None
    run.span.left(None)
    traces.told.clear()
    return traces


def test_the_trace_of_a_handler_tells_which_attempt_it_is() -> None:
    carrier = serving()
    run = command(carrier)
    carrier.trace(run)
    assert run.span is None, "nobody makes traces"
    carrier.tracing = traces = Traces()
    carrier.trace(run)
    carrier.trace(Run(carrier.service))
    assert traces.told == [("handling", "svc.Do", 1)]
    traces.spans[0].left(None)
    run.failed(LookupError())
    end(carrier, run)
    traces.told.clear()
    carrier.trace(Run(carrier.service, run.delivery, run.message))
    traces.spans[1].left(None)
    assert traces.told[0] == ("handling", "svc.Do", 0), "it is not in flight any more"


def test_a_result_belongs_to_the_trace_of_its_handler_which_has_left_its_context() -> None:
    carrier = serving()
    run = command(carrier)
    traces = traced(carrier, run)
    end(carrier, run, {"n": 2})
    sending = ("sending", "asker.DoReturn", "held", "svc.Do")
    assert traces.told == [sending, ("accepted", "tok-1"), ("sent", "NoneType")]
    published = only(Publish, carrier.opened[0].asked)
    assert (published.properties.headers or {})["trace"] == "svc.Do"
    assert run.failure is None


def test_the_answer_of_a_rejected_command_belongs_to_its_trace() -> None:
    carrier = serving()
    run = command(carrier)
    traces = traced(carrier, run)
    run.failed(Reject("no such card"))
    end(carrier, run)
    assert traces.told[0] == ("sending", "asker.DoReturn", "", "svc.Do")


def test_a_trace_knows_that_the_result_could_not_be_published() -> None:
    carrier = serving()
    run = command(carrier)
    traces = traced(carrier, run)
    end(carrier, run, {"n": object()})
    assert traces.told[1:] == [("sent", "PayloadError")]
    assert run.failure is not None
    assert "PayloadError" in run.failure.reason


def test_traces_know_the_broker() -> None:
    carrier = Carrier(Shop())
    carrier.tracing = traces = Traces()
    carrier.tell(carrier.machine.start)
    assert traces.told == [("connecting", carrier.machine.urls[0], carrier.machine.config.connection_name)]


def test_who_times_handlers_hears_of_each_end() -> None:
    """It hears the outcome that the machine is told, which an inbox may have changed."""
    carrier, told = willing(Carrier()), list[tuple[str, float, Outcome]]()
    carrier.timed = lambda message, seconds, end: told.append((message.name, seconds, end))
    carrier.tell(carrier.machine.start)
    for tag, failure in ((1, None), (2, Failed("no"))):
        properties = Basic.Properties(headers={"conversation_id": "c-1"}, content_type=CBOR)
        carrier.tell(carrier.machine.delivered, EPOCH, tag, False, "events", "Happened", properties, b"\xf6")
        _, delivery, message = next(what for what in carrier.done[::-1] if what[0] == "dispatch")
        run = Run(carrier.service, delivery, message, failure=failure, began=carrier.clock)
        carrier.at_end[delivery] = lambda end, now: end if end is DONE else Failed("worse")
        carrier.clock += 0.5
        carrier.run_ended(run, None, run.began)
    assert told == [("Happened", 0.5, DONE), ("Happened", 0.5, Failed("worse"))]
