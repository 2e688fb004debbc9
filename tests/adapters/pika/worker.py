"""A worker for tests that send signals: ``python -m tests.adapters.pika.worker [THREADS]``, on the broker at
EDA_AMQP_URL. WORKER_STOP_TIMEOUT is its STOP_TIMEOUT.

Handles the event ``Job``: writes "begun N", waits for a byte on stdin if the payload says so, publishes ``JobDone`` and
writes "done N". Its local log goes to stdout as well; after the end it writes which signals have their handlers back.
"""

import logging
import os
import signal
import sys
from typing import Any

from eda_pika import ReconnectingSupervisor, Service


def say(line: str) -> None:
    """Write the line in one piece, whatever other threads write."""
    os.write(1, f"{line}\n".encode())


class Worker(Service):
    PREFETCH_COUNT = 5
    HANDLER_THREADS = int(sys.argv[1]) if len(sys.argv) > 1 else 0
    STOP_TIMEOUT = float(os.environ.get("WORKER_STOP_TIMEOUT", "30"))

    def on_ready(self) -> None:
        say("ready")

    def on_Job(self, payload: dict[str, Any], conversation_id: str, meta: dict[str, Any]) -> None:
        number = payload["number"]
        try:
            say(f"begun {number}")
            if payload["waits"]:
                os.read(0, 1)  # not by sys.stdin, whose buffer one thread would empty for all
        finally:
            say(f"left {number}")
        self.publish_event("JobDone", number, conversation_id)
        say(f"done {number}")


if __name__ == "__main__":
    logging.basicConfig(stream=sys.stdout, level=logging.INFO, format="%(message)s")
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    ReconnectingSupervisor(Worker, os.environ["EDA_AMQP_URL"], ["Job"], [], "worker").run()
    after = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    say("restored" if after == before and signal.set_wakeup_fd(-1) == -1 else "not restored")
