"""A driver whose user code are plain functions, in whatever thread an adapter runs them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

from eda_core.criticality import WARNING
from eda_core.drivers.base import Driver, UserCode
from eda_core.drivers.handling import handling
from eda_core.errors import Abandoned, StateError
from eda_core.machine.effects import Effect
from eda_core.machine.identifiers import DeliveryId
from eda_core.machine.machine import Machine
from eda_core.machine.outcomes import check_begun, failure, outcome
from eda_core.messages.values import AnyMessage


class CallbackDriver(Driver):
    """Makes a job of each handler, hook and timer; what these publish goes by :meth:`ask`.

    Attributes:
        exit: what was raised in a job and is no ``Exception``: it ends the service at once.
    """

    def __init__(self, service: UserCode, machine: Machine) -> None:
        super().__init__(service, machine)
        self.exit: BaseException | None = None

    # What an adapter fills in besides

    @abstractmethod
    def spawn(self, job: Callable[[], None]) -> None:
        """See that :meth:`run_job` is called with it, not from within an effect."""

    def user(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call user code. An adapter that can interrupt it does so here, and raises :class:`Abandoned` in it."""
        return function(*arguments)

    def forked(self) -> bool:
        """Whether this process is a copy of the service's that user code has made, with connections that are its."""
        return False

    # What it does

    def check_process(self) -> None:
        """For ``ask``, and what else users may call.

        Raises:
            StateError: the process is a fork.
        """
        if self.forked():
            raise StateError("this process is a fork of the service's", hint="publish by eda_kombu.Endpoint here")

    def run_job(self, job: Callable[[], None]) -> None:
        """Do it, unless the service has ended, and handlers and timers with it.

        Raises:
            Abandoned: the job has forked, and this is the child, which has to end here.
        """
        if not self.over and self.exit is None:
            try:
                job()
            except BaseException as error:
                with suppress(StateError):  # it has ended meanwhile
                    self.ask(partial(self._break_off, error))
        if self.forked():
            raise Abandoned("a fork came out of a handler; end it there by os._exit()")

    def raise_end(self) -> None:
        """At the end of a run: raise what has ended it, if that was not a stop."""
        if self.exit is not None and not isinstance(self.exit, Abandoned):
            raise self.exit
        super().raise_end()

    def dispatch(self, delivery: DeliveryId, message: AnyMessage) -> None:
        self.spawn(partial(self._handle, delivery, message))

    def call(self, effect: Effect | None, function: Callable[..., Any], *arguments: Any) -> None:
        self.spawn(partial(self._call, effect, function, *arguments))

    def _handle(self, delivery: DeliveryId, message: AnyMessage) -> None:
        try:
            with handling(self.service, delivery):
                result = outcome(message, self.user(self.service.handle, message))
        except Exception as error:
            result = failure(error)
        self.ask(partial(self.handled, delivery, result))

    def _call(self, effect: Effect | None, function: Callable[..., Any], *arguments: Any) -> None:
        try:
            check_begun(self.user(function, *arguments))
        except Exception as error:
            self.ask(partial(self.tell, self.machine.callback_failed, effect, failure(error)))

    def _break_off(self, error: BaseException) -> None:
        self.exit = self.exit or error
        if isinstance(error, Abandoned):
            self.report(WARNING, f"a handler or a timer is left unfinished: {failure(error).detail}")
        self.stop(0.0)
