"""The severities of log records, as syslog numbers them (RFC 5424, section 6.2.1).

This module does not know who logs what.
"""

from __future__ import annotations

from typing import Final

EMERGENCY: Final = 0  #: The system is unusable.
ALERT: Final = 1  #: Somebody must act at once.
CRITICAL: Final = 2  #: A critical condition.
ERROR: Final = 3  #: An error.
WARNING: Final = 4  #: A warning.
NOTICE: Final = 5  #: Normal, but worth attention.
INFO: Final = 6  #: Information.
DEBUG: Final = 7  #: Messages for debugging.

#: The names of the levels. ``LABELS[level]`` is the last word of a log's routing key, and its ``_levelname``.
LABELS: Final = ("EMERGENCY", "ALERT", "CRITICAL", "ERROR", "WARNING", "NOTICE", "INFO", "DEBUG")
#: The name that ``LABELS`` has in eventail.
CRITICITY_LABELS: Final = LABELS

#: The level of Python's ``logging`` for each level, from 0 to 7.
LOGGING_LEVELS: Final = (50, 50, 50, 40, 30, 20, 20, 10)
