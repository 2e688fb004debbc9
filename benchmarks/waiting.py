"""What a publish costs while many coroutines wait for space, as a ratio: ``python -m benchmarks.waiting``.

So many coroutines of one eda_aio service publish at the same time, each one event. The time per event must not depend
on how many wait. The broker is found as by ``benchmarks.endpoint``. No queue is declared.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time

from benchmarks.endpoint import broker
from eda_aio import Service

#: How many coroutines wait. The first number is the measure.
NUMBERS = (10_000, 100_000)
#: A publish among the largest number may cost so many times what it costs among the smallest.
BOUND = 2.0


class Source(Service):
    """Publishes, and says when it is ready."""

    def __init__(self, url: str) -> None:
        super().__init__([url], [], [], "bench")
        self.ready = asyncio.Event()

    async def on_ready(self) -> None:
        self.ready.set()


async def seconds_each(url: str, number: int) -> float:
    """The seconds per event of so many publishes at the same time."""
    source = Source(url)
    run = asyncio.create_task(source.run())
    await source.ready.wait()
    begin = time.perf_counter()
    await asyncio.gather(*(source.publish_event("Waited", n, "bench") for n in range(number)))
    took = time.perf_counter() - begin
    await source.stop()
    await run
    return took / number


def main() -> int:
    """Print the costs, and their ratio. With ``--check`` the status is 1 if it is above the bound."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help=f"fail if the ratio is above {BOUND}")
    arguments = parser.parse_args()
    with broker() as (url, _):
        costs = [asyncio.run(seconds_each(url, number)) for number in NUMBERS]
    for number, cost in zip(NUMBERS, costs, strict=True):
        print(f"{number:>7,} coroutines: {cost * 1e6:6.0f} us for each publish")
    ratio = costs[-1] / costs[0]
    print(f"ratio {ratio:.2f}, at most {BOUND}")
    return int(arguments.check and ratio > BOUND)


if __name__ == "__main__":
    sys.exit(main())
