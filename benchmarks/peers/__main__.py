"""Measure in rounds, print the results, and write the page: ``python -m benchmarks.peers --page``.

The broker is found as by ``benchmarks.endpoint``: by default it is a private node of RabbitMQ. Environments with the
other clients are made once, in ``~/.cache/eda-core/peers``. A client that cannot be had here is left out, with a line.

Who changes a text of the page writes it anew from the last results:
``python -m benchmarks.peers --load benchmarks/peers/results.json --page``.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks.endpoint import broker
from benchmarks.peers import page
from benchmarks.peers.cases import CLAIMS, TOPICS, Case, cases
from benchmarks.peers.environments import CLIENTS, LIBRARIES, NotAvailable, versions
from benchmarks.peers.measuring import Bench
from benchmarks.peers.programs.work import Task
from benchmarks.peers.results import Results


def available(wanted: list[Case]) -> tuple[list[Case], dict[str, str]]:
    """Prepare the clients: the cases that can be measured, and the others' clients with the reason."""
    left_out: dict[str, str] = {}
    for client in dict.fromkeys(case.client for case in wanted):
        try:
            CLIENTS[client].command(Task("relay", ""))
        except NotAvailable as error:
            left_out[client] = str(error)
            print(f"{client} is left out: {error}", flush=True)
    return [case for case in wanted if case.client not in left_out], left_out


def measure(bench: Bench, wanted: list[Case], rounds: int, results: Results) -> None:
    """Measure all cases in turns."""
    for number in range(rounds):
        for case in wanted:
            if number < max(1, round(rounds * case.rounds)):
                numbers = case.measure(bench)
                results.samples.setdefault(case.key, []).append(numbers)
                told = "  ".join(f"{name} {page.figure(value)}" for name, value in numbers.items())
                print(f"round {number + 1}  {case.topic:14s}{page.title(case.key):36s}{told}", flush=True)


def about(url: str, clients: set[str]) -> dict[str, str]:
    """The machine, and what it runs."""
    found: dict[str, set[str]] = {}
    for environment in {CLIENTS[client].environment for client in clients} - {"C"}:
        for library, version in versions(environment).items():
            found.setdefault(library, set()).add(version)
    kombu: Any = import_module("kombu")  # it publishes no types
    with kombu.Connection(url) as connection:
        server = connection.connection.server_properties
    return {
        "Date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "Processor": f"{processor()}, {os.cpu_count()} cores",
        "System": platform.platform(),
        "Python": f"{platform.python_implementation()} {platform.python_version()}",
        "Broker": f"{server['product']} {server['version']}, on the same machine",
        "Libraries": ", ".join(f"{name} {' and '.join(sorted(found[name]))}" for name in LIBRARIES if name in found),
    }


def processor() -> str:
    """What Linux calls it."""
    for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def load() -> str:
    """How many processes want to run, in the last minute."""
    return f"{os.getloadavg()[0]:.1f}"


def print_results(results: Results) -> None:
    """The medians, and the ratios."""
    for key in results.samples:
        columns = next(topic.columns for topic in TOPICS if topic.name == key[0])
        told = "   ".join(f"{name} {page.cell(results, key, name)}" for name in columns)
        print(f"{key[0]:14s}{page.title(key):36s}{told}")
    for claim in CLAIMS:
        row = page.claim_row(results, claim)
        if row:
            print(f"{row[0]:80s}{row[1]}   {row[2]}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=[topic.name for topic in TOPICS], help="measure only these")
    parser.add_argument("--clients", nargs="+", choices=list(CLIENTS), help="measure only these")
    parser.add_argument("--rounds", type=int, default=5, help="how often to measure the relay (default: %(default)s)")
    parser.add_argument("--scale", type=float, default=1.0, help="how many messages, as a factor (default: 1)")
    parser.add_argument("--save", type=Path, help="keep the results in this file")
    parser.add_argument("--load", type=Path, help="do not measure: take the results of this file")
    parser.add_argument("--page", action="store_true", help=f"write docs/performance.rst, and {page.RECORD.name}")
    options = parser.parse_args()
    if options.load:
        results = Results.load(options.load.read_text("utf-8"))
    else:
        wanted = [
            case
            for case in cases(options.scale)
            if case.topic in (options.only or [case.topic]) and case.client in (options.clients or [case.client])
        ]
        wanted, left_out = available(wanted)
        with broker() as (url, is_rabbit), Bench(url) as bench:
            if options.page and not is_rabbit:
                parser.error("RabbitMQ is not installed; the page tells of nothing else (give EDA_AMQP_URL)")
            results = Results(about(url, {case.client for case in wanted}), left_out=left_out)
            before = load()
            measure(bench, wanted, options.rounds, results)
            results.about["Load"] = (
                f"an average of {before} processes before the run, and of {load()} at its end, its own included"
            )
    print_results(results)
    if options.save:
        options.save.write_text(results.dump(), "utf-8")
    if options.page:
        page.RECORD.write_text(results.dump(), "utf-8")
        page.write(Results.load(results.dump()))  # with its rounded numbers, so that it can be written anew
    return 0


if __name__ == "__main__":
    sys.exit(main())
