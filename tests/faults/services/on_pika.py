"""A service of eda_pika for the harness: handles a job by publishing that it is done."""

from __future__ import annotations

import time
from typing import Any

from eda_pika import Service
from tests.faults.services import common, ours

ASKED = common.settings()


class Relay(Service):
    def on_ready(self) -> None:
        ASKED.note(common.READY)

    def handle_event(self, name: str, payload: Any, conversation_id: str, meta: dict[str, Any]) -> None:
        time.sleep(ASKED.begin(payload))
        if ASKED.publishes:
            self.publish_event(ASKED.done, ASKED.result(payload), conversation_id)
        ASKED.note(common.DONE, payload["number"])


if __name__ == "__main__":
    type("Relay", (Relay,), ours.attributes(ASKED))(ASKED.urls, [ASKED.job], [], ASKED.service).run()
