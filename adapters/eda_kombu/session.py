"""The blocking driver on kombu: one machine, and one link at a time.

It decides how to sleep, and how to open a link. It does not know what is published.
"""

from __future__ import annotations

import logging
import random
import secrets
import time
from collections import deque
from ssl import SSLContext

from eda_core import Config, Connect, Machine
from eda_core.drivers.blocking import BlockingDriver, Record
from eda_core.drivers.library import write_report
from eda_kombu.transport import KombuLink

LOGGER = logging.getLogger("eda_kombu")


class Session(BlockingDriver):
    """See :class:`BlockingDriver`."""

    def __init__(self, config: Config, records: deque[Record], ssl: SSLContext | None) -> None:
        token, offset = secrets.token_hex(6), lambda: time.time() - self.now()
        machine = Machine(config, random=random.random, token=token, wall_offset=offset)
        super().__init__(machine, records)
        self._ssl = ssl

    def now(self) -> float:
        return time.monotonic()

    def open(self, effect: Connect) -> KombuLink:
        self.links.clear()
        link = KombuLink(effect, self)
        link.open(self.connect_timeout(), self._ssl)
        return link

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)

    def report(self, level: int, text: str, event: str) -> None:
        write_report(LOGGER, level, text, event)
