"""Publisher confirms: which publish a confirm is about.

Tags count from 1 on each link. Confirms come in any order, singly or for all tags up to one; a plain confirm of N says
nothing of lower tags (docs/design.rst, "Order of confirms").
"""

from __future__ import annotations

from collections import deque

from eda_core.machine.effects import Effect, Publish
from eda_core.machine.identifiers import Epoch


class Ledger:
    """The publishes that are on the link and have no answer yet, and those that are to follow.

    Args:
        window: so many at most may be on the link.

    Attributes:
        backlog: what is to be sent, in order.

    A dictionary from tag to publish, and the lowest tag that may still be in it: so a confirm of many tags costs as
    much as they are, and finding the oldest publish does not walk over the ones already removed.
    """

    __slots__ = ("_low", "_next", "_open", "_window", "backlog")

    def __init__(self, window: int) -> None:
        self._window = window
        self.backlog: deque[Publish] = deque()
        self._open: dict[int, Publish] = {}
        self._low = 1
        self._next = 1

    def __len__(self) -> int:
        return len(self._open)

    def send(self, epoch: Epoch, now: float, effects: list[Effect]) -> None:
        """Move what the window allows from the backlog to the link, which must be open and not blocked."""
        backlog, unconfirmed, tag = self.backlog, self._open, self._next
        room = self._window - len(unconfirmed)
        while backlog and room > 0:
            publish = backlog.popleft()
            publish.epoch = epoch
            publish.tag = tag
            publish.sent_at = now
            unconfirmed[tag] = publish
            effects.append(publish)
            tag += 1
            room -= 1
        self._next = tag

    def settle(self, tag: int, multiple: bool) -> list[Publish]:
        """Remove and return what the answer is about, in the order of publishing; nothing for tags that are not open.

        Tag 0 with ``multiple`` means all (AMQP 0-9-1, ``basic.ack``).
        """
        if not multiple:
            publish = self._open.pop(tag, None)
            return [] if publish is None else [publish]
        last = self._next - 1 if tag == 0 else min(tag, self._next - 1)
        settled = [
            publish for each in range(self._low, last + 1) if (publish := self._open.pop(each, None)) is not None
        ]
        self._low = max(self._low, last + 1)
        return settled

    def oldest(self) -> Publish | None:
        """The publish that has waited longest for its answer."""
        if not self._open:
            return None
        while self._low not in self._open:
            self._low += 1
        return self._open[self._low]

    def drain(self) -> list[Publish]:
        """The link is lost: remove and return what was on it, in the order of publishing, and begin anew."""
        lost = list(self._open.values())
        self._open = {}
        self._low = self._next = 1
        return lost
