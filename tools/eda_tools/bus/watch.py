"""Decides for ``monitor``, ``logger`` and ``trace`` which messages to show and when to end, not how to show them."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from typing import TYPE_CHECKING, Any

from eda_tools.cli.arguments import common_options, positive, seconds
from eda_tools.cli.output import Output
from eda_tools.cli.status import TIMED_OUT, ToolError
from eda_tools.messages.delivery import Delivery, fields
from eda_tools.messages.where import where_option

if TYPE_CHECKING:
    from eda_tools.bus.service import Watch

Fields = dict[str, Any]


def watch_options(parser: argparse.ArgumentParser, json: str) -> None:
    """Add ``--where``, ``--count``, ``--idle-timeout`` and the common options."""
    where_option(parser)
    parser.add_argument("--count", type=positive, metavar="N", help="end when so many messages have been shown")
    parser.add_argument(
        "--idle-timeout",
        type=seconds,
        metavar="SECONDS",
        help="end when nothing has been shown for so long; with --count, the status is then 124",
    )
    common_options(parser, json=json)


def warn_of_stars(keys: Iterable[str], output: Output) -> None:
    """Note the keys in which ``*`` or ``#`` are probably meant as wildcards but are not."""
    for key in keys:
        if any(len(word) > 1 and set(word) & set("*#") for word in key.split(".")):
            output.note(f"in {key}, * and # stand for whole words only, between dots; for parts of words use --where")


async def matching(
    watch: Watch, args: argparse.Namespace, wanted: Callable[[Fields], bool]
) -> AsyncIterator[tuple[Delivery, Fields]]:
    """Yield the messages to show until it is time to end.

    Raises:
        ToolError: ``--idle-timeout`` was over before there were ``--count`` messages (status 124).
    """
    clock = asyncio.get_running_loop().time
    shown, quiet_since = 0, clock()
    while shown != args.count:
        left = None if args.idle_timeout is None else quiet_since + args.idle_timeout - clock()
        delivery = None if left is not None and left <= 0 else await watch.next(left)
        if delivery is None:
            if args.count is None:
                return
            raise ToolError(f"{shown} of {args.count} came, then nothing for {args.idle_timeout:g} s", TIMED_OUT)
        found = fields(delivery)
        if wanted(found) and (args.where is None or args.where(found)):
            shown, quiet_since = shown + 1, clock()
            yield delivery, found
