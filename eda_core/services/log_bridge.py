"""Sends what a program logs to the bus: what becomes of a record, what is kept, what is dropped, and who is told.

The core does not import ``logging``: ``eda_logging`` has the handler, and gives each record to a :class:`LogBridge`.
"""

from __future__ import annotations

import itertools
import re
import traceback
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from eda_core.criticality import CRITICAL, DEBUG, ERROR, INFO, NOTICE, WARNING
from eda_core.drivers.base import Driver
from eda_core.drivers.handling import run_of
from eda_core.errors import LocalError
from eda_core.machine import events
from eda_core.machine.effects import Effect
from eda_core.machine.machine import Machine
from eda_core.machine.outcomes import PACKAGES
from eda_core.services.api import ServiceApi

#: How many records wait for a link at most, by default.
CAPACITY: Final = 1_000
#: How many records are sent in one go. The loop has its turn between two.
_AT_ONCE: Final = 100
#: A service that works off thousands of logs at once forgets the oldest calls. So it is called again after so many.
_CALLED_AGAIN: Final = 256
#: Seconds between two lines about records that were dropped.
_QUIET: Final = 10.0

#: The loggers of this toolkit, by the first word of their names. What is to be on the bus the machine logs itself.
_OWN: Final = frozenset({*PACKAGES, "eda_logging", "eda_otel", "eda_probe"})

#: From which level of ``logging`` on a record has which severity.
_SEVERITIES: Final = ((50, CRITICAL), (40, ERROR), (30, WARNING), (25, NOTICE), (20, INFO))

#: What each record of ``logging`` has. All other attributes are what its author has added.
_USUAL: Final = frozenset(
    """args asctime created eda_event exc_info exc_text filename funcName levelname levelno lineno message module msecs
    msg name pathname process processName relativeCreated stack_info taskName thread threadName""".split()
)
#: The fields that a record on the bus has in any case, and those that GELF keeps for itself.
_TAKEN: Final = frozenset("id conversation_id levelname logical_service worker_pid".split())
#: What GELF allows for the name of a field.
_NAME: Final = re.compile(r"[\w.-]+", re.ASCII)


class Record(Protocol):
    """What is read of a ``logging.LogRecord``."""

    name: str
    levelno: int
    created: float
    lineno: int
    pathname: str
    funcName: Any
    threadName: str | None
    exc_info: Any
    exc_text: str | None
    stack_info: str | None

    def getMessage(self) -> str: ...


#: Whether the code that runs sends records. What it logs, as asyncio does in its debug mode, would have no end.
_sending: ContextVar[bool] = ContextVar("eda_sending_logs", default=False)


@contextmanager
def _at_sending() -> Iterator[None]:
    token = _sending.set(True)
    try:
        yield
    finally:
        _sending.reset(token)


@dataclass(frozen=True, slots=True)
class LogEntry:
    """What is sent of a record.

    Attributes:
        created: POSIX time, seconds.
        severity: from 0 to 7.
        short: the first line of the message.
        full: the whole message, the traceback and the stack, if there is more than the first line.
        conversation_id: that of the field of this name, or of the message that is handled.
        fields: where the record was made, and what its author has added.
    """

    created: float
    severity: int
    short: str
    full: str = ""
    conversation_id: str = ""
    fields: dict[str, Any] = field(default_factory=dict)


def severity_of(level: int) -> int:
    """Return the severity of syslog for a level of ``logging``. Levels from 25 on, below WARNING, are NOTICE."""
    return next((severity for least, severity in _SEVERITIES if level >= least), DEBUG)


def entry_of(record: Record, conversation_id: str = "") -> LogEntry:
    """Return what is sent of a record. It raises nothing, whatever the record holds.

    Args:
        conversation_id: that of the message that is handled.
    """
    message = _message(record)
    detail = [message, record.exc_text or _traceback(record.exc_info), record.stack_info or ""]
    full = "\n".join(part for part in detail if part)
    lines = full.splitlines() or ["(empty)"]
    short = next((line for line in message.splitlines() if line.strip()), lines[-1])
    fields: dict[str, Any] = {
        "logger": record.name,
        "file": record.pathname,
        "line": record.lineno,
        "function": record.funcName,
        "thread": record.threadName,
    }
    added = {name: value for name, value in vars(record).items() if name not in _USUAL}
    fields |= {name: value for name, value in added.items() if name not in _TAKEN and _NAME.fullmatch(name)}
    return LogEntry(
        created=record.created,
        severity=severity_of(record.levelno),
        short=short,
        full=full if full != short else "",
        conversation_id=_text(added.get("conversation_id")) or conversation_id,
        fields={name: _value(value) for name, value in fields.items() if value is not None},
    )


def _message(record: Record) -> str:
    try:
        return str(record.getMessage())
    except Exception as error:  # its arguments do not fit
        return f"{_text(getattr(record, 'msg', ''))} (cannot be formatted: {type(error).__name__})"


def _traceback(exc_info: Any) -> str:
    error = exc_info[1] if isinstance(exc_info, tuple) and len(exc_info) == 3 else None
    if not isinstance(error, BaseException):
        return ""
    try:
        return "".join(traceback.format_exception(error)).rstrip()
    except Exception:
        return type(error).__name__


