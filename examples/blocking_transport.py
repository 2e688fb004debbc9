"""A transport without an event loop: plain sockets, which are read and written only while a caller waits.

A program that only publishes runs on it: ``BlockingDriver`` waits for the confirms. All of AMQP is in the core.
docs/embedding.rst explains it.
"""

from __future__ import annotations

import logging
import os
import random
import select
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from typing import Any

from eda_core import Config, Connect, Event, Machine
from eda_core.amqp import Client
from eda_core.drivers import CONNECTIONS, AmqpLink, BlockingDriver, LookUps, PublishLimits, reason, write_report

LOOK_UPS = LookUps(socket, threading.Thread, Future, os.getpid)


class SocketWire:
    """The socket of one connection."""

    client: Client  # the link makes it

    def __init__(self, connected: socket.socket) -> None:
        self.socket, self.out = connected, bytearray()
        self.socket.setblocking(False)

    def send_soon(self) -> None:
        """The link writes before it waits."""

    def write(self) -> None:
        self.out += self.client.data_to_send()
        with suppress(BlockingIOError):  # the broker does not read now
            del self.out[: self.socket.send(self.out)]

    def unsent(self) -> int:
        return len(self.out)

    def abort(self) -> None:
        with suppress(OSError):
            self.write()  # the answer to the broker's Close, if there is one
        self.socket.close()


class SocketLink(AmqpLink):
    """The connections of one epoch. It works only while one of its methods runs."""

    driver: BlockingDriver

    def __init__(self, asked: Connect, driver: BlockingDriver) -> None:
        super().__init__(asked, driver)
        driver.link = self

    def open(self, timeout: float) -> None:
        """Connect and log in within so many seconds. The machine hears of it if that fails."""
        until = time.monotonic() + timeout
        try:
            if self.address.tls:
                raise OSError("this example has no TLS")
            for name in CONNECTIONS:
                address, left = self.address, until - time.monotonic()
                connect = partial(connect_socket, self.socket_options(socket, name))
                sock = LOOK_UPS.connect_within(left, address.host, address.port, connect, time.monotonic)
                self.connected(name, SocketWire(sock))
        except (OSError, UnicodeError) as error:
            self.fail(reason(error))
        while not (self.up or self.closing):
            self.read(until - time.monotonic())
            if time.monotonic() >= until:
                self.fail(f"the broker has not answered within {timeout:g} s")

    def read(self, timeout: float) -> None:
        """Send what is to be sent. Wait for something from the broker, for ``timeout`` seconds, and pass it in."""
        due = self.deadline()
        left = timeout if due is None else min(timeout, due - time.monotonic())
        self.look()
        names = {wire.socket: name for name, wire in self.wires.items() if isinstance(wire, SocketWire)}
        full = [sock for sock, name in names.items() if self.wires[name].unsent()]
        readable = select.select(names, full, [], max(left, 0.0))[0] if names else []
        for sock in readable:
            self.attempt(names[sock], partial(self.take_from, names[sock], sock))
        self.tick()
        self.look()

    def take_from(self, name: str, sock: socket.socket) -> None:
        if data := sock.recv(65_536):
            self.take(name, data)
        else:
            self.lost(name, "")

    def look(self) -> None:
        """Send what is to be sent, and close what is over."""
        for name, wire in list(self.wires.items()):
            assert isinstance(wire, SocketWire)
            self.attempt(name, wire.write)
            if wire.client.should_close and not wire.unsent():
                wire.socket.close()
                self.lost(name, "")

    def attempt(self, name: str, action: Callable[[], object]) -> None:
        try:
            action()
        except OSError as error:
            self.lost(name, reason(error))

    def close(self) -> None:
        self.unresponsive = self.unresponsive or not self.driver.graceful
        super().close()

    def abort(self) -> None:
        super().abort()
        for name, wire in list(self.wires.items()):
            wire.abort()
            self.lost(name, "")

    def end(self, why: str, refused: str = "") -> None:
        self.up = False
        if why != "closed":
            self.driver.publish_call.link_failed(why)
        super().end(why, refused)

    def receive(self, name: str, method: Any, *content: Any) -> None:
        if name == "Basic.Nack":
            self.driver.publish_call.refused(self.driver.now())
        super().receive(name, method, *content)

    def drop(self) -> None:
        """Nothing is being opened: ``open`` waits until it is."""

    def call_at(self, due: float, call: Callable[[], None]) -> Callable[[], object]:
        """Set no timer: ``read`` looks at the deadline."""
        return lambda: None


def connect_socket(options: dict[str, int], address: Any, seconds: float) -> socket.socket:
    """Connect to one of the addresses of a host."""
    made = socket.socket(*address[:3])
    made.settimeout(seconds)
    try:
        for name, value in options.items():
            made.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
        made.connect(address[4])
    except BaseException:
        made.close()
        raise
    return made


class Publisher(BlockingDriver):
    """Publishes events, and returns when they are confirmed."""

    def __init__(self, url: str, name: str) -> None:
        config, token = Config.make(url, name, hostname=socket.gethostname(), pid=os.getpid()), f"{random.random()}"
        offset = lambda: time.time() - time.monotonic()  # noqa: E731
        super().__init__(Machine(config, random=random.random, token=token, wall_offset=offset), deque())

    def publish_events(self, events: Iterable[Event], timeout: float = 60.0) -> None:
        """Publish events. Raises the error of the first one that is not confirmed within ``timeout`` seconds."""
        call = self.publish(events, False, PublishLimits(timeout))
        for error in call.failed.values():
            raise error

    def now(self) -> float:
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)

    def open(self, effect: Connect) -> SocketLink:
        self.links.clear()
        link = SocketLink(effect, self)
        link.open(self.connect_timeout())
        return link

    def report(self, level: int, text: str, event: str) -> None:
        write_report(logging.getLogger(__name__), level, text, event)
