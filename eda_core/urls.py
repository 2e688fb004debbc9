"""Broker URLs: checked once, and shown without their passwords."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final
from urllib.parse import urlsplit

from eda_core.errors import LocalError

_PASSWORD: Final = re.compile(r"(?P<user>//[^/@:\s]*):[^/\s]*@")


def redact(text: str) -> str:
    """``text`` (a URL, or a message that may quote one) with every password replaced by ``***``."""
    return _PASSWORD.sub(r"\g<user>:***@", text)


def check_urls(urls: str | Sequence[str]) -> tuple[str, ...]:
    """The URLs to try in turn.

    Args:
        urls: one ``amqp://`` or ``amqps://`` URL, or several.

    Raises:
        LocalError: there is none, or one has another scheme, no host or a bad port. Passwords are not shown.
    """
    several = (urls,) if isinstance(urls, str) else tuple(urls)
    if not several:
        raise LocalError("no broker URL was given", hint="for example amqp://guest:guest@127.0.0.1:5672/")
    for url in several:
        if not isinstance(url, str):
            raise LocalError(f"a broker URL must be str, not {type(url).__name__}", hint="pass text")
        problem = _problem(url)
        if problem:
            raise LocalError(
                f"broker URL {redact(url)!r}: {problem}", hint="write it as amqp://user:password@host:5672/vhost"
            )
    return several


def _problem(url: str) -> str:
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError as error:
        return redact(str(error))
    if parts.scheme not in ("amqp", "amqps"):
        return "the scheme is not amqp or amqps"
    return "" if parts.hostname else "there is no host"
