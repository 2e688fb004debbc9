"""Puts a message together from its parts: a method, a content header, and its body in any number of frames.

Here is decided in which order the parts come and what is kept of them. Nothing here knows the connection, and who the
message is for.

Source: AMQP 0-9-1, section 4.2.6.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from pamqp.commands import Basic

from eda_core.amqp import reading
from eda_core.messages.properties import Unreadable

# Reply codes (section 1.2)
FRAME_ERROR: Final = 501
COMMAND_INVALID: Final = 503
UNEXPECTED_FRAME: Final = 505


class Fault(Exception):
    """The broker has broken the protocol. It never leaves :mod:`eda_core.amqp`.

    Attributes:
        code: the reply code for the broker.
    """

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


@dataclass(slots=True, eq=False)
class Content:
    """The message that is arriving on a channel, if there is one.

    Attributes:
        number: of the channel.
        method: what the message belongs to; ``None`` if none is arriving.
        properties: of the message; ``None`` before the content header.
        missing: how many bytes of the body are still to come.
        dropped: whether the body is too large to be kept.
        body: what has come of it; empty if it is dropped.
    """

    number: int
    method: Any = None
    properties: Basic.Properties | None = None
    missing: int = 0
    dropped: bool = False
    body: bytes | bytearray = b""

    def header(self, payload: bytes, max_body: int) -> bool:
        """Take a content header. Returns whether the message is complete, because it has no body.

        Args:
            payload: of the frame.
            max_body: the largest body that is kept, bytes.

        Raises:
            Fault: it is malformed, or not due.
        """
        if self.method is None:
            raise self._not_due("a content header")
        if self.properties is not None:
            raise Fault(UNEXPECTED_FRAME, f"two content headers for one message on channel {self.number}")
        try:
            size, properties = reading.read_content(payload)
        except ValueError as error:
            raise Fault(UNEXPECTED_FRAME, f"{error} on channel {self.number}") from None
        self.missing = size
        if size > max_body:
            self.dropped = True
            properties = Unreadable.of(properties, f"the body has {size} bytes, and {max_body} are allowed")
        self.properties = properties
        return not size

    def part(self, payload: bytes) -> bool:
        """Take a part of the body, the payload of a frame. Returns whether the message is complete.

        Raises:
            Fault: it is not due, or longer than the content header says.
        """
        if self.method is None:
            raise self._not_due("a body")
        if self.properties is None:
            raise Fault(UNEXPECTED_FRAME, f"a body before its content header on channel {self.number}")
        self.missing -= len(payload)
        if self.missing < 0:
            text = f"a body on channel {self.number} that is longer than its content header says"
            raise Fault(UNEXPECTED_FRAME, text)
        if self.body:  # One buffer: a list would be longer than the body if its parts are short.
            self.body += payload
        elif not self.dropped:
            self.body = bytearray(payload) if self.missing else payload
        return not self.missing

    def take(self) -> tuple[Any, Basic.Properties | None, bytes]:
        """Return the method, the properties and the body of a message that is complete. The next one may come then."""
        taken = self.method, self.properties, bytes(self.body)
        self.method = self.properties = None
        self.dropped = False
        self.body = b""
        return taken

    def _not_due(self, what: str) -> Fault:
        return Fault(UNEXPECTED_FRAME, f"{what} on channel {self.number}, where no message is due")
