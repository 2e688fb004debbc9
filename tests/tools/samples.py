"""Messages for tests of tools that read recordings."""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import Any

from pamqp.commands import Basic

from eda_core.messages.routing import COMMANDS, EVENTS
from eda_tools.messages.delivery import PROPERTIES, Delivery
from eda_tools.messages.recording import dumps

START = datetime.datetime(2026, 5, 1, 12, tzinfo=datetime.UTC)
ATTRIBUTES = {**PROPERTIES, "type": "message_type"}


def message(
    exchange: str,
    key: str,
    at: float,
    payload: Any = None,
    *,
    conversation: str = "conv",
    cause: str | None = None,
    status: str | None = None,
    **properties: Any,
) -> Delivery:
    """A message that arrived ``at`` seconds after :data:`START`; ``cause`` is the header causation_id."""
    headers = {"conversation_id": conversation, "causation_id": cause, "status": status}
    written = {ATTRIBUTES[name]: value for name, value in properties.items()}
    return Delivery(
        exchange,
        key,
        Basic.Properties(
            content_type="application/json",
            headers={name: value for name, value in headers.items() if value is not None},
            **written,
        ),
        json.dumps(payload).encode(),
        received=START + datetime.timedelta(seconds=at),
    )


def event(name: str, at: float, payload: Any = None, **keys: Any) -> Delivery:
    """An event."""
    return message(EVENTS, name, at, payload, **keys)


def command(
    name: str, at: float, payload: Any = None, *, reply_to: str, correlation: str = "c1", **keys: Any
) -> Delivery:
    """A command."""
    return message(COMMANDS, name, at, payload, reply_to=reply_to, correlation_id=correlation, **keys)


def result(
    name: str, at: float, payload: Any = None, *, correlation: str = "c1", status: str = "success", **keys: Any
) -> Delivery:
    """The result of a command."""
    return message(COMMANDS, name, at, payload, correlation_id=correlation, status=status, **keys)


def recording(path: Path, *messages: Delivery) -> str:
    """Write a recording of ``messages``. Returns its path."""
    path.write_bytes(b"".join(map(dumps, messages)))
    return str(path)
