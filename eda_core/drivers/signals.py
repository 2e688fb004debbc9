"""Which signals stop a service, and their handlers while it runs.

The core does not import ``signal``: an adapter passes Python's module.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from types import ModuleType
from typing import Any, Final

from eda_core.errors import LocalError

#: The signals that ask a process to end. No system has all of them: Windows has SIGBREAK and has no SIGHUP.
NAMES: Final = ("SIGTERM", "SIGINT", "SIGHUP", "SIGBREAK")

#: Whether services that run in this context hear no signals.
_unheard: ContextVar[bool] = ContextVar("eda_unheard", default=False)

#: What ``run(signals=...)`` takes; :meth:`StopSignals.choose` explains it.
Asked = bool | Iterable[int] | None


@contextmanager
def no_signals() -> Iterator[None]:
    """In the block, and in tasks that begin there, let services take no signals, whatever they are asked to.

    A simulation runs services in this way: they are no process that could be asked to end.
    """
    token = _unheard.set(True)
    try:
        yield
    finally:
        _unheard.reset(token)


class StopSignals:
    """Installs the handlers of services that run in the main thread of one process, and puts back what was there.

    Args:
        module: Python's ``signal``.
        in_main_thread: whether the caller runs in the main thread.
        is_default: recognizes handlers that count as Python's own, besides those that Python installs at its start.
    """

    def __init__(
        self,
        module: ModuleType,
        in_main_thread: Callable[[], bool],
        is_default: Callable[[Any], bool] = lambda handler: False,
    ) -> None:
        self._module = module
        self._in_main_thread = in_main_thread
        self._also_default = is_default
        #: The signals that a thread had blocked before it forks.
        self._mask: ContextVar[Iterable[int]] = ContextVar("eda_mask")
        #: The signals of the services that run, also those for which the program has installed another handler since.
        self._in_use: list[int] = []

    def choose(self, asked: Asked) -> tuple[int, ...]:
        """The numbers of the signals that a service takes, which is about to run in the thread that calls this.

        A signal that the process ignores stays ignored, as ``nohup`` and the shells want it. So does a handler that was
        not installed by Python code.

        Args:
            asked: ``None``: the stop signals that still have Python's default handler; none of them if the program has
                a handler for SIGTERM, because such a program decides itself when it ends. ``True``: all stop signals.
                ``False``: no signal. Numbers: these signals. Python handles signals in the main thread only.

        Raises:
            LocalError: ``asked`` is something else, a number is not that of a signal that can be handled, or signals
                are asked for in another thread than the main one.
        """
        in_main_thread = self._in_main_thread()
        if asked is False or _unheard.get() or (asked is None and not in_main_thread):
            return ()
        numbers = self._numbers(asked)
        if not in_main_thread:
            raise LocalError(
                "signals are asked for outside the main thread",
                hint="run the service in the main thread, or leave out the argument signals",
            )
        handlers = {number: self._program_handler(number) for number in numbers}
        if asked is not None:
            return tuple(number for number, handler in handlers.items() if handler not in (None, self._module.SIG_IGN))
        term = self._program_handler(self._module.SIGTERM)
        if not self._is_default(term) and term != self._module.SIG_IGN:
            return ()
        return tuple(number for number, handler in handlers.items() if self._is_default(handler))

    @contextmanager
    def heard(self, numbers: Iterable[int], call: Callable[[int], bool]) -> Iterator[None]:
        """In the block each of these signals calls ``call`` with its number, in the main thread.

        The program's own handler is called next, unless ``call`` returned true. At the end of the block that handler
        is put back, if no other service needs the signal and the program has not installed another handler meanwhile.
        """
        with ExitStack() as stack:
            for number in numbers:
                stack.enter_context(self._heard(number, call))
            yield

    def held(self, numbers: Iterable[int]) -> list[int]:
        """Those of these signals whose handler is still that of a service."""
        return [number for number in numbers if isinstance(self._module.getsignal(number), _Handler)]

    def guard_forks(self, register: Callable[..., None]) -> None:
        """Give the child processes that are forked while a service runs the program's handlers.

        A signal to a child would otherwise be lost there, or stop the parent's service: Python writes each signal that
        has a handler to the wakeup socket, which both processes have.

        Args:
            register: ``os.register_at_fork``.
        """
        register(before=self._before_fork, after_in_parent=self._after_fork, after_in_child=self._in_child)

    def _before_fork(self) -> None:
        """Block the signals of services: one may come to the child before it has its handlers."""
        module = self._module
        numbers = {*self.held(module.valid_signals()), *self._in_use}
        self._mask.set(module.pthread_sigmask(module.SIG_BLOCK, numbers))

    def _after_fork(self) -> None:
        self._module.pthread_sigmask(self._module.SIG_SETMASK, self._mask.get())

    def _in_child(self) -> None:
        for number in (held := self.held(self._module.valid_signals())):
            self._module.signal(number, self._program_handler(number))
        if held or self._in_use:
            self._module.set_wakeup_fd(-1)
        self._after_fork()

    @contextmanager
    def _heard(self, number: int, call: Callable[[int], bool]) -> Iterator[None]:
        handler = self._module.getsignal(number)
        if not isinstance(handler, _Handler):
            handler = _Handler(handler, chained=not self._is_default(handler))
            self._module.signal(number, handler)
        handler.calls.append(call)
        self._in_use.append(number)
        try:
            yield
        finally:
            self._in_use.remove(number)
            handler.calls.remove(call)
            if not handler.calls and self._module.getsignal(number) is handler:
                self._module.signal(number, handler.program)

    def _numbers(self, asked: bool | Iterable[int] | None) -> list[int]:
        module = self._module
        if asked is None or asked is True:
            return [getattr(module, name) for name in NAMES if hasattr(module, name)]
        uncatchable = {getattr(module, name, None) for name in ("SIGKILL", "SIGSTOP")}
        allowed = set(module.valid_signals()) - uncatchable
        numbers = list(asked) if isinstance(asked, Iterable) else [None]
        if not all(isinstance(number, int) and number is not True and number in allowed for number in numbers):
            raise LocalError(
                f"signals is {asked!r}",
                hint="give True, False, None, or signals that can be handled, such as [signal.SIGTERM]",
            )
        return numbers  # type: ignore[return-value]  # the numbers are checked

    def _program_handler(self, number: int) -> Any:
        """The handler that the program has, or would have without our services."""
        handler = self._module.getsignal(number)
        return handler.program if isinstance(handler, _Handler) else handler

    def _is_default(self, handler: Any) -> bool:
        defaults = (self._module.SIG_DFL, self._module.default_int_handler)
        return handler in defaults or self._also_default(handler)


class _Handler:
    """Stands in the place of the program's handler of one signal.

    Attributes:
        calls: what to call, one for each service.
        program: the handler of the program.
    """

    def __init__(self, program: Any, *, chained: bool) -> None:
        self.calls: list[Callable[[int], bool]] = []
        self.program = program
        self._chained = chained

    def __call__(self, number: int, frame: Any) -> None:
        answers = [call(number) for call in tuple(self.calls)]
        if self._chained and not any(answers):
            self.program(number, frame)
