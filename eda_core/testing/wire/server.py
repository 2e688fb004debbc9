"""The server side of AMQP 0-9-1, sans IO: bytes in, bytes out. In front of ``eda_core.testing.broker``.

``Server`` owns the broker model and one ``ServerConnection`` for each client. A driver (``eda_tools.broker``, a test)
hands in the bytes that it received and writes the bytes that each connection has to send. No socket, no clock: time
comes in as ``now``, monotonic seconds. What a method means is the model's business; everything around it is
``wire_connection``'s; who may log in is decided here.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, Final

from pamqp import base, commands

from eda_core.testing.broker.model import Broker
from eda_core.testing.broker.queue import ConnectionId
from eda_core.testing.broker.state import Outgoing
from eda_core.testing.wire import frames
from eda_core.testing.wire.connection import (
    CLOSING_TIMEOUT,
    HANDSHAKE_TIMEOUT,
    MAX_BODY,
    PROTOCOL_HEADER,
    ServerConnection,
)

__all__ = ["CLOSING_TIMEOUT", "GUEST", "HANDSHAKE_TIMEOUT", "MAX_BODY", "PROTOCOL_HEADER", "Server", "ServerConnection"]

_SERVER_PROPERTIES: Final[dict[str, Any]] = {
    "product": "eda-core embedded broker",
    "version": "1.0",
    "platform": "Python",
    "information": "for trying out, demos and tests; memory only",
    "capabilities": {
        "publisher_confirms": True,
        "exchange_exchange_bindings": True,
        "basic.nack": True,
        "consumer_cancel_notify": True,
        "connection.blocked": True,
        "consumer_priorities": True,
        "authentication_failure_close": True,
        "per_consumer_qos": True,
        "direct_reply_to": False,
    },
}

GUEST: Final[Mapping[str, str]] = MappingProxyType({"guest": "guest"})


def _plain(response: bytes) -> tuple[str, str]:
    """RFC 4616: authorisation identity, NUL, user, NUL, password."""
    parts = response.decode("utf-8", "replace").split("\0")
    return (parts[1], parts[2]) if len(parts) == 3 else ("", "")


def _amqplain(response: bytes) -> tuple[str, str]:
    """RabbitMQ's mechanism from AMQP 0-8: the entries of a table with LOGIN and PASSWORD, without its length."""
    try:
        table = frames.decode_table(response)
    except frames.WireError:
        return "", ""
    user, password = table.get("LOGIN"), table.get("PASSWORD")
    return (user, password) if isinstance(user, str) and isinstance(password, str) else ("", "")


_MECHANISMS: Final[dict[str, Callable[[bytes], tuple[str, str]]]] = {"PLAIN": _plain, "AMQPLAIN": _amqplain}


