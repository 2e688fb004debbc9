"""A service of eventail for the harness, which is run where eventail is installed: publishes that a job is done."""

from __future__ import annotations

import time
from typing import Any

from eventail.async_service.pika import ReconnectingSupervisor, Service

from tests.faults.services import common

ASKED = common.settings()


class Relay(Service):  # type: ignore[misc]
    def on_ready(self) -> None:
        ASKED.note(common.READY)

    def handle_event(self, name: str, payload: Any, conversation_id: str, meta: dict[str, Any]) -> None:
        time.sleep(ASKED.begin(payload))
        if ASKED.publishes:
            self.publish_event(ASKED.done, ASKED.result(payload), conversation_id)
        ASKED.note(common.DONE, payload["number"])


if __name__ == "__main__":
    made = type("Relay", (Relay,), ASKED.attributes)
    ReconnectingSupervisor(made, ASKED.urls, [ASKED.job], [], ASKED.service).run()
