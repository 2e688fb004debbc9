"""Connects to the first broker URL that answers, and asks for queues and exchanges. It does not know for what.

::

    async with session(args.urls, "inspect", output) as broker:
        channel = await broker.channel()               # an aiormq channel: basic_get, basic_publish, rpc …
        queue = await broker.queue("dead-letters")     # Queue.DeclareOk, or None if there is no such queue

It is for tools that look at queues or move messages. At the end of the block, a lost connection and a channel that the
broker closed become :class:`ToolError` (status 1). Inside the block they are aiormq's exceptions. Tools that publish or
watch use :mod:`eda_tools.bus.service` instead, because the core confirms, retries and reconnects.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, cast
from urllib.parse import parse_qsl, urlencode, urlsplit

from aiormq.channel import Channel
from aiormq.exceptions import (
    AMQPError,
    ChannelClosed,
    ChannelInvalidStateError,
    ChannelNotFoundEntity,
    InvalidFrameError,
)
from pamqp.commands import Queue

from eda_aio.connection import AmqpConnection, refusal
from eda_core.messages.routing import check_name
from eda_core.urls import redact
from eda_tools.bus.names import ExchangeDeclare, QueueDeclare
from eda_tools.cli.output import Output
from eda_tools.cli.status import FAILED, NO_CONNECTION, ToolError

#: Seconds for one URL to answer.
CONNECT_TIMEOUT: Final = 10.0
#: Seconds for an AMQP method to be answered.
RPC_TIMEOUT: Final = 10.0
#: Seconds for a connection to close.
CLOSE_TIMEOUT: Final = 3.0
HEARTBEAT: Final = 20
#: OpenSSL's X509_V_ERR_*: the chain is incomplete, or it ends with a certificate that is not trusted.
_UNKNOWN_AUTHORITIES: Final = (18, 19, 20, 21)
#: How aiormq reports that the broker closed the connection.
_CLOSED: Final = "Server connection unexpectedly closed"


class Session:
    """An open connection.

    Attributes:
        url: its URL with the password. Show it only by :func:`eda_core.urls.redact`.
        connection: aiormq's connection, which no message can end.
    """

    def __init__(self, url: str, connection: AmqpConnection) -> None:
        self.url = url
        self.connection = connection

    async def channel(self) -> Channel:
        """Open a new channel of aiormq, without publisher confirms."""
        try:
            return cast(Channel, await self.connection.channel(publisher_confirms=False, timeout=RPC_TIMEOUT))
        except RuntimeError as error:  # aiormq's, for a connection that is closed
            raise ConnectionResetError("the connection was lost") from error

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
            answer = await channel.rpc(method, timeout=RPC_TIMEOUT)
        except ChannelNotFoundEntity:
            return None
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
    except (AMQPError, ChannelInvalidStateError, ConnectionError, TimeoutError) as error:
        raise ToolError(f"{redact(opened.url)}: {explain(error, opened.url)}", FAILED) from error
    finally:
        await _close(opened.connection)


async def answering(urls: Sequence[str], tool: str, output: Output) -> tuple[str, ...]:
    """Find the first of ``urls`` that answers. Returns all of them, beginning with it, in the order to try them in.

    Raises:
        ToolError: no URL answers (status 4).
    """
    opened = await _first(urls, tool, output)
    await _close(opened.connection)
    first = urls.index(opened.url)
    return (*urls[first:], *urls[:first])


async def _first(urls: Sequence[str], tool: str, output: Output) -> Session:
    failures: list[str] = []
    for url in urls:
        output.doing = f"connecting to {redact(url)}"
        try:
            connection = await _connected(url, tool)
        except Exception as error:  # the client library's have no common class
            failures.append(f"{redact(url)}: {explain(error, url)}{_hint(error, url)}")
        else:
            output.doing = ""
            return Session(url, connection)
    raise ToolError(f"no connection to {'; nor to '.join(failures)}", NO_CONNECTION)


async def _connected(url: str, tool: str) -> AmqpConnection:
    parts = urlsplit(url)
    name = f"eda-{tool}@{socket.gethostname()}:{os.getpid()}"
    query = {**dict(parse_qsl(parts.query)), "heartbeat": HEARTBEAT, "name": name}
    connection = AmqpConnection(parts._replace(query=urlencode(query)).geturl())
    await asyncio.wait_for(connection.connect(), timeout=CONNECT_TIMEOUT)
    return connection


def _hint(error: Exception, url: str) -> str:
    """A server that expects another protocol closes the connection, often before it has read what we sent."""
    if _CLOSED not in str(error) and not isinstance(error.__cause__, (ConnectionResetError, BrokenPipeError)):
        return ""
    return " (does it require a client certificate?)" if url.startswith("amqps") else " (does it require amqps://?)"


async def _close(connection: AmqpConnection) -> None:
    try:
        await asyncio.wait_for(connection.close(), CLOSE_TIMEOUT)
    except Exception:  # the connection is not used any more
        return


def explain(error: BaseException, url: str = "") -> str:
    """Say in a few plain words what an error of connecting, or of the client library, means."""
    if url and (refused := refusal(url, error)[0]):
        return refused
    if isinstance(error, InvalidFrameError):
        return "it is not an AMQP 0-9-1 broker"
    if isinstance(error, ssl.SSLError):
        return f"TLS failed: {_tls_reason(error)}"
    if isinstance(error, ChannelClosed):
        return " ".join(str(part) for part in error.args) or "the broker closed the channel"
    if isinstance(error, (ChannelInvalidStateError, asyncio.CancelledError)):  # aiormq's, for what was under way
        return "the connection was lost"
    if isinstance(error, socket.gaierror):
        return f"the host name is unknown ({error.strerror})"
    if isinstance(error, TimeoutError):
        return f"no answer within {CONNECT_TIMEOUT:g} s"
    if isinstance(error, (FileNotFoundError, PermissionError, IsADirectoryError)):  # a certificate in the URL
        return f"a file that the URL names cannot be read: {os.strerror(error.errno or 0).lower()}"
    cause = error.__cause__
    if isinstance(cause, (ssl.SSLError, socket.gaierror)):
        return explain(cause, url)
    if isinstance(cause, OSError) and cause.errno:  # asyncio's error has no strerror of its own
        return os.strerror(cause.errno).lower()
    text = " ".join(" ".join(str(part) for part in error.args).split())
    if text.startswith(_CLOSED):
        return "the broker closed the connection without giving a reason"
    return text or f"the connection was lost ({type(error).__name__})"


def _tls_reason(error: ssl.SSLError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        unknown = error.verify_code in _UNKNOWN_AUTHORITIES
        hint = " (does SSL_CERT_FILE name the file of your own authority?)" if unknown else ""
        return f"{error.verify_message}{hint}"
    if error.reason in ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE"):
        return "the server does not use TLS (amqp:// connects without it)"
    return (error.reason or " ".join(map(str, error.args))).replace("_", " ").lower()
