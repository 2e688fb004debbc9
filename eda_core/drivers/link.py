"""What the links of all transports have in common: how an effect finds its method, and what each method of the broker
means to the machine.

A transport derives from :class:`Link`, fills in how to open and close and what to do for each effect, and hands over
what the broker sends.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from pamqp import base

from eda_core.drivers.base import Driver
from eda_core.machine.effects import Ack, Cancel, Close, Connect, Consume, Declare, Effect, Nack, Publish, PublishLog
from eda_core.machine.machine import Machine

#: Bytes. An alarm may last for hours, and somebody may log faster than a broker reads.
MAX_UNSENT: Final = 1_000_000


class Link:
    """The connections and channels of one epoch.

    Attributes:
        asked: what the machine asked for.
        up: set it when the link is complete; effects are performed from then on.
        closing: set it when the link is given up, or is to be closed; nothing more is performed then.
        actions: the method for each effect but ``Close``.
    """

    def __init__(self, asked: Connect, driver: Driver) -> None:
        self.asked: Connect = asked
        self.driver: Driver = driver
        self.machine: Machine = driver.machine
        self.up: bool = False
        self.closing: bool = False
        self.actions: dict[type, Callable[[Any], Any]] = {
            Declare: self._declare,
            Consume: self.consume,
            Cancel: self.cancel,
            Ack: self.ack,
            Nack: self.nack,
            Publish: self.publish,
            PublishLog: self._log,
        }
        self._replies: list[base.Frame] = []
        self._awaited = 0

    # What a transport fills in. Any of these may raise: the machine hears of it.

    def close(self) -> Any:
        """Close in good order if that is possible, by force after ``close_timeout``; then tell ``link_down``."""
        raise NotImplementedError

    def declare(self, effect: Declare) -> Any:
        """Send its commands on the consuming channel, in order. What :meth:`received` does not get of the replies, if
        the library keeps them to itself, is told by ``declared``."""
        raise NotImplementedError

    def consume(self, effect: Consume) -> Any:
        """``Basic.Consume``."""
        raise NotImplementedError

    def cancel(self, effect: Cancel) -> Any:
        """``Basic.Cancel``."""
        raise NotImplementedError

    def ack(self, effect: Ack) -> Any:
        """``Basic.Ack``."""
        raise NotImplementedError

    def nack(self, effect: Nack) -> Any:
        """``Basic.Nack``."""
        raise NotImplementedError

    def publish(self, effect: Publish) -> Any:
        """``Basic.Publish`` on the publishing channel."""
        raise NotImplementedError

    def log(self, effect: PublishLog) -> Any:
        """``Basic.Publish`` to the exchange of the effect, on the channel for logs."""
        raise NotImplementedError

    def congested(self) -> bool:
        """Whether :data:`MAX_UNSENT` bytes or more wait to be sent where logs are: then logs are dropped."""
        raise NotImplementedError

    # What it is given

    def perform(self, effect: Effect) -> None:
        """Perform it. Never raises: what fails is reported."""
        try:
            if isinstance(effect, Close):
                self.close()
            elif self.up and not self.closing:
                self.actions[type(effect)](effect)
        except Exception as error:
            self.failed(effect, error)

    def failed(self, effect: Effect, error: BaseException) -> None:
        """It could not be performed; nobody wants to know when the link is given up."""
        if not self.closing:
            self.driver.tell(self.machine.effect_failed, effect, reason(error))

    def tell(self, method: Callable[..., list[Effect]], *arguments: Any, **named: Any) -> None:
        """Make an input about this link."""
        self.driver.tell(method, self.asked.epoch, *arguments, **named)

    def opened(self) -> None:
        """The link is complete."""
        self.up = True
        self.tell(self.machine.link_up)

    def received(self, name: str, method: Any, *content: Any) -> None:
        """Make the input that a method of the broker's is.

        Args:
            name: as AMQP 0-9-1 names it, ``Basic.Deliver``.
            method: with the attributes that AMQP 0-9-1 gives it: pamqp's, or another library's; a reply to a command
                of ``Declare`` is pamqp's.
            content: the properties, pamqp's or with the same attributes, and the body, if a message comes with it.

        Raises:
            ValueError: no broker sends it to a link that is open.
        """
        meaning = MEANINGS.get(name)
        if meaning is None:
            raise ValueError(f"unexpected {name}")
        meaning(self, method, *content)

    def _log(self, effect: PublishLog) -> Any:
        """The one thing sent that no window bounds, nor anybody waits for."""
        return None if self.congested() else self.log(effect)

    def _declare(self, effect: Declare) -> Any:
        self._replies, self._awaited = [], len(effect.commands)
        return self.declare(effect)

    def _replied(self, reply: base.Frame) -> None:
        self._replies.append(reply)
        if len(self._replies) == self._awaited:
            self.tell(self.machine.declared, self._replies)


def reason(error: BaseException) -> str:
    """Why a link failed, on one line. Some libraries say something only in an error's ``repr``."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else " ".join(repr(error).split())


def _text(value: str | bytes) -> str:
    """Some libraries hand over as bytes what is not UTF-8."""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def _delivered(link: Link, it: Any, *content: Any) -> None:
    exchange, key = _text(it.exchange), _text(it.routing_key)
    link.tell(link.machine.delivered, it.delivery_tag, it.redelivered, exchange, key, *content)


def _returned(link: Link, it: Any, *content: Any) -> None:
    exchange, key = _text(it.exchange), _text(it.routing_key)
    link.tell(link.machine.returned, exchange, key, *content, _text(it.reply_text))


#: For each method of the broker what it means.
MEANINGS: Final[dict[str, Callable[..., None]]] = {
    "Basic.Deliver": _delivered,
    "Basic.Return": _returned,
    "Basic.Ack": lambda link, it: link.tell(link.machine.confirmed, it.delivery_tag, multiple=it.multiple),
    "Basic.Nack": lambda link, it: link.tell(link.machine.refused, it.delivery_tag, multiple=it.multiple),
    "Basic.Cancel": lambda link, it: link.tell(link.machine.consumer_cancelled, _text(it.consumer_tag)),
    "Channel.Close": lambda link, it: link.tell(link.machine.channel_closed, _text(it.reply_text)),
    "Connection.Blocked": lambda link, it: link.tell(link.machine.blocked, _text(it.reason)),
    "Connection.Unblocked": lambda link, it: link.tell(link.machine.unblocked),
    **dict.fromkeys(("Exchange.DeclareOk", "Queue.DeclareOk", "Queue.BindOk", "Basic.QosOk"), Link._replied),
    **dict.fromkeys(("Basic.ConsumeOk", "Basic.CancelOk"), lambda link, it: None),
}
