"""``eda topology [--management URL] [--from FILE] [amqp_url]``: draw who publishes and who consumes what.

This module reads the bindings and draws; :mod:`eda_tools.diagrams.routes` decides who publishes and who consumes.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from rich.console import Group
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from eda_tools.bus.management import Management, management_option, vhost_of
from eda_tools.cli.arguments import common_options, url_argument
from eda_tools.cli.output import Output, safe
from eda_tools.cli.status import DONE, PARTLY, USAGE, ToolError, naming_file
from eda_tools.cli.tool import Tool
from eda_tools.diagnosis.facts import bindings_of
from eda_tools.diagrams import mermaid
from eda_tools.diagrams.dot import dot
from eda_tools.diagrams.page import consumer_text, page, publisher_text
from eda_tools.diagrams.routes import UNKNOWN, Route, Subscription, routes, subscriptions
from eda_tools.trace import read_conversations

#: A narrower screen gets a list instead of a table.
_TABLE_COLUMNS: Final = 80


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the tool."""
    url_argument(
        parser,
        needed=False,
        help="URL of the broker, whose virtual host, user and password are used with --management; nothing connects "
        "to it",
    )
    management_option(parser)
    parser.add_argument("--vhost", metavar="NAME", help="the virtual host (default: that of amqp_url, or /)")
    parser.add_argument(
        "--from",
        dest="recording",
        metavar="FILE",
        help="a recording that monitor --record has written: it tells who publishes, which the management API does not",
    )
    drawn = parser.add_mutually_exclusive_group()
    drawn.add_argument("--mermaid", action="store_true", help="draw it as a Mermaid flowchart")
    drawn.add_argument("--dot", action="store_true", help="draw it as a graph for Graphviz: … --dot | dot -Tsvg")
    drawn.add_argument("--html", metavar="FILE", help="draw it in a self-contained page; '-' is standard output")
    common_options(parser, json="one JSON object per exchange and key, one line each")


async def run(args: argparse.Namespace, output: Output) -> int:
    """Draw the topology."""
    if args.management is None and args.recording is None:
        raise ToolError("give --management URL, --from FILE, or both", USAGE)
    if args.json and (args.mermaid or args.dot or args.html):
        raise ToolError("--json or a drawing, not both", USAGE)
    bound: Sequence[Subscription] = ()
    if args.management is not None:
        output.doing = f"asking the management API at {urlsplit(args.management).hostname}"
        bound = await _bound(args)
    recorded, broken = read_conversations(args.recording) if args.recording is not None else ({}, None)
    found = routes(bound, recorded)
    if not found:
        raise broken or ToolError("there is nothing to draw: no binding on the exchanges, and no message")
    _draw(found, args, output)
    if broken is None:
        return DONE
    output.error(str(broken))
    return PARTLY


async def _bound(args: argparse.Namespace) -> list[Subscription]:
    url = args.urls[0] if args.urls else None
    vhost = args.vhost or (vhost_of(url) if url else "/")
    api = Management(args.management, url)
    bindings = await api.list("bindings", vhost)
    if bindings is None:
        raise ToolError(f"{api.url}: it does not tell of virtual host {vhost!r}; may this user see it?")
    consumers = await api.list("consumers", vhost)
    connections = await api.list("vhosts", vhost, "connections")
    return subscriptions(bindings_of(bindings), consumers or (), connections or ())


# Drawing


def _draw(found: Sequence[Route], args: argparse.Namespace, output: Output) -> None:
    if args.json:
        for route in found:
            output.record(route.as_json())
    elif args.mermaid:
        mermaid.show(list(flowchart(found)), output)
    elif args.dot:
        for line in dot(found):
            output.print(line)
    elif args.html == "-":
        for line in page(found, _source(args)):
            output.print(line)
    elif args.html:
        text = "".join(f"{line}\n" for line in page(found, _source(args)))
        with naming_file(args.html):
            Path(args.html).write_text(text, encoding="utf-8")
        output.note(f"drawn in {args.html}")
    elif output.out.width < _TABLE_COLUMNS:
        output.print(Group(*listing(found)))
    else:
        output.print(table(found))


