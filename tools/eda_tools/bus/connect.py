"""Connects to the first broker URL that answers, and asks for queues and exchanges. It does not know for what.

::

    async with session(args.urls, "inspect", output) as broker:
        channel = await broker.channel()               # ask, get, publish …
        queue = await broker.queue("dead-letters")     # Queue.DeclareOk, or None if there is no such queue

It is for tools that look at queues or move messages. At the end of the block, a lost connection and a channel that the
broker closed become :class:`ToolError` (status 1). Inside the block they are errors of :mod:`eda_tools.bus.amqp`. Tools
that publish or watch use :mod:`eda_tools.bus.service` instead, because the core confirms, retries and reconnects.
"""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

from pamqp.commands import Queue

from eda_core.amqp import Received
from eda_core.drivers.login import login_refusal
from eda_core.errors import LocalError
from eda_core.messages.routing import check_name
from eda_core.urls import redact
from eda_tools.bus.amqp import NOT_FOUND, AmqpError, Channel, ChannelClosed, Connection, ConnectionLost
from eda_tools.bus.names import ExchangeDeclare, QueueDeclare
from eda_tools.cli.output import Output
from eda_tools.cli.status import FAILED, NO_CONNECTION, ToolError

#: Seconds for one URL to answer.
CONNECT_TIMEOUT: Final = 10.0
#: OpenSSL's X509_V_ERR_*: the chain is incomplete, or it ends with a certificate that is not trusted.
_UNKNOWN_AUTHORITIES: Final = (18, 19, 20, 21)


class Session:
    """An open connection.

    Attributes:
        url: its URL with the password. Show it only by :func:`eda_core.urls.redact`.
    """

    def __init__(self, url: str, connection: Connection) -> None:
        self.url = url
        self._connection = connection

    async def channel(
        self,
        heard: Callable[[Received], object] = lambda event: None,
        lost: Callable[[AmqpError], object] = lambda error: None,
    ) -> Channel:
        """Open a new channel. See :meth:`eda_tools.bus.amqp.Connection.channel`."""
        return await self._connection.channel(heard, lost)

    async def close(self) -> None:
        """Close the connection."""
        await self._connection.close()

    async def queue(self, name: str) -> Queue.DeclareOk | None:
        """Ask how many messages and consumers a queue has. Returns ``None`` if there is no queue of that name.

        Raises:
            LocalError: no queue can have this name.
            ChannelClosed: the broker does not say: the queue is exclusive to another connection, or not permitted.
        """
        check_name("the queue", name)
        answer: Queue.DeclareOk | None = await self._ask(QueueDeclare(queue=name, passive=True))
        return answer

    async def exchange(self, name: str) -> bool:
        """Ask whether an exchange exists. (AMQP does not tell its type.)

        Raises:
            LocalError: no exchange can have this name.
            ChannelClosed: the broker does not say.
        """
        check_name("the exchange", name)
        return await self._ask(ExchangeDeclare(exchange=name, passive=True)) is not None

    async def _ask(self, method: QueueDeclare | ExchangeDeclare) -> Any:
        channel = await self.channel()  # a refusal closes the channel
        try:
            answer = await channel.ask(method)
        except ChannelClosed as error:
            if error.code == NOT_FOUND:
                return None
            raise
        await channel.close()
        return answer


@asynccontextmanager
async def session(urls: Sequence[str], tool: str, output: Output) -> AsyncIterator[Session]:
    """Connect to the first of ``urls`` that answers. The broker lists the connection as ``eda-<tool>@host:pid``.

    Raises:
        ToolError: no URL answers (status 4); or the connection or a channel was lost inside the block (status 1).
    """
    opened = await _first(urls, tool, output)
    try:
        yield opened
    except (AmqpError, TimeoutError) as error:
        raise ToolError(f"{redact(opened.url)}: {explain(error, opened.url)}", FAILED) from error
    finally:
        await opened.close()


async def answering(urls: Sequence[str], tool: str, output: Output) -> tuple[str, ...]:
    """Find the first of ``urls`` that answers. Returns all of them, beginning with it, in the order to try them in.

    Raises:
        ToolError: no URL answers (status 4).
    """
    opened = await _first(urls, tool, output)
    await opened.close()
    first = urls.index(opened.url)
    return (*urls[first:], *urls[:first])


async def _first(urls: Sequence[str], tool: str, output: Output) -> Session:
    failures: list[str] = []
    for url in urls:
        output.doing = f"connecting to {redact(url)}"
        try:
            name = f"eda-{tool}@{socket.gethostname()}:{os.getpid()}"
            connection = await Connection.open(url, name, timeout=CONNECT_TIMEOUT)
        except (AmqpError, LocalError, OSError, UnicodeError) as error:
            failures.append(f"{redact(url)}: {explain(error, url)}{_hint(error, url)}")
        else:
            output.doing = ""
            return Session(url, connection)
    raise ToolError(f"no connection to {'; nor to '.join(failures)}", NO_CONNECTION)


def _hint(error: Exception, url: str) -> str:
    """A server that expects another protocol closes the connection, often before it has read what we sent."""
    silently = error.silently if isinstance(error, ConnectionLost) else isinstance(error, ConnectionResetError)
    if not silently:
        return ""
    return " (does it require a client certificate?)" if url.startswith("amqps") else " (does it require amqps://?)"


def explain(error: BaseException, url: str = "") -> str:
    """Say in a few plain words what an error of connecting, or of :mod:`eda_tools.bus.amqp`, means."""
    if isinstance(error, ConnectionLost) and url and (refused := login_refusal(url, error.code, str(error))[0]):
        return refused
    cause = error.__cause__ if isinstance(error, AmqpError) else None
    if isinstance(cause, OSError):
        return explain(cause)
    if isinstance(error, ssl.SSLError):
        return f"TLS failed: {_tls_reason(error)}"
    if isinstance(error, socket.gaierror):
        return f"the host name is unknown ({error.strerror})"
    if isinstance(error, TimeoutError) and error.errno is None:
        return f"no answer within {CONNECT_TIMEOUT:g} s"
    if isinstance(error, (FileNotFoundError, PermissionError, IsADirectoryError)):  # a certificate in the URL
        return f"a file that the URL names cannot be read: {os.strerror(error.errno or 0).lower()}"
    if isinstance(error, OSError) and error.errno:  # asyncio's error has no strerror of its own
        return os.strerror(error.errno).lower()
    return " ".join(str(error).split()) or f"the connection was lost ({type(error).__name__})"


def _tls_reason(error: ssl.SSLError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        unknown = error.verify_code in _UNKNOWN_AUTHORITIES
        hint = " (does SSL_CERT_FILE name the file of your own authority?)" if unknown else ""
        return f"{error.verify_message}{hint}"
    if error.reason in ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE"):
        return "the server does not use TLS (amqp:// connects without it)"
    return (error.reason or " ".join(map(str, error.args))).replace("_", " ").lower()
