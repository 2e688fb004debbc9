"""Which signals a service takes, and what their handlers do."""

from __future__ import annotations

import itertools
import signal
from types import ModuleType
from typing import Any

import pytest

from eda_core.drivers.signals import StopSignals, no_signals
from eda_core.errors import LocalError

TERM, INT, HUP, USR1 = signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1


def the_program(number: int, frame: Any) -> None:
    """A handler that the program has installed."""


def the_loops(number: int, frame: Any) -> None:
    """A handler of something that is replaced like Python's default."""


#: What may be there before a service comes, by what it means.
DEFAULT, LOOP, PROGRAM, IGNORED, NOT_PYTHON = signal.SIG_DFL, the_loops, the_program, signal.SIG_IGN, None
HANDLERS = (DEFAULT, LOOP, PROGRAM, IGNORED, NOT_PYTHON)


class Process(ModuleType):
    """Python's module ``signal``, as of a process that has these handlers."""

    def __init__(self, **handlers: Any) -> None:
        super().__init__("signal")
        self.handlers: dict[int, Any] = dict.fromkeys(signal.valid_signals(), signal.SIG_DFL)
        self.handlers[INT] = signal.default_int_handler
        for name, handler in handlers.items():
            self.handlers[getattr(signal, name)] = handler
        self.changed: list[int] = []
        self.mask: set[int] = set()
        self.wakeup = -1
        for name in "SIGTERM SIGINT SIGHUP SIGUSR1 SIGKILL SIGSTOP SIG_DFL SIG_IGN SIG_BLOCK SIG_SETMASK".split():
            setattr(self, name, getattr(signal, name))
        self.default_int_handler = signal.default_int_handler

    def valid_signals(self) -> set[int]:
        return set(self.handlers)

    def getsignal(self, number: int) -> Any:
        return self.handlers[number]

    def signal(self, number: int, handler: Any) -> Any:
        assert handler is not None, "what Python does not know cannot be installed"
        before, self.handlers[number] = self.handlers[number], handler
        self.changed.append(number)
        return before

    def pthread_sigmask(self, how: int, mask: Any) -> set[int]:
        before = self.mask
        self.mask = {*mask} if how == signal.SIG_SETMASK else {*before, *mask}
        return before

    def set_wakeup_fd(self, descriptor: int) -> None:
        self.wakeup = descriptor

    def gets(self, number: int) -> None:
        self.handlers[number](number, None)


def signals_of(process: Process, in_main_thread: bool = True) -> StopSignals:
    return StopSignals(process, lambda: in_main_thread, lambda handler: handler is the_loops)


# --- the choice ---


def test_a_service_alone_takes_all_that_ask_a_process_to_end() -> None:
    assert signals_of(Process()).choose(None) == (TERM, INT, HUP)


def test_what_a_system_does_not_have_is_left_out() -> None:
    windows = Process()
    del windows.SIGHUP
    vars(windows)["SIGBREAK"] = 21
    windows.handlers[21] = signal.SIG_DFL
    assert signals_of(windows).choose(None) == (TERM, INT, 21)
    assert signals_of(windows).choose(True) == (TERM, INT, 21)


@pytest.mark.parametrize(("term", "other"), [*itertools.product(HANDLERS, HANDLERS)])
def test_by_default_nothing_is_taken_from_the_program(term: Any, other: Any) -> None:
    signals = signals_of(Process(SIGTERM=term, SIGINT=other))
    program_stops_itself = term in (PROGRAM, NOT_PYTHON)
    taken = [number for number, handler in ((TERM, term), (INT, other)) if handler in (DEFAULT, LOOP)]
    assert signals.choose(None) == (() if program_stops_itself else (*taken, HUP))


@pytest.mark.parametrize(("term", "other"), [*itertools.product(HANDLERS, HANDLERS)])
def test_on_request_all_are_taken_that_can_be(term: Any, other: Any) -> None:
    """What is ignored stays ignored; what Python cannot put back is not taken."""
    signals = signals_of(Process(SIGTERM=term, SIGINT=other))
    taken = [number for number, handler in ((TERM, term), (INT, other)) if handler not in (IGNORED, NOT_PYTHON)]
    assert signals.choose(True) == (*taken, HUP)
    assert signals.choose([HUP, INT]) == ((HUP, INT) if INT in taken else (HUP,))


