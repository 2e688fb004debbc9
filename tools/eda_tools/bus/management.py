"""The management API of RabbitMQ, as far as tools read it: https://www.rabbitmq.com/docs/management#http-api."""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import os
import threading
import urllib.error
import urllib.request
from typing import Any, Final
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from eda_core.urls import redact
from eda_tools.cli.status import FAILED, NO_CONNECTION, ToolError

#: Seconds for one request.
TIMEOUT: Final = 15.0
_LARGEST: Final = 256 * 1024 * 1024


def management_option(parser: argparse.ArgumentParser) -> None:
    """Add ``--management``; the checked URL, or None, is ``args.management``."""
    parser.add_argument(
        "--management",
        type=_url,
        metavar="URL",
        help="management API, as http://host:15672 or https://…; user and password are those of amqp_url unless given; "
        "'-' takes it from the environment variable EDA_MANAGEMENT_URL",
    )


def _url(text: str) -> str:
    if text == "-":
        text = os.environ.get("EDA_MANAGEMENT_URL", "")
        if not text:
            raise argparse.ArgumentTypeError("the URL is '-', but EDA_MANAGEMENT_URL is not set")
    try:
        parts = urlsplit(text)
        usable = parts.scheme in ("http", "https") and parts.hostname and (parts.port is None or parts.port > 0)
    except ValueError:
        usable = False
    if not usable:
        raise argparse.ArgumentTypeError(f"{redact(text)!r} is not a URL such as http://host:15672")
    return text


def vhost_of(amqp_url: str) -> str:
    """The virtual host that a broker's URL names."""
    return unquote(urlsplit(amqp_url).path[1:]) or "/"


class Management:
    """Reads from the API at ``url``.

    Args:
        url: with or without user and password, and a path where a proxy has put it.
        amqp_url: whose user and password are taken where ``url`` has none.

    Attributes:
        url: without user and password.
    """

    def __init__(self, url: str, amqp_url: str | None = None) -> None:
        parts = urlsplit(url)
        login = parts if parts.username is not None or amqp_url is None else urlsplit(amqp_url)
        user, password = unquote(login.username or "guest"), unquote(login.password or "guest")
        self._authorization = f"Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}"
        self.url = urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path.rstrip("/"), "", ""))

    async def get(self, *path: str) -> Any:
        """What ``/api/<path>`` answers; ``None`` where this user may not see it, or it is not there.

        Raises:
            ToolError: no connection, or refused credentials (status 4), or an answer that is none (status 1).
        """
        request = urllib.request.Request(f"{self.url}/api/{'/'.join(quote(part, safe='') for part in path)}")
        request.add_unredirected_header("Authorization", self._authorization)
        return self._read(await _in_thread(request), path)

    async def list(self, *path: str) -> list[dict[str, Any]] | None:
        """The same for lists of objects."""
        answer = await self.get(*path)
        if answer is None:
            return None
        if not isinstance(answer, list) or not all(isinstance(item, dict) for item in answer):
            raise self._strange(path)
        return answer

    def _read(self, answer: bytes | Exception, path: tuple[str, ...]) -> Any:
        if isinstance(answer, urllib.error.HTTPError):
            if answer.code == 401:
                reason = "the management API refuses the user name or the password"
                raise ToolError(f"{self.url}: {reason}, or the user has no tag 'management'", NO_CONNECTION)
            if answer.code in (403, 404) and path[0] != "overview":
                return None
            raise ToolError(f"{self.url}: HTTP status {answer.code} for /api/{'/'.join(path)}; is it a management API?")
        if isinstance(answer, Exception):
            cause: object = answer.reason if isinstance(answer, urllib.error.URLError) else answer
            told = (getattr(cause, "strerror", None) or str(cause) or type(cause).__name__).lower()
            raise ToolError(f"no connection to {self.url}: {told}", NO_CONNECTION)
        try:
            return json.loads(answer)
        except (ValueError, RecursionError):
            raise self._strange(path) from None

    def _strange(self, path: tuple[str, ...]) -> ToolError:
        return ToolError(f"{self.url}: what /api/{'/'.join(path)} answers is not that of a management API", FAILED)


async def _in_thread(request: urllib.request.Request) -> bytes | Exception:
    """The body of the answer. The thread is a daemon: Ctrl-C need not wait for a server that does not answer."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[bytes | Exception] = loop.create_future()

    def resolve(answer: bytes | Exception) -> None:
        if not done.done():
            done.set_result(answer)

    def fetch() -> None:
        answer: bytes | Exception
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT) as response:
                answer = response.read(_LARGEST)
        except urllib.error.HTTPError as error:
            error.close()  # it holds the connection
            answer = error
        except Exception as error:  # OSError, HTTPException, ValueError: of the network, in short
            answer = error
        try:
            loop.call_soon_threadsafe(resolve, answer)
        except RuntimeError:
            return  # the loop is closed: nobody waits any more

    threading.Thread(target=fetch, name="management API", daemon=True).start()
    return await done
