"""Looking up host names in threads, and connecting to one address after the other."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import pytest

from eda_core.drivers.lookups import CallbackLookUp, LookUps

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


# --- connecting ---

ADDRESSES = [("family", "type", "protocol", "", f"address {number}") for number in range(3)]


class Socket:
    """Notes its options, and whether it is closed."""

    def __init__(self, *kind: str) -> None:
        self.kind = kind
        self.blocks = True
        self.closed = False
        self.options: list[tuple[Any, ...]] = []

    def setblocking(self, flag: bool) -> None:
        self.blocks = flag

    def setsockopt(self, *option: Any) -> None:
        self.options.append(option)

    def close(self) -> None:
        self.closed = True


class Network(Resolver):
    """Finds three addresses at once, for every name, and connects to one of them.

    Attributes:
        reachable: the address that can be connected to.
        tried: the sockets and where each was to be connected to.
    """

    def __init__(self, reachable: str | None, found: Sequence[Any] = ADDRESSES) -> None:
        super().__init__()
        self.reachable, self.found = reachable, found
        self.tried: list[tuple[Any, str]] = []
        self.clock = 100.0
        self.look_ups._socket.socket = Socket
        self.look_ups._socket.TCP_USER_TIMEOUT = 18

    def find(self, host: str, port: int, *, type: int, proto: int, flags: int) -> Any:
        return self.found

    async def awaited(self, future: Any) -> Any:
        return future.result(0)

    async def sock_connect(self, sock: Socket, address: str) -> None:
        self.connect(sock, address)

    def connect(self, sock: Any, address: str) -> None:
        self.tried.append((sock, address))
        if address != self.reachable:
            raise ConnectionRefusedError(f"{address} refuses")

    def connected(self) -> Any:
        options = {"TCP_USER_TIMEOUT": 14_000}
        made = self.look_ups.connect("broker.example", 5672, options, self.sock_connect, self.awaited)
        try:
            made.send(None)
        except StopIteration as end:
            return end.value
        raise AssertionError("it waits")

    def within(self, timeout: float) -> Any:
        def connect(address: Any, seconds: float) -> tuple[Any, float]:
            self.clock += 2.0
            self.connect(None, address[4])
            return address, seconds

        return self.look_ups.connect_within(timeout, "broker.example", 5672, connect, lambda: self.clock)


def test_the_addresses_of_a_host_are_tried_in_turn() -> None:
    network = Network("address 1")
    sock = network.connected()
    first, second = network.tried
    assert (second, first[1]) == ((sock, "address 1"), "address 0")
    assert (sock.kind, sock.blocks, sock.closed) == (("family", "type", "protocol"), False, False)
    assert sock.options == [(socket.IPPROTO_TCP, 18, 14_000)]
    assert first[0].closed, "the socket that is not connected"
    assert network.within(5.0) == (ADDRESSES[1], 3.0)


def test_an_address_has_the_time_that_is_left_and_always_some() -> None:
    assert Network("address 2").within(3.0)[1] == 0.001


@pytest.mark.parametrize("connect", [Network.connected, lambda network: network.within(9.0)], ids=["await", "within"])
@pytest.mark.parametrize(
    ("found", "told"), [(ADDRESSES, "address 0 refuses"), ([], r"the host broker\.example has no address")]
)
def test_the_first_failure_is_told_if_no_address_can_be_connected_to(
    found: list[Any], told: str, connect: Callable[[Network], Any]
) -> None:
    network = Network(None, found)
    with pytest.raises(OSError, match=told):
        connect(network)
    assert len(network.tried) == len(found)
    assert all(sock is None or sock.closed for sock, _ in network.tried)


@pytest.mark.parametrize("answered", [True, False])
def test_the_time_to_connect_includes_the_resolver(answered: bool) -> None:
    resolver = Resolver()
    started = resolver.thread

    def thread(**named: Any) -> Any:
        started(**named).start()
        return SimpleNamespace(start=resolver.works[-1] if answered else lambda: None)

    resolver.look_ups._thread = thread
    resolver.answer = socket.gaierror(-2, "unknown")
    with pytest.raises(OSError, match="unknown" if answered else r"broker\.example was not resolved within 0\.01 s"):
        resolver.look_ups.connect_within(0.01, "broker.example", 5672, lambda *_: None, lambda: 0.0)


# In a loop of callbacks


def told(found: Future[Any]) -> tuple[CallbackLookUp, list[Callable[[], None]], list[Any]]:
    """A look-up, what it wants to have called in the loop, and what it tells."""
    in_loop: list[Callable[[], None]] = []
    results: list[Any] = []
    return CallbackLookUp(found, in_loop.append, results.append), in_loop, results


def test_a_result_and_an_exception_are_told_in_the_loop() -> None:
    for outcome in (["address"], OSError("no such host")):
        found: Future[Any] = Future()
        _, in_loop, results = told(found)
        assert in_loop == []
        found.set_exception(outcome) if isinstance(outcome, OSError) else found.set_result(outcome)
        assert results == [], "the thread of the resolver does not tell it"
        in_loop.pop()()
        assert results == [outcome]


def test_nothing_is_told_after_it_is_cancelled() -> None:
    found: Future[Any] = Future()
    look_up, in_loop, results = told(found)
    found.set_result(["address"])
    assert look_up.cancel()
    in_loop.pop()()
    assert (results, look_up.cancel()) == ([], False)


def test_a_loop_that_is_closed_is_told_nothing() -> None:
    def closed(_call: Callable[[], None]) -> None:
        raise RuntimeError("the loop is closed")

    found: Future[Any] = Future()
    results: list[Any] = []
    CallbackLookUp(found, closed, results.append)
    found.set_result(["address"])
    assert results == []
