"""Writes GELF 1.1 records, the bodies of the messages on the ``logs`` exchange (docs/architecture.rst, "Log records").

It decides what is cut from a record that is too long. It does not know when a record is sent. The format is specified
on https://go2docs.graylog.org, "GELF payload specification".
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from eda_core.criticality import DEBUG, EMERGENCY, LABELS
from eda_core.errors import LocalError

#: The longest record, bytes. A longer one is cut, because the broker closes the channel over a message that is too
#: large.
MAX_RECORD_BYTES: Final = 1 << 20
#: What is left of a record that is cut: characters of each message, characters of each field, and fields.
_KEPT_OF_MESSAGE: Final = 50_000
_KEPT_OF_FIELD: Final = 1_000
_KEPT_FIELDS: Final = 100


def routing_key(service: str, level: int) -> str:
    """Return ``service.LEVEL``, the routing key of a log record whose ``level`` is a syslog severity, from 0 to 7."""
    return f"{service}.{LABELS[level]}"


def check_level(level: int) -> int:
    """Return ``level`` as an ``int`` if it is a syslog severity. It may be a member of an ``IntEnum``.

    Raises:
        LocalError: it is not a whole number from 0 (EMERGENCY) to 7 (DEBUG).
    """
    if not isinstance(level, int) or isinstance(level, bool) or not EMERGENCY <= level <= DEBUG:
        raise LocalError(f"log level {level!r} is not from 0 to 7", hint="use a constant of eda_core.criticality")
    return int(level)


def checked_fields(level: int, fields: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return a copy of the additional fields of a record, if its level and the names of the fields are allowed.

    Raises:
        LocalError: as for :func:`check_level` and :func:`check_names`.
    """
    check_level(level)
    checked = dict(fields or {})
    check_names(checked)
    return checked


def check_names(fields: Mapping[str, Any]) -> None:
    """Check the names of the additional fields of a record.

    Raises:
        LocalError: a name is not text, or is ``id`` or ``_id``, which the specification reserves.
    """
    for name in fields:
        if not isinstance(name, str) or name in ("id", "_id"):
            raise LocalError(f"a log field cannot have the name {name!r}", hint="use text, but not 'id' or '_id'")


def record(
    *,
    service: str,
    hostname: str,
    pid: int,
    timestamp: float,
    level: int,
    short: str,
    full: str = "",
    conversation_id: str = "",
    fields: Mapping[str, Any] | None = None,
) -> bytes:
    """Return one log record as JSON.

    A record must not fail because of what it reports. So values that JSON cannot express are written as text, and a
    record that is too long is cut.

    Args:
        timestamp: seconds since 1970 (POSIX time).
        level: a syslog severity, from 0 to 7.
        short: the message in one line.
        full: the whole message, such as a traceback.
        fields: additional fields. A name that does not begin with an underscore is given one.

    Raises:
        LocalError: the name of a field is not allowed (:func:`check_names`).
    """
    check_names(fields or {})
    document: dict[str, Any] = {
        "version": "1.1",
        "host": f"{service}@{hostname}",
        "short_message": short,
        "full_message": full,
        "timestamp": timestamp,
        "level": level,
        "_levelname": LABELS[level],
        "_conversation_id": conversation_id,
        "_logical_service": service,
        "_worker_pid": pid,
    }
    for name, value in (fields or {}).items():
        document[name if name.startswith("_") else f"_{name}"] = value
    # Lone surrogates, as in file names that cannot be decoded, must not make this raise.
    body = _dumps(document).encode(errors="replace")
    return body if len(body) <= MAX_RECORD_BYTES else _dumps(_cut(document)).encode(errors="replace")


def _dumps(document: dict[str, Any]) -> str:
    try:
        return json.dumps(document, ensure_ascii=False, allow_nan=False, default=str)
    except Exception:
        return json.dumps({name: _writable(value) for name, value in document.items()}, ensure_ascii=False)


def _cut(document: dict[str, Any]) -> dict[str, Any]:
    for name in ("short_message", "full_message"):
        text = _text(document[name])
        if len(text) > _KEPT_OF_MESSAGE:  # the ends of a traceback say the most
            document[name] = f"{text[: _KEPT_OF_MESSAGE // 2]} […] {text[-_KEPT_OF_MESSAGE // 2 :]}"
    kept = [*document.items()][:_KEPT_FIELDS]
    return {name[:_KEPT_OF_FIELD]: value if name[0] != "_" else _short_field(value) for name, value in kept}


def _short_field(value: object) -> object:
    text = _text(value)
    return value if len(text) <= _KEPT_OF_FIELD else f"{text[:_KEPT_OF_FIELD]}…"


def _text(value: object) -> str:
    return value if isinstance(value, str) else _dumps({"": value})


def _writable(value: object) -> object:
    """Return ``value``, or text in its place if JSON cannot express it. Its ``str`` may raise."""
    try:
        json.dumps(value, allow_nan=False)
        return value
    except Exception:
        try:
            return str(value)
        except Exception:
            return f"<{type(value).__name__}>"
