"""What the parts of one simulation share: time, the faults, the story, the broker and what is noted for the checks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from eda_core.testing.simulation.bus import ALARMS, Bus
from eda_core.testing.simulation.ledger import Ledger, circle
from eda_core.testing.simulation.plan import Deviations, Fault
from eda_core.testing.simulation.schedule import Schedule
from eda_core.testing.simulation.story import Line, Story


@dataclass(slots=True, eq=False)
class World:
    """See the module.

    Attributes:
        failure: what has failed first; whoever lets time pass raises it.
        traceback: of the last handler that has failed by itself; "" if none has.
        failures: how often a message has failed in a service, by its id and the name of the service.
        failed_once: the ids of the messages whose handlers a fault has let fail.
    """

    schedule: Schedule
    deviations: Deviations
    story: Story
    bus: Bus
    ledger: Ledger
    failure: BaseException | None = None
    traceback: str = ""
    failures: Counter[tuple[str, str]] = field(default_factory=Counter)
    failed_once: set[str] = field(default_factory=set)

    def step(self) -> bool:
        """Let the next thing happen; by a fault something happens to the broker first. False if there is nothing."""
        if self.deviations.active and self.bus.up and not self.bus.alarm:
            if self.deviations.at(Fault.RESTART):
                self.bus.restart()
            elif (alarm := self.deviations.at(Fault.ALARM)) is not None:
                self.bus.begin_alarm(ALARMS[alarm.how])
        return self.schedule.step()

    def wait(self, seconds: float, is_over: Callable[[], bool] = lambda: False) -> None:
        """Let everything happen for so many seconds, or until a condition holds."""
        until = self.schedule.now + max(seconds, 0.0)
        while not is_over():
            due = self.schedule.next_time()
            if due is None or due > until:
                self.schedule.jump(until)
                return
            self.step()

    def tell(self, who: str, text: str, *, fault: bool = False) -> Line:
        """Add a line to the story."""
        return self.story.tell(self.schedule.now, who, text, fault=fault)

    def circle(self, command: str) -> str:
        """Say which command waits for a service that itself waits for it; "" if there is none."""
        return circle(self.bus.sent, self.bus.by_id, command)

    def fail(self, error: BaseException) -> None:
        """Note that something has failed, unless something else has failed before."""
        if self.failure is None:
            self.failure = error
