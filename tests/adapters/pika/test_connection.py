"""What the adapter changes in pika: pamqp encodes properties, URLs mean what they mean to eda_aio, and ``abort``."""

from __future__ import annotations

import asyncio
import inspect
import ssl
import struct
from collections.abc import Iterator
from typing import Any

import aiormq.connection
import pika
import pika.channel
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pamqp import base, commands, frame, header
from pamqp.commands import Basic
from pika.adapters.select_connection import IOLoop

from eda_core import Connect, Epoch
from eda_core.messages import Unreadable
from eda_core.testing.strategies import properties
from eda_core.testing.wire import frames
from eda_pika.connection import Connection, Properties, parameters


@pytest.fixture(scope="module")
def connection() -> Iterator[Connection]:
    """A connection that is not connected."""
    loop = IOLoop()
    yield Connection(pika.ConnectionParameters(), custom_ioloop=loop, internal_connection_workflow=False)
    loop.close()


def read(connection: Any, data: bytes) -> tuple[int, Any]:
    connection._frame_buffer = data
    got: tuple[int, Any] = connection._read_frame()
    return got


def a_header(given: Basic.Properties, size: int = 7) -> bytes:
    """A header as a peer may send it. pamqp does not encode everything that it decodes."""
    return frames.frame(frames.FRAME_HEADER, 3, struct.pack(">HHQ", 60, 0, size) + frames.encode_properties(given))


# --- properties ---


def _can_be_sent(given: Basic.Properties) -> bool:
    """Bytes cannot be sent, nor can floats beyond single precision."""
    try:
        given.marshal()
    except (TypeError, ValueError, OverflowError):
        return False
    return True


@given(properties().filter(_can_be_sent), st.integers(0, 2**40))
def test_properties_are_sent_as_pamqp_encodes_them(given: Basic.Properties, size: int) -> None:
    wanted = frame.marshal(header.ContentHeader(0, size, given), 3)
    assert pika.frame.Header(3, size, Properties(given)).marshal() == wanted


@given(given=properties(), size=st.integers(0, 2**40), rest=st.binary(max_size=9))
def test_properties_are_received_as_pamqp_decodes_them(
    connection: Connection, given: Basic.Properties, size: int, rest: bytes
) -> None:
    data = a_header(given, size)
    consumed, got = read(connection, data + rest)
    assert (consumed, got.channel_number, got.body_size) == (len(data), 3, size)
    found, wanted = dict(got.properties), dict(given)
    # By their text, since NaN is not equal to itself; and the empty table is none.
    assert repr(found.pop("headers") or None) == repr(wanted.pop("headers") or None)
    assert found == wanted


@given(data=st.data())
def test_a_part_of_a_header_is_waited_for(connection: Connection, data: Any) -> None:
    whole = a_header(Basic.Properties(headers={"conversation_id": "c", "f": 1.5}, app_id="service"))
    assert read(connection, whole[: data.draw(st.integers(1, len(whole) - 1))]) == (0, None)


def test_values_that_pika_alone_would_lose() -> None:
    """The reason for all this. If the test fails, pika has improved."""
    table: dict[str, Any] = {"f": 1.5}
    with pytest.raises(pika.exceptions.UnsupportedAMQPFieldException):
        pika.BasicProperties(headers=table).encode()
    _, got = pika.frame.decode_frame(a_header(Basic.Properties(headers=table)))
    assert got.properties.headers == {"f": 1}


@pytest.mark.parametrize(
    "poison",
    [
        b"\x20\x00" + struct.pack(">I", 11) + b"\x01tT" + b"\x7f" + b"\xff" * 7,
        b"\x00\x40" + b"\x7f" + b"\xff" * 7,
        b"\x20\x00" + struct.pack(">I", 3) + b"\x01t?",
        b"\x60\x00" + struct.pack(">I", 99) + b"\x01tS" + struct.pack(">I", 0),
        b"\x80\x00\x02\xff\xfe",
        b"",
    ],
    ids=["a date in the headers", "a timestamp", "a type that is none", "cut short", "not UTF-8", "nothing"],
)
def test_what_cannot_be_read_comes_as_unreadable(connection: Connection, poison: bytes) -> None:
    payload = struct.pack(">HHQ", 60, 0, 12) + poison
    data = struct.pack(">BHI", 2, 3, len(payload)) + payload + b"\xce"
    consumed, got = read(connection, data)
    assert (consumed, got.body_size, type(got.properties)) == (len(data), 12, Unreadable)
    assert not any(value for _, value in got.properties)
    assert got.properties.reason


