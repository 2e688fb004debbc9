"""Plays one short story on the model and on RabbitMQ, and compares what each client gets, step by step.

For what random sequences would come to too seldom, and what is written down exactly: texts, tags, the order on a
channel. A story is a function that tells a :class:`Play` what the clients send. It is played on the model first; then
RabbitMQ has some time after each step to show the same.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Any, Final

from pamqp import base, commands

from eda_core.testing.broker import Broker
from eda_core.testing.broker.addresses import PREFIX
from eda_core.testing.wire import Server
from tests.differential import writing
from tests.differential.client import TIMEOUT, Client, Clock, MemoryPipe, Pipe, Received, SilenceError, TcpPipe
from tests.differential.comparison import DEADLINE, modelled_release
from tests.differential.session import method
from tests.support.rabbitmq import RabbitNode

_ADDRESS: Final = re.compile(r"amq\.rabbitmq\.reply-to\.[\w=+/-]+\.[\w=+/-]+")
_MADE: Final = re.compile(r"amq\.(gen|ctag)-[\w-]+")
#: After these a channel must not be asked anything before it has answered.
_ALONE: Final = ("Tx.Commit", "Channel.Close")
_UNTOLD: Final = (commands.Channel.FlowOk, commands.Channel.OpenOk)

Transcript = list[str]


class Play:
    """One side of a story. Clients have names; they connect, and their channels open, when they are first used.

    Attributes:
        addresses: for direct replies, in the order in which a client first saw them.
        told: what was sent and what came, as lines.
    """

    def __init__(self, connect: Callable[[str], Pipe], vhosts: dict[str, str], expected: Transcript | None) -> None:
        self.addresses: list[str] = []
        self.told: Transcript = []
        self._connect = connect
        self._vhosts = vhosts
        self._expected = expected
        self._clients: dict[str, Client] = {}
        self._open: set[tuple[str, int]] = set()

    # -- what a story uses --------------------------------------------------------------------------------------------

    def send(self, who: str, name: str, channel: int = 1, **arguments: Any) -> None:
        """A client sends a method, such as ``"Queue.Declare"``."""
        self._step(who, channel, name, arguments, None, None)

    def count(self, who: str, queue: str, channel: int = 1) -> None:
        """A client asks for the numbers of a queue, and again until they are as expected, or the time is over."""
        begin, give_up = len(self.told), time.monotonic() + DEADLINE
        while True:
            self._step(who, channel, "Queue.Declare", {"queue": queue, "passive": True}, None, None, deadline=0.0)
            if self._as_expected() or time.monotonic() > give_up:
                return
            del self.told[begin:]

    def publish(self, who: str, key: str, body: str = "m", channel: int = 1, **options: Any) -> None:
        """A client publishes a message. ``exchange`` and ``mandatory`` are arguments, the others properties."""
        arguments = {"exchange": "", "routing_key": key, "mandatory": False}
        arguments.update({name: options.pop(name) for name in list(options) if name in arguments})
        properties = commands.Basic.Properties()
        for name, value in options.items():
            setattr(properties, name, value)
        self._step(who, channel, "Basic.Publish", arguments, properties, body.encode())

    def hang_up(self, who: str) -> None:
        """A client closes its socket."""
        self._clients.pop(who).hang_up()
        self._open = {place for place in self._open if place[0] != who}
        self._tell(f"{who} hangs up")

    def close(self) -> None:
        """Close all connections."""
        for client in self._clients.values():
            client.close()

    # -- doing --------------------------------------------------------------------------------------------------------

    def _step(
        self,
        who: str,
        channel: int,
        name: str,
        arguments: dict[str, Any],
        properties: commands.Basic.Properties | None,
        body: bytes | None,
        *,
        deadline: float = DEADLINE,
    ) -> None:
        client = self._clients.get(who)
        if client is not None and client.ended is not None:
            client.hang_up()
            client = None
        if client is None:
            client = self._clients[who] = Client(self._connect(who), self._vhosts.get(who, self._vhosts[""]))
            self._open = {place for place in self._open if place[0] != who}
        if (who, channel) not in self._open:
            client.call(channel, commands.Channel.Open(), commands.Channel.OpenOk)
            self._open.add((who, channel))
        shown = " ".join(f"{key}={value}" for key, value in arguments.items() if value not in ("", False))
        client.send(channel, method(name, arguments), properties, body)
        if name not in _ALONE:
            client.send(channel, commands.Channel.Flow(True))
        client.flush()
        self._tell(f"{who} {channel} sends {name} {shown}", deadline, client, channel)

    def _tell(self, line: str, deadline: float = DEADLINE, client: Client | None = None, channel: int = 0) -> None:
        """Note what is sent, and what comes for it: as soon as it is what is expected, or when the time is over.

        What comes on different channels is in no order.
        """
        begin = [*self.told, self._plain(line)]
        give_up = time.monotonic() + deadline
        answered = client is None
        heard: dict[tuple[str, int], Transcript] = {}
        while True:
            for who, other in self._clients.items():
                for received in self._read(other):
                    answered |= other is client and received.channel in (0, channel)
                    self._hear(heard.setdefault((who, received.channel), []), who, received)
            self.told = begin + [line for place in sorted(heard) for line in heard[place]]
            if answered and (self._expected is None or self._as_expected() or time.monotonic() > give_up):
                return
            if time.monotonic() > give_up + TIMEOUT:
                raise SilenceError(f"no answer to: {line}")
            time.sleep(0.0005)

    def _as_expected(self) -> bool:
        """Whether all that was to come until now has come."""
        expected, at = self._expected, len(self.told)
        if expected is None:
            return True
        return self.told == expected[:at] and (at >= len(expected) or " gets " not in expected[at])

    @staticmethod
    def _read(client: Client) -> list[Received]:
        try:
            return client.read(0.0)
        except SilenceError:
            return []

    # -- writing ------------------------------------------------------------------------------------------------------

    def _hear(self, lines: Transcript, who: str, received: Received) -> None:
        answer, properties = received.method, received.properties
        if isinstance(answer, commands.Channel.Close | commands.Channel.CloseOk):
            self._open.discard((who, received.channel))
        if isinstance(answer, _UNTOLD):
            return
        address = properties.reply_to if properties is not None else None
        if address is not None and _ADDRESS.fullmatch(address) and address not in self.addresses:
            self.addresses.append(address)
        line = f"{who} {received.channel} gets {answer.name} {_shown(answer)}"
        if properties is not None:
            line += f": {writing.message(received)}"
        lines.append(self._plain(line))

    def _plain(self, line: str) -> str:
        for number, address in sorted(enumerate(self.addresses), key=lambda item: -len(item[1])):
            line = line.replace(address.removeprefix(PREFIX), f"<address {number}>")
        return _MADE.sub(r"amq.\1-", line)


def _shown(answer: base.Frame) -> str:
    values: dict[str, Any] = dict(answer)
    return " ".join(f"{name}={value}" for name, value in values.items() if value not in ("", None))


Story = Callable[[Play], None]


def transcripts(story: Story, node: RabbitNode, vhost: str, other: str = "") -> tuple[Transcript, Transcript]:
    """What the clients of a story sent and got, from the model and from RabbitMQ.

    Args:
        other: the vhost of the client ``"stranger"``.
    """
    vhosts = {"": vhost, "stranger": other or vhost}
    server, clock = Server(Broker(vhosts=set(vhosts.values()), version=modelled_release(node))), Clock()
    expected: Transcript | None = None
    told: list[Transcript] = []
    for connect in (lambda who: MemoryPipe(server, clock), lambda who: TcpPipe("127.0.0.1", node.port)):
        play = Play(connect, vhosts, expected)
        try:
            story(play)
        finally:
            play.close()
        told.append(play.told)
        expected = play.told
    return told[0], told[1]
