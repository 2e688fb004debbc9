"""``logger.py [--filter [FILTER ...]] amqp_url``: show selected logs as they are written.

This module decides which records are shown and in which form; :mod:`eda_tools.bus.service` receives them.
"""

from __future__ import annotations

import argparse
import datetime
import fnmatch
import math
import sys
from collections.abc import Mapping
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

    keys = args.filter or ["#"]
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
                output.print(as_text(found))
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


def as_text(found: Fields) -> Text:
    """A GELF record for people: time, level, service and short message in one line, its other fields below."""
    record: Mapping[str, Any] = found["payload"]
    service, level = _source(found)
    text = Text().append(f"{_time(record.get('timestamp'), found['received'])} ", style="dim")
    label = str(record.get("_levelname") or (LABELS[level] if level is not None else "?"))
    text.append(f"{safe(label):<9}", style=_STYLES[level] if level is not None else "bold")
    text.append(f" {safe(service)} ", style="bold")
    text.append(safe(record.get("short_message", "")), style=_STYLES[level] if level is not None and level < 5 else "")
    if record.get("_conversation_id"):
        text.append(f"\n    conversation: {safe(record['_conversation_id'])}", style="dim")
    if record.get("host"):
        text.append(f"\n    from: {safe(record['host'])} pid {safe(record.get('_worker_pid', '?'))}", style="dim")
    for name, value in record.items():
        if name not in _LAID_OUT:
            shown = value if isinstance(value, str) else str(jsonable(value))
            _indented(text, f"{name.removeprefix('_')}: {shown}", "dim")
    if record.get("full_message"):
        _indented(text, str(record["full_message"]), "")
    return text


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