def test_none_are_taken_where_that_is_asked_for() -> None:
    assert signals_of(Process()).choose(False) == ()
    assert signals_of(Process()).choose(()) == ()


def test_outside_the_main_thread_there_are_none() -> None:
    signals = signals_of(Process(), in_main_thread=False)
    assert signals.choose(None) == signals.choose(False) == ()
    for asked in (True, [TERM]):
        with pytest.raises(LocalError, match="outside the main thread; run the service in the main thread"):
            signals.choose(asked)


@pytest.mark.parametrize(
    "asked", ["SIGTERM", 15, 0, 1.5, [99], [0], [-1], ["SIGTERM"], [True], [None], [9], [19], [[]]]
)
def test_what_cannot_be_handled_is_refused(asked: Any) -> None:
    with pytest.raises(LocalError, match=r"signals is .*; give True, False, None, or signals that can be handled"):
        signals_of(Process()).choose(asked)


# --- the handlers ---


def noting(notes: list[Any], name: str, answer: bool = False) -> Any:
    def call(number: int, *_frame: Any) -> bool:
        notes.append((name, number))
        return answer

    return call


def test_in_the_block_they_call_and_afterwards_all_is_as_before() -> None:
    process, notes = Process(SIGHUP=the_program), list[Any]()
    before = dict(process.handlers)
    signals = signals_of(process)
    with signals.heard((TERM, INT, HUP), noting(notes, "one")):
        assert signals.held((TERM, INT, HUP, USR1)) == [TERM, INT, HUP]
        for number in (TERM, INT, HUP):
            process.gets(number)
    assert notes == [("one", TERM), ("one", INT), ("one", HUP)]
    assert process.handlers == before
    assert signals.held((TERM, INT, HUP)) == []


def test_the_programs_own_handler_is_called_too() -> None:
    notes: list[Any] = []
    process = Process(SIGTERM=noting(notes, "program"), SIGINT=the_loops)
    with signals_of(process).heard((TERM, INT), noting(notes, "service")):
        process.gets(TERM)
        process.gets(INT)
    assert notes == [("service", TERM), ("program", TERM), ("service", INT)]


def test_a_signal_that_was_the_services_own_is_not_passed_on() -> None:
    notes: list[Any] = []
    process = Process(SIGTERM=noting(notes, "program"))
    with signals_of(process).heard((TERM,), noting(notes, "service", answer=True)):
        process.gets(TERM)
    assert notes == [("service", TERM)]


@pytest.mark.parametrize("first_ends_first", [True, False])
def test_services_share_a_signal(first_ends_first: bool) -> None:
    notes: list[Any] = []
    process = Process(SIGTERM=noting(notes, "program"))
    before = dict(process.handlers)
    signals = signals_of(process)
    one, two = signals.heard((TERM, INT), noting(notes, "one")), signals.heard((TERM, HUP), noting(notes, "two"))
    for each in (one, two):
        each.__enter__()
    process.gets(TERM)
    assert notes == [("one", TERM), ("two", TERM), ("program", TERM)]
    assert signals.choose(None) == (), "SIGTERM is still the program's"
    ends, stays, name = (one, two, "two") if first_ends_first else (two, one, "one")
    ends.__exit__(None, None, None)
    notes.clear()
    process.gets(TERM)
    assert notes == [(name, TERM), ("program", TERM)]
    stays.__exit__(None, None, None)
    assert process.handlers == before


def test_a_second_service_takes_what_the_first_has_taken() -> None:
    signals = signals_of(Process())
    with signals.heard(signals.choose(None), lambda number: False):
        assert signals.choose(None) == (TERM, INT, HUP)


def test_a_handler_that_the_program_installs_meanwhile_stays() -> None:
    process = Process()
    signals = signals_of(process)
    with signals.heard((TERM, INT), lambda number: False):
        process.signal(TERM, the_program)
        assert signals.held((TERM, INT)) == [INT]
    assert process.handlers[TERM] is the_program
    assert process.handlers[INT] is signal.default_int_handler


