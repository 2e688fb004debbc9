"""What ``monitor`` and ``logger`` have in common: which messages to show, and when to end."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from typing import TYPE_CHECKING, Any

from eda_tools.cli.arguments import common_options, positive, seconds
from eda_tools.cli.output import Output
from eda_tools.cli.status import TIMED_OUT, ToolError
from eda_tools.messages.delivery import Delivery, fields
from eda_tools.messages.where import where

if TYPE_CHECKING:
    from eda_tools.bus.service import Watch

Fields = dict[str, Any]


def watch_options(parser: argparse.ArgumentParser, json: str) -> None:
    """Add ``--where``, ``--count``, ``--idle-timeout`` and the common options."""
    parser.add_argument(
        "--where",
        type=where,
        metavar="CONDITION",
        help="only messages for which it holds, such as 'payload.client_id == 123'; see docs/tools.rst",
    )
    parser.add_argument("--count", type=positive, metavar="N", help="end when so many have been shown")
    parser.add_argument(
        "--idle-timeout",
        type=seconds,
        metavar="SECONDS",
        help="end when nothing has been shown for so long; with --count, status 124",
    )
    common_options(parser, json=json)


def warn_of_stars(keys: Iterable[str], output: Output) -> None:
    """Say so where a pattern is probably meant, and is none."""
    for key in keys:
        if any(len(word) > 1 and set(word) & set("*#") for word in key.split(".")):
            output.note(f"in {key}, * and # stand for whole words only, between dots; for parts of words use --where")


async def matching(
    watch: Watch, args: argparse.Namespace, wanted: Callable[[Fields], bool]
) -> AsyncIterator[tuple[Delivery, Fields]]:
    """The messages to show, until it is time to end.

    Raises:
        ToolError: there were not as many as ``--count`` asks for before ``--idle-timeout`` was over (status 124).
    """
    clock = asyncio.get_running_loop().time
    shown, quiet_since = 0, clock()
    while shown != args.count:
        patience = None if args.idle_timeout is None else quiet_since + args.idle_timeout - clock()
        delivery = None if patience is not None and patience <= 0 else await watch.next(patience)
        if delivery is None:
            if args.count is None:
                return
            raise ToolError(f"{shown} of {args.count} came, then nothing for {args.idle_timeout:g} s", TIMED_OUT)
        found = fields(delivery)
        if wanted(found) and (args.where is None or args.where(found)):
            shown, quiet_since = shown + 1, clock()
            yield delivery, found
