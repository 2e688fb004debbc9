"""What one handling of a message has published, in the form in which an inbox keeps it.

It decides what is published again when the message is handled again. It does no I/O, and does not know where the text
is kept.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from typing import Any, Final

import cbor2

from eda_core.errors import LocalError
from eda_core.messages.codec import CBOR, DecodeError, Limits, decode, encode, without_models_for
from eda_core.messages.values import AnyMessage, Command, Configuration, Event, Result

#: The form of the text. A later one gets another number.
_FORM: Final = 1
_KINDS: Final[tuple[type[AnyMessage], ...]] = (Event, Command, Result, Configuration)


class Kept:
    """The publishes of one handling of a message.

    Args:
        message: the message that is handled.
        stored: what :meth:`record` returned when it was handled before; ``None`` if it was not.
        limits: the limits of payloads.
        content_type: how the service writes payloads, ``CBOR`` or ``JSON``. Models become maps as it is done for that.

    Attributes:
        first: whether the message is handled for the first time.
    """

    __slots__ = ("_content_type", "_limits", "_message", "_publishes", "_stored", "first")

    def __init__(self, message: AnyMessage, stored: str | None, limits: Limits, content_type: str = CBOR) -> None:
        self.first: bool = stored is None
        self._message = message
        self._stored = stored or ""
        self._limits = limits
        self._content_type = content_type
        self._publishes: list[list[Any]] = []

    def add(self, message: AnyMessage, mandatory: bool) -> None:
        """Note what the handler publishes, as it is now: the caller may change the payload later.

        Raises:
            PayloadError: the payload or a header cannot be written as CBOR.
        """
        more: list[Any] = []
        if isinstance(message, Command):
            more = [message.reply_to, message.correlation_id]
        elif isinstance(message, Result):
            more = [message.status, message.correlation_id, _answers(message, self._message)]
        payload = without_models_for(message.payload, self._content_type)
        body, meta = (encode(each, CBOR, self._limits) for each in (payload, message.meta))
        kind = _KINDS.index(type(message))
        self._publishes.append([kind, message.name, body, message.conversation_id, meta, mandatory, more])

    def record(self) -> str:
        """Return what was published as ASCII text, to be kept in the transaction of the handler."""
        return b64encode(cbor2.dumps([_FORM, self._publishes])).decode("ascii")

    def again(self) -> list[tuple[AnyMessage, bool]]:
        """Return what was published when the message was handled before, and whether each is mandatory, in order.

        An answer goes to the sender of the present message: a command that is sent again may have another ``reply_to``.

        Raises:
            LocalError: the stored text is none of :meth:`record`.
        """
        if not self._stored:
            return []
        try:
            form, publishes = cbor2.loads(b64decode(self._stored, validate=True))
            if form != _FORM:
                raise ValueError(f"form {form!r}")
            return [(self._message_of(*publish), bool(publish[5])) for publish in publishes]
        except (ValueError, TypeError, IndexError, DecodeError) as error:
            raise LocalError(
                f"what the inbox keeps of {self._message.name} cannot be read: {error}",
                hint="the text in its store was changed, or a later version of eda-core has written it",
            ) from error

    def _message_of(
        self, kind: int, name: str, body: bytes, conversation_id: str, meta: bytes, _: bool, more: list[Any]
    ) -> AnyMessage:
        payload, headers = (decode(each, CBOR, self._limits) for each in (body, meta))
        made = _KINDS[kind]
        if made is Command:
            reply_to, correlation_id = more
            return Command(name, payload, conversation_id, reply_to, correlation_id, headers)
        if made is Result:
            status, correlation_id, answers = more
            if answers and isinstance(self._message, Command):
                name, correlation_id = self._message.reply_to, self._message.correlation_id
            return Result(name, payload, conversation_id, status, correlation_id, headers)
        return (
            Event(name, payload, conversation_id, headers)
            if made is Event
            else Configuration(name, payload, conversation_id, headers)
        )


def _answers(result: Result, message: AnyMessage) -> bool:
    """Return whether a result is the answer to the message that is handled."""
    return (
        isinstance(message, Command)
        and result.name == message.reply_to
        and result.correlation_id == message.correlation_id
    )
