"""What a service tells over HTTP: alive, ready, how it does, and its numbers. The same with each adapter."""

from __future__ import annotations

import asyncio
import http.client
import json
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

import eda_aio
import eda_pika
from eda_core import Event, LocalError
from eda_probe import HealthServer
from eda_tools.broker import EmbeddedBrokerThread
from tests.support.services import environment

LONG = 20.0
NOWHERE = "amqp://guest:secret@127.0.0.1:1/"


class Aio(eda_aio.Service):
    """Its handler says that it runs, and waits."""

    KIND = "aio"
    configurations: ClassVar[tuple[str, ...]] = ()

    def __init__(self, url: str) -> None:
        super().__init__(url, ["Happened"], [], self.KIND, self.configurations)
        self.runs, self.goes_on = threading.Event(), threading.Event()

    async def on_Happened(self, payload: Any, conversation_id: str, meta: dict[str, Any]) -> None:
        self.runs.set()
        if payload == "block":
            self.goes_on.wait(LONG)
        elif payload == "wait":
            await asyncio.to_thread(self.goes_on.wait, LONG)

    def begin(self) -> None:
        asyncio.run(self.run(signals=False))

    def send(self, payload: Any) -> None:
        driver, event = self.running_driver(), Event("Happened", payload, "c")
        driver.hand_over(lambda: driver.make(lambda machine, now: machine.publish(event, now)))

    def end(self) -> None:
        self.running_driver().hand_over(lambda: self.running_driver().stop(LONG))


class Native(Aio):
    KIND, TRANSPORT = "native", "native"


class Pika(eda_pika.Service):
    """The same, on pika."""

    KIND = "pika"
    configurations: ClassVar[tuple[str, ...]] = ()

    def __init__(self, url: str) -> None:
        super().__init__(url, ["Happened"], [], self.KIND, self.configurations)
        self.runs, self.goes_on = threading.Event(), threading.Event()

    def on_Happened(self, payload: Any, conversation_id: str, meta: dict[str, Any]) -> None:
        self.runs.set()
        if payload in ("block", "wait"):
            self.goes_on.wait(LONG)

    def begin(self) -> None:
        self.run(signals=False)

    def send(self, payload: Any) -> None:
        self.publish_event("Happened", payload, "c")

    def end(self) -> None:
        self.stop(LONG)


class Threads(Pika):
    KIND, HANDLER_THREADS = "threads", 2


KINDS: list[type[Aio] | type[Pika]] = [Aio, Native, Pika, Threads]
each_kind = pytest.mark.parametrize("kind", KINDS, ids=[kind.KIND for kind in KINDS])


@pytest.fixture
def broker() -> Iterator[EmbeddedBrokerThread]:
    with EmbeddedBrokerThread() as embedded:
        yield embedded


@contextmanager
def running(service: Aio | Pika, *, ready: bool = True) -> Iterator[None]:
    """Run a service in a thread of its own, and stop it at the end of the block."""
    thread = threading.Thread(target=service.begin, daemon=True)
    thread.start()
    until(lambda: service.health().ready if ready else service.health().state not in ("idle", "connecting"))
    try:
        yield
    finally:
        service.goes_on.set()
        service.end()
        thread.join(LONG)
        assert not thread.is_alive()


def until(condition: Callable[[], bool]) -> None:
    """Wait for something that notifies nobody."""
    tries = threading.Event()
    for _ in range(int(LONG * 100)):
        if condition():
            return
        tries.wait(0.01)
    pytest.fail("it never happens")


