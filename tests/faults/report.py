"""``python -m tests.faults.report RESULTS...``: write the results of scenarios into docs/reliability.rst.

What is between the two marks of the page is replaced. A scenario that is in several files of results is taken from the
last one.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from tests.faults.scenarios import SCENARIOS

PAGE = Path(__file__).parents[2] / "docs" / "reliability.rst"
BEGIN = ".. The tables are written by tests/faults/report.py.\n"
END = ".. This is the end of the tables.\n"

Result = dict[str, Any]
Outcome = dict[str, Any]


def read(paths: Iterable[Path]) -> list[Result]:
    """The scenarios of these files in their order, each with the release, date and machine that it was measured on.

    Raises ValueError if a scenario has failed, or is none any more.
    """
    found: dict[str, Result] = {}
    for path in paths:
        results = json.loads(path.read_text("utf-8"))
        for name, scenario in results["scenarios"].items():
            if "error" in scenario:
                raise ValueError(f"{path}: {name} has failed: {scenario['error'].splitlines()[0]}")
            found[name] = {**scenario, **{key: results[key] for key in ("rabbitmq", "date", "machine", "kinds")}}
    return [found[name] for name in sorted(found, key=list(SCENARIOS).index)]


def tables(scenarios: Sequence[Result]) -> str:
    """The part of the page between the marks."""
    kinds: dict[str, str] = {}
    for scenario in scenarios:
        kinds.update(scenario["kinds"])
    dates = sorted({scenario["date"] for scenario in scenarios})
    machine = scenarios[0]["machine"]
    parts = [
        f"Measured on {' and '.join(dates)}, on a machine with {machine['processors']} processors and "
        f"{machine['memory']} of memory, with Python {machine['python']}.\n",
        "*Lost, doubled, still*: messages that were lost; results that were published more than once; the longest time "
        "in seconds in\nwhich nothing was handled though it could have been. An exclamation mark says that the service "
        "stood still at the end.\n",
        _matrix(scenarios, kinds, _loss),
        "*Handled again*: how many jobs were handled more than once, and lines of log for each lost connection.\n",
        _matrix([each for each in scenarios if _any(each, "links")], kinds, _again),
    ]
    poison = [each for each in scenarios if _any(each, "poison")]
    if poison:
        parts += [
            "*Poison*: how often a job whose handler always fails was begun before it was dead-lettered, and how many "
            "jobs.\n",
            _matrix(poison, kinds, _poison),
        ]
    held = [each for each in scenarios if _any(each, "held")]
    if held:
        parts += ["*Held by a process*, early and at the end: descriptors, threads, tasks, memory in MiB.\n"]
        parts += [_matrix(held, kinds, _held)]
    return "\n".join(parts)


def _any(scenario: Result, key: str) -> bool:
    return any(outcome[key] for outcome in scenario["outcomes"].values())


def _matrix(scenarios: Iterable[Result], kinds: dict[str, str], cell: Callable[[Outcome], str]) -> str:
    """A table with a row for each scenario, and a column for each kind of service."""
    rows = [["Scenario", "RabbitMQ", *kinds.values()]]
    for scenario in scenarios:
        outcomes = (scenario["outcomes"].get(kind) for kind in kinds)
        cells = ("–" if outcome is None else cell(outcome) for outcome in outcomes)
        rows.append([scenario["title"], scenario["rabbitmq"], *cells])
    lines = [".. list-table::", "   :header-rows: 1", ""]
    for first, *others in rows:
        lines += [f"   * - {first}", *(f"     - {text}" for text in others)]
    return "\n".join(lines) + "\n"


def _loss(outcome: Outcome) -> str:
    return f"{outcome['lost']}, {outcome['doubled']}, {outcome['still']:.1f}{'!' if outcome['stuck'] else ''}"


def _again(outcome: Outcome) -> str:
    lines = outcome["lines_per_link"]
    return f"{outcome['again']}" if lines is None else f"{outcome['again']}, {lines:g}"


def _poison(outcome: Outcome) -> str:
    counts = ", ".join(f"{times} times: {jobs}" for times, jobs in outcome["poison"].items())
    alive = outcome["poison_alive"]
    return f"{counts}; not dead-lettered: {alive}" if alive else counts


def _held(outcome: Outcome) -> str:
    told = [
        f"{each['descriptors']}, {each['threads']}, {each['tasks']}, {each['memory'] / 1024:.0f}"
        for each in outcome["held"]
    ]
    return " → ".join(told) or "–"


def replaced(page: str, text: str) -> str:
    """The page with other tables. Raises ValueError if it has not both marks."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{PAGE.name} has not both marks: {BEGIN!r}, {END!r}")
    return f"{before}{BEGIN}\n{text}\n{END}{after}"


def main(paths: Sequence[str]) -> None:
    """Write the tables of these files into the page."""
    if not paths:
        sys.exit("usage: python -m tests.faults.report RESULTS...")
    try:
        PAGE.write_text(replaced(PAGE.read_text("utf-8"), tables(read(map(Path, paths)))), "utf-8")
    except (OSError, ValueError) as error:
        sys.exit(str(error))
    print(PAGE)


if __name__ == "__main__":
    main(sys.argv[1:])
