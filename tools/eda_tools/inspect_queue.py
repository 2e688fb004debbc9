"""``inspect_queue.py [--count COUNT] [--save] amqp_url queue``: show a queue without consuming it.

This module shows the messages; :mod:`eda_tools.bus.queues` reads them and gives them back.
"""

from __future__ import annotations

import argparse
import datetime
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from rich.text import Text

from eda_core.messages.headers import ATTEMPT, ERRORS, ORIGIN_EXCHANGE, ORIGIN_ROUTING_KEY
from eda_core.testing.deaths import DEATH_HEADERS, Death, attempts, deaths, died_at, error_of, place_of_death
from eda_tools.cli.arguments import common_options, natural, url_argument
from eda_tools.cli.output import Output, safe
from eda_tools.cli.status import DONE
from eda_tools.cli.tool import Tool
from eda_tools.dead_letters.groups import GROUPS, Groups, last_moment
from eda_tools.messages import show
from eda_tools.messages.delivery import Delivery, fields
from eda_tools.messages.payloads import EXTENSION, write_new
from eda_tools.messages.where import where_option

#: The headers of the copies of a failed message. What they say is shown in words.
_OF_COPIES: Final = (ATTEMPT, ORIGIN_EXCHANGE, ORIGIN_ROUTING_KEY, *ERRORS)

