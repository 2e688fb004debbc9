"""``resurrect.py [--count COUNT] [--batch_size N] [--filter NAME ...] amqp_url queue``: send dead letters again.

This module decides which dead letters are wanted; :mod:`eda_tools.dead_letters.replay` does the work.
"""

from __future__ import annotations

import argparse
import contextlib
import re
import sys
from typing import Any, Final

from eda_core.testing.deaths import died_at, place_of_death, published
from eda_tools.bus.confirming import Publisher
from eda_tools.bus.connect import session
from eda_tools.bus.queues import reading, safe_to_read
from eda_tools.cli.arguments import check_filter, common_options, filter_option, natural, positive, rate, url_argument
from eda_tools.cli.output import Output
from eda_tools.cli.status import DONE, FAILED, PARTLY, ToolError
from eda_tools.cli.tool import Tool
from eda_tools.dead_letters.backup import Backup
from eda_tools.dead_letters.replay import Outcomes, Replay
from eda_tools.dead_letters.republish import EXCHANGE, QUEUE, CopyRules, change, user_of
from eda_tools.messages.delivery import Delivery, fields, now
from eda_tools.messages.where import where_option

_UNITS: Final = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400}


def _duration(text: str) -> float:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd]?)", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time such as 90s, 30m, 12h or 7d")
    return float(match[1]) * _UNITS[match[2]]


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the tool."""
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
        help="send so many before waiting for confirms: more are faster, but so many may be sent twice if the tool is "
        "killed (default: %(default)s)",
    )
    filter_option(parser, "events and commands")
    where_option(parser)
    parser.add_argument(
        "--reason", help="only messages that died for this reason: rejected, expired, maxlen or delivery_limit"
    )
    parser.add_argument(
        "--older-than",
        type=_duration,
        metavar="TIME",
        help="only messages that died longer ago than this: 90s, 30m, 12h, 7d",
    )
    parser.add_argument(
        "--to",
        choices=(EXCHANGE, QUEUE),
        default=EXCHANGE,
        help="exchange: to the original exchange with the original routing key, so that every subscriber gets the "
        "message again; queue: only to the queue in which it died, which services written with eventail do not "
        "understand (default: %(default)s)",
    )
    parser.add_argument("--dry-run", action="store_true", help="only show what would be sent")
    parser.add_argument("--rate", type=rate, metavar="N", help="at most so many per second")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        type=change,
        metavar="payload.PATH=VALUE",
        help="change the payload before sending; the value is JSON, or else text; repeatable",
    )
    parser.add_argument("--no-expiration", action="store_true", help="send without the expiration that the message had")
    parser.add_argument(
        "--backup", metavar="FILE", help="append each dead letter, unchanged, to this recording before it is sent"
    )
    parser.add_argument(
        "--force", action="store_true", help="also from quorum queues, although giving back spends delivery attempts"
    )
    common_options(parser, json="one JSON object per message to be sent, and one with the totals at the end")


async def run(args: argparse.Namespace, output: Output) -> int:
    """Send the dead letters that are wanted."""
    check_filter(args)
    outcomes = Outcomes(output, dry_run=args.dry_run)
    try:
        await _resurrect(args, output, outcomes)
    except ToolError as error:
        if outcomes.replayed and error.status == FAILED:
            raise ToolError(f"{error}; {outcomes.replayed} were sent again before", PARTLY) from error
        raise
    if outcomes.failed:
        text = (
            f"{outcomes.failed} of {outcomes.failed + outcomes.replayed} could not be sent; they are still in the queue"
        )
        raise ToolError(text, PARTLY)
    return DONE


async def _resurrect(args: argparse.Namespace, output: Output, outcomes: Outcomes) -> None:
    with contextlib.ExitStack() as stack:
        backup = stack.enter_context(Backup(args.backup)) if args.backup and not args.dry_run else None
        # Two connections: in an alarm the broker reads nothing, also no acknowledgements, from one that publishes.
        async with session(args.urls, "resurrect", output) as broker:
            _, found = await safe_to_read(broker, args.queue, output, force=args.force)
            stack.callback(outcomes.show)
            outcomes.snapshot = found.message_count or 0
            async with session((broker.url,), "resurrect", output) as publishing:
                rules = CopyRules(args.to, args.queue, user_of(broker.url), args.set, not args.no_expiration)
                async with reading(broker, args.queue, force=args.force) as reader:
                    publisher = Publisher(publishing)
                    work = Replay(args, output, broker, reader, publisher, rules, backup, outcomes)
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
    "Send dead letters again as they were first published. Each leaves its queue when the broker has confirmed that a "
    "queue has its copy.",
    arguments,
    run,
    "Only dead letters that are in the queue at the beginning are looked at. Those that are not wanted, or cannot be "
    "sent as they were (such as those with a property that is not UTF-8), stay in their places. Whatever ends it, "
    "also kill -9, no dead letter is lost; the next run may send those of the last batch once more.",
    examples=(
        "eda resurrect dead-letters --filter TranscriptReady --dry-run",
        "eda resurrect dead-letters --reason rejected --older-than 1h --rate 20 --backup before.cbor",
        "eda resurrect dead-letters --set payload.client_id=123 --count 1",
    ),
)
main: Final = TOOL.main

if __name__ == "__main__":
    sys.exit(main())
