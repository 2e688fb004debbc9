"""``eda unbind [--yes] [amqp_url] SERVICE KEY …``: take away bindings of a service that it does not want any more.

This module decides what is unbound and says what it did. Only bindings are touched, never messages.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from eda_core.messages.routing import COMMANDS, EVENTS, check_name, queue_name
from eda_tools.bus.management import Management, management_option, vhost_of
from eda_tools.cli.arguments import common_options, url_argument
from eda_tools.cli.output import Output
from eda_tools.cli.status import DONE, FAILED, PARTLY, USAGE, ToolError
from eda_tools.cli.tool import Tool
from eda_tools.diagnosis.facts import Binding, bindings_of

if TYPE_CHECKING:
    from eda_tools.bus.connect import Session


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the tool."""
    url_argument(parser)
    parser.add_argument("service", metavar="SERVICE", help="the logical service")
    parser.add_argument(
        "keys",
        nargs="+",
        metavar="KEY",
        help="a binding key: an event, SERVICE.Command, or the key of a result, which begins with SERVICE. as well",
    )
    parser.add_argument(
        "--yes", action="store_true", help="do it; without this option the tool only says what it would do"
    )
    management_option(parser)
    common_options(parser, timeout=60, json="one JSON object per key: queue, exchange, key, outcome")


async def run(args: argparse.Namespace, output: Output) -> int:
    """Take the bindings away, or say what would be done."""
    from eda_tools.bus.connect import session

    check_name("the service", args.service)
    for key in args.keys:
        if "://" in key:
            raise ToolError(f"{key} is a URL, not a key; the URL comes first", USAGE)
    wanted = list(dict.fromkeys(_binding(args.service, key) for key in args.keys))
    async with session(args.urls, "unbind", output) as broker:
        waiting = {
            queue: await _messages(broker, queue) for queue in dict.fromkeys(each.destination for each in wanted)
        }
        known = None if args.management is None else await _known(args.management, broker.url, output)
        missing = 0
        for each in wanted:
            missing += (known is not None and each not in known) or waiting[each.destination] is None
            outcome = await _unbind(broker, each, waiting[each.destination] is not None, known, yes=args.yes)
            if output.json:
                output.record({"queue": each.destination, "exchange": each.source, "key": each.key, "outcome": outcome})
            else:
                output.print(f"{each.destination} from {each.source}, key {each.key}: {outcome}")
    _note(args, waiting, output)
    if missing:
        return FAILED if missing == len(wanted) else PARTLY
    return DONE


def _binding(service: str, key: str) -> Binding:
    """The binding that is meant. What a service is sent on the commands exchange begins with its name."""
    exchange = COMMANDS if key.startswith(f"{service}.") else EVENTS
    return Binding(exchange, queue_name(service, exchange), key)


async def _messages(broker: Session, queue: str) -> int | None:
    """How many messages wait in a queue; ``None`` if it does not exist."""
    answer = await broker.queue(queue)
    return None if answer is None else answer.message_count or 0


async def _known(management: str, amqp_url: str, output: Output) -> Sequence[Binding]:
    output.doing = f"asking the management API at {urlsplit(management).hostname}"
    api, vhost = Management(management, amqp_url), vhost_of(amqp_url)
    rows = await api.list("bindings", vhost)
    if rows is None:
        raise ToolError(f"{api.url}: it does not tell of virtual host {vhost!r}; may this user see it?")
    return bindings_of(rows)


async def _unbind(
    broker: Session, binding: Binding, exists: bool, known: Sequence[Binding] | None, *, yes: bool
) -> str:
    """Take a binding away. Returns what was done."""
    from eda_tools.bus.names import QueueUnbind

    if not exists:
        return "there is no such queue"
    if known is not None and binding not in known:
        return "not bound"
    if not yes:
        return "would be unbound"
    channel = await broker.channel()
    await channel.ask(QueueUnbind(queue=binding.destination, exchange=binding.source, routing_key=binding.key))
    await channel.close()
    return "unbound" if known is not None else "is not bound now"


def _note(args: argparse.Namespace, waiting: dict[str, int | None], output: Output) -> None:
    for queue, count in waiting.items():
        if count:
            output.note(f"{queue} keeps the {count:,} message(s) in it")
    if not args.yes:
        output.note("nothing was changed; --yes does it")
    else:
        output.note(
            f"a worker of {args.service} that still subscribes to a key binds it again when it connects the next time"
        )


TOOL = Tool(
    "unbind",
    "Take away bindings of a service that it does not want any more, such as those of subscriptions that were removed.",
    arguments,
    run,
    "Messages that are in the queues stay there. AMQP does not tell whether a binding was there before; --management "
    "does, and then the status is 1, or 3, if all, or some, were not there.",
    (
        "eda unbind transcriber CallStarted",
        "eda unbind transcriber CallStarted transcriber.TranscribeVideo --yes",
        "eda unbind transcriber 'Call.*' --management http://127.0.0.1:15672",
    ),
)
main: Final = TOOL.main

if __name__ == "__main__":
    sys.exit(main())
