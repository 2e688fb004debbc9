"""Sends log records to the ``logs`` exchange, or keeps the latest while there is no link.

It does not decide what is logged. It knows nothing of the link but its epoch.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Final

from pamqp.commands import Basic

from eda_core.machine.config import Config
from eda_core.machine.effects import Effect, PublishLog
from eda_core.machine.identifiers import Epoch
from eda_core.messages import gelf
from eda_core.messages.codec import JSON
from eda_core.messages.routing import LOGS

#: How many of the latest records are kept while there is no link. Older ones are dropped.
KEPT_LOGS: Final = 100
#: How far the wall clock must be set, in seconds, for time stamps to follow. Smaller differences come from the moments
#: at which the two clocks are read, and would change the order of records.
_LEAST_STEP: Final = 0.1

#: What to add to monotonic seconds to get seconds since 1970 (POSIX time). A function, if that clock may be set.
WallOffset = float | Callable[[], float]


class Logs:
    """The log records of one service."""

    __slots__ = ("_config", "_epoch", "_kept", "_offset", "_read_offset", "_told")

    def __init__(self, config: Config, wall_offset: WallOffset) -> None:
        self._config = config
        self._read_offset = wall_offset
        self._offset = wall_offset() if callable(wall_offset) else wall_offset
        self._epoch: Epoch | None = None
        self._kept: deque[tuple[str, bytes]] = deque(maxlen=KEPT_LOGS)
        #: Why the broker has closed the channel for logs so far: the names of the reply codes.
        self._told: set[str] = set()

    def write(
        self,
        level: int,
        short: str,
        now: float,
        effects: list[Effect],
        *,
        full: str = "",
        conversation_id: str = "",
        fields: Mapping[str, Any] | None = None,
    ) -> None:
        """Send a record, or keep it until there is a link. Arguments and errors are those of ``Machine.log``."""
        config = self._config
        body = gelf.record(
            service=config.service,
            hostname=config.hostname,
            pid=config.pid,
            timestamp=self.wall_time(now),
            level=gelf.check_level(level),
            short=short,
            full=full,
            conversation_id=conversation_id,
            fields=fields,
        )
        self._kept.append((gelf.routing_key(config.service, level), body))
        self._send(effects)

    @property
    def open(self) -> bool:
        """Whether a record is sent at once."""
        return self._epoch is not None

    def opened(self, epoch: Epoch, effects: list[Effect]) -> None:
        """Note that the link is open, and send the records that were kept."""
        self._epoch = epoch
        self._send(effects)

    def channel_closed(self, reason: str) -> bool:
        """Send nothing on this link: the broker has closed the channel. Returns whether the reason is a new one.

        What follows the name of the reply code, such as the size of a record, makes no other reason.
        """
        self._epoch = None
        code = reason.partition(" - ")[0]
        known = code in self._told
        self._told.add(code)
        return not known

    def lost(self) -> None:
        """Note that the link is lost."""
        self._epoch = None

    def wall_time(self, now: float) -> float:
        """Return the time in seconds since 1970 (POSIX time)."""
        return self._wall_offset() + now

    def _wall_offset(self) -> float:
        if callable(self._read_offset):
            offset = self._read_offset()
            if abs(offset - self._offset) >= _LEAST_STEP:
                self._offset = offset
        return self._offset

    def _send(self, effects: list[Effect]) -> None:
        while self._kept and self._epoch is not None:
            routing_key, body = self._kept.popleft()
            properties = Basic.Properties(content_type=JSON, delivery_mode=1)
            effects.append(PublishLog(self._epoch, LOGS, routing_key, properties, body))