Fields = dict[str, Any]
See = Callable[[int, Delivery, Fields], None]


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the tool."""
    url_argument(parser)
    parser.add_argument("queue", help="name of the queue")
    parser.add_argument(
        "--count", type=natural, default=0, help="show so many messages, from the head (default: 0 = all there are)"
    )
    parser.add_argument(
        "--save",
        nargs="?",
        const=".",
        metavar="DIR",
        help="save payloads in their original format to files in DIR (default: here) instead of showing them",
    )
    parser.add_argument("--headers-only", action="store_true", help="show no payloads")
    where_option(parser)
    parser.add_argument(
        "--group-by",
        choices=tuple(GROUPS),
        help="only count messages: by routing key, reason of death, error of the service, or age",
    )
    parser.add_argument(
        "--force", action="store_true", help="also from quorum queues, although reading spends delivery attempts"
    )
    common_options(parser)


async def run(args: argparse.Namespace, output: Output) -> int:
    """Show the queue."""
    from eda_tools.bus.connect import session
    from eda_tools.bus.queues import CLASSIC, reading, safe_to_read

    groups = Groups(args.group_by) if args.group_by else None
    see = _counter(groups) if groups is not None else _shower(args, output)
    async with session(args.urls, "inspect_queue", output) as broker:
        kind, found = await safe_to_read(broker, args.queue, output, force=args.force)
        if not found.message_count:
            output.note(f"no message waits in {args.queue!r}{_taken(found.consumer_count)}")
            return DONE
        if kind == CLASSIC:
            output.note(
                "each message read will be marked as redelivered, which only services of eventail take for a failure"
                f"{_taken(found.consumer_count)}"
            )
        output.doing = f"reading {args.queue!r}"
        shown = read = 0
        async with reading(broker, args.queue, force=args.force) as reader:
            while read < found.message_count and (not args.count or shown < args.count):
                wanted = found.message_count - read
                if args.count and args.where is None:
                    wanted = min(wanted, args.count - shown)
                got = await reader.next(wanted)
                if got is None:
                    break
                read += 1
                parts = fields(got[1])
                if args.where is None or args.where(parts):
                    shown += 1
                    see(read, got[1], parts)
            if groups is not None:
                _show_groups(groups, output)
    output.note(f"{shown} shown of {found.message_count} in {args.queue!r}; {_back(read, reader.missing)}")
    return DONE


def _back(read: int, missing: int) -> str:
    if not missing:
        return f"all {read} that were read are back"
    return (
        f"{missing} of the {read} that were read are not seen in it again: others took them, they expired, or the "
        "broker has not put them back yet"
    )


def _taken(consumers: int | None) -> str:
    if not consumers:
        return ""
    return f"; {consumers} consumer{' takes' if consumers == 1 else 's take'} messages from it meanwhile"


def _counter(groups: Groups) -> See:
    return lambda _position, delivery, _found: groups.add(delivery)


def _show_groups(groups: Groups, output: Output) -> None:
    if not output.json:
        return output.print(groups.table())
    for row in groups.rows():
        output.record(row)
    return None


def _shower(args: argparse.Namespace, output: Output) -> See:
    def see(position: int, delivery: Delivery, found: Fields) -> None:
        saved = _save(Path(args.save), delivery, found) if args.save else None
        if output.json:
            output.record(_object(position, delivery, found, saved, payload=not args.headers_only))
        else:
            output.print(_text(position, delivery, found, saved, payload=not args.headers_only))
            output.print()

    return see


def _save(directory: Path, delivery: Delivery, found: Fields) -> Path:
    kind = (delivery.properties.content_type or "").partition(";")[0].strip().lower()
    stem = f"{found['name']}.{found['conversation_id'] or 'na'}"
    return write_new(directory, stem, EXTENSION.get(kind, "bin"), delivery.body)


def _object(position: int, delivery: Delivery, found: Fields, saved: Path | None, *, payload: bool) -> dict[str, Any]:
    made = {"position": position, **show.as_json(found, body=delivery.body)}
    if not payload or saved is not None:
        made.pop("payload", None)
        made.pop("body", None)
    death = place_of_death(delivery.headers)
    if death is not None:
        made["death"] = {
            "queue": death.queue,
            "reason": death.reason,
            "time": died_at(delivery.headers),
            "count": sum(each.count for each in deaths(delivery.headers) if each.waited is None),
        }
    tried = attempts(delivery.headers)
    if tried is not None:
        made["attempts"] = tried
    if saved is not None:
        made["saved"] = str(saved)
    return made


def _text(position: int, delivery: Delivery, found: Fields, saved: Path | None, *, payload: bool) -> Text:
    """The envelope, how often it was tried, a line for each death, the size, and the payload."""
    tried = attempts(delivery.headers)
    known = () if tried is None else _OF_COPIES
    headers = {
        name: value
        for name, value in found["headers"].items()
        if not name.startswith(DEATH_HEADERS) and name not in known
    }
    text = Text().append(f"{position}. ", style="dim")
    text.append_text(show.as_text({**found, "headers": headers}, payload=False, time=last_moment(delivery)))
    exchange = found["exchange"] or "the default exchange"
    show.append_row(text, "published", f"to {exchange} with the key {found['routing_key']}")
    found_deaths = deaths(delivery.headers)
    waits = [death for death in found_deaths if death.waited is not None]
    ends = [death for death in found_deaths if death.waited is None]
    if tried is not None:
        show.append_row(text, "tried", "once" if tried == 1 else f"{tried} times")
    for death in waits:
        which = "last" if ends else "next"
        show.append_row(text, "waited", f"in {death.queue} before its {which} attempt{_until(death)}")
    for death in ends:
        times = "" if death.count == 1 else f", {death.count} times"
        when = "" if death.time is None else f" at {_shown(death.time)}"
        show.append_row(text, "died", f"{death.reason} in {death.queue}{when}{times}", "red")
    error = error_of(delivery.headers)
    if error is not None:
        show.append_row(text, "error", f"{error.text} (in {error.service})", "red")
        for line in error.traceback.splitlines():
            text.append(f"\n    {safe(line)}", style="dim")
    show.append_row(text, "size", f"{found['size']} bytes{', redelivered' if found['redelivered'] else ''}")
    if saved is not None:
        show.append_row(text, "saved", f"as {saved}")
    elif payload and "payload" in found:
        text.append("\n").append_text(show.payload_text(found["payload"]))
    elif payload:
        text.append(f"\n{delivery.body[:200]!r}", style="dim")
    return text


def _until(death: Death) -> str:
    return "" if death.time is None else f", until {_shown(death.time)}"


def _shown(time: datetime.datetime) -> str:
    return show.local_time(time)[:19]


TOOL = Tool(
    "inspect_queue",
    "Show the messages that wait in a queue without consuming them. They are held while the tool runs, then given back "
    "to their places, whatever ends it.",
    arguments,
    run,
    "On classic queues reading sets the flag 'redelivered'. On quorum queues, of RabbitMQ 4.3 as well, it counts "
    "towards the delivery limit, after which the broker gives a message up, so they are "
    "refused (status 2) without --force. Messages that consumers have, or take meanwhile, are not shown.",
    examples=(
        "eda inspect_queue dead-letters --group-by reason",
        "eda inspect_queue dead-letters --group-by error",
        "eda inspect_queue dead-letters --count 3",
        "eda inspect_queue dead-letters --where 'payload.client_id == 123' --json",
    ),
)
main: Final = TOOL.main

if __name__ == "__main__":
    sys.exit(main())
