"""A worker for tests that send signals: ``python -m tests.adapters.aio.worker [custom | native]``.

It uses the broker at EDA_AMQP_URL.

With ``native`` its transport is that one. With ``custom`` it is of the class in ``examples/custom_service.py``, which
leaves signals to the program. Handles the event ``Job``: writes "begun N", waits for a line on stdin if the payload
says so, publishes ``JobDone`` and writes "done N". Its local log goes to stdout as well; after the end it writes
whether signals have their handlers back. WORKER_STOP_TIMEOUT is its STOP_TIMEOUT.
"""

import asyncio
import logging
import os
import signal
import sys
from typing import Any

import eda_aio
from examples import custom_service
from tests.support.native import NativeService

CUSTOM = sys.argv[1:] == ["custom"]
Service: Any = custom_service.Service if CUSTOM else NativeService if sys.argv[1:] == ["native"] else eda_aio.Service


class Worker(Service):  # type: ignore[misc]
    PREFETCH_COUNT = 5
    STOP_TIMEOUT = float(os.environ.get("WORKER_STOP_TIMEOUT", "30"))

    def __init__(self, url: str) -> None:
        super().__init__(url, ["Job"], [], "worker")
        self.gate = asyncio.Event()

    async def on_ready(self) -> None:
        if CUSTOM:
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, self.running_driver().interrupt)
        print("ready", flush=True)

    async def on_Job(self, payload: dict[str, Any], conversation_id: str, meta: dict[str, Any]) -> None:
        number = payload["number"]
        print("begun", number, flush=True)
        if payload["waits"]:
            await self.gate.wait()
        await self.publish_event("JobDone", number, conversation_id)
        print("done", number, flush=True)


def handlers() -> list[Any]:
    return [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]


async def main() -> None:
    worker, before = Worker(os.environ["EDA_AMQP_URL"]), handlers()
    asyncio.get_running_loop().add_reader(sys.stdin.fileno(), worker.gate.set)
    await worker.run()
    print("restored" if CUSTOM or handlers() == before else "not restored", flush=True)


if __name__ == "__main__":
    logging.basicConfig(stream=sys.stdout, level=logging.INFO, format="%(message)s")
    asyncio.run(main())
