"""The server side of AMQP 0-9-1 without I/O, for all clients of a broker model: bytes in, bytes out.

:class:`Server` has the model and one :class:`ServerConnection` for each client. A driver (``eda_tools.broker``, a test)
hands in the bytes that it has received, and writes the bytes that each connection has to send. There is no socket and
no clock; time comes in as ``now``, in monotonic seconds. The server decides who may log in, and carries what the model
sends to the right connection. The model knows what a method means, a connection everything around methods.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, Final

from pamqp import base, commands

from eda_core.testing.broker.agenda import Agenda
from eda_core.testing.broker.model import Broker
from eda_core.testing.broker.queue import ConnectionId
from eda_core.testing.broker.state import Outgoing
from eda_core.testing.wire import frames
from eda_core.testing.wire.connection import (
    ServerConnection,
)

#: Clients decide by product and version what a broker can do, so that these are those of the broker that is modelled.
_SERVER_PROPERTIES: Final[dict[str, Any]] = {
    "product": "RabbitMQ",
    "platform": "Python",
    "cluster_name": "eda-core embedded broker",
    "information": "a model of RabbitMQ for trying out, demos and tests; memory only",
    "capabilities": {
        "publisher_confirms": True,
        "exchange_exchange_bindings": True,
        "basic.nack": True,
        "consumer_cancel_notify": True,
        "connection.blocked": True,
        "consumer_priorities": True,
        "authentication_failure_close": True,
        "per_consumer_qos": True,
        "direct_reply_to": True,
    },
}

#: The users of a server by default: ``guest``, with the password ``guest``.
GUEST: Final[Mapping[str, str]] = MappingProxyType({"guest": "guest"})


def _plain(response: bytes) -> tuple[str, str]:
    """User and password by RFC 4616: authorisation identity, NUL, user, NUL, password."""
    parts = response.decode("utf-8", "replace").split("\0")
    return (parts[1], parts[2]) if len(parts) == 3 else ("", "")


def _amqplain(response: bytes) -> tuple[str, str]:
    """User and password by RabbitMQ's mechanism from AMQP 0-8: a table with LOGIN and PASSWORD, without its length."""
    try:
        table = frames.decode_table(response)
    except frames.WireError:
        return "", ""
    user, password = table.get("LOGIN"), table.get("PASSWORD")
    return (user, password) if isinstance(user, str) and isinstance(password, str) else ("", "")


_MECHANISMS: Final[dict[str, Callable[[bytes], tuple[str, str]]]] = {"PLAIN": _plain, "AMQPLAIN": _amqplain}


