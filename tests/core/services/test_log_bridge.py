"""What becomes of the records that a program logs, and in which order they are sent."""

from __future__ import annotations

import json
import logging
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest

from eda_core.criticality import CRITICAL, DEBUG, ERROR, INFO, NOTICE, WARNING
from eda_core.drivers.handling import handling
from eda_core.drivers.library import library_at_work, quieten
from eda_core.errors import LocalError, StateError
from eda_core.machine.effects import PublishLog
from eda_core.machine.identifiers import DeliveryId
from eda_core.messages.values import Event
from eda_core.services import log_bridge
from eda_core.services.log_bridge import LogBridge, LogEntry, entry_of, severity_of
from tests.core.drivers.jobs import Runs, Service, running
from tests.core.kit import URLS, WALL, of


def record(text: str = "text", *args: Any, name: str = "shop", level: int = 20, **more: Any) -> logging.LogRecord:
    made = logging.LogRecord(name, level, "/app/shop.py", 7, text, args, more.pop("exc_info", None), "sell")
    made.created = 1_700_000_000.25
    vars(made).update(more)
    return made


def failure(error: Exception) -> Any:
    try:
        raise error
    except Exception:
        return sys.exc_info()


# What is sent of a record


@pytest.mark.parametrize(
    ("level", "severity"),
    [
        (0, DEBUG),
        (10, DEBUG),
        (19, DEBUG),
        (20, INFO),
        (24, INFO),
        (25, NOTICE),
        (30, WARNING),
        (40, ERROR),
        (50, CRITICAL),
        (99, CRITICAL),
    ],
)
def test_levels_become_severities(level: int, severity: int) -> None:
    assert severity_of(level) == severity


def test_a_plain_record() -> None:
    assert entry_of(record("sold %d", 3, threadName="main")) == LogEntry(
        created=1_700_000_000.25,
        severity=INFO,
        short="sold 3",
        fields={"logger": "shop", "file": "/app/shop.py", "line": 7, "function": "sell", "thread": "main"},
    )


def test_an_exception_and_more_lines_are_in_the_full_message() -> None:
    entry = entry_of(record("\nfirst\nsecond", exc_info=failure(ValueError("no")), stack_info="Stack:\n  here"))
    assert entry.short == "first"
    assert entry.full.startswith("\nfirst\nsecond\nTraceback (most recent call last):\n")
    assert entry.full.endswith("ValueError: no\nStack:\n  here")
    assert entry_of(record("text", exc_text="formatted before")).full == "text\nformatted before"


@pytest.mark.parametrize(
    ("made", "short", "full"),
    [
        (record(""), "(empty)", ""),
        (record("", exc_text="Traceback:\nValueError: no"), "ValueError: no", "Traceback:\nValueError: no"),
        (record("%d", "x"), "%d (cannot be formatted: TypeError)", ""),
        (record("text", exc_info=(None, None, None)), "text", ""),
        (record("text", exc_info=True), "text", ""),
    ],
)
def test_odd_records(made: logging.LogRecord, short: str, full: str) -> None:
    entry = entry_of(made)
    assert (entry.short, entry.full) == (short, full)


class Unprintable(Exception):
    def __str__(self) -> str:
        raise LookupError


def test_what_cannot_be_printed_raises_nothing() -> None:
    assert entry_of(record("text", exc_info=(Unprintable, Unprintable(), None))).full.startswith("text\n")
    assert entry_of(record("text", odd=Unprintable())).fields["odd"] == "<Unprintable>"
    entry = entry_of(record("%d", Unprintable(), msg=Unprintable()))
    assert entry.short == "<Unprintable> (cannot be formatted: LookupError)"


def test_a_traceback_that_cannot_be_made_raises_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any) -> Any:
        raise LookupError

    monkeypatch.setattr("traceback.format_exception", fails)
    assert entry_of(record("text", exc_info=failure(ValueError("no")))).full == "text\nValueError"


def test_added_fields_are_sent_where_gelf_allows_them() -> None:
    added: Any = {"order": 7, "price": 1.5, "paid": True, "none": None, "who": {"a": 1}, "id": 1, "worker_pid": 2}
    added |= {"a b": 1, "é": 2, "": 3, "file": "mine", "eda_event": "x"}
    entry = entry_of(record(**added))
    usual = {"logger": "shop", "file": "mine", "line": 7, "function": "sell", "thread": threading.current_thread().name}
    assert entry.fields == usual | {"order": 7, "price": 1.5, "paid": "True", "who": "{'a': 1}"}
    assert entry_of(record(conversation_id="c-2"), "c-1").conversation_id == "c-2"
    assert entry_of(record(conversation_id=None), "c-1").conversation_id == "c-1"