@pytest.mark.parametrize(
    "data", [b"\x02\x00\x01\x00\x00\x00\x0e" + bytes(14) + b"x", b"\x02\x00\x01" + bytes(4) + b"x"]
)
def test_a_header_without_its_end_is_an_error(connection: Connection, data: bytes) -> None:
    with pytest.raises(pika.exceptions.InvalidFrameError):
        read(connection, data)


def test_other_frames_are_left_to_pika(connection: Connection) -> None:
    data = frame.marshal(Basic.Ack(5, True), 1)
    consumed, got = read(connection, data)
    assert (consumed, type(got.method), got.method.delivery_tag) == (len(data), pika.spec.Basic.Ack, 5)


def test_the_private_methods_that_are_used_are_there() -> None:
    """pyproject.toml asks for pika 1.4 because of them. Read connection.py before you allow another version."""
    assert pika.__version__.startswith("1.4.")
    assert list(inspect.signature(pika.SelectConnection._read_frame).parameters) == ["self"]
    assert "self._read_frame()" in inspect.getsource(pika.SelectConnection._on_data_available)
    assert list(inspect.signature(pika.SelectConnection._terminate_stream).parameters) == ["self", "error"]
    assert list(inspect.signature(pika.SelectConnection._get_write_buffer_size).parameters) == ["self"]
    rpc = list(inspect.signature(pika.channel.Channel._rpc).parameters)
    assert rpc == ["self", "method", "callback", "acceptable_replies"]


@pytest.mark.parametrize(
    "command",
    [
        commands.Exchange.Declare(exchange="events", exchange_type="topic", durable=True),
        commands.Queue.Declare(queue="a.events", durable=True, arguments={"x-message-ttl": 2**33, "x-a": "ä"}),
        commands.Queue.Bind(queue="a.events", exchange="events", routing_key="Häppened"),
        Basic.Qos(prefetch_count=7),
    ],
    ids=lambda command: command.name,
)
def test_declarations_are_the_same_in_pika(command: base.Frame) -> None:
    method = pika.spec.methods[command.index]().decode(command.marshal())
    answer = pika.spec.methods[command.index + 1]
    assert f"{command.name}Ok" == answer.NAME
    got: Any = frame.unmarshal(pika.frame.Method(1, method).marshal())[2]
    assert dict(got) == dict(command)


# --- URLs ---

URLS = [
    "amqp://h",
    "amqp://h/",
    "amqp://h//",
    "amqp://h/%2F",
    "amqp://h/vhost",
    "amqp://h/a%2Fb",
    "amqp://h/a/b",
    "amqp://h/%C3%A9t%C3%A9",
    "amqp://h/v?heartbeat=3&unknown=1&name=x",
    "amqp://me@h/",
    "amqp://me:@h/",
    "amqp://:secret@h/",
    "amqp://me:p%40ss%2Fword%3A%25@h:1234/v",
    "amqp://me:a+b@h/",
    "amqp://H.Example/",
    "amqp://[::1]:5673/",
    "amqps://h/",
    "amqps://h:1/",
]


@pytest.mark.parametrize("url", URLS)
def test_a_url_means_what_it_means_to_eda_aio(url: str) -> None:
    async def other() -> Any:
        return aiormq.connection.Connection(url)

    wanted = asyncio.run(other())
    got = parameters(Connect(Epoch(1), url, "name@host:1", 17), None)
    assert (got.host, got.port) == (wanted.url.host, wanted.url.port)
    assert got.virtual_host == wanted.vhost
    assert got.credentials.username == (wanted.url.user or "guest")
    assert got.credentials.password == (wanted.url.password or "guest")
    assert (got.ssl_options is not None) == url.startswith("amqps:")
    assert (got.heartbeat, got.blocked_connection_timeout, got.stack_timeout) == (17, None, None)
    assert got.client_properties == {"connection_name": "name@host:1"}


def test_tls_checks_the_chain_and_the_host_unless_told_otherwise() -> None:
    asked = Connect(Epoch(1), "amqps://broker.example/", "name", 20)
    options = parameters(asked, None).ssl_options
    assert (options.context.verify_mode, options.context.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert options.server_hostname == "broker.example"
    own = ssl.create_default_context()
    assert parameters(asked, own).ssl_options.context is own
    assert parameters(Connect(Epoch(1), "amqp://broker.example/", "name", 20), own).ssl_options is None


@pytest.mark.parametrize("query", ["cafile=/nowhere/ca.pem", "certfile=/nowhere/cert.pem&keyfile=/nowhere/key.pem"])
def test_certificates_may_be_named_in_the_url(query: str) -> None:
    url = f"amqps://h/?{query}"
    with pytest.raises(FileNotFoundError):
        parameters(Connect(Epoch(1), url, "name", 20), None)
