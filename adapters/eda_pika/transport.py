"""One link on pika: performs the machine's effects on it and tells the machine what comes of them.

A link has two connections, one for consuming and one for publishing: during a resource alarm the broker reads nothing
from a connection that has published, not even acknowledgements (docs/design.rst, "Resource alarms"). This module
decides nothing about messages, and does not know when a link is opened.
"""

import re
import socket
from collections.abc import Callable, Generator
from functools import partial
from ssl import SSLContext
from typing import Any, ClassVar

import pika
from pamqp import commands
from pika.exceptions import ChannelClosedByBroker

from eda_core import Ack, Cancel, Connect, Consume, Declare, Effect, Nack, OpenChannel, Probe, Publish, PublishLog
from eda_core.drivers import CONSUMING, LOGGING, MAX_UNSENT, PUBLISHING, Driver, Link, login_refusal, reason
from eda_pika.connection import Connection, Network, parameters
from eda_pika.fast import Direct

_SPEC = pika.spec
#: The text of pika's errors during a login: the reply code and the text of the broker's close.
_LOGIN = re.compile(r"ConnectionClosedByBroker: \((\d+)\) ['\"](.*)['\"]", re.DOTALL)
#: Steps, one after the other: each yields what to begin next, and is sent what that calls back with.
Steps = Generator[Callable[[Callable[..., None]], Any], Any, None]
_QUEUE, _EXCHANGE = _SPEC.Queue, _SPEC.Exchange
_REPLIES = [_EXCHANGE.DeclareOk, _EXCHANGE.BindOk, _QUEUE.DeclareOk, _QUEUE.BindOk, _SPEC.Basic.QosOk]
_REPLIES.append(_SPEC.Channel.FlowOk)