def _value(value: object) -> Any:
    """Return a value of a field: GELF has text and numbers."""
    return value if type(value) in (str, int, float) else _text(value)


def _text(value: object) -> str:
    try:
        return "" if value is None else str(value)
    except Exception:
        return f"<{type(value).__name__}>"


class LogBridge:
    """Sends the records of a program as logs of a service, from any thread, and waits for nothing.

    Records are kept until there is a link. If there are too many, the oldest are dropped, and a line says how many: in
    the local log of the service, and on the bus; one in 10 s at most. Records of the toolkit itself, and those that the
    client library makes at its work, are not sent. After the end of the service nothing is sent any more.

    Args:
        service: it may run already, or later.
        capacity: how many records are kept at most.

    Raises:
        LocalError: ``service`` is no service, or ``capacity`` is no whole number from 1.
    """

    def __init__(self, service: ServiceApi[Any], capacity: int = CAPACITY) -> None:
        if not isinstance(service, ServiceApi):
            raise LocalError(f"the service is {type(service).__name__}", hint="give a Service of eda_aio or eda_pika")
        if type(capacity) is not int or capacity < 1:
            raise LocalError(f"capacity is {capacity!r}", hint="give a whole number from 1")
        self._service = service
        self._capacity = capacity
        self._kept: deque[tuple[int, LogEntry]] = deque(maxlen=capacity)
        self._numbers = itertools.count(1)
        #: The highest number that was sent, how many were sent, and how many of the dropped ones were told.
        self._highest = self._sent = self._told = 0
        self._was_full = False
        self._to_report = ""
        self._may_tell_at = float("-inf")
        self._called = self._waits = self._over = False

    @property
    def dropped(self) -> int:
        """How many records were dropped so far, because too many waited."""
        if not self._was_full:
            return 0
        try:
            last = self._kept[0][0] - 1
        except IndexError:
            last = self._highest
        return max(0, last - self._sent)

    def put(self, record: Record) -> None:
        """Send a record, soon. It raises nothing and waits for nothing. Any thread and handlers of signals may call it.

        Args:
            record: a ``logging.LogRecord``. It may change later.
        """
        own = record.name.partition(".")[0] in _OWN or hasattr(record, "eda_library")
        if own or self._over or _sending.get():
            return
        run = run_of(self._service)
        message = None if run is None else run.message
        entry = entry_of(record, "" if message is None else message.conversation_id)
        number = next(self._numbers)
        if len(self._kept) >= self._capacity:
            self._was_full = True
        self._kept.append((number, entry))
        if not self._called or number % _CALLED_AGAIN == 0:
            self._call()

    def close(self) -> None:
        """Send nothing more. Records that wait are dropped."""
        self._over = True
        self._kept.clear()

    def _call(self) -> None:
        """Let :meth:`_drain` be called where the machine may be used."""
        driver = self._service._eda_running
        if driver is None:
            self._wait()
            return
        if driver.over:
            self.close()
            return
        self._called = True
        try:
            with _at_sending():
                driver.hand_over(lambda: self._drain(driver))
        except Exception:  # this is a fork of the process of the service, or the loop is closed
            self._called = False

    def _wait(self) -> None:
        """Go on when the service is ready, or has ended."""
        if not self._waits:
            self._waits = True
            self._service._eda_readiness.wait(self._go_on)

    def _go_on(self, reason: Exception | None) -> None:
        self._waits = False
        if reason is None:
            self._call()
        elif self._service._eda_running is not None:  # else it was refused to run, and may run later
            self.close()

    # Where the machine may be used

    def _drain(self, driver: Driver) -> None:
        self._called = False
        if driver.over:
            self.close()
            return
        with _at_sending():
            driver.make(self._send)
            self._report(driver)
        if not self._kept:
            return
        if driver.machine.sends_logs:
            self._call()
        else:
            self._wait()

    def _send(self, machine: Machine, now: float) -> list[Effect]:
        effects: list[Effect] = []
        count = min(_AT_ONCE, len(self._kept)) if machine.sends_logs else 0
        offset = now - self._service.wall_time() if count else 0.0
        for _ in range(count):
            number, entry = self._kept.popleft()
            self._highest, self._sent = max(self._highest, number), self._sent + 1
            effects += machine.log(
                entry.severity,
                entry.short,
                entry.created + offset,
                full=entry.full,
                conversation_id=entry.conversation_id,
                fields=entry.fields,
            )
        text = self._news(now)
        return effects + machine.log(WARNING, text, now) if text else effects

    def _news(self, now: float) -> str:
        """Return a text about the records that were dropped since the last such text; "" if it is too early for one."""
        missing = self.dropped - self._told
        if missing <= 0 or now < self._may_tell_at:
            return ""
        self._told += missing
        self._may_tell_at = now + _QUIET
        self._to_report = (
            f"{missing} log record(s) of the program were dropped: it logs more than can be sent; log less, or give "
            "the handler of logging a larger capacity"
        )
        return self._to_report

    def _report(self, driver: Driver) -> None:
        """Write that text to the local log as well."""
        text, self._to_report = self._to_report, ""
        if text:
            driver.report(WARNING, text, events.LOGS_DROPPED)
