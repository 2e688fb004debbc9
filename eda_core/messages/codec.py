"""Payloads to bytes and back: CBOR (RFC 8949, the default) and JSON (RFC 8259), both within limits.

A body comes from the network and is data: whatever the bytes, :func:`decode` returns a value or raises
:class:`DecodeError`, never anything else. It takes linear time and memory, but for maps whose integer keys are made to
collide (which peers need to use, and whose cost ``max_bytes`` bounds). What :func:`encode` accepts, :func:`decode`
accepts.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, NoReturn

import cbor2

from eda_core.errors import LocalError, PayloadError

CBOR: Final = "application/cbor"
JSON: Final = "application/json"

#: Containers that count as one level of depth.
_CONTAINERS: Final = (dict, list, tuple, set, frozenset)
#: From so many containers on one level on, those that are the same object are looked at only once.
_MANY: Final = 200
#: The library quotes what it does not like, such as a key, however long: so many characters of that are told.
_LONGEST_CAUSE: Final = 200
#: What needs no look inside.
_LEAVES: Final = frozenset((str, int, float, bool, type(None), bytes))


class DecodeError(ValueError):
    """A body that is not a payload. The text says why, in one line without the body itself."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a payload may be, before the wire and after it.

    Attributes:
        max_bytes: largest body, bytes. RabbitMQ 4 refuses more than 16 MiB by default.
        max_depth: deepest nesting of containers; a flat map has depth 1.
    """

    max_bytes: int = 16 * 1024 * 1024
    max_depth: int = 32

    def __post_init__(self) -> None:
        whole = type(self.max_bytes) is type(self.max_depth) is int
        if not whole or self.max_bytes < 1 or not 1 <= self.max_depth <= 400:
            raise LocalError(f"{self} makes no sense", hint="max_bytes is at least 1, max_depth from 1 to 400")


DEFAULT_LIMITS: Final = Limits()


def encode(payload: object, content_type: str = CBOR, limits: Limits = DEFAULT_LIMITS) -> bytes:
    """Write ``payload`` in ``content_type``.

    Raises:
        PayloadError: it holds a value the content type has no form for, is nested too deep, or is too large.
        LocalError: the content type is neither ``application/cbor`` nor ``application/json``.
    """
    writer = _WRITERS.get(content_type)
    if writer is None:
        raise LocalError(f"content type {content_type!r} is not supported", hint=f"use {CBOR} or {JSON}")
    plain = _is_plain(payload, limits)
    try:
        body = writer(payload)
    except (cbor2.CBORError, TypeError, ValueError, OverflowError, RecursionError) as error:
        raise PayloadError(f"payload cannot be written as {content_type}: {error}", hint="send plain data") from error
    size = len(body)
    if size > limits.max_bytes:
        raise PayloadError(
            f"payload is {size} bytes as {content_type}, the limit is {limits.max_bytes}",
            hint="send a reference to it instead",
        )
    if not plain or (size > _LONGEST_INTEGER and any(map(body.__contains__, _LONG_INTEGERS))):
        try:
            decode(body, content_type, limits)
        except DecodeError as error:
            raise PayloadError(f"payload would be refused by its receiver: {error}", hint="send plain data") from None
    return body


def decode(body: bytes, content_type: str | None, limits: Limits = DEFAULT_LIMITS) -> Any:
    """Read a body. An empty one is ``None``, and no content type means JSON (eventail 2.3.6 does both).

    Raises:
        DecodeError: it is too large, too deep, malformed, of another content type, or uses a construct that is refused
            because it can be made to explode (shared references, regular expressions …).
    """
    if not body:
        return None
    if len(body) > limits.max_bytes:
        raise DecodeError(f"body of {len(body)} bytes, the limit is {limits.max_bytes}")
    reader = _READERS.get(content_type)
    if reader is None:
        # Parameters and case do not matter (RFC 9110, section 8.3.1); looked at only after the fast exact match failed.
        reader = _READERS.get(str(content_type).partition(";")[0].strip().lower())
        if reader is None:
            raise DecodeError(f"content type {_short(content_type)} is neither {CBOR} nor {JSON}")
    return reader(body, limits)


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…"


def _is_plain(payload: object, limits: Limits) -> bool:
    """Whether ``payload`` is sure to be accepted by :func:`decode`; if not, only decoding it will tell.

    As few containers as that cannot be nested too deep, whatever holds what. (Loops: in Python 3.11 a comprehension
    costs a call.) Big integers have a tag, which counts as a level: near the limit it takes a decoder to know.

    Raises:
        PayloadError: as :func:`_look_closely`.
    """
    few = limits.max_depth - 3
    nodes: list[Any] = [payload]
    for node in nodes:
        kind = type(node)
        if kind is dict:
            for key, child in node.items():
                if type(child) not in _LEAVES:
                    nodes.append(child)
                if type(key) is not str and type(key) not in _LEAVES:
                    nodes.append(key)
        elif kind is list or kind is tuple:
            for child in node:
                if type(child) not in _LEAVES:
                    nodes.append(child)
        elif kind not in _LEAVES:
            return _look_closely(payload, limits)
        if len(nodes) > few:
            return _look_closely(payload, limits)
    return True


def _look_closely(payload: object, limits: Limits) -> bool:
    """As :func:`_is_plain`, level by level.

    Raises:
        PayloadError: it is nested too deep, or has more parts than a body has bytes.
    """
    plain, level = True, [payload]
    for depth in range(limits.max_depth):
        inner: list[object] = []
        for node in level:
            if type(node) is dict:
                for key, child in node.items():
                    if type(child) not in _LEAVES:
                        inner.append(child)
                    if type(key) not in _LEAVES:
                        inner.append(key)
            elif type(node) is list or type(node) is tuple:
                for child in node:
                    if type(child) not in _LEAVES:
                        inner.append(child)
            else:
                plain = False
                inner += _children(node)
        if not inner:
            return plain and depth < limits.max_depth - 3
        if len(inner) > _MANY:
            _check_shared(inner, limits.max_depth - depth - 1, limits)
            return False
        level = inner
    _too_deep(level, limits)
    return False


def _children(node: object) -> list[object]:
    if isinstance(node, dict):
        return [*node, *node.values()]
    return [*node] if isinstance(node, _CONTAINERS) else []


def _too_deep(level: list[object], limits: Limits) -> None:
    if any(isinstance(node, _CONTAINERS) for node in level):
        raise PayloadError(f"payload is nested deeper than {limits.max_depth} levels", hint="flatten it")


def _check_shared(level: list[object], depth: int, limits: Limits) -> None:
    """Go on with what has many parts, looking once at what is shared but counting it as often as it is written.

    32 levels of pairs of the same object are 2^32 leaves, of which none must be written before the size is seen.
    """
    size = 0
    counted = [(node, 1) for node in level]
    for _ in range(depth):
        inner: dict[int, tuple[object, int]] = {}
        for node, times in counted:
            for child in _children(node):
                if type(child) in _LEAVES:
                    size += times * (len(child) if isinstance(child, (str, bytes)) else 1)
                else:
                    inner[id(child)] = (child, inner.get(id(child), (child, 0))[1] + times)
        size += sum(times for _, times in inner.values())
        if size > limits.max_bytes:
            raise PayloadError(f"payload has more than {limits.max_bytes} parts", hint="send a reference to it instead")
        counted = list(inner.values())
    _too_deep([node for node, _ in counted], limits)


def _write_json(payload: object) -> bytes:
    # NaN and Infinity are not JSON: peers in other languages would dead-letter them.
    return json.dumps(payload, ensure_ascii=False, allow_nan=False).encode()


def _refusal(tag: int) -> Callable[[Any, bool], NoReturn]:
    def refuse(_value: Any, _immutable: bool) -> NoReturn:
        raise ValueError(f"CBOR tag {tag} is refused")

    return refuse


def _unknown_tag(tag: cbor2.CBORTag, _immutable: bool) -> NoReturn:
    raise ValueError(f"CBOR tag {tag.tag} is unknown")


def _big_integer(digits: Any, _immutable: bool) -> int:
    """Tag 2. Decimals and fractions of longer integers take quadratic time."""
    if not isinstance(digits, bytes) or len(digits) > _LONGEST_INTEGER:
        raise ValueError(f"CBOR tag 2 or 3 is not on a byte string of at most {_LONGEST_INTEGER} bytes")
    return int.from_bytes(digits, "big")


def _negative_big_integer(digits: Any, immutable: bool) -> int:
    return -1 - _big_integer(digits, immutable)


_LONGEST_INTEGER: Final = 1024
#: How longer ones begin: tag 2 or 3, on a byte string whose length takes two bytes or four.
_LONG_INTEGERS: Final = (b"\xc2\x59", b"\xc3\x59", b"\xc2\x5a", b"\xc3\x5a")

#: String references, shared references (cyclic, or 2^28 leaves from 266 bytes), regular expressions, e-mail messages.
_OWN_TAGS: Final[dict[int, Callable[[Any, bool], Any]]] = {
    2: _big_integer,
    3: _negative_big_integer,
    **{tag: _refusal(tag) for tag in (25, 28, 29, 35, 36, 256)},
}


#: Put behind a body, to see in one fast call whether that ends where its payload does: "undefined", one byte that is in
#: no UTF-8.
_END_CBOR: Final = 0xF7


def _read_cbor(body: bytes, limits: Limits) -> Any:
    if _END_CBOR not in body:
        try:
            payload, end = cbor2.loads(
                b"\x82" + body + b"\xf7",  # an array of two
                tag_hook=_unknown_tag,
                semantic_decoders=_OWN_TAGS,
                max_depth=limits.max_depth + 1,
                allow_duplicate_keys=False,
            )
        except Exception:
            return _read_cbor_alone(body, limits)  # it tells what is wrong with the body as it is
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
    except (
        Exception
    ) as error:  # cbor2 documents CBORDecodeError only; bytes from the network must not find out otherwise
        raise DecodeError(f"malformed CBOR: {_cause(error)}") from None
    if stream.tell() != len(body):
        raise DecodeError(f"malformed CBOR: {len(body) - stream.tell()} bytes after the end of the payload")
    return payload


def _cause(error: Exception) -> str:
    inner = error.__cause__
    text = f"{error} ({inner})" if inner is not None else f"{error}"
    return text if len(text) <= _LONGEST_CAUSE else f"{text[: _LONGEST_CAUSE - 1]}…"


def _read_json(body: bytes, limits: Limits) -> Any:
    # json's scanner recurses in C: nesting that cannot be counted out beforehand must not reach it.
    if body.count(b"[") + body.count(b"{") > limits.max_depth and _json_depth(body) > limits.max_depth:
        raise DecodeError(f"malformed JSON: nested deeper than {limits.max_depth} levels")
    try:
        return json.loads(body.decode())
    except (ValueError, RecursionError) as error:
        raise DecodeError(f"malformed JSON: {error}") from None


def _json_depth(body: bytes) -> int:
    """The deepest nesting of brackets outside strings, in one pass."""
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
