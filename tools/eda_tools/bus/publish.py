"""What ``publish_event`` and ``publish_configuration`` have in common."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import uuid
from collections.abc import Awaitable, Callable

from eda_core.messages.codec import JSON
from eda_core.messages.routing import check_name
from eda_core.messages.values import Configuration, Event
from eda_tools.cli.arguments import common_options, positive, rate, url_argument
from eda_tools.cli.output import Output, OutputClosed
from eda_tools.cli.status import DONE, FAILED, PARTLY, ToolError
from eda_tools.messages.payloads import payload_arguments, read_payload

#: Publishes under way at once.
_WINDOW = 200


def publish_arguments(parser: argparse.ArgumentParser) -> None:
    """All arguments of both."""
    url_argument(parser)
    parser.add_argument("event", help="name, which is the routing key")
    payload_arguments(parser)
    parser.add_argument("--conversation-id", metavar="ID", help="of all of them (default: a new one for each)")
    parser.add_argument("--count", type=positive, default=1, help="publish it so many times (default: 1)")
    parser.add_argument("--rate", type=rate, metavar="N", help="at most so many per second")
    common_options(parser, timeout=60, json="one JSON object per message: kind, name, conversation_id, routed")


async def publish(args: argparse.Namespace, output: Output, tool: str, make: type[Event] | type[Configuration]) -> int:
    """Publish it, show each conversation id, and say so if nobody gets it."""
    from eda_tools.bus.service import ToolService, running

    check_name("the name", args.event)
    output.doing = "reading the payload"
    payload = await read_payload(args)
    service = ToolService(args.urls, tool, output)
    if payload.content_type == JSON:
        service.use_json()
    kind = make.__name__.lower()
    unrouted = confirmed = 0

    async def one() -> None:
        nonlocal unrouted, confirmed
        conversation_id = args.conversation_id if args.conversation_id is not None else str(uuid.uuid4())
        routed = await service.publish(make(args.event, payload.value, conversation_id))
        unrouted, confirmed = unrouted + (not routed), confirmed + 1
        if bar is not None:
            bar(confirmed)
            output.doing = f"publishing the {kind} {args.event}, of which {confirmed} of {args.count} are confirmed"
        with contextlib.suppress(OutputClosed):  # that nobody reads the ids is no reason to publish less
            if output.json:
                told = {"kind": kind, "name": args.event, "conversation_id": conversation_id, "routed": routed}
                output.record(told)
            else:
                output.print(conversation_id)
            if args.rate:
                output.flush()

    async with running(service):
        with output.progress(args.event, args.count) if args.count > 1 else contextlib.nullcontext() as bar:
            output.doing = f"publishing the {kind} {args.event}"
            await _repeat(one, args.count, args.rate)
    with contextlib.suppress(OutputClosed):  # before the other error: which one is told must not be chance
        output.flush()
    if unrouted:
        several = f" ({unrouted} of {args.count})" if args.count > 1 else ""
        raise ToolError(
            f"no queue is bound for the {kind} {args.event}: the broker took it, but nobody gets it{several}",
            FAILED if unrouted == args.count else PARTLY,
        )
    return DONE


async def _repeat(action: Callable[[], Awaitable[None]], count: int, rate: float | None) -> None:
    """So many times, begun in order, as fast as the broker confirms or at most ``rate`` per second."""
    loop = asyncio.get_running_loop()
    begun = loop.time()
    window = _WINDOW if rate is None else max(1, min(_WINDOW, int(rate)))  # so that a failure is heard of in a second
    under_way: list[Awaitable[None]] = []
    for number in range(count):
        if rate is not None:
            await asyncio.sleep(begun + number / rate - loop.time())
        under_way.append(asyncio.ensure_future(action()))
        if len(under_way) == window:
            await asyncio.gather(*under_way)
            under_way.clear()
    await asyncio.gather(*under_way)