def test_a_program_that_passes_a_signal_on_may_outlive_the_service() -> None:
    """It has replaced the handler of a service and calls that one, as programs do."""
    process, notes = Process(), list[Any]()
    signals = signals_of(process)
    with signals.heard((TERM,), noting(notes, "service")):
        taken = process.handlers[TERM]

        def passing_on(number: int, frame: Any) -> None:
            notes.append("program")
            taken(number, frame)

        process.signal(TERM, passing_on)
        process.gets(TERM)
        with signals.heard(signals.choose(True), noting(notes, "another")):
            process.gets(TERM)
    process.gets(TERM)
    assert notes == ["program", ("service", TERM), ("another", TERM), "program", ("service", TERM), "program"]


def hooks_of(signals: StopSignals) -> dict[str, Any]:
    """What is called around a fork."""
    hooks: dict[str, Any] = {}
    signals.guard_forks(hooks.update)
    return hooks


def test_a_child_gets_the_programs_handlers() -> None:
    process, notes = Process(SIGUSR1=the_program), list[Any]()
    process.mask, process.wakeup = {INT}, 7
    before = dict(process.handlers)
    signals = signals_of(process)
    hooks = hooks_of(signals)
    with signals.heard((TERM, USR1), noting(notes, "service")):
        hooks["before"]()
        assert process.mask == {INT, TERM, USR1}, "a signal waits until there are handlers for it"
        hooks["after_in_child"]()
        assert (process.handlers, process.mask, process.wakeup) == (before, {INT}, -1)
        process.changed.clear()
    assert process.changed == []


def test_a_child_has_no_wakeup_socket_of_its_parent_although_the_program_replaced_a_handler() -> None:
    """Python would write the child's signals to it, and the parent would stop."""
    process = Process()
    process.wakeup = 7
    signals = signals_of(process)
    hooks = hooks_of(signals)
    with signals.heard((TERM,), lambda number: False):
        process.signal(TERM, the_program)
        hooks["before"]()
        assert process.mask == {TERM}
        hooks["after_in_child"]()
        assert (process.handlers[TERM], process.mask, process.wakeup) == (the_program, set(), -1)


def test_a_fork_changes_nothing_in_the_parent() -> None:
    process = Process()
    process.mask, process.wakeup = {INT}, 7
    signals = signals_of(process)
    hooks = hooks_of(signals)
    with signals.heard((TERM,), lambda number: False):
        during = dict(process.handlers)
        hooks["before"]()
        hooks["after_in_parent"]()
        assert (process.handlers, process.mask, process.wakeup) == (during, {INT}, 7)


@pytest.mark.parametrize("after", ["after_in_parent", "after_in_child"])
def test_two_adapters_in_one_process_do_not_disturb_each_other(after: str) -> None:
    """Python calls what was registered last first before a fork, and last after it."""
    process = Process()
    before = dict(process.handlers)
    one, two = signals_of(process), signals_of(process)
    first, second = hooks_of(one), hooks_of(two)
    with one.heard((TERM,), lambda number: False), two.heard((HUP,), lambda number: False):
        during = dict(process.handlers)
        for hook in (second["before"], first["before"], first[after], second[after]):
            hook()
        assert process.mask == set()
        assert process.handlers == (during if after == "after_in_parent" else before)


def test_a_child_of_a_program_without_services_is_left_alone() -> None:
    process = Process(SIGTERM=the_program)
    process.wakeup = 7
    hooks = hooks_of(signals_of(process))
    hooks["before"]()
    assert process.mask == set()
    hooks["after_in_child"]()
    assert (process.changed, process.mask, process.wakeup) == ([], set(), 7)


def test_a_failure_in_the_block_puts_all_back() -> None:
    process = Process()
    before = dict(process.handlers)
    with pytest.raises(OSError, match="lost"), signals_of(process).heard((TERM, INT), lambda number: False):
        raise OSError("lost")
    assert process.handlers == before


@pytest.mark.parametrize("asked", [None, True, [TERM]])
def test_in_a_simulation_no_signal_is_taken(asked: Any) -> None:
    signals = signals_of(Process())
    with no_signals():
        assert signals.choose(asked) == ()
    assert TERM in signals.choose(asked)
