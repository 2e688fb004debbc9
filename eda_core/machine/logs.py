"""Records for the ``logs`` exchange: sent while there is a link, otherwise the latest are kept for the next one."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any, Final

from pamqp.commands import Basic

from eda_core.machine.config import Config
from eda_core.machine.effects import Effect, PublishLog
from eda_core.machine.identifiers import Epoch
from eda_core.messages import gelf
from eda_core.messages.codec import JSON
from eda_core.messages.routing import LOGS

#: Logs are not promised to arrive; this many of the latest are kept while there is no link.
KEPT_LOGS: Final = 100


class Logs:
    """Writes GELF records.

    Args:
        wall_offset: seconds since the epoch at monotonic time 0.
    """

    __slots__ = ("_config", "_epoch", "_kept", "_offset")

    def __init__(self, config: Config, wall_offset: float) -> None:
        self._config = config
        self._offset = wall_offset
        self._epoch: Epoch | None = None
        self._kept: deque[tuple[str, bytes]] = deque(maxlen=KEPT_LOGS)

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
        """Send a record, or keep it until there is a link.

        Raises:
            LocalError: the level or a field's name is not allowed.
        """
        config = self._config
        body = gelf.record(
            service=config.service,
            hostname=config.hostname,
            pid=config.pid,
            timestamp=self._offset + now,
            level=gelf.check_level(level),
            short=short,
            full=full,
            conversation_id=conversation_id,
            fields=fields,
        )
        self._kept.append((gelf.routing_key(config.service, level), body))
        self._send(effects)

    def opened(self, epoch: Epoch, effects: list[Effect]) -> None:
        """There is a link: send what was kept."""
        self._epoch = epoch
        self._send(effects)

    def lost(self) -> None:
        """There is no link any more."""
        self._epoch = None

    def _send(self, effects: list[Effect]) -> None:
        while self._kept and self._epoch is not None:
            routing_key, body = self._kept.popleft()
            properties = Basic.Properties(content_type=JSON, delivery_mode=1)
            effects.append(PublishLog(self._epoch, LOGS, routing_key, properties, body))
