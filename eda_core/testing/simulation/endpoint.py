"""The session of an endpoint in a simulation: while a caller waits, everything else in the simulation happens."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

from eda_core.drivers.blocking import BlockingDriver, BlockingLink, Record
from eda_core.machine.config import Config
from eda_core.machine.effects import Connect, Effect, Publish
from eda_core.machine.machine import Machine
from eda_core.testing.simulation.link import SimulatedLink
from eda_core.testing.simulation.world import World

_HOST: Final = "simulated"


class SessionLink(SimulatedLink):
    """A link that a caller waits for."""

    driver: SimulatedSession

    def read(self, timeout: float) -> None:
        """Wait for something from the broker."""
        self.driver.sleep(timeout)

    def look(self) -> None:
        """Do nothing: what was sent is on its way."""

    def abort(self) -> None:
        """Drop the connections without telling the machine."""
        if not self._ended:
            self.abandon(up_lost=False)
            self.up = False


class SimulatedSession(BlockingDriver):
    """See :class:`BlockingDriver`.

    Args:
        world: where it publishes.
        owner: who it is in the story.
        number: of the session in its simulation.
    """

    def __init__(self, config: Config, records: deque[Record], world: World, owner: str, number: int) -> None:
        self._world, self._owner, self._heard = world, owner, False
        own = replace(config, hostname=_HOST, pid=number, probe_interval=0.0)
        machine = Machine(own, random=lambda: 0.5, token=f"{config.service}-endpoint-{number}", wall_offset=0.0)
        super().__init__(machine, records)

    def now(self) -> float:
        return self._world.schedule.now

    def open(self, effect: Connect) -> SessionLink:
        world = self._world
        link = SessionLink(effect, self, world.bus, world.schedule, self._owner, world.fail)
        self.link: BlockingLink | None = link
        return link

    def tell(self, method: Callable[..., list[Effect]], *arguments: Any, **named: Any) -> None:
        self._heard = True
        super().tell(method, *arguments, **named)

    def sleep(self, seconds: float) -> None:
        """Let everything happen for so many seconds, or until something happens to this session."""
        self._heard = False
        self._world.wait(seconds, lambda: self._heard)

    def take_records(self) -> None:
        """As in the base class; the records have the time of the clock, and get the virtual one."""
        for _ in range(len(self._records)):
            (level, short, _), named = self._records.popleft()
            self.feed(self.machine.log(level, short, self.now(), **named))

    def report(self, level: int, text: str, event: str) -> None:
        """Write nothing: what fails is told to the caller."""

    def _perform(self, effect: Effect) -> None:
        if isinstance(effect, Publish):
            self._world.tell(self._owner, f"publishes {effect.routing_key}")
        super()._perform(effect)
