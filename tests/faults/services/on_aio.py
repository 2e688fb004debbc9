"""A service of eda_aio for the harness: handles a job by publishing that it is done."""

from __future__ import annotations

import asyncio
from typing import Any

from eda_aio import Service
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


if __name__ == "__main__":
    made = type("Relay", (Relay,), ours.attributes(ASKED))(ASKED.urls, [ASKED.job], [], ASKED.service)
    asyncio.run(made.run())
