"""The syslog severities (RFC 5424, section 6.2.1) under the names that the log bus uses."""

from __future__ import annotations

from typing import Final

EMERGENCY: Final = 0
ALERT: Final = 1
CRITICAL: Final = 2
ERROR: Final = 3
WARNING: Final = 4
NOTICE: Final = 5
INFO: Final = 6
DEBUG: Final = 7

#: ``LABELS[level]`` is the last word of a log's routing key and its ``_levelname``.
LABELS: Final = ("EMERGENCY", "ALERT", "CRITICAL", "ERROR", "WARNING", "NOTICE", "INFO", "DEBUG")
#: eventail's name for them.
CRITICITY_LABELS: Final = LABELS

#: The level of Python's ``logging`` for each.
LOGGING_LEVELS: Final = (50, 50, 50, 40, 30, 20, 20, 10)
