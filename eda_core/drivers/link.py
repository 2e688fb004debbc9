"""What the links of all transports have in common: which method performs an effect, and which input each method of the
broker makes.

It knows no client library. A transport derives from :class:`Link`, fills in how to open and to close, and what to do
for each effect, and passes in what the broker sends.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar, Final

from pamqp import base

from eda_core.amqp.client import Received
from eda_core.amqp.reading import named
from eda_core.drivers.base import Driver
from eda_core.machine.effects import (
    CONSUMING,
    LOGGING,
    PUBLISHING,
    Ack,
    Cancel,
    Close,
    Connect,
    Consume,
    Declare,
    Effect,
    Nack,
    OpenChannel,
    Probe,
    Publish,
    PublishLog,
)
from eda_core.machine.machine import Machine
from eda_core.text import as_text, one_line, shortened

#: Bytes that may wait to be sent before logs are dropped: an alarm may last for hours, and a program may log more than
#: a broker reads.
MAX_UNSENT: Final = 1_000_000
#: What names a declaration.
_NAMES: Final = ("queue", "exchange", "routing_key")


class Link:
    """The connections and channels of one epoch.

    Attributes:
        asked: the effect that asks for this link.
        up: the link is complete, and effects are performed. :meth:`report_open` sets it; a transport may unset it.
        library: the name and the version of the client library, for the log. The class of a transport sets it.
        closing: the link is given up, or is to be closed: nothing more is performed, and failures are not reported. The
            transport sets it.
        unresponsive: the broker does not answer, so that the link should be closed by force at once. It is set before
            :meth:`close` is called.
        actions: the method for each effect except ``Close``.
    """

    library: ClassVar[str] = ""

    def __init__(self, asked: Connect, driver: Driver) -> None:
        self.asked: Connect = asked
        self.driver: Driver = driver
        self.machine: Machine = driver.machine
        self.up: bool = False
        self.closing: bool = False
        self.unresponsive: bool = False
        self.actions: dict[type, Callable[[Any], Any]] = {
            Declare: self._begin_to_declare,
            Consume: self.consume,
            Cancel: self.cancel,
            OpenChannel: self.open_channel,
            Probe: self._probe_once,
            Ack: self.ack,
            Nack: self.nack,
            Publish: self.publish,
            PublishLog: self._log_unless_congested,
        }
        #: The commands of the last ``Declare`` on each channel, and the replies to them that have come.
        self._declared: dict[str, tuple[tuple[base.Frame, ...], list[base.Frame]]] = {}
        #: What :meth:`traffic` returned at the last ``Probe``, by channel, until the broker has answered.
        self._probed: dict[str, tuple[int, int]] = {}

    # What a transport fills in. Each of these may raise: the failure is reported to the machine.

    def close(self) -> Any:
        """Close in good order if possible, by force after ``close_timeout`` seconds; then tell ``link_down``.

        If the broker is :attr:`unresponsive`, close by force at once.
        """
        raise NotImplementedError

    def declare(self, effect: Declare) -> Any:
        """Send the commands of the effect on its channel, in order, and pass each reply to :meth:`receive`.

        Send all of them before the first reply comes: a service may have thousands of names, and a round trip for each
        would take too long. The broker replies in order. If the channel is not ``CONSUMING``, open it first, on the
        connection for consuming; :meth:`close_channel` comes when all replies have come.
        """
        raise NotImplementedError

    def close_channel(self, channel: str) -> Any:
        """Send ``Channel.Close`` on a channel that was opened for a ``Declare``. Nobody waits for the reply."""
        raise NotImplementedError

    def consume(self, effect: Consume) -> Any:
        """Send ``Basic.Consume``."""
        raise NotImplementedError

    def cancel(self, effect: Cancel) -> Any:
        """Send ``Basic.Cancel``."""
        raise NotImplementedError

    def open_channel(self, effect: OpenChannel) -> Any:
        """Open the channel again that the broker has closed, for ``PUBLISHING`` with confirms.

        Then call :meth:`report_channel_open`.
        """
        raise NotImplementedError

    def probe(self, effect: Probe) -> Any:
        """Send ``Channel.Flow`` with ``active`` set on a channel, and pass the reply to :meth:`receive`."""
        raise NotImplementedError

    def traffic(self, channel: str) -> tuple[int, int]:
        """Return what has been received on the connection of a channel, and how many bytes wait to be sent there.

        The first number grows with each frame or byte that the broker sends.
        """
        raise NotImplementedError

    def ack(self, effect: Ack) -> Any:
        """Send ``Basic.Ack``."""
        raise NotImplementedError

    def nack(self, effect: Nack) -> Any:
        """Send ``Basic.Nack``."""
        raise NotImplementedError

    def publish(self, effect: Publish) -> Any:
        """Send ``Basic.Publish`` on the publishing channel."""
        raise NotImplementedError

    def log(self, effect: PublishLog) -> Any:
        """Send ``Basic.Publish`` on the channel for logs."""
        raise NotImplementedError

    def congested(self) -> bool:
        """Whether at least :data:`MAX_UNSENT` bytes wait to be sent where logs are sent. Logs are dropped then."""
        raise NotImplementedError

    # What the driver and the transport call

    def socket_options(self, socket: Any, channel: str) -> dict[str, int]:
        """Return the options to set on the socket of a connection, by their names in the module ``socket``.

        A connection on which messages are published keeps none of its peer's silences for a fault (see
        ``Connect.user_timeout``), so the value there is 0, whatever the client library has for a default.

        Args:
            socket: the module. An option that it does not have is left out.
            channel: what the connection is for, ``CONSUMING`` or ``PUBLISHING``; the latter if it is for both.

        Returns:
            The values of the options, all of the level ``IPPROTO_TCP``.
        """
        options = {"TCP_USER_TIMEOUT": self.asked.user_timeout if channel == CONSUMING else 0}
        return {name: value for name, value in options.items() if hasattr(socket, name)}

    def perform(self, effect: Effect) -> None:
        """Perform the effect. Never raises: a failure is reported to the machine."""
        try:
            if type(effect) is Close:
                self.unresponsive = effect.unresponsive
                self.close()
            elif self.up and not self.closing:
                self.begin(effect)
        except Exception as error:
            self.report_failure(effect, error)

    def begin(self, effect: Effect) -> None:
        """Begin to perform an effect on an open link. A transport whose actions are coroutines overrides this."""
        self.actions[type(effect)](effect)

    def report_failure(self, effect: Effect, error: BaseException) -> None:
        """Tell the machine that the effect could not be performed, unless the link is closing."""
        if not self.closing:
            self.driver.tell(self.machine.effect_failed, effect, reason(error))

    def report_channel_closed(self, channel: str, why: str) -> None:
        """Tell the machine that the broker has closed a channel, and, if it refused a declaration, which one.

        Args:
            channel: ``CONSUMING``, ``PUBLISHING``, ``LOGGING``, or that of a ``Declare``.
            why: the broker's reason.
        """
        commands, replies = self._declared.get(channel, ((), []))
        open_ = commands[len(replies) :]
        if open_:
            why, refused = f"{why}, in answer to {_shown(open_[0])}", open_[0]
            self.tell(self.machine.channel_closed, why, channel=channel, declaration=refused)
        else:
            self.tell(self.machine.channel_closed, why, channel=channel)

    def report_open(self, server: Mapping[str, Any] | None = None) -> None:
        """Tell the machine that the link is complete.

        Args:
            server: the ``server-properties`` of the broker's ``Connection.Start``, for the log; ``None`` if the library
                does not give them.
        """
        self.up = True
        self.tell(self.machine.link_up, broker=broker_name(server or {}), library=self.library)

    def report_channel_open(self, channel: str) -> None:
        """Tell the machine that a channel is open again."""
        self._probed.pop(channel, None)
        self.tell(self.machine.channel_opened, channel=channel)

    def tell(self, method: Callable[..., list[Effect]], *arguments: Any, **named: Any) -> None:
        """Make an input of the machine, a bound method of it, with the epoch of this link as its first argument."""
        self.driver.tell(method, self.asked.epoch, *arguments, **named)

    def receive(self, name: str, method: Any, *content: Any) -> None:
        """Make the input that a method of the broker means.

        Args:
            name: the name of the method in AMQP 0-9-1, such as ``Basic.Deliver``.
            method: an object of pamqp, or of another library, with the attributes that AMQP 0-9-1 names. A reply to a
                command of ``Declare`` must be pamqp's.
            content: if a message comes with the method, its properties (pamqp's, or an object with the same
                attributes; :class:`eda_core.messages.Unreadable` if they cannot be read) and its body. With
                ``Channel.Close``, ``Channel.OpenOk``, ``Channel.FlowOk`` and the replies to the commands of a
                ``Declare`` comes the name of the channel: ``CONSUMING``, ``PUBLISHING``, ``LOGGING``, or that of the
                ``Declare``.

        Raises:
            ValueError: no broker sends this method to a link that is open.
        """
        meaning = MEANINGS.get(name)
        if meaning is None:
            raise ValueError(f"unexpected {name}")
        meaning(self, method, *content)

    def receive_all(self, items: Iterable[Received | bytes], library: Callable[[bytes], object]) -> None:
        """Take what one read of a socket has brought. All that it means is told before any effect is performed.

        Args:
            items: what ``MessageReader.receive`` in :mod:`eda_core.amqp` yields.
            library: takes the frames that are left to the client library. What it raises ends this, and is raised here.
        """
        with self.driver.together():
            for item in items:
                if isinstance(item, bytes):
                    library(item)
                elif item.properties is None:
                    self.receive(item.method.name, item.method)
                else:
                    self.receive(item.method.name, item.method, item.properties, item.body)

    def _log_unless_congested(self, effect: PublishLog) -> Any:
        """Nothing else bounds logs: no window, and nobody waits for them."""
        return None if self.congested() else self.log(effect)

    def _probe_once(self, effect: Probe) -> Any:
        """Ask the broker for a sign of life; if it was asked already, look whether a large message is on its way."""
        channel, (received, unsent) = effect.channel, self.traffic(effect.channel)
        before = self._probed.get(channel)
        self._probed[channel] = received, unsent
        if before is None:
            return self.probe(effect)
        if received != before[0] or unsent < before[1]:
            self.tell(self.machine.alive, channel=channel)
        return None

    def _report_alive(self, channel: str) -> None:
        self._probed.pop(channel, None)
        self.tell(self.machine.alive, channel=channel, answered=True)

    def _begin_to_declare(self, effect: Declare) -> Any:
        self._declared[effect.channel] = effect.commands, []
        return self.declare(effect)

    def _collect_reply(self, reply: base.Frame, channel: str = CONSUMING) -> None:
        commands, replies = self._declared[channel]
        replies.append(reply)
        if len(replies) < len(commands):
            return
        if channel == CONSUMING:
            self.tell(self.machine.declared, replies)
        else:
            del self._declared[channel]
            self.close_channel(channel)
            self.tell(self.machine.declared, replies, channel=channel)


def _shown(declaration: base.Frame) -> str:
    names = [f"{name}={value!r}" for name in _NAMES if (value := getattr(declaration, name, ""))]
    return f"{declaration.name}({', '.join(names)})"


def reason(error: BaseException) -> str:
    """Why a link failed, on one line. Some libraries give the reason only in the ``repr`` of an error."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else " ".join(repr(error).split())


