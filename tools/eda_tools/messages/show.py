"""Shows messages, in the same way in all tools. It does not decide which.

- :func:`as_json`: the object that ``--json`` writes, for ``output.record``; the schema is in ``docs/tools.rst``.
- :func:`as_text`: a heading and the payload, for ``output.print``.
- :func:`as_line`: one line, for lists; :class:`Line` makes it.
- :func:`payload_text`: only a payload, as indented and coloured JSON.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from rich.console import Console
from rich.text import Text

from eda_core.messages.values import SUCCESS
from eda_tools.cli.output import jsonable, safe
from eda_tools.messages.delivery import BEGINNING

STYLES: Final = {
    "event": "bold green",
    "command": "bold blue",
    "result": "bold cyan",
    "configuration": "bold magenta",
    "log": "bold",
    "invalid": "bold red",
}
#: Characters of a payload in one line.
_SHORT: Final = 60
#: Columns from which on names are padded to ``_NAME`` columns, and labelled conversations to ``_LABELLED``.
_WIDE: Final = 100
_NAME: Final = 30
_LABELLED: Final = 46
#: Columns that are too few for a part of a text: it goes on in the next line.
_LITTLE: Final = 20
_ABBREVIATED: Final = {"configuration": "config"}

#: Properties that the heading shows, or that are of no use to people.
_LEFT_OUT: Final = ("content_type", "delivery_mode", "correlation_id", "reply_to")


def as_json(fields: Mapping[str, Any], *, body: bytes | None = None) -> dict[str, Any]:
    """The object that ``--json`` writes for a message.

    Args:
        fields: :func:`eda_tools.messages.delivery.fields`.
        body: shown if the message has no payload, because it is invalid.
    """
    found = dict(fields)
    if body is not None and "payload" not in found:
        found["body"] = body
    return found


def as_text(
    fields: Mapping[str, Any], *, payload: bool = True, body: bytes | None = None, time: str | None = None
) -> Text:
    """A message for people: kind, key and time in the first line, then its other parts, then the payload.

    Args:
        time: shown instead of the time at which it was received.
    """
    text = Text()
    kind = fields["kind"]
    text.append(f"{kind} ", style=STYLES.get(kind, ""))
    text.append(safe(fields["name"]), style="bold")
    append_status(text, fields.get("status"))
    text.append(f"  {_clock(fields['received']) if time is None else time}".rstrip(), style="dim")
    for name in ("conversation_id", "correlation_id", "reply_to", "error"):
        if fields.get(name):
            append_row(
                text, name.replace("_id", "").replace("_", " "), fields[name], "bold red" if name == "error" else ""
            )
    properties = {name: value for name, value in fields["properties"].items() if name not in _LEFT_OUT}
    headers = {name: value for name, value in fields["headers"].items() if name not in ("conversation_id", "status")}
    for name, value in (properties | headers).items():
        append_row(text, name, value if isinstance(value, str) else compact(value), "dim")
    if payload:
        text.append("\n")
        if "payload" in fields:
            text.append_text(payload_text(fields["payload"]))
        else:
            text.append(f"{len(body or b'')} bytes: {(body or b'')[:200]!r}", style="dim")
    return text


@dataclass(frozen=True, slots=True)
class Line:
    """A message in one line, for lists. On a narrow screen the line goes on, indented, below.

    Attributes:
        time: a text is shown as it is, of a time the time of day.
        service: who published it; "" if unknown.
        conversation: its beginning is shown.
        label: is shown behind the conversation, for example the name of a file.
        text: the end of the line. It is cut off where the line ends, if there is room for a part of it. That of a
            failure is shown whole.
        bad: whether the message tells of a failure.
    """

    time: datetime.datetime | str
    service: str
    kind: str
    name: str
    conversation: str
    text: str = ""
    status: str = ""
    label: str = ""
    bad: bool = False

    def drawn(self, width: int) -> Text:
        """The line for a screen of ``width`` columns. Unprintable characters are escaped."""
        wide = width >= _WIDE
        style = "bold red" if self.bad else STYLES.get(self.kind, "").removeprefix("bold ")
        cells = [
            Text(self.time if isinstance(self.time, str) else _clock(self.time), "dim"),
            Text(f"{safe(self.service) or '-':<12}", "bold"),
            Text(f"{_ABBREVIATED.get(self.kind, self.kind):<7}", style),
            Text(f"{safe(self.name):<{_NAME if wide else 0}}", style),
        ]
        if self.conversation or self.label:
            conversation = f"{safe(self.conversation)[:BEGINNING]} {safe(self.label)}".strip()
            cells.append(
                Text(f"{conversation:<{_LABELLED if wide and self.label and (self.text or self.status) else 0}}", "dim")
            )
        if self.status:
            cells.append(Text(safe(self.status), style="green" if self.status == SUCCESS else "bold red"))
        line = Text("  ").join(cells)
        if self.text:
            room = width - line.cell_len - 2
            whole = safe(self.text)
            text = whole if self.bad else shortened(whole, room if room >= _LITTLE else _SHORT)
            line = Text("  ").join((line, Text(text, style="bold red" if self.bad else "")))
        line.rstrip()
        return _folded(line, width)


def _folded(line: Text, width: int) -> Text:
    """``line`` in as many lines as it needs, of which all but the first are indented."""
    if line.cell_len <= width:
        return line
    console, indent = Console(width=width, color_system=None), " " * (14 if width >= 60 else 2)
    first = line.wrap(console, width)[0]
    rest = line[len(first) :]
    rest = rest[len(rest) - len(rest.plain.lstrip(" ")) :]
    return Text(f"\n{indent}").join((first, *rest.wrap(console, max(10, width - len(indent)))))


def as_line(fields: Mapping[str, Any], width: int, text: str | None = None, time: str | None = None) -> Text:
    """A message in one line: time, service, kind, key, conversation, and the beginning of the payload.

    Args:
        width: columns of the screen.
        text: shown instead of the payload.
        time: shown instead of the time at which it was received.
    """
    invalid = fields["kind"] == "invalid"
    if text is None:
        text = str(fields["error"]) if invalid else compact(fields["payload"])
    return Line(
        fields["received"] if time is None else time,
        str(fields["properties"].get("app_id") or ""),
        fields["kind"],
        fields["name"],
        fields.get("conversation_id") or "",
        text,
        fields.get("status") or "",
        bad=invalid,
    ).drawn(width)


def append_status(text: Text, status: object) -> None:
    """Append the status of a result, if there is one."""
    if status:
        text.append(f" {status}", style="green" if status == "success" else "bold red")


def summary(payload: Any) -> str:
    """The beginning of a payload in one line."""
    return shortened(safe(compact(payload)), _SHORT)


def payload_text(payload: Any) -> Text:
    """A payload as indented JSON. Values that JSON does not have are written as with ``--json``."""
    text = Text()
    for token, style in _tokens(jsonable(payload), ""):
        text.append(token, style=style)
    return text


def local(moment: datetime.datetime) -> datetime.datetime:
    """A time in the user's time zone, or as it is if it would be after the year 9999 there."""
    try:
        return moment.astimezone()
    except (OverflowError, ValueError, OSError):
        return moment


