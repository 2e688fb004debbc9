"""eda_pika, and eventail, whose names it has. The variant says which."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from benchmarks.peers.programs.work import ANSWERED, PREFETCH, Task, begin, payload, task


def service(module: Any, task: Task) -> Any:
    """The class for the work."""

    class Relay(module.Service):  # type: ignore[misc]  # whichever it is
        PREFETCH_COUNT = PREFETCH

        def handle_event(self, event: str, payload: Any, conversation_id: str, meta: Any) -> None:
            self.publish_event(ANSWERED, payload, conversation_id)

    class Consumer(module.Service):  # type: ignore[misc]
        PREFETCH_COUNT = PREFETCH

        def handle_event(self, event: str, payload: Any, conversation_id: str, meta: Any) -> None:
            pass

    class Publisher(module.Service):  # type: ignore[misc]
        BUFFER = task.count + 1  # WINDOW of them are unconfirmed at the same time, by default

        def on_ready(self) -> None:
            begin()
            message = payload(task.size)
            for _ in range(task.count):
                self.publish_event(ANSWERED, message, "c")

    return {"relay": Relay, "consume": Consumer, "publish": Publisher}[task.work]


def main(task: Task) -> None:
    module = import_module({"eda_pika": "eda_pika", "eventail": "eventail.async_service.pika"}[task.variant])
    keys = [] if task.work == "publish" else task.keys
    module.ReconnectingSupervisor(service(module, task), [task.url], keys, [], task.service).run()


if __name__ == "__main__":
    main(task())
