"""Which errors are faults of the network, after which the endpoint connects again, and which ones a publish raises."""

from __future__ import annotations

import os
import signal
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import cbor2
import pytest
from pamqp import frame, header
from pamqp.commands import Basic, Connection

from eda_core.machine.machine import Machine
from eda_kombu import NotConfirmed
from eda_tools.broker import EmbeddedBrokerThread
from tests.adapters.kombu.support import ProxyThread, Publisher, witness


@pytest.fixture
def embedded() -> Iterator[EmbeddedBrokerThread]:
    with EmbeddedBrokerThread() as broker:
        yield broker


# --- bytes that py-amqp cannot decode ---


def a_frame(payload: bytes, *, kind: int = 1, channel: int = 1) -> bytes:
    return struct.pack(">BHI", kind, channel, len(payload)) + payload + b"\xce"


def a_returned_message(properties: bytes) -> bytes:
    """The header of a returned message with these properties."""
    method = frame.marshal(Basic.Return(312, "NO_ROUTE", "events", "Happened"), 1)
    return method + a_frame(struct.pack(">HHQ", 60, 0, 5) + properties, kind=2)


def a_table(entry: bytes) -> bytes:
    """Properties whose headers have one entry, ``t``."""
    table = b"\x01t" + entry
    return b"\x20\x00" + struct.pack(">I", len(table)) + table


ACK = struct.pack(">HH", 60, 80)
#: By what py-amqp raises.
BROKEN: dict[str, bytes] = {
    "struct.error: a method cut short": a_frame(ACK + b"\0\0"),
    "struct.error: no method": a_frame(b"\0"),
    "TypeError: a bit that is not there": a_frame(ACK + struct.pack(">Q", 1)),
    "KeyError: a channel that is not open": a_frame(ACK + struct.pack(">QB", 1, 0), channel=9),
    "KeyError: a body without a header": a_frame(b"body", kind=3) + a_frame(b"body", kind=3),
    "UnicodeDecodeError: a text that is not UTF-8": a_frame(struct.pack(">HHHB", 60, 50, 312, 2) + b"\xff\xfe\0\0"),
    "IndexError: a table cut short": a_returned_message(b"\x20\x00" + struct.pack(">I", 99) + b"\x01t"),
    "ValueError: a date that Python does not have": a_returned_message(a_table(b"T\x00\x00\x7f" + b"\xff" * 5)),
    "OverflowError: a date beyond all times": a_returned_message(a_table(b"T" + b"\xff" * 8)),
    "RecursionError: a deep table": a_returned_message(a_table(b"F" + (struct.pack(">I", 4000) + b"\x01tF") * 3000)),
    "AMQPError: a type that is none": a_returned_message(a_table(b"?")),
    "AMQPError: a frame without its end": a_frame(ACK + struct.pack(">QB", 1, 0))[:-1] + b"x",
    "AMQPError: a method that is none": a_frame(struct.pack(">HH", 60, 999)),
}


