"""What the programs of the harness have in common. It imports nothing but Python: eventail's programs use it as well.

A program gets its settings as JSON in its only argument, and writes what happens into its journal, a file: a line for
each step, with the number of the job and the time (``time.monotonic()``, which all processes of a machine share).
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

#: Steps: the service is ready (with the number of asyncio's tasks); a job is begun, done, failed (with its number).
READY, BEGUN, DONE, FAILED = "R", "B", "D", "F"


class Poison(Exception):
    """What the handler raises for a job that is to fail."""


class Settings:
    """The program's settings.

    Attributes:
        urls: brokers.
        service: the logical service, and the name of its events.
        job, done: names of events: those that it handles, and those that it publishes.
        attributes: of the class of the service.
        rate: jobs per second, of programs that only publish.
        first: the number of the first of those.
        work: seconds that a handler takes.
        publishes: whether a handler publishes that its job is done.
    """

    def __init__(self, text: str) -> None:
        given: dict[str, Any] = json.loads(text)
        self.urls: list[str] = given["urls"]
        self.service: str = given["service"]
        self.job: str = given["job"]
        self.done: str = given["done"]
        self.attributes: dict[str, Any] = given["attributes"]
        self.rate: float = given["rate"]
        self.first: int = given["first"]
        self.work: float = given.get("work", 0)
        self.publishes: bool = given.get("publishes", True)
        self._journal = os.open(given["journal"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def note(self, step: str, number: int = 0) -> None:
        """Write a line into the journal, in one piece, whatever other threads write."""
        os.write(self._journal, f"{step} {number} {time.monotonic():.6f}\n".encode())

    def begin(self, job: dict[str, Any]) -> float:
        """Begin a job; the seconds that the handler is to take."""
        self.note(BEGUN, job["number"])
        return float(job.get("work", self.work))

    @staticmethod
    def result(job: dict[str, Any]) -> dict[str, Any]:
        """The payload of what the handler publishes. Raises Poison if the job says so."""
        number = job["number"]
        if job.get("poison"):
            raise Poison(number)
        return {"number": number, "pad": bytes(job["size"])} if job.get("size") else {"number": number}


def settings() -> Settings:
    """The settings of this program. Its log goes to stderr, from WARNING on, which is the default of Python."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    return Settings(sys.argv[1])


def publish_until_told(asked: Settings, publish: Callable[[str, dict[str, Any], str], object]) -> None:
    """Publish one job after another, at the rate that is asked for, until SIGTERM. Each failure is noted."""
    over = False

    def stop(*_: object) -> None:
        nonlocal over
        over = True

    signal.signal(signal.SIGTERM, stop)
    asked.note(READY)
    number, due = asked.first, time.monotonic()
    while not over:
        asked.note(BEGUN, number)
        try:
            publish(asked.done, {"number": number}, f"conversation {number}")
        except Exception as error:
            logging.getLogger("harness").error("job %d: %s", number, error)
            asked.note(FAILED, number)
        else:
            asked.note(DONE, number)
        number += 1
        due = max(due + 1 / asked.rate, time.monotonic() - 1)
        time.sleep(max(0.0, due - time.monotonic()))
