"""The base class of all drivers. It performs the effects of a machine in order, and sets one timer for all that is due.

An adapter adds how to open a link, how to run user code and how to wait. This module decides the order of things. It
does no I/O, and knows nothing of event loops and threads.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any, Final, Protocol, TypeVar

from eda_core.criticality import WARNING
from eda_core.drivers.answers import Answers
from eda_core.drivers.handling import Run
from eda_core.drivers.readiness import Readiness
from eda_core.drivers.timers import Timers, not_set
from eda_core.drivers.tracing import Noting, Tracing
from eda_core.errors import Abandoned, EdaError, LocalError, NotReady, ServiceError, StateError
from eda_core.machine import events
from eda_core.machine.effects import (
    BufferAvailable,
    Close,
    Connect,
    Dispatch,
    Effect,
    PublishDone,
    Ready,
    Replied,
    Report,
    Returned,
    Stopped,
    Unconfigured,
)
from eda_core.machine.events import LINK_LOST
from eda_core.machine.health import Health, LastError
from eda_core.machine.identifiers import DeliveryId, Epoch
from eda_core.machine.link import CLOSING, OPEN, OVER
from eda_core.machine.logs import WallOffset
from eda_core.machine.machine import Machine
from eda_core.machine.metrics import Metrics
from eda_core.machine.outcomes import CONFIGURED, DEFERRED, Failed, Outcome, failure, is_payload, outcome
from eda_core.messages.headers import CLAIM_CHECK
from eda_core.messages.values import ERROR, SUCCESS, AnyMessage, Command, Configuration, Event, LogRecord, Result
from eda_core.text import one_line, shortened

T = TypeVar("T")

#: What those are told who wait until a service is ready that is asked to stop.
STOPPED_BEFORE: Final = "the service has stopped before it was ready"


_NO_EPOCH: Final = Epoch(0)
#: How many handlers a log line names at most.
_MOST_NAMES: Final = 10


class UserCode(Protocol):
    """The methods of a service that a driver calls. :class:`eda_core.Handlers` describes them."""

    def handle(self, message: AnyMessage, /) -> Any:
        """Handle a message."""

    def handle_returned_message(self, key: str, payload: Any, envelope: dict[str, Any], /) -> Any:
        """Handle a message that was unroutable."""

    def on_ready(self) -> Any:
        """Begin the work of the service."""

    def on_unconfigured(self) -> Any:
        """Ask for a configuration."""


#: Is called when a handler has ended, with its message, how long it took, in seconds, and its outcome. It must not
#: raise, and must not wait.
Timed = Callable[[AnyMessage, float, Outcome], object]


class LinkLike(Protocol):
    """A link that is being opened, open, or being closed."""

    def perform(self, effect: Any) -> None:
        """Perform an effect that has the epoch of this link. It must not raise."""


class Driver(ABC):
    """Performs the effects of a machine, and tells the machine what happens.

    Attributes:
        service: the service whose handlers and hooks are called.
        machine: the machine of the service.
        links: the links by epoch. An adapter may remove those that are closed.
        at_stop: functions that are called when the service is asked to stop. The key says who set them.
        at_end: functions that are called with the outcome and the time when the handler of the delivery ends. They
            return the outcome that the machine is told.
        running: the user code that has begun and has not ended.
        readiness: whom to tell that the service is ready.
        tracing: who makes the traces of the service; ``None`` if nobody does.
        timed: is called when a handler has ended; ``None`` if nobody wants to know.
        redeeming: handles a message whose payload may be in a store; ``None`` if the service has no store.
        over: whether the service has stopped.
        error: why it has stopped, if nobody asked it to.
        exit: the exception with which user code ends the program, or a stop has ended user code. It ends the service at
            once.
    """

    def __init__(self, service: UserCode, machine: Machine) -> None:
        self.service = service
        self.machine = machine
        self.links: dict[Epoch, LinkLike] = {}
        self.at_stop: dict[object, Callable[[], Any]] = {}
        self.over: bool = False
        self.error: str | None = None
        self.exit: BaseException | None = None
        self._timers = Timers()
        self._interrupted = False
        self.at_end: dict[DeliveryId | None, Callable[[Outcome, float], Outcome]] = {}
        self.running: set[Run] = set()
        self.readiness: Readiness = Readiness()
        self.tracing: Tracing | None = None
        self.timed: Timed | None = None
        self.redeeming: Callable[[AnyMessage], Any] | None = None
        self._answers = Answers()
        #: Why there is no link, as the last report says.
        self._link_lost = ""
        #: The last warning or error, and when it was reported, monotonic seconds.
        self._last_error: tuple[LastError, float] | None = None
        self._todo: deque[Effect] = deque()
        self._pumping = False
        self._looking = False
        self._armed: float | None = None
        self._disarm: Callable[[], object] = not_set
        self._actions: dict[type, Callable[[Any], None]] = {
            Connect: self._connect,
            Dispatch: lambda effect: self.dispatch(effect.delivery, effect.message),
            Ready: self._ready,
            Unconfigured: lambda effect: self.call(effect, service.on_unconfigured),
            Returned: self._returned,
            PublishDone: self.publish_done,
            Replied: self.replied,
            BufferAvailable: lambda effect: self.buffer_available(),
            Report: self._report,
            Stopped: self._stopped,
        }

    # An adapter defines these. They must not raise.

    @abstractmethod
    def now(self) -> float:
        """Return the time in monotonic seconds."""

    def wall_time(self, offset: WallOffset) -> float:
        """Return the time in seconds since 1970. ``offset`` is what to add to monotonic seconds for that."""
        return self.now() + (offset() if callable(offset) else offset)

    @abstractmethod
    def arm(self, deadline: float) -> Callable[[], object]:
        """Call :meth:`tick` at ``deadline``, in monotonic seconds. Returns a function that cancels this, also later."""

    @abstractmethod
    def open(self, effect: Connect) -> LinkLike:
        """Begin to open a link, and return it."""

    @abstractmethod
    def dispatch(self, delivery: DeliveryId, message: AnyMessage) -> None:
        """Run the handler for a message in ``handling``, and then call :meth:`run_ended`."""

    @abstractmethod
    def call(self, effect: Effect | None, function: Callable[..., Any], *arguments: Any) -> None:
        """Run the hook that ``effect`` calls, or the function of a timer. If it fails, make ``callback_failed``."""

    @abstractmethod
    def report(self, level: int, text: str, event: str) -> None:
        """Write to the local log of the process, by :func:`eda_core.drivers.write_report` or in another way.

        Args:
            level: a syslog severity, from 0 to 7.
            event: the name of what has happened (docs/log-events.rst).
        """

    def ends_service(self, error: BaseException) -> bool:
        """Return whether the service ends at once because user code has raised ``error``.

        What is unfinished then has not failed: the broker delivers it again.
        """
        return False

    def ask(self, call: Callable[[], T]) -> T:
        """Run ``call`` where the machine may be used, and return or raise what it does.

        Here it is run at once. A driver whose methods are called from several threads overrides this, so that only one
        thread uses the machine.

        Raises:
            StateError: the service has stopped, so that ``call`` would not be run.
        """
        return call()

    def post(self, call: Callable[[], object]) -> None:
        """Run ``call`` where the machine may be used, and do not wait for that. When the service has stopped, drop it.

        Here it is run at once. A driver whose methods are called from several threads, or from handlers of signals,
        overrides this. Then it may be called anywhere: it must not wait, and must not take a lock.
        """
        call()

    def hand_over(self, call: Callable[[], object]) -> None:
        """Do as :meth:`post`, but from any thread, and never at once, in the middle of what is done now.

        Here it is :meth:`post`, which has to be overridden where that runs ``call`` at once: in an event loop.
        """
        self.post(call)

    def inspect(self, call: Callable[[], T], timeout: float) -> T:
        """Return what ``call`` returns, which looks at the machine and changes nothing. For any thread.

        Here it is called at once. A driver whose loop runs in another thread than the caller overrides this.

        Args:
            timeout: how long to wait for the loop, seconds.

        Raises:
            NotAnswered: the loop has not called it in time.
        """
        return call()

    # An adapter may define these: callers that wait, and the end

    def publish_done(self, effect: PublishDone) -> None:  # noqa: B027 - optional
        """Wake the caller that waits with the ticket of the effect."""

    def replied(self, effect: Replied) -> None:  # noqa: B027 - optional
        """Wake the caller that waits with the ticket of the effect. :func:`eda_core.answer` returns what to tell it."""

    def callers(self) -> int:
        """Return how many callers wait for space. Here none does."""
        return 0

    def buffer_available(self) -> None:  # noqa: B027 - optional
        """Let the callers that got ``BufferFull`` try again, in order, until one gets it again."""

    def stopped(self, error: str | None) -> None:  # noqa: B027 - optional
        """Release what is left: the service has stopped. ``error`` says why if nobody asked it to."""

    # Inputs and effects

    def tell(self, method: Callable[..., list[Effect]], *arguments: Any, **named: Any) -> None:
        """Make an input: call a method of the machine with ``now``, and perform the effects that it returns."""
        self.feed(method(*arguments, now=self.now(), **named))

    def make(self, call: Callable[[Machine, float], list[Effect]]) -> None:
        """Make the input that ``call(machine, now)`` makes, and perform the effects that it returns."""
        self.feed(call(self.machine, self.now()))

    def make_soon(self, call: Callable[[Machine, float], list[Effect]]) -> None:
        """Make an input as :meth:`make` does, with the time of now, but do not wait until it is made."""
        now = self.now()
        self.post(lambda: self.feed(call(self.machine, now)))

    def run_handler(self, message: AnyMessage) -> Any:
        """Call the handler for a message, and return what it returns. What happens around it may be added here.

        Raises:
            LocalError: the payload of the message is in a store, and the service has none.
        """
        if self.redeeming is not None:
            return self.redeeming(message)
        if CLAIM_CHECK in message.meta:
            raise not_redeemed(message)
        return self.service.handle(message)

    def handled(self, delivery: DeliveryId, outcome: Outcome, began: float | None = None) -> Outcome:
        """Report that the handler of a :meth:`dispatch` has ended. Returns the outcome that the machine was told.

        Args:
            began: when it began, monotonic seconds; ``None`` if it began with the ``dispatch``.
        """
        at_end = self.at_end.pop(delivery, None)
        if at_end is not None:
            outcome = at_end(outcome, self.now())
        self.tell(self.machine.handled, delivery, outcome, began=began)
        return outcome

    def user_code_ended(self, run: Run, error: BaseException | None) -> None:
        """Note that user code runs no more. ``error`` is what it has raised and nobody has caught."""
        self.running.discard(run)

    def trace(self, run: Run) -> None:
        """Begin the trace of a handler, in its context. Hooks and timers have none."""
        if self.tracing is not None and run.message is not None and run.delivery is not None:
            run.span = self.tracing.handling(run.message, self.machine.attempt(run.delivery))

    def run_ended(self, run: Run, returned: object, began: float) -> None:
        """Report that a handler has ended, and publish the result of a command that it has returned.

        Args:
            returned: what it returned, if it has not failed.
            began: when it began, monotonic seconds.
        """
        delivery, message, timed = run.delivery, run.message, self.timed
        assert delivery is not None
        seconds = 0.0 if timed is None else self.now() - began
        if run.failure is not None:
            if run.rejection:
                self._reject(run)
            end = self.handled(delivery, run.failure, began)
        else:
            end = self._conclude(run, returned)
            if run.span is not None and isinstance(end, Failed):
                run.failure = end
            end = self.handled(delivery, end, began)
        if timed is not None and message is not None:
            timed(message, seconds, end)

    def _conclude(self, run: Run, returned: object) -> Outcome:
        """Return the outcome of a handler that has returned a value. Publish a result, and warn about other values."""
        message = run.message
        assert message is not None
        end = outcome(message, returned)
        if isinstance(end, Failed):
            return end
        if run.keys and (end is DEFERRED or (isinstance(message, Command) and is_payload(returned))):
            self.warn(events.ANSWERS, _not_kept(run, message, end), message)
        if not isinstance(message, Command):
            if is_payload(returned) and not isinstance(message, LogRecord):
                self.warn(events.RETURN_VALUE, _odd_return(run, message, returned, end), message)
        elif not is_payload(returned):
            if not run.answers and end is not DEFERRED and self._is_ours(message):
                self.warn(events.ANSWERS, self._answers.ended(run, message), message)
        elif run.answers:
            text = f"{run.name()} has published a result of {message.name} and returns {_shown(returned)}, "
            text += "which is not published; answer a command once: return its result, or call return_success() or "
            self.warn(events.ANSWERS, f"{text}return_error()", message)
        else:
            try:
                self._publish_result(run, message, returned, SUCCESS)
            except EdaError as error:
                return failure(error)
        return end

    def _is_ours(self, command: Command) -> bool:
        """Return whether this service is to answer a command; it may only watch commands for others."""
        return command.name.rpartition(".")[0] == self.machine.config.service

    def _reject(self, run: Run) -> None:
        """Answer a rejected command, before its message is dead-lettered. The dead letter waits for the confirm."""
        if isinstance(run.message, Command):
            try:
                self._publish_result(run, run.message, {"reason": run.rejection}, ERROR, immediate=True)
            except EdaError as error:
                text = f"the rejected command {run.message.name} is not answered: {error}"
                self.warn(events.ANSWERS, text, run.message)

    def answered(self, run: Run | None, result: Result) -> None:
        """Note that ``run`` has published a result, and warn if it is the second one for its command."""
        self.warn(events.ANSWERS, self._answers.published(run, result), result)

    def _publish_result(
        self, run: Run, command: Command, payload: object, status: str, *, immediate: bool = False
    ) -> None:
        result = Result(command.reply_to, payload, command.conversation_id, status, command.correlation_id)
        if self.tracing is None:
            self.tell(self.machine.publish, result, within=run.delivery, immediate=immediate)
        else:
            with self.tracing.sending(result, held=not immediate, within=run.span) as sending:
                publish = Noting(self.machine, sending).publish
                self.tell(publish, sending.message, within=run.delivery, immediate=immediate)

    def check_blocking(self, message: AnyMessage, seconds: float, advice: str) -> None:
        """Warn if a handler has kept the event loop for so long that the broker may take the service for dead.

        Args:
            message: the message that it has handled.
            seconds: how long it has kept the loop.
            advice: what to do about it, as one clause.
        """
        heartbeat = self.machine.config.heartbeat
        if heartbeat and seconds > heartbeat / 2:
            text = f"the handler of {message.name} kept the event loop for {seconds:.1f} s, longer than half the "
            text += f"heartbeat ({heartbeat} s), and no heartbeat was sent meanwhile; {advice}"
            self.warn(events.BLOCKED_LOOP, text, message)

    def warn(self, event: str, text: str, message: AnyMessage) -> None:
        """Log a warning about a message to the local log and to the bus, unless it is empty.

        Args:
            event: the name of what has happened (docs/log-events.rst).
        """
        if text:
            self._note_error(WARNING, text, event)
            self.report(WARNING, text, event)
            self.tell(self.machine.log, WARNING, text, conversation_id=message.conversation_id)

    def stop(self, timeout: float | None = None) -> None:
        """Stop the service within ``timeout`` seconds, by default within ``Config.stop_timeout``."""
        self.tell(self.machine.stop, timeout=timeout)
        for function in self.at_stop.values():
            self.call(None, function)

    def interrupt(self) -> None:
        """Stop the service, because the process has got a signal to end. A second call stops it at once."""
        self.stop(0.0 if self._interrupted else None)
        self._interrupted = True

    def call_later(self, delay: float, function: Callable[[], Any]) -> int:
        """Call a function once after ``delay`` seconds, outside any handler. Returns the number of the timer.

        Raises:
            StateError: the service has stopped.
        """
        if self.over:
            raise StateError("the service has stopped", hint="set timers before it stops")
        number = self._timers.add(self.now() + max(0.0, delay), function)
        self.look_at_deadline()
        return number

    def cancel_timer(self, number: int) -> None:
        """Cancel a timer. It does no harm if the timer does not exist any more."""
        self._timers.cancel(number)

    def feed(self, effects: Iterable[Effect]) -> None:
        """Perform effects in order. If performing one leads to an input, the effects of that input come last."""
        todo = self._todo
        todo.extend(effects)
        if self._pumping:
            return
        self._pumping = True
        try:
            while todo:
                self._perform(todo.popleft())
        finally:
            self._pumping = False
        self.look_at_deadline()

    def look_at_deadline(self) -> None:
        """Set the timer soon, once for all inputs of a turn."""
        if not self._looking:
            self._looking = True
            self.soon(self._look_at_it)

    def soon(self, call: Callable[[], None]) -> None:
        """Call a function in the next turn of the loop. A driver without a loop calls it at once, as here."""
        call()

    def _look_at_it(self) -> None:
        self._looking = False
        self._rearm()

    @contextmanager
    def together(self) -> Iterator[None]:
        """Make several inputs in the block. Their effects are performed in order at its end, and the timer set once."""
        if self._pumping:
            yield
            return
        self._pumping = True
        try:
            yield
        finally:
            self._pumping = False
            self.feed(())

    def tick(self) -> None:
        """Do what is due. The timer of :meth:`arm` calls this."""
        armed, self._armed = self._armed, None
        now = self.now() if armed is None else max(armed, self.now())  # timers of event loops may fire early
        closing = self.machine.state is CLOSING  # then the functions of timers could not publish
        for number in self._timers.due(now):
            if not closing:
                self.call(None, partial(self._timers.run, number))
        before = self.machine.state
        effects = self.machine.tick(now)
        if self.machine.state in OVER and before not in OVER and self.exit is None:
            self.report_unfinished(self.running)
        self.feed(effects)

    def report_unfinished(self, runs: Iterable[Run]) -> None:
        """Report user code that has not ended although the time of a stop is over."""
        left = sorted(runs, key=lambda run: run.began)
        if left:
            now = self.now()
            named = [(run.name(), f"after {now - run.began:.1f} s") for run in left[:_MOST_NAMES]]
            if len(left) == 1:
                text = " has not ended ".join(named[0])
            else:
                text = f"{len(left)} handlers have not ended: {', '.join(map(' '.join, named))}"
                text += ", …" if len(left) > _MOST_NAMES else ""
            text = f"the time of the stop is over, and {text}; the broker delivers unfinished messages again"
            self.report(WARNING, text, events.LEFT_UNFINISHED)

    def _rearm(self) -> None:
        deadline, due = self.machine.deadline(), self._timers.deadline()
        if deadline is None or (due is not None and due < deadline):
            deadline = due
        # If a timer fires too early, there is nothing to do, and it is set again. To move it each time would cost more.
        if deadline is not None and not self.over and (self._armed is None or deadline < self._armed):
            self._disarm()
            self._armed = deadline
            self._disarm = self.arm(deadline)

    def _perform(self, effect: Effect) -> None:
        action = self._actions.get(type(effect))
        if action is not None:
            action(effect)
            return
        link = self.links.get(getattr(effect, "epoch", _NO_EPOCH))
        if link is not None:
            link.perform(effect)
        elif isinstance(effect, Close):  # there is nothing to close, but the machine waits for the report
            self._todo.extend(self.machine.link_down(effect.epoch, "closed", self.now()))

    def _connect(self, effect: Connect) -> None:
        if self.tracing is not None:
            self.tracing.connecting(effect.url, effect.name)
        self.links[effect.epoch] = self.open(effect)

    def _ready(self, effect: Ready) -> None:
        self.call(effect, self.service.on_ready)
        self.readiness.reach()

    def tell_if_ready(self) -> None:
        """Tell whoever waits for it if the service is ready now."""
        if self.machine.ready:
            self.readiness.reach()

    def not_ready(self, timeout: float) -> NotReady:
        """Return the error for somebody who has waited for ``timeout`` seconds. It says what is missing."""
        if self.machine.state is OPEN:
            return NotReady(f"not ready within {timeout:g} s: no handler of a configuration has returned True yet")
        return NotReady(f"not ready within {timeout:g} s: {self._link_lost or 'there is no link yet'}")

    def _report(self, effect: Report) -> None:
        if effect.event == LINK_LOST:
            self._link_lost = effect.text
        if effect.level <= WARNING:
            self._note_error(effect.level, effect.text, effect.event)
        self.report(effect.level, effect.text, effect.event)

    def _note_error(self, level: int, text: str, event: str) -> None:
        first = text.partition("\n")[0]  # a traceback follows
        self._last_error = LastError(text=first, event=event, level=level, seconds=0.0), self.now()

    def health(self) -> Health:
        """Return what the service does now. Call it where the machine may be used."""
        now, last = self.now(), self._last_error
        error = None if last is None else replace(last[0], seconds=now - last[1])
        return replace(self.machine.health(now), callers=self.callers(), last_error=error)

    def metrics(self) -> Metrics:
        """Return the numbers of the service now. Call it where the machine may be used."""
        return self.machine.metrics(self.now())

    def _returned(self, effect: Returned) -> None:
        service = self.service
        self.call(effect, service.handle_returned_message, effect.name, effect.payload, dict(effect.envelope))

    def break_off(self, error: BaseException) -> None:
        """Stop at once: user code ends the program, or was ended. The broker delivers unfinished messages again."""
        self.exit = self.exit or error
        self.stop(0.0)

    def raise_end(self) -> None:
        """Raise the exception or the error with which the service has ended, if there is one.

        Raises:
            ServiceError: the service has stopped although nobody asked it to.
            BaseException: user code has raised it, which ends the service at once.
        """
        if self.exit is not None and not isinstance(self.exit, Abandoned):
            raise self.exit
        if self.error is not None:
            raise ServiceError(self.error)

    def _stopped(self, effect: Stopped) -> None:
        self.over, self.error = True, effect.error
        self._timers.clear()
        self._disarm()
        self.readiness.end(StateError(STOPPED_BEFORE) if effect.error is None else ServiceError(effect.error))
        self.stopped(effect.error)


def not_redeemed(message: AnyMessage) -> LocalError:
    """Return the error of a service without a store that gets a message whose payload is in one."""
    hint = "give this service the same CLAIM_CHECK as the service that has published it"
    return LocalError(f"the payload of {message.name} is in a store", hint=hint)


def name_of_hook(effect: Effect | None, function: Callable[..., Any]) -> str:
    """Return what to call, in a log, the user code that a driver runs by :meth:`Driver.call`."""
    owner = type(getattr(function, "__self__", None)).__name__
    return "a timer or a batch" if effect is None else f"{owner}.{getattr(function, '__name__', 'hook')}"


def _odd_return(run: Run, message: AnyMessage, returned: object, end: Outcome) -> str:
    """Return a warning about a value that a handler has returned, and which is neither None, True nor False."""
    if isinstance(message, Configuration):
        rule = "the handler of a configuration returns True when the service is configured, and None otherwise"
        done = f"this counts as {'True' if end is CONFIGURED else 'None'}"
    else:
        kind = "an event" if isinstance(message, Event) else "a result"
        rule = f"the handler of {kind} returns None, or True to acknowledge the message by hand"
        done = "this message is acknowledged"
    return f"{run.name()} returned {_shown(returned)}: {rule}; {done}"


def _not_kept(run: Run, message: AnyMessage, end: Outcome) -> str:
    """Return a warning about a handler with an inbox, of whose end the inbox does not know."""
    if end is DEFERRED:
        return (
            f"{run.name()} uses an inbox and acknowledges {message.name} by hand: what is published after the block is "
            "lost if the worker dies; return None"
        )
    return (
        f"{run.name()} uses an inbox and returns the result of {message.name}, which the inbox does not keep: if the "
        "worker dies now, nobody answers; call return_success() in the block"
    )


def _shown(value: object) -> str:
    try:
        return shortened(one_line(repr(value)))
    except Exception:  # the __repr__ of a user's class may raise
        return f"a value of type {type(value).__name__}"
