"""What becomes of what handlers return, and which commands are answered: in drivers of both kinds."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from pamqp.commands import Basic

from eda_core.criticality import WARNING
from eda_core.drivers.answers import REMEMBERED, Answers
from eda_core.drivers.handling import Run
from eda_core.errors import Reject
from eda_core.machine.effects import Ack, Nack, Publish, PublishLog
from eda_core.messages.codec import Limits, decode
from eda_core.messages.values import Command, Result
from tests.core.drivers import jobs, turning
from tests.core.kit import URLS, of, only

Answer = Callable[[Any, Any, Any, Any], Any]


class Bench:
    """A service of one kind of driver whose handlers do what the test says.

    Attributes:
        driver: its driver.
        reports: the warnings and worse that it has written to the local log.
    """

    def __init__(self, driver: Any, answer: Callable[[Any], Any]) -> None:
        self.driver = driver
        self.answer = answer
        self.reports: list[str] = []
        self.tag = 0
        self.driver.report = self._report

    def _report(self, level: int, text: str, event: str) -> None:
        if level <= WARNING:
            self.reports.append(text)

    def deliver(self, exchange: str, name: str, **properties: Any) -> None:
        headers = {"conversation_id": "c-1", **properties.pop("headers", {})}
        given = Basic.Properties(headers=headers, content_type="application/json", **properties)
        self.tag += 1
        driver = self.driver
        driver.tell(driver.machine.delivered, driver.machine.epoch, self.tag, False, exchange, name, given, b"1")
        self.turn()

    def command(self, name: str = "svc.Do", correlation_id: str = "k") -> None:
        self.deliver("commands", name, reply_to="asker.DoReturn", correlation_id=correlation_id)

    def turn(self) -> None:
        (self.driver.work if isinstance(self.driver, jobs.Runs) else self.driver.turn)()

    @property
    def done(self) -> list[Any]:
        return self.driver.link.asked  # type: ignore[no-any-return]

    def results(self) -> list[tuple[Any, ...]]:
        """What was published as results: the key, the payload, the status and the correlation id of each."""
        return [
            (
                publish.routing_key,
                decode(publish.body, publish.properties.content_type),
                (publish.properties.headers or {}).get("status"),
                publish.properties.correlation_id,
            )
            for publish in of(Publish, self.done)
        ]

    def confirm(self) -> None:
        driver = self.driver
        driver.tell(driver.machine.confirmed, driver.machine.epoch, of(Publish, self.done)[-1].tag)

    def logs(self) -> list[tuple[int, str, Any]]:
        """The log records on the bus: the level, the short message and the conversation of each."""
        records = [json.loads(log.body) for log in of(PublishLog, self.done)]
        return [(each["level"], each["short_message"], each.get("_conversation_id")) for each in records]

    def said(self) -> str:
        """The only warning: it is in the local log and on the bus, with the conversation."""
        (text,) = self.reports
        assert self.logs() == [(4, text, "c-1")]
        return text


class Plain(jobs.Service):
    bench: Bench

    def on_Do(self, *_: Any) -> Any:
        return self.bench.answer(self)

    on_Paid = on_DoReturn = on_Settings = on_Do


class Waiting(turning.Service):
    bench: Bench

    async def on_Do(self, *_: Any) -> Any:
        returned = self.bench.answer(self)
        for each in returned if isinstance(returned, tuple) else (returned,):
            returned = await each if hasattr(each, "__await__") else each
        return returned

    on_Paid = on_DoReturn = on_Settings = on_Do


@pytest.fixture(params=["callbacks", "coroutines"])
def make(request: pytest.FixtureRequest) -> Callable[..., Bench]:
    def made(answer: Callable[[Any], Any], configurations: tuple[str, ...] = ()) -> Bench:
        kind: Any = Plain if request.param == "callbacks" else Waiting
        service = kind(URLS[0], ["Paid"], ["svc.Do", "svc.DoReturn"], "svc", configurations)
        if kind is Plain:
            driver: Any = service.begin_run(jobs.Runs)
            driver.tell(driver.machine.start)
            driver.tell(driver.machine.link_up, driver.machine.epoch)
            driver.work()
        else:
            driver, _ = turning.running(service)
        service.bench = Bench(driver, answer)
        return service.bench  # type: ignore[no-any-return]

    return made


# Values


@pytest.mark.parametrize("returned", [{"a": 1}, 1, "yes", [], 0])
def test_a_value_from_the_handler_of_an_event_is_told_of_and_holds_nothing(make: Any, returned: Any) -> None:
    bench = make(lambda service: returned)
    bench.deliver("events", "Paid")
    assert only(Ack, bench.done).tag == 1
    assert bench.said() == (
        f"{type(bench.driver.service).__name__}.on_Paid returned {returned!r}: the handler of an event returns None, "
        "or True to acknowledge the message by hand; this message is acknowledged"
    )


def test_a_value_from_the_handler_of_a_result_is_told_of_and_holds_nothing(make: Any) -> None:
    bench = make(lambda service: {"a": 1})
    bench.deliver("commands", "svc.DoReturn", headers={"status": "success"})
    assert only(Ack, bench.done).tag == 1
    assert ".on_DoReturn returned {'a': 1}: the handler of a result returns None, or True" in bench.said()


@pytest.mark.parametrize(("returned", "counts"), [({"a": 1}, "True"), ([], "None")])
def test_a_value_from_the_handler_of_a_configuration_counts_as_with_eventail(
    make: Any, returned: Any, counts: str
) -> None:
    bench = make(lambda service: returned, ("Settings",))
    bench.deliver("configurations", "Settings")
    assert bench.driver.machine._configured is (counts == "True")
    assert bench.said().endswith(
        f".on_Settings returned {returned!r}: the handler of a configuration returns True when the service is "
        f"configured, and None otherwise; this counts as {counts}"
    )


class Unspeakable:
    def __repr__(self) -> str:
        raise ValueError("no words")


def test_a_value_that_cannot_be_shown_is_named_by_its_type(make: Any) -> None:
    bench = make(lambda service: Unspeakable())
    bench.deliver("events", "Paid")
    assert ".on_Paid returned a value of type Unspeakable: " in bench.said()


@pytest.mark.parametrize("returned", [None, True, False])
def test_the_signs_are_not_told_of(make: Any, returned: Any) -> None:
    bench = make(lambda service: returned)
    bench.deliver("events", "Paid")
    assert bench.reports == bench.logs() == []


# Results


@pytest.mark.parametrize("returned", [{"sum": 3}, {}, 0, "", [1], 2.5])
def test_what_the_handler_of_a_command_returns_is_its_result(make: Any, returned: Any) -> None:
    bench = make(lambda service: returned)
    bench.command()
    assert bench.results() == [("asker.DoReturn", returned, "success", "k")]
    assert (only(Publish, bench.done).properties.headers or {})["conversation_id"] == "c-1"
    assert only(Publish, bench.done).mandatory
    assert of(Ack, bench.done) == [], "not before the result is confirmed"
    bench.confirm()
    assert only(Ack, bench.done).tag == 1
    assert bench.reports == bench.logs() == []


def test_a_result_that_cannot_be_written_is_a_failure_of_its_handler(make: Any) -> None:
    bench = make(lambda service: object())
    bench.command()
    assert [*of(Publish, bench.done), *of(Ack, bench.done)] == []
    assert only(Nack, bench.done).requeue
    named = "PayloadError: result asker.DoReturn: payload cannot be written as application/cbor: "
    assert named in bench.reports[0]


def _stumble(service: Any) -> Any:
    raise KeyError("amount")


def test_the_traceback_of_a_failure_begins_with_the_code_of_the_user(make: Any) -> None:
    bench = make(_stumble)
    bench.deliver("events", "Paid")
    line, title, first, *_ = bench.reports[0].splitlines()
    assert (line, title) == ("Paid: KeyError: 'amount'", "Traceback (most recent call last):")
    assert f'File "{__file__}"' in first
    assert bench.reports[0].endswith("KeyError: 'amount'\n")


def _success(service: Any) -> Any:
    return service.return_success("asker.DoReturn", 1, "c-1", "k")


def test_a_returned_payload_is_no_second_result(make: Any) -> None:
    def answer(service: Any) -> Any:
        answered = _success(service)
        return {"sum": 3} if answered is None else (answered, {"sum": 3})

    bench = make(answer)
    bench.command()
    assert [payload for _, payload, *_ in bench.results()] == [1]
    assert bench.said().endswith(
        ".on_Do has published a result of svc.Do and returns {'sum': 3}, which is not published; answer a command "
        "once: return its result, or call return_success() or return_error()"
    )


def test_two_results_are_told_of(make: Any) -> None:
    def answer(service: Any) -> Any:
        answered = (_success(service), _success(service), None)
        return None if answered[0] is None else answered

    bench = make(answer)
    bench.command()
    assert len(bench.results()) == 2
    text = bench.reports[0]
    assert ".on_Do has published 2 results of one command svc.Do; answer a command once" in text
    assert bench.logs()[0] == (4, text, "c-1")


def test_a_command_that_is_not_answered_is_told_of(make: Any) -> None:
    bench = make(lambda service: None)
    bench.command()
    assert only(Ack, bench.done).tag == 1
    assert bench.said().endswith(
        ".on_Do has not answered the command svc.Do; return the result, or call return_success() or return_error(); to "
        "answer later, return True, and acknowledge the message then"
    )


@pytest.mark.parametrize(("key", "correlation_id"), [("other.DoReturn", "k"), ("asker.DoReturn", "other")])
def test_a_result_with_another_key_or_correlation_id_is_no_answer(make: Any, key: str, correlation_id: str) -> None:
    bench = make(lambda service: service.return_success(key, 1, "c-1", correlation_id))
    bench.command()
    assert "has not answered the command svc.Do" in bench.said()


def test_who_answers_later_or_only_watches_is_not_told_so(make: Any) -> None:
    deferred = make(lambda service: True)
    deferred.command()
    watching = make(lambda service: None)
    watching.command("other.Do")
    assert deferred.reports == watching.reports == []


def test_a_service_that_is_seen_to_answer_later_is_not_told_again(make: Any) -> None:
    bench = make(lambda service: None)
    bench.command()
    assert len(bench.reports) == 1
    answered = bench.driver.service.return_success("asker.DoReturn", 1, "c-1", "k")
    if answered is not None:
        bench.driver.begin(answered)
    bench.command(correlation_id="k2")
    assert len(bench.reports) == 1


def test_commands_without_an_answer_are_told_of_less_and_less() -> None:
    answers, said = Answers(), []
    for number in range(3 * REMEMBERED):
        command = Command("svc.Do", 1, "c", "asker.DoReturn", f"k{number}")
        said.append(bool(answers.ended(Run(object(), message=command), command)))
    assert [number + 1 for number, each in enumerate(said) if each] == [2**power for power in range(12)]
    assert len(answers._open) == REMEMBERED


def test_the_names_of_commands_are_forgotten_some_day() -> None:
    answers = Answers()
    for number in range(2 * REMEMBERED):
        command = Command(f"svc.Do{number}", 1, "c", "asker.DoReturn", f"k{number}")
        answers.ended(Run(object(), message=command), command)
    assert len(answers._counts) == REMEMBERED
    assert answers.published(None, Result("asker.DoReturn", 1, "c", "success", "k0")) == ""


# Keys for results


def _send(service: Any, *reply_tos: str) -> Any:
    asked = tuple(service.send_command("peer.Do", 1, "c-1", reply_to, "k") for reply_to in reply_tos)
    return None if asked[0] is None else (*asked, None)


def test_a_key_for_results_that_nobody_gets_is_told_of_once(make: Any) -> None:
    bench = make(lambda service: _send(service, "svc.PeerReturn", "svc.PeerReturn"))
    bench.deliver("events", "Paid")
    assert len(of(Publish, bench.done)) == 2
    assert bench.said() == (
        "the result of peer.Do cannot come: this service does not subscribe to its reply_to 'svc.PeerReturn'; add "
        "'svc.PeerReturn' to command_routing_keys, and define on_PeerReturn()"
    )


def test_other_keys_for_results_are_right(make: Any) -> None:
    bench = make(lambda service: _send(service, "svc.DoReturn", "other.DoReturn", "replies"))
    bench.deliver("events", "Paid")
    assert bench.reports == []


def test_so_many_keys_for_results_are_checked_and_no_more(make: Any) -> None:
    bench = make(lambda service: _send(service, *(f"svc.Return{number}" for number in range(1100))))
    bench.deliver("events", "Paid")
    assert len(bench.reports) == len(bench.driver.service._eda_reply_keys) == 1000


# Rejections


def _reject(_service: Any) -> None:
    raise Reject("no such customer", hint="create it first")


def test_a_rejected_command_is_answered_with_the_reason_before_it_is_dead_lettered(make: Any) -> None:
    bench = make(_reject)
    bench.command()
    reason = {"reason": "no such customer; create it first"}
    assert bench.results() == [("asker.DoReturn", reason, "error", "k")]
    assert of(Nack, bench.done) == [], "not before the result is confirmed"
    bench.confirm()
    nack = only(Nack, bench.done)
    assert (nack.tag, nack.requeue) == (1, False)
    assert any("no such customer" in text for text in bench.reports)


def test_a_rejected_command_whose_results_were_held_has_one_answer(make: Any) -> None:
    def answer(service: Any) -> Any:
        answered = _success(service)
        if answered is not None:
            return (answered, _Raises())
        raise Reject("after all")

    bench = make(answer)
    bench.command()
    assert [status for *_, status, _ in bench.results()] == ["error"]


class _Raises:
    def __await__(self) -> Any:
        raise Reject("after all")


def test_a_rejected_event_is_dead_lettered_at_once(make: Any) -> None:
    bench = make(_reject)
    bench.deliver("events", "Paid")
    assert bench.results() == []
    assert only(Nack, bench.done).requeue is False
    assert any("Reject: no such customer; create it first" in text for _, text, _ in bench.logs())


def test_a_rejected_command_whose_answer_cannot_be_sent_is_dead_lettered_all_the_same(make: Any) -> None:
    bench = make(_reject)
    bench.driver.machine.config = replace(bench.driver.machine.config, limits=Limits(max_bytes=1))
    bench.command()
    assert bench.results() == []
    answer = "the rejected command svc.Do is not answered: result asker.DoReturn: payload is 43 bytes"
    assert bench.reports[0].startswith(answer)
    assert only(Nack, bench.done).requeue is False
