"""docs/performance.rst and its chart, from results."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from benchmarks.peers.cases import CLAIMS, TOPICS, Claim, Topic
from benchmarks.peers.chart import bar_chart
from benchmarks.peers.environments import CLIENTS, ROOT
from benchmarks.peers.results import Key, Results

PAGE = ROOT / "docs" / "performance.rst"
#: The results that the page shows.
RECORD = Path(__file__).parent / "results.json"
CHART = "performance-relay.svg"

HEAD = """\
.. Written by "python -m benchmarks.peers --page" from what it has measured. Do not edit it.

===========
Performance
===========

What services cost, beside other clients of RabbitMQ. All numbers come from one run on one machine. The clients are
measured in turns, so what else the machine does hits each of them. Machines differ, so trust the ratios more than the
numbers, and measure on your own: ``nox -s bench`` writes this page anew.

Each number is the median of its rounds, with the smallest and the largest in brackets. *Processor time* is the user and
system time of the client's process, as Linux counts it. It says how many messages a core can handle; the rate also
depends on the broker, which shares the cores with the client here.

*By hand* means a program without a framework, as short as it can be while it loses nothing. What is blue in the chart
is of eda-core: `Which adapter to use <transports.rst>`_.
"""


FLOOR = """\
What is out of reach
====================

The aims were set before these parts existed. Some are below what CPython can do with them:

- *Native beside pika and aio-pika by hand.* A relay takes {native} bytecodes with the native transport, and {pika} with
  pika by hand (see `Where the work of a relay goes`_). Of the first, {wire} belong to the wire, {machine} to what makes
  it safe, {service} to the service and its task for each handler, and {python} to asyncio. ``perf`` sees the process
  84 % of its time in the interpreter and 8 % in the kernel. (With pika by hand it is 59 % and 33 %: a system call for
  each frame.) So only fewer bytecodes would help, and none of these parts has a fifth of all to spare.
- *Native beside the C client.* A process that needs {cpu} µs for a relay cannot do more than {most} in a second on a
  core of its own, and the broker takes its share of the same two cores. The C client, which decodes nothing, does {c}.
- *publish_many beside one by one.* Eight times the rate is {eight} messages per second, one each {each} µs. The
  client takes {many} µs of that, and the broker needs the rest of the two cores for its own part.
- *The core beside the codec* (``python -m benchmarks.core``; the aim is 3.8). A relay through the core alone takes five
  times as long as cbor2, which is written in C, takes to read and to write its payload. What is left in the core
  are the bytecodes of safety, and those of the envelopes.
"""


def write(results: Results, page: Path = PAGE) -> None:
    """Write the page, and the chart beside it.

    Raises KeyError if no relay was measured, which the chart shows.
    """
    page.write_text(render(results), "utf-8")
    page.with_name(CHART).write_text(chart(results), "utf-8")


def chart(results: Results) -> str:
    """The processor time of the relays, the longest first."""
    keys = [key for key in results.samples if key[0] == "relay"]
    bars = [(title(key), results.median(key, "cpu"), ours(key)) for key in keys]
    return bar_chart("Processor time of one relay, microseconds", sorted(bars, key=lambda bar: -bar[1]))


def render(results: Results) -> str:
    """The page as reStructuredText."""
    parts = [HEAD, _about(results), _ratios(results), _floor(results)]
    for topic in TOPICS:
        keys = [key for key in results.samples if key[0] == topic.name]
        if keys:
            parts.append(_section(results, topic, keys))
    return "\n".join(parts)


def _about(results: Results) -> str:
    lines = [f":{name}: {value}" for name, value in results.about.items()]
    lines += [f":Left out: {CLIENTS[client].title}. {why}" for client, why in results.left_out.items()]
    return "\n".join([*heading("The machine"), *lines, ""])


def _ratios(results: Results) -> str:
    rows = [row for claim in CLAIMS if (row := claim_row(results, claim))]
    text = "Each ratio is that of two medians. In brackets are the smallest and the largest ratio of a round."
    head = ("What", "Ratio", "Aim")
    return "\n".join([*heading("Ratios"), text, "", *table(head, (46, 34, 20), rows)]) if rows else ""


def _floor(results: Results) -> str:
    """Why some aims are out of reach, with the numbers of this run; "" if they were not measured."""
    needed = [("bytecodes", name, "") for name in ("native", "pika")] + [
        ("relay", name, "") for name in ("native", "C")
    ]
    needed += [("publish", "kombu many", ""), ("publish", "kombu one", "")]
    if not all(key in results.samples for key in needed):
        return ""
    native, pika = (results.median(key, "all") for key in needed[:2])
    parts = {name: results.median(needed[0], name) / native for name in ("wire", "machine", "service", "python")}
    cpu, rate = results.median(("relay", "native", ""), "cpu"), results.median(("relay", "C", ""), "rate")
    many, one = results.median(needed[4], "cpu"), results.median(needed[5], "rate")
    return FLOOR.format(
        native=figure(native),
        pika=figure(pika),
        **{name: f"{share:.0%}" for name, share in parts.items()},
        cpu=figure(cpu),
        most=figure(1e6 / cpu),
        c=figure(rate),
        many=figure(many),
        eight=figure(8 * one),
        each=figure(1e6 / (8 * one)),
    )


def claim_row(results: Results, claim: Claim) -> tuple[str, str, str] | None:
    """A ratio in words, or None if it was not measured."""
    ratio = results.ratio(claim)
    if ratio is None:
        return None
    what = {"cpu": "processor time", "rate": "rate"}[claim.number]
    label = f"{claim.one[0]}, {what}: {title(claim.one)} / {title(claim.other)}"
    return label, "{:.2f} ({:.2f} to {:.2f})".format(*ratio), claim.bound


def _section(results: Results, topic: Topic, keys: Sequence[Key]) -> str:
    rows = [(title(key), *(cell(results, key, name) for name in topic.columns)) for key in keys]
    widths = (28, *(72 // len(topic.columns) for _ in topic.columns))
    picture = []
    if topic.name == "relay":
        picture = [f".. image:: {CHART}", "   :alt: A bar for each client: the table below has the same numbers.", ""]
    lines = table(("Client", *topic.columns.values()), widths, rows)
    return "\n".join([*heading(topic.title), topic.text, "", *picture, *lines])


def cell(results: Results, key: Key, number: str) -> str:
    """The median and the spread."""
    if len(results.samples[key]) == 1:
        return figure(results.median(key, number))
    low, high = results.spread(key, number)
    return f"{figure(results.median(key, number))} ({figure(low)} to {figure(high)})"


def figure(number: float) -> str:
    """With three digits at least where they say something."""
    return f"{number:,.0f}" if number >= 100 else f"{number:.1f}" if number >= 10 else f"{number:.2f}"


def title(key: Key) -> str:
    """What a line of a table is called."""
    _, client, variant = key
    return CLIENTS[client].title + (f", {variant}" if variant else "")


def ours(key: Key) -> bool:
    """Whether a client is of this package."""
    return CLIENTS[key[1]].title.startswith("eda_")


def heading(text: str) -> list[str]:
    return [text, "=" * len(text), ""]


def table(head: Sequence[str], widths: Sequence[int], rows: Iterable[Sequence[str]]) -> list[str]:
    """The lines of a list-table, and an empty one."""
    lines = [".. list-table::", "   :header-rows: 1", f"   :widths: {' '.join(map(str, widths))}", ""]
    for row in (head, *rows):
        lines += [f"   {'*' if number == 0 else ' '} - {text}".rstrip() for number, text in enumerate(row)]
    return [*lines, ""]
