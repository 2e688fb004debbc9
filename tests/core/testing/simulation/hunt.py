"""Simulate services in a fresh interpreter: the core is the one in the current directory.

The argument names a test below. It ends with status 0 if everything holds, else with status 1, and prints what failed.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any, ClassVar

import eda_core
from eda_aio import Service
from eda_core.testing.simulation import ALL, NONE, Fault, Simulation, simulate


class Relay(Service):
    """Publishes an event for each that it gets."""

    def __init__(self, urls: list[str]) -> None:
        super().__init__(urls, ["Come"], [], "relay")

    async def on_Come(self, payload: Any, conversation_id: str, meta: dict[str, Any]) -> None:
        await asyncio.sleep(payload["seconds"])
        await self.publish_event("Gone", payload, conversation_id)


class Poisoned(Service):
    """Fails with each message."""

    RETRY_POLICY: ClassVar = eda_core.RetryPolicy(attempts=3)

    def __init__(self, urls: list[str]) -> None:
        super().__init__(urls, ["Come"], [], "poisoned")

    async def on_Come(self, payload: Any, conversation_id: str, meta: dict[str, Any]) -> None:
        raise ValueError("poison")


class Counted(Poisoned):
    """Fails with each message. The count travels with it."""

    RETRY_POLICY: ClassVar = eda_core.RetryPolicy(attempts=3, counted=True)


class Delayed(Poisoned):
    """Fails with each message, and waits before it tries again."""

    RETRY_POLICY: ClassVar = eda_core.RetryPolicy(attempts=3, delays=(0.5,))


class Outside(Service):
    """Publishes from a timer."""

    def __init__(self, urls: list[str]) -> None:
        super().__init__(urls, ["Come"], [], "outside")

    async def on_ready(self) -> None:
        self.call_later(1.0, self.begin)

    async def begin(self) -> None:
        await self.publish_event("Begun", {}, "c1")


def send_three(sim: Simulation) -> None:
    for seconds in (0.2, 0.0, 0.1):  # so that acknowledgements leave a gap
        sim.publish_event("Come", {"seconds": seconds})


def expect_death(sim: Simulation) -> None:
    sim.publish_event("Come", {})
    sim.run()
    sim.expect_dead_letter("Come", at_least=0)


def wait(sim: Simulation) -> None:
    """What is to be published is published by a timer."""


def simulated(test: Any, *services: Any, faults: Any = NONE) -> Any:
    return simulate(*services, faults=faults, runs=100, seed=13)(test)


TESTS = {
    "relay": simulated(send_three, Relay),
    "relay, refused": simulated(send_three, Relay, faults={Fault.REFUSE}),
    "relay, all faults": simulated(send_three, Relay, faults=ALL),
    "poison": simulated(expect_death, Poisoned),
    "poison, drops": simulated(expect_death, Poisoned, faults={Fault.DROP}),
    "poison, all faults": simulated(expect_death, Poisoned, faults=ALL),
    "counted": simulated(expect_death, Counted),
    "counted, all faults": simulated(expect_death, Counted, faults=ALL),
    "delayed": simulated(expect_death, Delayed),
    "delayed, all faults": simulated(expect_death, Delayed, faults=ALL),
    "from outside, drops": simulated(wait, Outside, faults={Fault.DROP}),
    "from outside, all faults": simulated(wait, Outside, faults=ALL),
}


def main(name: str) -> int:
    if Path(eda_core.__file__).parent.parent != Path.cwd():
        raise SystemExit(f"{eda_core.__file__} is not the core in {Path.cwd()}")
    try:
        TESTS[name]()
    except Exception as error:
        print(error, *getattr(error, "__notes__", ()), sep="\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
