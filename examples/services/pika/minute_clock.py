"""Collects the seconds of ``clock``, and publishes the event ``MinutePassed`` for each sixty of them.

python -m examples.services.pika.minute_clock
"""

from __future__ import annotations

from eda_core import RawEvent
from eda_pika import JSON_MODEL, Batch, ReconnectingSupervisor, Service
from examples.services.common import broker_url, say


class MinuteClock(Service):
    PREFETCH_COUNT = 60  # all seconds of a batch wait for their acknowledgement at the same time

    def __init__(self) -> None:
        super().__init__(broker_url(), ["SecondPassed"], [], "minute_clock")
        self.seconds = Batch(self, 60, 90.0, self.minute_passed)

    def on_ready(self) -> None:
        say("minute_clock: ready")

    def on_SecondPassed(self, payload: JSON_MODEL, conversation_id: str, meta: JSON_MODEL) -> bool:
        self.seconds.push(payload, conversation_id, meta)
        return True  # acknowledged with its batch

    def minute_passed(self, seconds: list[RawEvent]) -> None:
        times = [second.payload["time"] for second in seconds]
        minute = {"seconds": len(times), "first": times[0], "last": times[-1]}
        self.publish_event("MinutePassed", minute, seconds[-1].conversation_id)
        say(f"minute_clock: {len(times)} seconds")


if __name__ == "__main__":
    ReconnectingSupervisor(MinuteClock).run()
