"""Draws routes as SVG: who publishes on the left, keys by exchange in the middle, who consumes on the right.

It decides where the boxes are. Their colours are those of :mod:`eda_tools.diagrams.page`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from html import escape
from itertools import groupby
from typing import Final

from eda_tools.cli.output import safe
from eda_tools.diagrams.routes import UNKNOWN, Route
from eda_tools.messages.show import shortened

#: Sizes in pixels.
_ROW: Final = 26
_BOX: Final = 20
_HEADING: Final = 40
_MARGIN: Final = 16
_GAP: Final = (160, 420)  # the least and the most space between columns, for the edges
_CHARACTER: Final = 7.4  # the width of a character of 13 px, a little more than the average
_PADDING: Final = 20
_HEAD: Final = 8  # the length of an arrowhead
#: Characters of a label.
_LONGEST: Final = 44
#: How often the boxes are sorted; more hardly changes anything.
_SWEEPS: Final = 8


@dataclass(slots=True)
class _Node:
    """A box: a service on one side, or a key.

    Attributes:
        group: boxes of one group are highlighted together: ``s1`` for a service on both sides, ``k1`` for a key.
        y: where its middle is.
    """

    group: str
    label: str
    title: str
    style: str
    y: float = 0.0


@dataclass(frozen=True, slots=True)
class _Edge:
    service: _Node
    key: _Node
    left: bool
    inferred: bool
    title: str
    weight: float


def weight(messages: int) -> float:
    """How thick an edge is for so many messages, in pixels: it grows with their order of magnitude, up to 5."""
    return min(5.0, 1.3 + 0.7 * math.log10(max(1, messages)))


def shown(text: str) -> str:
    """``text`` escaped for XML and without unprintable characters."""
    return escape(safe(text))


class _Plan:
    """The boxes and edges of the drawing, and where they are."""

    def __init__(self, routes: Sequence[Route]) -> None:
        self.keys: list[tuple[Route, _Node]] = []
        self.left: dict[str, _Node] = {}
        self.right: dict[str, _Node] = {}
        self.edges: list[_Edge] = []
        self.headings: list[tuple[str, float]] = []
        self._groups: dict[str, str] = {}
        for number, route in enumerate(routes, 1):
            self._add(route, number)
        self._arrange()

    def _add(self, route: Route, number: int) -> None:
        counted = f"{route.messages:,} message(s)" if route.messages else "no message seen"
        style = route.exchange if route.exchange in _COLOURED else "other"
        key = _Node(f"k{number}", route.key or "(empty)", f"{route.exchange} / {route.key}: {counted}", style)
        self.keys.append((route, key))
        for publisher in route.publishers.values():
            node = self._service(self.left, publisher.service or UNKNOWN)
            title = f"{publisher.service or UNKNOWN} publishes {route.key}: {publisher.messages:,} message(s)"
            self.edges.append(_Edge(node, key, True, publisher.inferred, title, weight(publisher.messages)))
        for consumer in route.consumers.values():
            node = self._service(self.right, consumer.service)
            if consumer.workers == 0:
                node.style, node.title = "service idle", f"{consumer.service}: no workers"
            title = f"{consumer.service} consumes {route.key}"
            if consumer.queues:
                title += f" from {', '.join(consumer.queues)}, {consumer.workers or 0} worker(s)"
            self.edges.append(_Edge(node, key, False, consumer.inferred, title, weight(route.messages)))

    def _service(self, side: dict[str, _Node], name: str) -> _Node:
        group = self._groups.setdefault(name, f"s{len(self._groups) + 1}")
        return side.setdefault(name, _Node(group, name, name, "service"))

    def _arrange(self) -> None:
        """Put connected boxes near each other: sort each column several times by the mean place of the neighbours."""
        ends: dict[int, list[_Node]] = {}
        for edge in self.edges:
            ends.setdefault(id(edge.service), []).append(edge.key)
            ends.setdefault(id(edge.key), []).append(edge.service)
        self._place_keys()
        for _ in range(_SWEEPS):
            for side in (self.left, self.right):
                _place(sorted(side.values(), key=lambda node: (_mean(ends.get(id(node), ())), node.label)))
            self.keys = [
                item
                for _, each in groupby(self.keys, key=lambda item: item[0].exchange)
                for item in sorted(each, key=lambda item: (_mean(ends.get(id(item[1]), ())), item[0].key))
            ]
            self._place_keys()
        height = self.keys[-1][1].y if self.keys else 0.0
        for side in (self.left, self.right):
            nodes = sorted(side.values(), key=lambda node: (_mean(ends.get(id(node), ())), node.label))
            _spread(nodes, [_mean(ends.get(id(node), ())) for node in nodes], height)

    def _place_keys(self) -> None:
        y = float(_MARGIN)
        self.headings = []
        for exchange, items in groupby(self.keys, key=lambda item: item[0].exchange):
            y += _HEADING
            self.headings.append((exchange, y - _ROW * 0.85))
            for _, node in items:
                node.y = y
                y += _ROW


def _mean(nodes: Iterable[_Node]) -> float:
    places = [node.y for node in nodes]
    return sum(places) / len(places) if places else 0.0


def _place(nodes: Sequence[_Node]) -> None:
    for place, node in enumerate(nodes):
        node.y = float(place * _ROW)


def _spread(nodes: Sequence[_Node], wanted: Sequence[float], height: float) -> None:
    """Put each box as near as possible to the place in ``wanted``, in this order and without overlapping.

    A box is put below ``height`` only if there is no space above.
    """
    y = float(_MARGIN + _HEADING - _ROW)
    for node, place in zip(nodes, wanted, strict=True):
        y = node.y = max(place, y + _ROW)
    limit = max(height, _MARGIN + _HEADING + _ROW * (len(nodes) - 1))
    for node in reversed(nodes):
        node.y = min(node.y, limit)
        limit = node.y - _ROW


_COLOURED: Final = ("events", "commands", "configurations")


def svg(routes: Sequence[Route]) -> Iterator[str]:
    """The drawing as the lines of an ``<svg>`` element."""
    plan = _Plan(routes)
    widths = [_width(nodes) for nodes in (plan.left.values(), (node for _, node in plan.keys), plan.right.values())]
    gap = min(_GAP[0] + 2 * len(plan.keys), _GAP[1])  # the more edges, the flatter they must be
    x = [_MARGIN, _MARGIN + widths[0] + gap, _MARGIN + widths[0] + widths[1] + 2 * gap]
    nodes = [*plan.left.values(), *plan.right.values(), *(node for _, node in plan.keys)]
    width = round(x[2] + widths[2] + _MARGIN)
    height = round(max((node.y for node in nodes), default=0) + _ROW + _MARGIN)
    yield (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
        'role="img" aria-label="who publishes and who consumes what">'
    )
    for place, text in zip(x, ("publish", "exchange and key", "consume"), strict=True):
        yield f'<text class="column" x="{place:.0f}" y="{_MARGIN + 4}">{text}</text>'
    for edge in plan.edges:
        yield _drawn_edge(edge, x, widths)
    for exchange, y in plan.headings:
        yield f'<text class="exchange" x="{x[1]:.0f}" y="{y + 4:.0f}">{shown(exchange or "(default exchange)")}</text>'
    for side, place in ((plan.left, 0), (plan.right, 2)):
        for node in side.values():
            yield _drawn_box(node, x[place], widths[place], 4)
    for _, node in plan.keys:
        yield _drawn_box(node, x[1], widths[1], _BOX / 2)
    yield "</svg>"


def _width(nodes: Iterable[_Node]) -> float:
    longest = max((len(shortened(safe(node.label), _LONGEST)) for node in nodes), default=0)
    return max(longest * _CHARACTER + _PADDING, 120)


def _drawn_edge(edge: _Edge, x: Sequence[float], widths: Sequence[float]) -> str:
    start, end = (x[0] + widths[0], x[1]) if edge.left else (x[1] + widths[1], x[2])
    first, last = (edge.service.y, edge.key.y) if edge.left else (edge.key.y, edge.service.y)
    middle = (start + end) / 2
    curve = f"M{start:.0f} {first:.0f}C{middle:.0f} {first:.0f} {middle:.0f} {last:.0f} {end:.0f} {last:.0f}"
    head = f"M{end - _HEAD:.0f} {last - _HEAD / 2:.1f}L{end:.0f} {last:.0f}L{end - _HEAD:.0f} {last + _HEAD / 2:.1f}"
    inferred = " inferred" if edge.inferred else ""
    note = " (inferred)" if edge.inferred else ""
    return (
        f'<path class="edge {edge.key.style}{inferred}" data-service="{edge.service.group}" '
        f'data-key="{edge.key.group}" data-side="{"left" if edge.left else "right"}" '
        f'style="stroke-width:{edge.weight:.1f}" d="{curve}{head}">'
        f"<title>{shown(edge.title + note)}</title></path>"
    )


def _drawn_box(node: _Node, x: float, width: float, radius: float) -> str:
    label = escape(shortened(safe(node.label), _LONGEST))
    return (
        f'<g class="box {node.style}" data-group="{node.group}" tabindex="0"><title>{shown(node.title)}</title>'
        f'<rect x="{x:.0f}" y="{node.y - _BOX / 2:.0f}" width="{width:.0f}" height="{_BOX}" rx="{radius:.0f}"/>'
        f'<text x="{x + _PADDING / 2:.0f}" y="{node.y + 4.5:.1f}">{label}</text></g>'
    )
