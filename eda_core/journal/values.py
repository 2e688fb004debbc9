"""Converts the arguments of a machine's inputs, and its effects, to JSON values and back.

This module decides the form of each value. It does not know what the values mean.
"""

from __future__ import annotations

import base64
import dataclasses
import json
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

import cbor2
from pamqp import base, commands
from pamqp.commands import Basic

from eda_core.machine import effects, outcomes, policy
from eda_core.machine.config import Config
from eda_core.messages import values
from eda_core.messages.codec import Limits
from eda_core.messages.properties import Unreadable
from eda_core.urls import redact

#: The most levels of nesting. What is nested more deeply is written as CBOR, in one piece.
_MOST_LEVELS: Final = 60
#: The arguments of a refused input may be anything. This many values of them are written, and this many levels.
_MOST_REFUSED: Final = (100_000, 50)
#: The types that pamqp can write in a header, besides lists and dictionaries.
_IN_HEADERS: Final = (str, int, float, bytes, bytearray, datetime, Decimal, type(None))


@dataclasses.dataclass(frozen=True)
class Shown:
    """Takes the place of a value in the fields of a log that JSON has no form for. The log shows its text."""

    text: str
    quoted: str

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        return self.quoted


_CLASSES: Final[dict[str, Any]] = {
    name: kind
    for module in (effects, outcomes, policy, values)
    for name, kind in vars(module).items()
    if isinstance(kind, type) and dataclasses.is_dataclass(kind)
} | {"Config": Config, "Limits": Limits, "Shown": Shown}


class JournalError(ValueError):
    """A file is not a journal. The text says which line, and why."""


def plain(value: Any, levels: int = _MOST_LEVELS) -> Any:
    """Return ``value`` as JSON values. Objects become maps with the name of their class under ``$``, without passwords.

    Args:
        levels: how deeply the map may be nested.
    """
    if value is None or isinstance(value, (bool, str)) or (isinstance(value, int) and value.bit_length() < 10_000):
        return value
    if isinstance(value, float):
        return value if value == value and abs(value) != float("inf") else {"$": "float", "is": repr(value)}
    return _structured(value, levels - 1) if levels else _in_cbor(value)


def _structured(value: Any, levels: int) -> Any:
    if isinstance(value, (list, tuple)):
        return [plain(item, levels) for item in value]
    if isinstance(value, (bytes, bytearray)):
        kind = "bytes" if isinstance(value, bytes) else "bytearray"  # in a header they are two types
        return {"$": kind, "is": base64.b64encode(value).decode()}
    if isinstance(value, datetime):
        return {"$": "datetime", "is": value.isoformat()}
    if isinstance(value, (Basic.Properties, base.Frame)):
        reason = {"$": "Unreadable", "reason": value.reason} if isinstance(value, Unreadable) else {}
        return {"$": value.name} | reason | {name: plain(field, levels) for name, field in value if field is not None}
    if _CLASSES.get(type(value).__name__) is type(value):
        fields = {field.name: plain(getattr(value, field.name), levels) for field in dataclasses.fields(value)}
        return {"$": type(value).__name__} | _without_passwords(fields)
    if isinstance(value, dict):
        if all(isinstance(key, str) for key in value) and "$" not in value:
            return {key: plain(item, levels) for key, item in value.items()}
        return {"$": "map", "is": [[plain(key, levels), plain(item, levels)] for key, item in value.items()]}
    if isinstance(value, (set, frozenset)):
        return {"$": "set", "is": [plain(item, levels) for item in value]}
    return _in_cbor(value)


def shown_fields(value: Any, levels: int = _MOST_LEVELS) -> Any:
    """Return the fields of a log as the log will show them. Their values may be anything."""
    if value is None or isinstance(value, (str, int, float)) or not levels:
        return value
    if isinstance(value, (list, tuple)):
        return [shown_fields(item, levels - 1) for item in value]
    if isinstance(value, dict):
        return {key: shown_fields(item, levels - 1) for key, item in value.items()}
    try:
        return Shown(str(value), repr(value))
    except Exception:  # the log shows such a value by its type, too
        return Shown(*[f"<{type(value).__name__}>"] * 2)


def _in_cbor(value: Any) -> dict[str, Any]:
    try:
        return {"$": "cbor", "is": base64.b64encode(cbor2.dumps(value)).decode()}
    except Exception:  # the machine refuses such a value, and has to refuse it again
        return {"$": "cbor", "is": "", "of": type(value).__name__}


