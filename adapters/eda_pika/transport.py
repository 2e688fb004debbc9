"""One link on pika: two connections, since in an alarm nothing is read from one that publishes, not even its acks."""

from collections.abc import Callable, Generator
from functools import partial
from ssl import SSLContext
from typing import Any

import pika
from pamqp import base, commands
from pika.exceptions import ChannelClosedByBroker

from eda_core import Ack, Cancel, Close, Connect, Consume, Declare, Effect, Nack, Publish, PublishLog
from eda_core.driver import Driver
from eda_pika.connection import Connection, Properties, parameters

_MAX_UNSENT = 1_000_000  # bytes; a log is dropped rather than queued behind more: an alarm may last for hours


class Link:
    """Opens the connections and channels of one epoch; ``forget`` is called when no connection is left."""

    def __init__(
        self, asked: Connect, driver: Driver, context: SSLContext | None, loop: Any, forget: Callable[[], None]
    ) -> None:
        self._asked, self._driver, self._machine, self._loop = asked, driver, driver.machine, loop
        self._context, self._forget = context, forget
        self._connections: list[Connection] = []
        self._open = self._closing = False
        self._steps = self._opening()
        self._actions: dict[type, Callable[[Any], Any]] = {
            Declare: self._declare,
            Consume: lambda it: self._consumer.basic_consume(
                it.queue, self._on_message, consumer_tag=it.consumer_tag, callback=self._answer_to(it)
            ),
            Cancel: lambda it: self._consumer.basic_cancel(it.consumer_tag, self._answer_to(it)),
            Ack: lambda it: self._consumer.basic_ack(it.tag, it.multiple),
            Nack: lambda it: self._consumer.basic_nack(it.tag, requeue=it.requeue),
            Publish: lambda it: self._publisher.basic_publish(
                it.exchange, it.routing_key, it.body, Properties(it.properties), it.mandatory
            ),
            PublishLog: self._log,
        }
        loop.add_callback_threadsafe(self._step)  # not at once: the driver does not know this link yet

    def perform(self, effect: Effect) -> None:
        if isinstance(effect, Close):
            self.close()
        elif self._open and not self._closing:
            try:
                self._actions[type(effect)](effect)
            except Exception as error:
                self._driver.tell(self._machine.effect_failed, effect, _line(error))

    def close(self, *, at_once: bool = False) -> None:
        """In good order where that can be, by force after ``close_timeout``."""
        self._closing = True
        for connection in tuple(self._connections):
            if at_once or not connection.is_open:
                connection.abort()
            else:
                self._loop.call_later(self._machine.config.close_timeout, connection.abort)
                connection.close()
        self._end_if_closed()

    def lose(self, reason: str, refused: bool = False) -> None:
        """Report the link as lost, and close what is left of it."""
        if not self._closing:
            self._tell(self._machine.link_down, reason, refused=refused)
            self.close()

    def _end_if_closed(self) -> None:
        if self._closing and not self._connections:
            self._forget()
            self._tell(self._machine.link_down, "closed")

    def _tell(self, method: Callable[..., list[Effect]], *arguments: Any, **named: Any) -> None:
        self._driver.tell(method, self._asked.epoch, *arguments, **named)

    def _opening(self) -> Generator[Callable[[Callable[..., None]], Any], Any, None]:
        """Yields what to begin next, and is sent what it calls back with."""
        consuming, publishing = (yield self._connect), (yield self._connect)
        self._consumer = yield partial(self._channel, consuming)
        self._consumer.add_on_cancel_callback(
            lambda frame: self._tell(self._machine.consumer_cancelled, _text(frame.method.consumer_tag))
        )
        self._publisher = yield partial(self._channel, publishing)
        self._publisher.add_on_return_callback(self._on_returned)
        yield partial(self._publisher.confirm_delivery, self._on_confirm)
        self._logger = yield partial(self._channel, publishing)
        publishing.add_on_connection_blocked_callback(
            lambda _, frame: self._tell(self._machine.blocked, _text(frame.method.reason))
        )
        publishing.add_on_connection_unblocked_callback(lambda *_: self._tell(self._machine.unblocked))

    def _step(self, result: Any = None) -> None:
        if not self._closing:
            try:
                self._steps.send(result)(self._step)
            except StopIteration:
                self._open = True
                self._tell(self._machine.link_up)
            except Exception as error:
                self.lose(_line(error))

    def _connect(self, then: Callable[..., None]) -> None:
        asked = parameters(self._asked, self._context)
        self._connections.append(Connection(asked, then, self._on_closed, self._on_closed, self._loop))

    def _channel(self, connection: Connection, then: Callable[..., None]) -> None:
        connection.channel(on_open_callback=then).add_on_close_callback(self._on_channel_closed)

    def _on_closed(self, connection: Connection, error: BaseException) -> None:
        self._connections.remove(connection)
        # pika takes any loss while logging in for a refusal; this is the broker's word.
        self.lose(_line(error), "ConnectionClosedByBroker: (403)" in str(error))
        self._end_if_closed()

    def _on_channel_closed(self, _channel: Any, error: Exception) -> None:
        if isinstance(error, ChannelClosedByBroker):  # otherwise its connection was closed, and says so
            self._tell(self._machine.channel_closed, _line(error))

    def _on_confirm(self, frame: Any) -> None:
        got = frame.method
        answer = self._machine.confirmed if isinstance(got, pika.spec.Basic.Ack) else self._machine.refused
        self._tell(answer, got.delivery_tag, multiple=got.multiple)

    def _on_returned(self, _channel: Any, got: Any, *content: Any) -> None:
        self._tell(self._machine.returned, _text(got.exchange), _text(got.routing_key), *content, _text(got.reply_text))

    def _on_message(self, _channel: Any, got: Any, *content: Any) -> None:
        exchange, key = _text(got.exchange), _text(got.routing_key)
        self._tell(self._machine.delivered, got.delivery_tag, got.redelivered, exchange, key, *content)

    def _answer_to(self, effect: Effect) -> Callable[[Any], None]:
        """For what the broker has to answer in time; a command behind one that failed is never answered."""
        awaited = [effect]

        def look() -> None:
            for each in awaited:
                self._driver.tell(self._machine.effect_failed, each, "no answer")

        # Not at once: a handler may have kept the loop from reading until now.
        late = partial(self._loop.add_callback_threadsafe, look)
        self._loop.call_later(self._machine.config.close_timeout, late)
        return lambda _: awaited.clear()

    def _declare(self, effect: Declare) -> None:
        replies: list[base.Frame] = []

        def replied(frame: Any) -> None:
            kind: Any = commands.INDEX_MAPPING[frame.method.INDEX]
            replies.append(kind(*(getattr(frame.method, name) for name in kind.__slots__)))
            if len(replies) == len(effect.commands):
                self._tell(self._machine.declared, replies)

        known = pika.spec.methods
        for command in effect.commands:  # pika sends each when the one before is answered
            method = known[command.index]().decode(command.marshal())
            self._consumer._rpc(method, replied, [known[command.index + 1]])

    def _log(self, it: PublishLog) -> None:
        if self._logger.connection.unsent < _MAX_UNSENT:
            self._logger.basic_publish("logs", it.routing_key, it.body, Properties(it.properties))


def _text(value: str | bytes) -> str:
    """pika hands over as bytes what is not UTF-8."""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def _line(error: BaseException) -> str:
    return " ".join(repr(error).split())
