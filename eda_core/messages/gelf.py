"""GELF 1.1 records, the bodies of the ``logs`` exchange (https://go2docs.graylog.org, "GELF payload specification")."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from eda_core.criticality import DEBUG, EMERGENCY, LABELS
from eda_core.errors import LocalError

#: A broker closes the channel over a message that is too large, and with it goes what the log is about. So of a record
#: with more bytes than this …
MAX_RECORD_BYTES: Final = 1 << 20
#: … only so many characters of each message and of each field are kept, and so many fields.
_KEPT_OF_MESSAGE: Final = 50_000
_KEPT_OF_FIELD: Final = 1_000
_KEPT_FIELDS: Final = 100


def routing_key(service: str, level: int) -> str:
    """``service.LEVEL``, the key of a record on the ``logs`` exchange."""
    return f"{service}.{LABELS[level]}"


def check_level(level: int) -> int:
    """Return ``level`` if it is a syslog severity. A member of an ``IntEnum`` may be one.

    Raises:
        LocalError: it is not a whole number from 0 (EMERGENCY) to 7 (DEBUG).
    """
    if not isinstance(level, int) or isinstance(level, bool) or not EMERGENCY <= level <= DEBUG:
        raise LocalError(f"log level {level!r} is not from 0 to 7", hint="use a constant of eda_core.criticality")
    return int(level)


def check_names(fields: Mapping[str, Any]) -> None:
    """Whether additional fields may be called so.

    Raises:
        LocalError: a field is called ``id`` or ``_id`` (the specification reserves it), or its name is not text.
    """
    for name in fields:
        if not isinstance(name, str) or name in ("id", "_id"):
            raise LocalError(f"GELF reserves or cannot carry the field name {name!r}", hint="rename the field")


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
    """One record as JSON bytes.

    Args:
        timestamp: seconds since the epoch.
        fields: additional fields; each name is given its leading underscore once. Values that JSON has no form for are
            written as text, and what is too long is cut: a log must not fail because of what it reports.

    Raises:
        LocalError: a field may not be called so.
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
    # Lone surrogates (undecodable file names, say) must not make a log raise, nor anything else that it reports.
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
        if len(text) > _KEPT_OF_MESSAGE:  # a traceback tells the most at its ends
            document[name] = f"{text[: _KEPT_OF_MESSAGE // 2]} […] {text[-_KEPT_OF_MESSAGE // 2 :]}"
    kept = [*document.items()][:_KEPT_FIELDS]
    return {name[:_KEPT_OF_FIELD]: value if name[0] != "_" else _short_field(value) for name, value in kept}


def _short_field(value: object) -> object:
    text = _text(value)
    return value if len(text) <= _KEPT_OF_FIELD else f"{text[:_KEPT_OF_FIELD]}…"


def _text(value: object) -> str:
    return value if isinstance(value, str) else _dumps({"": value})


def _writable(value: object) -> object:
    """``value``, or as text what JSON has no form for; whatever its ``str`` does."""
    try:
        json.dumps(value, allow_nan=False)
        return value
    except Exception:
        try:
            return str(value)
        except Exception:
            return f"<{type(value).__name__}>"
