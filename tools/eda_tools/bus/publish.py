"""Makes ``publish_event`` and ``publish_configuration``, which differ only in what they publish."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import uuid
from collections.abc import Awaitable, Callable

from eda_core.messages.codec import JSON
from eda_core.messages.routing import check_name
from eda_core.messages.values import Configuration, Event
from eda_tools.bus.pace import Pace
from eda_tools.cli.arguments import common_options, positive, rate, url_argument
from eda_tools.cli.output import Output, OutputClosed, safe
from eda_tools.cli.status import DONE, FAILED, PARTLY, ToolError
from eda_tools.cli.tool import Tool
from eda_tools.messages.payloads import payload_arguments, read_payload

#: The most publishes under way at a time.
_WINDOW = 200
#: With more messages than this, a terminal shows a summary instead of their conversation ids.
_MOST_SHOWN = 20


def publishing(name: str, make: type[Event] | type[Configuration], examples: tuple[str, ...]) -> Tool:
    """The tool that publishes what ``make`` makes."""
    kind = make.__name__.lower()
    a_kind = f"{'an' if kind == 'event' else 'a'} {kind}"

    async def run(args: argparse.Namespace, output: Output) -> int:
        return await _publish(args, output, name, kind, make)

    return Tool(
        name,
        f"Publish {a_kind}, wait until the broker has confirmed it, and print its conversation id.",
        _arguments,
        run,
        f"On standard output: the conversation id of each {kind}, on a line of its own, when it is confirmed. With a "
        f"--count of more than {_MOST_SHOWN} a terminal gets one line for all, pipes and files get all ids. If no "
        f"queue is bound for {a_kind}, the tool says so, with status 1.",
        examples,
    )


def _arguments(parser: argparse.ArgumentParser) -> None:
    url_argument(parser)
    parser.add_argument("event", help="name, which is the routing key")
    payload_arguments(parser)
    parser.add_argument("--conversation-id", metavar="ID", help="conversation id of all (default: a new one for each)")
    parser.add_argument("--count", type=positive, default=1, help="publish it so many times (default: 1)")
    parser.add_argument("--rate", type=rate, metavar="N", help="at most so many per second")
    common_options(parser, timeout=60, json="one JSON object per message: kind, name, conversation_id, routed")


async def _publish(
    args: argparse.Namespace, output: Output, tool: str, kind: str, make: type[Event] | type[Configuration]
) -> int:
    from eda_tools.bus.service import ToolService, running

    check_name("the name", args.event)
    output.doing = "reading the payload"
    payload = await read_payload(args)
    service = ToolService(args.urls, tool, output)
    if payload.content_type == JSON:
        service.use_json()
    unrouted = confirmed = 0
    summary = args.count > _MOST_SHOWN and output.drawable and not output.json

    async def one() -> None:
        nonlocal unrouted, confirmed
        conversation_id = args.conversation_id if args.conversation_id is not None else str(uuid.uuid4())
        routed = await service.publish(make(args.event, payload.value, conversation_id))
        unrouted, confirmed = unrouted + (not routed), confirmed + 1
        if bar is not None:
            bar(confirmed)
            output.doing = f"publishing the {kind} {args.event}, of which {confirmed} of {args.count} are confirmed"
        with contextlib.suppress(OutputClosed):  # all are published, even if nobody reads the ids any more
            if output.json:
                published = {
                    "kind": kind,
                    "name": args.event,
                    "conversation_id": conversation_id,
                    "routed": routed,
                }
                output.record(published)
            elif not summary:
                output.print(conversation_id)
            if args.rate:
                output.flush()

    async with running(service):
        with output.progress(args.event, args.count) if args.count > 1 else contextlib.nullcontext() as bar:
            output.doing = f"publishing the {kind} {args.event}"
            await _repeat(one, args.count, args.rate)
    with contextlib.suppress(OutputClosed):  # before the next error, so that it is always the same one that is told
        if summary:
            given = args.conversation_id
            where = "each in a conversation of its own" if given is None else f"in the conversation {given}"
            output.print(safe(f"{confirmed} {kind}s {args.event} are published, {where}"))
        output.flush()
    if unrouted:
        several = f" ({unrouted} of {args.count})" if args.count > 1 else ""
        raise ToolError(
            f"no queue is bound for the {kind} {args.event}: the broker took it, but nobody gets it{several}",
            FAILED if unrouted == args.count else PARTLY,
        )
    return DONE


async def _repeat(action: Callable[[], Awaitable[None]], count: int, rate: float | None) -> None:
    """Call ``action`` ``count`` times, as fast as the broker confirms or at most ``rate`` times per second."""
    loop, pace = asyncio.get_running_loop(), Pace(rate)
    window = _WINDOW if rate is None else max(1, min(_WINDOW, int(rate)))  # a failure is noticed within a second
    under_way: list[Awaitable[None]] = []
    for _ in range(count):
        if rate is not None:
            await asyncio.sleep(pace.wait(loop.time()))
        under_way.append(asyncio.ensure_future(action()))
        if len(under_way) == window:
            await asyncio.gather(*under_way)
            under_way.clear()
    await asyncio.gather(*under_way)