class PikaLink(Link):
    """The connections and channels of one epoch. It begins to open when it is made.

    Args:
        asked: the effect that asks for it.
        context: for ``amqps://``; ``None`` checks the chain and the host name.
        forget: called when no connection is left.
        direct: whether the core reads and writes messages (``fast.py``), and not pika.
    """

    library: ClassVar[str] = f"pika {pika.__version__}"

    def __init__(
        self, asked: Connect, driver: Driver, context: SSLContext | None, loop: Any, forget: Any, direct: bool = True
    ) -> None:
        super().__init__(asked, driver)
        self._loop, self._context, self._forget, self._direct = loop, context, forget, direct
        self._connections: list[Connection] = []
        self._declarers: dict[str, Any] = {}
        # Not at once: the driver does not know this link yet.
        loop.add_callback_threadsafe(partial(self._follow, self._opening()))

    def close(self, *, at_once: bool = False) -> None:
        """Close in good order if possible, by force after ``close_timeout`` seconds, or at once.

        In good order pika cancels the consumers first. A node that is cut off from its cluster waits a minute for that.
        """
        self.closing = True
        for connection in tuple(self._connections):
            if at_once or self.unresponsive or not connection.is_open:
                connection.abort()
            else:
                self._loop.call_later(self.machine.config.close_timeout, connection.abort)
                connection.close()
        self._end_if_closed()

    def lose(self, why: str, refused: str = "") -> None:
        """Tell the machine that the link is lost, and close what is left of it."""
        if not self.closing:
            self.tell(self.machine.link_down, why, refused=refused)
            self.close()

    def _end_if_closed(self) -> None:
        if self.closing and not self._connections:
            self._forget()
            self.tell(self.machine.link_down, "closed")

    # Opening

    def _opening(self) -> Steps:
        consuming = yield partial(self._connect, CONSUMING)
        self._publishes = yield partial(self._connect, PUBLISHING)
        self._consumer = self._declarers[CONSUMING] = yield partial(self._channel, consuming, CONSUMING)
        self._consumer.add_on_cancel_callback(self._on_frame)
        consuming.network.opened(self._consumer)
        yield from self._opening_channel(PUBLISHING)
        yield from self._opening_channel(LOGGING)
        self._publishes.add_on_connection_blocked_callback(lambda _, frame: self._on_frame(frame))
        self._publishes.add_on_connection_unblocked_callback(lambda _, frame: self._on_frame(frame))
        self.report_open(self._publishes.server_properties)

    def _opening_channel(self, name: str) -> Steps:
        channel = yield partial(self._channel, self._publishes, name)
        if name == LOGGING:
            self._logger = channel
            return
        self._publisher = channel
        channel.add_on_return_callback(self._on_message)
        self._publishes.network.opened(channel)
        yield partial(channel.confirm_delivery, self._on_frame)

    def _follow(self, steps: Steps) -> None:
        """Do the steps one after the other."""

        def step(result: Any = None) -> None:
            if not self.closing:
                try:
                    steps.send(result)(step)
                except StopIteration:
                    pass
                except Exception as error:
                    self.lose(reason(error))

        step()

    def _connect(self, name: str, then: Callable[..., None]) -> None:
        asked = parameters(self.asked, self._context, self.socket_options(socket, name))
        network = Direct(self._loop, self) if self._direct else Network(self._loop)
        connection = network.connection = Connection(asked, then, self._on_closed, self._on_closed, network)
        connection.network = network
        self._connections.append(connection)

    def _channel(self, connection: Connection, name: str, then: Callable[..., None]) -> None:
        channel = connection.channel(on_open_callback=then)
        channel.add_on_close_callback(partial(self._on_channel_closed, name))
        channel.add_callback(partial(self._on_reply, name), _REPLIES, one_shot=False)

    # What the broker sends

    def _on_closed(self, connection: Connection, error: BaseException) -> None:
        self._connections.remove(connection)
        # pika takes any loss during the login for a refusal. Only a close by the broker is one.
        found = _LOGIN.search(str(error))
        why, refused = login_refusal(self.asked.url, int(found[1]), found[2]) if found else ("", "")
        self.lose(why or reason(error), refused)
        self._end_if_closed()

    def _on_channel_closed(self, name: str, channel: Any, error: Exception) -> None:
        channel.connection.network.closed(channel)
        if isinstance(error, ChannelClosedByBroker):  # otherwise its connection was closed, which is told there
            self.report_channel_closed(name, error.reply_text)

    def _on_frame(self, frame: Any) -> None:
        self.receive(frame.method.NAME, frame.method)

    def _on_message(self, _channel: Any, method: Any, *content: Any) -> None:
        self.receive(method.NAME, method, *content)

    # Effects

    def declare(self, effect: Declare) -> None:
        self._follow(self._declaring(effect))

    def _declaring(self, effect: Declare) -> Steps:
        name, declarers = effect.channel, self._declarers
        if name not in declarers:
            declarers[name] = yield partial(self._channel, self._consumer.connection, name)
        for command in effect.commands:  # not by _rpc, which sends each one when the one before is answered
            declarers[name]._send_method(_SPEC.methods[command.index]().decode(command.marshal()))

    def close_channel(self, channel: str) -> None:
        self._declarers.pop(channel).close()

    def _on_reply(self, channel: str, frame: Any) -> None:
        kind: Any = commands.INDEX_MAPPING[frame.method.INDEX]
        self.receive(kind.name, kind(*(getattr(frame.method, name) for name in kind.__slots__)), channel)

    def consume(self, effect: Consume) -> None:
        tag, then = effect.consumer_tag, self._answer_to(effect)
        self._consumer.basic_consume(effect.queue, self._on_message, consumer_tag=tag, callback=then)

    def cancel(self, effect: Cancel) -> None:
        self._consumer.basic_cancel(effect.consumer_tag, self._answer_to(effect))

    def open_channel(self, effect: OpenChannel) -> None:
        self._follow(self._reopening(effect.channel))

    def _reopening(self, name: str) -> Steps:
        yield from self._opening_channel(name)
        self.report_channel_open(name)

    def probe(self, effect: Probe) -> None:
        channel = self._consumer if effect.channel == CONSUMING else self._publisher
        channel._send_method(_SPEC.Channel.Flow(True))  # not by flow(), which waits for other replies first

    def traffic(self, channel: str) -> tuple[int, int]:
        connection = (self._consumer if channel == CONSUMING else self._publisher).connection
        return connection.bytes_received, connection._get_write_buffer_size()

    def ack(self, effect: Ack) -> None:
        self._consumer.connection.network.ack(self._consumer, effect)

    def nack(self, effect: Nack) -> None:
        self._consumer.basic_nack(effect.tag, requeue=effect.requeue)

    def publish(self, effect: Publish) -> None:
        self._publishes.network.publish(self._publisher, effect, effect.mandatory)

    def log(self, effect: PublishLog) -> None:
        self._publishes.network.publish(self._logger, effect)

    def congested(self) -> bool:
        return bool(self._publishes._get_write_buffer_size() >= MAX_UNSENT)

    def _answer_to(self, effect: Effect) -> Callable[[Any], None]:
        """The callback for the answer to ``effect``. Without an answer in time, the effect has failed.

        pika never calls back for a command that waited behind one that failed.
        """
        awaited = [effect]

        def look() -> None:
            for each in awaited:
                self.report_failure(each, TimeoutError("no answer"))

        # The check comes a turn of the loop later: a handler may have kept the loop from reading the answer until now.
        late = partial(self._loop.add_callback_threadsafe, look)
        self._loop.call_later(self.machine.config.close_timeout, late)
        return lambda _: awaited.clear()
