"""The blocking driver on kombu: one machine, and one link at a time."""

from __future__ import annotations

import logging
import random
import secrets
import time
from collections import deque
from ssl import SSLContext
from typing import Any

from eda_core import Config, Connect, Machine, criticality
from eda_core.blocking import BlockingDriver
from eda_kombu.transport import Link

LOGGER = logging.getLogger("eda_kombu")

#: Arguments of the machine's ``log``.
Record = tuple[tuple[int, str, float], dict[str, Any]]


class Session(BlockingDriver):
    """See :class:`BlockingDriver`."""

    def __init__(self, config: Config, ssl: SSLContext | None, records: deque[Record]) -> None:
        offset = time.time() - self.now()
        super().__init__(Machine(config, random=random.random, token=secrets.token_hex(6), wall_offset=offset))
        self._ssl = ssl
        self._link: Link | None = None
        self.used: float = self.now()
        self._records = records

    def take_records(self) -> None:
        """Log what waits for it now; others may write faster than it can be sent."""
        for _ in range(len(self._records)):
            arguments, named = self._records.popleft()
            self.feed(self.machine.log(*arguments, **named))

    def log(self) -> None:
        """The same; without a link one attempt is made to get one, unless the last one was a moment ago."""
        self.take_records()
        self.begin()
        self.tick_if_due()
        if self._link is not None and self._link.up:
            self._link.look()

    def is_fit(self) -> bool:
        """Whether it can be used once more: after a pause the broker takes us for dead, and the other way round."""
        is_open = self._link is not None and self._link.up
        return not self.over and not (is_open and 0 < self.machine.config.heartbeat <= self.now() - self.used)

    # The driver's part

    def now(self) -> float:
        return time.monotonic()

    def open(self, effect: Connect) -> Link:
        self.links.clear()
        self._link = Link(effect, self)
        self._link.open(self.connect_timeout(), self._ssl)
        return self._link

    def pause(self, seconds: float) -> None:
        self.take_records()
        if self._link is not None and self._link.up:
            self._link.read(seconds)
        elif seconds > 0:
            time.sleep(seconds)

    def abort(self) -> None:
        if self._link is not None:
            self._link.abort()

    def report(self, level: int, text: str) -> None:
        LOGGER.log(criticality.LOGGING_LEVELS[level], "%s", text)
