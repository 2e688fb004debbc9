"""``monitor.py [--events [E ...]] [--commands [C ...]] [--configurations [C ...]] amqp_url``: show what passes.

This module decides which messages are shown and in which form; :mod:`eda_tools.bus.service` receives them.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from rich.live import Live

from eda_core.messages.codec import CBOR, JSON
from eda_tools.bus.watch import Fields, matching, warn_of_stars, watch_options
from eda_tools.cli.arguments import url_argument
from eda_tools.cli.output import Output
from eda_tools.cli.status import DONE
from eda_tools.cli.tool import Tool
from eda_tools.messages import show
from eda_tools.messages.delivery import Delivery, is_of
from eda_tools.messages.payloads import write_new, write_payload
from eda_tools.messages.rates import Statistics
from eda_tools.messages.recording import Recorder
from eda_tools.messages.where import COMPARISONS, MISSING, follow

_EXCHANGES = ("events", "commands", "configurations")


def _field(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise argparse.ArgumentTypeError(f"{text!r} is not FIELD=VALUE")
    return name, value


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the tool."""
    url_argument(parser)
    for exchange, what in zip(_EXCHANGES, ("events", "commands and results", "configurations"), strict=True):
        parser.add_argument(
            f"--{exchange}",
            nargs="*",
            metavar=exchange[0].upper(),
            help=f"binding keys of {what}; * is one word, # any number (default: all if none of the three is given)",
        )
    parser.add_argument(
        "--filter_fields",
        nargs="*",
        type=_field,
        default=[],
        metavar="K=V",
        help="only messages whose payload has these values, such as client_id=123; a value is text or JSON",
    )
    parser.add_argument(
        "--conversation",
        metavar="ID",
        help="only this conversation; the first 8 characters of its id, or more, are enough",
    )
    parser.add_argument(
        "--full", action="store_true", help="show each message whole, in many lines: all properties, headers, payload"
    )
    parser.add_argument(
        "--save",
        nargs="?",
        const=".",
        metavar="DIR",
        help="save payloads to files in DIR (default: here) instead of showing them",
    )
    parser.add_argument("--record", metavar="FILE", help="append the messages to a recording, for trace and topology")
    parser.add_argument("--stats", action="store_true", help="show rates by key instead of messages")
    watch_options(parser, json="one JSON object per line; with --save, files are JSON instead of CBOR")


async def run(args: argparse.Namespace, output: Output) -> int:
    """Show the messages."""
    from eda_tools.bus.service import watching

    asked = [getattr(args, name) for name in _EXCHANGES]
    keys: list[list[str]] = [["#"] if asked == [None] * 3 else each or [] for each in asked]
    events, commands, configurations = keys
    warn_of_stars(itertools.chain(*keys), output)
    with contextlib.ExitStack() as stack:
        recorder = stack.enter_context(Recorder(args.record)) if args.record else None
        async with watching(
            args.urls, "monitor", output, events=events, commands=commands, configurations=configurations
        ) as watch:
            watched = ", ".join(f"{name} {' '.join(each)}" for name, each in zip(_EXCHANGES, keys, strict=True) if each)
            output.note(f"watching {watched or 'nothing'}; Ctrl-C ends")
            see = stack.enter_context(_statistics(output)) if args.stats else _shower(args, output)
            async for delivery, found in matching(watch, args, _selector(args)):
                if recorder is not None:
                    recorder.write(delivery, found["kind"])
                see(delivery, found)
    return DONE


def _selector(args: argparse.Namespace) -> Callable[[Fields], bool]:
    def wanted(found: Fields) -> bool:
        if args.conversation is not None and not is_of(found, args.conversation):
            return False
        return all(_has(found, name, value) for name, value in args.filter_fields)

    return wanted


def _has(found: Fields, name: str, wanted: str) -> bool:
    """Whether the payload has the value ``wanted`` under the key ``name``, or at the end of that dotted path."""
    payload = found.get("payload")
    if not isinstance(payload, dict):
        return False
    value = payload[name] if name in payload else follow(tuple(name.split(".")), payload, MISSING)
    if COMPARISONS["=="](value, wanted):
        return True
    try:
        return COMPARISONS["=="](value, json.loads(wanted))
    except ValueError:
        return False


@contextlib.contextmanager
def _statistics(output: Output) -> Iterator[Callable[[Delivery, Fields], None]]:
    """Show rates: live on a terminal, otherwise once at the end, also after an error."""
    statistics = Statistics()

    def see(_delivery: Delivery, found: Fields) -> None:
        statistics.add(found)

    if output.json or not output.drawable:
        try:
            yield see
        finally:
            if output.json:
                for row in statistics.rows():
                    output.record(row)
            else:
                output.print(statistics.table())
    else:
        with Live(get_renderable=statistics.table, console=output.out, refresh_per_second=2):
            yield see


def _shower(args: argparse.Namespace, output: Output) -> Callable[[Delivery, Fields], None]:
    def see(delivery: Delivery, found: Fields) -> None:
        saved = _save(args, delivery, found) if args.save else None
        if output.json:
            shown: dict[str, Any] = show.as_json(found, body=delivery.body)
            output.record(shown if saved is None else {**shown, "saved": str(saved)})
        elif args.full:
            text = show.as_text(found, payload=saved is None, body=delivery.body)
            output.print(text.append(f"\n  payload saved as {saved}") if saved is not None else text)
            output.print()
        else:
            text = show.as_line(found, output.out.width, None if saved is None else f"saved as {saved}")
            output.print(text)

    return see


def _save(args: argparse.Namespace, delivery: Delivery, found: Fields) -> Path:
    name = f"{found['name']}-result" if found["kind"] == "result" else found["name"]
    stem = f"{name}.{found['conversation_id'] or 'na'}"
    if "payload" not in found:
        return write_new(Path(args.save), stem, "bin", delivery.body)
    return write_payload(Path(args.save), stem, found["payload"], JSON if args.json else CBOR)


TOOL = Tool(
    "monitor",
    "Show events, commands, results and configurations as they pass, without consuming them.",
    arguments,
    run,
    "While it runs, the broker has a queue for every message, so that publishers do not learn that one is unroutable.",
    examples=(
        "eda monitor",
        "eda monitor --events TranscriptReady 'Call.*' --where 'payload.duration > 60'",
        "eda monitor --conversation 6ecd5dd7 --record calls.cbor",
        "eda monitor --json --count 1 --events TranscriptReady --timeout 60 > first.json",
    ),
)
main: Final = TOOL.main

if __name__ == "__main__":
    sys.exit(main())
