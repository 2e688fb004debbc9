"""``eda replay amqp_url FILE``: send the messages of a recording to a broker.

This module decides which messages are sent, and when. How each is written again decides
:mod:`eda_tools.dead_letters.republish`.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import sys
from collections.abc import Iterator, Sequence
from typing import Any, Final

from eda_core.messages.headers import CAUSATION_ID
from eda_tools.bus.amqp import AmqpError
from eda_tools.bus.confirming import Answer, Publisher
from eda_tools.bus.connect import Session, session
from eda_tools.bus.pace import Pace
from eda_tools.cli.arguments import check_filter, common_options, filter_option, natural, rate, url_argument
from eda_tools.cli.output import Output
from eda_tools.cli.status import DONE, FAILED, PARTLY, USAGE, ToolError
from eda_tools.cli.tool import Tool
from eda_tools.dead_letters.replay import FAILURE, REPLAYED, SKIPPED, Item, Outcomes
from eda_tools.dead_letters.republish import EXCHANGE, CopyRules, Unsendable, user_of
from eda_tools.messages.delivery import Delivery, fields, is_of
from eda_tools.messages.recording import read_recording
from eda_tools.messages.where import where_option

#: The most publishes that wait for their confirms.
_WINDOW: Final = 100


def _speed(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number, 0 or more")
    return value


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the tool."""
    url_argument(parser, needed=False)
    parser.add_argument("file", metavar="FILE", help="a recording, of monitor --record or of resurrect --backup")
    parser.add_argument(
        "--speed",
        type=_speed,
        default=1.0,
        metavar="N",
        help="so many times as fast as the messages came; 0: without pauses (default: 1)",
    )
    parser.add_argument("--rate", type=rate, metavar="N", help="at most so many per second")
    parser.add_argument("--count", type=natural, default=0, help="send at most so many (default: 0 = all)")
    filter_option(parser, "messages")
    where_option(parser)
    parser.add_argument(
        "--conversation",
        metavar="ID",
        help="only this conversation; the first 8 characters of its id, or more, are enough",
    )
    parser.add_argument(
        "--initial",
        action="store_true",
        help="only messages that no other message of the recording has caused: services that run publish the others "
        "again",
    )
    parser.add_argument("--dry-run", action="store_true", help="only show what would be sent; needs no broker")
    common_options(parser, json="one JSON object per message to be sent, and one with the totals at the end")


async def run(args: argparse.Namespace, output: Output) -> int:
    """Send the messages that are wanted."""
    check_filter(args)
    if args.urls is None and not args.dry_run:
        raise ToolError("give the URL of the broker, set EDA_AMQP_URL, or use --dry-run", USAGE)
    deliveries = list(read_recording(args.file))
    outcomes = Outcomes(output, dry_run=args.dry_run)
    outcomes.snapshot = outcomes.read = len(deliveries)
    items = list(_chosen(deliveries, args, outcomes))
    if args.dry_run:
        for item in items:
            if _written(item, "guest", outcomes):
                outcomes.add(item, REPLAYED)
        outcomes.show()
    else:
        async with session(args.urls, "replay", output) as broker:
            with contextlib.ExitStack() as stack:
                stack.callback(outcomes.show)  # whatever ends it
                await _Sender(broker, args, output, outcomes).send(items)
    if outcomes.failed:
        whole = outcomes.failed + outcomes.replayed
        raise ToolError(f"{outcomes.failed} of {whole} could not be sent", PARTLY if outcomes.replayed else FAILED)
    return DONE


def _chosen(deliveries: Sequence[Delivery], args: argparse.Namespace, outcomes: Outcomes) -> Iterator[Item]:
    """The messages to be sent. The others are counted as skipped."""
    known = {str(each.properties.message_id) for each in deliveries if each.properties.message_id}
    chosen = 0
    for position, delivery in enumerate(deliveries, 1):
        found = fields(delivery)
        item = Item(position, 0, delivery, str(found["name"]))
        if (args.count and chosen >= args.count) or not _wanted(found, args, known):
            outcomes.add(item, SKIPPED)
        else:
            chosen += 1
            yield item