@pytest.mark.parametrize("what", BROKEN)
def test_bytes_that_cannot_be_decoded_cost_a_link_and_nothing_else(
    embedded: EmbeddedBrokerThread, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    with witness(embedded.url) as seen, ProxyThread(embedded.url) as front, Publisher(front.url, "source") as endpoint:
        queue = seen.queue("events", name="kept")
        endpoint.publish_event("Happened", 1, "c")
        front.call(front.proxy.inject, BROKEN[what])
        while front.proxy.accepted == 1:
            endpoint.publish_event("Happened", 2, "c")
        assert {cbor2.loads(body) for body in seen.all(queue)} == {1, 2}
    assert "no link to" in caplog.text


@contextmanager
def a_peer_that_says(data: bytes) -> Iterator[str]:
    """A server that sends this to each client; its URL."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def talk(client: socket.socket) -> None:
            with client, suppress(OSError):
                client.recv(8)  # the protocol header
                client.sendall(data)
                while client.recv(4096):
                    pass

        def serve() -> None:
            with suppress(OSError):  # until it is shut down
                while True:
                    threading.Thread(target=talk, args=(server.accept()[0],), daemon=True).start()

        threading.Thread(target=serve, daemon=True).start()
        yield f"amqp://127.0.0.1:{server.getsockname()[1]}/"
        server.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize("capabilities", [7, "none", [1]], ids=repr)
def test_a_greeting_of_other_types_is_a_fault_of_the_peer(capabilities: Any) -> None:
    """py-amqp raises AttributeError."""
    start = Connection.Start(server_properties={"capabilities": capabilities}, mechanisms="PLAIN", locales="en_US")
    with (
        a_peer_that_says(frame.marshal(start, 0)) as url,
        Publisher(url, "source", 1) as endpoint,
        pytest.raises(NotConfirmed, match=r"no connection after 1 retries.*bytes that cannot be decoded"),
    ):
        endpoint.publish_event("Happened", 1, "c")


@pytest.mark.parametrize("frame_max", [1, 8, 9])
def test_frames_that_are_too_small_for_anything_are_not_made(
    embedded: EmbeddedBrokerThread, frame_max: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """AMQP 0-9-1 sets the smallest ``frame_max`` that a peer may ask for."""
    with witness(embedded.url) as seen, Publisher(embedded.url, "source") as endpoint:
        queue = seen.queue("events", name="kept")
        endpoint.publish_event("Happened", 1, "c")
        session = endpoint._process().session
        assert session is not None
        link: Any = session.link
        monkeypatch.setattr(link._connection, "frame_max", frame_max)
        endpoint.publish_event("Happened", 2, "c")
        assert [cbor2.loads(body) for body in seen.all(queue)] == [1, 2]


def test_a_host_that_cannot_be_looked_up_is_a_fault() -> None:
    """Python raises UnicodeError."""
    with (
        Publisher(f"amqp://{'x' * 70}.invalid/", "source", 0) as endpoint,
        pytest.raises(NotConfirmed, match=r"no connection after 0 retries.*Unicode(Encode)?Error"),
    ):
        endpoint.publish_event("Happened", 1, "c")


# --- what is no fault of the network ---


class Mine(Exception):
    """An error of the program."""


@contextmanager
def interrupted_by(error: Exception, interrupt: Callable[[], None]) -> Iterator[None]:
    """In the block ``interrupt`` makes a handler of signals raise the error."""

    def handler(number: int, stack: Any) -> None:
        raise error

    before = signal.signal(signal.SIGUSR1, handler)
    timer = threading.Timer(0.2, interrupt)
    try:
        timer.start()
        yield
        timer.join()
    finally:
        signal.signal(signal.SIGUSR1, before)


ERRORS = [
    Mine("mine"),
    TimeoutError("mine"),
    OSError("mine"),
    ValueError("mine"),
    AttributeError("mine"),
    NameError("mine"),
    RuntimeError("mine"),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_what_a_handler_of_signals_raises_ends_the_publish(embedded: EmbeddedBrokerThread, error: Exception) -> None:
    """Programs limit the time of a call so: by an alarm whose handler raises TimeoutError."""
    with witness(embedded.url) as seen, ProxyThread(embedded.url) as front, Publisher(front.url, "source") as endpoint:
        queue = seen.queue("events", name="kept")
        endpoint.publish_event("Happened", 1, "c")
        embedded.operate(lambda model, now: model.set_alarm(True, now=now))
        with (
            interrupted_by(error, lambda: os.kill(os.getpid(), signal.SIGUSR1)),
            pytest.raises(type(error), match="mine") as caught,
        ):
            endpoint.publish_event("Happened", 2, "c")
        assert caught.value is error
        embedded.operate(lambda model, now: model.set_alarm(False, now=now))
        endpoint.publish_event("Happened", 3, "c")
        assert cbor2.loads(seen.all(queue)[-1]) == 3
        assert front.proxy.accepted == 2


@pytest.mark.parametrize("error", ERRORS[3:], ids=lambda error: type(error).__name__)
def test_a_mistake_in_our_own_code_is_not_taken_for_a_lost_link(
    embedded: EmbeddedBrokerThread, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The publish would be tried again for ever."""
    with ProxyThread(embedded.url) as front, Publisher(front.url, "source") as endpoint:
        endpoint.publish_event("Happened", 1, "c")

        def mistaken(*arguments: Any, **named: Any) -> Any:
            raise error

        with monkeypatch.context() as patch:
            patch.setattr(Machine, "confirmed", mistaken)
            with pytest.raises(type(error), match="mine") as caught:
                endpoint.publish_event("Happened", 2, "c")
        assert caught.value is error
        assert front.proxy.accepted == 1
        endpoint.publish_event("Happened", 3, "c")


def test_the_header_of_a_returned_message_is_made_as_it_should_be() -> None:
    """An unbroken message is decoded. Otherwise the tests above would show little."""
    intact = a_returned_message(a_table(b"b\x01"))
    at = frame.unmarshal(intact)[0]
    found: Any = frame.unmarshal(intact[at:])[2]
    assert isinstance(found, header.ContentHeader)
    assert found.properties.headers == {"t": 1}
