"""An application that runs a service beside it: ``python -m uvicorn tests.adapters.aio.webapp:app``.

The service uses the broker at EDA_AMQP_URL; without that there is no service. EDA_TEST_SIGNALS is the argument
``signals`` of its ``run``. At its shutdown the application stops the service, cancels it, or does nothing about it:
EDA_TEST_END is ``stop``, ``cancel`` or ``forget``. ``POST /`` publishes an event, whose handler waits for a
line on stdin. What happens is written to stdout.
"""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

from fastapi import FastAPI

from eda_aio import Service

URL, END = os.environ.get("EDA_AMQP_URL"), os.environ.get("EDA_TEST_END", "stop")
SIGNALS = {"None": None, "True": True, "False": False}[os.environ.get("EDA_TEST_SIGNALS", "None")]


def say(line: str) -> None:
    print(line, flush=True)


class Beside(Service):
    def __init__(self, url: str) -> None:
        super().__init__(url, ["Asked"], [], "beside")
        self.gate = asyncio.Event()

    async def on_ready(self) -> None:
        say("ready")

    async def on_Asked(self, payload: Any, conversation_id: str, meta: dict[str, Any]) -> None:
        say("begun")
        await self.gate.wait()
        await self.publish_event("Answered", payload, conversation_id)
        say("handled")


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    if URL is None:
        yield
        return
    service = app.state.service = Beside(URL)
    asyncio.get_running_loop().add_reader(sys.stdin.fileno(), service.gate.set)
    run = asyncio.create_task(service.run(signals=SIGNALS))
    run.add_done_callback(lambda _: say("service ended"))
    yield
    say("shutdown")
    if END == "stop":
        await service.stop()
        await run
    elif END == "cancel":
        run.cancel()
        with suppress(asyncio.CancelledError):
            await run


app = FastAPI(lifespan=lifespan)


@app.post("/")
async def ask() -> None:
    await app.state.service.publish_event("Asked", 1, "c")
