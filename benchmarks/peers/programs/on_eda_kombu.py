"""eda_kombu. The variant is how it publishes: many, or one by one."""

from __future__ import annotations

import time

from benchmarks.peers.programs.work import ANSWERED, Task, begin, payload, task
from eda_kombu import Endpoint


def main(task: Task) -> None:
    with Endpoint([task.url], "bench") as endpoint:
        message = payload(task.size)
        endpoint.publish_event("Prepared", message, "c")  # connects
        begin()
        if task.variant == "many":
            endpoint.publish_many((ANSWERED, message, "c") for _ in range(task.count))
        else:
            for _ in range(task.count):
                endpoint.publish_event(ANSWERED, message, "c")
        while True:
            time.sleep(3600)  # until it is ended


if __name__ == "__main__":
    main(task())
