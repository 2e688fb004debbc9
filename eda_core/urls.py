"""Broker URLs: checked once, read in one way by all adapters, and shown without their passwords."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Self
from urllib.parse import parse_qsl, unquote, urlsplit

from eda_core.errors import LocalError
from eda_core.text import shortened

if TYPE_CHECKING:
    from ssl import SSLContext  # the core loads no ssl, and only passes it on

#: How passwords are found, from the well-formed to the botched; hiding too much does no harm.
_PASSWORDS: Final = (
    # in a URL as it should be, or with an @ too many
    re.compile(r"(//[^/@:\s]{0,300}):\S*@"),
    # in one with characters that should have been escaped; but host:port, with an @ further on, is none, nor is what
    # stands between two URLs
    re.compile(
        r"(\bamqps?:/{0,2}|//)([^:\s]{0,300}):(?!\*\*\*@)(?!\d{1,5}(?:/[^\s@]*)?(?:\s|$))"
        r"(?:(?!\s[a-z]+://).)+?@(?:\S*@)?",
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
_PORT: Final = f"the port is not a number up to 65535, or {_ESCAPE}"


def _problem(url: str) -> str:
    if len(url.split()) > 1:
        return _ESCAPE
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError as error:
        # The reason quotes what was taken for host or port, which may be half a password.
        return _PORT if "@" in url else str(error)
    if parts.scheme not in ("amqp", "amqps"):
        return "the scheme is not amqp or amqps"
    return "" if parts.hostname else "there is no host"


@dataclass(frozen=True, slots=True, repr=False)
class Address:
    """What a broker URL says, with what it leaves out filled in.

    Attributes:
        user, password: ``guest`` by default.
        vhost: ``/`` by default.
        tls: whether it is ``amqps://``.
        options: of the query.
    """

    host: str
    port: int
    user: str
    password: str
    vhost: str
    tls: bool
    options: Mapping[str, str]

    @classmethod
    def of(cls, url: str) -> Self:
        """Read a URL that :func:`check_urls` has accepted."""
        parts = urlsplit(url)
        tls = parts.scheme == "amqps"
        return cls(
            unquote(parts.hostname or ""),
            parts.port or (5671 if tls else 5672),
            unquote(parts.username or "guest"),
            unquote(parts.password or "guest"),
            unquote(parts.path[1:]) or "/",
            tls,
            dict(parse_qsl(parts.query)),
        )

    def __repr__(self) -> str:
        where = shortened(f"{self.user}@{self.host}:{self.port}")
        return f"Address({where}, {shortened(self.vhost)!r}{', TLS' if self.tls else ''})"

    def tls_context(self, given: SSLContext | None, make: Callable[..., Any]) -> Any:
        """How to check the broker's certificate, and which to show; ``None`` without TLS.

        Args:
            given: the user's own, which counts for more than the URL.
            make: ``ssl.create_default_context``; the options ``cafile`` and ``capath`` of the URL say whom to trust
                instead of the system's authorities, ``certfile`` and ``keyfile`` what to show.

        Raises:
            OSError: what a file has is not what it should be, or there is none (``ssl.SSLError`` is one).
        """
        if given is not None or not self.tls:
            return given if self.tls else None
        options = self.options
        context = make(cafile=options.get("cafile"), capath=options.get("capath"))
        if "certfile" in options:
            context.load_cert_chain(options["certfile"], options.get("keyfile"))
        return context
