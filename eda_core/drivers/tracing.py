"""Who makes the traces of a service is told here of its handlers and of what they publish.

The core knows no library for traces: an object with these methods does (``eda_otel`` has one). This module decides what
it is told. It does not know what a trace looks like.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Protocol, Self

from eda_core.machine.effects import Effect
from eda_core.machine.machine import Machine
from eda_core.machine.outcomes import Failed
from eda_core.messages.values import AnyMessage, Command


class Span(Protocol):
    """The trace of one handler of a message, or of one callback of a batch."""

    def left(self, error: BaseException | None) -> None:
        """Note that the user code has returned, in the context in which it has run.

        Args:
            error: what it has raised and nobody has caught. Then this is also the :meth:`end`.
        """

    def end(self, failure: Failed | None) -> None:
        """End it. Only the first call counts.

        Args:
            failure: how the handler has failed; ``None`` if it has not.
        """


class Sending(Protocol):
    """The trace of one call that publishes a message: a context manager, which is left when the call returns.

    Attributes:
        message: the message with the headers of its trace in ``meta``: a copy.
    """

    message: AnyMessage

    def accepted(self, message_id: str) -> None:
        """Note that the machine has accepted the message: it is held, or will be sent."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...


class SendingMany(Protocol):
    """The trace of one call that publishes many messages: a context manager, as :class:`Sending` is.

    Attributes:
        meta: the ``meta`` for each message.
    """

    meta: dict[str, Any]

    def counted(self, messages: int) -> None:
        """Note how many messages there were."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...


class Tracing(Protocol):
    """Makes the traces of one service or endpoint. Its methods are called in the thread and the context of user code.

    None of them may raise or wait.
    """

    def connecting(self, url: str, name: str) -> None:
        """Note that a link to the broker at ``url`` is opened, which takes the place of the one before.

        Args:
            name: that of the connection, for the broker.
        """

    def handling(self, message: AnyMessage, attempt: int) -> Span:
        """Begin the trace of a handler.

        Args:
            attempt: which attempt at the message this is, from 1; 0 if that is not known, because the link was lost.
        """

    def handling_batch(self, metas: Sequence[Mapping[str, Any]]) -> Span:
        """Begin the trace of the callback of a batch. ``metas`` are the ``meta`` of the events in the batch."""

    def sending(self, message: AnyMessage, *, held: bool, within: Span | None = None) -> Sending:
        """Begin the trace of a publish.

        Args:
            held: whether the message is sent when the handler has succeeded that publishes it.
            within: the handler whose code has returned, and whose result this is; ``None`` if user code publishes.
        """

    def calling(self, message: Command) -> Sending:
        """Begin the trace of a command whose result is awaited. It has no payload, and perhaps no conversation id."""

    def sending_many(self, meta: dict[str, Any]) -> SendingMany:
        """Begin the trace of many events that are published in one call. ``meta`` is that of each."""


class Noting:
    """A machine that tells a :class:`Sending` which id the message has got that it publishes."""

    __slots__ = ("_machine", "_sending")

    def __init__(self, machine: Machine, sending: Sending) -> None:
        self._machine, self._sending = machine, sending

    def publish(self, *arguments: Any, **named: Any) -> list[Effect]:
        """Publish as :meth:`Machine.publish` does."""
        return self._noted(self._machine.publish, *arguments, **named)

    def call(self, *arguments: Any, **named: Any) -> list[Effect]:
        """Send a command as :meth:`Machine.call` does."""
        return self._noted(self._machine.call, *arguments, **named)

    def _noted(self, method: Callable[..., list[Effect]], *arguments: Any, **named: Any) -> list[Effect]:
        machine = self._machine
        before = machine.published
        effects = method(*arguments, **named)
        if machine.published != before:  # else a later delivery publishes it again
            self._sending.accepted(machine.last_message_id)
        return effects