def _source(args: argparse.Namespace) -> str:
    """What the topology is drawn from, without user and password."""
    parts = []
    if args.management is not None:
        parts.append(f"the bindings of {Management(args.management).url}")
    if args.recording is not None:
        parts.append(f"the recording {Path(args.recording).name}")
    return " and ".join(parts)


def table(found: Iterable[Route]) -> Table:
    """The routes as a table for people. ``~`` marks what is inferred."""
    drawn = Table()
    for name in ("exchange", "key", "published by", "consumed by"):
        drawn.add_column(name, overflow="fold")
    drawn.add_column("messages", justify="right")
    for route in found:
        publishers = Text("\n").join(Text(safe(publisher_text(each))) for each in route.publishers.values())
        consumers = Text("\n").join(
            Text(safe(consumer_text(each)), style="bold red" if each.workers == 0 else "")
            for each in route.consumers.values()
        )
        counted = f"{route.messages:,}" if route.messages else "–"
        drawn.add_row(safe(route.exchange), safe(route.key), publishers or "–", consumers or "–", counted)
    return drawn


def listing(found: Iterable[Route]) -> Iterator[Text | Padding]:
    """The routes for a narrow screen: by exchange and key, below each who publishes (from) and who consumes (to)."""
    exchange = None
    for route in found:
        if route.exchange != exchange:
            exchange = route.exchange
            yield Text(safe(exchange or "(default exchange)"), style="bold")
        counted = f"  {route.messages:,} message{'' if route.messages == 1 else 's'}" if route.messages else ""
        yield _indented(2, Text(safe(route.key or "(empty)")).append(counted, style="dim"))
        for publisher in route.publishers.values():
            yield _indented(4, Text(f"from {safe(publisher_text(publisher))}"))
        for consumer in route.consumers.values():
            style = "bold red" if consumer.workers == 0 else ""
            yield _indented(4, Text(f"to {safe(consumer_text(consumer))}", style=style))


def _indented(columns: int, text: Text) -> Padding:
    """``text`` as a block: also the lines in which it goes on are indented."""
    return Padding(text, (0, 0, 0, columns), expand=False)


def flowchart(found: Sequence[Route]) -> Iterator[str]:
    """The routes as the lines of a Mermaid flowchart. Inferred arrows are dotted."""
    left, right = mermaid.Names("p"), mermaid.Names("c")
    keys = {(route.exchange, route.key): f"k{number}" for number, route in enumerate(found, 1)}
    arrows = []
    for route in found:
        key = keys[route.exchange, route.key]
        for publisher in route.publishers.values():
            arrows.append(f"{left[publisher.service or UNKNOWN]} {_arrow(publisher.inferred)} {key}")
        for consumer in route.consumers.values():
            arrows.append(f"{key} {_arrow(consumer.inferred)} {right[consumer.service]}")
    yield "flowchart LR"
    for number, exchange in enumerate(dict.fromkeys(route.exchange for route in found), 1):
        yield f'    subgraph x{number}["{mermaid.text(exchange or "(default exchange)")}"]'
        for route in found:
            if route.exchange == exchange:
                yield f'        {keys[exchange, route.key]}(["{mermaid.text(route.key or "(empty)")}"])'
        yield "    end"
    for names in (left, right):
        yield from (f'    {identifier}["{mermaid.text(name)}"]' for name, identifier in names.items())
    yield from (f"    {arrow}" for arrow in arrows)


def _arrow(inferred: bool) -> str:
    return "-.->" if inferred else "-->"


TOOL = Tool(
    "topology",
    "Draw who publishes and who consumes what.",
    arguments,
    run,
    "What is inferred is marked with ~ or drawn dotted.",
    examples=(
        "eda topology --management http://127.0.0.1:15672",
        "eda topology --from calls.cbor",
        "eda topology --management http://127.0.0.1:15672 --from calls.cbor --html topology.html",
    ),
)
main: Final = TOOL.main

if __name__ == "__main__":
    sys.exit(main())