def ask(port: int, path: str, method: str = "GET", **headers: str) -> tuple[int, str, str]:
    """Ask the server. Returns the status, the type and the text of the answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=LONG)
    try:
        connection.request(method, path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.headers["Content-Type"], answer.read().decode()
    finally:
        connection.close()


def samples(text: str) -> list[Sample]:
    """The samples in the text format of Prometheus."""
    return [each for family in text_string_to_metric_families(text) for each in family.samples]


# --- what is told ---


@each_kind
def test_the_life_of_a_service(broker: EmbeddedBrokerThread, kind: type[Aio] | type[Pika]) -> None:
    service = kind(broker.url)
    with HealthServer(service, 0) as server:
        assert ask(server.port, "/live") == (503, "text/plain; charset=utf-8", "the service does not run yet\n")
        assert ask(server.port, "/ready")[::2] == (503, "not ready: the link is idle\n")
        with running(service):
            assert ask(server.port, "/live")[::2] == (200, "live\n")
            assert ask(server.port, "/ready")[::2] == (200, "ready\n")
            status, content_type, text = ask(server.port, "/health")
            assert (status, content_type) == (200, "application/json")
            shown = json.loads(text)
            assert (shown["service"], shown["state"], shown["ready"]) == (kind.KIND, "open", True)
            assert shown["queues"] == [f"{kind.KIND}.events"]
            assert shown["link"]["url"] == re.sub(":guest@", ":***@", broker.url)
            service.send("wait")
            assert service.runs.wait(LONG)
            if kind is not Pika:  # whose handler keeps its loop
                shown = json.loads(ask(server.port, "/health")[2])
                assert (shown["in_flight"], shown["running"], shown["oldest_name"]) == (1, 1, "Happened")
                service.end()
                until(lambda: service.health().stopping)
                assert ask(server.port, "/ready")[::2] == (503, "not ready: the service stops\n")
                assert ask(server.port, "/live")[::2] == (200, "live\n"), "it finishes what runs"
        server._thread.join(LONG)
        with pytest.raises(ConnectionRefusedError):
            ask(server.port, "/live")


@each_kind
def test_a_service_without_a_broker_is_alive_and_not_ready(kind: type[Aio] | type[Pika]) -> None:
    service = kind(NOWHERE)
    with HealthServer(service, 0) as server, running(service, ready=False):
        assert ask(server.port, "/live")[0] == 200
        status, _, text = ask(server.port, "/ready")
        assert (status, text.rpartition(" ")[0]) == (503, "not ready: the link is")
        until(lambda: service.health().last_error is not None)
        shown = ask(server.port, "/health")[2]
        assert json.loads(shown)["last_error"]["event"] == "link-lost"
        assert "secret" not in shown


class WaitingAio(Aio):
    configurations = ("Settings",)

    async def on_Settings(self, payload: Any, meta: Any) -> bool:
        return True


class WaitingPika(Pika):
    configurations = ("Settings",)

    def on_Settings(self, payload: Any, meta: Any) -> bool:
        return True


@pytest.mark.parametrize("kind", [WaitingAio, WaitingPika])
def test_a_service_that_waits_for_its_configuration_says_so(
    broker: EmbeddedBrokerThread, kind: type[Aio] | type[Pika]
) -> None:
    service = kind(broker.url)
    with HealthServer(service, 0) as server, running(service, ready=False):
        until(lambda: service.health().link.open)
        expected = "not ready: no handler of a configuration has returned True yet\n"
        assert ask(server.port, "/ready")[::2] == (503, expected)


@pytest.mark.parametrize("kind", [Aio, Pika])
def test_a_loop_that_is_kept_too_long_is_not_live(broker: EmbeddedBrokerThread, kind: type[Aio] | type[Pika]) -> None:
    service = kind(broker.url)
    with HealthServer(service, 0, live_within=0.05) as server, running(service):
        service.send("block")
        assert service.runs.wait(LONG)
        for path in ("/live", "/ready", "/health"):
            status, _, text = ask(server.port, path)
            assert (status, text) == (503, "the service has not answered within 0.05 s; its loop is busy\n")
        assert "eda_answers{" in ask(server.port, "/metrics")[2]
        service.goes_on.set()
        until(lambda: ask(server.port, "/live")[0] == 200)


@each_kind
def test_the_numbers_are_told_in_the_format_that_is_asked_for(
    broker: EmbeddedBrokerThread, kind: type[Aio] | type[Pika]
) -> None:
    service = kind(broker.url)
    with HealthServer(service, 0) as server, running(service):
        service.send("go")
        until(lambda: service.metrics().acknowledged == 1)
        status, content_type, text = ask(server.port, "/metrics")
        assert (status, content_type.partition(";")[0]) == (200, "text/plain")
        found = {(each.name, frozenset(each.labels.items())): each.value for each in samples(text)}
        labels = {"service": kind.KIND}
        assert found["eda_deliveries_acknowledged_total", frozenset(labels.items())] == 1
        labels |= {"kind": "event", "name": "Happened", "outcome": "success"}
        assert found["eda_handlers_total", frozenset(labels.items())] == 1
        assert "python_info" in {name for name, _ in found}, "and what the program has in the default registry"
        accept = {"Accept": "application/openmetrics-text; version=1.0.0"}
        status, content_type, text = ask(server.port, "/metrics?name=x", **accept)
        assert content_type.startswith("application/openmetrics-text")
        parse: Any = openmetrics  # it has no types
        assert "eda_messages_published" in {family.name for family in parse(text)}


def test_a_path_that_is_not_there_names_those_that_are() -> None:
    with HealthServer(Aio(NOWHERE), 0) as server:
        assert ask(server.port, "/")[::2] == (404, "not found; there are /live, /ready, /health, /metrics\n")


def test_head_has_no_body_and_other_methods_are_refused() -> None:
    with HealthServer(Aio(NOWHERE), 0) as server:
        status, content_type, text = ask(server.port, "/health", "HEAD")
        assert (status, content_type, text) == (200, "application/json", "")
        assert ask(server.port, "/health", "POST")[0] == 501


def test_without_the_library_there_are_no_metrics_and_all_else() -> None:
    program = """
