"""Reads messages and confirms in what a broker sends, and leaves everything else to a client library.

Libraries take most of their time for what comes with each message. It does no I/O, knows no library, and does not know
what the messages mean.

Source: AMQP 0-9-1, section 4.2.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from pamqp.commands import Basic

from eda_core.amqp import reading
from eda_core.amqp.client import FRAME_MAX, Received
from eda_core.amqp.content import UNEXPECTED_FRAME, Content, Fault
from eda_core.amqp.writing import FRAME_OVERHEAD

#: The first octets of the methods that are read here, and whether a message comes with them.
_METHODS: Final = {
    method.index.to_bytes(4): method in (Basic.Deliver, Basic.Return)
    for method in (Basic.Deliver, Basic.Return, Basic.Ack, Basic.Nack)
}
_LEFT: Final[Any] = object()
_BROKEN: Final = "the broker breaks the protocol"


class MessageReader:
    """Sorts the bytes that come on one connection.

    On the channels of :meth:`open` it reads ``Basic.Deliver`` and ``Basic.Return`` with their messages, ``Basic.Ack``
    and ``Basic.Nack``. All other frames are for the library.

    Args:
        max_body: the largest body of a message that is kept, bytes. A larger one is received and dropped.
    """

    def __init__(self, max_body: int) -> None:
        self._max_body = max_body
        self._usual = min(max_body, FRAME_MAX)  # the largest body that is read in one step
        self._channels: dict[int, Content] = {}
        self._rest = bytearray()  # the beginning of a frame
        self._needed = 0  # how many bytes of it there must be before it is looked at again
        self._lost_step = False  # nobody knows where the next frame begins

    def open(self, channel: int) -> None:
        """Read the messages of a channel from now on. None may have begun to come."""
        self._channels[channel] = Content(channel)

    def close(self, channel: int) -> None:
        """Leave a channel to the library again, if it was opened."""
        self._channels.pop(channel, None)

    def receive(self, data: bytes) -> Iterator[Received | bytes]:
        """Take bytes from the broker, any number of them. Channels may be opened and closed between two items.

        Yields:
            In order: what was read; and the frames for the library, one by one. Behind something that is no frame all
            bytes are for the library, which says what is wrong.

        Raises:
            ValueError: the broker breaks the protocol in a message or a confirm, or with a frame of more bytes than
                ``FRAME_MAX``. The connection is of no use any more.
        """
        if self._lost_step:
            yield data
            return
        if self._needed:
            self._rest += data
            if len(self._rest) < self._needed:
                return
            data = bytes(self._rest)
            self._rest.clear()
            self._needed = 0
        at, size = 0, len(data)
        unpack, channel = reading.FRAME_START.unpack_from, self._channels.get
        while size - at >= 7:
            kind, number, length = unpack(data, at)
            start = at + 7
            end = start + length
            if kind not in reading.FRAME_TYPES or (end < size and data[end] != reading.FRAME_END):
                self._lost_step = True
                yield data[at:]
                return
            if length > FRAME_MAX:
                raise ValueError(f"{_BROKEN}: a frame of {length} bytes, and {FRAME_MAX} were agreed on")
            if end >= size:
                self._needed = length + FRAME_OVERHEAD
                break
            content = channel(number)
            if content is not None and kind == reading.METHOD and content.method is None:
                message = reading.read_delivery(data, at, self._usual)
                if message is not None:
                    method, properties, body, at = message
                    yield Received(number, method, properties, body)
                    continue
            read = _LEFT if content is None else self._read(content, kind, data[start:end])
            if read is _LEFT:
                yield data[at : end + 1]
            elif read is not None:
                yield read
            at = end + 1
        if at < size:
            self._rest += data[at:]
            self._needed = self._needed or 7

    def _read(self, content: Content, kind: int, payload: bytes) -> Any:
        """Return what a frame completes; ``None`` if more has to come, or ``_LEFT``."""
        try:
            if kind == reading.METHOD:
                return self._method(content, payload)
            if content.method is None or kind == reading.HEARTBEAT:
                return _LEFT
            whole = content.header(payload, self._max_body) if kind == reading.HEADER else content.part(payload)
            return Received(content.number, *content.take()) if whole else None
        except (Fault, ValueError) as error:
            raise ValueError(f"{_BROKEN}: {error}") from None

    def _method(self, content: Content, payload: bytes) -> Any:
        has_message = _METHODS.get(payload[:4])
        if has_message is None:
            return _LEFT
        method = reading.read_method(payload)
        if content.method is not None:
            raise Fault(UNEXPECTED_FRAME, f"{method.name} on channel {content.number} in the middle of a message")
        if not has_message:
            return Received(content.number, method)
        content.method = method
        return None
