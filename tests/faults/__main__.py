"""``python -m tests.faults``: put each kind of service through the scenarios, and write what came of it.

The results are a JSON file. The journals and logs of all processes stay in the directory beside it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.faults.kinds import KINDS, Kind, chosen
from tests.faults.scenarios import SCENARIOS, Scenario
from tests.faults.stage import Broker, Stage
from tests.support.rabbitmq import find_server, version_of

QUICK = ["cuts", "first_connection_cut", "second_connection_cut", "alarm", "worker_killed", "poison_quorum"]


class Brokers:
    """A node and a cluster, each made when it is first asked for, and anew after a scenario that failed."""

    def __init__(self, server: Path | None) -> None:
        self._server = server
        self._there: dict[bool, Broker] = {}

    def take(self, cluster: bool) -> Broker:
        """The node, or the cluster."""
        self.drop(not cluster)  # the machine is not large
        if cluster not in self._there:
            self._there[cluster] = (Broker.three if cluster else Broker.single)(self._server)
        self._there[cluster].heal()
        return self._there[cluster]

    def drop(self, cluster: bool) -> None:
        """Stop it, if it is there."""
        broker = self._there.pop(cluster, None)
        if broker is not None:
            broker.stop()


async def play(scenario: Scenario, kinds: Sequence[Kind], brokers: Brokers, directory: Path) -> dict[str, Any]:
    """One scenario: the outcome for each kind, or why there is none."""
    begin = time.monotonic()
    cast = [kind for kind in kinds if kind.handles or not scenario.handlers_only]
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    result: dict[str, Any] = {"title": scenario.title, "workers": scenario.workers, "outcomes": {}}
    try:
        broker = await asyncio.to_thread(brokers.take, scenario.cluster)
        options = {
            name: getattr(scenario, name)
            for name in ("workers", "rate", "work", "queue_type", "publishes", "attributes")
        }
        async with Stage(broker, cast, directory, **options) as stage:
            await stage.flow()
            async with asyncio.timeout(scenario.limit):
                await scenario.play(stage)
            outcomes = await stage.outcomes()
        result["faults"] = len(stage.faults)
        result["outcomes"] = {name: outcome.as_json() for name, outcome in outcomes.items()}
    except Exception as error:
        result["error"] = f"{type(error).__name__}: {error}"
        await asyncio.to_thread(brokers.drop, scenario.cluster)
    result["seconds"] = round(time.monotonic() - begin, 1)
    return result


def machine() -> dict[str, Any]:
    """What the numbers depend on."""
    with open("/proc/meminfo") as file:
        memory = int(file.readline().split()[1]) // (1 << 20)
    return {"processors": os.cpu_count(), "memory": f"{memory} GiB", "python": platform.python_version()}


def summary(name: str, result: dict[str, Any]) -> str:
    """What came of a scenario, a line for each kind."""
    lines = [f"{name}: {result['title']} ({result['seconds']:g} s)", *result.get("error", "").splitlines()]
    for kind, each in result["outcomes"].items():
        told = [f"sent {each['sent']}", f"handled {each['handled']}", f"lost {each['lost']}"]
        told += [f"doubled {each['doubled']}", f"again {each['again']}", f"dead {each['dead']}"]
        told += [f"still {each['still']:g} s", f"links {each['links']}"]
        told += [f"{label} {each[key]}" for label, key in (("poison", "poison"), ("ends", "statuses")) if each[key]]
        told += [f"lines/link {each['lines_per_link']}"] if each["lines_per_link"] is not None else []
        told += [f"failed {each['failed']}"] if each["failed"] else []
        told += [f"poison not dead {each['poison_alive']}"] if each["poison_alive"] else []
        told += [f"held {each['held']}"] if each["held"] else []
        told += [f"left {each['left']}"] if each["left"] else []
        told += ["STUCK"] if each["stuck"] else []
        lines.append(f"  {kind:9} {', '.join(told)}")
    return "\n".join(lines)


def broken(scenarios: Mapping[str, dict[str, Any]]) -> list[str]:
    """What must not be: scenarios that failed themselves, and services of ours that lost messages or stand still."""
    ours = [kind.name for kind in KINDS if not kind.theirs]
    found = [f"{name}: {result['error'].splitlines()[0]}" for name, result in scenarios.items() if "error" in result]
    for name, result in scenarios.items():
        for kind, outcome in result["outcomes"].items():
            if kind in ours and (outcome["lost"] or outcome["stuck"]):
                found.append(f"{name}: {kind} has lost {outcome['lost']}{', and stands still' * outcome['stuck']}")
    return found


async def run(arguments: argparse.Namespace, say: Callable[[str], None]) -> dict[str, Any]:
    """All that was asked for. The file is written after each scenario."""
    server = find_server(arguments.rabbitmq)
    if server is None:
        raise ValueError("RabbitMQ is not installed")
    kinds = chosen(arguments.kind)
    brokers = Brokers(server)
    results: dict[str, Any] = {
        "rabbitmq": ".".join(map(str, version_of(server))),
        "date": datetime.now(UTC).date().isoformat(),
        "machine": machine(),
        "kinds": {kind.name: kind.title for kind in kinds},
        "scenarios": {},
    }
    try:
        for name in arguments.scenario or SCENARIOS:
            directory = arguments.output.with_suffix("") / name
            results["scenarios"][name] = result = await play(SCENARIOS[name], kinds, brokers, directory)
            say(summary(name, result))
            arguments.output.write_text(json.dumps(results, indent=1) + "\n")
    finally:
        for cluster in (True, False):
            brokers.drop(cluster)
    return results


def main(command: Sequence[str]) -> int:
    """The command line."""
    parser = argparse.ArgumentParser("python -m tests.faults", description=__doc__.splitlines()[0])
    parser.add_argument("--rabbitmq", default=None, help="the release, or the directory of its programs")
    parser.add_argument("--kind", action="append", default=[], help="of service; may be given again; default: all")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--scenario", action="append", default=[], choices=SCENARIOS, help="default: all")
    which.add_argument("--quick", action="store_true", help=f"only {', '.join(QUICK)}")
    parser.add_argument("--output", type=Path, default=Path("faults.json"), help="the file of results (%(default)s)")
    arguments = parser.parse_args(command)
    if arguments.quick:
        arguments.scenario = QUICK
    try:
        results = asyncio.run(run(arguments, lambda text: print(text, flush=True)))
    except ValueError as error:
        parser.error(str(error))
    failures = broken(results["scenarios"])
    print("\n".join(failures))
    return int(bool(failures))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
