"""How fast simulations run: ``python -m benchmarks.simulation``.

A message counts when a handler has handled it. ``--check`` fails below 1,000 messages per second of processor time, or
if 500 runs of the conversations pipeline with all faults take more than 60 seconds of it.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import sys
import time
from typing import Any

from eda_aio import Service
from eda_core.testing.simulation import Deployed, Simulation, simulate
from examples.conversations.anonymizer import Anonymizer
from examples.conversations.archive import Archive
from examples.conversations.store import ARCHIVED, Store
from examples.conversations.tagger import Tagger

#: What ``--check`` asks for: messages per second, and seconds for the runs.
LEAST, MOST = 1_000, 60.0
RUNS = 500
TEXT = "Hello, I am Ann Lee, and I call about the bill of 12 May. My number is 555-0134."


class Relay(Service):
    """Publishes one event for each event."""

    def __init__(self, urls: list[str]) -> None:
        super().__init__(urls, ["Asked"], [], "relay")

    async def on_Asked(self, payload: Any, conversation_id: str, meta: dict[str, Any]) -> None:
        await self.publish_event("Answered", payload, conversation_id)


class Sink(Service):
    """Takes what the relay publishes."""

    def __init__(self, urls: list[str]) -> None:
        super().__init__(urls, ["Answered"], [], "sink")

    async def on_Answered(self, payload: Any, conversation_id: str, meta: dict[str, Any]) -> None:
        pass


def relayed(count: int) -> float:
    """Return how many messages are handled in one second of processor time, in a run with ``count`` events."""
    with Simulation([Relay, Sink], workers=2) as sim:
        began = time.process_time()
        for number in range(count):
            sim.publish_event("Asked", {"number": number}, "c")
            if number % 20 == 19:
                sim.run()
        sim.finish()
        seconds = time.process_time() - began
        sim.expect_event("Answered", at_least=count)
    return 2 * count / seconds


def pipeline(runs: int) -> float:
    """Return how many seconds of processor time so many runs of the pipeline take, with all faults."""

    @simulate(Deployed(Archive, store=lambda: Store(":memory:")), Anonymizer, Tagger, workers=2, runs=runs, seed=1)
    def archived(sim: Simulation) -> None:
        sim.publish_event("ConversationReceived", {"name": "call.txt", "text": TEXT}, "c1")
        sim.run()
        assert sim.stored(Archive, "c1").state == ARCHIVED

    began = time.process_time()
    with contextlib.redirect_stdout(io.StringIO()):  # the workers of the example say when they are ready
        archived()
    return time.process_time() - began


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.simulation", description=__doc__.partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="fail if it is slower than promised")
    check = parser.parse_args().check
    rate, seconds = relayed(2_000), pipeline(RUNS)
    print(f"{rate:,.0f} messages handled per second of processor time")
    print(f"{RUNS} runs of the conversations pipeline with all faults: {seconds:.1f} s of processor time")
    return 1 if check and (rate < LEAST or seconds > MOST) else 0


if __name__ == "__main__":
    sys.exit(main())
