"""One link to the broker on pika: performs the machine's effects on it and tells the machine what comes of them.

Two connections, one for consuming and one for publishing: during a resource alarm the broker reads nothing more from a
connection that has published, not even acknowledgements (``FACTS.md``, "RabbitMQ").
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from functools import partial
from ssl import SSLContext
from typing import Any

import pika
from pamqp import base, commands
from pamqp.commands import Basic, Exchange, Queue
from pika.exceptions import ChannelClosedByBroker

from eda_core import Ack, Cancel, Close, Connect, Consume, Declare, Effect, Nack, Publish, PublishLog
from eda_core.driver import Driver
from eda_pika.connection import Connection, Properties, parameters

#: Bytes; a log is dropped rather than queued behind more, since an alarm may last for hours.
_MAX_UNSENT = 1_000_000
#: Begins something of pika's that calls back once.
_Step = Callable[[Callable[..., None]], Any]


class Link:
    """The connections and channels of one epoch. Made with what the machine asked for, it begins to open.

    Args:
        ssl: for ``amqps://``; ``None`` checks the chain and the host name.
        loop: pika's.
        closed: is called when no connection is left.
    """

    def __init__(
        self, connect: Connect, driver: Driver, ssl: SSLContext | None, loop: Any, closed: Callable[[], None]
    ) -> None:
        self._asked = connect
        self._driver = driver
        self._machine = driver.machine
        self._ssl = ssl
        self._loop = loop
        self._closed = closed
        self._connections: list[Connection] = []
        self._open = self._closing = self._reported = False
        self._steps = self._opening()
        self._actions: dict[type, Callable[[Any], Any]] = {
            Declare: self._declare,
            Consume: self._consume,
            Cancel: lambda effect: self._consumer.basic_cancel(effect.consumer_tag, self._answer_to(effect)),
            Ack: lambda effect: self._consumer.basic_ack(effect.tag, effect.multiple),
            Nack: lambda effect: self._consumer.basic_nack(effect.tag, requeue=effect.requeue),
            Publish: self._publish,
            PublishLog: self._log,
        }
        loop.add_callback_threadsafe(self._step)  # not at once: the driver does not know this link yet

    def perform(self, effect: Effect) -> None:
        """Never raises: what fails is reported."""
        if isinstance(effect, Close):
            self.close()
        elif self._open and not self._closing:
            try:
                self._actions[type(effect)](effect)
            except Exception as error:
                self._driver.tell(self._machine.effect_failed, effect, _reason(error))

    def close(self, *, at_once: bool = False) -> None:
        """Close in good order where that is possible, by force after ``close_timeout``; then it is reported."""
        self._closing = True
        for connection in tuple(self._connections):
            if at_once or not connection.is_open:
                connection.abort()
            else:
                self._loop.call_later(self._machine.config.close_timeout, connection.abort)
                connection.close()
        self._end_if_closed()

    def lose(self, reason: str, refused: bool = False) -> None:
        """The link is of no use any more: report it, and close what is left of it."""
        if not self._closing:
            self._report_down(reason, refused)
            self.close()

    def _report_down(self, reason: str, refused: bool = False) -> None:
        if not self._reported:
            self._reported = True
            self._tell(self._machine.link_down, reason, refused=refused)

    def _end_if_closed(self) -> None:
        if self._closing and not self._connections:
            self._closed()
            self._report_down("closed")

    def _tell(self, method: Callable[..., list[Effect]], *arguments: Any, **named: Any) -> None:
        self._driver.tell(method, self._asked.epoch, *arguments, **named)

    # Opening

    def _opening(self) -> Generator[_Step, Any, None]:
        """Yields what is to be done next, and is sent what came of it."""
        consuming = yield self._connect
        publishing = yield self._connect
        self._consumer = yield partial(self._channel, consuming)
        self._consumer.add_on_cancel_callback(self._on_cancelled)
        self._publisher = yield partial(self._channel, publishing)
        self._publisher.add_on_return_callback(self._on_returned)
        yield partial(self._publisher.confirm_delivery, self._on_confirm)
        self._logger = yield partial(self._channel, publishing)
        publishing.add_on_connection_blocked_callback(self._on_blocked)
        publishing.add_on_connection_unblocked_callback(lambda *_: self._tell(self._machine.unblocked))

    def _step(self, result: Any = None) -> None:
        if self._closing:
            return
        try:
            self._steps.send(result)(self._step)
        except StopIteration:
            self._open = True
            self._tell(self._machine.link_up)
        except Exception as error:
            self.lose(_reason(error))

    def _connect(self, then: Callable[..., None]) -> None:
        timeout = self._machine.config.connect_timeout
        connection = Connection(
            parameters(self._asked, self._ssl, timeout), then, self._on_closed, self._on_closed, self._loop
        )
        self._connections.append(connection)

    def _channel(self, connection: Connection, then: Callable[..., None]) -> None:
        connection.channel(on_open_callback=then).add_on_close_callback(self._on_channel_closed)

    # What the broker says

    def _on_closed(self, connection: Connection, error: BaseException) -> None:
        self._connections.remove(connection)
        # pika takes any loss while logging in for one; only this is the broker's word.
        refused = "ConnectionClosedByBroker: (403)" in str(error)
        self.lose(_reason(error), refused)
        self._end_if_closed()

    def _on_channel_closed(self, _channel: Any, error: Exception) -> None:
        if isinstance(error, ChannelClosedByBroker):  # otherwise its connection was closed, which is reported
            self._tell(self._machine.channel_closed, _reason(error))

    def _on_cancelled(self, frame: Any) -> None:
        self._tell(self._machine.consumer_cancelled, _text(frame.method.consumer_tag))

    def _on_blocked(self, _connection: Connection, frame: Any) -> None:
        self._tell(self._machine.blocked, _text(frame.method.reason))

    def _on_confirm(self, frame: Any) -> None:
        got = frame.method
        answer = self._machine.confirmed if isinstance(got, pika.spec.Basic.Ack) else self._machine.refused
        self._tell(answer, got.delivery_tag, multiple=got.multiple)

    def _on_returned(self, _channel: Any, got: Any, properties: Any, body: bytes) -> None:
        exchange, key, reason = _text(got.exchange), _text(got.routing_key), _text(got.reply_text)
        self._tell(self._machine.returned, exchange, key, properties, body, reason)

    def _on_message(self, _channel: Any, got: Any, properties: Any, body: bytes) -> None:
        exchange, key = _text(got.exchange), _text(got.routing_key)
        self._tell(self._machine.delivered, got.delivery_tag, got.redelivered, exchange, key, properties, body)

    # Effects

    def _answer_to(self, effect: Effect) -> Callable[[Any], None]:
        """A callback for what the broker has to answer in time. What waits behind a failed one is never answered."""
        failed = partial(self._driver.tell, self._machine.effect_failed, effect, "no answer")
        timer = self._loop.call_later(self._machine.config.close_timeout, failed)
        return lambda _frame: self._loop.remove_timeout(timer)

    def _declare(self, effect: Declare) -> None:
        replies: list[base.Frame] = []

        def replied(frame: Any) -> None:
            kind: Any = commands.INDEX_MAPPING[frame.method.INDEX]
            replies.append(kind(*(getattr(frame.method, name) for name in kind.__slots__)))
            if len(replies) == len(effect.commands):
                self._tell(self._machine.declared, replies)

        for command in effect.commands:
            _DECLARATIONS[type(command)](self._consumer, command, replied)

    def _consume(self, effect: Consume) -> None:
        tag, answer = effect.consumer_tag, self._answer_to(effect)
        self._consumer.basic_consume(effect.queue, self._on_message, consumer_tag=tag, callback=answer)

    def _publish(self, effect: Publish) -> None:
        properties = Properties(effect.properties)
        self._publisher.basic_publish(effect.exchange, effect.routing_key, effect.body, properties, effect.mandatory)

    def _log(self, effect: PublishLog) -> None:
        if self._logger.connection.unsent < _MAX_UNSENT:
            self._logger.basic_publish("logs", effect.routing_key, effect.body, Properties(effect.properties))


#: pamqp's commands by methods of pika's channels; these wait for the answer before they send the next one.
_DECLARATIONS: dict[type, Callable[[Any, Any, Callable[[Any], None]], Any]] = {
    Exchange.Declare: lambda channel, it, then: channel.exchange_declare(
        it.exchange, it.exchange_type, it.passive, it.durable, it.auto_delete, it.internal, it.arguments, then
    ),
    Queue.Declare: lambda channel, it, then: channel.queue_declare(
        it.queue, it.passive, it.durable, it.exclusive, it.auto_delete, it.arguments, then
    ),
    Queue.Bind: lambda channel, it, then: channel.queue_bind(it.queue, it.exchange, it.routing_key, it.arguments, then),
    Basic.Qos: lambda channel, it, then: channel.basic_qos(it.prefetch_size, it.prefetch_count, it.global_, then),
}


def _text(value: str | bytes) -> str:
    """pika hands over as bytes what is not UTF-8."""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def _reason(error: BaseException) -> str:
    return " ".join(repr(error).split())
