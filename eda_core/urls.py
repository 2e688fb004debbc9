"""Broker URLs: checked once, and shown without their passwords."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final
from urllib.parse import urlsplit

from eda_core.errors import LocalError

#: How passwords are found, from the well-formed to the botched; hiding too much does no harm.
_PASSWORDS: Final = (
    # in a URL as it should be, or with an @ too many
    re.compile(r"(//[^/@:\s]{0,300}):\S*@"),
    # in one with characters that should have been escaped; but host:port, with an @ further on, is none
    re.compile(
        r"(\bamqps?:/{0,2}|//)([^:\s]{0,300}):(?!\*\*\*@)(?!\d{1,5}(?:/[^\s@]*)?(?:\s|$)).+?@(?:\S*@)?",
        re.IGNORECASE | re.DOTALL,
    ),
    # where the scheme was forgotten
    re.compile(r"(?<![\w/:])([^\s:/@]*):(?!\*\*\*@|/)[^\s@]+@(?:\S*@)?"),
)
_REPLACEMENTS: Final = (r"\1:***@", r"\1\2:***@", r"\1:***@")


def redact(text: str) -> str:
    """``text`` (a URL, or a message that may quote one) with every password replaced by ``***``."""
    before = "" if "@" in text else text
    while text != before:  # what looks like a password only now; so that a text once redacted stays as it is
        before = text
        for pattern, replacement in zip(_PASSWORDS, _REPLACEMENTS, strict=True):
            text = pattern.sub(replacement, text)
    return text


def check_urls(urls: str | Sequence[str]) -> tuple[str, ...]:
    """The URLs to try in turn.

    Args:
        urls: one ``amqp://`` or ``amqps://`` URL, or several.

    Raises:
        LocalError: there is none, or one has another scheme, no host or a bad port. Passwords are not shown.
    """
    if not isinstance(urls, Sequence):
        raise LocalError(f"the broker URLs are {type(urls).__name__}", hint="pass a URL, or a list of them")
    several = (urls,) if isinstance(urls, str) else tuple(urls)
    if not several:
        raise LocalError("no broker URL was given", hint="for example amqp://guest:guest@127.0.0.1:5672/")
    for url in several:
        if not isinstance(url, str):
            raise LocalError(f"a broker URL must be str, not {type(url).__name__}", hint="pass text")
        problem = _problem(url)
        if problem:
            shown = redact("".join(url.split()))  # that it is one URL, and not a text, is known only here
            raise LocalError(
                f"broker URL {shown!r}: {problem}", hint="write it as amqp://user:password@host:5672/vhost"
            )
    return several


_ESCAPE: Final = "it has a character that must be written as %XX, perhaps in the password"


def _problem(url: str) -> str:
    if len(url.split()) > 1:
        return _ESCAPE
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError as error:
        # The reason quotes what was taken for host or port, which may be half a password.
        return _ESCAPE if "@" in url else str(error)
    if parts.scheme not in ("amqp", "amqps"):
        return "the scheme is not amqp or amqps"
    return "" if parts.hostname else "there is no host"
