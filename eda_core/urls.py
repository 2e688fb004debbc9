"""Checks broker URLs, reads them in the same way for all adapters, and hides their passwords.

It decides what a valid URL is. It knows nothing of connections.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Self
from urllib.parse import parse_qsl, unquote, urlsplit

from eda_core.errors import LocalError
from eda_core.text import shortened

if TYPE_CHECKING:
    from ssl import SSLContext  # only the type: the core does not load ssl

#: The ways to log in that all adapters know.
MECHANISMS: Final = ("PLAIN", "EXTERNAL")

#: These patterns find passwords, also those in malformed URLs. To hide too much does no harm.
_PASSWORDS: Final = (
    # A well-formed URL, also one with more than one "@".
    re.compile(r"(//[^/@:\s]{0,300}):\S*@"),
    # A URL whose password has characters that are not escaped. "host:port" before an "@" is no password, and neither is
    # the text between two URLs.
    re.compile(
        r"(\bamqps?:/{0,2}|//)([^:\s]{0,300}):(?!\*\*\*@)(?!\d{1,5}(?:/[^\s@]*)?(?:\s|$))"
        r"(?:(?!\s[a-z]+://).)+?@(?:\S*@)?",
        re.IGNORECASE | re.DOTALL,
    ),
    # A URL without its scheme.
    re.compile(r"(?<![\w/:])([^\s:/@]*):(?!\*\*\*@|/)[^\s@]+@(?:\S*@)?"),
)
_REPLACEMENTS: Final = (r"\1:***@", r"\1\2:***@", r"\1:***@")


def redact(text: str) -> str:
    """Return ``text``, which is a URL or may quote some, with ``***`` in place of each password."""
    before = "" if "@" in text else text
    while text != before:  # a replacement may lead to a new match; a second call must change nothing
        before = text
        for pattern, replacement in zip(_PASSWORDS, _REPLACEMENTS, strict=True):
            text = pattern.sub(replacement, text)
    return text


def check_urls(urls: str | Sequence[str]) -> tuple[str, ...]:
    """Check broker URLs and return them as a tuple.

    Args:
        urls: one ``amqp://`` or ``amqps://`` URL, or several.

    Raises:
        LocalError: there is no URL, or one has another scheme, no host, a bad port or an unknown ``auth_mechanism``.
            The text shows no password.
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
            shown = redact("".join(url.split()))  # redact() takes white space for the end of a URL
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
        # The text of the error quotes the host or the port, which may be a part of a password.
        return _PORT if "@" in url else str(error)
    if parts.scheme not in ("amqp", "amqps"):
        return "the scheme is not amqp or amqps"
    if not parts.hostname:
        return "there is no host"
    mechanism = Address.of(url).mechanism
    return "" if mechanism in MECHANISMS else f"auth_mechanism is {mechanism!r}, not {' or '.join(MECHANISMS)}"


@dataclass(frozen=True, slots=True, repr=False)
class Address:
    """The parts of a broker URL, with defaults for those that it leaves out.

    Attributes:
        host: the name or the address of the broker.
        port: by default 5672, or 5671 with TLS.
        user: by default ``guest``.
        password: by default ``guest``.
        vhost: the virtual host, by default ``/``.
        tls: whether the scheme is ``amqps``.
        options: the names and values of the query, such as ``cafile``.
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
        """Read a URL that ``check_urls`` has accepted."""
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

    @property
    def mechanism(self) -> str:
        """How to log in, by the option ``auth_mechanism``: ``PLAIN`` (the default) or ``EXTERNAL``, or what it says.

        With ``EXTERNAL`` the client's certificate is the login, and the user and the password do not count.
        """
        return self.options.get("auth_mechanism", "PLAIN").upper()

    def __repr__(self) -> str:
        where = shortened(f"{self.user}@{self.host}:{self.port}")
        return f"Address({where}, {shortened(self.vhost)!r}{', TLS' if self.tls else ''})"

    def tls_context(self, given: SSLContext | None, make: Callable[..., Any]) -> Any:
        """Return the TLS context for a connection to this address, or ``None`` without TLS.

        Args:
            given: the context of the user. If there is one, it is returned, and the options of the URL do not count.
            make: ``ssl.create_default_context``. The options ``cafile`` and ``capath`` of the URL name the authorities
                to trust instead of the system's; ``certfile`` and ``keyfile`` name the client's own certificate.

        Raises:
            OSError: a file cannot be read, or has no valid content (``ssl.SSLError`` is an ``OSError``).
        """
        if given is not None or not self.tls:
            return given if self.tls else None
        options = self.options
        context = make(cafile=options.get("cafile"), capath=options.get("capath"))
        if "certfile" in options:
            context.load_cert_chain(options["certfile"], options.get("keyfile"))
        return context
