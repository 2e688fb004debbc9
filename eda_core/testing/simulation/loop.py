"""An event loop of asyncio with virtual time, for one worker.

Its callbacks run one by one, each as an event of the schedule, so other workers run in between. A loop opens nothing:
sockets, pipes and processes raise :class:`OutsideError`. What is to run in a thread runs at once.
"""

from __future__ import annotations

import asyncio
from asyncio import events
from collections import deque
from collections.abc import Callable, Coroutine
from contextlib import suppress
from contextvars import Context
from functools import partial
from typing import Any, Final, NoReturn, TypeVar

from eda_core.errors import LocalError
from eda_core.testing.simulation.schedule import Schedule

T = TypeVar("T")


class OutsideError(LocalError):
    """User code wants something of the world outside of the simulation, where there is nothing."""

    def __init__(self, what: str) -> None:
        super().__init__(
            f"{what} in a simulation, where nothing is outside",
            hint="give the service an object that does this, and give it another one in simulations",
        )


class VirtualLoop(asyncio.AbstractEventLoop):
    """The loop of one worker.

    Args:
        schedule: brings its callbacks and its time.
        failed: is called with an error that nobody has handled.
        woken: is called when a timer is due, before its callback runs. It returns for how long that is late, seconds.

    Attributes:
        tasks: the tasks that have not ended, in order.
    """

    def __init__(
        self,
        schedule: Schedule,
        failed: Callable[[BaseException], object],
        woken: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self._schedule, self._failed, self._woken = schedule, failed, woken
        self._ready: deque[asyncio.Handle] = deque()
        self._turn_due = self._running = self._closed = False
        self._handler: Callable[[asyncio.AbstractEventLoop, dict[str, Any]], object] | None = None
        self._factory: Any = None
        self.tasks: dict[asyncio.Task[Any], None] = {}

    # Callbacks and time

    def time(self) -> float:
        return self._schedule.now

    def call_soon(  # type: ignore[override]
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        handle = asyncio.Handle(callback, args, self, context)
        self._add(handle)
        return handle

    call_soon_threadsafe = call_soon  # type: ignore[assignment]

    def call_later(  # type: ignore[override]
        self, delay: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        return self.call_at(self._schedule.now + delay, callback, *args, context=context)

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        timer = asyncio.TimerHandle(when, callback, args, self, context)
        self._schedule.at(when, partial(self._due, timer))
        return timer

    def _due(self, timer: asyncio.TimerHandle) -> None:
        if not timer.cancelled() and not self._closed:
            if seconds := self._woken():
                self._schedule.after(seconds, partial(self._due, timer))
            else:
                self._add(timer)

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """Do nothing: a cancelled timer is skipped."""

    def _add(self, handle: asyncio.Handle) -> None:
        self._ready.append(handle)
        self._turn_soon()

    def _turn_soon(self) -> None:
        if self._ready and not self._turn_due and not self._running and not self._closed:
            self._turn_due = True
            self._schedule.after(0.0, self._turn)

    def _turn(self) -> None:
        """Run one callback."""
        self._turn_due = False
        if self._running or self._closed:  # a handler of this loop waits, and keeps its loop
            return
        if self._ready:
            handle = self._ready.popleft()
            if not handle.cancelled():
                self.run(handle._run)
        self._turn_soon()

    def run(self, call: Callable[[], T]) -> T | None:
        """Call a function as a callback of this loop. Another loop may be running: it waits meanwhile."""
        before = events._get_running_loop()
        events._set_running_loop(self)
        self._running = True
        try:
            return call()
        except (SystemExit, KeyboardInterrupt) as error:
            self._failed(error)
            return None
        finally:
            self._running = False
            if self._closed:
                self._throw_away()
            events._set_running_loop(before)
            self._turn_soon()

    # Tasks

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(self, coro: Any, **options: Any) -> asyncio.Task[Any]:
        if self._factory is not None:
            task: asyncio.Task[Any] = self._factory(self, coro, **options)
        else:
            task = asyncio.Task(coro, loop=self, **options)
        self.tasks[task] = None
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self.tasks.pop(task, None)

    def run_in_executor(self, executor: Any, func: Callable[..., T], *args: Any) -> asyncio.Future[T]:  # type: ignore[override]
        """Call ``func`` at once, in this thread."""
        done: asyncio.Future[T] = self.create_future()
        try:
            done.set_result(func(*args))
        except Exception as error:
            done.set_exception(error)
        return done

    # The end

    def close(self) -> None:
        """End at once, as the process of a worker does that is killed."""
        self._closed = True
        self._ready.clear()
        if not self._running:
            before = events._get_running_loop()
            self._throw_away()
            events._set_running_loop(before)

    def _throw_away(self) -> None:
        events._set_running_loop(self)
        for task in list(self.tasks):
            task._log_destroy_pending = False  # type: ignore[attr-defined]
            with suppress(BaseException):  # what user code raises in its clean-up, and what runs now
                coroutine = task.get_coro()
                if coroutine is not None:
                    coroutine.close()
        self.tasks.clear()

    def is_closed(self) -> bool:
        return self._closed

    def is_running(self) -> bool:
        return self._running

    def stop(self) -> None:
        """Do nothing: the loop runs as long as there is something to do."""

    async def shutdown_asyncgens(self) -> None:
        """Do nothing."""

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:
        """Do nothing: there is none."""

    # Settings, and errors that nobody has handled

    def get_debug(self) -> bool:
        return False

    def set_debug(self, enabled: bool) -> None:
        """Do nothing."""

    def set_task_factory(self, factory: Any) -> None:
        self._factory = factory

    def get_task_factory(self) -> Any:
        return self._factory

    def set_exception_handler(self, handler: Any) -> None:
        self._handler = handler

    def get_exception_handler(self) -> Any:
        return self._handler

    def default_exception_handler(self, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if isinstance(error, BaseException) and not self._closed:
            self._failed(error)

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        if self._handler is None:
            self.default_exception_handler(context)
        else:
            self._handler(self, context)


def new_loop(
    schedule: Schedule, failed: Callable[[BaseException], object], woken: Callable[[], float] = lambda: 0.0
) -> VirtualLoop:
    """Make a loop. The arguments are those of :class:`VirtualLoop`."""
    return VirtualLoop(schedule, failed, woken)  # type: ignore[abstract] # asyncio's class is abstract only for mypy


#: The methods of a loop that reach out of the process.
_OUTSIDE: Final = tuple(
    name
    for name in dir(asyncio.AbstractEventLoop)
    if name.startswith(
        ("create_", "sock_", "subprocess_", "connect_", "add_", "remove_", "sendfile", "start_tls", "get")
    )
    and name not in ("create_future", "create_task")
    and getattr(VirtualLoop, name) is getattr(asyncio.AbstractEventLoop, name)
)


def _refusing(name: str) -> Callable[..., NoReturn]:
    def refuse(self: VirtualLoop, *_arguments: Any, **_named: Any) -> NoReturn:
        raise OutsideError(f"the event loop is asked for {name}()")

    refuse.__name__ = name
    return refuse


for _name in _OUTSIDE:
    setattr(VirtualLoop, _name, _refusing(_name))


def drive(coroutine: Coroutine[Any, Any, T], loop: VirtualLoop, step: Callable[[], bool]) -> T:
    """Run a coroutine in a loop, with everything else that happens, and return or raise what it does.

    Args:
        step: lets the next event happen; false if there is none.
    """
    task = loop.create_task(coroutine)
    while not task.done():
        if not step():
            task.cancel()
            raise LocalError("the test waits for something that never happens", hint="see what it awaits last")
    result: T = task.result()
    return result
