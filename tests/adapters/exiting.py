"""A service whose user code ends the program: ``python -m tests.adapters.exiting ADAPTER PLACE WAY``.

A first handler does not end by itself, if the adapter can run a second one beside it. The time for a stop is longer
than a test waits.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from typing import Any, ClassVar

import eda_aio
import eda_pika
from examples import custom_service
from tests.support.native import NativeService

Meta = dict[str, Any]


def leave() -> None:
    """End the program as the second argument says."""
    if sys.argv[3] == "interrupt":
        raise KeyboardInterrupt
    raise SystemExit(3)


class Settings:
    """What all services here have in common.

    Attributes:
        batch: its callback ends the program: within the handler of its only event, or, if the batch does not get full,
            in a timer.
    """

    STOP_TIMEOUT: ClassVar[float] = 600
    batch: Any


class OnCoroutines(Settings):
    async def on_Begun(self, payload: Any, conversation_id: str, meta: Meta) -> None:
        print("begun", flush=True)
        await asyncio.Event().wait()

    async def on_Leave(self, payload: Any, conversation_id: str, meta: Meta) -> bool | None:
        service: Any = self
        if sys.argv[2] == "handler":
            leave()
        elif sys.argv[2] == "timer":
            service.call_later(0.0, leave)
        elif "batch" in sys.argv[2]:
            await self.batch.push(payload, conversation_id, meta)
            return True
        else:
            await service.publish_event("Nobody", 1, conversation_id, mandatory=True)
        return None

    async def on_ready(self) -> None:
        if sys.argv[2] == "on_ready":
            leave()
        print("ready", flush=True)

    async def on_unconfigured(self) -> None:
        if sys.argv[2] == "on_unconfigured":
            leave()

    async def handle_returned_message(self, key: str, payload: Any, envelope: Meta) -> None:
        leave()


class OnCallbacks(Settings):
    def on_Begun(self, payload: Any, conversation_id: str, meta: Meta) -> None:
        print("begun", flush=True)
        if getattr(self, "HANDLER_THREADS", 0):
            threading.Event().wait()

    def on_Leave(self, payload: Any, conversation_id: str, meta: Meta) -> bool | None:
        service: Any = self
        if sys.argv[2] == "handler":
            leave()
        elif sys.argv[2] == "timer":
            service.call_later(0.0, leave)
        elif "batch" in sys.argv[2]:
            self.batch.push(payload, conversation_id, meta)
            return True
        else:
            service.publish_event("Nobody", 1, conversation_id, mandatory=True)
        return None

    def on_ready(self) -> None:
        if sys.argv[2] == "on_ready":
            leave()
        print("ready", flush=True)

    def on_unconfigured(self) -> None:
        if sys.argv[2] == "on_unconfigured":
            leave()

    def handle_returned_message(self, key: str, payload: Any, envelope: Meta) -> None:
        leave()


class Aio(OnCoroutines, eda_aio.Service):
    pass


class Native(OnCoroutines, NativeService):
    pass


class Custom(OnCoroutines, custom_service.Service):
    pass


class Pika(OnCallbacks, eda_pika.Service):
    pass


class PikaThreads(Pika):
    HANDLER_THREADS = 3


ADAPTERS: dict[str, type[Any]] = {
    "eda_aio": Aio,
    "native": Native,
    "custom": Custom,
    "eda_pika": Pika,
    "eda_pika/3": PikaThreads,
}


def nobody_sends_it(*_arguments: Any) -> None:
    """Take a configuration."""


def main() -> None:
    kind = ADAPTERS[sys.argv[1]]
    configurations = ["Settings"] if sys.argv[2] == "on_unconfigured" else []
    if configurations:
        kind = type(kind.__name__, (kind,), {"on_Settings": nobody_sends_it})
    service = kind(os.environ["EDA_AMQP_URL"], ["Begun", "Leave"], [], "leaving", configurations)
    batches: Any = eda_aio if issubclass(kind, OnCoroutines) else eda_pika
    service.batch = batches.Batch(service, 1 if sys.argv[2] == "batch" else 2, 0.1, lambda _: leave())
    ran = service.run()
    if ran is not None:
        asyncio.run(ran)


if __name__ == "__main__":
    main()