import sys
sys.modules["prometheus_client"] = None
import eda_aio, http.client
from eda_probe import HealthServer
server = HealthServer(eda_aio.Service("amqp://localhost/", [], [], "svc"), 0)
for path in ("/health", "/metrics"):
    connection = http.client.HTTPConnection("127.0.0.1", server.port)
    connection.request("GET", path)
    answer = connection.getresponse()
    print(answer.status, answer.read().decode().splitlines()[0])
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60, env=environment()
    )
    expected = ["200 {", "404 eda_prometheus needs prometheus_client: pip install 'eda-core[prometheus]'"]
    assert done.stdout.splitlines() == expected


def test_a_service_may_have_methods_of_these_names() -> None:
    class Mine(Aio):
        def health(self, *_: Any, **__: Any) -> Any:
            raise AssertionError("nobody asked for this")

        metrics = health

    with HealthServer(Mine(NOWHERE), 0) as server:
        assert ask(server.port, "/health")[0] == 200
        assert ask(server.port, "/metrics")[0] == 200


# --- the server ---


def test_a_port_that_is_taken_is_told_at_once() -> None:
    with HealthServer(Aio(NOWHERE), 0) as server:
        with pytest.raises(
            LocalError, match=rf"cannot listen on port {server.port} of '127\.0\.0\.1': Address already"
        ):
            HealthServer(Aio(NOWHERE), server.port)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"port": -1}, "the port is -1"),
        ({"port": 65536}, "the port is 65536"),
        ({"port": "8080"}, "the port is '8080'"),
        ({"port": True}, "the port is True"),
        ({"port": 0, "live_within": 0}, "live_within is 0"),
        ({"port": 0, "host": "no such host."}, "cannot listen on port 0 of 'no such host.'"),
        ({"service": object(), "port": 0}, "the service is object; give a service of eda_aio or eda_pika"),
    ],
)
def test_wrong_arguments_are_named(arguments: dict[str, Any], text: str) -> None:
    with pytest.raises(LocalError, match=re.escape(text)):
        HealthServer(**{"service": Aio(NOWHERE), **arguments})


def test_only_this_host_may_ask_unless_told() -> None:
    with HealthServer(Aio(NOWHERE), 0) as server:
        assert server._server.socket.getsockname()[0] == "127.0.0.1"


@pytest.mark.skipif(not socket.has_ipv6, reason="there is no IPv6 here")
def test_it_listens_on_ipv6_as_well() -> None:
    try:
        server = HealthServer(Aio(NOWHERE), 0, "::1")
    except LocalError:
        pytest.skip("this host has no address ::1")
    with server:
        connection = http.client.HTTPConnection("::1", server.port, timeout=LONG)
        connection.request("GET", "/health")
        assert connection.getresponse().status == 200
        connection.close()


def test_a_client_that_says_nothing_keeps_nobody_waiting() -> None:
    with HealthServer(Aio(NOWHERE), 0) as server:
        silent = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(15)]
        assert ask(server.port, "/health")[0] == 200
        for each in silent:
            each.close()


def test_more_clients_than_that_are_turned_away_until_one_has_gone() -> None:
    with HealthServer(Aio(NOWHERE), 0) as server:
        silent = [socket.create_connection(("127.0.0.1", server.port), LONG) for _ in range(17)]
        assert silent[-1].recv(1) == b"", "it is closed at once"
        silent.pop(0).close()
        until(lambda: server._server._free._value == 1)
        assert ask(server.port, "/health")[0] == 200
        for each in silent:
            each.close()


def test_it_closes_once_and_leaves_no_thread() -> None:
    server = HealthServer(Aio(NOWHERE), 0)
    server.close()
    server.close()
    assert not server._thread.is_alive()
    with pytest.raises(ConnectionRefusedError):
        ask(server.port, "/live")


def test_it_is_closed_at_once_if_the_service_has_ended() -> None:
    service = Pika(NOWHERE)
    with running(service, ready=False):
        pass
    server = HealthServer(service, 0)
    server._thread.join(LONG)
    assert not server._thread.is_alive()


def test_a_service_that_is_refused_to_run_may_run_later() -> None:
    class Wrong(Pika):
        def on_Happened(self) -> None: ...  # type: ignore[override]

    service = Wrong(NOWHERE)
    with HealthServer(service, 0) as server:
        with pytest.raises(LocalError):
            service.run(signals=False)
        assert ask(server.port, "/live")[::2] == (503, "the service does not run yet\n")


def test_where_it_listens_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", "eda_probe"), HealthServer(Aio(NOWHERE), 0) as server:
        assert caplog.messages == [f"the health of aio is told at http://127.0.0.1:{server.port}/health"]
