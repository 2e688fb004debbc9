"""eda_aio. The variant is its transport."""

from __future__ import annotations

import asyncio
from typing import Any

from benchmarks.peers.programs.work import ANSWERED, PREFETCH, WINDOW, Task, ask, begin, payload, spread, task
from eda_aio import Service


class Bench(Service):
    PREFETCH_COUNT = PREFETCH


class Relay(Bench):
    async def handle_event(self, event: str, payload: Any, conversation_id: str, meta: Any) -> None:
        await self.publish_event(ANSWERED, payload, conversation_id)


class Consumer(Bench):
    async def handle_event(self, event: str, payload: Any, conversation_id: str, meta: Any) -> None:
        pass


class Server(Bench):
    async def on_Ask(
        self, payload: Any, conversation_id: str, reply_to: str, correlation_id: str, meta: dict[str, Any]
    ) -> Any:
        return payload


async def use(service: Service, task: Task) -> None:
    """Publish, or call, with a service that runs meanwhile."""
    running = asyncio.create_task(service.run())
    await service.wait_until_ready()
    message = payload(task.size)
    if task.work == "publish":
        begin()
        await spread(task.count, WINDOW, lambda: service.publish_event(ANSWERED, message, "c"))
    else:
        await ask(task, lambda: service.call(f"{task.service}.Ask", message, conversation_id="c"))
    await running


async def main(task: Task) -> None:
    if task.work == "serve":
        await Server(task.url, [], [f"{task.service}.Ask"], task.service, transport=task.variant).run()
    elif task.work in ("relay", "consume"):
        made = Relay if task.work == "relay" else Consumer
        await made(task.url, task.keys, [], task.service, transport=task.variant).run()
    else:
        await use(Bench(task.url, [], [], f"{task.service}client", transport=task.variant), task)


if __name__ == "__main__":
    asyncio.run(main(task()))
