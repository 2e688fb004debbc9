"""The base class of drivers that run user code as plain functions.

It decides what becomes of the result of a handler. It does not know in which thread the functions run: an adapter says
that.
"""

from __future__ import annotations

from abc import abstractmethod
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from queue import SimpleQueue
from typing import Any, Final

from eda_core.criticality import DEBUG
from eda_core.drivers.base import STOPPED_BEFORE, Driver, UserCode, name_of_hook
from eda_core.drivers.handling import Run, handling
from eda_core.errors import Abandoned, StateError
from eda_core.machine.effects import Effect
from eda_core.machine.events import LEFT_UNFINISHED
from eda_core.machine.identifiers import DeliveryId
from eda_core.machine.machine import Machine
from eda_core.machine.outcomes import check_begun, failure
from eda_core.messages.values import AnyMessage

#: How many logs may wait for the thread that uses the machine. Older ones are dropped.
MOST_POSTED: Final = 10_000


class CallbackDriver(Driver):
    """Makes a job of each handler, hook and timer. Jobs use the machine by :meth:`ask`.

    Attributes:
        in_loop: whether jobs run in the thread of the network. A handler that takes long keeps it waiting then.
    """

    def __init__(self, service: UserCode, machine: Machine) -> None:
        super().__init__(service, machine)
        self.in_loop: bool = True
        self._posted: deque[Callable[[], object]] = deque(maxlen=MOST_POSTED)
        self._waking = False
        self._reports: SimpleQueue[tuple[int, str, str] | None] = SimpleQueue()

    # An adapter also defines these

    @abstractmethod
    def wake(self) -> None:
        """Let :meth:`do_posted` be called soon where the machine may be used. It must not wait, and take no lock."""

    @abstractmethod
    def write(self, level: int, text: str, event: str) -> None:
        """Write a report to the local log, see :meth:`report`. It may wait, and may raise."""

    @abstractmethod
    def spawn(self, job: Callable[[], None]) -> None:
        """Let :meth:`run_job` be called with ``job``, but not while an effect is performed."""

    def user(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call user code. An adapter that can interrupt it overrides this, and raises ``Abandoned`` in the function."""
        return function(*arguments)

    def forked(self) -> bool:
        """Return whether user code has forked, and this is the child, which must not use the parent's connections."""
        return False

    def check_process(self) -> None:
        """Check that this is the process of the service. An adapter calls this where user code comes in.

        Raises:
            StateError: this process is a fork.
        """
        if self.forked():
            raise StateError(
                "this process is a fork of the service's process", hint="publish by eda_kombu.Endpoint here"
            )

    def post(self, call: Callable[[], object]) -> None:
        self.check_process()
        self._posted.append(call)
        if not self._waking:  # it is woken once, however much is posted
            self._waking = True
            self.wake()

    def do_posted(self) -> None:
        """Run what was posted. An adapter also calls this before each call of :meth:`ask`, to keep the order."""
        self._waking = False
        while self._posted:
            self._posted.popleft()()

    def report(self, level: int, text: str, event: str) -> None:
        self._reports.put((level, text, event))

    def write_reports(self) -> None:
        """Write reports until :meth:`end_reports`. A thread of its own calls this.

        The thread that uses the machine must not wait for the lock of a handler of logging: the thread that has the
        lock may wait for it, to publish what it logs.
        """
        while (report := self._reports.get()) is not None:
            with suppress(Exception):
                self.write(*report)

    def end_reports(self) -> None:
        """Let :meth:`write_reports` end when it has written the reports before this.

        Nobody waits for the service to be ready any more: its run has ended, whatever has ended it.
        """
        self._reports.put(None)
        self.readiness.end(StateError(STOPPED_BEFORE))

    def run_job(self, job: Callable[[], None]) -> None:
        """Run a job, unless the service has stopped.

        Raises:
            Abandoned: the job has forked, and this is the child, which has to end here.
        """
        if not self.over and self.exit is None:
            try:
                job()
            except BaseException as error:
                with suppress(StateError):  # the service has stopped meanwhile
                    self.ask(partial(self.break_off, error))
        if self.forked():
            raise Abandoned(
                "a process that a handler forked has returned from the handler; end it in the handler by os._exit()"
            )

    def ends_service(self, error: BaseException) -> bool:
        return not isinstance(error, Exception)

    def dispatch(self, delivery: DeliveryId, message: AnyMessage) -> None:
        self.spawn(partial(self._handle, delivery, message))

    def call(self, effect: Effect | None, function: Callable[..., Any], *arguments: Any) -> None:
        self.spawn(partial(self._call, effect, function, *arguments))

    def _handle(self, delivery: DeliveryId, message: AnyMessage) -> None:
        returned = None
        with handling(self.service, delivery, message, watch=self) as run:
            try:
                returned = self.user(self.run_handler, message)
            except Exception as error:
                run.failed(error)
        try:
            self.ask(partial(self._handler_ended, run, message, returned, self.now() - run.began))
        finally:
            if run.span is not None:
                run.end_span()

    def _handler_ended(self, run: Run, message: AnyMessage, returned: Any, seconds: float) -> None:
        if self.in_loop:
            self.check_blocking(message, seconds, "set HANDLER_THREADS")
        self.run_ended(run, returned, run.began)

    def _call(self, effect: Effect | None, function: Callable[..., Any], *arguments: Any) -> None:
        with handling(self.service, watch=self) as run:
            run.hook = name_of_hook(effect, function)
            try:
                check_begun(self.user(function, *arguments))
            except Exception as error:
                self.ask(partial(self.tell, self.machine.callback_failed, effect, failure(error)))

    def user_code_ended(self, run: Run, error: BaseException | None) -> None:
        """Report user code that a stop has ended; where it was is told to who debugs it."""
        super().user_code_ended(run, error)
        if isinstance(error, Abandoned) and not self.forked():
            self.report_unfinished([run])
            self.report(DEBUG, f"{run.name()} was ended here:\n{failure(error).detail}", LEFT_UNFINISHED)
