"""Reads from RabbitMQ's management API, without knowing what for: https://www.rabbitmq.com/docs/management#http-api."""

from __future__ import annotations

import argparse
import base64
import json
import os
import urllib.error
import urllib.request
from functools import partial
from typing import Any, Final
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from eda_core.urls import redact
from eda_tools.cli.status import FAILED, NO_CONNECTION, ToolError
from eda_tools.cli.threads import in_daemon_thread

#: Seconds for one request.
TIMEOUT: Final = 15.0
#: Bytes that are read of an answer.
_LARGEST: Final = 256 * 1024 * 1024


def management_option(parser: argparse.ArgumentParser) -> None:
    """Add ``--management``; the checked URL, or None, is ``args.management``."""
    parser.add_argument(
        "--management",
        type=_url,
        metavar="URL",
        help="URL of the management API: http://host:15672 or https://…; without user and password, those of amqp_url "
        "are used; '-' takes the URL from the environment variable EDA_MANAGEMENT_URL",
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
    """The virtual host in a broker's URL."""
    return unquote(urlsplit(amqp_url).path[1:]) or "/"


class Management:
    """Reads from the API at ``url``.

    Args:
        url: with or without user and password; its path is where a proxy has put the API.
        amqp_url: whose user and password are used if ``url`` has none.

    Attributes:
        url: without user and password.
    """

    def __init__(self, url: str, amqp_url: str | None = None) -> None:
        parts = urlsplit(url)
        login = parts if parts.username is not None or amqp_url is None else urlsplit(amqp_url)
        self._user, password = unquote(login.username or "guest"), unquote(login.password or "guest")
        self._authorization = f"Basic {base64.b64encode(f'{self._user}:{password}'.encode()).decode()}"
        self.url: str = urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path.rstrip("/"), "", ""))

    async def get(self, *path: str) -> Any:
        """What ``/api/<path>`` answers; ``None`` if it does not exist or this user may not see it.

        Raises:
            ToolError: there is no connection, or the credentials are refused (status 4); or the answer is not JSON.
        """
        request = urllib.request.Request(f"{self.url}/api/{'/'.join(quote(part, safe='') for part in path)}")
        request.add_unredirected_header("Authorization", self._authorization)
        try:
            body = await in_daemon_thread(partial(_fetch, request))
        except urllib.error.HTTPError as error:
            error.close()  # it holds the connection
            if error.code == 401:
                reason = f"the management API refuses the user {self._user!r} or its password"
                raise ToolError(f"{self.url}: {reason}, or the user has no tag 'management'", NO_CONNECTION) from None
            if error.code in (403, 404) and path[0] != "overview":
                return None
            reason = f"HTTP status {error.code} for /api/{'/'.join(path)}; is it a management API?"
            raise ToolError(f"{self.url}: {reason}") from None
        except Exception as error:  # OSError, HTTPException, ValueError: urllib has no common class
            cause: object = error.reason if isinstance(error, urllib.error.URLError) else error
            reason = (getattr(cause, "strerror", None) or str(cause) or type(cause).__name__).lower()
            raise ToolError(f"no connection to {self.url}: {reason}", NO_CONNECTION) from None
        try:
            return json.loads(body)
        except (ValueError, RecursionError):
            raise self._no_api(path) from None

    async def list(self, *path: str) -> list[dict[str, Any]] | None:
        """Like :meth:`get`, for lists of objects."""
        answer = await self.get(*path)
        if answer is None:
            return None
        if not isinstance(answer, list) or not all(isinstance(item, dict) for item in answer):
            raise self._no_api(path)
        return answer

    def _no_api(self, path: tuple[str, ...]) -> ToolError:
        return ToolError(f"{self.url}: the answer for /api/{'/'.join(path)} is not that of a management API", FAILED)


def _fetch(request: urllib.request.Request) -> bytes:
    with urllib.request.urlopen(request, timeout=TIMEOUT) as response:
        body: bytes = response.read(_LARGEST)
        return body