def broker_name(server: Mapping[str, Any]) -> str:
    """Return the name and the version of a broker from its ``server-properties``, such as "RabbitMQ 3.10.8"."""
    parts = (server.get(name) for name in ("product", "version"))
    return shortened(one_line(" ".join(as_text(part) for part in parts if isinstance(part, (str, bytes)))), 100)


def _delivered(link: Link, it: Any, properties: Any, body: bytes) -> None:
    exchange, key, properties = named(it, properties)
    epoch, tell = link.asked.epoch, link.driver.tell  # not by link.tell(), because each message comes here
    tell(link.machine.delivered, epoch, it.delivery_tag, it.redelivered, exchange, key, properties, body)


def _returned(link: Link, it: Any, properties: Any, body: bytes) -> None:
    exchange, key, properties = named(it, properties)
    link.tell(link.machine.returned, exchange, key, properties, body, as_text(it.reply_text))


#: What each method of the broker means.
MEANINGS: Final[dict[str, Callable[..., None]]] = {
    "Basic.Deliver": _delivered,
    "Basic.Return": _returned,
    "Basic.Ack": lambda link, it: link.tell(link.machine.confirmed, it.delivery_tag, multiple=it.multiple),
    "Basic.Nack": lambda link, it: link.tell(link.machine.refused, it.delivery_tag, multiple=it.multiple),
    "Basic.Cancel": lambda link, it: link.tell(link.machine.consumer_cancelled, as_text(it.consumer_tag)),
    "Channel.Close": lambda link, it, channel: link.report_channel_closed(channel, as_text(it.reply_text)),
    "Channel.OpenOk": lambda link, it, channel: link.report_channel_open(channel) if channel == LOGGING else None,
    "Channel.FlowOk": lambda link, it, channel: link._report_alive(channel),
    "Confirm.SelectOk": lambda link, it: link.report_channel_open(PUBLISHING),
    "Connection.Blocked": lambda link, it: link.tell(link.machine.blocked, as_text(it.reason)),
    "Connection.Unblocked": lambda link, it: link.tell(link.machine.unblocked),
    **dict.fromkeys(
        ("Exchange.DeclareOk", "Exchange.BindOk", "Queue.DeclareOk", "Queue.BindOk", "Basic.QosOk"), Link._collect_reply
    ),
    **dict.fromkeys(("Basic.ConsumeOk", "Basic.CancelOk"), lambda link, it, *channel: None),
}
