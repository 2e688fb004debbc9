"""A client and a server, back to back, and what tests look at."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

from pamqp import base
from pamqp.commands import Basic, Channel, Connection

from eda_core.amqp import Client, Ended, Event, Opened, Received, read_method
from eda_core.amqp.reading import METHOD
from eda_core.amqp.states import CLOSED, CLOSING, ENTERING, GREETING, LOGGING_IN, OPEN
from eda_core.amqp.writing import write_content, write_method
from eda_core.messages.properties import persistent
from eda_core.testing.broker import Broker
from eda_core.testing.wire import Server

PROPERTIES = persistent("application/cbor", {"conversation_id": "c", "attempt": 3})
SERVER_PROPERTIES: dict[str, Any] = {"product": "RabbitMQ"}
#: What a server sends in the states of the handshake, and the state that follows.
HANDSHAKE: dict[str, tuple[bytes, str]] = {
    GREETING: (write_method(0, Connection.Start(0, 9, SERVER_PROPERTIES, "PLAIN AMQPLAIN", "en_US")), LOGGING_IN),
    LOGGING_IN: (write_method(0, Connection.Tune(2047, 131_072, 60)), ENTERING),
    ENTERING: (write_method(0, Connection.OpenOk()), OPEN),
}
CLOSE_OK = write_method(0, Connection.CloseOk())


class Pair:
    """A client and a server, and what goes between them.

    Args:
        steps: the sizes of the pieces in which the bytes go, in turn; 0 for all that there is.
        options: of the client.
    """

    def __init__(self, steps: int | Sequence[int] = 0, **options: Any) -> None:
        self.now = 0.0
        self.server = Server(Broker())
        self.there = self.server.accept(now=0.0)
        self.client = Client(now=0.0, **options)
        self._steps = itertools.cycle([steps] if isinstance(steps, int) else steps)

    def exchange(self) -> list[Event]:
        """Let each side send what it has, until neither has more. Returns what the client has heard."""
        events: list[Event] = []
        while True:
            for piece in self.pieces(self.client.data_to_send()):
                self.server.receive(self.there, piece, now=self.now)
            back = self.there.data_to_send()
            if not back and not self.client.has_data:
                return events
            for piece in self.pieces(back):
                events += self.client.receive(piece, self.now)

    def pieces(self, data: bytes) -> Iterator[bytes]:
        while data:
            step = next(self._steps) or len(data)
            yield data[:step]
            data = data[step:]

    def open(self) -> Pair:
        [opened] = self.exchange()
        assert isinstance(opened, Opened)
        assert opened.server_properties["product"] == "RabbitMQ"
        assert self.client.state is OPEN
        return self

    def ask(self, channel: int, *methods: base.Frame) -> list[str]:
        for method in methods:
            self.client.send(channel, method)
        return names(self.exchange())


def client_in(state: str, channels: Sequence[int] = (1,), **options: Any) -> Client:
    """A client that bytes have brought to a state, with nothing to send; if it is open, it has these channels."""
    client = Client(now=0.0, **options)
    while client.state is not state and client.state in HANDSHAKE:
        client.receive(HANDSHAKE[client.state][0], 0.0)
    if client.state is OPEN:
        for number in channels:
            client.open_channel(number)
            client.receive(write_method(number, Channel.OpenOk()), 0.0)
    if state in (CLOSING, CLOSED):
        assert client.close(0.0) == []
    if state is CLOSED:
        assert client.receive(CLOSE_OK, 0.0) == [Ended("")]
    assert client.state is state
    client.data_to_send()
    return client


def split(data: bytes) -> list[bytes]:
    """The frames of a stream."""
    frames = []
    while data:
        end = 8 + int.from_bytes(data[3:7])
        assert data[end - 1] == 0xCE
        frames.append(data[:end])
        data = data[end:]
    return frames


def sent(client: Client) -> list[base.Frame]:
    """The methods that a client has to send."""
    return [read_method(each[7:-1]) for each in split(client.data_to_send()) if each[0] == METHOD]


def message(channel: int, body: bytes, tag: int = 1, frame_max: int = 0) -> bytes:
    """A message to a consumer, as a server sends it."""
    delivery = write_method(channel, Basic.Deliver("t", tag, False, "", "q"))
    return delivery + b"".join(write_content(channel, PROPERTIES.marshal(), body, frame_max))


def names(events: list[Event]) -> list[str]:
    return [event.method.name if isinstance(event, Received) else type(event).__name__ for event in events]


def described(event: Event) -> tuple[Any, ...]:
    """An event as a value that can be compared. pamqp's methods cannot be."""
    if not isinstance(event, Received):
        return (event,)
    properties = None if event.properties is None else (type(event.properties), dict(event.properties))
    return (event.channel, event.method.name, dict(event.method), properties, event.body)
