"""Looking up host names in threads."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import pytest

from eda_core.drivers import LookUps

FOUND = [("the", "addresses")]


class Resolver:
    """Takes the place of the module ``socket``, of threads and of forks.

    Attributes:
        works: what the threads do, when the test calls it.
        asked: the flags of each call for a name.
        answer: what a look-up returns or raises.
    """

    def __init__(self) -> None:
        self.works: list[Callable[[], object]] = []
        self.daemons: list[bool] = []
        self.answer: Any = FOUND
        self.process = 1
        names = {name: getattr(socket, name) for name in ("AI_NUMERICHOST", "SOCK_STREAM", "IPPROTO_TCP", "gaierror")}
        module = SimpleNamespace(getaddrinfo=self.find, **names)
        self.look_ups = LookUps(module, self.thread, Future, lambda: self.process)

    def find(self, host: str, port: int, *, type: int, proto: int, flags: int) -> Any:
        assert (type, proto) == (socket.SOCK_STREAM, socket.IPPROTO_TCP)
        if flags or not self.works:  # not in a thread
            return socket.getaddrinfo(host, port, type=type, proto=proto, flags=flags)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def thread(self, *, target: Callable[..., None], args: tuple[Any, ...], name: str, daemon: bool) -> Any:
        self.daemons.append(daemon)
        return SimpleNamespace(start=lambda: self.works.append(lambda: target(*args)))


def test_an_address_needs_no_thread() -> None:
    resolver = Resolver()
    found = resolver.look_ups.begin("127.0.0.1", 5672)
    assert [record[4] for record in found.result(0)] == [("127.0.0.1", 5672)]
    assert resolver.works == []


def test_what_is_no_host_name_is_told_in_the_same_way() -> None:
    resolver = Resolver()
    found = resolver.look_ups.begin("a" * 64 + ".example", 5672)
    assert isinstance(found.exception(0), UnicodeError)
    assert resolver.works == []


def test_a_name_is_looked_up_in_one_thread_that_does_not_keep_the_process_alive() -> None:
    resolver = Resolver()
    several = [resolver.look_ups.begin("broker.example", 5672) for _ in range(3)]
    other = resolver.look_ups.begin("other.example", 5672)
    assert resolver.daemons == [True, True]
    assert not any(found.done() or found.cancel() for found in (*several, other))
    resolver.works[0]()
    assert [found.result(0) for found in several] == [FOUND] * 3
    assert not other.done()


@pytest.mark.parametrize("answer", [FOUND, socket.gaierror(-2, "unknown"), UnicodeError("label too long")])
def test_after_its_end_it_is_looked_up_anew(answer: Any) -> None:
    resolver = Resolver()
    resolver.answer = answer
    for _ in range(2):
        found = resolver.look_ups.begin("broker.example", 5672)
        resolver.works[-1]()
        assert (found.exception(0) or found.result(0)) is answer
    assert len(resolver.works) == 2


def test_a_fork_does_not_wait_for_a_thread_of_its_parent() -> None:
    resolver = Resolver()
    resolver.look_ups.begin("broker.example", 5672)
    resolver.process = 2
    resolver.look_ups.begin("broker.example", 5672)
    assert len(resolver.works) == 2


def test_if_there_can_be_no_thread_the_next_attempt_begins_anew() -> None:
    resolver = Resolver()
    started = resolver.thread

    def full(**_named: Any) -> Any:
        raise RuntimeError("can't start new thread")

    resolver.look_ups._thread = full
    with pytest.raises(RuntimeError, match="start new thread"):
        resolver.look_ups.begin("broker.example", 5672)
    resolver.look_ups._thread = started
    found = resolver.look_ups.begin("broker.example", 5672)
    resolver.works[0]()
    assert found.result(0) == FOUND


def test_no_time_is_lost_with_real_threads() -> None:
    """Several threads of the program may begin the same look-up."""
    look_ups = LookUps(socket, threading.Thread, Future, lambda: 1)
    found = [look_ups.begin("localhost", 5672) for _ in range(5)]
    assert all(each.result(20) for each in found)