class Server:
    """A broker model with any number of client connections.

    Args:
        broker: the model. A test may also call it directly, and hand what it answers to :meth:`route`.
        users: passwords by user name. Each user may log in to every virtual host.
        heartbeat: what is proposed to clients, in seconds. The client's answer counts; 0 switches heartbeats off.
        frame_max: the largest frame in bytes, at least 4096; 0 for no limit.
        channel_max: how many channels a connection may open; 0 for no limit.
        turn: how many seconds of ``clock`` all clients together have until the next call of :meth:`proceed`. They share
            them: what one client has sent waits while others have their turns. Each turn is some frames at least, and
            begins at once for a client of which nothing waits.
        clock: a clock that measures the turns; without one a client's turn is all that it has sent.
        room: how many bytes a connection may be sent before :meth:`written` is called; 0 for any number.
    """

    def __init__(
        self,
        broker: Broker,
        *,
        users: Mapping[str, str] = GUEST,
        heartbeat: int = 60,
        frame_max: int = 131072,
        channel_max: int = 2047,
        turn: float = 0.01,
        clock: Callable[[], float] | None = None,
        room: int = 0,
    ) -> None:
        self.broker = broker
        self.server_properties: dict[str, Any] = {**_SERVER_PROPERTIES, "version": f"{broker.version}.0"}
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
        self.room: int = room
        self._looks: Agenda[ServerConnection] = Agenda()
        # Those that have frames left, or whose consumers may get more, in the order of their turns.
        self._waiting: dict[ServerConnection, None] = {}
        self._turn, self._clock = turn, clock
        self._ends = math.inf  # when the next call of proceed() is due, by the clock of turns
        self._until = math.inf  # when the present turn is over

    def accept(self, *, now: float) -> ServerConnection:
        """A client has connected. The server sends nothing before the client's protocol header."""
        connection = ServerConnection(self, now)
        self._connections[connection] = None
        self.arm(connection)
        return connection

    def receive(self, conn: ServerConnection, data: bytes, *, now: float) -> None:
        """A client has sent bytes. They may be any bytes, in pieces of any size: nothing in them makes this raise."""
        conn.feed(data, now)
        if conn not in self._waiting:
            self._begin()
            conn.take(now)
        self._route((), now)

    def _begin(self) -> None:
        if self._clock is not None and self._ends == math.inf:
            self._ends = self._until = self._clock() + self._turn

    @property
    def busy(self) -> bool:
        """Whether there is something for :meth:`proceed` or :meth:`dirty` to do."""
        return bool(self._waiting or self._dirty or self._ends < math.inf)

    def proceed(self, *, now: float) -> None:
        """Give turns to the clients that wait for them, the first first. Call it when all sockets had their turn."""
        waiting, self._waiting = deque(self._waiting), {}
        self._ends = self._until = math.inf
        if not waiting:
            return
        self._begin()
        share, room = self._turn / len(waiting), self.room // len(waiting) + 1
        while waiting and not self.turn_is_over():
            if self._clock is not None:
                self._until = min(self._ends, self._clock() + share)
            self._serve(waiting.popleft(), room, now)
            self._until = self._ends
        self._waiting = dict.fromkeys(waiting) | self._waiting

    def _serve(self, conn: ServerConnection, room: int, now: float) -> None:
        if not conn.choked and conn.unwritten < self.room and conn.id is not None and self._wants_room(conn.id):
            self._route(self.broker.give_room(conn.id, room, now=now), now)
        conn.take(now)
        self._route((), now)

    def _wants_room(self, number: ConnectionId) -> bool:
        return self.room > 0 and (self.broker.room(number) or 0) <= 0

    def choked(self, conn: ServerConnection) -> None:
        """The client does not read what it was sent: nothing that it has sent is taken, until :meth:`written`."""
        conn.choked = True

    def written(self, conn: ServerConnection, *, now: float) -> None:
        """All that was sent to a client has been read, or nearly so: its consumers may get more."""
        conn.choked = False
        number = conn.id
        if number is not None and (conn.behind or self._wants_room(number)):
            self.leave(conn)

    def lost(self, conn: ServerConnection, *, now: float) -> None:
        """The socket of a client is closed or broken."""
        conn.discard()
        conn.abort(now)
        self._connections.pop(conn, None)
        self._dirty.pop(conn, None)
        self._waiting.pop(conn, None)
        self._looks.forget(conn)
        self._route((), now)

    def shutdown(self, *, now: float, reason: str = "broker shutdown") -> None:
        """Close all connections with 320, as RabbitMQ does when it stops. The driver waits for the sockets to close."""
        close = commands.Connection.Close(320, f"CONNECTION_FORCED - {reason}", 0, 0)
        for connection in list(self._connections):
            connection.close(close, now)
        self._route((), now)

    def tick(self, *, now: float) -> None:
        """Do what is due: heartbeats, time-outs, the timers of the model. Early and repeated calls do nothing."""
        for connection in self._looks.take_due(now):
            connection.tick(now)
            self.arm(connection)
        self._route(self.broker.tick(now=now), now)

    def deadline(self) -> float | None:
        """When to call :meth:`tick` next; ``None`` for never. It may be early, because traffic defers heartbeats."""
        times = [self.broker.earliest(), self._looks.earliest()]
        return min((time for time in times if time is not None), default=None)

    def dirty(self) -> Iterable[ServerConnection]:
        """The connections that have bytes to send or are to be closed, and have not been returned since."""
        dirty, self._dirty = self._dirty, {}
        return dirty

    def route(self, outgoing: Iterable[Outgoing], *, now: float) -> None:
        """Send what the model answered to a test that called it directly, for an alarm or a confirm."""
        self._route(outgoing, now)

    # --- called by ServerConnection (connection.Host) ---

    def log_in(self, mechanism: str, response: bytes) -> str:
        """The name of the user; ``""`` if the user is refused.

        Raises:
            KeyError: the server does not offer this mechanism.
        """
        user, password = _MECHANISMS[mechanism](response)
        return user if user in self._users and self._users[user] == password else ""

    def has_vhost(self, vhost: str) -> bool:
        """Whether the model has this virtual host."""
        return self.broker.has_vhost(vhost)

    def arm(self, connection: ServerConnection) -> None:
        """A connection may have something to do earlier than before."""
        self._looks.note(connection, connection.deadline())

    def mark(self, connection: ServerConnection) -> None:
        """A connection has bytes to send, or is to be closed."""
        self._dirty[connection] = None

    def largest_body(self) -> int:
        """The largest body that the broker takes, in bytes. A larger one is refused, and not kept until then."""
        return self.broker.largest_message

    def turn_is_over(self) -> bool:
        """Whether the turn of a connection is over."""
        return self._clock is not None and self._clock() >= self._until

    def leave(self, connection: ServerConnection) -> None:
        """The turn of a connection is over, and it has frames left."""
        self._waiting[connection] = None

    def resume(self, connection: ServerConnection) -> None:
        """A connection is blocked no more. What it has received is taken at the end of the turn."""
        self._resumed.append(connection)

    def register(self, connection: ServerConnection, now: float) -> ConnectionId:
        """Connect a client to the model, after the handshake."""
        number = self.broker.connect(vhost=connection.vhost, user=connection.user)
        self._by_id[number] = connection
        if self.room:
            self.broker.give_room(number, 1, now=now)  # for one delivery; when that is written, there is more
        return number

    def release(self, number: ConnectionId, now: float) -> None:
        """Disconnect a client from the model. What follows from that is sent at the end of the turn."""
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
        """Hand a complete method of a client to the model."""
        self._route(self.broker.receive(number, channel, method, properties, body, now=now), now)

    def _route(self, outgoing: Iterable[Outgoing], now: float) -> None:
        # One queue, because closing a connection makes more outgoing methods. They come after those decided before.
        queue = self._queue
        queue.extend(outgoing)
        while queue:
            item = queue.popleft()
            connection = self._by_id.get(item.connection)
            if connection is not None:
                connection.emit(item, now)
        while self._resumed:
            self._resumed.pop(0).take(now)
