"""A service on the transport of examples/ for the harness: handles a job by publishing that it is done."""

from __future__ import annotations

import asyncio
import signal
from typing import Any

from examples.custom_service import Service
from tests.faults.services import common, ours

ASKED = common.settings()


class Relay(Service):
    async def on_ready(self) -> None:
        ASKED.note(common.READY, len(asyncio.all_tasks()))

    async def handle_event(self, name: str, payload: Any, conversation_id: str, meta: dict[str, Any]) -> None:
        await asyncio.sleep(ASKED.begin(payload))
        if ASKED.publishes:
            await self.publish_event(ASKED.done, ASKED.result(payload), conversation_id)
        ASKED.note(common.DONE, payload["number"])


async def main() -> None:
    relay = type("Relay", (Relay,), ours.attributes(ASKED))(ASKED.urls, [ASKED.job], [], ASKED.service)
    run = asyncio.create_task(relay.run())
    await asyncio.sleep(0)  # it has begun, and can be interrupted
    # The class leaves signals to the program.
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, relay.running_driver().interrupt)
    await run


if __name__ == "__main__":
    asyncio.run(main())
