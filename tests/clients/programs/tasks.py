"""Tasks of Celery, with results by rpc. The URL of the broker is in ``EDA_AMQP_URL``."""

from __future__ import annotations

import os
from typing import Any

from celery import Celery

app = Celery("tasks", broker=os.environ.get("EDA_AMQP_URL"), backend="rpc://")
app.conf.broker_connection_retry_on_startup = True


@app.task
def add(a: int, b: int) -> int:
    """Return the sum."""
    return a + b


@app.task
def divide(a: int, b: int) -> float:
    """Fail, if asked to."""
    return a / b


@app.task(bind=True, max_retries=5)
def succeed_later(self: Any, times: int) -> int:
    """Fail so many times, be tried again a little later, and return how often that was."""
    if self.request.retries < times:
        raise self.retry(countdown=0.1)
    return int(self.request.retries)


@app.task(acks_late=True)
def late(text: str) -> str:
    """Return the text, and be acknowledged only then."""
    return text[::-1]
