"""Connections of aiormq that read frames as the core does.

aiormq's own reader ends the connection over properties and routing keys that it cannot read, and the broker delivers
the message again, to the next connection (docs/design.rst, "Messages that end aiormq").

The methods that begin with an underscore are private methods of aiormq 7.2. ``eda_aio/transport.py`` checks the
version; tests/adapters/aio checks that they are called.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from aiormq import Connection as Aiormq
from aiormq.exceptions import AMQPConnectionError, AuthenticationError, ConnectionClosed
from pamqp.commands import Connection as Method

from eda_core.amqp import read_frame
from eda_core.drivers import login_refusal


class _ReceivedFrames:
    """The frames that come from ``reader``, in the place of aiormq's receiver."""

    def __init__(self, reader: asyncio.StreamReader, received: Callable[[], None]) -> None:
        self._reader, self._received = reader, received

    def __aiter__(self) -> _ReceivedFrames:
        return self

    async def __anext__(self) -> tuple[int, int, Any]:
        read = self._reader.readexactly
        try:
            start = await read(7)  # type, channel, size
            data = start + await read(int.from_bytes(start[3:]) + 1)
        except (asyncio.IncompleteReadError, OSError) as error:
            raise AMQPConnectionError(f"Server connection unexpectedly closed. {error}") from error
        self._received()
        try:
            return len(data), *read_frame(data)
        except ValueError as error:
            raise AMQPConnectionError(f"malformed frame from the broker: {error}") from error


class _Replies:
    """Raises the broker's reason if it closes the connection instead of replying. aiormq's error does not have it."""

    def __init__(self, frames: Any) -> None:
        self._frames = frames

    async def get_frame(self) -> tuple[int, int, Any]:
        _, _, frame = got = await self._frames.get_frame()
        if isinstance(frame, Method.Close):
            raise ConnectionClosed(frame.reply_code, frame.reply_text)
        return got  # type: ignore[no-any-return]


class AmqpConnection(Aiormq):
    """A connection that no message can end: what cannot be read comes as :class:`eda_core.messages.Unreadable`.

    Attributes:
        received: how many frames have come.
    """

    received: int = 0

    def _count(self) -> None:
        self.received += 1

    @staticmethod
    async def _rpc(request: Any, writer: Any, frame_receiver: Any, wait_response: bool = True) -> Any:
        return await Aiormq._rpc(request, writer, _Replies(frame_receiver), wait_response)  # type: ignore[arg-type]

    async def _Connection__reader(self, receiver: Any) -> None:
        await super()._Connection__reader(_ReceivedFrames(receiver.reader, self._count))  # type: ignore[misc]


def refusal(url: str, error: BaseException) -> tuple[str, str]:
    """Return what :func:`login_refusal` says of the error of a connect to ``url``."""
    if isinstance(error, AuthenticationError):
        return f"the broker does not offer the mechanism to log in; it offers {error.args[0]}", ""
    return login_refusal(url, error.errno, error.strerror or "") if isinstance(error, ConnectionClosed) else ("", "")
