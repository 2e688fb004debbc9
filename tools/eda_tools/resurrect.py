"""``resurrect.py [--count COUNT] [--batch_size N] [--filter NAME ...] amqp_url queue``: send dead letters again."""

from __future__ import annotations

import argparse
import contextlib
import re
import sys
from typing import Any, Final

from eda_core.messages.routing import TopicPattern
from eda_tools.bus.confirming import Publisher
from eda_tools.bus.connect import session
from eda_tools.bus.queues import reading, safe_to_read
from eda_tools.cli.arguments import common_options, natural, positive, rate, url_argument
from eda_tools.cli.output import Output
from eda_tools.cli.status import DONE, FAILED, PARTLY, USAGE, ToolError
from eda_tools.cli.tool import Tool
from eda_tools.dead_letters.backup import Backup
from eda_tools.dead_letters.replay import Resurrection, Tally
from eda_tools.dead_letters.republish import EXCHANGE, QUEUE, Reviver, change, user_of
from eda_tools.messages.deaths import died_at, place_of_death, published
from eda_tools.messages.delivery import Delivery, fields, now
from eda_tools.messages.where import where

_UNITS: Final = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400}


def _duration(text: str) -> float:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd]?)", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time such as 90s, 30m, 12h or 7d")
    return float(match[1]) * _UNITS[match[2]]


def _pattern(text: str) -> TopicPattern:
    return TopicPattern(text)


def arguments(parser: argparse.ArgumentParser) -> None:
    """Its arguments."""
    url_argument(parser)
    parser.add_argument("queue", help="name of the queue of dead letters")
    parser.add_argument(
        "--count", type=natural, default=0, help="send at most so many, from the head (default: 0 = all there are now)"
    )
    parser.add_argument(
        "--batch_size",
        type=positive,
        default=1,
        metavar="N",
        help="send so many before waiting for confirms: faster, and so many may be doubled if it is killed "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--filter",
        nargs="*",
        type=_pattern,
        metavar="NAME",
        help="only events and commands of these names; * is one word, # any number (default: all)",
    )
    parser.add_argument(
        "--where",
        type=where,
        metavar="CONDITION",
        help="only messages for which it holds, such as 'payload.client_id == 123'; see docs/tools.rst",
    )
    parser.add_argument("--reason", help="only those that died for it: rejected, expired, maxlen or delivery_limit")
    parser.add_argument(
        "--older-than", type=_duration, metavar="TIME", help="only those that died so long ago: 90s, 30m, 12h, 7d"
    )
    parser.add_argument(
        "--to",
        choices=(EXCHANGE, QUEUE),
        default=EXCHANGE,
        help="exchange: with the original routing key to the original exchange, so that every subscriber sees it "
        "again; queue: only to the queue where it died, which services on eventail do not understand "
        "(default: %(default)s)",
    )
    parser.add_argument("--dry-run", action="store_true", help="only show what would be sent")
    parser.add_argument("--rate", type=rate, metavar="N", help="at most so many per second")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        type=change,
        metavar="payload.PATH=VALUE",
        help="change the payload of what is sent; the value is JSON, or else text; repeatable",
    )
    parser.add_argument("--no-expiration", action="store_true", help="send without the expiration that the message had")
    parser.add_argument(
        "--backup", metavar="FILE", help="append each dead letter, as it is, to this recording before it is sent"
    )
    parser.add_argument(
        "--force", action="store_true", help="also quorum queues, on which giving back spends delivery attempts"
    )
    common_options(parser, json="one JSON object per message that was to be sent, and one with the numbers at the end")


async def run(args: argparse.Namespace, output: Output) -> int:
    """Send them."""
    if args.filter == []:
        raise ToolError("--filter comes without a name", USAGE)
    tally = Tally(output, dry_run=args.dry_run)
    try:
        await _resurrect(args, output, tally)
    except ToolError as error:
        if tally.replayed and error.status == FAILED:
            raise ToolError(f"{error}; {tally.replayed} were sent again before", PARTLY) from error
        raise
    if tally.failed:
        text = f"{tally.failed} of {tally.failed + tally.replayed} could not be sent; they are where they were"
        raise ToolError(text, PARTLY)
    return DONE


async def _resurrect(args: argparse.Namespace, output: Output, tally: Tally) -> None:
    with contextlib.ExitStack() as stack:
        backup = stack.enter_context(Backup(args.backup)) if args.backup and not args.dry_run else None
        # Two connections: in an alarm the broker reads nothing, and so no acknowledgement, from one that publishes.
        async with session(args.urls, "resurrect", output) as broker:
            _, found = await safe_to_read(broker, args.queue, output, force=args.force)
            stack.callback(tally.show)
            tally.snapshot = found.message_count or 0
            async with session((broker.url,), "resurrect", output) as publishing:
                reviver = Reviver(args.to, args.queue, user_of(broker.url), args.set, not args.no_expiration)
                async with reading(broker, args.queue, force=args.force) as reader:
                    publisher = Publisher(publishing)
                    work = Resurrection(args, output, broker, reader, publisher, reviver, backup, tally)
                    await work.run(_selector(args))


def _selector(args: argparse.Namespace) -> Any:
    started = now()

    def wanted(delivery: Delivery) -> bool:
        if args.filter is not None:
            origin = published(delivery.headers, delivery.routing_key)
            name = delivery.routing_key if origin is None else origin[1]
            if not any(pattern.matches(name) for pattern in args.filter):
                return False
        if args.reason is not None:
            death = place_of_death(delivery.headers)
            if death is None or death.reason != args.reason:
                return False
        if args.older_than is not None:
            died = died_at(delivery.headers)
            if died is None or (started - died).total_seconds() < args.older_than:
                return False
        return args.where is None or bool(args.where(fields(delivery)))

    return wanted


TOOL = Tool(
    "resurrect",
    "Send dead letters again, as they were published first, and take each from its queue when the broker has confirmed "
    "that a queue has its copy.",
    arguments,
    run,
    "Only the dead letters that are there at the beginning are looked at. Those that are not wanted, or cannot be "
    "sent, stay in their places. Whatever ends this tool, be it kill -9, none is lost; those of the last batch may be "
    "sent once more by the next run.",
)
main = TOOL.main

if __name__ == "__main__":
    sys.exit(main())
