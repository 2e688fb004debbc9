"""Answers the command ``pong.Ping`` of ``ping``.

python -m examples.services.aio.pong
"""

from __future__ import annotations

import asyncio
import os

from eda_aio import JSON_MODEL, Service
from examples.services.common import broker_url, say


class Pong(Service):
    async def on_ready(self) -> None:
        say("pong: ready")

    async def on_Ping(
        self, payload: JSON_MODEL, conversation_id: str, reply_to: str, correlation_id: str, meta: JSON_MODEL
    ) -> JSON_MODEL | None:
        try:
            answer = {"sent": payload["sent"], "worker": os.getpid()}
        except (KeyError, TypeError):  # the sender's mistake is for the sender; what is raised from here is ours
            await self.return_error(
                reply_to, {"reason": "a ping tells when it was sent"}, conversation_id, correlation_id
            )
            return None
        return answer


if __name__ == "__main__":
    asyncio.run(Pong(broker_url(), [], ["pong.Ping"], "pong").run())
