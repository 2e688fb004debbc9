"""Random histories of a batch: the callback gets each event once and in order, without those that come again."""

from __future__ import annotations

from typing import Final

from hypothesis import given
from hypothesis import strategies as st

from eda_core import DEFERRED, DONE, DeliveryId, Epoch, Failed, Outcome
from tests.core.machine.batches import Batch
from tests.core.machine.test_aggregator import an_open_machine, collector, deliver, open_link

_OUTCOMES: Final[dict[str, Outcome]] = {"done": DONE, "deferred": DEFERRED, "failed": Failed("on purpose")}
#: More of what makes a history long than of what cuts it short.
_STEPS: Final = st.lists(
    st.sampled_from(
        ["begin"] * 4 + ["push"] * 2 + ["overtake"] * 2 + ["done"] * 2 + ["deferred", "failed", "cut", "expire"]
    ),
    min_size=20,
)


class History:
    """A machine, a batch, and beside them what is expected of both.

    Attributes:
        expected: what is to be handed over now, by the number of the event: whether its message is acknowledged.
        begun: handlers that have not pushed, with the link they are of.
        running: those that have, and not ended.
    """

    def __init__(self) -> None:
        self.machine = an_open_machine()
        self.got, callback = collector()
        self.batch: Batch[int] = Batch(1000, 60.0, callback)
        self.expected: dict[int, bool] = {}
        self.begun: list[tuple[DeliveryId, int, Epoch]] = []
        self.running: list[tuple[DeliveryId, int, Epoch]] = []
        self.link, self.tag, self.count, self.now = Epoch(1), 0, 0, 0.0

    def begin(self) -> None:
        self.tag, self.count = self.tag + 1, self.count + 1
        self.begun.append((deliver(self.machine, self.tag, self.link), self.count, self.link))

    def push(self, which: int = 0) -> None:
        """The oldest handler that has not pushed its message pushes it, even if its link is lost."""
        if self.begun:
            delivery, number, link = self.begun.pop(which)
            self.batch.add(self.machine, delivery, number, self.now)
            self.running.append((delivery, number, link))
            if link == self.link:
                self.expected[number] = False

    def overtake(self) -> None:
        """The latest handler that has not pushed its message pushes it."""
        self.push(-1)

    def end(self, outcome: Outcome) -> None:
        """The oldest handler that runs ends."""
        if not self.running:
            return
        delivery, number, link = self.running.pop(0)
        self.machine.handled(delivery, self.batch.handled(self.machine, delivery, outcome, self.now), self.now)
        if link == self.link and number in self.expected:
            if outcome is DONE:
                self.expected[number] = True
            elif outcome is not DEFERRED:
                del self.expected[number]

    def cut(self) -> None:
        """The link is lost, and there is a new one."""
        self.now += 100.0
        self.machine.link_down(self.link, "cut", self.now)
        self.now += 100.0
        self.machine.tick(self.now)
        self.link, self.tag = Epoch(self.link + 1), 0
        open_link(self.machine, self.link)
        self.expected = {number: True for number, acknowledged in self.expected.items() if acknowledged}

    def expire(self) -> None:
        before = len(self.got)
        self.batch.expire(self.machine, self.now)
        assert self.got[before:] == ([[*self.expected]] if self.expected else [])
        self.expected = {}
        assert len(self.batch) == 0


@given(_STEPS)
def test_a_batch_hands_over_what_is_its_to_hand_over(steps: list[str]) -> None:
    history = History()
    for step in [*steps, "expire"]:
        if step in _OUTCOMES:
            history.end(_OUTCOMES[step])
        else:
            getattr(history, step)()
    while history.begun or history.running:
        history.push()
        history.end(DEFERRED)
    history.expire()
    history.machine.stop(history.now)
    assert history.machine.state == "closing", "nothing keeps the service from stopping"