class Server:
    """The broker model behind any number of client connections.

    Args:
        broker: the model; may also be driven directly.
        users: passwords by user name; each may log in to every virtual host.
        heartbeat: proposed to clients, in seconds; what a client answers is taken, 0 switches heartbeats off.
        frame_max: largest frame in bytes, at least 4096, or 0 for no limit.
        channel_max: highest channel number, or 0 for no limit.
    """

    def __init__(
        self,
        broker: Broker,
        *,
        users: Mapping[str, str] = GUEST,
        heartbeat: int = 60,
        frame_max: int = 131072,
        channel_max: int = 2047,
    ) -> None:
        self.broker = broker
        self.server_properties: dict[str, Any] = dict(_SERVER_PROPERTIES)
        self.mechanisms: str = " ".join(_MECHANISMS)
        self._users = dict(users)
        self.heartbeat = heartbeat
        self.frame_max = frame_max
        self.channel_max = channel_max
        self._connections: dict[ServerConnection, None] = {}
        self._by_id: dict[ConnectionId, ServerConnection] = {}
        self._dirty: dict[ServerConnection, None] = {}
        self._queue: deque[Outgoing] = deque()
        self._resumed: list[ServerConnection] = []
        self._next = math.inf

    def accept(self, *, now: float) -> ServerConnection:
        """A client connected. The server says nothing before the client's protocol header."""
        connection = ServerConnection(self, now)
        self._connections[connection] = None
        self.arm(connection.deadline())
        return connection

    def receive(self, conn: ServerConnection, data: bytes, *, now: float) -> None:
        """Bytes from a client: any bytes, in any pieces. Never raises for what is in them."""
        conn.feed(data, now)
        self._route((), now)

    def lost(self, conn: ServerConnection, *, now: float) -> None:
        """The client's socket is closed or broken: what it held is released."""
        conn.discard()
        conn.abort(now)
        self._connections.pop(conn, None)
        self._dirty.pop(conn, None)
        self._route((), now)

    def shutdown(self, *, now: float, reason: str = "broker shutdown") -> None:
        """Tell every client (320, as RabbitMQ when it is stopped). The driver then waits for the sockets to close."""
        close = commands.Connection.Close(320, f"CONNECTION_FORCED - {reason}", 0, 0)
        for connection in list(self._connections):
            connection.close(close, now)
        self._route((), now)

    def tick(self, *, now: float) -> None:
        """Heartbeats, time-outs and the model's timers. Early and repeated calls do nothing."""
        for connection in list(self._connections):
            connection.tick(now)
        self._route(self.broker.tick(now=now), now)
        self._next = min((connection.deadline() for connection in self._connections), default=math.inf)

    def deadline(self) -> float | None:
        """When to call ``tick`` next, or None. May be earlier than necessary: traffic puts heartbeats off."""
        model = self.broker.deadline()
        due = self._next if model is None else min(self._next, model)
        return None if due == math.inf else due

    def dirty(self) -> Iterable[ServerConnection]:
        """The connections with bytes to send, or to close, since last asked."""
        dirty, self._dirty = self._dirty, {}
        return dirty

    def route(self, outgoing: Iterable[Outgoing], *, now: float) -> None:
        """Hand on what the model gave out when it was driven directly (an alarm, a confirm held back)."""
        self._route(outgoing, now)

    # --- called by ServerConnection (wire_connection.Host) ---

    def log_in(self, mechanism: str, response: bytes) -> str:
        """The name of the user, or ``""`` for a refused one; KeyError for a mechanism not offered."""
        user, password = _MECHANISMS[mechanism](response)
        return user if user in self._users and self._users[user] == password else ""

    def has_vhost(self, vhost: str) -> bool:
        """Whether the model has this virtual host."""
        return self.broker.has_vhost(vhost)

    def arm(self, due: float) -> None:
        """A connection has something to do at ``due``."""
        self._next = min(self._next, due)

    def mark(self, connection: ServerConnection) -> None:
        """A connection has bytes to send, or is to be closed."""
        self._dirty[connection] = None

    def resume(self, connection: ServerConnection) -> None:
        """What a connection received while it was blocked is to be dealt with at the end of the turn."""
        self._resumed.append(connection)

    def register(self, connection: ServerConnection) -> ConnectionId:
        """Connect a client that finished the handshake to the model."""
        number = self.broker.connect(vhost=connection.vhost, user=connection.user)
        self._by_id[number] = connection
        return number

    def release(self, number: ConnectionId, now: float) -> None:
        """Disconnect a client from the model; what follows from it is sent at the end of the turn."""
        del self._by_id[number]
        self._queue.extend(self.broker.disconnect(number, now=now))

    def command(
        self,
        number: ConnectionId,
        channel: int,
        method: base.Frame,
        properties: commands.Basic.Properties | None,
        body: bytes,
        now: float,
    ) -> None:
        """A complete method from a client."""
        self._route(self.broker.receive(number, channel, method, properties, body, now=now), now)

    def _route(self, outgoing: Iterable[Outgoing], now: float) -> None:
        # One queue: closing a connection makes more outgoing methods, which must come after those already decided.
        queue = self._queue
        queue.extend(outgoing)
        while queue:
            item = queue.popleft()
            connection = self._by_id.get(item.connection)
            if connection is not None:
                connection.emit(item, now)
        while self._resumed:
            self._resumed.pop(0).feed(b"", now)
