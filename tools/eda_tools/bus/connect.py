"""Plain AMQP for tools that look at queues or move messages: a connection to the first URL that answers.

::

    async with session(args.urls, "inspect", output) as broker:
        channel = await broker.channel(confirms=True)  # an aiormq channel: basic_get, basic_publish, rpc …
        queue = await broker.queue("dead-letters")     # Queue.DeclareOk, or None if there is no such queue

Inside the block, a lost connection and a channel closed by the broker become :class:`ToolError` (status 1) on the way
out; catch aiormq's exceptions (``aiormq.exceptions``) inside, where one is expected. Tools that publish or watch use
:mod:`eda_tools.bus.service` instead, since the core confirms, retries and reconnects.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final, cast
from urllib.parse import unquote, urlsplit

import aio_pika
from aio_pika.abc import AbstractConnection
from aiormq.channel import Channel
from aiormq.exceptions import (
    AMQPError,
    AuthenticationError,
    ChannelClosed,
    ChannelInvalidStateError,
    ChannelNotFoundEntity,
    InvalidFrameError,
    ProbableAuthenticationError,
)
from pamqp.commands import Exchange, Queue

from eda_core.messages.routing import check_name
from eda_core.urls import redact
from eda_tools.cli.output import Output
from eda_tools.cli.status import FAILED, NO_CONNECTION, ToolError

#: Seconds for one URL.
CONNECT_TIMEOUT: Final = 10.0
#: Seconds for an AMQP command to be answered.
RPC_TIMEOUT: Final = 10.0
#: Seconds for a connection to close.
CLOSE_TIMEOUT: Final = 3.0
HEARTBEAT: Final = 20
#: X509_V_ERR_*: a chain that ends nowhere, or at a certificate that nobody trusts.
_UNKNOWN_AUTHORITIES: Final = (18, 19, 20, 21)
#: aiormq's words for the end of the stream.
_CLOSED: Final = "Server connection unexpectedly closed"


class Session:
    """An open connection.

    Attributes:
        url: with its password; show it by :func:`eda_core.urls.redact` only.
        connection: aio-pika's.
    """

    def __init__(self, url: str, connection: AbstractConnection) -> None:
        self.url = url
        self.connection = connection

    async def channel(self, *, confirms: bool = False) -> Channel:
        """A new channel, aiormq's. With ``confirms``, ``basic_publish`` returns when the broker has confirmed, raises
        ``DeliveryError`` when it refused, and returns the ``DeliveredMessage`` that came back as unroutable."""
        try:
            channel = self.connection.channel(publisher_confirms=confirms)
            await channel.initialize(timeout=RPC_TIMEOUT)
        except RuntimeError as error:  # aio-pika's, for a connection that is closed
            raise ConnectionResetError("the connection was lost") from error
        return cast(Channel, await channel.get_underlay_channel())

    async def queue(self, name: str) -> Queue.DeclareOk | None:
        """How many messages and consumers a queue has; ``None`` if there is none of that name.

        Raises:
            LocalError: no queue can have this name.
            ChannelClosed: the broker does not tell: it is another connection's exclusive queue, or not permitted.
        """
        check_name("the queue", name)
        channel = await self.channel()  # a refusal costs the channel
        try:
            answer = await channel.queue_declare(name, passive=True, timeout=RPC_TIMEOUT)
        except ChannelNotFoundEntity:
            return None
        await channel.close()
        return answer

    async def exchange(self, name: str, kind: str = "topic") -> Exchange.DeclareOk | None:
        """Whether an exchange exists (its type cannot be asked for passively); ``None`` if not.

        Raises:
            ChannelClosed: the broker does not tell.
        """
        channel = await self.channel()
        try:
            answer = await channel.exchange_declare(
                exchange=name, exchange_type=kind, passive=True, timeout=RPC_TIMEOUT
            )
        except ChannelNotFoundEntity:
            return None
        await channel.close()
        return answer


@asynccontextmanager
async def session(urls: Sequence[str], tool: str, output: Output) -> AsyncIterator[Session]:
    """A connection to the first of ``urls`` that answers, called ``eda-<tool>@host:pid`` on the broker.

    Raises:
        ToolError: none answers (status 4); inside the block, the connection or a channel was lost (status 1).
    """
    opened = await _first(urls, tool, output)
    try:
        yield opened
    except (AMQPError, ChannelInvalidStateError, ConnectionError, TimeoutError) as error:
        raise ToolError(f"{redact(opened.url)}: {explain(error, opened.url)}", FAILED) from error
    finally:
        await _close(opened.connection)


async def answering(urls: Sequence[str], tool: str, output: Output) -> tuple[str, ...]:
    """``urls`` in the order in which to try them: the first that answers, then those behind it, then the others.

    Raises:
        ToolError: none answers (status 4).
    """
    opened = await _first(urls, tool, output)
    await _close(opened.connection)
    first = urls.index(opened.url)
    return (*urls[first:], *urls[:first])


async def _first(urls: Sequence[str], tool: str, output: Output) -> Session:
    failures: list[str] = []
    name = f"eda-{tool}@{socket.gethostname()}:{os.getpid()}"
    for url in urls:
        output.doing = f"connecting to {redact(url)}"
        try:
            connection = await asyncio.wait_for(
                aio_pika.connect(url, heartbeat=HEARTBEAT, name=name), timeout=CONNECT_TIMEOUT
            )
        except Exception as error:  # the client library's have no common class
            failures.append(f"{redact(url)}: {explain(error, url)}{_hint(error, url)}")
        else:
            output.doing = ""
            return Session(url, connection)
    raise ToolError(f"no connection to {'; nor to '.join(failures)}", NO_CONNECTION)


def _hint(error: Exception, url: str) -> str:
    """Whoever expects something else of us closes the connection; often before it has read what we sent: a reset."""
    if _CLOSED not in str(error) and not isinstance(error.__cause__, (ConnectionResetError, BrokenPipeError)):
        return ""
    return " (does it want a certificate of yours?)" if url.startswith("amqps") else " (does it want amqps://?)"


async def _close(connection: AbstractConnection) -> None:
    try:
        await asyncio.wait_for(connection.close(), CLOSE_TIMEOUT)
    except Exception:  # it is over in any case
        return


def explain(error: BaseException, url: str = "") -> str:
    """An error of connecting, or of the client library, in a few plain words."""
    if isinstance(error, (ProbableAuthenticationError, AuthenticationError)):
        return "the broker refuses the user name or the password"
    if isinstance(error, InvalidFrameError):  # what becomes of a virtual host that is missing or not permitted
        return f"the broker refuses the virtual host {_vhost(url)!r}, or is no AMQP 0-9-1 broker"
    if isinstance(error, ssl.SSLError):
        return f"TLS failed: {_tls_reason(error)}"
    if isinstance(error, ChannelClosed):
        return " ".join(str(part) for part in error.args) or "the broker closed the channel"
    if isinstance(error, (ChannelInvalidStateError, asyncio.CancelledError)):  # aiormq's, for what a loss takes along
        return "the connection was lost"
    if isinstance(error, socket.gaierror):
        return f"the host name is unknown ({error.strerror})"
    if isinstance(error, TimeoutError):
        return f"no answer within {CONNECT_TIMEOUT:g} s"
    if isinstance(error, (FileNotFoundError, PermissionError, IsADirectoryError)):  # of the certificate in the URL
        return f"a file that the URL names cannot be read: {os.strerror(error.errno or 0).lower()}"
    cause = error.__cause__
    if isinstance(cause, (ssl.SSLError, socket.gaierror)):
        return explain(cause, url)
    if isinstance(cause, OSError) and cause.errno:  # what asyncio makes of it has no strerror of its own
        return os.strerror(cause.errno).lower()
    text = " ".join(" ".join(str(part) for part in error.args).split())
    if text.startswith(_CLOSED):
        return "the broker closed the connection without a word"
    return text or f"the connection was lost ({type(error).__name__})"


def _tls_reason(error: ssl.SSLError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        unknown = error.verify_code in _UNKNOWN_AUTHORITIES
        hint = " (is SSL_CERT_FILE the file of your own authority?)" if unknown else ""
        return f"{error.verify_message}{hint}"
    if error.reason in ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE"):
        return "what answers does not speak it (amqp:// is without)"
    return (error.reason or " ".join(map(str, error.args))).replace("_", " ").lower()


def _vhost(url: str) -> str:
    return unquote(urlsplit(url).path[1:]) or "/"
