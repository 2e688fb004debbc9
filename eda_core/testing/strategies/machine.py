"""A state machine of hypothesis that runs services in a simulation: it sends, lets time pass, and lets things fail.

It decides when what happens. What must hold, the simulation and the user say.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar, Final

from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.errors import HypothesisException
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from eda_core.errors import LocalError
from eda_core.messages.values import AnyMessage
from eda_core.testing.simulation.deployed import Deployed
from eda_core.testing.simulation.plan import ALL, Deviation, Fault, deviations
from eda_core.testing.simulation.simulation import Simulation
from eda_core.testing.strategies.malformed import Raw, malformed
from eda_core.testing.strategies.subscribed import services

Strategy = st.SearchStrategy


#: All phases except the one in which hypothesis varies a failure to explain it: that takes long, and there is a story.
_PHASES: Final = (Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink)

#: How many places a fault lets pass: it comes among few messages.
_SOON: Final = (3, 20)


class ServiceMachine(RuleBasedStateMachine):
    """A state machine that tests services. Subclass it, and give the subclass's ``TestCase`` to pytest.

    hypothesis chooses a sequence of rules: sending a message that a service subscribes to, letting time pass, letting
    everything happen, and a fault. A subclass adds rules and invariants of its own, which use ``self.sim``. At the end
    of each sequence everything that is still to happen happens, and what must hold at the end of every simulation is
    checked. A failure is shrunk, and has the story of its run as a note.

    The methods :meth:`after_each_step` and :meth:`at_the_end` are for checks.

    Attributes:
        services: the services, see :func:`eda_core.testing.simulation.simulate`.
        payloads: the payloads of some messages, see :func:`services`.
        conversations: the conversation ids of what is sent. There are few by default, so that messages meet.
        workers: how many workers each service has.
        faults: what may go wrong, such as ``NONE`` or ``ALL - {Fault.ALARM}``.
        dead_letters: the names of messages that may become dead letters, with ``*`` and ``#``.
        send_malformed: whether deliveries that are no messages come as well, see :func:`malformed`.
        quiet_within: how long to wait for the end, seconds; ``None``: until nothing is left to do. Services with timers
            that begin again and again need a number.
        virtual_clock: see :func:`eda_core.testing.simulation.simulate`.
        sim: the simulation of this sequence.

    Raises:
        LocalError: ``services`` is not set, or see :func:`services`.
    """

    services: ClassVar[Sequence[Deployed | Callable[..., Any]]] = ()
    payloads: ClassVar[Mapping[str, Any]] = {}
    conversations: ClassVar[Strategy[str]] = st.sampled_from(["c1", "c2", "c3"])
    workers: ClassVar[int] = 1
    faults: ClassVar[Iterable[Fault]] = ALL
    dead_letters: ClassVar[Sequence[str]] = ()
    send_malformed: ClassVar[bool] = False
    quiet_within: ClassVar[float | None] = None
    virtual_clock: ClassVar[bool] = False

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        test: Any = cls.TestCase
        test.settings = settings(test.settings, phases=_PHASES, print_blob=True)

    def __init__(self) -> None:
        super().__init__()
        owner = type(self)
        if (
            isinstance(owner.services, (str, Deployed))
            or not isinstance(owner.services, Sequence)
            or not owner.services
        ):
            raise LocalError(
                f"{owner.__name__}.services is {owner.services!r}, which is no list of services",
                hint="set it in the class: services = [Billing]",
            )
        _messages_of(owner)
        self.sim: Simulation = Simulation(owner.services, workers=owner.workers, virtual_clock=owner.virtual_clock)
        self.sim.__enter__()
        self.sim.invariant(self.after_each_step)
        self.sim.at_the_end(self.at_the_end)

    # For the user

    def after_each_step(self) -> None:
        """Check what must always hold: this is called after each step of the simulation. By default it does nothing."""

    def at_the_end(self) -> None:
        """Check what must hold when nothing is left to do. By default it does nothing."""

    # The rules

    @rule(message=st.runner().flatmap(lambda machine: _messages_of(type(machine))))
    def send(self, message: AnyMessage) -> None:
        """Send a message that a service subscribes to."""
        self.sim.publish(message)

    @precondition(lambda self: self.send_malformed)
    @rule(raw=st.runner().flatmap(lambda machine: _malformed_of(type(machine))))
    def send_what_is_no_message(self, raw: Raw) -> None:
        """Send something that no service can read."""
        self.sim.publish_raw(*raw)

    @rule(seconds=st.sampled_from([0.001, 0.002, 0.01, 0.1, 1.0, 10.0]))
    def let_time_pass(self, seconds: float) -> None:
        """Let happen what happens in so many seconds."""
        self.sim.run(seconds)

    @rule()
    def let_everything_happen(self) -> None:
        """Let everything happen, until nothing is left to do."""
        self.sim.run(self.quiet_within)

    @precondition(lambda self: bool(frozenset(self.faults)))
    @rule(fault=st.runner().flatmap(lambda machine: deviations(machine.faults, _SOON)))
    def let_fail(self, fault: Deviation) -> None:
        """Let something fail, soon."""
        self.sim.add_fault(fault)

    # The end

    def teardown(self) -> None:
        """End the sequence: let everything happen, and check. If it has failed, add the story."""
        error = sys.exc_info()[1]
        try:
            if error is None:
                with self.sim.explained():
                    self._finish()
            elif isinstance(error, Exception) and not isinstance(error, HypothesisException):
                self.sim.explain(error)
        finally:
            self.sim.__exit__()

    def _finish(self) -> None:
        self.sim.run(self.quiet_within)
        for name in self.dead_letters:
            self.sim.expect_dead_letter(name, at_least=0)
        if self.send_malformed:
            self.sim.expect_dead_letter("#", lambda letter: letter.message is None, at_least=0)
        self.sim.finish()


#: The strategies of each class, which take long to make.
_MESSAGES: dict[type[ServiceMachine], Strategy[AnyMessage]] = {}
_MALFORMED: dict[type[ServiceMachine], Strategy[Raw]] = {}


def _messages_of(machine: type[ServiceMachine]) -> Strategy[AnyMessage]:
    if machine not in _MESSAGES:
        _MESSAGES[machine] = services(*machine.services, payloads=machine.payloads, conversations=machine.conversations)
    return _MESSAGES[machine]


def _malformed_of(machine: type[ServiceMachine]) -> Strategy[Raw]:
    if machine not in _MALFORMED:
        _MALFORMED[machine] = malformed(*machine.services, payloads=machine.payloads)
    return _MALFORMED[machine]