def refused(value: Any) -> Any:
    """Return an argument of a refused input, cut to a bounded size.

    Objects that every machine refuses take the place of what is cut out.
    """
    if isinstance(value, values.AnyMessage):
        conversation: Any = value.conversation_id if type(value.conversation_id) is str else object()
        meta = _clipped(value.meta, _left(), _MOST_REFUSED[1], header=True)
        return dataclasses.replace(value, payload=refused(value.payload), conversation_id=conversation, meta=meta)
    return _clipped(value, _left(), _MOST_REFUSED[1])


def _left() -> Iterator[int]:
    return iter(range(_MOST_REFUSED[0]))


def _clipped(value: Any, left: Iterator[int], levels: int, *, header: bool = False) -> Any:
    if next(left, None) is None or not levels:
        return object()
    if isinstance(value, list) or (isinstance(value, tuple) and not header):
        return [_clipped(item, left, levels - 1, header=header) for item in value]
    if isinstance(value, dict):
        return {key: _clipped(item, left, levels - 1, header=header) for key, item in value.items()}
    # A payload may hold a tuple, which comes back as a list. A header may not hold one.
    return object() if header and not isinstance(value, _IN_HEADERS) else value


def without_password(value: Any) -> Any:
    """Return ``value``, without the passwords of URLs if it is a text."""
    return redact(value) if isinstance(value, str) else value


def _without_passwords(fields: dict[str, Any]) -> dict[str, Any]:
    if "url" in fields:
        fields["url"] = redact(fields["url"])
    if "urls" in fields:
        fields["urls"] = [redact(url) for url in fields["urls"]]
    return fields


#: Each line with a set in it has this text.
SET: Final = '"$": "set"'


class _InOrder(frozenset[Any]):
    """A set with the order of the journal. The order of Python's sets differs from process to process."""

    def __new__(cls, items: Iterable[Any]) -> _InOrder:
        order = tuple(items)
        made = super().__new__(cls, order)
        made._order = order
        return made

    _order: tuple[Any, ...]

    def __iter__(self) -> Iterator[Any]:
        return iter(self._order)


def in_order(value: Any) -> Any:
    """Return ``value``, which :func:`plain` made, with its sets in an order that does not depend on the process."""
    if isinstance(value, list):
        return [in_order(item) for item in value]
    if not isinstance(value, dict):
        return value
    value = {key: in_order(item) for key, item in value.items()}
    if value.get("$") == "set":
        value["is"].sort(key=json.dumps)
    return value


_SIMPLE: Final[dict[str, Callable[[Any], Any]]] = {
    "float": float,
    "bytes": base64.b64decode,
    "bytearray": lambda text: bytearray(base64.b64decode(text)),
    "datetime": datetime.fromisoformat,
    "map": lambda items: {_key(restore(key)): restore(item) for key, item in items},
    "set": lambda items: _InOrder(_key(restore(item)) for item in items),
    "cbor": lambda text: cbor2.loads(base64.b64decode(text)) if text else object(),
}


def restore(value: Any) -> Any:
    """Return the value that :func:`plain` was given. Tuples come back as lists.

    Raises:
        JournalError: the journal names a class that it cannot hold.
    """
    if isinstance(value, list):
        return [restore(item) for item in value]
    if not isinstance(value, dict):
        return value
    if "$" not in value:
        return {key: restore(item) for key, item in value.items()}
    kind = value["$"]
    if kind in _SIMPLE:
        return _SIMPLE[kind](value["is"])
    fields = {name: restore(field) for name, field in value.items() if name != "$"}
    if kind == "Unreadable":
        reason = fields.pop("reason")
        return Unreadable.of(_frame(Basic.Properties.name, fields), reason)
    if kind in _CLASSES:
        return _CLASSES[kind](**{name: _key(field) for name, field in fields.items()} if kind in _FROZEN else fields)
    if "." not in kind:
        raise JournalError(f"unknown class {kind!r}")
    return _frame(kind, fields)


#: The classes whose sequences have to be tuples.
_FROZEN: Final = ("Config", "RetryPolicy", "Declare")


def _key(value: Any) -> Any:
    if isinstance(value, set):
        return frozenset(value)
    return tuple(_key(item) for item in value) if isinstance(value, list) else value


def _frame(kind: str, fields: dict[str, Any]) -> Any:
    family, _, name = kind.partition(".")
    frame = getattr(getattr(commands, family), name)()
    for field, value in fields.items():
        setattr(frame, field, value)
    return frame
