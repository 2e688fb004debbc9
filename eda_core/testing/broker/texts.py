"""How RabbitMQ writes in the texts of its errors what a client has sent.

Clients may send names and values that are not UTF-8. Here such a name is text with surrogate escapes (PEP 383). A
release with ``quotes_latin_1`` takes its octets for Latin-1, each one; the others write the octets as they are.
"""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Final

from eda_core.testing.broker.values import amqp_type
from eda_core.testing.broker.versions import Version

MAX_REPLY_TEXT_BYTES: Final = 255
_CUT: Final = "..."
_ESCAPED: Final = {"\b": "b", "\t": "t", "\n": "n", "\v": "v", "\f": "f", "\r": "r", "\x1b": "e", '"': '"', "\\": "\\"}
_OCTET: Final = 0xDC00


def octet_by_octet(text: str) -> str:
    """A string whose characters are the octets of ``text``, as surrogate escapes beyond ASCII."""
    return text.encode("utf-8", "surrogateescape").decode("ascii", "surrogateescape")


def quoted(name: str | bytes | bytearray) -> str:
    """A name or another string as it stands in a text.

    If it is not UTF-8, all of its octets beyond ASCII become surrogate escapes: none of its characters is one.
    """
    octets = name.encode("utf-8", "surrogateescape") if isinstance(name, str) else bytes(name)
    try:
        return octets.decode()
    except UnicodeDecodeError:
        return octets.decode("ascii", "surrogateescape")


def reply_text(name: str, explanation: str, version: Version) -> str | None:
    """The text of an error: the name of its code, and the explanation if there is one.

    RabbitMQ cuts what is too long; some releases do it in the middle of a character.

    Returns:
        The text; ``None`` if the release cannot send it: it is not cut, and has too many octets.
    """
    text = f"{name} - {explanation}" if explanation else name
    if not version.quotes_latin_1:
        raw = text.encode("utf-8", "surrogateescape")
        if len(raw) > MAX_REPLY_TEXT_BYTES:
            raw = raw[: MAX_REPLY_TEXT_BYTES - len(_CUT)] + _CUT.encode()
        return raw.decode("utf-8", "surrogateescape")
    text = _characters(text, version)
    if len(text) > MAX_REPLY_TEXT_BYTES:
        text = text[: MAX_REPLY_TEXT_BYTES - len(_CUT)] + _CUT
    return text if len(text.encode("utf-8", "replace")) <= MAX_REPLY_TEXT_BYTES else None


def _characters(text: str, version: Version) -> str:
    """The characters of a text: as a release sees them in which a character is an octet, or in which it is Unicode."""
    if not version.quotes_latin_1:
        return text.encode("utf-8", "surrogateescape").decode("latin-1")
    return "".join(chr(ord(c) - _OCTET) if _OCTET <= ord(c) < _OCTET + 256 else c for c in text)


def _printed(plain: str, seen: str, *, wide: bool = False) -> str | None:
    """A string between quotes; ``None`` if Erlang prints numbers, because it cannot print all of its characters.

    Args:
        seen: ``plain``, as Erlang sees it.
        wide: it can print more than Latin-1.
    """
    if not all(c in _ESCAPED or " " <= c <= "~" or "\xa0" <= c <= ("\U0010ffff" if wide else "\xff") for c in seen):
        return None
    return '"' + "".join("\\" + _ESCAPED[c] if c in _ESCAPED else c for c in plain) + '"'


def string(plain: str, version: Version) -> str:
    """A string of Erlang as a term. What is not Unicode in it stands for octets, as in :func:`quoted`."""
    seen = _characters(plain, version)
    return _printed(plain, seen) or f"[{','.join(str(ord(c)) for c in seen)}]"


def _binary(it: str | bytes | bytearray, version: Version) -> str:
    plain = quoted(it)
    seen = _characters(plain, version)
    utf_8 = version.quotes_latin_1 and not plain.isascii() and plain == seen
    if printed := _printed(plain, seen, wide=utf_8):
        return f"<<{printed}{'/utf8' * utf_8}>>"
    octets = plain.encode("utf-8", "surrogateescape")
    return f"<<{','.join(map(str, octets))}>>"


def value(it: object, version: Version) -> str:
    """The value of an argument, between apostrophes or as ``none``."""
    if it is None:
        return "none"
    return f"'{quoted(it) if isinstance(it, str | bytes | bytearray) else term(it, version)}'"


def term(it: object, version: Version) -> str:
    """The value of a field as an Erlang term."""
    if isinstance(it, bool):
        return str(it).lower()
    if isinstance(it, str | bytes | bytearray):
        return _binary(it, version)
    if isinstance(it, Decimal):
        sign, digits, exponent = it.as_tuple()
        number = int("".join(map(str, digits)))
        return f"{{{-int(exponent)},{-number if sign else number}}}"
    if isinstance(it, datetime):
        return str(int(it.timestamp()))
    if isinstance(it, dict):
        return f"[{','.join(f'{{{term(key, version)},{_typed(each, version)}}}' for key, each in it.items())}]"
    if isinstance(it, list):
        return f"[{','.join(f'{{{_typed(each, version)}}}' for each in it)}]"
    return "undefined" if it is None else str(it)


def _typed(it: object, version: Version) -> str:
    return f"{amqp_type(it)},{term(it, version)}"
