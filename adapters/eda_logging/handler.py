"""The handler: where ``logging`` calls it. :mod:`eda_core.services.log_bridge` decides what becomes of a record."""

from __future__ import annotations

import logging
from typing import Any

from eda_core.services import LogBridge, ServiceApi
from eda_core.services.log_bridge import CAPACITY


class BusHandler(logging.Handler):
    """Sends what a program logs to the exchange ``logs``, as logs of a service: GELF, as ``service.log`` does.

    It never waits, neither for the broker nor for a lock, and raises nothing. Any thread may log, and so may handlers
    of signals. Records are kept until the service is connected. If more than ``capacity`` wait, the oldest are dropped;
    the service says how many, in its local log and on the bus, once in 10 s at most. After the end of the service the
    handler does nothing. What the toolkit itself logs is not sent, and neither is what a client library logs about the
    service's own links.

    Add it once for a process: ``logging.getLogger().addHandler(BusHandler(service))``.

    Args:
        service: of ``eda_aio`` or ``eda_pika``. It may run already, or later.
        level: the least level of records, as in ``logging``.
        capacity: how many records are kept at most.

    Raises:
        LocalError: ``service`` is no service, or ``capacity`` is no whole number from 1.
    """

    def __init__(self, service: ServiceApi[Any], level: int | str = logging.NOTSET, capacity: int = CAPACITY) -> None:
        super().__init__(level)
        self._bridge = LogBridge(service, capacity)

    @property
    def dropped(self) -> int:
        """How many records were dropped so far, because too many waited."""
        return self._bridge.dropped

    def createLock(self) -> None:
        """Have no lock: whoever has it could keep others from their work."""
        self.lock: None = None

    def handle(self, record: logging.LogRecord) -> Any:
        """Send a record if the filters of the handler pass it. See :meth:`emit`."""
        passed: Any = self.filter(record)  # from Python 3.12 on, a filter may give another record
        if passed:
            self.emit(passed if isinstance(passed, logging.LogRecord) else record)
        return passed

    def emit(self, record: logging.LogRecord) -> None:
        """Send a record, soon."""
        self._bridge.put(record)

    def close(self) -> None:
        """Send nothing more. ``logging`` calls this at the end of the program."""
        self._bridge.close()
        super().close()
