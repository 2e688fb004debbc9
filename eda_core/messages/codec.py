"""Writes payloads as bytes and reads them: CBOR (RFC 8949, the default) and JSON (RFC 8259), both within limits.

A body comes from the network. Whatever its bytes are, :func:`decode` returns a value or raises :class:`DecodeError`,
and nothing else. It takes linear time and memory, with one exception: maps with integer keys that are chosen to
collide. Peers may use integer keys, and ``max_bytes`` bounds what such a map costs. :func:`decode` accepts what
:func:`encode` has written. This module knows nothing of properties and headers.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, NoReturn

import cbor2

from eda_core.errors import LocalError, PayloadError
from eda_core.messages.models import without_models
from eda_core.messages.places import culprit, too_deep
from eda_core.text import one_line, shortened

#: The content type of CBOR, the default for what a service publishes.
CBOR: Final = "application/cbor"
#: The content type of JSON.
JSON: Final = "application/json"

#: Containers that count as one level of depth.
_CONTAINERS: Final = (dict, list, tuple, set, frozenset)
#: Containers that come out of a decoder.
_PLAIN: Final = (dict, list, tuple)
#: A payload this many levels below the limit is sure to be accepted: the tag of a big integer counts as a level, too.
_SPARE_LEVELS: Final = 3
#: Characters of an error of the CBOR library that are shown. It may quote a key of any length.
_LONGEST_CAUSE: Final = 200
#: What the writers raise for a payload that they cannot write.
_WRITE_ERRORS: Final = (cbor2.CBORError, TypeError, ValueError, OverflowError, RecursionError)
#: The types of values that hold no other values.
_LEAVES: Final = frozenset((str, int, float, bool, type(None), bytes))
_ONLY_LEAVES: Final = _LEAVES.issuperset


class DecodeError(ValueError):
    """A body that cannot be read as a payload. The text says why in one line, without the body."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How large and how deep a payload may be, when it is written and when it is read.

    Attributes:
        max_bytes: the largest body, bytes, at least 1. By default 16 MiB: RabbitMQ 4 refuses more.
        max_depth: the deepest nesting of containers, from 1 to 400. A flat map has depth 1.

    Raises:
        LocalError: a limit is not a whole number in its range.
    """

    max_bytes: int = 16 * 1024 * 1024
    max_depth: int = 32

    def __post_init__(self) -> None:
        whole = type(self.max_bytes) is type(self.max_depth) is int
        if not whole or self.max_bytes < 1 or not 1 <= self.max_depth <= 400:
            raise LocalError(f"{self} is not allowed", hint="give max_bytes from 1, and max_depth from 1 to 400")


#: The limits of the architecture.
DEFAULT_LIMITS: Final = Limits()


def encode(payload: object, content_type: str = CBOR, limits: Limits = DEFAULT_LIMITS) -> bytes:
    """Return a payload as the body of a message. In the place of models it has maps.

    A model is an instance of a dataclass, a Struct of msgspec, a model of pydantic, or of a class of attrs.

    Args:
        content_type: ``CBOR`` or ``JSON``.

    Raises:
        PayloadError: the payload has a value that the content type cannot express, is nested too deep, or is too large.
        LocalError: the content type is neither ``application/cbor`` nor ``application/json``.
    """
    writer = _WRITERS.get(content_type)
    if writer is None:
        raise LocalError(f"content type {content_type!r} is not supported", hint=f"use {CBOR} or {JSON}")
    plain = _is_plain(payload, limits)
    try:
        body = writer(payload)
    except _WRITE_ERRORS as error:
        plain_payload = without_models_for(payload, content_type)
        if plain_payload is not payload:
            return encode(plain_payload, content_type, limits)
        where, cause = culprit(payload, error, writer)
        raise PayloadError(
            f"payload cannot be written as {content_type}: {where}{cause}", hint="send plain data"
        ) from error
    size = len(body)
    if size > limits.max_bytes:
        raise PayloadError(
            f"payload is {size} bytes as {content_type}, the limit is {limits.max_bytes}",
            hint="send a reference to it instead",
        )
    if not plain or (size > _LONGEST_INTEGER and _may_have_long_integers(body)):
        try:
            decode(body, content_type, limits)
        except DecodeError as error:
            where, cause = culprit(payload, error, lambda value: decode(writer(value), content_type, limits))
            raise PayloadError(
                f"payload would be refused by its receiver: {where}{cause}", hint="send plain data"
            ) from None
    return body


def decode(body: bytes, content_type: str | None, limits: Limits = DEFAULT_LIMITS) -> Any:
    """Return the payload that a body holds.

    As with eventail 2.3.6, an empty body is ``None``, and a body without a content type is JSON.

    Args:
        content_type: the property of the message; case and parameters do not matter (RFC 9110, section 8.3.1).

    Raises:
        DecodeError: the body is too large, nested too deep or malformed, has another content type, or uses a feature of
            CBOR that is refused because a small body could cost much memory or time (shared references, regular
            expressions and others).
    """
    if not body:
        return None
    if len(body) > limits.max_bytes:
        raise DecodeError(f"body of {len(body)} bytes, the limit is {limits.max_bytes}")
    reader = _READERS.get(content_type)
    if reader is None:
        reader = _READERS.get(str(content_type).partition(";")[0].strip().lower())
        if reader is None:
            raise DecodeError(f"content type {shortened(repr(content_type), 60)} is neither {CBOR} nor {JSON}")
    return reader(body, limits)


def without_models_for(payload: Any, content_type: str) -> Any:
    """Return a payload with maps in the place of models; the payload itself if there are none in it.

    Args:
        content_type: ``CBOR`` or ``JSON``, which has fewer types.

    Raises:
        PayloadError: a model has a value that cannot be written, or contains itself.
    """
    try:
        return without_models(payload, json=content_type == JSON)
    except (TypeError, ValueError, RecursionError) as error:
        raise PayloadError(
            f"payload cannot be written as {content_type}: {shortened(one_line(str(error)), _LONGEST_CAUSE)}",
            hint="send plain data",
        ) from error


def _is_plain(payload: object, limits: Limits) -> bool:
    """Return whether ``decode`` is sure to accept a payload. If it is not sure, the body has to be decoded to know.

    This looks at each container once, and goes into all details only if there are many. So few containers cannot be
    nested too deep, whatever they hold.

    Raises:
        PayloadError: as :func:`_look_closely`.
    """
    few = limits.max_depth - _SPARE_LEVELS
    nodes: list[Any] = [payload]
    for node in nodes:
        kind = type(node)
        if kind is dict:
            if not _ONLY_LEAVES(map(type, node)):
                nodes += [key for key in node if type(key) not in _LEAVES]
            children = node.values()
        elif kind is list or kind is tuple:
            children = node
        elif kind in _LEAVES:
            continue
        else:
            return _look_closely(payload, limits)
        if not _ONLY_LEAVES(map(type, children)):  # a loop would take several times as long
            nodes += [child for child in children if type(child) not in _LEAVES]
        if len(nodes) > few:
            return _look_closely(payload, limits)
    return True


def _look_closely(payload: object, limits: Limits) -> bool:
    """Do the work of :func:`_is_plain` for any payload, level by level.

    A value that is in a payload many times is looked at once on each level, but counted as often as it is written: 32
    levels of pairs of the same object are 2^32 leaves, and none must be written before their number is known.

    Raises:
        PayloadError: the payload is nested too deep, or is too large because it has the same values many times.
    """
    plain, size, level = True, 0, [(payload, 1)]
    for depth in range(limits.max_depth):
        inner: dict[int, tuple[object, int]] = {}
        for node, times in level:
            if type(node) not in _PLAIN:
                plain = False
            children = [*node, *node.values()] if isinstance(node, dict) else node
            for child in children if isinstance(children, _CONTAINERS) else ():
                if type(child) not in _LEAVES:
                    known = inner.get(id(child))
                    inner[id(child)] = (child, times if known is None else known[1] + times)
                elif times > 1:
                    size += times * (len(child) if isinstance(child, (str, bytes)) else 1)
        level = list(inner.values())
        size += sum([times for _, times in level])
        if size > limits.max_bytes:
            raise PayloadError(
                f"payload is larger than {limits.max_bytes} bytes", hint="send a reference to it instead"
            )
        if not level:
            return plain and depth < limits.max_depth - _SPARE_LEVELS
    if any(isinstance(node, _CONTAINERS) for node, _ in level):
        where, outer = too_deep(payload, limits.max_depth)
        if outer:
            raise PayloadError(f"payload contains itself: {where} is {outer}", hint="send plain data")
        raise PayloadError(
            f"payload is nested deeper than {limits.max_depth} levels{where and ': '}{where}", hint="flatten it"
        )
    return False


def _write_json(payload: object) -> bytes:
    # NaN and Infinity are not JSON: peers in other languages could not read them.
    return json.dumps(payload, ensure_ascii=False, allow_nan=False).encode()


def _refuse(tag: int, _value: Any, _immutable: bool) -> NoReturn:
    raise ValueError(f"CBOR tag {tag} is refused")


def _unknown_tag(tag: cbor2.CBORTag, _immutable: bool) -> NoReturn:
    raise ValueError(f"CBOR tag {tag.tag} is unknown")


def _big_integer(digits: Any, _immutable: bool) -> int:
    """Read tag 2. Decimals and fractions that are made of longer integers take quadratic time."""
    if not isinstance(digits, bytes) or len(digits) > _LONGEST_INTEGER:
        raise ValueError(f"CBOR tag 2 or 3 is not on a byte string of at most {_LONGEST_INTEGER} bytes")
    return int.from_bytes(digits, "big")


def _negative_big_integer(digits: Any, immutable: bool) -> int:
    return -1 - _big_integer(digits, immutable)


#: Bytes of the longest integer.
_LONGEST_INTEGER: Final = 1024
#: The first bytes of longer ones: tag 2 or 3, then a byte string with a length of two bytes or four.
_LONG_INTEGERS: Final = {0xC2: (b"\xc2\x59", b"\xc2\x5a"), 0xC3: (b"\xc3\x59", b"\xc3\x5a")}


def _may_have_long_integers(body: bytes) -> bool:
    """Return whether a body has the first bytes of a long integer, perhaps by chance.

    To look for one byte takes a hundredth of the time that two bytes take, and most bodies do not have it.
    """
    return any(tag in body and any(map(body.__contains__, starts)) for tag, starts in _LONG_INTEGERS.items())


#: Our own readers of tags. Refused are string references (25, 256), shared references (28, 29: they may form a cycle,
#: or 2^28 leaves from 266 bytes), regular expressions (35) and e-mail messages (36).
_OWN_TAGS: Final[dict[int, Callable[[Any, bool], Any]]] = {
    2: _big_integer,
    3: _negative_big_integer,
    **{tag: partial(_refuse, tag) for tag in (25, 28, 29, 35, 36, 256)},
}


#: A byte that is put behind a body to find out, in one fast call, whether the body ends where its payload does. In CBOR
#: it is the value "undefined", and it never occurs in UTF-8.
_END_CBOR: Final = 0xF7


def _read_cbor(body: bytes, limits: Limits) -> Any:
    if _END_CBOR not in body:
        try:
            payload, end = cbor2.loads(
                b"\x82" + body + b"\xf7",  # an array of two items
                tag_hook=_unknown_tag,
                semantic_decoders=_OWN_TAGS,
                max_depth=limits.max_depth + 1,
                allow_duplicate_keys=False,
            )
        except Exception:
            return _read_cbor_alone(body, limits)  # this error is about the array; that one is about the body
        if end is cbor2.undefined:
            return payload
    return _read_cbor_alone(body, limits)


def _read_cbor_alone(body: bytes, limits: Limits) -> Any:
    stream = io.BytesIO(body)
    try:
        payload = cbor2.CBORDecoder(
            stream,
            tag_hook=_unknown_tag,
            semantic_decoders=_OWN_TAGS,
            max_depth=limits.max_depth,
            allow_duplicate_keys=False,
        ).decode()
    except Exception as error:  # cbor2 documents CBORDecodeError only, but no body may make decode() raise another
        raise DecodeError(f"malformed CBOR: {_cause(error)}") from None
    if stream.tell() != len(body):
        raise DecodeError(f"malformed CBOR: {len(body) - stream.tell()} bytes after the end of the payload")
    return payload


def _cause(error: Exception) -> str:
    inner = error.__cause__
    return shortened(f"{error} ({inner})" if inner is not None else f"{error}", _LONGEST_CAUSE)


def _read_json(body: bytes, limits: Limits) -> Any:
    # The scanner of json recurses in C, so it must not get text that is nested too deep.
    if body.count(b"[") + body.count(b"{") > limits.max_depth and _json_depth(body) > limits.max_depth:
        raise DecodeError(f"malformed JSON: nested deeper than {limits.max_depth} levels")
    try:
        return json.loads(body.decode())
    except (ValueError, RecursionError) as error:
        raise DecodeError(f"malformed JSON: {error}") from None


def _json_depth(body: bytes) -> int:
    """Return the deepest nesting of brackets outside strings."""
    deepest = depth = 0
    inside = escaped = False
    for byte in body:
        if inside:
            if escaped:
                escaped = False
            elif byte == 0x5C:
                escaped = True
            elif byte == 0x22:
                inside = False
        elif byte == 0x22:
            inside = True
        elif byte in b"[{":
            depth += 1
            deepest = max(deepest, depth)
        elif byte in b"]}":
            depth -= 1
    return deepest


_WRITERS: Final[dict[str, Callable[[object], bytes]]] = {CBOR: cbor2.dumps, JSON: _write_json}
_READERS: Final[dict[str | None, Callable[[bytes, Limits], Any]]] = {
    CBOR: _read_cbor,
    JSON: _read_json,
    None: _read_json,
    "": _read_json,
}