def _wanted(found: dict[str, Any], args: argparse.Namespace, known: set[str]) -> bool:
    if args.filter is not None and not any(pattern.matches(found["name"]) for pattern in args.filter):
        return False
    if args.conversation is not None and not is_of(found, args.conversation):
        return False
    if args.initial and str(found["headers"].get(CAUSATION_ID)) in known:
        return False
    return args.where is None or bool(args.where(found))


def _written(item: Item, user: str, outcomes: Outcomes) -> bool:
    """Make the message that is to be published. Returns false if that is impossible, which is counted."""
    rules = CopyRules(EXCHANGE, "", user)
    try:
        item.copy = rules.original(item.delivery)
    except Unsendable as error:
        outcomes.add(item, FAILURE, str(error))
        return False
    item.loses_user = rules.loses_user(item.delivery)
    return True


class _Sender:
    """Sends messages at the pace of the recording."""

    def __init__(self, broker: Session, args: argparse.Namespace, output: Output, outcomes: Outcomes) -> None:
        self._broker = broker
        self._user = user_of(broker.url)
        self._file = args.file
        self._speed = args.speed
        self._pace = Pace(args.rate)
        self._output = output
        self._outcomes = outcomes
        self._publisher = Publisher(broker)
        self._exchanges: dict[str, bool] = {"": True}
        self._sent: list[tuple[Item, asyncio.Future[Answer]]] = []

    async def send(self, items: Sequence[Item]) -> None:
        """Send them, in order, and count what became of each. Raises what the library raises if the link is lost."""
        clock = asyncio.get_running_loop().time
        self._output.doing = f"sending the messages of {self._file}"
        began = clock()
        with self._output.progress(self._file, len(items)) as show:
            for number, item in enumerate(items, 1):
                recorded = (item.delivery.received - items[0].delivery.received).total_seconds()
                due = began + recorded / self._speed if self._speed else began
                await self._pause(max(due - clock(), self._pace.wait(clock())))
                if _written(item, self._user, self._outcomes) and await self._exists(item):
                    assert item.copy is not None
                    self._sent.append((item, await self._publisher.publish(item.copy)))
                if len(self._sent) >= _WINDOW:
                    await self._confirm()
                show(number)
        await self._confirm()

    async def _pause(self, seconds: float) -> None:
        if seconds > 0:
            await self._confirm()  # so that what is told is up to date
            await asyncio.sleep(seconds)

    async def _exists(self, item: Item) -> bool:
        """Whether the exchange exists. A publish to a missing one would close the channel."""
        assert item.copy is not None
        exchange = item.copy.exchange
        if exchange not in self._exchanges:
            try:
                self._exchanges[exchange] = await self._broker.exchange(exchange)
            except AmqpError:
                self._exchanges[exchange] = True  # publishing to it will show
        if not self._exchanges[exchange]:
            self._outcomes.add(item, FAILURE, f"there is no exchange {exchange!r}")
        return self._exchanges[exchange]

    async def _confirm(self) -> None:
        """Wait for the confirms of what was sent, and count it."""
        sent, self._sent = self._sent, []
        answers = await self._publisher.answers([future for _, future in sent])
        for (item, _), answer in zip(sent, answers, strict=True):
            if answer.sent:
                self._outcomes.add(item, REPLAYED)
            else:
                unknown = "it is not known whether it was sent: " if answer.sent is None else ""
                self._outcomes.add(item, FAILURE, unknown + answer.reason)


TOOL = Tool(
    "replay",
    "Send the messages of a recording to a broker, as they were published first, at the pace at which they came.",
    arguments,
    run,
    "Message ids and conversation ids stay the same, so a service that drops duplicates drops what it has handled "
    "before. Services that run publish their own messages again: --initial sends only those that none of them has "
    "published.",
    examples=(
        "eda replay calls.cbor --dry-run",
        "eda replay calls.cbor --initial --speed 10",
        "eda replay calls.cbor --where 'kind == \"event\"' --speed 0 --rate 50",
        "eda replay before.cbor --conversation 6ecd5dd7",
    ),
)
main: Final = TOOL.main

if __name__ == "__main__":
    sys.exit(main())
