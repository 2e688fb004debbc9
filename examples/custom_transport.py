"""The core in a transport of one's own: asyncio streams and pamqp's frames, no client library. See docs/embedding.rst.

From the bottom up: ``Connection`` turns bytes into methods, ``Link`` performs effects on two connections and makes
inputs of what it receives, ``AsyncioDriver`` runs user code and the timer, ``Service`` is what users subclass.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import itertools
import logging
import os
import random
import secrets
import socket
import time
from collections.abc import Callable, Coroutine
from typing import Any
from urllib.parse import unquote, urlsplit

from pamqp import base, body, constants, frame, header, heartbeat
from pamqp.commands import Basic, Channel, Confirm, Exchange, Queue
from pamqp.commands import Connection as Amqp

import eda_core as core
from eda_core.driver import Driver
from eda_core.service import ServiceApi

LOGGER = logging.getLogger(__name__)
FRAME_MAX, MAX_UNSENT = 131_072, 1_000_000  # bytes; a log is dropped rather than queued behind more than MAX_UNSENT
ABILITIES = "authentication_failure_close basic.nack connection.blocked consumer_cancel_notify publisher_confirms"
handled_now: contextvars.ContextVar[core.DeliveryId | None] = contextvars.ContextVar("handled_now", default=None)


class Connection:
    """One AMQP 0-9-1 connection. Malformed frames raise; so does a peer silent for two heartbeats (section 4.2.7)."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.silence: float | None = None  # seconds that the peer may be silent
        self.beat: asyncio.TimerHandle | None = None
        self.content: tuple[int, base.Frame] | None = None  # the Deliver or Return being received, and its channel

    async def handshake(self, asked: core.Connect) -> None:
        at = urlsplit(asked.url)
        self.writer.write(header.ProtocolHeader().marshal())
        await self.expect(Amqp.Start)
        about: Any = {"connection_name": asked.name, "capabilities": dict.fromkeys(ABILITIES.split(), True)}
        login = f"\0{unquote(at.username or 'guest')}\0{unquote(at.password or 'guest')}"
        self.send(0, Amqp.StartOk(about, "PLAIN", login, "en_US"))
        tune = await self.expect(Amqp.Tune)
        self.frame_max = min(tune.frame_max or FRAME_MAX, FRAME_MAX)
        self.send(0, Amqp.TuneOk(tune.channel_max, self.frame_max, asked.heartbeat))
        if asked.heartbeat:
            self.silence = 2.0 * asked.heartbeat
            self.keep_alive(asked.heartbeat / 2)
        self.send(0, Amqp.Open(unquote(at.path[1:]) or "/"))
        await self.expect(Amqp.OpenOk)

    def keep_alive(self, period: float) -> None:
        self.writer.write(heartbeat.Heartbeat.value)
        self.beat = asyncio.get_running_loop().call_later(period, self.keep_alive, period)

    async def expect(self, wanted: type[base.Frame]) -> Any:
        method = (await self.receive())[1]
        if not isinstance(method, wanted):
            raise ConnectionError(f"{wanted.name} expected, {method.name} received")
        return method

    async def receive(self) -> tuple[int, Any, Any, bytes]:
        """The next method: its channel, itself, and the properties and body that came with it."""
        while True:
            async with asyncio.timeout(self.silence):
                start = await self.reader.readexactly(constants.FRAME_HEADER_SIZE)
                if (size := int.from_bytes(start[3:])) > FRAME_MAX:
                    raise ValueError(f"a frame of {size} bytes")
                data = start + await self.reader.readexactly(size + 1)
            channel, got = int.from_bytes(start[1:3]), self.read(data)
            if isinstance(got, (Basic.Deliver, Basic.Return)):
                self.content = channel, got
            elif isinstance(got, (header.ContentHeader, body.ContentBody)):
                if self.content is None: raise
