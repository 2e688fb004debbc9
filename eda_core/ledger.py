"""Publisher confirms: which publish a confirm is about.

Tags count from 1 on each link. Confirms come in any order, singly or for all tags up to one; a plain confirm of N says
nothing of lower tags (``FACTS.md``, "pika SelectConnection").
"""

from __future__ import annotations

from eda_core.effects import Publish


class Ledger:
    """The publishes of one link that have no answer yet.

    A dictionary from tag to publish, and the lowest tag that may still be in it: so a confirm of many tags costs as
    much as they are, and finding the oldest publish does not walk over the ones already removed.
    """

    __slots__ = ("_low", "_next", "_open")

    def __init__(self) -> None:
        self._open: dict[int, Publish] = {}
        self._low = 1
        self._next = 1

    def __len__(self) -> int:
        return len(self._open)

    def add(self, publish: Publish) -> None:
        """Give the publish the next tag."""
        publish.tag = self._next
        self._open[self._next] = publish
        self._next += 1

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
        """Remove and return all, in the order of publishing: the link is lost and nothing is known of them."""
        lost = list(self._open.values())
        self._open.clear()
        return lost