# How records are sent


def bridge(**named: Any) -> tuple[LogBridge, Runs]:
    """A bridge of a service whose link is open."""
    service, driver = running()
    service._eda_wall_offset = WALL
    return LogBridge(service, **named), driver


def sent(driver: Runs) -> list[dict[str, Any]]:
    return [json.loads(effect.body) for effect in of(PublishLog, driver.link.asked)]


def texts(driver: Runs) -> list[str]:
    return [each["short_message"] for each in sent(driver)]


def test_a_record_is_handed_over_and_sent_as_it_was() -> None:
    made, driver = bridge()
    changed = record("sold %s", ["pen"], level=40, order=7)
    made.put(changed)
    changed.msg = "other"
    assert (sent(driver), driver.woken) == ([], 1)
    driver.do_posted()
    (found,) = sent(driver)
    assert (found["short_message"], found["level"], found["_order"], found["_line"]) == ("sold ['pen']", ERROR, 7, 7)
    assert found["timestamp"] == pytest.approx(1_700_000_000.25, abs=0.001)
    (effect,) = of(PublishLog, driver.link.asked)
    assert (effect.exchange, effect.routing_key) == ("logs", "svc.ERROR")


def test_a_record_of_a_handler_has_its_conversation() -> None:
    service, driver = running()
    made = LogBridge(service)
    with handling(service, DeliveryId(1), Event("Happened", 1, "c-9", {})):
        made.put(record())
    with handling(service):
        made.put(record())
    driver.do_posted()
    assert [each["_conversation_id"] for each in sent(driver)] == ["c-9", ""]


def test_many_records_are_handed_over_once_and_sent_in_turns() -> None:
    made, driver = bridge()
    for number in range(250):
        made.put(record(str(number)))
    assert (driver.woken, len(driver._posted)) == (1, 1)
    while driver._posted:
        driver.do_posted()
    assert texts(driver) == [str(number) for number in range(250)]
    assert made.dropped == 0


def test_what_the_service_forgets_is_handed_over_again() -> None:
    made, driver = bridge()
    made.put(record("first"))
    driver._posted.clear()  # thousands of other calls have taken its place
    for number in range(log_bridge._CALLED_AGAIN):
        made.put(record(str(number)))
    driver.do_posted()
    assert texts(driver)[:2] == ["first", "0"]


@pytest.mark.parametrize("name", ["eda_core", "eda_aio", "eda_pika.x", "eda_kombu", "eda_logging", "eda_otel"])
def test_what_the_toolkit_logs_is_not_sent(name: str) -> None:
    made, driver = bridge()
    made.put(record(name=name))
    assert not driver._posted
    made.put(record(name="eda_corex"))
    driver.do_posted()
    assert len(sent(driver)) == 1


def test_what_the_library_logs_at_its_work_is_not_sent_and_neither_is_what_sending_logs() -> None:
    service, driver = running()
    made = LogBridge(service)
    logger = logging.Logger("library.connection")
    quieten([logger], logging.getLogger("tests.adapter"))
    with library_at_work():
        own = record(name=logger.name)
        logger.filter(own)
        made.put(own)
        assert not driver._posted
        made.put(record("signalled"))  # a handler of signals runs anywhere
    driver.do_posted()
    assert texts(driver) == ["signalled"]

    def noisy() -> None:
        made.put(record("woken", name="asyncio"))

    driver.wake = noisy  # type: ignore[method-assign]
    perform = driver.link.perform

    def noisily(effect: Any) -> None:
        made.put(record("sent", name="anything"))
        perform(effect)

    driver.link.perform = noisily  # type: ignore[method-assign]
    made.put(record("text"))
    driver.do_posted()
    assert texts(driver) == ["signalled", "text"]
    assert not driver._posted


# What is kept, and what is dropped


def test_records_are_kept_until_the_service_is_ready() -> None:
    service = Service(URLS[0], ["Happened"], [], "svc")
    made = LogBridge(service)
    for number in range(3):
        made.put(record(str(number)))
    driver = service.begin_run(Runs)
    made.put(record("3"))
    driver.do_posted()
    driver.tell(driver.machine.start)
    made.put(record("4"))
    driver.do_posted()
    assert sent(driver) == []
    driver.tell(driver.machine.link_up, driver.machine.epoch)
    driver.do_posted()
    assert texts(driver) == ["0", "1", "2", "3", "4"]


