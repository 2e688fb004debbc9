"""Writes routes as a graph for Graphviz (https://graphviz.org): who publishes, keys by exchange, who consumes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from eda_tools.cli.output import safe
from eda_tools.diagrams.drawing import weight
from eda_tools.diagrams.routes import UNKNOWN, Route
from eda_tools.messages.show import shortened

#: Characters of a label.
_LONGEST: Final = 80
_COLOURS: Final = {"events": "#1a7f4b", "commands": "#1f5fbf", "configurations": "#9b3fa8"}
_OTHER: Final = "#6a6f76"


def dot(routes: Sequence[Route]) -> Iterator[str]:
    """The lines of a directed graph. Inferred edges are dashed; the more messages, the thicker an edge is."""
    yield "digraph topology {"
    yield '    rankdir=LR; node [shape=box, fontname="sans-serif"]; edge [fontname="sans-serif"];'
    keys = {(route.exchange, route.key): f"k{number}" for number, route in enumerate(routes, 1)}
    for number, exchange in enumerate(dict.fromkeys(route.exchange for route in routes), 1):
        yield f"    subgraph cluster_{number} {{"
        yield f"        label={_quoted(exchange or '(default exchange)')};"
        for route in routes:
            if route.exchange == exchange:
                yield f"        {keys[exchange, route.key]} [label={_quoted(route.key or '(empty)')}, style=rounded];"
        yield "    }"
    publishers: dict[str, str] = {}
    consumers: dict[str, str] = {}
    edges = []
    for route in routes:
        key, colour = keys[route.exchange, route.key], _COLOURS.get(route.exchange, _OTHER)
        for publisher in route.publishers.values():
            node = publishers.setdefault(publisher.service or UNKNOWN, f"p{len(publishers) + 1}")
            edges.append(f"{node} -> {key} [{_edge(colour, publisher.messages, publisher.inferred)}]")
        for consumer in route.consumers.values():
            node = consumers.setdefault(consumer.service, f"c{len(consumers) + 1}")
            edges.append(f"{key} -> {node} [{_edge(colour, route.messages, consumer.inferred)}]")
    for nodes in (publishers, consumers):
        yield from (f"    {node} [label={_quoted(name)}];" for name, node in nodes.items())
    yield from (f"    {edge};" for edge in edges)
    yield "}"


def _edge(colour: str, messages: int, inferred: bool) -> str:
    counted = f', label="{messages}"' if messages else ""
    return f'color="{colour}", penwidth={weight(messages):.1f}{", style=dashed" if inferred else ""}{counted}'


def _quoted(text: str) -> str:
    """``text`` as a string of the language DOT, in which a backslash begins an escape sequence."""
    shown = shortened(safe(text), _LONGEST).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{shown}"'
