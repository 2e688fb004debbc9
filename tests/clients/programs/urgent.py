"""Tasks of Celery in a queue with priorities, and who sends them: prints the order in which they were done."""

from __future__ import annotations

import os

import celery
from celery import Celery

from tests.clients.programs.calls import LIMIT

app = Celery("urgent", broker=os.environ.get("EDA_AMQP_URL"), backend="rpc://")
app.conf.broker_connection_retry_on_startup = True
app.conf.task_queue_max_priority = 10
app.conf.task_acks_late = True  # so that the worker has one task at a time
app.conf.worker_prefetch_multiplier = 1

_done = 0


@app.task(name="numbered")
def numbered() -> int:
    """Return how many were done before."""
    global _done
    _done += 1
    return _done - 1


def main() -> None:
    """Send tasks, the least urgent ones first."""
    priorities = (0, 5, 9, 0, 5, 9)
    sent = celery.group(numbered.s().set(priority=priority) for priority in priorities)()
    print("sent", flush=True)
    order = dict(zip(sent.get(LIMIT), priorities, strict=True))
    print(*(order[place] for place in sorted(order)), flush=True)


if __name__ == "__main__":
    main()