def test_records_are_kept_while_there_is_no_link() -> None:
    made, driver = bridge()
    driver.tell(driver.machine.link_down, driver.machine.epoch, "gone")
    made.put(record("1"))
    driver.do_posted()
    made.put(record("2"))
    driver.do_posted()
    assert sent(driver) == []
    driver.clock += 60.0
    driver.tick()
    driver.tell(driver.machine.link_up, driver.machine.epoch)
    driver.do_posted()
    assert texts(driver) == ["1", "2"]


def lines(driver: Runs) -> list[str]:
    return [line for line in driver.reports if "dropped" in line]


def test_the_oldest_are_dropped_and_that_is_said_once_in_a_while() -> None:
    made, driver = bridge(capacity=3)
    driver.tell(driver.machine.link_down, driver.machine.epoch, "gone")
    for number in range(5):
        made.put(record(str(number)))
        driver.do_posted()
    assert made.dropped == 2
    assert len(lines(driver)) == 1
    assert lines(driver)[0].startswith("1 log record(s) of the program were dropped: it logs more than can be sent; ")
    driver.clock += 60.0
    driver.tick()
    driver.tell(driver.machine.link_up, driver.machine.epoch)
    driver.do_posted()
    assert [line[:6] for line in lines(driver)] == ["1 log ", "1 log "]
    assert [text for text in texts(driver) if "dropped" not in text] == ["2", "3", "4"]
    assert sum("dropped" in text for text in texts(driver)) == 2
    assert made.dropped == 2


def test_many_threads_lose_nothing_uncounted() -> None:
    service, driver = running()
    made = LogBridge(service, capacity=500)

    def log(number: int) -> None:
        for each in range(300):
            made.put(record(f"{number}.{each}"))

    threads = [threading.Thread(target=log, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        driver.do_posted()
    while driver._posted:
        driver.do_posted()
    logged = [text for text in texts(driver) if "dropped" not in text]
    assert len(logged) + made.dropped == 8 * 300
    for number in range(8):
        own = [int(text.split(".")[1]) for text in logged if text.startswith(f"{number}.")]
        assert own == sorted(own)


# The end


def test_after_the_end_it_falls_silent() -> None:
    made, driver = bridge()
    made.put(record("kept"))
    driver.over = True
    driver.do_posted()
    made.put(record("late"))
    assert (sent(driver), len(made._kept)) == ([], 0)

    made, driver = bridge()
    driver.over = True
    made.put(record("late"))
    made.put(record("later"))
    assert (sent(driver), len(made._kept), len(driver._posted)) == ([], 0, 0)


def test_the_end_of_the_service_ends_the_wait_for_a_link() -> None:
    service = Service(URLS[0], ["Happened"], [], "svc")
    made = LogBridge(service)
    made.put(record())
    service.begin_run(Runs)
    service._eda_readiness.end(StateError("the service has stopped"))
    assert made._over
    made.put(record())
    assert len(made._kept) == 0


def test_a_service_that_was_refused_to_run_may_run_later() -> None:
    service = Service(URLS[0], ["Happened"], [], "svc")
    made = LogBridge(service)
    made.put(record("1"))
    service._eda_readiness.end(LocalError("a setting is wrong"))
    made.put(record("2"))
    assert len(made._kept) == 2
    driver = service.begin_run(Runs)
    driver.tell(driver.machine.start)
    driver.tell(driver.machine.link_up, driver.machine.epoch)
    made.put(record("3"))
    driver.do_posted()
    assert texts(driver) == ["1", "2", "3"]


def test_a_fork_sends_nothing_and_raises_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    made, driver = bridge()
    forked: Callable[[], bool] = lambda: True  # noqa: E731
    monkeypatch.setattr(driver, "forked", forked)
    made.put(record())
    made.put(record())
    assert sent(driver) == []


def test_wrong_arguments_are_told() -> None:
    wrong: Any = "shop"
    with pytest.raises(LocalError, match="the service is str; give a Service of eda_aio or eda_pika"):
        LogBridge(wrong)
    service, _ = running()
    for capacity in (0, 1.5, True, None):
        wrong = capacity
        with pytest.raises(LocalError, match=r"capacity is .*; give a whole number from 1"):
            LogBridge(service, wrong)
