"""Waits for its configuration, the event ``GreetingChosen``; then it answers the command ``greeter.Greet``.

python -m examples.services.aio.greeter

While it waits it publishes the event ``GreetingWanted``. To configure it, in another terminal:

python -m examples.services.configure "Good morning"
"""

from __future__ import annotations

import asyncio
from uuid import uuid4

from eda_aio import JSON_MODEL, Service
from examples.services.common import broker_url, say


class Greeter(Service):
    greeting = ""

    async def on_unconfigured(self) -> None:
        say("greeter: waits for its configuration")
        await self.publish_event("GreetingWanted", {"by": self.logical_service}, str(uuid4()))

    async def on_GreetingChosen(self, payload: JSON_MODEL, meta: JSON_MODEL) -> bool:
        self.greeting = str(payload.get("greeting", ""))
        return self.greeting != ""  # whether it can begin

    async def on_ready(self) -> None:
        say("greeter: ready")

    async def on_Greet(
        self, payload: JSON_MODEL, conversation_id: str, reply_to: str, correlation_id: str, meta: JSON_MODEL
    ) -> JSON_MODEL:
        return {"greeting": f"{self.greeting}, {payload.get('name', 'stranger')}!"}


if __name__ == "__main__":
    asyncio.run(Greeter(broker_url(), [], ["greeter.Greet"], "greeter", ["GreetingChosen"]).run())
