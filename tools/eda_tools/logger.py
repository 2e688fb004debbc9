"""``logger.py [--filter [FILTER ...]] amqp_url``: show selected logs as they are written.

This module decides which records are shown and in which form; :mod:`eda_tools.bus.service` receives them.
"""

from __future__ import annotations

import argparse
import datetime
import fnmatch
import math
import sys
from collections import OrderedDict
from collections.abc import Collection, Mapping
from typing import Any, Final

from rich.text import Text

from eda_core.criticality import LABELS
from eda_tools.bus.watch import Fields, matching, warn_of_stars, watch_options
from eda_tools.cli.arguments import url_argument
from eda_tools.cli.output import Output, jsonable, safe
from eda_tools.cli.status import DONE
from eda_tools.cli.tool import Tool
from eda_tools.messages import show

_STYLES: Final = ("bold white on red", "bold white on red", "bold red", "red", "yellow", "cyan", "green", "dim")
#: How many long messages are remembered.
_REMEMBERED: Final = 200
#: Fields that are shown in fixed places, or that are of no use to people.
_LAID_OUT: Final = (
    "version",
    "host",
    "short_message",
    "full_message",
    "timestamp",
    "level",
    "_levelname",
    "_conversation_id",
    "_logical_service",
    "_worker_pid",
)


def _level(text: str) -> int:
    if text.upper() in LABELS:
        return LABELS.index(text.upper())
    if text.isdecimal() and int(text) < len(LABELS):
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is none of {', '.join(LABELS)}")


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the tool."""
    url_argument(parser)
    parser.add_argument(
        "--filter",
        nargs="*",
        default=[],
        help="binding keys, service.LEVEL; * is one word, # any number (default: all)",
    )
    parser.add_argument("--level", type=_level, metavar="LEVEL", help=f"only this level and graver: {' '.join(LABELS)}")
    parser.add_argument("--service", metavar="PATTERN", help="only these services; * is any text: 'trans*'")
    watch_options(parser, json="the unchanged records, one line of JSON each")


async def run(args: argparse.Namespace, output: Output) -> int:
    """Show the records."""
    from eda_tools.bus.service import watching

    def wanted(found: Fields) -> bool:
        service, level = _source(found)
        if args.service is not None and not fnmatch.fnmatchcase(service, args.service):
            return False
        return args.level is None or level is None or level <= args.level

    keys, layout = args.filter or ["#"], Layout()
    warn_of_stars(keys, output)
    async with watching(args.urls, "logger", output, logs=keys) as watch:
        output.note(f"watching logs {' '.join(keys)}; Ctrl-C ends")
        async for delivery, found in matching(watch, args, wanted):
            record = found.get("payload")
            if not isinstance(record, dict):
                shown = show.as_json(found, body=delivery.body)
                output.record(shown) if output.json else output.print(show.as_text(found, body=delivery.body))
            elif output.json:
                output.record(record)
            else:
                output.print(layout.text(found))
    return DONE


def _source(found: Fields) -> tuple[str, int | None]:
    """The service that logged, and the level (``None`` if it is not known)."""
    service, _, label = str(found["name"]).rpartition(".")
    if label not in LABELS:
        service = found["name"]
    record = found.get("payload")
    if not isinstance(record, Mapping):
        record = {}
    named, level = record.get("_logical_service"), record.get("level")
    if type(level) is not int or not 0 <= level < len(LABELS):
        level = LABELS.index(label) if label in LABELS else None
    return (named if isinstance(named, str) and named else service), level


class Layout:
    """Lays out GELF records for people. It shows a long message once.

    A service logs a failure with its traceback at each attempt, and once more when it gives up. Of a record that
    repeats the full message of an earlier one of its service and conversation, only what is different is shown.

    Args:
        without: names of fields that are not shown.
    """

    def __init__(self, without: Collection[str] = ()) -> None:
        self._without = without
        #: By service, conversation and full message: the time and the other fields of the record that was shown.
        self._shown: OrderedDict[tuple[str, str, str], tuple[str, dict[str, str]]] = OrderedDict()

    def text(self, found: Fields) -> Text:
        """Time, level, service and short message in one line, the other fields below."""
        record: Mapping[str, Any] = found["payload"]
        service, level = _source(found)
        time = _time(record.get("timestamp"), found["received"])
        text = Text().append(f"{time} ", style="dim")
        label = str(record.get("_levelname") or (LABELS[level] if level is not None else "?"))
        text.append(f"{safe(label):<9}", style=_STYLES[level] if level is not None else "bold")
        text.append(f" {safe(service)} ", style="bold")
        style = _STYLES[level] if level is not None and level < 5 else ""
        text.append(safe(record.get("short_message", "")), style=style)
        fields, full = _fields(record), str(record.get("full_message") or "")
        key = service, str(record.get("_conversation_id") or ""), full
        before, known = self._shown.get(key, ("", dict[str, str]()))
        for name, value in fields.items():
            if known.get(name) != value and name not in self._without:
                _indented(text, f"{name}: {value}", "dim")
        if before:
            _indented(text, f"the rest is as at {before}", "dim")
        elif full:
            _indented(text, full, "")
            self._shown[key] = time, fields
            if len(self._shown) > _REMEMBERED:
                self._shown.popitem(last=False)
        return text


def _fields(record: Mapping[str, Any]) -> dict[str, str]:
    """The fields of a record that stand below its first line, as text."""
    found = {}
    if record.get("_conversation_id"):
        found["conversation"] = str(record["_conversation_id"])
    if record.get("host"):
        found["from"] = f"{record['host']} pid {record.get('_worker_pid', '?')}"
    for name, value in record.items():
        if name not in _LAID_OUT:
            found[name.removeprefix("_")] = value if isinstance(value, str) else str(jsonable(value))
    return found


def _indented(text: Text, block: str, style: str) -> None:
    for line in block.rstrip("\n").split("\n"):
        text.append(f"\n    {safe(line)}", style=style)


def _time(timestamp: object, received: datetime.datetime) -> str:
    if isinstance(timestamp, (int, float)) and math.isfinite(timestamp):
        try:
            return show.local_time(datetime.datetime.fromtimestamp(timestamp, datetime.UTC))
        except (ValueError, OverflowError, OSError):
            pass
    return show.local_time(received)


TOOL = Tool(
    "logger",
    "Show logs as they are written, selected by key, level and service.",
    arguments,
    run,
    examples=(
        "eda logger --level WARNING",
        "eda logger --service 'trans*' --filter '*.ERROR'",
        "eda logger --where 'payload._conversation_id == \"7d5f\"'",
    ),
)
main: Final = TOOL.main

if __name__ == "__main__":
    sys.exit(main())
