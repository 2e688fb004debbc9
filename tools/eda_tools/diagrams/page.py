"""Writes the page of ``topology --html``: the drawing, a legend and a table. The page loads nothing from elsewhere."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from eda_tools.diagrams.drawing import shown, svg
from eda_tools.diagrams.routes import UNKNOWN, Consumer, Publisher, Route

_STYLE: Final = """
:root { color-scheme: light dark; --back: #fff; --fore: #1c1e21; --dim: #62676d; --line: #d5d9de; --box: #f3f5f7;
  --events: #1a7f4b; --commands: #1f5fbf; --configurations: #9b3fa8; --other: #6a6f76; --bad: #c62f2f; }
@media (prefers-color-scheme: dark) {
  :root { --back: #16181b; --fore: #e6e8ea; --dim: #9aa1a8; --line: #3a3f45; --box: #22262a;
    --events: #57c78b; --commands: #74a8f5; --configurations: #d48ade; --other: #a2a8af; --bad: #ff7a70; } }
body { margin: 1.5rem; background: var(--back); color: var(--fore); font: 14px/1.45 system-ui, sans-serif; }
h1 { font-size: 1.25rem; margin: 0; }
p { margin: .3rem 0 1rem; color: var(--dim); }
.drawing { overflow-x: auto; }
svg { display: block; }
svg text { font: 13px ui-sans-serif, system-ui, sans-serif; fill: var(--fore); }
svg .column { fill: var(--dim); font-size: 12px; }
svg .exchange { font-weight: 600; }
.box rect { fill: var(--box); stroke: var(--line); }
.box { cursor: pointer; outline: none; }
.box:focus rect, .box:hover rect { stroke: var(--fore); }
.box.events rect, .edge.events { stroke: var(--events); }
.box.commands rect, .edge.commands { stroke: var(--commands); }
.box.configurations rect, .edge.configurations { stroke: var(--configurations); }
.box.other rect, .edge.other { stroke: var(--other); }
.box.idle rect { stroke: var(--bad); stroke-width: 1.6; }
.box.idle text { fill: var(--bad); }
.edge { fill: none; stroke-width: 1.3; stroke-opacity: .55; }
.edge.inferred { stroke-dasharray: 5 4; }
.focus .edge { stroke-opacity: .07; }
.focus .box { opacity: .25; }
.focus .edge.lit { stroke-opacity: 1; }
.focus .box.lit { opacity: 1; }
ul.legend { list-style: none; display: flex; flex-wrap: wrap; gap: .3rem 1.5rem; padding: 0; color: var(--dim); }
.legend svg { display: inline; vertical-align: middle; }
table { border-collapse: collapse; margin-top: 1.5rem; }
caption { text-align: left; font-weight: 600; padding: .4rem 0; }
th, td { text-align: left; vertical-align: top; padding: .25rem 1.2rem .25rem 0; border-bottom: 1px solid var(--line);
  overflow-wrap: anywhere; }
th { white-space: nowrap; color: var(--dim); font-weight: 500; }
td.number { text-align: right; }
.idle { color: var(--bad); }
"""

# Highlights what a box is connected to, and what that is connected to on its other side.
_SCRIPT: Final = """
const drawing = document.querySelector(".drawing svg");
const edges = [...drawing.querySelectorAll(".edge")], boxes = [...drawing.querySelectorAll(".box")];
let pinned = null;
function light(group) {
  drawing.classList.toggle("focus", group !== null);
  const lit = new Set([group]), far = new Set();
  for (const edge of edges) {
    const { service, key, side } = edge.dataset;
    if (service === group) far.add(key + (side === "left" ? "right" : "left"));
  }
  for (const edge of edges) {
    const { service, key, side } = edge.dataset;
    const on = service === group || key === group || far.has(key + side);
    edge.classList.toggle("lit", on);
    if (on) lit.add(service).add(key);
  }
  for (const box of boxes) box.classList.toggle("lit", lit.has(box.dataset.group));
}
for (const box of boxes) {
  const group = box.dataset.group;
  box.addEventListener("mouseenter", () => light(group));
  box.addEventListener("focus", () => light(group));
  box.addEventListener("mouseleave", () => light(pinned));
  box.addEventListener("blur", () => light(pinned));
  box.addEventListener("click", (event) => {
    pinned = pinned === group ? null : group;
    light(pinned);
    event.stopPropagation();
  });
}
document.addEventListener("click", () => { pinned = null; light(null); });
"""

_LEGEND: Final = (
    ("events", "", "events"),
    ("commands", "", "commands and results"),
    ("configurations", "", "configurations"),
    ("other", " inferred", "inferred: from names, or from what a service did"),
)


def page(routes: Sequence[Route], source: str) -> Iterator[str]:
    """The lines of an HTML document.

    Args:
        source: what the routes come from, as the reader sees it.
    """
    yield "<!DOCTYPE html>"
    yield '<html lang="en"><head><meta charset="utf-8">'
    yield (
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'\">"
    )
    yield '<meta name="viewport" content="width=device-width">'
    yield f"<title>Topology: {shown(source)}</title><style>{_STYLE}</style></head><body>"
    yield "<h1>Who publishes and who consumes what</h1>"
    yield f"<p>From {shown(source)}. Point at a box to see what it is connected to; click to keep that. "
    yield "The more messages were seen, the thicker is a line.</p>"
    yield '<ul class="legend">'
    for style, inferred, text in _LEGEND:
        line = f'<svg width="34" height="10"><path class="edge {style}{inferred}" d="M0 5H34"/></svg>'
        yield f"<li>{line} {text}</li>"
    yield '<li><span class="idle">red</span>: no workers</li></ul>'
    yield '<div class="drawing">'
    yield from svg(routes)
    yield "</div>"
    yield from _table(routes)
    yield f"<script>{_SCRIPT}</script></body></html>"


def _table(routes: Iterable[Route]) -> Iterator[str]:
    yield "<table><caption>The same as a table</caption><thead><tr><th>exchange<th>key<th>published by"
    yield "<th>consumed by<th>messages seen</tr></thead><tbody>"
    for route in routes:
        publishers = ", ".join(shown(publisher_text(each)) for each in route.publishers.values())
        consumers = ", ".join(_consumer(each) for each in route.consumers.values())
        yield (
            f"<tr><td>{shown(route.exchange)}<td>{shown(route.key)}<td>{publishers or '–'}<td>{consumers or '–'}"
            f'<td class="number">{route.messages:,}</tr>'
        )
    yield "</tbody></table>"


def _consumer(consumer: Consumer) -> str:
    text = shown(consumer_text(consumer))
    return f'<span class="idle">{text}</span>' if consumer.workers == 0 else text


def publisher_text(publisher: Publisher) -> str:
    """A publisher as the tables show it."""
    return f"{publisher.service or UNKNOWN}{' ~' if publisher.inferred else ''}"


def consumer_text(consumer: Consumer) -> str:
    """A consumer as the tables show it."""
    if consumer.inferred:
        return f"{consumer.service} ~"
    if consumer.workers is None:
        return consumer.service
    return f"{consumer.service} ({consumer.workers} worker{'' if consumer.workers == 1 else 's'})"
