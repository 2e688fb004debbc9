"""One Endpoint is used by handlers of signals and of logging, iterables and threads: nobody waits for ever."""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

import cbor2
import pytest

from eda_core import LocalError, criticality
from eda_kombu import Endpoint, PartlyPublished
from eda_tools.broker import EmbeddedBrokerThread
from tests.adapters.kombu.support import Background, ProxyThread, Publisher, Witness, until, witness


@pytest.fixture
def embedded() -> Iterator[EmbeddedBrokerThread]:
    with EmbeddedBrokerThread() as broker:
        yield broker


class Brief(Publisher):
    STOP_TIMEOUT = 1.0


class PassOn(logging.Handler):
    """A handler of Python's logging that logs to the bus."""

    def __init__(self, endpoint: Endpoint) -> None:
        super().__init__()
        self._endpoint = endpoint

    def emit(self, record: logging.LogRecord) -> None:
        self._endpoint.log(criticality.INFO, record.getMessage())


@contextmanager
def passing_on(endpoint: Endpoint) -> Iterator[logging.Logger]:
    """In the block, what the adapter reports goes to the bus, and what the logger gets that this yields."""
    handler, loggers = PassOn(endpoint), [logging.getLogger(name) for name in ("eda_kombu", "an application")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.addHandler(handler)
        logger.setLevel(logging.DEBUG)
    try:
        yield loggers[1]
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.removeHandler(handler)
            logger.setLevel(level)


@contextmanager
def interrupting(handler: Callable[[], object]) -> Iterator[Callable[[], None]]:
    """Yields a function that makes ``handler`` run as a handler of signals, in the main thread."""
    before = signal.signal(signal.SIGUSR1, lambda *_: handler())
    try:
        yield lambda: os.kill(os.getpid(), signal.SIGUSR1)
    finally:
        signal.signal(signal.SIGUSR1, before)


def texts(seen: Witness, queue: str, count: int) -> list[str]:
    return [json.loads(body)["short_message"] for _, _, body in seen.take(queue, count)]


# --- logging ---


def test_what_is_reported_at_the_end_may_be_passed_on(embedded: EmbeddedBrokerThread) -> None:
    endpoint = Publisher(embedded.url, "source")
    with passing_on(endpoint):
        endpoint.publish_event("Happened", 1, "c")
        Background(endpoint.close).get()
    with pytest.raises(LocalError, match="the endpoint is closed"):
        endpoint.log(criticality.INFO, "too late")


def test_what_is_reported_before_it_connects_anew_may_be_passed_on(embedded: EmbeddedBrokerThread) -> None:
    class Quick(Publisher):
        HEARTBEAT = 1

    with ProxyThread(embedded.url) as front, Quick(front.url, "source") as endpoint, passing_on(endpoint):
        endpoint.publish_event("Happened", 1, "c")
        front.call(front.proxy.quiet)
        Background(endpoint.publish_event, "Happened", 2, "c").get()
        assert front.proxy.accepted == 2


def test_threads_may_pass_on_what_they_log_while_another_one_publishes(embedded: EmbeddedBrokerThread) -> None:
    """A handler of Python's logging gets one record at a time. The next one may be the endpoint's own report."""
    with (
        witness(embedded.url) as seen,
        ProxyThread(embedded.url) as front,
        Publisher(front.url, "source") as endpoint,
        passing_on(endpoint) as application,
    ):
        queue, enough = seen.queue("events", name="kept"), threading.Event()

        def chat() -> None:
            while not enough.wait(0.001):
                application.info("hello")

        chats = [Background(chat) for _ in range(2)]
        for number in range(10):
            front.call(front.proxy.cut)
            Background(endpoint.publish_event, "Happened", number, "c").get()
        enough.set()
        for each in chats:
            each.get()
        assert {cbor2.loads(body) for body in seen.all(queue)} == set(range(10))


def test_a_log_does_not_wait_for_a_publish_and_is_sent_in_its_course(embedded: EmbeddedBrokerThread) -> None:
    with witness(embedded.url) as seen, Publisher(embedded.url, "source") as endpoint:
        queue, more = seen.queue("logs"), threading.Event()

        def events() -> Iterator[tuple[str, int, str]]:
            yield "Happened", 1, "c"
            more.wait()
            yield "Happened", 2, "c"
            endpoint.log(criticality.INFO, "mine")

        publish = Background(endpoint.publish_many, events())
        until(lambda: endpoint._process().user, "the publish begins")
        details = {"state": "before"}
        Background(endpoint.log, criticality.INFO, "another thread's", additional_fields=details).get()
        details["state"] = "after"
        for wrong in ((9, "short"), (3, "short", "", "", {"id": 1})):
            with pytest.raises(LocalError):
                endpoint.log(*wrong)
        more.set()
        assert publish.get() == 2
        (first, second) = (json.loads(body) for _, _, body in seen.take(queue, 2))
        assert (first["short_message"], first["_state"], second["short_message"]) == (
            "another thread's",
            "before",
            "mine",
        )


# --- handlers of signals ---


def test_a_handler_of_signals_may_log(embedded: EmbeddedBrokerThread) -> None:
    with witness(embedded.url) as seen, Publisher(embedded.url, "source") as endpoint:
        queue = seen.queue("logs")
        with interrupting(lambda: endpoint.log(criticality.NOTICE, "a signal")) as interrupt:

            def events() -> Iterator[tuple[str, int, str]]:
                yield "Happened", 1, "c"
                interrupt()
                yield "Happened", 2, "c"

            assert endpoint.publish_many(events()) == 2
            interrupt()
            assert texts(seen, queue, 2) == ["a signal"] * 2


def test_a_handler_of_signals_may_do_anything_anywhere(embedded: EmbeddedBrokerThread) -> None:
    """A second use at each line around the use of a session comes before that, comes after it, or is refused."""
    with witness(embedded.url) as seen, Publisher(embedded.url, "source") as endpoint:
        queue, outcomes, at, nested = seen.queue("events", name="kept"), list[str](), [0], [False]

        def use() -> None:
            try:
                endpoint.publish_event("Happened", "nested", "c")
                outcomes.append("published")
            except LocalError:
                outcomes.append("refused")
            endpoint.log(criticality.INFO, "nested")

        def step(frame: FrameType, event: str, _arg: Any) -> Any:
            if not frame.f_code.co_filename.endswith("eda_kombu/endpoint.py") or nested[0]:
                return None
            if event == "line":
                at[0] -= 1
                if at[0] == 0:
                    nested[0] = True
                    use()
            return step

        line = 0
        while line == len(outcomes):
            line += 1
            at[0], nested[0] = line, False
            sys.settrace(step)
            try:
                endpoint.publish_event("Happened", "outer", "c")
            finally:
                sys.settrace(None)
        bodies = [cbor2.loads(body) for body in seen.all(queue)]
    assert bodies.count("outer") == line
    assert bodies.count("nested") == outcomes.count("published")
    assert {*outcomes} == {"published", "refused"}


def test_a_handler_of_signals_may_end_a_publish(embedded: EmbeddedBrokerThread) -> None:
    """The handler raises an error of its own, which is no error of the network."""

    class TimeIsOverError(Exception):
        pass

    def end() -> None:
        raise TimeIsOverError

    with witness(embedded.url) as seen, ProxyThread(embedded.url) as front, Publisher(front.url, "source") as endpoint:
        queue = seen.queue("events", name="full", x_max_length=1, x_overflow="reject-publish")
        endpoint.publish_event("Happened", 1, "c")
        with interrupting(end) as interrupt:
            timer = threading.Timer(0.2, interrupt)
            timer.start()
            with pytest.raises(TimeIsOverError):
                endpoint.publish_event("Happened", 2, "c", 1000)
            timer.join()
        assert [cbor2.loads(body) for body in seen.all(queue)] == [1]
        endpoint.publish_event("Happened", 3, "c")
        assert [cbor2.loads(body) for body in seen.all(queue)] == [3]


# --- the end ---


def test_it_may_be_closed_in_its_own_iterable(embedded: EmbeddedBrokerThread) -> None:
    with ProxyThread(embedded.url) as front, Publisher(front.url, "source") as endpoint:

        def events() -> Iterator[tuple[str, int, str]]:
            yield "Happened", 1, "c"
            endpoint.close()
            yield "Happened", 2, "c"

        with pytest.raises(PartlyPublished, match="the endpoint was closed"):
            endpoint.publish_many(events())
        front.call(front.proxy.quiet)


def test_close_does_not_wait_for_an_iterable_that_does(embedded: EmbeddedBrokerThread) -> None:
    """Its thread closes the connection later."""
    with ProxyThread(embedded.url) as front, Brief(front.url, "source") as endpoint:
        more = threading.Event()

        def events() -> Iterator[tuple[str, int, str]]:
            yield "Happened", 1, "c"
            more.wait()

        publish = Background(endpoint.publish_many, events())
        until(lambda: endpoint._process().user, "the publish begins")
        Background(endpoint.close).get()
        more.set()
        with suppress(PartlyPublished):  # the end of its iterable may have come first
            publish.get()
        front.call(front.proxy.quiet)