def local_time(moment: datetime.datetime) -> str:
    """Date and time in the user's time zone, with milliseconds."""
    return local(moment).isoformat(" ", "milliseconds")


def _clock(moment: datetime.datetime) -> str:
    return local(moment).strftime("%H:%M:%S.%f")[:-3]


def append_row(text: Text, name: str, value: object, style: str = "") -> None:
    """Append an indented line ``name: value``."""
    text.append(f"\n  {safe(name)}: ", style="dim").append(safe(value), style=style)


def compact(value: Any) -> str:
    """``value`` as JSON in one line."""
    return json.dumps(jsonable(value), ensure_ascii=False)


def shortened(text: str, length: int) -> str:
    """``text`` cut off, with an ellipsis, if it has more than ``length`` characters."""
    return text if len(text) <= length else f"{text[: length - 1]}…"


def _tokens(value: Any, indent: str) -> list[tuple[str, str]]:
    """``value`` as indented JSON, in pieces with their styles."""
    if isinstance(value, dict) and value:
        pieces: list[tuple[str, str]] = [("{\n", "")]
        for place, (key, item) in enumerate(value.items(), 1):
            pieces.append((f"{indent}  {_quoted(key)}", "blue"))
            pieces += [(": ", ""), *_tokens(item, f"{indent}  ")]
            pieces.append(("\n" if place == len(value) else ",\n", ""))
        return [*pieces, (f"{indent}}}", "")]
    if isinstance(value, list) and value:
        pieces = [("[\n", "")]
        for place, item in enumerate(value, 1):
            pieces += [(f"{indent}  ", ""), *_tokens(item, f"{indent}  ")]
            pieces.append(("\n" if place == len(value) else ",\n", ""))
        return [*pieces, (f"{indent}]", "")]
    if isinstance(value, str):
        return [(_quoted(value), "green")]
    return [(json.dumps(value), "cyan")]


def _quoted(text: str) -> str:
    return safe(json.dumps(text, ensure_ascii=False))
