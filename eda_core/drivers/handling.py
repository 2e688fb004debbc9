"""Remembers which user code runs, for which service and for which delivery.

It uses a context variable, so the tasks that a handler starts belong to its delivery, too. It does not know what the
delivery is used for.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Protocol

from eda_core.drivers.tracing import Span, Tracing
from eda_core.errors import NotBegun, Reject
from eda_core.machine.identifiers import DeliveryId
from eda_core.machine.outcomes import Failed, failure
from eda_core.messages.values import AnyMessage


@dataclass(slots=True, eq=False)
class Run:
    """One call of user code: a handler, a hook, the function of a timer, or the callback of a batch.

    Attributes:
        service: the service whose code runs.
        delivery: the delivery to which belongs what it publishes; ``None`` if there is none.
        message: the message, if this is a handler.
        answers: how many results it has published for its message, which is a command.
        failure: the outcome, if it has raised an exception.
        rejection: why it has rejected its message; "" if it has not.
        keys: what identified its message each time it has used an inbox.
        keep: is called with each message that it publishes, and whether that is mandatory, while an inbox keeps them.
        not_awaited: an error text for each method of the service that it has called and not awaited.
        over: whether it has ended.
        began: when it began, monotonic seconds.
        hook: what to call it if it is no handler.
        span: its trace; ``None`` if there is none.
    """

    service: object
    delivery: DeliveryId | None = None
    message: AnyMessage | None = None
    answers: int = 0
    failure: Failed | None = None
    rejection: str = ""
    not_awaited: list[str] = field(default_factory=list)
    keys: tuple[str, ...] = ()
    keep: Callable[[AnyMessage, bool], None] | None = None
    over: bool = False
    began: float = 0.0
    hook: str = ""
    span: Span | None = None

    def failed(self, error: BaseException) -> None:
        """Note what it has raised."""
        self.failure = failure(error)
        if isinstance(error, Reject):
            self.rejection = self.failure.reason.partition(": ")[2]

    def end_span(self) -> None:
        """End its trace, if there is one."""
        if self.span is not None:
            self.span.end(self.failure)

    def check_awaited(self) -> None:
        """Check, at its end, that it has awaited what it called.

        Raises:
            NotBegun: it has not.
        """
        if self.not_awaited:
            raise NotBegun("; ".join(self.not_awaited))

    def name(self) -> str:
        """Return the name of the handler, such as ``Billing.on_ChargeCard``, for a log."""
        if self.hook:
            return self.hook
        method = "handle" if self.message is None else f"on_{self.message.name.rpartition('.')[2]}"
        return f"{type(self.service).__name__}.{method if hasattr(self.service, method) else 'handle'}"


#: The user code that runs in this context.
_running: ContextVar[Run | None] = ContextVar("eda_running", default=None)


class Watch(Protocol):
    """Who is to know which user code runs: a driver."""

    running: set[Run]
    tracing: Tracing | None

    def trace(self, run: Run) -> None:
        """Begin the trace of user code, in its context. This is called only if there is a ``tracing``."""

    def now(self) -> float:
        """Return the time in monotonic seconds."""

    def user_code_ended(self, run: Run, error: BaseException | None) -> None:
        """Note that user code runs no more. ``error`` is what it has raised and nobody has caught."""


class handling:
    """Let what ``service`` publishes in the block, and in tasks that are started there, belong to ``delivery``.

    It is no generator, because that would take twice the time, for each message.

    Args:
        watch: is told that user code runs, from now to the end of the block.
    """

    __slots__ = ("_run", "_token", "_watch")

    def __init__(
        self,
        service: object,
        delivery: DeliveryId | None = None,
        message: AnyMessage | None = None,
        *,
        watch: Watch | None = None,
    ) -> None:
        self._run = Run(service, delivery, message)
        self._watch = watch

    def __enter__(self) -> Run:
        run, watch = self._run, self._watch
        self._token = _running.set(run)
        if watch is not None:
            now = watch.now
            run.began = now()
            watch.running.add(run)
            if watch.tracing is not None:
                watch.trace(run)
        return run

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if self._run.span is not None:
            self._run.span.left(error)
        if self._watch is not None:
            self._watch.user_code_ended(self._run, error)
        self._run.over = True
        _running.reset(self._token)


def run_of(service: object) -> Run | None:
    """Return the call of this service's code that runs where this is called; ``None`` outside of its code."""
    run = _running.get()
    return run if run is not None and run.service is service else None


def handled_by(service: object) -> DeliveryId | None:
    """Return the delivery that ``service`` handles in the code that calls this; ``None`` outside of its handlers."""
    run = run_of(service)
    return None if run is None else run.delivery
